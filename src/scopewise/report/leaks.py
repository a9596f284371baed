"""Attack results for the page: leakage per model and attack, and the worst leaks. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scopewise.report.attacks import steps_text
from scopewise.report.curves import Chart, attack_chart
from scopewise.report.figures import number
from scopewise.statistics import LEAST_INSTANCES


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
