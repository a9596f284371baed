"""Attack results: the table over methods, attacks and seeds; each model's leaks for the page. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scopewise.report.curves import Chart, attack_chart
from scopewise.report.figures import number
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


@dataclass(frozen=True)
class Leak:
    """One attack on one model.

    Attributes:
        attack: Its name.
        model: Method, protocol and seed.
        leakage: As text; 0 = no more than the oracle, 1 = as much as the target, `n/a` if not measurable.
        interval: Its 95 % interval as text, or a note that one instance gives none.
        value: Leakage as a number, to sort by; None if not measurable.
        verdict: `leaks`, `holds`, …
        cost: Cost of the attack, as text.
        notes: Caveats for the reader.
        worst: Label → text, for each of the rows that leak most.
        charts: The curve under which an attack that trains recovered most; empty for others.
        steps: Steps until half of the facts are back, in the model and in the oracle; empty for other attacks.
    """

    attack: str
    model: str
    leakage: str
    interval: str
    value: float | None
    verdict: str
    cost: str
    notes: Sequence[str]
    worst: Sequence[Mapping[str, str]]
    charts: Sequence[Chart]
    steps: str


def leaks(
    document: Mapping[str, Any] | None, hide: Callable[[str], str] = str, scrub: Callable[[str], str] = str
) -> list[Leak]:
    """Return the attacks on unlearned models, worst first.

    Args:
        document: Content of `attacks.json`, or None.
        hide: Applied to answers and outputs: a redaction replaces them.
        scrub: Applied to every other text.
    """
    results = [r for r in (document or {}).get("results", []) if r.get("model") not in ("target", "oracle")]
    found = []
    for r in sorted(results, key=lambda r: -(r.get("leakage") if r.get("leakage") is not None else float("-inf"))):
        known = r.get("leakage") is not None
        seconds = (r.get("cost") or {}).get("seconds")
        about = [
            str(r.get("method") or scrub(str(r.get("model")))),
            r.get("protocol") or "",
            "" if r.get("seed") is None else f"seed {r['seed']}",
        ]
        found.append(
            Leak(
                attack=str(r.get("attack")).replace("_", " "),
                model=", ".join(part for part in about if part),
                leakage=number(r["leakage"]) if known else "n/a",
                interval=_interval(r) if known else "",
                value=r.get("leakage"),
                verdict=str(r.get("verdict") or ""),
                cost=f"{seconds:.1f} s" if seconds is not None else "",
                notes=[scrub(str(note)) for note in r.get("notes", [])],
                worst=[_shown(leak, hide, scrub) for leak in r.get("worst") or []],
                charts=attack_chart(", ".join(part for part in about if part), r),
                steps=_steps(r.get("steps_to_recover")),
            )
        )
    return found


def _steps(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    model, oracle = (steps_text(found[name], found["most"]) for name in ("unlearned", "oracle"))
    return f"{model} (oracle {oracle})"


def _interval(result: Mapping[str, Any]) -> str:
    if result.get("low") is not None and result.get("high") is not None:
        return f"{number(result['low'])} to {number(result['high'])}"
    return "no interval from one instance" if result.get("verdict") == "one instance" else ""


def leaking(document: Mapping[str, Any] | None, group: tuple[str, str]) -> list[str]:
    """Return a sentence on how many attacks show leakage of a method and protocol; empty if none was run on it."""
    results = [
        r
        for r in (document or {}).get("results", [])
        if r.get("method") == group[0] and (r.get("protocol") or "") in ("", group[1]) and r.get("leakage") is not None
    ]
    attacks = {r["attack"] for r in results}
    leaky = {r["attack"] for r in results if r.get("verdict") == "leaks"}
    if not attacks:
        return []
    if all(r.get("verdict") == "one instance" for r in results):
        return ["Its attacks have no verdict: the forget rows are about one instance, so there is no interval."]
    if all(r.get("verdict") in ("one instance", "few instances") for r in results):
        return [
            f"Its attacks have no verdict: the forget rows are about fewer than {LEAST_INSTANCES} instances, which is too few."
        ]
    return [
        f"{len(leaky)} of {len(attacks)} attacks still get answers out of it."
        if leaky
        else f"None of {len(attacks)} attacks is sure to get answers out of it."
    ]


def _shown(leak: Mapping[str, Any], hide: Callable[[str], str], scrub: Callable[[str], str]) -> dict[str, str]:
    shown = {}
    for key, value in leak.items():
        if value is None or isinstance(value, dict | list):
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            shown[key] = number(float(value))
        else:
            shown[key] = hide(str(value)) if key in ("answer", "output") else scrub(str(value))
    return shown
