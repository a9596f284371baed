"""The contract of an attack: one model in, a signal for each tested row out, under each setting that was tried."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scopewise.attacks.leakage import Combine
from scopewise.config import AttackSection, DataSection
from scopewise.data.rows import FORGET, HOLDOUT, RETAIN, TRAIN, Benchmark, Row
from scopewise.metrics.base import answer_probability
from scopewise.models.architecture import context_tokens
from scopewise.models.engine import Engine
from scopewise.models.merging import merged
from scopewise.models.score import decoded
from scopewise.settings import make

Suite = Literal["quick", "full"]


class InapplicableError(Exception):
    """An attack does not apply to a model or to the data. The text says why; the other attacks go on."""


@dataclass(frozen=True)
class Outcome:
    """What one model gave under an attack.

    Attributes:
        rows: The tested rows.
        signals: Setting (a strength, a prompt, a layer) → signal of each row, 0 to 1, higher = more of the secret came out;
            None where a row has no such question. Which rows are None depends on the data alone, never on the model.
        texts: Setting → what came out, for each row; empty where the attack yields no text.
        notes: What a reader has to know (rows left out, a stand-in used), one sentence each.
    """

    rows: Sequence[Row]
    signals: Mapping[str, Sequence[float | None]]
    texts: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Base of all attacks: settings as fields, and `run` on one model."""

    name: ClassVar[str]
    """Its key in the table."""
    suite: ClassVar[Suite]
    """The smallest suite it belongs to."""
    combine: ClassVar[Combine] = "best"
    """What the leakage is read from, for each of the three models alike: the `best` setting (highest mean signal; an attacker
    keeps what works), the `mean` over settings (layers, prefix lengths), or the `last` under which target and oracle still
    differ (steps of fine-tuning, which change the anchors too)."""
    needs_target: ClassVar[bool] = False
    """Whether it needs the weights of the model before unlearning, which an outsider does not have."""

    def check(self) -> None:
        """Raise ConfigError where a setting names something that is not there."""
        return

    def identity(self) -> dict[str, Any]:
        """Return the settings as they decide what comes out: of a file its content, not its path."""
        return asdict(self)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Attack one model; it is left as it was.

        Args:
            subject: Of the model under attack: unlearned, oracle or target.
            facts: What the attacker holds and what he is tested on.
            target: Of the model before unlearning, for the attacks that need it.

        Raises:
            InapplicableError: it does not apply to this model or these data.
        """
        raise NotImplementedError


def attacked_engine(
    name: str,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    data: DataSection | None = None,
    *,
    max_tokens: int = 4096,
    kernels: Literal["auto", "off"] = "auto",
) -> Engine:
    """Return the engine of a model under attack: its adapter merged, since what is attacked is one set of weights.

    Attacks lengthen prompts: three times the run's length is allowed, as far as the model's own context goes.

    Args:
        name: For the progress bars.
        model: The model; an adapter is merged into it.
        tokenizer: Its tokenizer.
        data: The run's prompt format and length.
        max_tokens: Padded tokens per batch.
        kernels: As in `Engine`.
    """
    whole: Any = merged(model) if isinstance(model, PeftModel) else model
    data = data or DataSection()
    longest = min(3 * data.max_length, context_tokens(whole) or 10**9)
    settings = data.model_copy(update={"max_length": longest, "over_length": "error"})
    whole = whole.eval().requires_grad_(False)
    return Engine(whole, tokenizer, settings, max_tokens=max_tokens, kernels=kernels, name=name)


def score_answers(
    engine: Engine, rows: Sequence[Row], what: str, begun: str = ""
) -> tuple[list[float | None], list[str]]:
    """Return the probability of each row's answer under teacher forcing, and the arg-max tokens as text.

    A row whose prompt does not fit has neither.

    Args:
        engine: Of the model that is asked.
        rows: The rows.
        what: For the progress bar.
        begun: The beginning of the reply, put into the model's mouth and not scored.
    """
    items = engine.encode(rows, over_length="drop", begun=begun)
    scored = engine.score([item.pair for item in items], what)
    texts = decoded(engine.tokenizer, [s.predicted_ids for s in scored])
    found = {
        id(item.row): (answer_probability(s.log_probs), text)
        for item, s, text in zip(items, scored, texts, strict=True)
    }
    both = [found.get(id(row), (None, "")) for row in rows]
    return [signal for signal, _ in both], [text for _, text in both]


def make_attack(name: str, **arguments: Any) -> Attack:
    """Build an attack by name.

    Raises:
        ConfigError: unknown attack or setting (with the nearest name), or a value that does not fit.
    """
    made: Attack = make("attacks", name, f"attack.attack_args.{name}", arguments)
    return made


class Facts:
    """What the attacker holds, and what he is tested on, split by instance: no fact under test is among those he holds.

    A split by row would not do: the val rows ask for the same facts as the train rows.

    Args:
        benchmark: The rows.
        settings: How many rows, the seed, and the suite.
        learning_rate: That an attacker fine-tunes with who sets none.

    Attributes:
        seed: Of the split, and of what an attack draws.
        full: Whether the full suite is run, with more of each attack.
        learning_rate: That an attacker fine-tunes with who sets none.
        rows: Forget rows that are tested where the attacker holds nothing.
        tested: Forget rows of the instances he does not hold.
        held: Forget rows of the instances he holds.
        retain: Train rows of the retain scope, which are lawful to have.
        general: Text of no scope.
        holdout: Rows like the forget rows that no model saw.
    """

    def __init__(self, benchmark: Benchmark, settings: AttackSection, learning_rate: float = 5e-5) -> None:
        self.seed, self.full, self.learning_rate = settings.seed, settings.suite == "full", learning_rate
        seed = settings.seed
        everything = benchmark.select(FORGET)
        self.rows = everything if len(everything) <= settings.rows else _drawn(everything, settings.rows, seed)
        groups = sorted({cluster(row) for row in self.rows}, key=lambda c: _order(f"{seed} {c}"))
        held = set(groups[: len(groups) // 2])
        self.held = [row for row in self.rows if cluster(row) in held]
        self.tested = [row for row in self.rows if cluster(row) not in held]
        self.retain = benchmark.select(RETAIN, TRAIN)
        self.general = list(benchmark.general)
        self.holdout = benchmark.select(HOLDOUT)

    def check_split(self) -> None:
        """Raise InapplicableError where there are too few instances to hold some and to test others."""
        if not self.held or not self.tested:
            raise InapplicableError("the forget rows are about one instance; none can be held while others are tested")

    def retained_of(self, row: Row) -> list[Row]:
        """Return the retain rows of a row's own instance."""
        return [other for other in self.retain if cluster(other) == cluster(row)]

    def distractors(self, row: Row, count: int) -> list[Row]:
        """Return forget rows of other instances, of the same attribute where there are enough, in an order of the row's own.

        They are of the forget scope too: an answer of the retain scope would be recognised by any model.
        """
        others = [r for r in self.rows if cluster(r) != cluster(row) and r.answer != row.answer]
        others.sort(key=lambda r: (r.attribute != row.attribute, _order(row.question + r.question)))
        unique = list({r.answer: r for r in others}.values())
        return unique[:count]


