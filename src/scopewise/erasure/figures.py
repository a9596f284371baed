"""The figures that a verdict is made from, besides exposure. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from scopewise.statistics import Interval

ATTACKS = ("question", "quantization", "prompts", "sampling", "relearning")
"""Kinds of attacks on an exported model."""


@dataclass(frozen=True)
class InstanceLoss:
    """How much of one instance's retain rows is lost: share (0-1) of answer tokens, relative to the target."""

    instance: str
    rows: int
    loss: float


@dataclass(frozen=True)
class Kept:
    """Retention relative to the target.

    Attributes:
        loss: Lost share of answer tokens (target's accuracy minus the model's), mean over rows, interval over instances.
        instances: Each instance, the most damaged first.
        general: Rise of the loss on general text in nats per token, interval over texts; None without general text.
    """

    loss: Interval
    instances: tuple[InstanceLoss, ...]
    general: Interval | None = None


@dataclass(frozen=True)
class Attacked:
    """One attack with one setting.

    Attributes:
        attack: Its name.
        setting: What was done.
        leakage: Exposure under the attack over the un-attacked target's, both above chance: 0 = nothing, 1 = all that the
            target knows. Interval over instances.
        p: Probability of such ranks by chance.
        corrected: The same after Holm's correction over all settings.
    """

    attack: str
    setting: str
    leakage: Interval
    p: float
    corrected: float


@dataclass(frozen=True)
class Resisted:
    """All attacks on a model.

    Attributes:
        settings: Every attack with every setting.
        n: Instances that were tested.
        notes: What was not tested, one sentence each.
        left_out: Kinds of attacks that were not asked for.
    """

    settings: tuple[Attacked, ...]
    n: int
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def worst(self) -> Attacked | None:
        """The setting with the largest leakage."""
        return max(self.settings, key=lambda one: one.leakage.value, default=None)
