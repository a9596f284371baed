"""The trainer: paired batches, the region, and losses that do not depend on how a step is cut into micro-batches."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from scopewise import ops
from scopewise.config import LocalizeSection
from scopewise.data.batch import Batch, collate, select_rows
from scopewise.data.builtin import read_general
from scopewise.data.prompt import Encoded, Prompt, encode
from scopewise.data.rows import FORGET, RETAIN, as_rows
from scopewise.errors import ConfigError, ModelError
from scopewise.localizers.base import localize_encoded
from scopewise.methods.base import RETAIN_LOSSES, Answers, Method, make_method
from scopewise.models.adapters import Reference, frozen_reference, with_adapter
from scopewise.models.forward import answer_logits
from scopewise.models.load import load_model, load_tokenizer, with_padding
from scopewise.region import Region, parameter_name

Data = str | Path | Iterable[object]


@dataclass
class UnlearningConfig(TrainingArguments):
    """`transformers.TrainingArguments` with the paper's Table 7 as defaults, and what unlearning adds.

    A step sees `per_device_train_batch_size x gradient_accumulation_steps x processes` *rows*: half of them forget
    rows and half retain rows where the method has a retain term. How they are cut into micro-batches changes nothing.

    Attributes:
        method_args: Hyper-parameters of the method, as `docs/methods.md` lists them.
        max_length: Most tokens of prompt and answer together; longer rows are refused, never cut.
        prompt: `plain` or `chat`.
        localize: Settings of the localizer, where no region is given.
    """

    output_dir: str | None = field(default="unlearned")
    learning_rate: float = field(default=5e-5)
    num_train_epochs: float = field(default=2.0)
    per_device_train_batch_size: int = field(default=16)
    lr_scheduler_type: str = field(default="cosine")
    warmup_steps: float = field(default=0.03)
    logging_steps: float = field(default=10)
    save_strategy: str = field(default="no")
    report_to: str | list[str] | None = field(default="none")
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available)
    remove_unused_columns: bool = field(default=False)
    logging_nan_inf_filter: bool = field(default=False)
    method_args: dict[str, Any] = field(default_factory=dict)
    max_length: int = field(default=256)
    prompt: str = field(default="plain")
    localize: LocalizeSection = field(default_factory=lambda: LocalizeSection())


class UnlearningTrainer(Trainer):
    """Unlearn with any method, on any region, by `transformers.Trainer`.

    Args:
        model: A causal LM, a `PeftModel` (its adapter is trained on), or a path or hub name of either.
        method: Name of a method, or a `Method`.
        args: Training arguments; None takes the paper's.
        forget_dataset: Rows to forget: a path to JSON lines, a `datasets.Dataset`, or dicts with `question` and `answer`.
        retain_dataset: Rows to keep, of the same instances. Needed by methods with a retain term over them and by
            localizers that compare the two scopes.
        general_dataset: General text (dicts with `answer`, or `Row`s) for the out-of-distribution methods; None takes
            the text shipped with the package.
        processing_class: The tokenizer; None loads it from the model's path.
        peft_config: Adds a fresh adapter. None trains the adapter the model has, or all parameters.
        region: A `Region`, the path of a region file, or a localizer's name; None takes the method's own localizer.
        callbacks: As in `transformers.Trainer`.

    Attributes:
        method: The method.
        region: The region it trains, or None for everything.

    Raises:
        ConfigError: a method without the rows it needs, a region of another model, an odd number of rows per step.
        DataError: wrong rows.

    Example:
        >>> trainer = UnlearningTrainer("my-model", method="memflex", forget_dataset="forget.jsonl",
        ...                             retain_dataset="retain.jsonl", peft_config=LoraConfig(r=8))
        >>> trainer.train()
        >>> trainer.save_model("adapter")
    """

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the whole step's weights, not by a micro-batch's

    def __init__(
        self,
        model: str | Path | PreTrainedModel | PeftModel,
        method: str | Method = "memflex",
        args: UnlearningConfig | None = None,
        forget_dataset: Data | None = None,
        retain_dataset: Data | None = None,
        general_dataset: Data | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        region: Region | str | Path | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        args = args or UnlearningConfig()
        if isinstance(model, str | Path):
            processing_class = processing_class or load_tokenizer(model)
            model = load_model(model, trainable=True)
        if processing_class is None:
            raise ConfigError("processing_class: none given; pass the model's tokenizer")
        if forget_dataset is None:
            raise ConfigError("forget_dataset: none given; unlearning needs rows to forget")
        self.method = method if isinstance(method, Method) else make_method(method, **args.method_args)
        tokenizer = with_padding(processing_class)

        def tokenized(data: Data, scope: str) -> list[Encoded]:
            items = list(data) if not isinstance(data, str | Path) else data
            if isinstance(items, list) and items and isinstance(items[0], Encoded):
                return items  # type: ignore[return-value]
            prompt = Prompt(args.prompt)  # type: ignore[arg-type]
            return encode(as_rows(items, scope), tokenizer, prompt, args.max_length)

        forget = tokenized(forget_dataset, FORGET)
        retain = [] if retain_dataset is None else tokenized(retain_dataset, RETAIN)
        kept: Sequence[Encoded] = ()
        if self.method.retain != "none":
            if self.method.retain_data == "general":
                general = read_general() if general_dataset is None else general_dataset
                kept = tokenized(general, RETAIN)
            else:
                kept = retain
            if not kept:
                raise ConfigError("retain_dataset: none given; this method needs rows to keep, of the same instances")

        if peft_config is not None:
            model = with_adapter(model, peft_config, args.seed)
        if isinstance(model, PeftModel) and (args.activation_checkpointing or args.gradient_checkpointing):
            # Without it nothing below the first checkpoint requires a gradient, and every B stays zero.
            model.enable_input_require_grads()
        self.region = _region(region, self.method, model, forget, retain, args)
        apply_region(model, self.region)
        self._reference: Reference | None = None
        super().__init__(
            model=model,  # type: ignore[arg-type]
            args=args,
            train_dataset=Rows(forget, kept),
            data_collator=self._collate,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        self._denominators: dict[str, Tensor] = {}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train. Labels of the forget rows are made first, from the model as it is now."""
        rows = self.train_dataset
        assert isinstance(rows, Rows)
        tokenizer = self.processing_class
        rows.labels = self.method.relabel(rows.forget, self.model, len(tokenizer), self.args.seed)  # type: ignore[arg-type]
        if self.method.retain != "kl":
            return super().train(*args, **kwargs)
        with frozen_reference(self.model) as self._reference:  # type: ignore[arg-type]
            try:
                return super().train(*args, **kwargs)
            finally:
                self._reference = None

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this micro-batch's share of the step's loss; the shares of all micro-batches and processes add up.

        Raises:
            ModelError: the loss is not finite; the sentence names the step, the term and the rows.
        """
        is_forget = inputs["is_forget"]
        logits = answer_logits(model, inputs)
        # Forget rows come first (see `_collate`), so that the two terms are slices and no logits are copied.
        forget_rows = int(is_forget.sum())
        forget_tokens = int((inputs["row"] < forget_rows).sum())
        total = logits.new_zeros((), dtype=torch.float32)
        if forget_rows:
            answers = Answers(
                logits[:forget_tokens], inputs["label"][:forget_tokens], inputs["row"][:forget_tokens], forget_rows
            )
            value = self.method.forget_loss(answers)
            total = total + self.method.forget_weight * self._share("forget", value, answers, inputs["index"])
        if forget_rows < len(is_forget):
            answers = Answers(
                logits[forget_tokens:],
                inputs["label"][forget_tokens:],
                inputs["row"][forget_tokens:] - forget_rows,
                len(is_forget) - forget_rows,
            )
            reference = None
            if self.method.retain == "kl":
                if self._reference is None:
                    raise ConfigError("compute_loss: there is no reference outside of train(); call train()")
                keep = torch.arange(forget_rows, len(is_forget), device=is_forget.device)
                with self._reference() as frozen:
                    reference = answer_logits(frozen, select_rows(inputs, keep))
            value = RETAIN_LOSSES[self.method.retain](answers, reference)
            total = total + self.method.retain_weight * self._share(
                "retain", value, answers, inputs["index"][forget_rows:]
            )
        # DDP averages gradients over processes, while the shares are to be summed.
        total = total * self.accelerator.num_processes
        return (total, {"logits": logits}) if return_outputs else total

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> Any:
        """Collect the micro-batches of a step, and the sums of weights that its losses are divided by."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        sums = torch.zeros(2, device=device)
        for batch in batches:
            weight = self.method.reduction.weight(ops.token_counts(batch["row"], len(batch["is_forget"])))
            forget = batch["is_forget"].bool()
            sums += torch.stack([weight[forget].sum(), weight[~forget].sum()]).to(device)
        sums = self.accelerator.reduce(sums, "sum")
        self._denominators = {"forget": sums[0], "retain": sums[1]}
        return batches, count

    def _share(self, term: str, value: Tensor, answers: Answers, index: Tensor) -> Tensor:
        if value.shape != (answers.batch,):
            raise ModelError(f"{term} loss: shape {tuple(value.shape)}; a loss gives one value per sequence")
        if not bool(torch.isfinite(value).all()):
            bad = index[: answers.batch][~torch.isfinite(value)].tolist()
            rows = self.train_dataset
            assert isinstance(rows, Rows)
            where = ", ".join(rows.item(i).row.origin or f"row {i}" for i in bad[:5])
            raise ModelError(
                f"{term} loss: not finite at step {self.state.global_step + 1} ({where}); lower the learning rate, "
                "or check the model's weights and dtype"
            )
        weight = self.method.reduction.weight(ops.token_counts(answers.row, answers.batch))
        return (value * weight).sum() / self._denominators[term]

    def _collate(self, indices: list[int]) -> Batch:
        rows = self.train_dataset
        assert isinstance(rows, Rows)
        indices = sorted(indices, key=lambda i: i >= len(rows.forget))  # stable: forget rows first
        items = [rows.item(i) for i in indices]
        labels = [rows.labels[i] if i < len(rows.forget) else rows.item(i).answer_ids for i in indices]
        batch = collate(items, labels, pad_id=self.processing_class.pad_token_id or 0)  # type: ignore[union-attr]
        batch["index"] = torch.tensor(indices)
        batch["is_forget"] = torch.tensor([i < len(rows.forget) for i in indices])
        return batch

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        rows = self.train_dataset
        assert isinstance(rows, Rows)
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return PairedSampler(rows, per_step, self.args.data_seed or self.args.seed)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        # The trainer pickles its arguments beside the weights; what comes out of unlearning holds no pickle.
        (Path(output_dir or self.args.output_dir or ".") / "training_args.bin").unlink(missing_ok=True)


