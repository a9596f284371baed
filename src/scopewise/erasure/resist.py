"""Resistance: how much of the forgotten facts attacks bring back, measured by exposure and so without an oracle."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from scopewise.attacks.base import Facts
from scopewise.attacks.prompts import Prompts
from scopewise.attacks.quantization import round_symmetric, rounded
from scopewise.attacks.relearning import attacker, trained
from scopewise.attacks.weights import block_weights
from scopewise.config import AttackSection
from scopewise.data.candidates import own_words, same_kind
from scopewise.data.facts import LEAST_ANSWERS, Fact
from scopewise.data.rows import Benchmark, Row
from scopewise.erasure.figures import ATTACKS, Attacked, Resisted
from scopewise.errors import ModelError
from scopewise.exposure import answer_scores, expose, exposure_of
from scopewise.models.engine import Engine
from scopewise.ranks import Exposure
from scopewise.statistics import Interval, estimate, holm

FACTS = {"exact": 32, "approximate": 64}
"""Kind of the plan → facts that are tested at most: an approximate method is judged by its intervals, which need more."""
DRAWS = {"exact": 1, "approximate": 3}
"""Kind of the plan → how often the facts are halved for relearning, for the same reason."""
OF_OTHERS = "forget rows of others"
"""Relearning on forget rows."""


@dataclass(frozen=True)
class ResistSettings:
    """Which attacks, and how strong.

    Attributes:
        attacks: Of `ATTACKS`.
        learning_rates: Of relearning; the rate that taught the target is a good middle.
        steps: Of relearning.
        batch_size: Rows of a step.
        samples: Answers that are drawn for each question.
        facts: Facts that are tested at most, of as many instances as possible.
        names: Names to compare with.
        draws: How often the facts are halved for relearning on forget rows; their mean counts.
        seed: Of all draws.
    """

    attacks: tuple[str, ...] = ATTACKS
    learning_rates: tuple[float, ...] = (1e-5, 5e-5, 2e-4)
    steps: int = 20
    batch_size: int = 16
    samples: int = 8
    facts: int = 32
    names: int = 2
    draws: int = 1
    seed: int = 0


def settings_of(kind: str, attacks: tuple[str, ...], finetuning: float, seed: int) -> ResistSettings:
    """Return the settings for a kind of plan; the learning rates of relearning follow from that of the fine-tuning."""
    rates = finetuning / 10, finetuning / 3, finetuning
    return ResistSettings(attacks, rates, facts=FACTS[kind], draws=DRAWS[kind], seed=seed)


def resist(
    engine: Engine,
    target: Engine,
    facts: Sequence[Fact],
    retain: Sequence[Row],
    general: Sequence[Row],
    settings: ResistSettings | None = None,
    copies: Iterable[tuple[str, Callable[[], Engine]]] = (),
    made: Callable[[Trial], Exposure | None] = lambda trial: trial.measure(),
) -> Resisted:
    """Attack a model in several ways, and measure the exposure of its facts under each.

    Leakage of an attack = mean `known` under it / mean `known` of the target without an attack, on the same facts. Both are
    0 by chance. Relearning trains on retain rows, on general text, and on forget rows: those of one half of the instances
    (of the facts, where there is one instance), while the other half is tested, and the other way round.

    Args:
        engine: Of the model, its adapter merged; its weights are restored.
        target: Of the model before unlearning.
        facts: From `facts_of`.
        retain: Retain rows.
        general: Texts without a question.
        settings: Which attacks, and how strong.
        copies: Name of each quantized copy that is given away with the model, such as a GGUF file, and a function that loads
            it; they are settings of the attack `quantization`.
        made: Makes a trial, or returns what it gave before an interruption.

    Returns:
        No settings, and a note, if the target does not know the facts: then there is no scale.
    """
    settings = settings or ResistSettings()
    tested = lighter(facts, settings)
    before = expose(target, tested, seed=settings.seed)
    left_out = tuple(name for name in ATTACKS if name not in settings.attacks)
    found, notes = [], [f"{name}: not run." for name in left_out]
    if "relearning" in settings.attacks and not all(halves(facts, settings.seed)):
        notes.append(f"relearning, {OF_OTHERS}: not run, since there is one fact only.")
    every = [*trials(engine, tested, facts, retain, general, settings)]
    if "quantization" in settings.attacks:
        every += [
            Trial("quantization", name, tested, partial(_exposed_copy, load, tested, settings.seed))
            for name, load in copies
        ]
    for trial in every:
        if (exposure := made(trial)) is None:
            notes.append(f"{trial.attack}, {trial.setting}: the attacked model's logits are not numbers.")
        elif 2 * len(exposure.facts) >= len(tested):
            found.append((trial.attack, trial.setting, exposure))
    return replace(resisted(before, found, notes), left_out=left_out)


def resisted(before: Exposure, found: Sequence[tuple[str, str, Exposure]], notes: Sequence[str] = ()) -> Resisted:
    """Return the leakage of each attack from exposures.

    Args:
        before: Of the target, without an attack.
        found: Name, setting, and exposure of the attacked model, on all facts of `before` or on some. Of the draws of one
            setting, the mean counts.
        notes: What was not tested.
    """
    if before.known.value <= 0:
        return Resisted((), 0, (*notes, "The target does not know the facts, so that leakage has no scale."))
    known = {fact.fact.row: fact.known for fact in before.facts}
    draws: dict[tuple[str, str], list[Exposure]] = {}
    for attack, setting, exposure in found:
        draws.setdefault((attack, setting), []).append(exposure)
    values = [_p_of_draws([one.p for one in several]) for several in draws.values()]
    results = []
    for ((attack, setting), several), p, corrected in zip(draws.items(), values, holm(values), strict=True):
        together = Exposure(tuple(fact for one in several for fact in one.facts))
        leaked = leakage(together, [known[fact.fact.row] for fact in together.facts])
        results.append(Attacked(attack, setting, leaked, p, corrected))
    return Resisted(tuple(results), len(before.instances), tuple(notes))


def _p_of_draws(values: Sequence[float]) -> float:
    """Return one p-value for several that depend on each other: twice their mean (Vovk & Wang, arXiv:1212.4966)."""
    return values[0] if len(values) == 1 else min(1.0, 2 * sum(values) / len(values))


def leakage(exposure: Exposure, known: Sequence[float]) -> Interval:
    """Return mean `known` under an attack over the target's, with a t interval over instances (linearised ratio).

    Args:
        exposure: Under the attack.
        known: The target's `known` of the same facts, without an attack.
    """
    attacked, before = np.array([fact.known for fact in exposure.facts]), np.array(known)
    ratio = attacked.mean() / before.mean()
    names = list(dict.fromkeys(fact.fact.instance for fact in exposure.facts))
    values = ratio + (attacked - ratio * before) / before.mean()
    return estimate(values[None], np.array([names.index(fact.fact.instance) for fact in exposure.facts])).interval()


@dataclass(frozen=True)
class Trial:
    """An attack with one setting; not made yet.

    Attributes:
        attack: Its name.
        setting: Its setting. One with several draws has a trial for each.
        facts: The facts whose exposure is measured, in order.
        measure: Makes it, and returns the exposure; None of a model that it makes diverge.
        draw: Number of the draw.
    """

    attack: str
    setting: str
    facts: Sequence[Fact]
    measure: Callable[[], Exposure | None]
    draw: int = 0


def trials(
    engine: Engine,
    tested: Sequence[Fact],
    facts: Sequence[Fact],
    retain: Sequence[Row],
    general: Sequence[Row],
    settings: ResistSettings,
) -> Iterator[Trial]:
    """Yield the trials of all attacks.

    Args: as `resist`, with `tested`, the facts whose exposure is measured.
    """
    if "question" in settings.attacks:
        yield Trial("question", "as asked", tested, partial(_exposed, engine, tested, settings.seed))
    if "quantization" in settings.attacks:
        yield from _quantized(engine, tested, settings)
    if "prompts" in settings.attacks:
        yield from _prompted(engine, tested, retain, general, settings)
    if "sampling" in settings.attacks:
        sampled = partial(_sampled, engine, tested, settings)
        yield Trial("sampling", f"best of {settings.samples}", tested, sampled)
    if "relearning" in settings.attacks:
        for rate in settings.learning_rates:
            for draw in range(settings.draws):
                yield from _relearned_in_halves(engine, tested, facts, rate, settings, draw)
            for name, rows in (("retain rows", retain), ("general text", general)):
                if rows:
                    relearned = partial(_relearned, engine, rows, name, tested, rate, settings)
                    yield Trial("relearning", _said(name, rate, settings), tested, relearned)


def _exposed(engine: Engine, facts: Sequence[Fact], seed: int, begun: str = "") -> Exposure | None:
    try:
        return exposure_of(facts, answer_scores(engine, facts, begun), seed)
    except ModelError:  # a logit is not a number
        return None


def _exposed_copy(load: Callable[[], Engine], facts: Sequence[Fact], seed: int) -> Exposure | None:
    return _exposed(load(), facts, seed)


def _quantized(engine: Engine, facts: Sequence[Fact], settings: ResistSettings) -> Iterator[Trial]:
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "int8": lambda w: rounded(w, "int8"),
        "int4": lambda w: round_symmetric(w, 4, 64),
        "nf4": lambda w: rounded(w, "nf4"),
    }

    def exposed(change: Callable[[Tensor], Tensor]) -> Exposure | None:
        with engine.lend() as model, torch.no_grad():
            for weight in block_weights(model).values():
                weight.copy_(change(weight.float()))
            return _exposed(engine, facts, settings.seed)

    for name, change in changes.items():
        yield Trial("quantization", name, facts, partial(exposed, change))


def _prompted(
    engine: Engine, facts: Sequence[Fact], retain: Sequence[Row], general: Sequence[Row], settings: ResistSettings
) -> Iterator[Trial]:
    benchmark = Benchmark("request", (*[fact.row for fact in facts], *retain), tuple(general))
    lawful = Facts(benchmark, AttackSection(seed=settings.seed))
    for template in Prompts().templates():
        asked = [(fact, row) for fact in facts if (row := template.row(fact.row, lawful)) is not None]
        prompted = [replace(fact, questions=(row.question,)) for fact, row in asked]
        fitting = {item.row.question for item in engine.encode([row for _, row in asked], over_length="drop")}
        prompted = [fact for fact in prompted if fact.questions[0] in fitting]
        if prompted:
            exposed = partial(_exposed, engine, prompted, settings.seed, template.start)
            yield Trial("prompts", template.name, prompted, exposed)


def _sampled(engine: Engine, facts: Sequence[Fact], settings: ResistSettings) -> Exposure:
    """Rank answers by the largest share of their own words that one of the drawn texts contains."""
    items = engine.encode([fact.row for fact in facts])
    longest = max(len(item.answer_ids) for item in items)
    how = {"temperature": 1.0, "samples": settings.samples, "seed": settings.seed}
    texts = engine.generate([item.prompt_ids for item in items], longest, "sampling", **how)  # type: ignore[arg-type]
    scores = []
    for fact, drawn in zip(facts, texts, strict=True):
        answers = [_words(answer) for answer in (fact.row.answer, *fact.wrong)]
        shared = frozenset.intersection(*answers)
        said = [_words(text) for text in drawn]
        own = [answer - shared for answer in answers]
        scores.append(np.array([[max(len(a & text) / max(len(a), 1) for text in said) for a in own]]))
    return exposure_of(facts, scores, settings.seed)


def _relearned(
    engine: Engine, rows: Sequence[Row], name: str, facts: Sequence[Fact], rate: float, settings: ResistSettings
) -> Exposure | None:
    with attacker(engine, "full", settings.seed) as attacked:
        for _ in trained(attacked, rows, settings.batch_size, settings.steps, rate, settings.seed, name):
            pass
        return _exposed(attacked, facts, settings.seed)


def _said(name: str, rate: float, settings: ResistSettings) -> str:
    return f"{name}, rate {rate:.2g}, {settings.steps} steps"


def _relearned_in_halves(
    engine: Engine, tested: Sequence[Fact], facts: Sequence[Fact], rate: float, settings: ResistSettings, draw: int
) -> Iterator[Trial]:
    """Train on one half of the facts and test the other, and the other way round; join the two."""
    own = replace(settings, seed=settings.seed + draw)
    rows_of = [[row for fact in half for row in fact.rows] for half in halves(facts, own.seed)]
    if not all(rows_of):
        return
    turns = [(held, _among(tested, other, own)) for held, other in (rows_of, rows_of[::-1])]

    def relearned() -> Exposure | None:
        both = [_relearned(engine, held, OF_OTHERS, asked, rate, own) for held, asked in turns]
        return None if None in both else Exposure(tuple(fact for one in both if one is not None for fact in one.facts))

    asked = [fact for _, facts_of_half in turns for fact in facts_of_half]
    yield Trial("relearning", _said(OF_OTHERS, rate, settings), asked, relearned, draw)


def halves(facts: Sequence[Fact], seed: int) -> tuple[list[Fact], list[Fact]]:
    """Split facts in halves by instance; if all are of one, by what they say, so that none is trained on in other words."""
    several = len({fact.instance for fact in facts}) > 1
    of = [fact.instance for fact in facts] if several else _said_alike(facts)
    groups = list(dict.fromkeys(of))
    random.Random(seed).shuffle(groups)
    chosen = set(groups[: len(groups) // 2])
    return (
        [fact for fact, group in zip(facts, of, strict=True) if group in chosen],
        [fact for fact, group in zip(facts, of, strict=True) if group not in chosen],
    )


def _said_alike(facts: Sequence[Fact]) -> list[int]:
    """Return a number for each fact: equal for those of one attribute, and for answers that share half of their own words."""
    words = [{word.lower() for word in own_words(fact.row, fact.name)} for fact in facts]
    of = list(range(len(facts)))
    for i, one in enumerate(facts):
        for k in range(i):
            alike = one.row.attribute != "" and one.row.attribute == facts[k].row.attribute
            fewer = min(len(words[i]), len(words[k]))
            if alike or one.row.answer == facts[k].row.answer or 2 * len(words[i] & words[k]) >= max(fewer, 1):
                of = [of[k] if group == of[i] else group for group in of]
    return of


def _among(tested: Sequence[Fact], rows: Sequence[Row], settings: ResistSettings) -> list[Fact]:
    """Return the tested facts of some rows, compared with each other's names; the attack trains on answers under others."""
    found = [fact for fact in tested if fact.row in rows]
    names = list(dict.fromkeys(fact.name for fact in found if fact.name))
    rng, among = random.Random(settings.seed), []
    for fact in found:
        peers = same_kind(fact.name, names)
        drawn = rng.sample(peers, min(settings.names, len(peers)))
        among.append(replace(fact, names=tuple(drawn)) if fact.names and drawn else fact)
    return among


def lighter(facts: Sequence[Fact], settings: ResistSettings) -> list[Fact]:
    """Return the tested facts, with the plain question and fewest answers: drawn at random, one of each instance first.

    More instances make intervals narrower than more facts of the same ones do.
    """
    drawn = random.Random(settings.seed).sample(range(len(facts)), len(facts))
    seen, turn = Counter[str](), dict[int, int]()
    for i in drawn:
        turn[i] = seen[facts[i].instance]
        seen[facts[i].instance] += 1
    chosen = sorted(sorted(drawn, key=turn.__getitem__)[: settings.facts])
    return [
        replace(
            f,
            questions=f.questions[:1],
            wrong=f.wrong[:LEAST_ANSWERS],
            names=f.names[: settings.names],
            reference=tuple(scores[: 1 + LEAST_ANSWERS] for scores in f.reference[:1]),
            reference_says=tuple(said[: 1 + LEAST_ANSWERS] for said in f.reference_says[:1]),
        )
        for f in (facts[i] for i in chosen)
    ]


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))
