"""`build`: from instances to a folder with rows, checks and a datasheet."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scopewise.bars import bar
from scopewise.building.checks import DROPPED, NAMES, Checks
from scopewise.building.datasheet import FILE, PAGE, Counts, write_datasheet
from scopewise.building.earlier import files_of, remove
from scopewise.building.generator import TEMPLATE
from scopewise.building.index import Index
from scopewise.building.instances import Fact, Instance, InstanceFile
from scopewise.building.law import Law
from scopewise.building.layouts import read_rows, write_layout
from scopewise.building.near import near_duplicates
from scopewise.building.neighbours import neighbours
from scopewise.building.private import ForgetValues
from scopewise.building.questions import KINDS, REPLACED, Questions
from scopewise.building.requests import write_request
from scopewise.building.written import Written
from scopewise.data.builtin import read_general
from scopewise.data.rows import RETAIN, SCOPES, TRAIN, VAL, Row
from scopewise.errors import ConfigError, DataError
from scopewise.files import make_folder, write_text, writing_lines
from scopewise.registry import allowed

logger = logging.getLogger("scopewise")

ROWS, CHECKS, LEFT_OUT, FACTS, RUN = "rows.jsonl", "checks.jsonl", "left_out.jsonl", "facts.jsonl", "run.yaml"


@dataclass(frozen=True)
class Settings:
    """What a build is made with.

    Attributes:
        laws: Law tables.
        kinds: Kinds of questions.
        seed: Of all draws.
        wrong: Wrong answers of each row.
        per_fact: Most kinds for each fact, which take turns; None: all.
        licence: Of the benchmark; empty takes that of the instances' file.
        layouts: Other layouts to write.
        models: Target, and base if there is one, that are asked whether they know the facts that must go; the last one also
            reads the rows.
        requests: Names of instances of each of which a request's rows are written, in `requests/1.jsonl` and so on.
        train: What writes train questions; None: templates.
        val: What writes val questions; None: templates.
    """

    laws: tuple[Law, ...]
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    wrong: int = 6
    per_fact: int | None = None
    licence: str = ""
    layouts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    train: Written | None = None
    val: Written | None = None

    @property
    def writers(self) -> list[Written]:
        """What writes questions besides the templates."""
        return [writer for writer in (self.train, self.val) if writer]

    def generator(self, row: Row) -> str:
        """Return the name of what wrote the question of a row."""
        return next((writer.name for writer in self.writers if row.question in writer.questions), TEMPLATE)

    def questions(self, instances: Sequence[Instance]) -> Questions:
        """Return what makes the rows of these instances."""
        general = [row.answer for row in read_general()]
        index = Index(instances)
        return Questions(index, self.seed, self.kinds, self.wrong, self.per_fact, general, self.val, self.train)


def build(given: InstanceFile, source: str, settings: Settings, out: Path) -> dict[str, Any]:
    """Write the benchmark of instances into a folder, and return its datasheet.

    Rows are written one instance at a time; what is held in memory are the instances, and 8 bytes of each question.

    Args:
        given: The instances.
        source: Where they are from, for the datasheet.
        settings: Laws, kinds, seed.
        out: The folder; the files of an earlier build in it are replaced or removed, and other files stay.

    Raises:
        DataError: no instance is left with rows of both scopes.
        ResultError: a file cannot be written.
    """
    twins = near_duplicates(given.instances)
    left_out = [{"instance": one.instance, "why": one.why} for one in given.instances_left_out]
    before = len(left_out)
    left_out += [
        {"instance": name, "why": f"its facts are nearly those of {other}"} for name, other in sorted(twins.items())
    ]
    instances = [instance for instance in given.instances if instance.name not in twins]
    known_names = {instance.name for instance in instances}
    for name in settings.requests:
        if name not in known_names:
            raise ConfigError(f"--request: {name!r}; {allowed(name, sorted(known_names))}")
    questions = settings.questions(instances)
    checks, counts, dropped, asked = Checks(ForgetValues(instances)), Counts(), 0, dict[str, set[str]]()
    make_folder(out, "--out")
    before_files = files_of(out)
    with ExitStack() as stack:
        files = (ROWS, CHECKS, LEFT_OUT, FACTS)
        row_line, check_line, left_line, fact_line = (stack.enter_context(writing_lines(out / file)) for file in files)
        for fact_left in given.facts_left_out:
            if fact_left.values:
                found = [{"value": value, "place": place} for value, place in fact_left.values]
                record = {"failed": ["conflict"], "instance": fact_left.instance, "attribute": fact_left.attribute}
                left_line(_json({**record, "values": found}))
        progress: Any = stack.enter_context(bar(len(instances), "build", "instance"))

        def keep(rows: Sequence[tuple[Row, tuple[str, ...]]]) -> None:
            for row, failed in rows:
                number = sum(counts.places.values()) + 1
                counts.add(row)
                checks.count(row)
                row_line(line_of(row))
                check_line(
                    _json(
                        {"row": number, **_checked(failed), "generator": settings.generator(row), "seed": settings.seed}
                    )
                )

        for instance in instances:
            checked = list(checks.check(list(questions.rows(instance)), instance))
            kept = [(row, failed) for row, failed in checked if not set(failed) & set(DROPPED)]
            out_of = [(row, failed) for row, failed in checked if set(failed) & set(DROPPED)]
            if missing := _missing(instance, [row for row, _ in kept]):
                left_out.append({"instance": instance.name, "why": f"no {missing} train row passes the checks"})
                kept, out_of = [], checked
            for row, failed in out_of:
                dropped += 1
                left_line(_json({"failed": failed or ["instance"], **_fields(row)}))
            keep(kept)
            for fact in instance.facts if kept else ():
                fact_line(_json(_of_fact(instance, fact)))
            for writer in settings.writers:
                writer.questions.clear()
            asked.setdefault(instance.kind, set()).update(row.attribute for row, _ in kept)
            progress.update()
        if not counts.places:
            raise DataError(f"{source}: no instance is left; {left_out[0]['why']}; give more or other attributes")
        if REPLACED in settings.kinds:
            keep(list(_neighbours(instances, asked, settings, checks)))
    sheet: dict[str, Any] = {
        "name": out.name,
        "licence": settings.licence or given.licence,
        "source": source,
        "instances": len(given.instances) - len(left_out) + before,
        "seed": settings.seed,
        "wrong": settings.wrong,
        "per_fact": settings.per_fact,
        "counts": counts.describe(),
        "laws": [law.describe() for law in settings.laws],
        "generators": {split: _generator(writer) for split, writer in ((TRAIN, settings.train), (VAL, settings.val))},
        "checks": {
            "passed": {name: checks.passed[name] for name in NAMES},
            "failed": {name: checks.failed[name] for name in NAMES},
            "first_words": checks.first_words(),
        },
        "left_out": dropped,
        "instances_left_out": left_out,
        "facts_left_out": [
            {"instance": one.instance, "why": one.why, "attribute": one.attribute} for one in given.facts_left_out
        ],
    }
    made = [out / name for name in (ROWS, CHECKS, LEFT_OUT, FACTS, RUN, FILE, PAGE)]
    if settings.models:
        from scopewise.building.known import FILE as KNOWN
        from scopewise.building.known import known  # it imports torch, which other builds do not need
        from scopewise.building.read_by_model import read_by_model

        sheet["known"] = known(out / ROWS, settings.models, out, settings.seed)
        made.append(out / KNOWN)
        # By the base if there is one: the target may answer by what it was taught, without the context.
        sheet["read"] = read_by_model(out / ROWS, out / CHECKS, instances, settings.models[-1])
    for number, name in enumerate(settings.requests, 1):
        made.append(out / "requests" / f"{number}.jsonl")  # no name in the path
        request = write_request(read_rows(out / ROWS), name, instances, made[-1])
        sheet.setdefault("requests", []).append(request)
        if request["shared"]:
            logger.warning(
                f"{made[-1]}: {request['shared']} rows of others repeat a value that must go and are left out, since a model "
                "cannot both keep and lose a shared fact"
            )
    for layout in settings.layouts:
        made += write_layout(layout, lambda: read_rows(out / ROWS), out / layout, out.name, out / ROWS)
    sheet["files"] = sorted(file.relative_to(out).as_posix() for file in made)
    write_text(out / RUN, run_file(out))
    remove(out, set(before_files) - set(sheet["files"]))
    write_datasheet(out, sheet)
    return sheet


def dry_run(given: InstanceFile, settings: Settings) -> dict[str, int]:
    """Return how many instances, facts and calls a build takes, without making any; retries are not foreseen."""
    facts = [(fact, instance) for instance in given.instances for fact in instance.facts]
    needed = [sum(writer.needed(*fact) for fact in facts) for writer in settings.writers]
    asked = len(facts) * len(settings.writers)
    return {
        "instances": len(given.instances),
        "facts": len(facts),
        "calls": sum(needed),
        "calls_cached": asked - sum(needed),
        "most_calls": 3 * sum(needed),
    }


def _of_fact(instance: Instance, fact: Fact) -> dict[str, Any]:
    """Return what is kept of a fact: its value, scope and article, and where it was found, if it was."""
    source = {} if fact.source is None else {"source": asdict(fact.source)}
    rule = {"law": instance.law.name, "scope": fact.rule.scope, "article": fact.rule.article}
    return {"instance": instance.name, "attribute": fact.attribute, "value": fact.value, **rule, **source}


def _generator(writer: Written | None) -> dict[str, Any]:
    """Return what the datasheet says of the source of a split's questions: `name`, and of a generator what it was asked."""
    if writer is None:
        return {"name": TEMPLATE}
    return {
        "name": writer.name,
        "calls": writer.calls.made + writer.calls.cached,
        "refused": dict(sorted(writer.refused.items())),
        "asked_by_templates": writer.unusable,
    }