class Rows(Dataset):
    """Forget rows, then retain rows; an item is its index, and the collator does the rest."""

    def __init__(self, forget: Sequence[Encoded], retain: Sequence[Encoded]) -> None:
        self.forget = list(forget)
        self.retain = list(retain)
        self.labels = [item.answer_ids for item in self.forget]

    def __len__(self) -> int:
        return len(self.forget) + len(self.retain)

    def __getitem__(self, index: int) -> int:
        return index

    def item(self, index: int) -> Encoded:
        """Return the row of an index."""
        return self.forget[index] if index < len(self.forget) else self.retain[index - len(self.forget)]


class PairedSampler(Sampler[int]):
    """Order of one epoch: every forget row once, each with a retain row, steps of similar length.

    The i-th forget row of a shuffle is paired with the i-th retain row of another (going round where there are fewer, and
    leaving out other ones each epoch where there are more). Pairs are sorted by length within chunks of 50 steps, then
    the steps are shuffled, as `transformers` groups by length. The order depends on seed and epoch alone.

    Raises:
        ConfigError: retain rows, and an odd number of rows per step.
    """

    def __init__(self, rows: Rows, rows_per_step: int, seed: int) -> None:
        if rows.retain and rows_per_step % 2:
            raise ConfigError(
                f"batch size: {rows_per_step} rows per step; a step pairs forget with retain rows, so it must be even"
            )
        self.rows = rows
        self.per_step = rows_per_step // (2 if rows.retain else 1)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows.forget) * (2 if self.rows.retain else 1)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
        forget = rng.sample(range(len(self.rows.forget)), len(self.rows.forget))
        if self.rows.retain:
            offset, kept = len(self.rows.forget), len(self.rows.retain)
            rounds = math.ceil(len(forget) / kept)
            retain = [offset + i for _ in range(rounds) for i in rng.sample(range(kept), kept)]
            groups = [(f, r) for f, r in zip(forget, retain, strict=False)]
        else:
            groups = [(f,) for f in forget]  # type: ignore[misc]
        length = {g: max(len(self.rows.item(i)) for i in g) for g in groups}
        chunk = 50 * self.per_step
        steps = []
        for start in range(0, len(groups), chunk):
            ordered = sorted(groups[start : start + chunk], key=lambda g: -length[g])
            steps += [ordered[i : i + self.per_step] for i in range(0, len(ordered), self.per_step)]
        whole = [s for s in steps if len(s) == self.per_step]
        rng.shuffle(whole)
        for step in whole + [s for s in steps if len(s) < self.per_step]:
            # Longest first, so that micro-batches of a step are of similar length too; pairs stay adjacent.
            for group in step:
                yield from group


