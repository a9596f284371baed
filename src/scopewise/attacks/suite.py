"""Run a suite of attacks on target, oracle and unlearned models, and compute the leakage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scopewise import registry, schemas
from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, cluster, make_attack
from scopewise.attacks.curves import Curve, curves_document, curves_of
from scopewise.attacks.leakage import Leakage, leakage
from scopewise.attacks.oracle import check_alike, check_ignorant
from scopewise.attacks.price import measured
from scopewise.bars import showing
from scopewise.config import AttackSection
from scopewise.data.rows import Benchmark
from scopewise.eta import Whole
from scopewise.files import write_json
from scopewise.models.engine import Engine
from scopewise.statistics import LEAST_INSTANCES

WORST = 10
COMPATIBLE = 0.7
"""Least share of the target's signal on retain rows that an oracle must give for a setting to be used."""
Piece = Mapping[str, Any]
"""Result of one attack on one model, as plain values: `settings`, `signals`, `texts`, `notes`, `seconds`, `reason`."""


@dataclass(frozen=True)
class Attacked:
    """Result of an attack on an unlearned model.

    Attributes:
        attack: Name of the attack.
        model: Name of the model.
        leakage: The leakage; None if the attack does not apply.
        verdict: `leaks`, `holds`, `over-unlearned`, `undecided`, `one instance`, `few instances`, `not measurable`
            or `not applicable`.
        worst: The rows that leak most: question, answer, output, and the signals of the three models.
        notes: Caveats for the reader.
        seconds: Duration of the attack on this model.
        needs_target: Whether the attack needs the weights of the model before unlearning.
        curves: Mean signal of the three models at each step, for attacks that train.
    """

    attack: str
    model: str
    leakage: Leakage | None
    verdict: str
    worst: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    seconds: float
    needs_target: bool
    curves: tuple[Curve, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return its entry in `attacks.json`."""
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
            **curves_document(self.curves),
        }


def of_suite(settings: AttackSection) -> list[Attack]:
    """Return the attacks named in the settings, or else those of the suite, in the table's order."""
    table = registry.table("attacks")
    chosen = [make_attack(name, **settings.attack_args.get(name, {})) for name in settings.attacks or table]
    wanted = ("quick",) if settings.suite == "quick" and not settings.attacks else ("quick", "full")
    return [attack for attack in chosen if attack.suite in wanted]


def check_attacks(settings: AttackSection) -> None:
    """Raise ConfigError if the settings of any attack are wrong, whether it is run or not."""
    for name, arguments in settings.attack_args.items():
        make_attack(name, **arguments).check()


def piece_of(attack: Attack, subject: Engine, facts: Facts, target: Engine) -> dict[str, Any]:
    """Attack one model, and return the result as plain values."""
    begin = time.perf_counter()
    try:
        outcome = attack.run(subject, facts, target)
    except InapplicableError as error:
        return {"reason": str(error), "seconds": time.perf_counter() - begin}
    return {**_plain(outcome, facts), "reason": None, "seconds": time.perf_counter() - begin}


def compared(
    attack: Attack, facts: Facts, name: str, unlearned: Piece, oracle: Piece, target: Piece, threshold: float
) -> Attacked:
    """Compute the leakage of an unlearned model from the results of the three models."""
    reasons = [piece["reason"] for piece in (unlearned, oracle, target) if piece["reason"]]
    usable, left_out = ([], tuple(reasons[:1])) if reasons else calibrated(oracle, target)
    # A saved result may be from before an optional package.
    usable = [key for key in usable if key in unlearned["signals"]]
    if not usable:
        return Attacked(
            attack.name, name, None, "not applicable", (), left_out, unlearned["seconds"], attack.needs_target
        )
    rows = [facts.rows[i] for i in unlearned["rows"]]
    u, o, t = ({key: piece["signals"][key] for key in usable} for piece in (unlearned, oracle, target))
    found = leakage(u, o, t, [cluster(row) for row in rows], attack.combine)
    notes = [*unlearned["notes"], *left_out]
    if found.value is None:
        notes.append(
            f"target ({found.target:.2f}) and oracle ({found.oracle:.2f}) differ too little to measure leakage"
        )
    elif found.high is None:
        notes.append("the rows are about one instance, so there is no interval and no verdict")
    elif found.clusters < LEAST_INSTANCES:
        notes.append(f"the rows are about {found.clusters} instances, and a verdict needs at least {LEAST_INSTANCES}")
    elif found.high < 0:
        notes.append("below the oracle: further from the answers than a model that never saw them")
    worst = _worst(rows, usable, unlearned, oracle, target)
    verdict = found.verdict(threshold)
    curves = curves_of(unlearned, oracle, target)
    return Attacked(
        attack.name, name, found, verdict, worst, tuple(notes), unlearned["seconds"], attack.needs_target, curves
    )


def calibrated(oracle: Piece, target: Piece) -> tuple[list[str], tuple[str, ...]]:
    """Return the settings that work on the oracle, and a note on the others.

    A setting is left out if the oracle's signal on rows that both models know is below `COMPATIBLE` of the target's: then
    the oracle's signal on the forget rows does not show what the oracle knows. Settings without a control are used.
    """
    shares = {
        name: oracle["controls"].get(name, 0.0) / value if value > 0 else 1.0
        for name, value in target.get("controls", {}).items()
    }
    usable = [name for name in oracle["signals"] if name in target["signals"] and shares.get(name, 1.0) >= COMPATIBLE]
    if len(usable) == len(oracle["signals"]):
        return usable, ()
    low, high = (pick(share for share in shares.values() if share < COMPATIBLE) for pick in (min, max))
    reason = (
        f"on retain rows, which both know, the oracle gives {low:.2f} to {high:.2f} of the target's probability under "
        f"{len(oracle['signals']) - len(usable)} of {len(oracle['signals'])} settings, so its states do not fit the target's "
        "basis there; those are left out"
    )
    return usable, (reason,)


def attack_models(
    unlearned: Mapping[str, Callable[[], Engine]],
    oracle: Callable[[], Engine],
    target: Callable[[], Engine],
    benchmark: Benchmark,
    settings: AttackSection,
    keep: Keep | None = None,
    *,
    learning_rate: float = 5e-5,
    tell: Callable[[str], None] | None = None,
) -> list[Attacked]:
    """Run a suite on several unlearned models of one target; each is loaded once, and the target stays in memory.

    Args:
        unlearned: Name → a function that loads the model.
        oracle: Loads the model that never saw the forget scope.
        target: Loads the model before unlearning.
        benchmark: The rows.
        settings: The attacks and their settings.
        keep: Saves results and finds them again; None keeps nothing.
        learning_rate: Default for attacks that fine-tune.
        tell: Called with a sentence on how long the suite will take, estimated from a training step, before it begins.

    Returns:
        One entry per model and attack, target and oracle first, whose leakage is 1 and 0 by definition.

    Raises:
        ModelError: the oracle has another architecture or tokenizer than the target, or knows the forget rows.
    """
    facts = Facts(benchmark, settings, learning_rate)
    attacks = of_suite(settings)
    keep = keep or Keep()
    before = cache(target)  # the target stays in memory, since patching and probe use it with every model
    ignorant = cache(lambda: _alike(oracle(), before()))
    question = make_attack("question")
    asked = [
        keep(name, "question", lambda s=subject: piece_of(question, s(), facts, before()))  # type: ignore[misc]
        for name, subject in (("oracle", ignorant), ("target", before))
    ]
    check_ignorant(*asked)
    outstanding = [
        (name, attack)
        for name in ("target", "oracle", *unlearned)
        for attack in attacks
        if keep.saved(name, attack.name) is None
    ]
    whole = Whole()
    if tell is not None and outstanding:
        price = measured(before(), facts)
        tell(price.sentence([(attack, facts) for _, attack in outstanding]))
        whole = price.whole(outstanding, facts)
    pieces: dict[str, dict[str, Piece]] = {}
    with showing(whole):
        for name, load in {"target": target, "oracle": oracle, **unlearned}.items():
            subject = {"target": before, "oracle": ignorant}.get(name) or cache(load)
            pieces[name] = {}
            for attack in attacks:
                if (name, attack) in outstanding:
                    whole.call(f"{1 + outstanding.index((name, attack))}/{len(outstanding)} {name}: {attack.name}")
                with whole.part(f"{name}: {attack.name}"):
                    pieces[name][attack.name] = keep(
                        name, attack.name, lambda a=attack, s=subject: piece_of(a, s(), facts, before())  # type: ignore[misc]
                    )  # fmt: skip
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


def _plain(outcome: Outcome, facts: Facts) -> dict[str, Any]:
    index = {id(row): i for i, row in enumerate(facts.rows)}
    return {
        "rows": [index[id(row)] for row in outcome.rows],
        "signals": {name: list(values) for name, values in outcome.signals.items()},
        "texts": {name: list(values) for name, values in outcome.texts.items()},
        "notes": list(outcome.notes),
        "controls": dict(outcome.controls),
        "curves": {name: [list(point) for point in points] for name, points in outcome.curves.items()},
    }


def _worst(
    rows: Sequence[Any], settings: Sequence[str], unlearned: Piece, oracle: Piece, target: Piece
) -> tuple[Mapping[str, Any], ...]:
    """Return the rows with the largest difference in signal to the oracle, each at its best setting."""
    best: list[tuple[float, int, str]] = []
    for i in range(len(rows)):
        given = [
            (u[i] - oracle["signals"][name][i], i, name)
            for name, u in unlearned["signals"].items()
            if name in settings and u[i] is not None and oracle["signals"][name][i] is not None
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


class Keep:
    """Saves each result to a file, and reuses those with the same inputs; without a folder it saves nothing.

    Args:
        folder: Folder of the files.
        inputs: All inputs of an attack besides model and attack; `models` maps names to model identities.
    """

    def __init__(self, folder: Path | None = None, inputs: Mapping[str, Any] | None = None) -> None:
        self.folder, self.inputs = folder, inputs or {}

    def saved(self, model: str, attack: str) -> Piece | None:
        """Return the saved result of an attack on a model, or None. Raises ResultError if the file is broken."""
        path = self._path(model, attack)
        kept = schemas.read(path, schemas.PieceDocument) if path is not None and path.exists() else None
        return kept if kept is not None and kept["inputs"] == self._inputs(model) else None

    def __call__(self, model: str, attack: str, build: Callable[[], dict[str, Any]]) -> Piece:
        """Return the saved result, or else that of `build`, which is saved."""
        if (kept := self.saved(model, attack)) is not None:
            return kept
        piece = build()
        if (path := self._path(model, attack)) is not None:
            piece = {"format": schemas.PieceDocument.FORMAT, **piece, "inputs": self._inputs(model)}
            write_json(path, piece)
        return piece

    def _path(self, model: str, attack: str) -> Path | None:
        return None if self.folder is None else self.folder / model / f"{attack}.json"

    def _inputs(self, model: str) -> dict[str, Any]:
        models = {name: one for name, one in self.inputs["models"].items() if name in (model, "target")}
        return {**self.inputs, "models": models}
