"""The report page: one self-contained HTML file from a template, with style sheet and script inlined."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from scopewise.report import scatter as drawing
from scopewise.report.attacks import leaks
from scopewise.report.columns import columns, metric_columns, split_shown
from scopewise.report.curves import charts
from scopewise.report.difference import comparison
from scopewise.report.figures import lines, number
from scopewise.report.leader import leaders
from scopewise.report.questions import instances, questions
from scopewise.report.redact import Open, Redaction, local, private
from scopewise.report.regions import SHADES, heat_maps
from scopewise.report.run_folder import Run
from scopewise.report.table import controls, origin_line, searches, untaught
from scopewise.report.templates import environment
from scopewise.report.verdict import verdict

FOLDER = Path(__file__).parent
_DATA = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})
"""Escapes for data in a script element, which `</script>` would end and `<!--` would change."""


def render(runs: Sequence[Run], *, redact: bool = False, salt: str | None = None) -> str:
    r"""Return the page of some runs.

    All text from data or models is escaped, by the template or, in the data of the script, as `\\u003c`; the script
    sets text, never markup. The Content-Security-Policy allows only this style and this script, by their hashes.

    Args:
        runs: From `read_runs`; the others are compared with the first.
        redact: Replace text of the forget answers by salted hashes, and show no local paths.
        salt: As for `Redaction`.
    """
    hidden: Redaction | Open = Open()
    unhidden: list[str] = []
    if redact:
        runs, hidden, unhidden = private(runs, salt)
    style, script = (_file(name) for name in ("style.css", "script.js"))
    packed = questions(runs, hidden)
    data = {"questions": packed, "instances": [instances(run, hidden.scrub) for run in runs]}
    templates = environment(FOLDER)
    templates.globals.update(number=number, shades=SHADES, plot=drawing)
    return templates.get_template("page.html").render(
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_DATA)),
        redacted=redact,
        unhidden=unhidden,
        runs=[_view(run, hidden) for run in runs],
        scatter=drawing.scatter(runs),
        difference=comparison(runs) if len(runs) > 1 else None,
        has_questions=bool(packed["rows"]),
        one_seed=packed["one_seed"],
        has_instances=any(instances(run) for run in runs),
        has_attacks=any(run.attacks for run in runs),
    )


def _view(run: Run, hidden: Redaction | Open) -> dict[str, Any]:
    """Return the template's variables for one run."""
    results = run.results
    known = lines(run)
    hides = isinstance(hidden, Redaction)
    return {
        "name": run.name,
        "verdict": verdict(run),
        "warning": untaught(results),
        "complete": results.get("complete", True),
        "going": run.going,
        "split": split_shown(results),
        "columns": columns(results),
        "lines": known,
        "seeds": sorted({seed for line in known if line.role == "unlearned" for seed in line.seeds}),
        "leaders": leaders(results),
        "controls": controls(results),
        "searches": searches(results),
        "measures": _measures(run),
        "maps": [(label, region, heat_maps(region)) for label, region in run.regions.items()],
        "charts": charts(run),
        "attacks": run.attacks,
        "leaks": leaks(run.attacks, hidden.hide, (lambda text: hidden.scrub(local(text))) if hides else str),
        "manifest": _flat(results["manifest"]),
        "origin": origin_line(results) if results.get("rows") else "",
        "config": yaml.safe_dump(results.get("config", {}), sort_keys=False, allow_unicode=True),
        "model": (results.get("config") or {}).get("model", {}),
        "skipped": _skipped(run),
    }


def _measures(run: Run) -> list[dict[str, Any]]:
    """Return every metric key, with its unit and direction, and its mean over seeds for each line of the table."""
    groups = list(run.groups().values())
    found = []
    for key, column in metric_columns(run.results, all_keys=True).items():
        values = [
            [m.row["metrics"][key] for m in members if m.row["metrics"].get(key) is not None] for members in groups
        ]
        figures = [number(sum(v) / len(v)) if v else "n/a" for v in values]
        found.append({"key": key, "note": column.note, "figures": figures})
    return found


def _skipped(run: Run) -> list[str]:
    """Return the metrics' notes on skipped rows, each once with the models it applies to."""
    found: dict[str, set[str]] = {}
    for model in run.models:
        for key, sentences in (model.row.get("skipped") or {}).items():
            for sentence in sentences:
                found.setdefault(f"{key}: {sentence}", set()).add(run.label(model.group))
    every = {run.label(model.group) for model in run.models}
    return [text if models == every else f"{text} ({', '.join(sorted(models))})" for text, models in found.items()]


def _flat(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    shown = []
    for key, value in manifest.items():
        if isinstance(value, dict):
            shown.append((key, ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)))
        else:
            shown.append((key.replace("_", " "), "unknown" if value in (None, "") else str(value)))
    return shown


def _policy(style: str, script: str) -> str:
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (style, script)
    ]
    return (
        f"default-src 'none'; style-src {hashes[0]}; script-src {hashes[1]}; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'"
    )


def _file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").strip()
