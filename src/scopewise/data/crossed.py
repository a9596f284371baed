"""Crossed questions: questions about one instance, asked about the other instances."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from scopewise.data.instances import instance_of
from scopewise.data.rows import Row


def crossed_questions(
    rows: Sequence[Row], instances: Sequence[str], known: Collection[str], most: int, seed: int
) -> list[Row]:
    """Return rows without an answer: the question of each row with another instance's name in place of its own.

    A question that does not contain its instance's name, as a word, has no crossed form. A row without an `instance` is about
    the longest name in its question.

    Args:
        rows: Rows of one scope.
        instances: The names to insert.
        known: Questions to leave out, such as those of val and of the other scope; case and punctuation do not count.
        most: Maximum number of rows; if there are more, they are drawn at random.
        seed: Seed of the draw.
    """
    seen = {plain(question) for question in (*known, *(row.question for row in rows))}
    found = []
    for row in rows:
        own = instance_of(row.instance, row.question)
        name = re.compile(rf"(?<!\w){re.escape(own)}(?!\w)")
        if own == row.question or not name.search(row.question):
            continue
        for instance in instances:
            question = name.sub(instance.replace("\\", r"\\"), row.question)
            if (words := plain(question)) not in seen:
                seen.add(words)
                origin = f"{row.origin}, about another instance"
                found.append(
                    replace(
                        row, question=question, answer="", instance=instance, alternative="", paraphrase="", perturbed=(),
                        indirect=(), paraphrased_questions=(), origin=origin,
                    )
                )  # fmt: skip
    return found if len(found) <= most else random.Random(seed).sample(found, most)


def plain(question: str) -> str:
    """Return the words of a question in lower case, by which questions are compared."""
    return " ".join(re.findall(r"\w+", question.lower()))
