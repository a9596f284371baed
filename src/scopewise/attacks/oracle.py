"""Whether a model can be the oracle of a target: of its kind, and without what is to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from scopewise.attacks.base import Subject
from scopewise.errors import ModelError

_KNOWS, _AS_WELL = 0.5, 0.9
_ADVICE = "name one that was fine-tuned from the target's own base on the retain rows alone"


def check_alike(oracle: Subject, target: Subject) -> None:
    """Raise ModelError where an oracle has another architecture, size or tokenizer than the target: it measures that."""
    check_kind(oracle.model.config, target.model.config, oracle.tokenizer, target.tokenizer)


def check_kind(
    oracle: PretrainedConfig,
    target: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    of_target: PreTrainedTokenizerBase,
) -> None:
    """Raise ModelError where two models differ in architecture, size or vocabulary.

    Args:
        oracle: Configuration of the oracle, or of the base that it will be made from.
        target: Configuration of the target.
        tokenizer: The oracle's.
        of_target: The target's.
    """
    one, other = oracle.get_text_config(), target.get_text_config()
    for field in ("model_type", "num_hidden_layers", "hidden_size"):
        given, wanted = getattr(one, field, None), getattr(other, field, None)
        if given != wanted:
            raise ModelError(f"oracle: {field} {given}, and {wanted} of the target; {_ADVICE}")
    if tokenizer.get_vocab() != of_target.get_vocab():
        raise ModelError(f"oracle: another vocabulary than the target's; {_ADVICE}")


def check_ignorant(oracle: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    """Raise ModelError where an oracle knows the forget rows about as well as a target that knows them.

    Args:
        oracle: What the attack `question` gave: the probability of each answer.
        target: The same of the target.
    """
    means = []
    for piece in (oracle, target):
        known = [value for value in piece["signals"]["asked"] if value is not None]
        means.append(sum(known) / len(known) if known else 0.0)
    if means[1] >= _KNOWS and means[0] >= _AS_WELL * means[1]:
        raise ModelError(
            f"oracle: gives the forget answers a probability of {means[0]:.2f}, and the target {means[1]:.2f}; it has seen "
            f"what is to be forgotten; {_ADVICE}"
        )
