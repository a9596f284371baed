"""Run a suite of attacks on target, oracle and unlearned models, and put what leaks on one scale."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scopewise import record, registry, schemas
from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, cluster, make_attack
from scopewise.attacks.leakage import Leakage, leakage
from scopewise.attacks.oracle import check_alike, check_ignorant
from scopewise.config import AttackSection
from scopewise.data.rows import Benchmark
from scopewise.models.engine import Engine

WORST = 10
Piece = Mapping[str, Any]
"""What one model gave under one attack, as plain values: `settings`, `signals`, `texts`, `notes`, `seconds`, `reason`."""


@dataclass(frozen=True)
class Attacked:
    """What an attack found on an unlearned model.

    Attributes:
        attack: Name of the attack.
        model: Name of the model.
        leakage: On the scale; None where the attack does not apply.
        verdict: `leaks`, `holds`, `undecided`, `one instance`, `not measurable` or `not applicable`.
        worst: The rows that leak most: question, answer, what came out, and the three models' signals.
        notes: What a reader has to know.
        seconds: Time the attack took on this model.
        needs_target: Whether the attack needs the weights of the model before unlearning.
    """

    attack: str
    model: str
    leakage: Leakage | None
    verdict: str
    worst: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    seconds: float
    needs_target: bool

    def document(self) -> dict[str, Any]:
        """Return what `attacks.json` holds."""
        scale = self.leakage.document() if self.leakage else {"leakage": None, "low": None, "high": None}
        return {
            "attack": self.attack,
            "model": self.model,
            **scale,
            "verdict": self.verdict,
            "needs_target": self.needs_target,
            "worst": list(self.worst),
            "notes": list(self.notes),
            "cost": {"seconds": self.seconds},
        }


def of_suite(settings: AttackSection) -> list[Attack]:
    """Return the attacks that the settings name, or those of the suite, in the order of the table."""
    table = registry.table("attacks")
    chosen = [make_attack(name, **settings.attack_args.get(name, {})) for name in settings.attacks or table]
    wanted = ("quick",) if settings.suite == "quick" and not settings.attacks else ("quick", "full")
    return [attack for attack in chosen if attack.suite in wanted]


def check_attacks(settings: AttackSection) -> None:
    """Raise ConfigError where the settings of an attack are wrong, whether it is run or not."""
    for name, arguments in settings.attack_args.items():
        make_attack(name, **arguments).check()


def piece_of(attack: Attack, subject: Engine, facts: Facts, target: Engine) -> dict[str, Any]:
    """Attack one model, and return what it gave as plain values."""
    begin = time.perf_counter()
    try:
        outcome = attack.run(subject, facts, target)
    except InapplicableError as error:
        return {"reason": str(error), "seconds": time.perf_counter() - begin}
    return {**_plain(outcome, facts), "reason": None, "seconds": time.perf_counter() - begin}


def compared(
    attack: Attack, facts: Facts, name: str, unlearned: Piece, oracle: Piece, target: Piece, threshold: float
) -> Attacked:
    """Put what an unlearned model gave on the scale of oracle and target."""
    reasons = [piece["reason"] for piece in (unlearned, oracle, target) if piece["reason"]]
    if reasons:
        return Attacked(
            attack.name, name, None, "not applicable", (), tuple(reasons[:1]), unlearned["seconds"], attack.needs_target
        )
    rows = [facts.rows[i] for i in unlearned["rows"]]
    found = leakage(
        unlearned["signals"], oracle["signals"], target["signals"], [cluster(row) for row in rows], attack.combine
    )
    notes = [*unlearned["notes"]]
    if found.value is None:
        notes.append(
            f"target ({found.target:.2f}) and oracle ({found.oracle:.2f}) hardly differ under this attack, so nothing can leak"
        )
    elif found.high is None:
        notes.append("the rows are about one instance, which gives no interval, and so no verdict")
    elif found.high < 0:
        notes.append("below the oracle: further from the answers than a model that never saw them")
    worst = _worst(attack, rows, found, unlearned, oracle, target)
    verdict = found.verdict(threshold)
    return Attacked(attack.name, name, found, verdict, worst, tuple(notes), unlearned["seconds"], attack.needs_target)


def attack_models(
    unlearned: Mapping[str, Callable[[], Engine]],
    oracle: Callable[[], Engine],
    target: Callable[[], Engine],
    benchmark: Benchmark,
    settings: AttackSection,
    keep: Callable[[str, str, Callable[[], dict[str, Any]]], Piece] | None = None,
    *,
    learning_rate: float = 5e-5,
) -> list[Attacked]:
    """Run a suite on several unlearned models of one target; each model is loaded once, beside the target.

    Args:
        unlearned: Name → a function that loads the model.
        oracle: Loads the model that never saw the forget scope.
        target: Loads the model before unlearning.
        benchmark: The rows.
        settings: Which attacks, and how hard.
        keep: Takes a model's name, an attack's name and a function that attacks, and returns what it gives or what was
            kept of an earlier time.
        learning_rate: For attacks that fine-tune and set none.

    Returns:
        One entry per model and attack: target and oracle first, which are 1 and 0 by construction.

    Raises:
        ModelError: the oracle is of another kind than the target, or knows the forget rows as the target does.
    """
    facts = Facts(benchmark, settings, learning_rate)
    attacks = of_suite(settings)
    keep = keep or (lambda _, __, build: build())
    before = _Once(target)  # the target stays: patching and the probe read it beside the others
    ignorant = _Once(lambda: _alike(oracle(), before()))
    question = make_attack("question")
    asked = [
        keep(name, "question", lambda s=subject: piece_of(question, s(), facts, before()))  # type: ignore[misc]
        for name, subject in (("oracle", ignorant), ("target", before))
    ]
    check_ignorant(*asked)
    pieces: dict[str, dict[str, Piece]] = {}
    for name, load in {"target": target, "oracle": oracle, **unlearned}.items():
        subject = {"target": before, "oracle": ignorant}.get(name) or _Once(load)
        pieces[name] = {
            attack.name: keep(name, attack.name, lambda a=attack, s=subject: piece_of(a, s(), facts, before()))  # type: ignore[misc]
            for attack in attacks
        }
    oracles, targets = pieces["oracle"], pieces["target"]
    return [
        compared(
            attack, facts, name, given[attack.name], oracles[attack.name], targets[attack.name], settings.threshold
        )
        for name, given in pieces.items()
        for attack in attacks
    ]


def _alike(oracle: Engine, target: Engine) -> Engine:
    check_alike(oracle, target)
    return oracle


class _Once:
    """Loads a subject when it is first wanted: what was kept of an earlier time needs no model."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self.load = load
        self.loaded: Engine | None = None

    def __call__(self) -> Engine:
        self.loaded = self.loaded or self.load()
        return self.loaded


