"""The table of a benchmark run: one line per method, mean ± standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scopewise.registry import EXACT
from scopewise.report.columns import COSTS, GAP, Column, columns, split_shown
from scopewise.report.figures import Figure, figure_of
from scopewise.report.leader import leaders
from scopewise.terminal import escaped

LEARNED_POINTS = 5.0
"""Least points of Unlearn Success between the oracle and a target that has learned the forget scope."""


KNOWN_POINTS = 50.0
"""Least teacher-forced accuracy on the forget scope, in percent, of a target that has learned it."""


def untaught(results: Mapping[str, Any]) -> str | None:
    """Return a warning if the target knows the forget scope hardly better than the oracle.

    Either the target did not learn it, or the oracle knows it too, from its base model or from the retain rows.
    """
    split = split_shown(results)
    known = {row["model"]: row["metrics"].get(f"unlearn_success/{split}") for row in results["rows"]}
    target, oracle = known.get("target"), known.get("oracle")
    if target is None or oracle is None or oracle - target >= LEARNED_POINTS:
        return None
    if target <= 100 - KNOWN_POINTS:
        return (
            f"The oracle answers what is to be forgotten about as well as the target: Unlearn Success on {split} is "
            f"{oracle:.1f} % and {target:.1f} % (at least {LEARNED_POINTS:g} points more are expected of the oracle); the "
            "model it was made from knows the forget rows already, or their answers follow from the retain rows; check "
            "model.path and the data."
        )
    mend = "raise finetune.num_train_epochs or finetune.learning_rate"
    if results["config"].get("model", {}).get("target") is not None:  # not fine-tuned by us
        mend = "check model.target, and that data.prompt is how it was taught"
    return (
        f"The target hardly knows what is to be forgotten: its Unlearn Success on {split} is {target:.1f} %, that of the "
        f"oracle, which was not taught it, {oracle:.1f} % (at least {LEARNED_POINTS:g} points more are expected); {mend}."
    )


def controls(results: Mapping[str, Any]) -> list[str]:
    """Return the paired difference for each method that ran on its region and on a random one, one line each."""
    found = []
    for comparison in results.get("comparisons", []):
        method, control = comparison["method"], f"{comparison['method'].partition('@')[0]}@random"
        if control in comparison["differences"] and not method.endswith("@all"):
            d = comparison["differences"][control]
            under = f", {comparison['protocol']} protocol" if comparison["protocol"] != "paper" else ""
            span = "no interval" if d["low"] is None else f"95 % interval {d['low']:+.2f} to {d['high']:+.2f}"
            found.append(f"{method} - {control}{under}: Average {d['value']:+.2f} ({span})")
    return found


def prices(results: Mapping[str, Any]) -> list[str]:
    """Return what retraining cost, and each method as a share of it, one line per protocol that has it; medians."""
    cost: dict[str, dict[str, tuple[float, float]]] = {}
    for (method, protocol), members in groups(results).items():
        known = [m["cost"] for m in members if m["cost"].get("seconds") and m["cost"].get("steps")]
        if protocol and known:
            seconds, steps = (float(statistics.median(one[key] for one in known)) for key in ("seconds", "steps"))
            cost.setdefault(protocol, {})[method] = (seconds, steps)
    found = []
    for protocol, methods in cost.items():
        for exact in EXACT & set(methods):
            seconds, steps = methods[exact]
            shares = [
                f"{name} {own[0] / seconds:.0%} of the time and {own[1] / steps:.0%} of the steps"
                for name, own in methods.items()
                if name != exact
            ]
            under = f", {protocol} protocol" if len(cost) > 1 else ""
            found.append(f"Price{under}: {exact} {seconds:.3g} s, {steps:.0f} steps{''.join(f'; {s}' for s in shares)}")
    return [escaped(line, keep="") for line in found]


def settings_that_differ(results: Mapping[str, Any]) -> list[str]:
    """Return one line for each setting of the `unlearn` section that differs between the compared methods."""
    several = len({protocol for _, protocol in groups(results) if protocol}) > 1
    known = {
        (f"{method} ({protocol})" if several else method): _flat(members[0].get("settings") or {})
        for (method, protocol), members in groups(results).items()
        if members[0]["model"] == "unlearned"
    }
    found = []
    for key in dict.fromkeys(key for settings in known.values() for key in settings):
        by_value: dict[str, list[str]] = {}
        for label, settings in known.items():
            if key in settings:
                by_value.setdefault(_short(settings[key]), []).append(label)
        if len(by_value) > 1:
            found.append(f"{key}: " + "; ".join(f"{value} ({', '.join(who)})" for value, who in by_value.items()))
    return [escaped(line, keep="") for line in found]


def searches(results: Mapping[str, Any]) -> list[str]:
    """Return which trial each search chose and why, one line each."""
    closest = results["config"].get("bench", {}).get("tune", {}).get("choose") == "oracle"
    why = "closest to the oracle" if closest else "the highest Average Success"
    found = []
    for method, trials in results.get("tuning", {}).items():
        for number, trial in enumerate(trials):
            if trial["chosen"]:
                unlearn, retention = trial["unlearn_success"], trial["retention_success"]
                own = {key: value for key, value in trial.items() if key not in _OUTCOME}
                times = int(max(one.get("extensions", 0) for one in trials))
                upward = f"; learning rates extended upward {times} times, as nothing was forgotten" if times else ""
                found.append(
                    f"{method}: trial {number} of {len(trials)}, {why} on held-out train rows ({unlearn:.2f} / "
                    f"{retention:.2f}), with {', '.join(f'{key} {_short(value)}' for key, value in own.items())}{upward}"
                )
                break
    return [escaped(line, keep="") for line in found]


_OUTCOME = ("unlearn_success", "retention_success", "extensions", "on_front", "chosen")
"""What a trial of `tuning` has besides the settings that were searched."""


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def groups(results: Mapping[str, Any]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Return (method, protocol) → its rows over seeds, in the order of `results.json`."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in results["rows"]:
        found.setdefault((row["method"], row["protocol"] or ""), []).append(row)
    return found


def lines(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the cells of the table."""
    rows, shown = results["rows"], columns(results)
    protocols = {row["protocol"] for row in rows if row["protocol"]}
    headings = ["Method", *(["Protocol"] if len(protocols) > 1 else []), *(column.heading for column in shown)]
    compared = {(c["method"], c["protocol"] or ""): c for c in results.get("comparisons", [])}
    cells = []
    for (method, protocol), members in groups(results).items():
        figures = [figure_of(column, members, compared.get((method, protocol))) for column in shown]
        line = [method, *([protocol] if len(protocols) > 1 else [])]
        cells.append([*line, *(_cell(column, figure) for column, figure in zip(shown, figures, strict=True))])
    return headings, cells


