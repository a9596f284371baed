"""The trainer: paired batches, the region, and losses that do not depend on the micro-batch size."""

from __future__ import annotations

import contextlib
import copy
import logging
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback
from transformers.integrations import unset_hf_deepspeed_config
from transformers.trainer import FSDP_MODEL_NAME
from transformers.trainer_utils import get_last_checkpoint
from transformers.training_args import OptimizerNames

from scopewise import ops, schemas
from scopewise.config import EarlyStoppingSection
from scopewise.data.batch import Batch, to_device
from scopewise.data.builtin import read_general
from scopewise.data.load import general_rows
from scopewise.data.paraphrases import paraphrased
from scopewise.data.prompt import Encoded, Prompt, dropped_rows, encode, warn_of_dropped
from scopewise.data.rows import FORGET, RETAIN, Row, as_rows, check_scopes
from scopewise.data.subject import subject_tokens
from scopewise.errors import ConfigError
from scopewise.files import write_json
from scopewise.localizers.base import Scopes
from scopewise.methods.base import Dual, InnerSteps, Method, make_method
from scopewise.methods.wrappers.base import Gradient, Phase, Term, Wrapper, make_wrappers
from scopewise.models.adapters import trainable_adapter, with_adapter
from scopewise.models.architecture import is_quantized
from scopewise.models.checked import biases_are_no_fault
from scopewise.models.engine import Engine
from scopewise.models.forward import Forward
from scopewise.models.kernels.compiled import compiled_blocks
from scopewise.models.load import load_model, load_tokenizer, with_padding
from scopewise.models.parallel.deepspeed import gathered_afterwards
from scopewise.models.parallel.fsdp import full_state_dict, is_sharded, load_full_state, shard_model, uses_fsdp
from scopewise.models.parallel.processes import average_gradients, gathered, on_deepspeed, sum_over_processes
from scopewise.models.precision import float32_masters
from scopewise.models.preferred_answers import preferred_answers
from scopewise.models.reference import frozen_reference
from scopewise.models.scale_change import check_scalable, scale_change, trained_state
from scopewise.models.score import hit_rate
from scopewise.models.self_questions import self_questions
from scopewise.models.vocabulary import check_vocabulary, loadable_padding, padding_id
from scopewise.region import Region
from scopewise.registry import EXACT, split_method
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.callbacks import CutBackward
from scopewise.training.early_stopping import EarlyStopping
from scopewise.training.finetune import Descent
from scopewise.training.loss import Loss, check_whole_batch
from scopewise.training.mask import RegionMask, chosen_region
from scopewise.training.progress import fault_of
from scopewise.training.sampler import (
    FORGET_GROUP,
    RETAIN_GROUP,
    PairedSampler,
    Rows,
    counted,
    part_of,
    parts_by_length,
)
from scopewise.training.step import WrappedStep
from scopewise.training.unlogged import Unlogged
from scopewise.training.zero import check_deepspeed, check_model, check_wrappers

logger = logging.getLogger("scopewise")

Data = str | Path | Iterable[object]
_STATE = "unlearning_state.json"


