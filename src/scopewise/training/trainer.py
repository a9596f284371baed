"""The trainer: paired batches, the region, and losses that do not depend on the micro-batch size."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback
from transformers.integrations import unset_hf_deepspeed_config
from transformers.trainer import FSDP_MODEL_NAME
from transformers.trainer_utils import get_last_checkpoint
from transformers.training_args import OptimizerNames

from scopewise.config import EarlyStoppingSection
from scopewise.data.batch import Batch
from scopewise.data.prompt import Encoded
from scopewise.data.rows import FORGET, RETAIN
from scopewise.errors import ConfigError
from scopewise.localizers.base import Scopes
from scopewise.methods.base import Dual, Method, make_method
from scopewise.methods.wrappers.base import Beginning, Gradient, Phase, Wrapper, make_wrappers
from scopewise.models.adapters import trainable_adapter, with_adapter
from scopewise.models.architecture import evaluation_mode, is_quantized
from scopewise.models.checked import without_false_alarms
from scopewise.models.engine import Engine
from scopewise.models.forward import Forward
from scopewise.models.kernels.compiled import compiled_blocks
from scopewise.models.load import load_model, load_tokenizer, with_padding
from scopewise.models.parallel.deepspeed import gathered_afterwards
from scopewise.models.parallel.fsdp import full_state_dict, is_sharded, load_full_state, shard_model, uses_fsdp
from scopewise.models.parallel.processes import average_gradients, on_deepspeed
from scopewise.models.precision import float32_masters
from scopewise.models.reference import frozen_reference
from scopewise.models.scale_change import check_scalable, scale_change, trained_state
from scopewise.models.score import hit_rate
from scopewise.models.vocabulary import check_vocabulary, loadable_padding, padding_id
from scopewise.region import Region
from scopewise.registry import EXACT, split_method
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.early_stopping import EarlyStopping
from scopewise.training.loss import check_whole_batch
from scopewise.training.mask import CutBackward, RegionMask, chosen_region
from scopewise.training.progress import checkpoints, fault_of, quiet
from scopewise.training.refusals import check_deepspeed, check_model, check_wrappers
from scopewise.training.sampler import (
    RETAIN_GROUP,
    Data,
    PairedSampler,
    Rows,
    part_of,
    parts_by_length,
    read_rows,
)
from scopewise.training.step import StepLoss, WrappedStep


class UnlearningTrainer(Trainer):
    """Unlearn with any method and any region, on top of `transformers.Trainer`.

    Args:
        model: A causal LM, a `PeftModel` (whose adapter is trained further), or a path or hub name of either.
        method: Name of a method, with wrappers as in `npo+sam`; or a `Method`.
        args: Training arguments; None uses the paper's.
        forget_dataset: Rows to forget: a file (JSON lines, CSV, Parquet), a `datasets.Dataset`, or dicts with `question` and
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
        base_model: The model before fine-tuning (or its path or hub name), for the wrapper `reset` on all parameters.

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
    model: Any
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
        base_model: str | Path | PreTrainedModel | None = None,
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
        forget, retain, kept = read_rows(
            self.method, settings, tokenizer, forget_dataset, retain_dataset, general_dataset
        )
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
            if wrapper.needs_base and base_model is None and not isinstance(model, PeftModel):
                raise ConfigError(f"base_model: none given; {wrapper.name} needs the model before fine-tuning")
        self._base_model = base_model
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
            anchors=args.expand.retain > 0 or self.method.retain_data == "both",
            splits_terms=self.mask.splits_terms,
            shared=args.world_size > 1 or uses_fsdp() or on_deepspeed(),
        )
        if args.expand.retain and not self.method.retain_terms:
            raise ConfigError(
                "unlearn.expand.retain: above 0, for a method without a retain term; set 0, or unlearn.method_args.retain"
            )
        if args.expand.forget and self.method.answers_from == "row":
            raise ConfigError(
                "unlearn.expand.forget: above 0, with unlearn.method_args.alternative=row; self-questions have no "
                "'alternative'; set 0, or alternative to 'refusal' or 'generated'"
            )
        check_model(
            model, is_quantized(model), args.mixed_precision == "bf16", bool(args.weight_decay and self.mask.masks)
        )
        self._retain, self._held_out, self._given_callbacks = retain, held_out, list(callbacks or [])
        self._memory: dict[str, Gradient] = {}
        self._start: list[Tensor] = []
        self.rows = Rows(forget, kept, len(kept) // 2 if self.method.retain_data == "both" else 0)
        self.step_loss = StepLoss(
            self.method,
            self.method.hidden_layer(len(self.forward.blocks)),
            self.rows,
            self.mask,
            args,
            padding_id(model, tokenizer),
            lambda: self.forward,
            lambda loss: self.accelerator.backward(loss),
        )
        self.loss = self.step_loss.loss
        self.early_stopping: EarlyStopping | None = None
        if args.early_stopping.rows and forget and retain:
            changed = any(wrapper.changes_start for wrapper in self.wrappers)
            self.early_stopping = EarlyStopping(
                forget, retain, args.early_stopping, args.seed, self._hit_rate, self._answer_logits, changed
            )
        watching = [
            self.mask,
            self.step_loss,
            CutBackward(),
            *([self.early_stopping] if self.early_stopping else []),
        ]
        super().__init__(
            model=model,  # type: ignore[arg-type]
            args=args,
            train_dataset=self.rows,
            data_collator=self.step_loss.collate,
            processing_class=tokenizer,
            callbacks=[*watching, *self._given_callbacks],
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

    @property
    def dual(self) -> Dual | None:
        """State of the dual variable for the retain loss; None if the method has a fixed weight."""
        return self.step_loss.dual

    # -- before and after training -------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, after computing what depends on the model before unlearning (see `prepare`)."""
        self.prepare()
        method = self.method
        before = trained_state(self.model) if method.change_factor != 1 else None
        self._memory = {}
        if any(wrapper.needs_start for wrapper in self.wrappers):
            self._start = [p.detach().clone() for p in self.step_loss.trained()]
        resumed = (
            get_last_checkpoint(str(self.args.output_dir)) if resume_from_checkpoint is True else resume_from_checkpoint
        )
        checkpoint = Path(resumed) if resumed else None
        self.step_loss.load(checkpoint)
        if checkpoint is not None and self.early_stopping is not None:
            self.early_stopping.load(checkpoint)
        zero3 = on_deepspeed()
        before_unlearning = self.engine.forward.on(self.model, zero3=zero3)
        kernels = before_unlearning.kernels
        with (
            frozen_reference(before_unlearning)
            if method.needs_reference or self.rows.anchored
            else contextlib.nullcontext() as self.loss.reference,
            float32_masters(self.model),
            loadable_padding(self.model),
            # The compiler fuses operations itself, so our kernels are not needed.
            compiled_blocks(self.model) if self.args.torch_compile else kernels.training(self.model),
        ):
            self.forward = before_unlearning.on(self.model, zero3=zero3)  # with the dtypes of the training
            region = self.mask.changeable(self.model)
            start = Beginning(dict(self.model.named_parameters()), region, self.args.seed, self._base)
            for wrapper in self.wrappers:  # a checkpoint, loaded afterwards, has what this has changed
                wrapper.begin(start)
            try:
                result = self._train(resume_from_checkpoint, *args, **kwargs)
            finally:
                self.loss.reference = self.loss.of_batch = None
                self.forward, self._wrapped = self.engine.forward, None
            if before is not None:
                scale_change(self.accelerator.unwrap_model(self.model), before, method.change_factor)
        for number, wrapper in enumerate(self.wrappers):
            if (phase := wrapper.then) is not None:
                self._continue(phase, f"then-{number}", resume=checkpoint is not None)
        return result

    def _train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the model is sharded by DeepSpeed only during this call."""
        if not on_deepspeed():
            return super().train(*args, **kwargs)
        self.is_deepspeed_enabled = True
        with gathered_afterwards(self.model, lambda: self.model_wrapped):
            result = super().train(*args, **kwargs)
        self.model_wrapped = self.model
        self.is_deepspeed_enabled = False  # `save_model` now saves a gathered model
        return result

    def _base(self) -> dict[str, Tensor]:
        """Return the trained parameters before fine-tuning, by name. A LoRA adapter had B = 0."""
        trained = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        if isinstance(self.model, PeftModel):
            return {name: torch.zeros_like(p) if "lora_B" in name else p for name, p in trained.items()}
        base = load_model(self._base_model) if isinstance(self._base_model, str | Path) else self._base_model
        assert base is not None
        values = dict(base.named_parameters())
        if other := [name for name, p in trained.items() if name not in values or values[name].shape != p.shape]:
            raise ConfigError(
                f"base_model: not the model before fine-tuning: {other[0]} is missing in it or has another shape; give the "
                "model that was fine-tuned"
            )
        return {name: values[name].detach() for name in trained}

    def _continue(self, phase: Phase, name: str, *, resume: bool) -> None:
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
            forget_dataset=self.step_loss.true_rows,
            retain_dataset=self._retain,
            processing_class=self.engine.tokenizer,
            region=self.region or "all",
            callbacks=self._given_callbacks,
            wrappers=phase.wrappers,
            held_out=self._held_out,
        )
        quiet(trainer)
        found = checkpoints(Path(args.output_dir)) if resume else []
        trainer.train(next((str(path) for path in found if fault_of(path) is None), None))
        done = self.state.global_step
        self.state.log_history += [{**entry, "step": entry["step"] + done} for entry in trainer.state.log_history]

    def prepare(self) -> None:
        """Compute labels, preferred answers, reference NLL and budget from the current model (`train` calls this)."""
        rows, method, engine = self.rows, self.method, self.engine
        scopes = {FORGET: self.step_loss.true_rows, RETAIN: self._retain}
        rows.prepare(method, engine, self.args, scopes, self._held_out)
        if self.early_stopping is not None:
            self.early_stopping.prepare()
        self.loss.statistics = method.statistics(rows.forget, engine)
        if method.whole_batch:
            self.loss.of_batch = method.batch_loss(engine, self.args)
        counts = [len(item.answer_ids) for item in rows.retain]
        true = rows.retain[: len(rows.retain) - rows.anchored]  # KL to the model itself is 0 before the first step
        self.step_loss.dual = method.dual(
            counts, lambda: engine.sequence_nll(true, "retain loss") + [0.0] * rows.anchored
        )

    # -- a step ---------------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> Any:
        """Collect the micro-batches of a step, and compute the denominators of its losses."""
        done = self.control.should_training_stop or self.state.global_step >= self.state.max_steps
        if self.is_in_train and done:
            # Resumed from a checkpoint of the last step: the library would take one more step before it stops.
            self.control.should_training_stop = True
            return [], None
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.step_loss.begin(batches, self.state.global_step)
        return batches, count

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of a micro-batch; separately for the two terms if their regions differ.

        Wrappers see the whole step at once, at its last micro-batch.
        """
        if not any(wrapper.changes_steps for wrapper in self.wrappers):
            loss = self._synchronised(model, inputs, num_items_in_batch)
        elif self.accelerator.sync_gradients:
            loss = self._wrapped_step(model)
        else:
            loss = torch.zeros((), device=self.args.device)
        self.step_loss.unlogged.add(loss)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss since the last log, even if the training was resumed in between.

        The library's own mean would start at the checkpoint.
        """
        if "loss" in logs:
            logs["loss"] = self.step_loss.unlogged.take(self.accelerator.gather)  # type: ignore[arg-type]
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

    def _wrapped_step(self, model: nn.Module) -> Tensor:
        """Compute the gradient of the whole step through the wrappers."""
        model.train()
        step = WrappedStep(self.step_loss, self._start, self._memory, self.state.max_steps)
        unsynchronised = model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()
        with unsynchronised:
            loss = step.take(self.wrappers)
        return torch.tensor(loss * self.args.world_size, device=self.args.device)  # the log is a mean over processes

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
        total = self.step_loss(self._forward_of(model), inputs)
        # Gradients are averaged over processes, but the shares must be summed.
        total = total * self.accelerator.num_processes
        return (total, {}) if return_outputs else total

    def _hit_rate(self, items: Sequence[Encoded]) -> float:
        """Return the current model's teacher-forced accuracy (0-1) on some rows."""
        return hit_rate(self.forward, items)

    def _answer_logits(self, items: Sequence[Encoded]) -> Tensor:
        """Return the current model's logits at the answer tokens of some rows, in their order."""
        collate = partial(Rows(items, []).collate, pad_id=self.step_loss.pad_id)
        with evaluation_mode(self.model), torch.no_grad():
            batches = self.step_loss.in_batches(range(len(items)), collate)
            return torch.cat([self.forward.logits(batch) for batch in batches])

    def _forward_of(self, model: nn.Module) -> Forward:
        """Return the forward of a wrapped model: DDP is unwrapped, a DeepSpeed engine is called."""
        model = model.module if isinstance(model, DistributedDataParallel) else model
        if model is self.forward.model:
            return self.forward
        if self._wrapped is None or self._wrapped.model is not model:
            self._wrapped = self.forward.on(model, zero3=self.forward.zero3)
        return self._wrapped

    # -- overrides of the library's hooks -------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        together = self.args.train_batch_size * self.args.world_size if self.args.world_size > 1 else 1
        return PairedSampler(self.rows, per_step, self.args.data_seed or self.args.seed, together)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Exclude matrices partly in the region, whose trained entries `RegionMask` decays."""
        return [name for name in super().get_decay_parameter_names(model) if name not in self.mask.masks]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        kept = Path(resume_from_checkpoint) / f"{FSDP_MODEL_NAME}.bin"
        if is_sharded(self.model) and kept.exists():
            # In the library's version, the other processes would wait for the frozen base.
            load_full_state(self.model, torch.load(kept, map_location="cpu", weights_only=True, mmap=True))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, or only its adapter. Every process has to call this."""
        model = self.model
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
        with without_false_alarms():
            super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir or ".")
        # The library's trainer also pickles its arguments; our outputs contain no pickles.
        (folder / "training_args.bin").unlink(missing_ok=True)
