"""Few-shot examples before the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge

from scopewise.attacks.base import Attack, Facts, Outcome, Suite, Work, distinctive, score_answers, words
from scopewise.data.rows import Row
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class FewShot(Attack):
    """Put questions and answers about other instances of the forget scope before the question.

    Signal: probability of the answer after each number of `examples` from the attacker's rows, and after the last of
    them from the retain scope (which only show the format). Examples that contain a distinctive word of the answer are
    not used. A row has no signal for a setting if its prompt is longer than the model's context.

    Source: in-context relearning, as in Lynch et al., arXiv:2402.16835; Shi et al., arXiv:2407.06460 (examples).

    Attributes:
        examples: Numbers of examples. Default: ours.
    """

    examples: tuple[Annotated[int, Ge(1)], ...] = (1, 4)

    name: ClassVar[str] = "few_shot"
    suite: ClassVar[Suite] = "full"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=6)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers after each number of examples."""
        facts.check_split()
        kinds = [(f"{n} of the forget scope", facts.held, n) for n in self.examples]
        kinds.append((f"{self.examples[-1]} of the retain scope", facts.retain, self.examples[-1]))
        signals, texts = {}, {}
        for setting, examples, count in kinds:
            if examples:
                asked = [_behind(examples, row, count) for row in facts.tested]
                signals[setting], texts[setting] = score_answers(subject, asked, setting)
        return Outcome(facts.tested, signals, texts)


def _behind(examples: Sequence[Row], row: Row, count: int) -> Row:
    safe = [e for e in examples if not distinctive(row) & set(words(f"{e.question} {e.answer}"))]
    shown = "".join(f"{e.question}\n\n{e.answer}\n\n" for e in sorted(safe, key=lambda e: len(e.answer))[:count])
    return replace(row, question=shown + row.question)
