"""What a metric declares for tables and pages: label, unit, direction, and which of its values are columns. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from scopewise.errors import ConfigError
from scopewise.metrics import METRICS, OTHERS
from scopewise.registry import allowed, declared, plugins

Better = Literal["higher", "lower", "to the oracle"]
_DIRECTIONS: tuple[str, ...] = get_args(Better)
_SPLITS = ("train", "val")


@dataclass(frozen=True)
class Column:
    """How a value of an evaluation is shown.

    Attributes:
        label: Its heading.
        unit: Its unit; empty for a share (0-1) or a number without one.
        better: Its direction; None if it is not known.
        headline: Whether it is a column of the table of a run.
    """

    label: str
    unit: str = ""
    better: Better | None = None
    headline: bool = False


@dataclass(frozen=True)
class Declaration:
    """The class attributes of a metric that say how its values are shown; `Metric` describes them."""

    label: str
    unit: str = ""
    better: Better | None = None
    better_on_forget: Better | None = None
    headline: tuple[str, ...] = ()

    @classmethod
    def of(cls, metric: type) -> Declaration:
        """Return what a metric class declares.

        Raises:
            ConfigError: it lacks one of them, or a direction does not exist.
        """
        for name in ("better", "better_on_forget"):
            value = getattr(metric, name, None)
            if value not in _DIRECTIONS and (name == "better" or value is not None):
                raise ConfigError(f"metric {metric.__name__}: {name} is {value!r}; {allowed(str(value), _DIRECTIONS)}")
        for name, kind in (("label", str), ("unit", str), ("headline", tuple)):
            if not isinstance(value := getattr(metric, name, None), kind):
                raise ConfigError(f"metric {metric.__name__}: {name} is {value!r}; declare it as a {kind.__name__}")
        return cls(**{field: getattr(metric, field) for field in cls.__dataclass_fields__})

    @classmethod
    def read(cls, name: str) -> Declaration | None:
        """Return what the metric of a name declares, from its source, without importing it; None if there is none."""
        targets = {**{key: point.value for key, point in plugins("metrics").items()}, **METRICS, **OTHERS}
        found = declared(targets[name], cls.__dataclass_fields__) if name in targets else {}
        return cls(**found) if "label" in found else None

    def column(self, key: str) -> Column:
        """Return the column of a key of an evaluation, such as `probability/forget_val+direct`."""
        scope, part, suffix = _place(key)
        label = " ".join([self.label, *(word for word in (scope.replace("_", " "), part) if word)])
        return Column(
            f"{label}, {suffix.removeprefix('+')}" if suffix else label,
            self.unit,
            self.better_on_forget if scope == "forget" and self.better_on_forget else self.better,
            not part and f"{scope}{suffix}" in self.headline,
        )

    @property
    def direction(self) -> str:
        """The directions in words."""
        if self.better_on_forget in (None, self.better):
            return _words(self.better)
        return f"{_words(self.better)}; on forget rows, {_words(self.better_on_forget)}"


def label_of(name: str) -> str:
    """Return the label of a metric, from its source."""
    about = Declaration.read(name)
    return name if about is None else about.label


def _words(better: Better | None) -> str:
    return {"higher": "higher is better", "lower": "lower is better"}.get(
        better or "", "closer to the oracle is better"
    )


def split_of(key: str) -> str | None:
    """Return the split of a key of an evaluation; None if it is over no split of the benchmark."""
    split = key.partition("/")[2].partition("+")[0].partition(".")[0].rpartition("_")[2]
    return split if split in _SPLITS else None


def _place(key: str) -> tuple[str, str, str]:
    """Return scope, part and suffix of a key: `retain`, `task1_qa` and `+direct` of `m/retain_val.task1_qa+direct`."""
    place, plus, direct = key.partition("/")[2].partition("+")
    place, _, part = place.partition(".")
    scope, _, split = place.rpartition("_")
    return (scope if split in _SPLITS else place), part, plus + direct


def columns_of(values: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Column]:
    """Return the column of each key.

    Args:
        values: Keys of an evaluation.
        recorded: Columns that were recorded with the results, as plain values. Others are read from the metrics.
    """
    found: dict[str, Column] = {}
    known: dict[str, Declaration | None] = {}
    for key in values:
        if key in recorded:
            found[key] = Column(**{name: recorded[key].get(name) for name in Column.__dataclass_fields__})
            continue
        name = key.partition("/")[0]
        if name not in known:
            known[name] = Declaration.read(name)
        about = known[name]
        found[key] = Column(key) if about is None else about.column(key)
    return found
