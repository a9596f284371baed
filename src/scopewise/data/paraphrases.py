"""Given paraphrases of questions, as rows to train on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from scopewise.data.crossed import plain
from scopewise.data.rows import Row
from scopewise.errors import ConfigError

WHERE = "unlearn.expand.paraphrases"


def paraphrased(rows: Sequence[Row], known: Collection[str], most: int) -> list[Row]:
    """Return a row for each paraphrase of a row's question, with the row's own answer.

    A question that is in `known`, in any row's `indirect`, or there already is left out; case and punctuation do not count.

    Args:
        rows: Of one scope.
        known: Questions to leave out, such as those of val and of the other scope.
        most: Maximum number of paraphrases of each row, the first ones.

    Raises:
        ConfigError: no row has one, or all are left out.
    """
    if not any(row.paraphrased_questions for row in rows):
        raise ConfigError(
            f"{WHERE}: {most}, and none of {len(rows)} {rows[0].scope} rows has 'paraphrased_questions'; give some rows a "
            "list of them, or set 0"
        )
    judged = (question for row in rows for question in (row.question, *row.indirect))
    seen = {plain(question) for question in (*known, *judged)}
    found = []
    for row in rows:
        own = [question for question in dict.fromkeys(row.paraphrased_questions) if plain(question) not in seen]
        for number, question in enumerate(own[:most]):
            seen.add(plain(question))
            origin = f"{row.origin}, paraphrase {number + 1}"
            found.append(replace(row, question=question, paraphrased_questions=(), indirect=(), origin=origin))
    if not found:
        raise ConfigError(
            f"{WHERE}: {most}, and every paraphrase is a question of val, of the other scope, of 'indirect' or of train; "
            "give others, or set 0"
        )
    return found