class UnlearningTrainer(Trainer):
    """Unlearn with any method and any region, on top of `transformers.Trainer`.

    Args:
        model: A causal LM, a `PeftModel` (whose adapter is trained further), or a path or hub name of either.
        method: Name of a method, with wrappers as in `npo+sam`; or a `Method`.
        args: Training arguments; None uses the paper's.
        forget_dataset: Rows to forget: a path to JSON lines, a `datasets.Dataset`, or dicts with `question` and
            `answer`. If rows name a scope or a split, only train rows of the forget scope are used.
        retain_dataset: Rows to keep, of the same instances, selected likewise. Required by methods with a retain term
            over them, and by localizers that compare the two scopes.
        general_dataset: General text (a path, dicts with `text`, or `Row`s) for the out-of-distribution methods; None
            uses the text shipped with the package.
        processing_class: The tokenizer; None loads it from the model's path.
        peft_config: Adds a fresh adapter. None trains the model's adapter, or else all parameters.
        region: A `Region`, the path of a region file, or a localizer's name; None uses the method's own localizer.
        callbacks: As in `transformers.Trainer`.
        wrappers: Wrappers around a `Method`.
        held_out: Questions that no self-question and no paraphrase may be.

    Attributes:
        method: The method.
        wrappers: Its wrappers, the innermost first.
        region: The region to train, or None for all parameters.
        dual: State of the dual variable for the retain loss; None if the method has a fixed weight.
        early_stopping: Early stopping, if `args.early_stopping` enables it and there are rows of both scopes.

    Raises:
        ConfigError: a method without the rows it needs, a region of another model, an odd number of rows per step.
        DataError: wrong rows.

    Example:
        >>> trainer = UnlearningTrainer("my-model", method="memflex", forget_dataset="forget.jsonl",
        ...                             retain_dataset="retain.jsonl", peft_config=LoraConfig(r=8))
        >>> trainer.train()
        >>> trainer.save_model("adapter")
    """

    args: UnlearningConfig
    loss_is_scaled_for_ga = True  # `compute_loss` divides by the weights of the whole step, not of a micro-batch

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
        wrappers: Sequence[Wrapper] = (),
        held_out: Collection[str] = (),
    ) -> None:
        args = args or UnlearningConfig()
        if args.label_smoothing_factor:
            raise ConfigError(
                f"label_smoothing_factor: {args.label_smoothing_factor}; unlearning losses have no label "
                "smoothing; leave it at 0"
            )
        if isinstance(model, str | Path):
            processing_class = processing_class or load_tokenizer(model)
            model = load_model(model, trainable=True)
        if processing_class is None:
            raise ConfigError("processing_class: none given; pass the model's tokenizer")
        if forget_dataset is None:
            raise ConfigError("forget_dataset: none given; unlearning needs rows to forget")
        if isinstance(method, str) and split_method(method)[0] in EXACT:
            raise ConfigError(
                f"method: {method!r}; it fine-tunes the base, which is not known here; run it with a run file "
                "(scopewise unlearn), or fine-tune the base on the retain rows yourself"
            )
        self.method = method if isinstance(method, Method) else make_method(method, **args.method_args)
        check_deepspeed(self.method, OptimizerNames(args.optim).value, args.weight_decay, args.early_stopping.keep_best)
        self.wrappers = make_wrappers(method, args.wrapper_args) if isinstance(method, str) else tuple(wrappers)
        for wrapper in self.wrappers:
            check_wrappers(wrapper.name, args.fp16)
            wrapper.check(self.method)
        tokenizer, settings = with_padding(processing_class), args.data_settings()

        def tokenized(data: Data, read: Callable[[Data], list[Row]]) -> list[Encoded]:
            items = list(data) if not isinstance(data, str | Path) else data
            if isinstance(items, list) and items and isinstance(items[0], Encoded):
                return items  # type: ignore[return-value]
            return encode(read(items), tokenizer, Prompt.of(settings), settings.max_length)

        forget = tokenized(forget_dataset, partial(as_rows, scope=FORGET))
        retain = [] if retain_dataset is None else tokenized(retain_dataset, partial(as_rows, scope=RETAIN))
        check_scopes(item.row for item in (*forget, *retain))
        kept: Sequence[Encoded] = ()
        if self.method.retain_terms:
            if self.method.retain_data == "general":
                general = read_general() if general_dataset is None else general_dataset
                kept = tokenized(general, general_rows)
            else:
                kept = retain
            if not kept:
                raise ConfigError("retain_dataset: none given; this method needs retain rows of the same instances")

        check_vocabulary(model, tokenizer, (*forget, *retain, *kept))
        if isinstance(model, PeftModel):
            if peft_config is not None:
                raise ConfigError(
                    "peft_config: given, but the model already has an adapter, which will be trained; leave it "
                    "out, or merge the adapter first (model.merge_and_unload())"
                )
            model = trainable_adapter(model)
        elif peft_config is not None:
            model = with_adapter(model, peft_config, args.seed)
        if self.method.change_factor != 1:
            check_scalable(model)
        for wrapper in self.wrappers:
            wrapper.check_model(model)
        if args.activation_checkpointing:
            chosen = {"use_reentrant": False, **(args.activation_checkpointing_kwargs or {})}  # type: ignore[dict-item]
            args.activation_checkpointing_kwargs = chosen
        self._loaded_dtype = model.dtype
        if uses_fsdp():  # before the first forward, by a localizer or to prepare the method's inputs
            model = shard_model(model, train=True)
            if kept and args.train_batch_size % 2:
                raise ConfigError(
                    f"batch_size: {args.train_batch_size} rows per process and micro-batch, with FSDP2; they are "
                    "pairs of a forget and a retain row, so it must be even; change batch_size or "
                    "gradient_accumulation_steps"
                )
        self.engine = Engine(model, tokenizer, settings, max_tokens=args.localize.max_tokens, kernels=args.kernels)
        self.forward = self.engine.forward
        self._wrapped: Forward | None = None
        self.region = chosen_region(region, self.method, self.engine, Scopes(forget, retain, args.seed), args.localize)
        self.mask = RegionMask(model, self.region)
        check_whole_batch(
            self.method,
            rows=args.train_batch_size,
            wrapped=bool(self.wrappers),
            expands=args.expand.retain > 0,
            splits_terms=self.mask.splits_terms,
            shared=args.world_size > 1 or uses_fsdp() or on_deepspeed(),
        )
        self._to_forget, self._to_retain, self._held_out = forget, retain, held_out
        if args.expand.retain and not self.method.retain_terms:
            raise ConfigError(
                "unlearn.expand.retain: above 0, for a method without a retain term; set 0, or unlearn.method_args.retain"
            )
        if args.expand.forget and self.method.answers_from == "row":
            raise ConfigError(
                "unlearn.expand.forget: above 0, with unlearn.method_args.alternative=row; self-questions have no "
                "'alternative'; set 0, or alternative to 'refusal' or 'generated'"
            )
        self._given_callbacks = list(callbacks or [])
        self._expanded = False
        self._memory: dict[str, Gradient] = {}
        self._step_batches: list[Batch] = []
        self._start: list[Tensor] = []
        check_model(
            model, is_quantized(model), args.mixed_precision == "bf16", bool(args.weight_decay and self.mask.masks)
        )
        self.dual: Dual | None = None
        self.early_stopping: EarlyStopping | None = None
        if args.early_stopping.rows and forget and retain:
            self.early_stopping = EarlyStopping(
                forget, retain, args.early_stopping, args.seed, self._hit_rate, self._answer_logits
            )
        watching = [
            self.mask,
            _AfterStep(self),
            CutBackward(),
            *([self.early_stopping] if self.early_stopping else []),
        ]
        super().__init__(
            model=model,  # type: ignore[arg-type]
            args=args,
            train_dataset=Rows(forget, kept),
            data_collator=self._collate,
            processing_class=tokenizer,
            callbacks=[*watching, *(callbacks or [])],
        )
        if self.is_deepspeed_enabled:  # else `transformers` would shard other models too, and synchronise generation
            unset_hf_deepspeed_config()
        if is_sharded(model):
            if not self.is_fsdp_enabled:
                raise ConfigError(
                    f"accelerate: FSDP2 on {self.args.device}; it only trains on accelerators; use ddp.yaml"
                )
            # The policy would look for blocks that are sharded already.
            self.accelerator.state.fsdp_plugin.auto_wrap_policy = None
        self._retain_loss = torch.zeros(())
        self._unlogged = Unlogged()
        self._retain_loss_before_step: float | None = None
        layer = self.method.hidden_layer(len(self.forward.blocks))
        self.loss = Loss(self.method, layer, self._where)

    # -- before and after training -------------------------------------------------------------------------------

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, after computing what depends on the model before unlearning (see `prepare`)."""
        assert isinstance(self.model, nn.Module)
        self.prepare()
        method = self.method
        before = trained_state(self.model) if method.change_factor != 1 else None
        self._memory = {}
        if any(wrapper.needs_start for wrapper in self.wrappers):
            self._start = [p.detach().clone() for p in self._trained()]
        self._load_state(kwargs.get("resume_from_checkpoint", args[0] if args else None))
        zero3 = on_deepspeed()
        before_unlearning = self.engine.forward.on(self.model, zero3=zero3)
        kernels = before_unlearning.kernels
        with (
            frozen_reference(before_unlearning)
            if method.needs_reference or self._self_made
            else contextlib.nullcontext() as self.loss.reference,
            float32_masters(self.model),
            loadable_padding(self.model),
            # The compiler fuses operations itself, so our kernels are not needed.
            compiled_blocks(self.model) if self.args.torch_compile else kernels.training(self.model),
        ):
            self.forward = before_unlearning.on(self.model, zero3=zero3)  # with the dtypes of the training
            for wrapper in self.wrappers:  # a checkpoint, loaded afterwards, has what this has changed
                wrapper.begin(dict(self.model.named_parameters()), self.mask.changeable(self.model), self.args.seed)
            try:
                result = self._train(*args, **kwargs)
            finally:
                self.loss.reference = self.loss.of_batch = None
                self.forward, self._wrapped = self.engine.forward, None
            if before is not None:
                scale_change(self.accelerator.unwrap_model(self.model), before, method.change_factor)
        for number, wrapper in enumerate(self.wrappers):
            if (phase := wrapper.then) is not None:
                self._continue(phase, f"then-{number}", bool(kwargs.get("resume_from_checkpoint", args)))
        return result

    def _continue(self, phase: Phase, name: str, resume: bool) -> None:
        """Run a second training; the log continues, and checkpoints have their own folder.

        The last checkpoint of the first training is from its end, so a resumed run only takes the missing steps.
        """
        args = copy.copy(self.args)
        args.output_dir = str(Path(str(self.args.output_dir)) / name)
        args.early_stopping = EarlyStoppingSection(rows=0)
        for key, value in phase.arguments.items():
            setattr(args, key, value)
        trainer = UnlearningTrainer(
            self.accelerator.unwrap_model(self.model),  # type: ignore[arg-type]
            phase.method,
            args,
            forget_dataset=self._to_forget,
            retain_dataset=self._to_retain,
            processing_class=self.processing_class,  # type: ignore[arg-type]
            region=self.region or "all",
            callbacks=self._given_callbacks,
            wrappers=phase.wrappers,
            held_out=self._held_out,
        )
        trainer.remove_callback(PrinterCallback)
        folder = Path(args.output_dir)
        found = (
            sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2])) if resume else []
        )
        whole = [path for path in found if fault_of(path) is None]
        trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)
        done = self.state.global_step
        self.state.log_history += [{**entry, "step": entry["step"] + done} for entry in trainer.state.log_history]

    def _train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the model is sharded by DeepSpeed only during this call."""
        if not on_deepspeed():
            return super().train(*args, **kwargs)
        self.is_deepspeed_enabled = True
        assert isinstance(self.model, nn.Module)
        with gathered_afterwards(self.model, lambda: self.model_wrapped):
            result = super().train(*args, **kwargs)
        self.model_wrapped = self.model
        self.is_deepspeed_enabled = False  # `save_model` now saves a gathered model
        return result

    def prepare(self) -> None:
        """Compute labels, preferred answers, reference NLL and budget from the current model (`train` calls this)."""
        rows, method, tokenizer = self.train_dataset, self.method, self.processing_class
        assert isinstance(rows, Rows)
        assert isinstance(tokenizer, PreTrainedTokenizerBase)
        engine = self.engine
        self._expand(rows)  # first: what follows is computed for every row
        if method.answers_from is not None and not rows.preferred:
            texts = preferred_answers(method.answers_from, rows.forget, engine, self.args.seed)
            replaced = [replace(item.row, answer=text) for item, text in zip(rows.forget, texts, strict=True)]
            # Preferred answers may be longer than the answers; generated ones are at most as long as the longest row.
            others = encode(replaced, tokenizer, engine.prompt, 2 * self.args.max_length)
            if method.trains_on == "preferred":
                rows.forget = others
            else:
                rows.preferred = others
        if self.early_stopping is not None:
            self.early_stopping.prepare()
        if method.needs_refusals and not rows.retain_preferred:
            texts = preferred_answers("refusal", rows.retain, engine, self.args.seed + 1)
            refused = [replace(item.row, answer=text) for item, text in zip(rows.retain, texts, strict=True)]
            rows.retain_preferred = encode(refused, tokenizer, engine.prompt, 2 * self.args.max_length)
        if "perturbed_logits" in method.needs:
            rows.subject = subject_tokens(rows.forget, tokenizer, engine.prompt)
        rows.labels = method.relabel(rows.forget, engine, self.args.seed)
        self.loss.statistics = method.statistics(rows.forget, engine)
        if method.whole_batch:
            self.loss.of_batch = method.batch_loss(engine, self.args)
        if "reference_nll" in method.needs:
            rows.reference_nll = engine.sequence_nll(rows.forget, "reference")
            if rows.preferred:
                rows.preferred_nll = engine.sequence_nll(rows.preferred, "reference of preferred answers")
        counts = [len(item.answer_ids) for item in rows.retain]
        true = rows.retain[: len(rows.retain) - rows.self_made]  # KL to the model itself is 0 before the first step
        self.dual = method.dual(counts, lambda: engine.sequence_nll(true, "retain loss") + [0.0] * rows.self_made)

    def _expand(self, rows: Rows) -> None:
        """Add given paraphrases, and the rows that the model generates itself, once."""
        settings = self.args.expand
        if self._expanded:
            return
        self._expanded = True
        scopes = {FORGET: [item.row for item in self._to_forget], RETAIN: [item.row for item in self._to_retain]}
        if settings.paraphrases:
            known = [*self._held_out, *(row.question for row in scopes[RETAIN])]
            rephrased = paraphrased(scopes[FORGET], known, settings.paraphrases)
            kept = self.engine.encode(rephrased, over_length="drop")
            warn_of_dropped(dropped_rows(rephrased, kept), len(rephrased))
            rows.forget += kept
        instances = sorted({row.instance for part in scopes.values() for row in part if row.instance})
        for scope, other, most in ((FORGET, RETAIN, settings.forget), (RETAIN, FORGET, settings.retain)):
            if not most:
                continue
            known = [*self._held_out, *(row.question for row in scopes[other])]
            made = self_questions(
                scopes[scope], instances, known, self.engine, most=most, max_nll=settings.max_nll, seed=self.args.seed
            )
            logger.info("self-questions: %d of the %s scope", len(made), scope)
            if scope == FORGET:
                rows.forget += made
            else:
                rows.retain += made
                rows.self_made = len(made)

    def _load_state(self, checkpoint: Any) -> None:
        """Load the state of the dual variable, early stopping and logging from a checkpoint."""
        if checkpoint is True:
            checkpoint = get_last_checkpoint(str(self.args.output_dir))
        self._unlogged = Unlogged()
        if not checkpoint:
            return
        path = Path(checkpoint) / _STATE
        kept = schemas.read(path, schemas.StateDocument) if path.exists() else {}
        if self.dual is not None and "dual" in kept:
            self.dual = replace(self.dual, **kept["dual"])
        if len(kept.get("unlogged_losses", ())) == self.args.world_size:
            self._unlogged = Unlogged(kept["unlogged_losses"][self.args.process_index], kept["unlogged_steps"])
        if self.early_stopping is not None:
            self.early_stopping.load(Path(checkpoint))

    # -- a step ---------------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> Any:
        """Collect the micro-batches of a step, and compute the denominators of its losses."""
        done = self.control.should_training_stop or self.state.global_step >= self.state.max_steps
        if self.is_in_train and done:
            # Resumed from a checkpoint of the last step: the library would take one more step before it stops.
            self.control.should_training_stop = True
            return [], None
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        inner, dual = self.method.inner if self.state.global_step else None, self.dual
        if inner is not None or dual is not None:
            # Dropout here must not advance the generators, which a resumed training restores only after this.
            with torch.random.fork_rng():
                torch.manual_seed(self.args.seed + self.state.global_step)
                if inner is not None:
                    self._inner_steps(inner, sum(int((batch["group"] == RETAIN_GROUP).sum()) for batch in batches))
                self._set_denominators(batches)
                whole = dual is not None and dual.needs_whole_loss and (len(batches) > 1 or self.args.world_size > 1)
                self._retain_loss_before_step = self._retain_loss_of(batches) if whole else None
        self._set_denominators(batches)
        self._retain_loss = torch.zeros((), device=device)
        self._step_batches = batches
        return batches, count

    def _retain_loss_of(self, batches: Sequence[Batch]) -> float:
        """Return the retain term of the whole step, on which the penalty's factor depends."""
        whole = torch.zeros((), device=self.args.device)
        with torch.no_grad():
            for batch in batches:
                kept = torch.nonzero(batch["group"] >= RETAIN_GROUP).flatten()
                if len(kept):
                    part = to_device(part_of(batch, kept), self.args.device)
                    whole = whole + self.loss(self.forward, part)[1]
        return float(self.accelerator.reduce(whole, "sum"))  # type: ignore[arg-type]

    def _set_denominators(self, batches: Sequence[Batch]) -> None:
        """Sum the weights of each term over the step's micro-batches and all processes."""
        sums = torch.zeros(2, device=self.args.device)
        for batch in batches:
            weight = self.method.weight(ops.token_counts(batch["row"], len(batch["group"]))) * counted(batch)
            forget, retain = batch["group"] == FORGET_GROUP, batch["group"] == RETAIN_GROUP
            sums += torch.stack([weight[forget].sum(), weight[retain].sum()]).to(sums.device)
        sums = self.accelerator.reduce(sums, "sum").clamp(min=1e-9)  # type: ignore[union-attr]
        self.loss.denominators = {"forget": sums[0], "retain": sums[1]}

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of a micro-batch; separately for the two terms if their regions differ.

        Wrappers see the whole step at once, at its last micro-batch.
        """
        if not self.wrappers:
            loss = self._synchronised(model, inputs, num_items_in_batch)
        elif self.accelerator.sync_gradients:
            loss = self._wrapped_step(model)
        else:
            loss = torch.zeros((), device=self.args.device)
        self._unlogged.add(loss)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss since the last log, even if the training was resumed in between.

        The library's own mean would start at the checkpoint.
        """
        if "loss" in logs:
            logs["loss"] = self._unlogged.take(self.accelerator.gather)  # type: ignore[arg-type]
        super().log(logs, start_time)

    def _synchronised(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any) -> Tensor:
        if not isinstance(model, DistributedDataParallel):
            return self._forward_and_backward(model, inputs, num_items_in_batch)
        # DDP finds the used parameters from its forward's outputs, and expects one gradient for each. Losses on hidden
        # states, chunked cross-entropy and separate backwards per term break this, so we average gradients ourselves.
        with model.no_sync():
            loss = self._forward_and_backward(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            average_gradients(model)
        return loss

    @property
    def _self_made(self) -> int:
        assert isinstance(self.train_dataset, Rows)
        return self.train_dataset.self_made

    def _trained(self) -> list[nn.Parameter]:
        assert isinstance(self.model, nn.Module)
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _wrapped_step(self, model: nn.Module) -> Tensor:
        """Compute the gradient of the whole step through the wrappers."""
        model.train()

        def begins(term: Term) -> None:
            self.mask.term = term
            if term == "retain":
                self._retain_loss = torch.zeros((), device=self.args.device)

        def value(part: Batch) -> Tensor:
            return self._weighted(*self.loss(self.forward, part))

        step = WrappedStep(
            parameters=self._trained(),
            start=self._start,
            blocks=list(self.forward.blocks),
            batches=self._step_batches,
            forget_rows=[item.row for item in self._to_forget],
            at=(self.state.global_step, self.state.max_steps),
            seed=self.args.seed,
            value=value,
            relearning=self._relearning,
            forgetting=self._forgetting,
            memory=self._memory,
            begins=begins,
            backward=self.accelerator.backward,
            sum_up=sum_over_processes,
        )
        unsynchronised = model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()
        with unsynchronised:
            loss = step.take(self.wrappers)
        return torch.tensor(loss * self.args.world_size, device=self.args.device)  # the log is a mean over processes

    @contextlib.contextmanager
    def _forgetting(self) -> Iterator[list[Callable[[], Tensor]]]:
        """Yield, for each batch of all forget rows, a function that computes its share of the forget term."""
        rows, size = self.train_dataset, self.args.train_batch_size
        assert isinstance(rows, Rows)
        count, kept = len(rows.forget), self.loss.denominators
        batches = [self._collate(list(range(i, min(i + size, count)))) for i in range(0, count, size)]
        batches = [to_device(batch, self.args.device) for batch in batches]
        self._set_denominators(batches)  # each process has the same rows, which counts in both
        try:
            yield [lambda b=batch: self._weighted(*self.loss(self.forward, b)) for batch in batches]  # type: ignore[misc]
        finally:
            self.loss.denominators = kept

    def _relearning(self, rows: Sequence[int]) -> list[Callable[[], Tensor]]:
        """Return, for each batch of some forget rows, its share of the mean CE of their true answers."""
        items = Rows([self._to_forget[i] for i in rows], [])
        descent = Loss(Descent(), None, lambda indices: f"{self._where([rows[i] for i in indices])}, relearned")
        tokens = (
            sum(len(item.answer_ids) for item in items.forget) * self.args.world_size
        )  # each process has the same rows
        descent.denominators = {"forget": torch.tensor(float(tokens), device=self.args.device)}
        pad_id = padding_id(self.model, self.processing_class)  # type: ignore[arg-type]
        size = self.args.train_batch_size
        batches = [items.collate(range(i, min(i + size, len(items))), pad_id) for i in range(0, len(items), size)]
        return [lambda b=batch: descent(self.forward, to_device(b, self.args.device))[0] for batch in batches]  # type: ignore[misc]

    def _forward_and_backward(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any) -> Tensor:
        total = torch.zeros((), device=self.args.device)
        if not self.mask.splits_terms:
            # The losses of the parts add up. But a penalty needs the retain loss of the whole micro-batch, and
            # processes that share parameters must run the same number of forwards.
            whole = (
                self.method.whole_batch or self.dual is not None or self.is_fsdp_enabled or self.is_deepspeed_enabled
            )
            for part in [inputs] if whole else parts_by_length(inputs):
                total = total + super().training_step(model, part, num_items_in_batch)
            return total
        groups = {"forget": inputs["group"] < RETAIN_GROUP, "retain": inputs["group"] >= RETAIN_GROUP}
        terms = [term for term, inside in groups.items() if bool(inside.any())]
        whole_step = self.accelerator.sync_gradients
        for term in terms:
            self.mask.term = term
            # DeepSpeed steps inside the backward, so only that of the last term may synchronise.
            self.accelerator.gradient_state._set_sync_gradients(whole_step and term == terms[-1])
            part = part_of(inputs, torch.nonzero(groups[term]).flatten())
            total = total + super().training_step(model, part, num_items_in_batch)
        return total

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this micro-batch's share of the step's loss, which is the sum over micro-batches and processes.

        Raises:
            ModelError: the loss is not finite; the message names the step, the term and the rows.
        """
        total = self._weighted(*self.loss(self._forward_of(model), inputs))
        # Gradients are averaged over processes, but the shares must be summed.
        total = total * self.accelerator.num_processes
        return (total, {}) if return_outputs else total

    def _weighted(self, forget: Tensor, retain: Tensor) -> Tensor:
        self._retain_loss = self._retain_loss + retain.detach()
        weight = self.method.retain_weight
        if self.dual is not None:
            known = self._retain_loss_before_step
            weight = self.dual.weight(float(self._retain_loss) if known is None else known)
        return self.method.forget_weight * forget + weight * retain

    def _hit_rate(self, items: Sequence[Encoded]) -> float:
        """Return the current model's teacher-forced accuracy (0-1) on some rows."""
        return hit_rate(self.forward, items)

    def _answer_logits(self, items: Sequence[Encoded]) -> Tensor:
        """Return the current model's logits at the answer tokens of some rows, in their order."""
        assert isinstance(self.model, nn.Module)
        training = self.model.training
        self.model.eval()
        rows, size = Rows(items, []), self.args.train_batch_size
        pad_id = padding_id(self.model, self.processing_class)  # type: ignore[arg-type]
        with torch.no_grad():
            batches = [rows.collate(range(i, min(i + size, len(rows))), pad_id) for i in range(0, len(rows), size)]
            found = [self.forward.logits(to_device(batch, self.args.device)) for batch in batches]
        self.model.train(training)
        return torch.cat(found)

    def _forward_of(self, model: nn.Module) -> Forward:
        """Return the forward of a wrapped model: DDP is unwrapped, a DeepSpeed engine is called."""
        model = model.module if isinstance(model, DistributedDataParallel) else model
        if model is self.forward.model:
            return self.forward
        if self._wrapped is None or self._wrapped.model is not model:
            self._wrapped = self.forward.on(model, zero3=self.forward.zero3)
        return self._wrapped

    def _inner_steps(self, inner: InnerSteps, count: int) -> None:
        """Take plain SGD steps on the retain loss before an optimiser step, with `count` rows each.

        The rows depend only on seed and step, so that a resumed training draws the same.
        """
        rows = self.train_dataset
        assert isinstance(rows, Rows)
        assert isinstance(self.model, nn.Module)
        rng = random.Random(f"{self.args.seed}/{self.state.global_step}/{self.accelerator.process_index}")
        trained = self._trained()
        self.model.train()
        self.mask.term = "retain"
        for _ in range(inner.count):
            drawn = rng.sample(range(len(rows.retain)), min(count, len(rows.retain)))
            size = self.args.train_batch_size
            batches = [
                to_device(self._collate([len(rows.forget) + i for i in drawn[start : start + size]]), self.args.device)
                for start in range(0, len(drawn), size)
            ]
            self._set_denominators(batches)
            for batch in batches:
                self.accelerator.backward(self.loss(self.forward, batch)[1] * self.accelerator.num_processes)
            if self.args.world_size > 1 and not is_sharded(self.model):
                average_gradients(self.model)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            with torch.no_grad():
                for parameter in trained:
                    if parameter.grad is not None:
                        parameter.add_(parameter.grad, alpha=-inner.learning_rate)
                        parameter.grad = None

    # -- overrides of the library's hooks -------------------------------------------------------------------------

    def _where(self, indices: Sequence[int]) -> str:
        rows = self.train_dataset
        assert isinstance(rows, Rows)
        rows_of = ", ".join(rows.item(i).row.origin or f"row {i}" for i in indices)
        return f"step {self.state.global_step + 1} ({rows_of})"

    def _collate(self, indices: list[int]) -> Batch:
        rows = self.train_dataset
        assert isinstance(rows, Rows)
        pad_id = padding_id(self.model, self.processing_class)  # type: ignore[arg-type]
        return rows.collate(indices, pad_id, last=self.loss.layer is not None)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        rows = self.train_dataset
        assert isinstance(rows, Rows)
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        together = self.args.train_batch_size * self.args.world_size if self.args.world_size > 1 else 1
        return PairedSampler(rows, per_step, self.args.data_seed or self.args.seed, together)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Exclude matrices partly in the region, whose trained entries `RegionMask` decays."""
        return [name for name in super().get_decay_parameter_names(model) if name not in self.mask.masks]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        kept = Path(resume_from_checkpoint) / f"{FSDP_MODEL_NAME}.bin"
        assert isinstance(self.model, nn.Module)
        if is_sharded(self.model) and kept.exists():
            # In the library's version, the other processes would wait for the frozen base.
            load_full_state(self.model, torch.load(kept, map_location="cpu", weights_only=True, mmap=True))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, or only its adapter. Every process has to call this."""
        model: Any = self.model
        if not is_sharded(model):
            super().save_model(output_dir, _internal_call)
            return
        state = full_state_dict(model, self._loaded_dtype)  # the library would also gather the frozen base
        if self.args.should_save:
            self._save(output_dir, state)
            if not isinstance(model, PeftModel):  # the library would save the dtype of training
                model.config.dtype = self._loaded_dtype
                model.config.save_pretrained(output_dir or self.args.output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with biases_are_no_fault():
            super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir or ".")
        # The library's trainer also pickles its arguments; our outputs contain no pickles.
        (folder / "training_args.bin").unlink(missing_ok=True)


class _AfterStep(TrainerCallback):
    """Updates the dual variable after each step, and saves our state with a checkpoint."""

    def __init__(self, trainer: UnlearningTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Update the dual variable with the retain loss of the whole step."""
        trainer = self.trainer
        if trainer.dual is not None:
            loss = float(trainer.accelerator.reduce(trainer._retain_loss, "sum"))  # type: ignore[arg-type]
            trainer.dual.update(loss, state.global_step / max(1, state.max_steps))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step."""
        self.trainer._unlogged.steps += 1

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save our state with the checkpoint."""
        unlogged, dual = self.trainer._unlogged, self.trainer.dual
        losses = gathered(float(unlogged.loss))
        if state.is_world_process_zero:
            document: dict[str, Any] = {
                "format": schemas.StateDocument.FORMAT,
                "unlogged_losses": losses,
                "unlogged_steps": unlogged.steps,
            }
            if dual is not None:
                document["dual"] = dual.document()
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / _STATE, document)
