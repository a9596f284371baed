"""Further rows that the model makes itself: questions about other instances, with its own confident answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from scopewise.data.crossed import crossed_questions
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.errors import DataError
from scopewise.models.engine import Engine


def self_questions(
    rows: Sequence[Row],
    instances: Sequence[str],
    known: Collection[str],
    engine: Engine,
    *,
    most: int,
    max_nll: float,
    seed: int,
) -> list[Encoded]:
    """Return crossed questions (see `crossed_questions`) with the model's greedy answers, where it is confident.

    Args:
        rows: Of one scope; the longest of their answers, and 8 tokens, is the most that is generated.
        instances: Names to put in.
        known: Questions to leave out.
        engine: Of the model before unlearning.
        most: Largest number of questions that are asked.
        max_nll: Largest mean negative log-likelihood of an answer, in nats per token, to be kept.
        seed: Of the draw of questions.

    Raises:
        DataError: no question of the rows contains the name of its instance.
    """
    asked = crossed_questions(rows, instances, known, most, seed)
    if not asked:
        raise DataError(
            f"unlearn.expand: none of {len(rows)} {rows[0].scope} rows has a question with the name of its 'instance' in it "
            "that could be asked about another; give the rows an 'instance', or set the number to 0"
        )
    prompts = engine.encode([replace(row, answer=".") for row in asked], over_length="drop")
    longest = max(len(item.answer_ids) for item in engine.encode(rows, over_length="drop"))
    texts = engine.generate([item.prompt_ids for item in prompts], longest + 8, "self-questions")
    answered = [replace(item.row, answer=text) for item, (text,) in zip(prompts, texts, strict=True) if text.strip()]
    items = engine.encode(answered, over_length="drop")
    nll = engine.sequence_nll(items, "confidence")
    return [item for item, value in zip(items, nll, strict=True) if value < max_nll * len(item.answer_ids)]