def narrow(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the table that a terminal has room for: the first metrics, and the gap to the oracle."""
    headings, cells = lines(results)
    shown = [*range(_COLUMNS - 1), *(i for i, heading in enumerate(headings) if heading == GAP.heading)]
    chosen = [i for i in dict.fromkeys(shown) if i < len(headings)]
    return [headings[i] for i in chosen], [[row[i] for i in chosen] for row in cells]


_COLUMNS = 5
"""Of the narrow table."""


def remarks(results: Mapping[str, Any]) -> list[str]:
    """Return what has to be known to read the table: what is wrong with it, who leads, and what the random regions show."""
    warning = untaught(results)
    unfinished = [] if results["complete"] else ["Not finished: the bench is under way, or was stopped."]
    return [
        *unfinished,
        *([] if warning is None else [f"Warning: {warning}"]),
        *leaders(results),
        *controls(results),
        *prices(results),
    ]


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with the origin of the numbers below."""
    headings, cells = lines(results)
    cells = [list(map(cell_text, row)) for row in cells]
    width = [max(len(row[i]) for row in [headings, *cells]) for i in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, width, strict=True))]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(width)) + "|"
    warning = untaught(results)
    unfinished = [] if results["complete"] else ["", "**Not finished:** the bench is under way, or was stopped."]
    return "\n".join(
        [
            line(headings),
            rule,
            *map(line, cells),
            *unfinished,
            *([] if warning is None else ["", f"**Warning:** {warning}"]),
            "",
            *_paragraph(leaders(results)),
            *_paragraph(controls(results)),
            *_paragraph(prices(results)),
            *_paragraph([f"Setting {line}" for line in settings_that_differ(results)]),
            *_paragraph([f"Search {line}" for line in searches(results)]),
            origin_line(results),
            "",
        ]
    )


def cell_text(text: str) -> str:
    """Escape a text for a cell of a Markdown table: one line, control characters visible, `|` escaped."""
    return escaped(text, keep="").replace("|", "\\|")


def row_text(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(map(cell_text, cells)) + " |"


def _paragraph(sentences: Sequence[str]) -> list[str]:
    return [*(f"{sentence}  " for sentence in sentences), ""] if sentences else []


def origin_line(results: Mapping[str, Any]) -> str:
    """Return one sentence on the origin of the numbers."""
    made = results["manifest"]
    seeds = sorted({row["seed"] for row in results["rows"] if row["protocol"]})
    gaps = [c["oracle_gap"] for c in results.get("comparisons", [])]
    spans = any(gap is not None and gap["low"] is not None for gap in gaps)
    return (
        f"{_units(results)}on {_explained(results)}; mean ± standard deviation over seeds {', '.join(map(str, seeds)) or '-'}"
        f"{', [95 % interval over instances and seeds]' if spans else ''}; "
        f"scopewise {made['scopewise']}, commit {(made['commit'] or 'unknown')[:12]}, config {made['config_hash'][:12]}, "
        f"{made['processor']} ({made['cores']} cores), {made['device']}, torch {made['packages']['torch']}, {made['date']}."
    )


def _units(results: Mapping[str, Any]) -> str:
    """Return which columns are in which unit."""
    by_unit: dict[str, list[str]] = {}
    for column in columns(results):
        if column.unit and "+" not in column.key:
            by_unit.setdefault(column.unit, []).append(column.heading)
    return "".join(f"In {unit}: {', '.join(headings)}; " for unit, headings in by_unit.items())


def _explained(results: Mapping[str, Any]) -> str:
    split = split_shown(results)
    return "val" if split == "val" else "train, which unlearning saw, since no row is val"


def _cell(column: Column, figure: Figure | None) -> str:
    if figure is None:
        return "" if column is GAP or column.key in COSTS else "n/a"
    value = figure.value
    if column.key in COSTS:
        return format(value, column.number)
    if column is GAP:
        interval = "" if figure.low is None or figure.high == figure.low else f" [{figure.low:.2f}, {figure.high:.2f}]"
        return f"{value:.2f}{interval}"
    text = f"{value:.2f}" if abs(value) < 1e4 else f"{value:.1e}"
    if figure.spread is None:
        return text
    return f"{text} ± {figure.spread:.2f}" if figure.spread < 1e4 else f"{text} ± {figure.spread:.1e}"
