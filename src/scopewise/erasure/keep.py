"""Retention: what a model has lost of the retain rows and of general text, relative to the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from scopewise.data.instances import instance_of
from scopewise.data.rows import Row
from scopewise.erasure.figures import InstanceLoss, Kept
from scopewise.errors import DataError, ModelError
from scopewise.models.engine import Engine
from scopewise.statistics import Interval, estimate


def keep(
    engine: Engine, target: Engine, rows: Sequence[Row], general: Sequence[Row] = (), more: Sequence[Row] = ()
) -> Kept:
    """Return the retention of a model relative to the target.

    The loss of a row is the share of answer tokens that are the arg-max under teacher forcing: the target's minus the model's.
    A model whose logits are not numbers has lost all that the target knows. Rows and texts that are too long are left out.
    The figure is over `rows` and `more`, or over `rows` alone if more is lost there: an unlearning that trains on other
    wordings gains on those, which must not hide what it loses of the rows as they were taught.

    Args:
        engine: Of the model.
        target: Of the model before unlearning.
        rows: Retain rows.
        general: Texts without a question.
        more: The same in other wordings.

    Raises:
        DataError: no row that fits.
    """
    return Before(target, rows, more, general).kept(engine)


class Before:
    """What the target knows of the retain rows and of general text: measured once, for all models that are compared with it.

    Args: as `keep`.
    """

    def __init__(
        self, target: Engine, rows: Sequence[Row], more: Sequence[Row] = (), general: Sequence[Row] = ()
    ) -> None:
        self.target = target
        own, others = ([item.row for item in target.encode(part, over_length="drop")] for part in (rows, more))
        if not own and not others:
            raise DataError("verdict: no retain row that fits data.max_length; give one, or leave retention out")
        self._own, self._rows = len(own), [*own, *others]
        self._texts = [item.row for item in target.encode(general, over_length="drop")]

    def kept(self, engine: Engine, *, general: bool = True) -> Kept:
        """Return the retention of a model; with `general` also the rise of its loss on the texts, if there are any."""
        names = [instance_of(row.instance, row.question) for row in self._rows]
        lost = self._accuracy - _accuracy(engine, self._rows)
        rise = self._rise(engine) if general else None
        found = [retention(lost[:n], names[:n], rise) for n in {len(self._rows), self._own} if n]
        return max(found, key=lambda kept: kept.loss.value)

    @cached_property
    def _accuracy(self) -> np.ndarray:
        return _accuracy(self.target, self._rows)

    @cached_property
    def _nll(self) -> np.ndarray | None:
        """Its loss on each text; None of a model whose logits are not numbers."""
        try:
            return _nll(self.target, self._texts)
        except ModelError:
            return None

    def _rise(self, engine: Engine) -> Interval | None:
        """Return the rise of the loss in nats per token.

        None without text, of a model whose logits are not numbers, and if the target is no better than a uniform guess over the
        vocabulary: it has no general ability that could be lost.
        """
        if not self._texts or self._nll is None or self._nll.mean() >= math.log(self.target.vocab_size):
            return None
        try:
            rise = _nll(engine, self._texts) - self._nll
        except ModelError:
            return None
        return _interval(rise, [str(i) for i in range(len(self._texts))])


def retention(lost: np.ndarray, names: Sequence[str], general: Interval | None = None) -> Kept:
    """Return the figures of a light from the loss of each row, the row's instance, and the rise of the general loss."""
    rows = dict[str, list[float]]()
    for name, value in zip(names, lost.tolist(), strict=True):
        rows.setdefault(name, []).append(value)
    instances = [InstanceLoss(name, len(values), float(np.mean(values))) for name, values in rows.items()]
    return Kept(_interval(lost, names), tuple(sorted(instances, key=lambda one: -one.loss)), general)


def _accuracy(engine: Engine, rows: Sequence[Row]) -> np.ndarray:
    try:
        scored = engine.score([item.pair for item in engine.encode(rows)], "retention", moments=False)
    except ModelError:
        return np.zeros(len(rows))
    return np.array([np.mean(one.hits) for one in scored])


def _nll(engine: Engine, rows: Sequence[Row]) -> np.ndarray:
    scored = engine.score([item.pair for item in engine.encode(rows)], "general text", moments=False)
    return np.array([-np.mean(one.log_probs) for one in scored])


def _interval(values: np.ndarray, names: Sequence[str]) -> Interval:
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return estimate(values[None], np.array([number[name] for name in names])).interval()
