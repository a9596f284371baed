"""Arguments of the trainer: those of `transformers`, and those of unlearning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from scopewise.config import DataSection, EarlyStoppingSection, ExpandSection, LocalizeSection
from scopewise.models.parallel.processes import on_cpu
from scopewise.section import make_section


@dataclass
class UnlearningConfig(TrainingArguments):
    """`transformers.TrainingArguments` with the paper's Table 7 as defaults, and the arguments of unlearning.

    A step has `per_device_train_batch_size x gradient_accumulation_steps x processes` *rows*: half of them forget and
    half retain rows if the method has a retain term. The micro-batch size does not change results.

    Attributes:
        method_args: Hyper-parameters of the method, as `docs/methods.md` lists them.
        wrapper_args: Settings of the method's wrappers, by name.
        max_length: Maximum number of tokens of prompt and answer together; longer rows are refused, not truncated.
        prompt: `plain`, `chat`, or a text with `{question}` in it.
        system: System message of a chat.
        system_role: `system`, or `user` to put it before the question.
        localize: Settings of the localizer, if no region is given.
        expand: Settings of self-questions and paraphrases.
        early_stopping: Settings of early stopping.
        torch_compile: Compile each decoder block instead of the whole model: slow to start, faster steps afterwards.
        kernels: `auto` or `off`: whether to use the optional kernels.
    """

    output_dir: str | None = field(default="unlearned")
    use_cpu: bool = field(default_factory=on_cpu)
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
    wrapper_args: dict[str, dict[str, Any]] = field(default_factory=dict)
    max_length: int = field(default=256)
    prompt: str = field(default="plain")
    system: str | None = field(default=None)
    system_role: str = field(default="system")
    localize: LocalizeSection = field(default_factory=lambda: LocalizeSection())
    expand: ExpandSection = field(default_factory=lambda: ExpandSection())
    early_stopping: EarlyStoppingSection = field(default_factory=lambda: EarlyStoppingSection(rows=0))
    torch_compile: bool = field(default=False)
    kernels: Literal["auto", "off"] = field(default="auto")

    def __post_init__(self) -> None:
        """Check the arguments. Disable compilation by `transformers`, since the trainer compiles only the blocks."""
        compiled, self.torch_compile = self.torch_compile, False
        super().__post_init__()
        self.torch_compile = compiled

    def data_settings(self) -> DataSection:
        """Return the prompt format as a `data` section of a run file."""
        names = ("prompt", "system", "system_role", "max_length")
        return make_section(DataSection, {name: getattr(self, name) for name in names}, "data")