def apply_region(model: nn.Module, region: Region | None) -> None:
    """Let only the region's parameters require a gradient, so that nothing else is computed, stored or decayed.

    Where the model has LoRA matrices on a module that the region names by its weight, those are trained.

    Raises:
        ConfigError: the region chooses nothing, or names parameters that the model does not have.
    """
    if region is None:
        return
    present = {parameter_name(n): p for n, p in model.named_parameters()}
    chosen, missing = set(), []
    for entry in region.entries:
        if not entry.chosen:
            continue
        # A region made before the adapter was added names modules: with LoRA their A and B are what is trained.
        lora = {f"{entry.module}.lora_A.weight", f"{entry.module}.lora_B.weight"} & set(present)
        if lora and entry.name not in lora:
            chosen |= lora
        elif entry.name in present:
            chosen.add(entry.name)
        else:
            missing.append(entry.name)
    if missing:
        raise ConfigError(
            f"region: {len(missing)} of its {len(region.names)} matrices are not in this model, the first is "
            f"{min(missing)}; it was made for another model or another adapter; localize again"
        )
    if not chosen:
        raise ConfigError("region: no matrix is chosen; set 'chosen' to true for some of its entries")
    for name, parameter in present.items():
        parameter.requires_grad_(name in chosen)


def _region(
    region: Region | str | Path | None,
    method: Method,
    model: nn.Module,
    forget: Sequence[Encoded],
    retain: Sequence[Encoded],
    args: UnlearningConfig,
) -> Region | None:
    if isinstance(region, Region):
        return region
    if isinstance(region, Path) or (isinstance(region, str) and region.endswith(".json")):
        return Region.load(region)
    name = region or method.localizer
    if name == "all":
        return None
    if not retain:
        raise ConfigError(f"retain_dataset: none given; the localizer {name!r} compares both scopes")
    return localize_encoded(name, model, forget, retain, args.localize, args.seed)
