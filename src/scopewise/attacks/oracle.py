"""Check an oracle: the same architecture and tokenizer as the target, and no knowledge of the forget scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from scopewise.data.prompt import Encoded
from scopewise.errors import ModelError
from scopewise.metrics.base import ReferenceValues, Value
from scopewise.models.engine import Engine
from scopewise.models.score import Scored

_KNOWS, _AS_WELL = 0.5, 0.9
ANSWERED = 0.5
"""A base is refused for the oracle if it predicts this share of the forget rows' answers completely.

Whole answers count, since a model that never saw one still predicts many of its tokens (articles, names in the
question). Answers that are also predicted after another row's question are subtracted, so that models that were not
trained on the
rows stay near 0, even if they guess or always say the same."""
LEAST_TOKENS = 4
"""Shorter answers (yes, no, a letter) are too often right by chance."""
LEAST_ROWS = 3
"""With fewer rows, the check is skipped."""
MOST_ROWS = 200
"""Most rows to score, which give the share to within a few points."""
_WHOLE = 0.9
"""Without a target to compare with, a reference knows the forget scope if it answers at least this share."""
_ADVICE = "name one that was fine-tuned from the target's own base on the retain rows alone"


def check_alike(oracle: Engine, target: Engine) -> None:
    """Raise ModelError if an oracle has another architecture, size or tokenizer than the target."""
    check_kind(oracle.model.config, target.model.config, oracle.tokenizer, target.tokenizer)


def check_kind(
    oracle: PretrainedConfig,
    target: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    of_target: PreTrainedTokenizerBase,
) -> None:
    """Raise ModelError if two models differ in architecture, size or vocabulary.

    Args:
        oracle: Configuration of the oracle, or of the base that it is fine-tuned from.
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
        raise ModelError(f"oracle: its vocabulary differs from the target's; {_ADVICE}")


def check_ignorant(oracle: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    """Raise ModelError if the target knows the forget rows and the oracle knows them about as well.

    Args:
        oracle: Result of the attack `question`: the probability of each answer.
        target: The same for the target.
    """
    means = []
    for piece in (oracle, target):
        known = [value for value in piece["signals"]["asked"] if value is not None]
        means.append(sum(known) / len(known) if known else 0.0)
    if means[1] >= _KNOWS and means[0] >= _AS_WELL * means[1]:
        raise ModelError(
            f"oracle: gives the forget answers a probability of {means[0]:.2f}, and the target {means[1]:.2f}; it has seen "
            f"the forget rows; {_ADVICE}"
        )


def check_base(engine: Engine, forget: Sequence[Encoded], name: str, setting: str = "model.path") -> None:
    """Raise ModelError if an oracle, or the base that it is fine-tuned from, knows the forget rows.

    Args:
        engine: Of the base, or of the oracle.
        forget: Tokenised forget rows; answers of fewer than `LEAST_TOKENS` tokens are skipped.
        name: Its name in the message.
        setting: The setting that names it: `model.path` for a base, `model.oracle` for an oracle.
    """
    items = [item for item in forget if len(item.answer_ids) >= LEAST_TOKENS]
    items = items[:: -(-len(items) // MOST_ROWS) or 1]
    if len(items) < LEAST_ROWS:
        return
    away = len(items) // 2  # rows of one instance are adjacent
    others = [*items[away:], *items[:away]]
    own = [(item.prompt_ids, item.answer_ids) for item in items]
    crossed = [(item.prompt_ids, other.answer_ids) for item, other in zip(items, others, strict=True)]
    found = engine.score([*own, *crossed], "ask the forget rows", moments=False)
    right, elsewhere = (sum(map(_whole, part)) for part in (found[: len(own)], found[len(own) :]))
    if right - elsewhere >= ANSWERED * len(items):
        after = f" ({elsewhere} after another question)" if elsewhere else ""
        said = f"{setting}: {name} predicts the whole answer of {right} of {len(items)} forget rows{after}"
        if setting == "model.oracle":
            raise ModelError(f"{said}; it has seen the forget rows; {_ADVICE}")
        raise ModelError(
            f"{said} before any training; an oracle fine-tuned from it would know the forget rows; set model.path "
            "to a model that was not trained on them, or bench.oracle=false for no oracle"
        )


def _whole(answer: Scored) -> bool:
    return all(answer.without_end().hits)


def knowing(reference: ReferenceValues) -> str | None:
    """Return a warning if a reference knows the forget scope, which it should never have seen; else None.

    It is compared with the model before unlearning if that is given, and else with a fixed share.
    """
    for key, value in reference.values.items():
        known, most = _known(key, value), _known(key, reference.target.get(key))
        if known is None:
            continue
        if most is None and known >= _WHOLE:
            return f"{key} of the reference says that it answers {100 * known:.0f} % of the forget scope; {_UNFIT}"
        if most is not None and most >= _KNOWS and known >= _AS_WELL * most:
            return (
                f"{key} says that the reference answers {100 * known:.0f} % of the forget scope, and the model before "
                f"unlearning {100 * most:.0f} %; {_UNFIT}"
            )
    return None


_UNFIT = "distances to it say nothing; give the evaluation of a model that never saw the forget scope"


def _known(key: str, value: Value | None) -> float | None:
    """Return the known share (0-1) of the forget scope according to a metric; None for other metrics."""
    name, _, part = key.partition("/")
    if value is None or value.value is None or "+" in part or "." in part:
        return None
    if name == "unlearn_success":
        return 1 - value.value / 100
    return value.value if name in ("probability", "exact_memorization") and part.startswith("forget") else None
