"""What is made from a record: a page for the officer, a section for the model card, a CycloneDX ML-BOM. Imports no torch."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scopewise.erasure import words
from scopewise.erasure.envelope import canonical
from scopewise.erasure.evidence import NAME
from scopewise.erasure.page import Answers, officer_page
from scopewise.erasure.record_schema import predicate_of
from scopewise.files import json_text, write_text

PRIVATE = "record-with-names.html"
PAGE, SECTION, BOM = "record.html", "model-card-section.md", "bom.cdx.json"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~&$])")


def handouts(statement: Mapping[str, Any]) -> dict[str, str]:
    """Return the name and the text of each file that is made from a record alone.

    Args:
        statement: From `read_record`.
    """
    return {
        PAGE: officer_page(statement),
        SECTION: model_card_section(statement),
        BOM: json_text(ml_bom(statement)),
    }


def write_handouts(folder: str | Path, statement: Mapping[str, Any]) -> list[Path]:
    """Write the files of `handouts` into a folder, replacing earlier ones, and return their paths.

    Args:
        folder: Best the one that holds the record; not the exported one, whose files the record names.
        statement: From `read_record`.
    """
    texts = handouts(statement)
    for name, text in texts.items():
        write_text(Path(folder) / name, text)
    return [Path(folder) / name for name in texts]


def write_private_page(
    folder: str | Path, statement: Mapping[str, Any], names: Sequence[str], answers: Sequence[Answers]
) -> Path:
    """Write the page with names and answers, which is personal data, and return its path.

    Args:
        folder: Of the request.
        statement: From `read_record`.
        names: Of the persons and works, from `describe_instances`.
        answers: Before and after, the worst first.
    """
    path = Path(folder) / PRIVATE
    write_text(path, officer_page(statement, names, answers))
    return path


def summary(statement: Mapping[str, Any]) -> str:
    """Return the result of a record in one or two sentences without terms of the field."""
    predicate = statement["predicate"]
    return words.banner(predicate["action"]["kind"], predicate["evidence"].get("verdict")).text


def model_card_section(statement: Mapping[str, Any]) -> str:
    """Return a Markdown section: what was removed in kind, how, the verdict, the limits; no text of rows."""
    predicate = predicate_of(statement)
    evidence, action = predicate["evidence"], predicate["action"]
    scopes = ", ".join(f"{part['rows']} rows of scope {_escaped(scope)}" for scope, part in predicate["scopes"].items())
    done = f"{action['kind']}, {action['method']}" if action["method"] else action["kind"]
    lines = ["## Unlearning", "", _escaped(summary(statement)), ""]
    lines += [f"- Request: {_escaped(predicate['request']['id'])}", f"- Rows: {scopes}", f"- Method: {_escaped(done)}"]
    if evidence["verdict"]:
        if words.is_by_construction(action["kind"], evidence):
            lines += ["", words.BY_CONSTRUCTION]
        lines += ["", "| test | result | value | interval | n | bound | p-value |", "|---|---|---|---|---|---|---|"]
        lines += [
            f"| {_escaped(name)} | {result} | {_figure(part['value'])} | {_interval(part)} "
            f"| {_figure(part['n'])} | {_figure(part['bound'])} | {_escaped(words.chance(part['p']))} |"
            for name, part, result in words.tests(evidence)
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
    predicate = predicate_of(statement)
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
