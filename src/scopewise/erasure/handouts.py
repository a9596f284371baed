"""What is made from a record: a page for the officer, a section for the model card, a CycloneDX ML-BOM. Imports no torch."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from scopewise.erasure.envelope import canonical
from scopewise.erasure.evidence import NAME
from scopewise.erasure.record_schema import Statement
from scopewise.files import write_json, write_text
from scopewise.report.templates import environment

FOLDER = Path(__file__).parent
PAGE, SECTION, BOM = "record.html", "model-card-section.md", "bom.cdx.json"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~&$])")


def write_handouts(folder: str | Path, statement: Mapping[str, Any]) -> list[Path]:
    """Write the three files into a folder, replacing earlier ones, and return their paths.

    Args:
        folder: Best the one that holds the record; not the exported one, whose files the record names.
        statement: From `read_record`.
    """
    page, section, bom = (Path(folder) / name for name in (PAGE, SECTION, BOM))
    write_text(page, officer_page(statement))
    write_text(section, model_card_section(statement))
    write_json(bom, ml_bom(statement))
    return [page, section, bom]


def summary(statement: Mapping[str, Any]) -> str:
    """Return the result of a record in one or two sentences without terms of the field."""
    evidence = statement["predicate"]["evidence"]
    result = evidence["test_result"]
    if evidence.get("verdict") is None:
        if statement["predicate"]["action"]["kind"] == "nothing":
            return "The model did not know these facts when it was tested. It was not changed."
        return "The model was not tested after the change."
    if result["result"] == "PASSED":
        return (
            "All tests passed: the model answers questions about these facts no better than a guess, it kept its other "
            "knowledge, and the attacks that were tried did not recover the facts."
        )
    if result["result"] == "WARNED":
        open_ = ", ".join(result["warnedTests"])
        return f"No test failed, but the evidence is not enough to decide about: {open_}."
    return f"Not passed. These tests failed: {', '.join(result['failedTests'])}."


def officer_page(statement: Mapping[str, Any]) -> str:
    """Return one HTML page that prints on one sheet; it loads nothing and has no script."""
    templates = environment(FOLDER)
    templates.globals.update(figure=_figure, interval=_interval)
    style = (FOLDER / "record.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return templates.get_template("record.html").render(
        predicate=_predicate(statement),
        files=len(statement["subject"]),
        summary=summary(statement),
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'",
    )


def model_card_section(statement: Mapping[str, Any]) -> str:
    """Return a Markdown section: what was removed in kind, how, the verdict, the limits; no text of rows."""
    predicate = _predicate(statement)
    evidence, action = predicate["evidence"], predicate["action"]
    scopes = ", ".join(f"{part['rows']} rows of scope {_escaped(scope)}" for scope, part in predicate["scopes"].items())
    done = f"{action['kind']}, {action['method']}" if action["method"] else action["kind"]
    lines = ["## Unlearning", "", _escaped(summary(statement)), ""]
    lines += [f"- Request: {_escaped(predicate['request']['id'])}", f"- Rows: {scopes}", f"- Method: {_escaped(done)}"]
    if evidence["verdict"]:
        lines += ["", "| test | result | value | interval | n | bound |", "|---|---|---|---|---|---|"]
        tests = list(evidence["verdict"].items())
        tests += [(f"attack {attack['name']}", attack) for attack in evidence["attacks"]]
        lines += [
            f"| {_escaped(name)} | {light['light'] or '-'} | {_figure(light['value'])} | {_interval(light)} "
            f"| {_figure(light['n'])} | {_figure(light['bound'])} |"
            for name, light in tests
        ]
    lines += ["", "Limits:", "", *(f"- {_escaped(limit)}" for limit in predicate["limits"])]
    signer = predicate["signer"]["keyid"]
    lines += [
        "",
        f"This is evidence from tests of {predicate['made'][:10]}. The signed record is `{NAME}`, signer `{signer}`.",
    ]
    return "\n".join(lines) + "\n"


def ml_bom(statement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a CycloneDX 1.6 bill of materials: the model with its card, its files, and the model it came from.

    Source: CycloneDX 1.6 (ECMA-424), `machine-learning-model` and `modelCard`.
    """
    predicate = _predicate(statement)
    evidence, digest = predicate["evidence"], hashlib.sha256(canonical(dict(statement))).hexdigest()
    files = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    attacks = [{**attack, "name": f"attack {attack['name']}"} for attack in evidence["attacks"]]
    lights = evidence["verdict"] or {}
    properties = {"request": predicate["request"]["id"], "statement-sha256": digest, "summary": summary(statement)}
    properties |= {f"verdict-{name}": light["light"] for name, light in lights.items()}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": predicate["made"],
            "tools": {
                "components": [{"type": "application", "name": "scopewise", "version": predicate["tool"]["scopewise"]}]
            },
        },
        "components": [
            {
                "type": "machine-learning-model",
                "bom-ref": "model",
                "name": f"{predicate['before']['name']} after {predicate['request']['id']}",
                "modelCard": {
                    "quantitativeAnalysis": {
                        "performanceMetrics": [_performance(m) for m in (*evidence["metrics"], *attacks)]
                    },
                    "considerations": {"technicalLimitations": list(predicate["limits"])},
                },
                "pedigree": {
                    "ancestors": [_model(predicate["before"]["name"], predicate["before"]["files"])],
                    "notes": f"{predicate['action']['kind']} unlearning",
                },
                "components": _files(files),
                "externalReferences": [{"type": "attestation", "url": NAME}],
                "properties": [{"name": f"scopewise:{key}", "value": value} for key, value in properties.items()],
            }
        ],
    }


def _predicate(statement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the predicate with the defaults of what it leaves out."""
    return Statement.model_validate(statement).predicate.model_dump(by_alias=True)


def _model(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "machine-learning-model", "name": name, "components": _files(files)}


def _files(files: Mapping[str, str]) -> list[dict[str, Any]]:
    hashes = {name: [{"alg": "SHA-256", "content": digest}] for name, digest in files.items()}
    return [{"type": "file", "name": name, "hashes": found} for name, found in hashes.items()]


def _performance(metric: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": metric["name"], "value": _figure(metric["value"])}
    if metric["low"] is not None and metric["high"] is not None:
        bounds = {"lowerBound": _figure(metric["low"]), "upperBound": _figure(metric["high"])}
        found["confidenceInterval"] = bounds
    return found


def _figure(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _interval(part: Mapping[str, Any]) -> str:
    low, high = part["low"], part["high"]
    return "-" if low is None or high is None else f"{_figure(low)} to {_figure(high)}"


def _escaped(text: str) -> str:
    """Return a text that Markdown and HTML show as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