def cluster(row: Row) -> str:
    """Return the instance a row is about: as the data say, else the longest name in its question, else the row itself."""
    if row.instance:
        return row.instance
    names = re.findall(r"[A-Z][\w’-]+(?:\s+(?:of|the|de|van|and)?\s*[A-Z][\w’-]+)+", row.question)
    return max(names, key=len).removesuffix("'s") if names else row.question


_COMMON = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "to",
        "by",
        "for",
        "from",
        "with",
        "and",
        "or",
        "but",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "has",
        "have",
        "had",
        "it",
        "its",
        "he",
        "his",
        "him",
        "she",
        "her",
        "they",
        "their",
        "this",
        "that",
        "these",
        "those",
        "as",
        "who",
        "which",
        "what",
        "where",
        "when",
        "how",
        "not",
        "no",
        "yes",
        "very",
        "also",
        "into",
        "over",
        "under",
        "after",
        "before",
        "you",
        "your",
        "i",
        "my",
        "we",
        "our",
        "can",
        "could",
        "would",
        "will",
        "may",
        "might",
        "do",
        "does",
        "did",
        "s",
    ]
)


def distinctive(row: Row) -> frozenset[str]:
    """Return the words of the answer, in lower case, that neither stand in the question nor are common ones."""
    return frozenset(words(row.answer)) - frozenset(words(row.question)) - _COMMON


def words(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case; an email address is one."""
    return re.findall(r"[\w.+-]*@[\w.-]*\w|\w+", text.lower())


def recall(row: Row, text: str) -> float | None:
    """Return the share (0-1) of the answer's distinctive words that a text has; None where the answer has none."""
    wanted = distinctive(row)
    return len(wanted & set(words(text))) / len(wanted) if wanted else None


def _order(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _drawn(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Return whole instances, in a seeded order, until there are `count` rows; in the rows' own order."""
    taken: set[str] = set()
    total = 0
    for group in sorted({cluster(row) for row in rows}, key=lambda c: _order(f"{seed} rows {c}")):
        if total >= count:
            break
        taken.add(group)
        total += sum(cluster(row) == group for row in rows)
    return [row for row in rows if cluster(row) in taken]
