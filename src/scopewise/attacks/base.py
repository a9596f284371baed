"""Base class of attacks: given one model, an attack returns a signal for each tested row and each setting."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, get_args

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scopewise import registry
from scopewise.attacks.leakage import Combine
from scopewise.config import AttackSection, DataSection
from scopewise.data.instances import instance_of
from scopewise.data.rows import FORGET, HOLDOUT, RETAIN, TRAIN, Benchmark, Row
from scopewise.errors import ConfigError
from scopewise.metrics.base import answer_probability
from scopewise.models.architecture import context_tokens
from scopewise.models.engine import Engine
from scopewise.models.merging import merged
from scopewise.models.score import decoded
from scopewise.settings import make

Suite = Literal["quick", "full"]


class InapplicableError(Exception):
    """An attack does not apply to a model or to the data, for the reason in the text; other attacks continue."""


@dataclass(frozen=True)
class Outcome:
    """Result of an attack on one model.

    Attributes:
        rows: The tested rows.
        signals: Setting (a strength, a prompt, a layer) → signal of each row, 0 to 1, higher = more is recovered; None
            for rows to which the setting does not apply. That depends only on the data, never on the model.
        texts: Setting → output for each row; empty if the attack yields no text.
        notes: Caveats for the reader (rows left out, a substitute used), one sentence each.
        controls: Setting → mean signal on rows that all models know, for attacks that read hidden states, which may have
            another basis in another model; empty for others.
        curves: Name → (steps, setting) of each point of a curve, for attacks that train; the first point is before the
            attack.
    """

    rows: Sequence[Row]
    signals: Mapping[str, Sequence[float | None]]
    texts: Mapping[str, Sequence[str]]
    notes: tuple[str, ...] = ()
    controls: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """The work of an attack on one model, to estimate how long a suite will take.

    Attributes:
        steps: Training steps of 16 rows.
        passes: Passes over the tested rows, such as scoring their answers once.
    """

    steps: int | float = 0
    passes: int | float = 1


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Base of all attacks: settings as fields, and `run` on one model."""

    name: ClassVar[str]
    """Its key in the table."""
    suite: ClassVar[Suite]
    """The smallest suite it belongs to."""
    combine: ClassVar[Combine] = "best"
    """How settings are combined into the leakage, for each of the three models: the `best` setting (highest mean
    signal, as an attacker would choose), the `mean` over settings (layers, prefix lengths), or `recovery`: the best setting
    of unlearned model and oracle against the first setting of the target, which is without an attack (fine-tuning, which
    damages the target too)."""
    needs_target: ClassVar[bool] = False
    """Whether it needs the weights of the model before unlearning, which only its owner has."""

    passes: ClassVar[int] = 1
    """About how many passes over the tested rows it takes on one model; `work` counts where that depends on a setting."""
    alone: ClassVar[bool] = False
    """Whether its signals can be interpreted without target and oracle."""
    chance: ClassVar[float | None] = None
    """Signal of a model that never saw the facts, if that is known without an oracle."""

    def check(self) -> None:
        """Raise ConfigError if a setting names something that does not exist."""
        return

    def identity(self) -> dict[str, Any]:
        """Return the settings that the result depends on, as in a run file: for a file its content, not its path."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=self.passes)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Attack one model, and restore it afterwards.

        Args:
            subject: Engine of the attacked model: unlearned, oracle or target.
            facts: The attacker's rows and the tested rows.
            target: Engine of the model before unlearning, for attacks that need it.

        Raises:
            InapplicableError: the attack does not apply to this model or data.
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
    """Return the engine of a model to attack, with its adapter merged into the weights.

    Since attacks lengthen prompts, rows may be three times as long as in the run, up to the model's context length.

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
    """Return the teacher-forced probability of each row's answer, and the arg-max tokens as text.

    Rows that are too long have neither.

    Args:
        engine: Of the model.
        rows: The rows.
        what: Label of the progress bar.
        begun: A prefill of the reply, which is not scored.
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
        ConfigError: unknown attack or setting (with the nearest name), a value that does not fit, or a plugin whose
            `combine` is none of ours.
    """
    made: Attack = make("attacks", name, f"attack.attack_args.{name}", arguments)
    if made.combine not in get_args(Combine):
        known = registry.allowed(str(made.combine), get_args(Combine))
        raise ConfigError(f"attack: {name!r}; {type(made).__name__}.combine is {made.combine!r}; {known}")
    return made


class Facts:
    """The attacker's rows and the tested rows, split by instance, so that no tested fact is known to the attacker.

    A split by row would leak, since val rows ask for the same facts as train rows.

    Args:
        benchmark: The rows.
        settings: Number of rows, seed, and suite.
        learning_rate: Default for attacks that fine-tune.

    Attributes:
        seed: Of the split and of the attacks.
        full: Whether the full suite is run, with more settings per attack.
        learning_rate: Default for attacks that fine-tune.
        rows: Forget rows to test in attacks that use no forget rows.
        tested: Forget rows of instances unknown to the attacker.
        held: Forget rows of instances known to the attacker.
        retain: Train rows of the retain scope, which an attacker may have.
        general: General text.
        holdout: Rows similar to the forget rows, which no model saw.
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
        """Raise InapplicableError if there are too few instances to split."""
        if not self.held or not self.tested:
            raise InapplicableError(
                "all forget rows are about one instance, so the attacker cannot hold some instances while others "
                "are tested"
            )

    def retained_of(self, row: Row) -> list[Row]:
        """Return the retain rows of the same instance."""
        return [other for other in self.retain if cluster(other) == cluster(row)]

    def distractors(self, row: Row, count: int) -> list[Row]:
        """Return forget rows of other instances, of the same attribute if there are enough, in an order set by the row.

        They are not from the retain scope, whose answers any model would recognise.
        """
        others = [r for r in self.rows if cluster(r) != cluster(row) and r.answer != row.answer]
        others.sort(key=lambda r: (r.attribute != row.attribute, _order(row.question + r.question)))
        unique = list({r.answer: r for r in others}.values())
        return unique[:count]


def cluster(row: Row) -> str:
    """Return a row's instance: from the data, else the longest name in its question, else the row itself."""
    return instance_of(row.instance, row.question)


_WORDS = """
a an the of in on at to by for from with and or but is are was were be been has have had it its he his him she her
they their this that these those as who which what where when how not no yes very also into over under after before
you your i my we our can could would will may might do does did s
"""
_COMMON = frozenset(_WORDS.split())


def distinctive(row: Row) -> frozenset[str]:
    """Return the answer's words in lower case, without common words and those of the question."""
    return frozenset(words(row.answer)) - frozenset(words(row.question)) - _COMMON


def words(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case; an e-mail address is one word."""
    return re.findall(r"[\w.+-]*@[\w.-]*\w|\w+", text.lower())


def recall(row: Row, text: str) -> float | None:
    """Return the share (0-1) of the answer's distinctive words that occur in a text; None if the answer has none."""
    wanted = distinctive(row)
    return len(wanted & set(words(text))) / len(wanted) if wanted else None


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _order(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _drawn(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Draw whole instances at random until there are at least `count` rows; return their rows in the original order."""
    taken: set[str] = set()
    total = 0
    for group in sorted({cluster(row) for row in rows}, key=lambda c: _order(f"{seed} rows {c}")):
        if total >= count:
            break
        taken.add(group)
        total += sum(cluster(row) == group for row in rows)
    return [row for row in rows if cluster(row) in taken]
