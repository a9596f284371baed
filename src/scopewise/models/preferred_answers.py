"""Preferred answers for methods that need one per forget row: refusals, the rows' own, or generated ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer

from scopewise.data.builtin import read_refusals
from scopewise.data.prompt import Encoded
from scopewise.errors import DataError
from scopewise.models.engine import Engine

_TRIES = 4
_TOO_CLOSE = 0.8  # ROUGE-L recall of the answer's words, above which a sample still tells the facts


def preferred_answers(source: str, items: Sequence[Encoded], engine: Engine, seed: int) -> list[str]:
    """Return a preferred answer for each row.

    Args:
        source: `row` takes the rows' own `alternative`; `refusal` draws from the sentences shipped with the package;
            `generated` samples from the model at temperature 1, samples again what repeats the answer, and finally takes the
            answer of another row.
        items: The forget rows, tokenised.
        engine: Of the model before unlearning.
        seed: Of the random draws.

    Raises:
        DataError: `row`, and a row has no alternative.
    """
    if source == "row":
        for item in items:
            if not item.row.alternative:
                raise DataError(
                    f"{item.row.origin}: no 'alternative'; add one to each forget row, or set "
                    "unlearn.method_args.alternative to 'refusal' or 'generated'"
                )
        return [item.row.alternative for item in items]
    rng = random.Random(seed)
    if source == "refusal":
        refusals = read_refusals()
        return [rng.choice(refusals) for _ in items]
    return _generated(items, engine, rng)


def _generated(items: Sequence[Encoded], engine: Engine, rng: random.Random) -> list[str]:
    scorer = RougeScorer(["rougeL"])
    found: dict[int, str] = {}
    longest = max(len(item.answer_ids) for item in items)
    for attempt in range(_TRIES):
        missing = [i for i in range(len(items)) if i not in found]
        if not missing:
            break
        texts = engine.generate(
            [items[i].prompt_ids for i in missing],
            longest + 8,
            f"preferred answers, round {attempt + 1}",
            temperature=1.0 + 0.5 * attempt,  # at temperature 1 a model repeats the answers it memorised
            seed=rng.randrange(2**31),
        )
        for i, (text,) in zip(missing, texts, strict=True):
            if text and scorer.score(items[i].row.answer, text)["rougeL"].recall < _TOO_CLOSE:
                found[i] = text
    for i in range(len(items)):
        if i not in found:
            others = [item.row.answer for item in items if item.row.answer != items[i].row.answer]
            found[i] = rng.choice(others) if others else rng.choice(read_refusals())
    return [found[i] for i in range(len(items))]
