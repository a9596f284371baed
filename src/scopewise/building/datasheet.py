"""The datasheet of a benchmark: counts, law tables, generators, seeds, and what was checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scopewise.building.checks import NAMES, READ_NAMES
from scopewise.data.rows import Row
from scopewise.documents import read_json
from scopewise.errors import DataError
from scopewise.files import write_json, write_text
from scopewise.terminal import counted

FILE, PAGE, FORMAT = "datasheet.json", "DATASHEET.md", 1


@dataclass
class Counts:
    """Rows by scope and split, kind, and attribute."""

    places: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    attributes: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.places[f"{row.scope}_{row.split}"] += 1
        self.kinds[row.kind] += 1
        self.attributes[row.attribute] += 1

    def describe(self) -> dict[str, Any]:
        """Return the counts, with their names in order."""
        return {
            "rows": sum(self.places.values()),
            **{name: dict(sorted(getattr(self, name).items())) for name in ("places", "kinds", "attributes")},
        }


def write_datasheet(folder: Path, sheet: Mapping[str, Any]) -> None:
    """Write the datasheet as JSON and as a page."""
    write_json(folder / FILE, {"format": FORMAT, **{key: value for key, value in sheet.items() if key != "format"}})
    write_text(folder / PAGE, page(sheet))


def read_datasheet(folder: Path) -> dict[str, Any]:
    """Return the datasheet of a folder. Raises DataError if there is none, or one of another format."""
    if not (folder / FILE).is_file():
        raise DataError(f"{folder}: no {FILE} in it; name a folder that `scopewise build` wrote")
    sheet = read_json(folder / FILE, DataError)
    if not isinstance(sheet, dict) or sheet.get("format") != FORMAT:
        raise DataError(f"{folder / FILE}: not a datasheet of format {FORMAT}; build the benchmark again")
    return sheet


def check_datasheet(folder: Path, sheet: Mapping[str, Any]) -> None:
    """Raise DataError if something is missing in a datasheet, or of another kind, so that its page cannot be written."""
    try:
        page(sheet)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        raise DataError(
            f"{folder / FILE}: not as `scopewise build` wrote it; build the benchmark again, with --overwrite"
        ) from None


def page(sheet: Mapping[str, Any]) -> str:
    """Return the datasheet in Markdown."""
    counts = sheet["counts"]
    lines = [f"# {_cell(sheet['name'])}", ""]
    lines += [
        f"{counted(counts['rows'], 'question')} about {counted(sheet['instances'], 'instance')}, built by "
        f"`scopewise build` from `{_cell(sheet['source'])}`. Licence: {_cell(sheet['licence'] or 'not stated')}.",
        "",
        "The scopes make the benchmark plausible; they are no legal advice.",
        "",
    ]
    lines += ["## Rows", "", *_table("scope and split", counts["places"]), *_table("kind of question", counts["kinds"])]
    lines += [*_table("attribute", counts["attributes"]), "## Scopes", ""]
    for law in sheet["laws"]:
        lines += [
            f"**{law['name']}**: {law['title']}",
            "",
            "| attribute | scope | article | why |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {_cell(name)} | {rule['scope']} | {_cell(rule['article'])} | {_cell(rule['sentence'])} |"
            for name, rule in law["attributes"].items()
            if name in counts["attributes"]
        ]
        if law["expired"]:
            lines.append(
                f"| all, of works out of copyright | retain | {law['expired']['article']} | {law['expired']['sentence']} |"
            )
        lines.append("")
    made = sheet["generators"]
    lines += ["## Where questions are from", ""]
    lines += [
        f"Train: {_cell(made['train']['name'])}. Val: {_cell(made['val']['name'])}. Seed: {sheet['seed']}.{_limits(sheet)}",
        "",
    ]
    for split, one in made.items():
        if "calls" in one:
            refused = ", ".join(f"{count} {why}" for why, count in one["refused"].items()) or "none"
            templates = f"facts asked by templates in their place: {len(one['asked_by_templates'])}"
            lines += [f"{split}: {one['calls']} calls; texts refused: {refused}; {templates}.", ""]
    lines += ["## Checks", "", "| check | passed | failed |", "|---|---|---|"]
    checks = sheet["checks"]
    lines += [
        f"| {NAMES[name]} | {checks['passed'].get(name, 0)} | {checks['failed'].get(name, 0)} |" for name in NAMES
    ]
    lines += ["", "A majority vote on the first words of a question, fitted to the same rows, tells its scope:", ""]
    lines += ["| split, words | accuracy | more frequent scope alone | passed |", "|---|---|---|---|"]
    lines += [
        f"| {where} | {one['accuracy']:.1%} | {one['base_rate']:.1%} | {'yes' if one['passed'] else 'no'} |"
        for where, one in checks["first_words"].items()
    ]
    lines += ["", f"Left out: {counted(sheet['left_out'], 'row')} (`left_out.jsonl` says why)."]
    lines += [f"- {_cell(one['instance'])}: {_cell(one['why'])}" for one in sheet["instances_left_out"]]
    if dropped := sheet.get("facts_left_out"):
        lines += ["", "Facts left out:", ""]
        lines += [f"- {_cell(one['instance'])}, {_cell(one['attribute'])}: {_cell(one['why'])}" for one in dropped]
    if requests := sheet.get("requests"):
        lines += [
            "",
            "## Deletion requests",
            "",
            "| of | forget rows | retain rows | left out, since they repeat a value |",
        ]
        lines += ["|---|---|---|---|"]
        lines += [f"| {_cell(r['instance'])} | {r['forget']} | {r['retain']} | {r['shared']} |" for r in requests]
    if known := sheet.get("known"):
        lines += [
            "",
            "## What models know",
            "",
            f"Of {known['facts']} forget facts, by exposure (`docs/verdict.md`):",
            "",
        ]
        lines += ["| model | known | mean NLL of the answers, nats |", "|---|---|---|"]
        lines += [f"| {_cell(one['model'])} | {one['known']} | {one['nll']:.2f} |" for one in known["models"]]
    if read := sheet.get("read"):
        lines += [
            "",
            "## Read by a model",
            "",
            f"{_cell(read['model'])} read {counted(read['rows'], 'row')}; {read['unread']} did not fit its context.",
            "",
            "| check | passed | failed |",
            "|---|---|---|",
        ]
        lines += [f"| {READ_NAMES[name]} | {one['passed']} | {one['failed']} |" for name, one in read["checks"].items()]
    if review := sheet.get("review"):
        lines += ["", "## Review by a person", "", ", ".join(f"{count} {what}" for what, count in review.items()) + "."]
    return "\n".join(lines) + "\n"


def _limits(sheet: Mapping[str, Any]) -> str:
    """Return how many wrong answers and kinds of questions were asked for; empty for a sheet that does not say."""
    kinds = sheet.get("per_fact")
    limit = "" if kinds is None else f" Kinds for each fact, which take turns: {kinds}."
    return f" Wrong answers of a row: {sheet['wrong']}.{limit}" if "wrong" in sheet else ""


def _table(what: str, counts: Mapping[str, int]) -> list[str]:
    return [f"| {what} | rows |", "|---|---|", *(f"| {_cell(name)} | {n} |" for name, n in counts.items()), ""]


def _cell(text: object) -> str:
    """Return a text for a cell: no line breaks, no markup."""
    plain = " ".join(str(text).split())
    for mark in "\\`*_[]<>|":
        plain = plain.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return plain
