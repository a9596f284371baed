"""`scopewise build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scopewise.cli import Json, command, quiet_libraries
from scopewise.errors import ConfigError, ResultError
from scopewise.registry import allowed
from scopewise.terminal import counted, echo, echo_json, echo_table, echo_wrapped

_SHOWN = 20
"""Most instances and facts that were left out and are printed."""


@command
def build(
    instances: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INSTANCES",
            help="Persons or works with attributes: YAML, JSON, JSON lines or CSV; with --from-documents more documents.",
        ),
    ] = None,
    from_documents: Annotated[
        str | None, typer.Option(help="Find facts in documents: a text file, or a folder of them.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--instances", help="File with a name on each line, for --from-documents.")
    ] = None,
    check_against: Annotated[
        list[str] | None,
        typer.Option(
            help="Second source: instances, a text, or a folder of texts; facts that none confirms are left out. Repeatable."
        ),
    ] = None,
    law: Annotated[
        list[str] | None,
        typer.Option(help="Law table: privacy-gdpr, privacy-ccpa, copyright-us, or a YAML file. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the benchmark; none: benchmarks/NAME of INSTANCES.")
    ] = None,
    kinds: Annotated[str | None, typer.Option(help="Kinds of questions, with commas; none: all.")] = None,
    per_fact: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most kinds for each fact, one direct question among them; the others take turns. None: all kinds.",
        ),
    ] = None,
    wrong: Annotated[int, typer.Option(min=5, max=50, help="Wrong answers of each row.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws; the same seed gives the same bytes.")] = 0,
    licence: Annotated[str | None, typer.Option(help="Licence of the benchmark; none: what INSTANCES states.")] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(help="Also write the rows as knowundo, tofu, open_unlearning or lm_eval. Repeatable."),
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(help="Name of an instance: also write the rows of its deletion request, for forget. Repeatable."),
    ] = None,
    check_model: Annotated[
        str | None,
        typer.Option(
            help="Measure whether this model, the target, knows what must go, and finds the answers if it reads the facts."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="With --check-model: the model before fine-tuning, which should not know them. It reads in the target's place."
        ),
    ] = None,
    generator: Annotated[
        list[str] | None,
        typer.Option(
            help="What writes questions: template, model:PATH, or openai:BASE_URL,MODEL (key: OPENAI_API_KEY in the "
            "environment). One writes val questions; of two, the first writes train questions."
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=0, help="Most calls of generators; those answered before are free.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count facts and calls, and stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier benchmark in the folder.")] = False,
    as_json: Json = False,
) -> None:
    """Build a benchmark from instances: scopes by law, questions, checks, and a datasheet.

    By templates (the default), it needs no model and no network. A build that was stopped continues with the same command.
    """
    from scopewise.building.datasheet import FILE
    from scopewise.building.from_documents import from_documents as find
    from scopewise.building.generator import TEMPLATE
    from scopewise.building.instances import read_instances
    from scopewise.building.law import read_law
    from scopewise.building.layouts import LAYOUTS
    from scopewise.building.make import RUN, Settings
    from scopewise.building.make import build as make
    from scopewise.building.make import dry_run as count
    from scopewise.building.questions import KINDS
    from scopewise.building.templates import wordings
    from scopewise.building.verified import verified

    asked = tuple(part.strip() for part in kinds.split(",")) if kinds else KINDS
    for kind in asked:
        if kind not in KINDS:
            raise ConfigError(f"--kinds: {kind!r}; {allowed(kind, KINDS)}")
    layouts = tuple(name.replace("-", "_") for name in layout or ())
    for name in layouts:
        if name not in LAYOUTS:
            raise ConfigError(f"--layout: {name!r}; {allowed(name, LAYOUTS)}")
    if base and not check_model:
        raise ConfigError(f"--base: {base}, and no --check-model; give the target, too, or leave the base out")
    models = tuple(filter(None, (check_model, base)))
    if models:
        quiet_libraries()
    laws = tuple(read_law(name) for name in law or ["privacy-gdpr"])
    given = [*filter(None, [from_documents]), *(instances or [])]
    if not given or (len(given) > 1 and from_documents is None):
        raise ConfigError(
            f"INSTANCES: {len(given)} files; give one file of instances, or documents by --from-documents"
        )
    folder = out or Path("benchmarks") / Path(given[0]).name.partition(".")[0]
    if (folder / FILE).exists() and not overwrite:
        raise ResultError(f"--out: {folder} has a benchmark; name another folder, or add --overwrite")
    shipped = {kind: wordings(kind) for kind in ("person", "work")}
    documents = from_documents is not None
    found = find(given, names, laws, shipped) if documents else read_instances(given[0], laws, shipped)
    if check_against:
        found = verified(found, check_against, shipped)
    train, val = _writers(generator or [TEMPLATE], folder, budget)
    settings = Settings(
        laws, asked, seed, wrong, per_fact, licence or "", layouts, models, tuple(request or ()), train, val
    )
    if dry_run:
        needed = count(found, settings)
        echo_json(needed) if as_json else echo_table((), [(name, str(n)) for name, n in needed.items()])
        return
    sheet = make(found, ", ".join(Path(path).name for path in given), settings, folder)
    if as_json:
        echo_json(sheet)
        return
    counts = sheet["counts"]
    echo_wrapped(f"{folder}: {counted(counts['rows'], 'row')} about {counted(sheet['instances'], 'instance')}")
    echo_table(("rows", ""), [(name, str(count)) for name, count in counts["places"].items()])
    failed = {name: count for name, count in sheet["checks"]["failed"].items() if count}
    if failed or sheet["left_out"]:
        echo_table(("check", "failed by"), [(name, str(count)) for name, count in failed.items()])
        echo(f"{counted(sheet['left_out'], 'row')} left out; see {folder / 'left_out.jsonl'}")
    for one in sheet.get("known", {}).get("models", ()):
        echo_wrapped(f"{one['model']}: knows {one['known']} of {sheet['known']['facts']} forget facts by exposure")
    if read := sheet.get("read"):
        found, entailed = read["checks"].values()
        echo_wrapped(
            f"{read['model']}: finds the answer of {found['passed']} of {counted(read['rows'], 'row')} if it reads the "
            f"fact, and concludes {entailed['failed']} retain answers from forget facts"
        )
    left = [f"{one['instance']}, since: {one['why']}" for one in sheet["instances_left_out"]]
    left += [f"{one['attribute']} of {one['instance']}, since: {one['why']}" for one in sheet["facts_left_out"]]
    for text in left[:_SHOWN]:
        echo_wrapped(f"left out: {text}")
    if len(left) > _SHOWN:
        echo_wrapped(f"left out: {len(left) - _SHOWN} more instances and facts; see {folder / 'DATASHEET.md'}")
    echo_wrapped(f"Next: scopewise check {folder / RUN}, or read {folder / 'DATASHEET.md'}")


def _writers(names: list[str], folder: Path, budget: int | None) -> list[Any]:
    """Return what writes train and val questions; None for templates. Raises ConfigError for the same twice, or more."""
    from scopewise.building.calls import Budget, Calls
    from scopewise.building.generator import TEMPLATE, generator_of
    from scopewise.building.written import Written

    if len(names) > 2:
        raise ConfigError(f"--generator: {len(names)} of them; give one for val, or one for train and one for val")
    if len(names) == 2 and names[0] == names[1] != TEMPLATE:
        raise ConfigError(
            f"--generator: {names[0]!r} for train and val; val then repeats train; give two different ones"
        )
    if any(name != TEMPLATE for name in names):
        quiet_libraries()
    found = [generator_of(name) for name in ([TEMPLATE, *names])[-2:]]
    shared = Budget(budget)
    return [None if one is None else Written(Calls(one, folder, shared)) for one in found]
