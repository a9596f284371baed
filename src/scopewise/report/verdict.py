"""The verdict in one line: the method closest to the oracle, its cost, and whether its region beats a random one."""

from __future__ import annotations

from scopewise.metrics.columns import label_of
from scopewise.registry import EXACT
from scopewise.report.attacks import leaking
from scopewise.report.columns import split_shown
from scopewise.report.figures import Line, lines
from scopewise.report.leader import leader
from scopewise.report.run_folder import Run


def verdict(run: Run) -> str:
    """Return the verdict on a run. It states figures and does not call any method good."""
    split = split_shown(run.results)
    unlearn, retention, average = (f"{name}_success/{split}" for name in ("unlearn", "retention", "average"))
    known = lines(run)
    candidates = [line for line in known if line.role == "unlearned" and {unlearn, retention} <= set(line.figures)]
    candidates = [line for line in candidates if line.group[0] not in EXACT] or candidates
    if not candidates:
        return "No unlearned model was measured on both scopes yet."
    with_gap = [line for line in candidates if "oracle_gap" in line.figures]
    if with_gap:
        best = min(with_gap, key=lambda line: line.figures["oracle_gap"].value)
        gap = best.figures["oracle_gap"]
        start = f"{best.label} comes nearest to the oracle, {gap.text} points away"
        start += f" ({gap.interval})" if gap.interval else ""
    else:
        best = max(candidates, key=lambda line: _value(line, average) or 0.0)
        start = f"{best.label} has the highest Average Success, without an oracle to compare with"
    by_role = {line.role: line for line in known}
    beside = {
        key: ", ".join(
            f"{role} {line.figures[key].text}"
            for role in ("target", "oracle")
            if (line := by_role.get(role)) is not None and key in line.figures
        )
        for key in (unlearn, retention)
    }
    labels = [label_of(key.partition("/")[0]) for key in (unlearn, retention)]
    both = (f"{name} {_with(best, key, beside[key])}" for name, key in zip(labels, (unlearn, retention), strict=True))
    sentence = f"{start}: {', '.join(both)}."
    return " ".join([sentence, *_lead(run, best), *_control(run, best), *leaking(run.attacks, best.group)])


def _value(line: Line, key: str) -> float | None:
    return line.figures[key].value if key in line.figures else None


def _with(line: Line, key: str, beside: str) -> str:
    return f"{line.figures[key].text} %" + (f" ({beside})" if beside else "")


def _lead(run: Run, best: Line) -> list[str]:
    """Say whether it leads, or why no method is said to."""
    return [leader(lead) for lead in run.results.get("leads", []) if lead["protocol"] == best.group[1]]


def _control(run: Run, best: Line) -> list[str]:
    """Compare the method's region with a random region of the same size, if the run has one."""
    method, _protocol = best.group
    control = f"{method.partition('@')[0]}@random"
    for comparison in run.results.get("comparisons", []):
        if (comparison["method"], comparison["protocol"] or "") == best.group and control in comparison["differences"]:
            found = comparison["differences"][control]
            if found["low"] is None:
                return []
            if found["low"] <= 0 <= found["high"]:
                return ["A random region of the same size does as well within the interval."]
            return [f"It is {found['value']:+.1f} points of Average Success from a random region of the same size."]
    return []