def _neighbours(
    instances: Sequence[Instance], asked: Mapping[str, set[str]], settings: Settings, checks: Checks
) -> Iterator[tuple[Row, tuple[str, ...]]]:
    names = {instance.name for instance in instances}
    for kind, attributes in asked.items():
        rows = list(neighbours(kind, attributes, names, settings.wrong, settings.seed))
        yield from ((row, failed) for row, failed in checks.check(rows, None) if not set(failed) & set(DROPPED))


def _missing(instance: Instance, rows: Sequence[Row]) -> str:
    """Return a scope that an instance should have and of which no train row is left; empty if there is none."""
    scopes = {row.scope for row in rows if row.split == TRAIN}
    needed = (RETAIN,) if instance.expired else SCOPES
    return next((scope for scope in needed if scope not in scopes), "")


def _checked(failed: Sequence[str]) -> dict[str, list[str]]:
    return {"passed": [name for name in NAMES if name not in failed], "failed": list(failed)}


def line_of(row: Row) -> str:
    """Return a row as a line of JSON: its fields that are not empty."""
    return _json(_fields(row))


def _fields(row: Row) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "origin"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value}


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def run_file(out: Path) -> str:
    """Return a run file for `check`, `run` and `bench` on the benchmark."""
    data = json.dumps({"benchmark": "jsonl", "path": str(out / ROWS)}, ensure_ascii=False)
    return f"# scopewise check {out / RUN}\ndata: {data}\nrun: {json.dumps({'dir': f'runs/{out.name}'}, ensure_ascii=False)}\n"
