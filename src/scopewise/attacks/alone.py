"""Attacks on a single model with the user's rows, without target or oracle: absolute values instead of leakage."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scopewise import registry
from scopewise.attacks.base import Attack, Facts, cluster, make_attack
from scopewise.attacks.suite import piece_of
from scopewise.config import AttackSection
from scopewise.data.rows import FORGET, Benchmark
from scopewise.data.tables import read_records, table_rows
from scopewise.errors import ConfigError, DataError
from scopewise.models.engine import Engine
from scopewise.statistics import estimate

DEFAULT = ("question", "extraction", "membership", "detectability")


@dataclass(frozen=True)
class Absolute:
    """Mean signal of an attack on one model, under one setting.

    Attributes:
        attack: Name of the attack.
        setting: The setting; empty if the attack does not apply.
        value: Mean signal over rows, 0 to 1: for membership and detectability the AUC. None if it does not apply.
        low: Lower end of its 95 % interval over instances; None for a single instance.
        high: Upper end.
        chance: The value of a model that never saw the rows; None if it is not known without an oracle.
        rows: Number of rows.
        instances: Number of their instances.
        seconds: Duration of the attack.
        notes: Caveats for the reader.
    """

    attack: str
    setting: str
    value: float | None
    low: float | None
    high: float | None
    chance: float | None
    rows: int
    instances: int
    seconds: float
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return its entry in the file."""
        return {**asdict(self), "notes": list(self.notes)}


def read_rows(path: str | Path) -> Benchmark:
    """Read the rows to attack, from any file that `read_table` reads.

    `scope` is `forget` unless given; rows of scope `holdout`, which the model has never seen, are compared with in
    membership inference.

    Raises:
        DataError: the file cannot be read, a row is wrong, or there is no forget row.
    """
    records = [
        (where, {"scope": FORGET, **record} if isinstance(record, dict) else record)
        for where, record in read_records(Path(path), "--rows")
    ]
    benchmark = Benchmark("own rows", tuple(table_rows(records, str(path))))
    if not benchmark.select(FORGET):
        raise DataError(f"{path}: no row of scope {FORGET!r}; the attacks ask for these; leave 'scope' out, or set it")
    return benchmark


def alone(settings: AttackSection) -> list[Attack]:
    """Return the chosen attacks, or else those of `DEFAULT`. Raises ConfigError if one needs a target and an oracle."""
    known = [name for name in registry.table("attacks") if registry.lookup("attacks", name).alone]
    for name in settings.attacks:
        if not registry.lookup("attacks", name).alone:
            raise ConfigError(f"attack.attacks: {name!r}; without target and oracle {registry.allowed(name, known)}")
    return [make_attack(name, **settings.attack_args.get(name, {})) for name in settings.attacks or DEFAULT]


def attack_alone(subject: Engine, benchmark: Benchmark, settings: AttackSection) -> list[Absolute]:
    """Attack one model, and restore it.

    Args:
        subject: From `attacked_engine`.
        benchmark: From `read_rows`, or any other; its forget and holdout rows are used.
        settings: The attacks, their settings and the number of rows.

    Raises:
        ConfigError: an attack needs a target and an oracle.
    """
    facts = Facts(benchmark, settings)
    return [entry for attack in alone(settings) for entry in _entries(attack, subject, facts)]


def _entries(attack: Attack, subject: Engine, facts: Facts) -> list[Absolute]:
    piece = piece_of(attack, subject, facts, subject)
    seconds = piece["seconds"]
    if piece["reason"]:
        return [Absolute(attack.name, "", None, None, None, attack.chance, 0, 0, seconds, (piece["reason"],))]
    rows, notes = [facts.rows[i] for i in piece["rows"]], tuple(piece["notes"])
    found = []
    for setting, signals in piece["signals"].items():
        known = [(cluster(row), value) for row, value in zip(rows, signals, strict=True) if value is not None]
        if known:
            number = {name: i for i, name in enumerate(dict.fromkeys(name for name, _ in known))}
            values = np.array([[value for _, value in known]])
            mean = estimate(values, np.array([number[name] for name, _ in known])).interval((0.0, 1.0))
            ends = (mean.value, mean.low, mean.high, attack.chance)
            found.append(Absolute(attack.name, setting, *ends, len(known), len(number), seconds, notes))
    return found
