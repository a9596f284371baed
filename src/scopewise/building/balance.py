"""Which wording of several is taken, so that the first words of a question tell nothing of its scope."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from scopewise.data.rows import Row


class Balance:
    """Takes, of several wordings, one whose first two words have been rarest in its scope, compared with the other scope.

    It depends on the questions before, in their order, and on nothing else; so the same instances give the same questions.
    """

    def __init__(self) -> None:
        self._count: dict[tuple[str, str], Counter[str]] = {}
        self._total: Counter[tuple[str, str]] = Counter()

    def take(self, texts: Sequence[str], split: str, scope: str, rng: random.Random) -> str:
        """Return one of the texts and count it. Draws among the best."""
        mine = self._count.setdefault((split, scope), Counter())
        rows = max(1, self._total[split, scope])
        others = [(other, key) for key, other in self._count.items() if key[0] == split and key[1] != scope]

        def surplus(text: str) -> float:
            word = first_words(text, 2)
            return mine[word] / rows - sum(c[word] / max(1, self._total[key]) for c, key in others) / max(
                1, len(others)
            )

        least = {text: round(surplus(text), 6) for text in texts}
        best = min(least.values())
        taken = rng.choice([text for text in texts if least[text] == best])
        mine[first_words(taken, 2)] += 1
        self._total[split, scope] += 1
        return taken


class FirstWords:
    """Counts how well a majority vote tells the scope of questions by their first words, fitted to the same questions."""

    def __init__(self, words: int) -> None:
        self.words = words
        self._votes: dict[tuple[str, str], Counter[str]] = {}

    def add(self, row: Row) -> None:
        """Count a row."""
        self._votes.setdefault((row.split, first_words(row.question, self.words)), Counter())[row.scope] += 1

    def accuracy(self, split: str) -> tuple[float, float]:
        """Return the accuracy of the vote and that of the more frequent scope alone, both 0 to 1; 0 without rows."""
        votes = [count for (own, _), count in self._votes.items() if own == split]
        total = sum(sum(count.values()) for count in votes)
        scopes = sum(votes, Counter[str]())
        return (sum(max(c.values()) for c in votes) / total, max(scopes.values()) / total) if total else (0.0, 0.0)


def first_words(question: str, words: int) -> str:
    """Return the first words of a question in lower case."""
    return " ".join(question.casefold().split(None, words)[:words])
