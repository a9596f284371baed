"""The table of attacks: one line per method, one column per attack, leakage over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scopewise.report.table import row_text
from scopewise.statistics import LEAST_INSTANCES

_MARK = {
    "leaks": " **leaks**",
    "undecided": " ?",
    "holds": "",
    "one instance": " (one instance)",
    "few instances": " (few instances)",
    "over-unlearned": " *over*",
}


def attacks_table(document: Mapping[str, Any]) -> str:
    """Return `attacks.json` as a Markdown table, with a legend and the origin of the numbers."""
    attacks: Sequence[str] = document["attacks"]
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in document["results"]:
        rows.setdefault((result["method"], result["protocol"] or ""), []).append(result)
    with_protocol = len({protocol for _, protocol in rows if protocol}) > 1
    head = ["Method", *(["Protocol"] if with_protocol else []), *(a.replace("_", " ") for a in attacks), "worst"]
    lines = [row_text(head), "|" + "---|" * len(head)]
    for (method, protocol), results in rows.items():
        cells = [_cell([r for r in results if r["attack"] == attack]) for attack in attacks]
        lines.append(row_text([method, *([protocol] if with_protocol else []), *cells, _worst(results)]))
    seeds = sorted({r["seed"] for r in document["results"] if r["seed"] is not None})
    manifest, settings = document["manifest"], document["inputs"]["attack"]
    single = ""
    if any(r["verdict"] == "one instance" for r in document["results"]):
        single = " (one instance): the tested rows are about one instance, so there is no interval and no verdict."
    if any(r["verdict"] == "few instances" for r in document["results"]):
        single += f" (few instances): the tested rows are about fewer than {LEAST_INSTANCES} instances, so there is no verdict."
    return "\n".join(
        [
            *lines,
            "",
            f"Leakage: 0 = no more than the oracle leaks under the same attack, 1 = as much as the target; mean over seeds "
            f"{', '.join(map(str, seeds))}, in brackets the lowest and the highest limit of the seeds' 95 % intervals. "
            f"**leaks**: the intervals of all seeds are above {document['threshold']}; no mark: all are below it; ?: neither; "
            f"*over*: all are below -{document['threshold']}, so the model is over-unlearned; –: target and oracle differ too "
            f"little under this attack to measure leakage.{single}",
            *_recovery(document["results"]),
            "",
            f"Suite {settings['suite']}, {seconds(document):.0f} s; scopewise {manifest['scopewise']}, commit "
            f"{str(manifest['commit'])[:12]}, config {str(manifest['config_hash'])[:12]}, {manifest['processor']} "
            f"({manifest['cores']} cores), torch {manifest['packages']['torch']}, {manifest['date']}.",
        ]
    )


def seconds(document: Mapping[str, Any]) -> float:
    """Return the total time of all attacks."""
    return sum(result["cost"]["seconds"] for result in document["results"])


def _recovery(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of the steps until half of the facts are back, for each method and attack that trains."""
    rows: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        if result.get("steps_to_recover") and result["model"] not in ("target", "oracle"):
            key = (result["method"], result["protocol"] or "", result["attack"])
            rows.setdefault(key, []).append(result["steps_to_recover"])
    if not rows:
        return []
    lines = [
        "",
        "Steps until the model has half of what the target knows beyond the oracle (both before the attack); one figure per "
        "seed, counted at the steps at which the attack measures:",
        "",
        "| Method | Protocol | Attack | steps | oracle |",
        "|---|---|---|---|---|",
    ]
    for (method, protocol, attack), found in rows.items():
        cells = [", ".join(steps_text(one[model], one["most"]) for one in found) for model in ("unlearned", "oracle")]
        lines.append(row_text([method, protocol, attack.replace("_", " "), *cells]))
    return lines


def steps_text(steps: int | None, most: int) -> str:
    """Return a number of steps, or that it takes more than the attack's."""
    return f"> {most}" if steps is None else str(steps)


def _cell(results: Sequence[Mapping[str, Any]]) -> str:
    known = [r for r in results if r["leakage"] is not None]
    if not known:
        return "–" if any(r["verdict"] == "not measurable" for r in results) else ""
    mean = statistics.fmean(r["leakage"] for r in known)
    mark = _MARK[_together([r["verdict"] for r in known])]
    if any(r["low"] is None for r in known):
        return f"{mean:.2f}{mark}"
    low, high = min(r["low"] for r in known), max(r["high"] for r in known)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]{mark}"


def _together(verdicts: Sequence[str]) -> str:
    """Return the verdict over seeds: `undecided` unless all seeds agree."""
    return verdicts[0] if len(set(verdicts)) == 1 else "undecided"


def _worst(results: Sequence[Mapping[str, Any]]) -> str:
    known = [r for r in results if r["leakage"] is not None]
    if not known:
        return ""
    by_attack: dict[str, list[float]] = {}
    for result in known:
        by_attack.setdefault(result["attack"], []).append(result["leakage"])
    worst = max(by_attack, key=lambda attack: statistics.fmean(by_attack[attack]))
    return f"{statistics.fmean(by_attack[worst]):.2f} {worst.replace('_', ' ')}"
