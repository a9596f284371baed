"""Moments of the log-probabilities."""

from __future__ import annotations

from scopewise.metrics.needs.base import Need


class Moments(Need):
    """Fills `Scored.means` and `Scored.variances` of each position."""

    moments = True