def _plain(outcome: Outcome, facts: Facts) -> dict[str, Any]:
    index = {id(row): i for i, row in enumerate(facts.rows)}
    return {
        "rows": [index[id(row)] for row in outcome.rows],
        "signals": {name: list(values) for name, values in outcome.signals.items()},
        "texts": {name: list(values) for name, values in outcome.texts.items()},
        "notes": list(outcome.notes),
    }


def _worst(
    attack: Attack, rows: Sequence[Any], found: Leakage, unlearned: Piece, oracle: Piece, target: Piece
) -> tuple[Mapping[str, Any], ...]:
    """Return the rows of which the model gives most beyond the oracle, under its best setting for them."""
    best: list[tuple[float, int, str]] = []
    for i in range(len(rows)):
        given = [
            (u[i] - oracle["signals"][name][i], i, name)
            for name, u in unlearned["signals"].items()
            if u[i] is not None and oracle["signals"][name][i] is not None
        ]
        best += [max(given)] if given else []
    worst = []
    for excess, i, name in sorted(best, reverse=True)[:WORST]:
        if excess <= 0:
            break
        texts = unlearned["texts"].get(name)
        worst.append(
            {
                "question": rows[i].question,
                "answer": rows[i].answer,
                "output": texts[i] if texts else None,
                "setting": name,
                "unlearned": unlearned["signals"][name][i],
                "oracle": oracle["signals"][name][i],
                "target": target["signals"][name][i],
            }
        )
    return tuple(worst)


def kept_in(folder: Path, inputs: Mapping[str, Any]) -> Callable[[str, str, Callable[[], dict[str, Any]]], Piece]:
    """Return a `keep` for `attack_models` that writes each piece to a file, and reads those made with the same inputs.

    Args:
        folder: Where the pieces are.
        inputs: Everything that decides what an attack gives, besides model and attack; `models` maps names to what the
            model is.
    """

    def keep(model: str, attack: str, build: Callable[[], dict[str, Any]]) -> Piece:
        path = folder / model / f"{attack}.json"
        mine = {**inputs, "models": {k: v for k, v in inputs["models"].items() if k in (model, "target")}}
        if path.exists():
            kept = schemas.read(path, schemas.PieceDocument)
            if kept["inputs"] == mine:
                return kept
        piece = {"format": schemas.PieceDocument.FORMAT, **build(), "inputs": mine}
        record.write_json(path, piece)
        return piece

    return keep
