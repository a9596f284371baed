"""`scopewise forget`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scopewise.cli import Json, Overwrite, Resume, Set, command, quiet_libraries, sets
from scopewise.cli.signals import again
from scopewise.errors import ConfigError
from scopewise.run_file import load_config
from scopewise.terminal import echo, echo_json, echo_table, echo_wrapped


@command
@sets(base="model.path", model="model.target")
def forget(
    request: Annotated[
        list[str],
        typer.Argument(
            metavar="REQUEST...",
            help="Rows (JSON lines, CSV, Parquet and others), a request file (YAML or JSON), or the name of a benchmark; "
            "several are carried out in one training.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder, GGUF file or hub name of the model; none: a tiny model is fine-tuned on the rows, to try it."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The model before fine-tuning; none: what the model's own files say.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the request; none: forgotten/ID.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for the unlearning, such as 30m or 2h.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Insist on retraining without the rows.")] = False,
    approximate: Annotated[bool, typer.Option("--approximate", help="Insist on an approximate method.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Stop after the plan.")] = False,
    map_: Annotated[
        list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="Name a column of the file. Repeatable.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="File with the bounds of the verdict.")] = None,
    gguf: Annotated[
        list[str] | None, typer.Option(help="Also write this type of GGUF file, such as q8_0. Repeatable.")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="Run only this attack, so that Resists is amber at best; none: all of them. Repeatable."),
    ] = None,
    operator: Annotated[str, typer.Option(help="Who does it, as a role, for the record.")] = "not named",
    answers: Annotated[
        bool,
        typer.Option(
            "--answers",
            help="Also write record-with-names.html: names, and three answers before and after; personal data.",
        ),
    ] = False,
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Remove facts from a model: measure, unlearn, export, verify, decide, and write a signed record.

    Exit code 0 if all three lights are green, or if the model did not know the facts; 3 if not.
    """
    from scopewise.erasure.plan import check_models
    from scopewise.erasure.request import find_requests, union

    if exact and approximate:
        raise ConfigError("--exact, --approximate: both given; give one, or none to let the request decide")

    named = out.name if out and len(request) == 1 else None
    requests = find_requests(request, load_config(None, set_ or []).data, _mapping(map_ or []), name=named)
    asked = union(requests)
    limit = None if budget is None else minutes(budget)
    path, before = model or asked.model.path, base or asked.model.base
    names = ("--model" if model else "model.path of the request", "--base" if base else "model.base of the request")
    check_models(path, before, load_config(None, set_ or []).model.revision, names)
    # Wrong rows or a wrong path are said at once; the imports below take seconds.
    quiet_libraries()
    from scopewise.erasure.figures import ATTACKS
    from scopewise.erasure.run import forget
    from scopewise.erasure.setup import Options

    again()
    options = Options(
        model=path,
        base=before,
        kind="exact" if exact else "approximate" if approximate else None,
        minutes=limit,
        policy=None if policy is None else str(policy),
        gguf=tuple(gguf or ()),
        operator=operator,
        changes=tuple(set_ or ()),
        attacks=tuple(attack or ATTACKS),
    )
    found = forget(
        requests, options, out or Path("forgotten") / asked.id, resume=resume, overwrite=overwrite, only_plan=plan,
        answers=answers, tell=lambda line: echo(line, err=as_json),
    )  # fmt: skip
    if plan and found.record is None:
        echo("The same command with --resume in place of --plan goes on.", err=as_json)
    if as_json:
        echo_json(found.document())
    elif found.parts or found.record is not None:
        for id, one in found.parts.items():
            echo(f"\n{id}")
            print_result(one)
        if not found.parts:
            print_result(found)
        for earlier in (one for one in found.earlier if one["light"] != "green"):
            echo_wrapped(f"Earlier request {earlier['request']}, {earlier['light']}: {earlier['why']}")
    raise typer.Exit(found.exit_code)


def minutes(text: str) -> float:
    """Return the minutes of `90`, `30m` or `2h`. Raises ConfigError for other texts."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("m", "h") else (text, "m")
    try:
        value = float(number) * (60 if unit == "h" else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ConfigError(f"--budget: {text!r}; a time is a number above 0 with m or h; write it as 30m or 2h")
    return value


def print_result(found: Any) -> None:
    """Print what came out of a request: the result in words, the three lights, what is worst, and where all lies."""
    from scopewise.erasure import words

    document = found.document()
    lights = document["verdict"]
    echo()
    echo_wrapped(words.banner(found.plan.kind, lights).text)
    if lights is not None:
        echo()
        rows = []
        for name, light in lights.items():
            figure, interval = words.figure(light["value"]), words.interval(light)
            shown = f"{figure} ({interval})" if interval else figure
            result = f"{light['light']}: {words.result(name, light)}"
            rows.append((words.TITLES[name], result, shown, words.figure(light["bound"]), light["why"]))
        echo_table(("Light", "Result", "Figure", "Bound", "Why"), rows)
        for name, title in words.TITLES.items():
            light = getattr(found.verdict, name)
            if light.light != "green" and light.worst:
                more = f" and {len(light.worst) - _WORST} more" if len(light.worst) > _WORST else ""
                echo_wrapped(f"{title}, worst first: {'; '.join(light.worst[:_WORST])}{more}")
    echo()
    echo_table((), [(name, document[name]) for name in ("export", "record", "page") if document[name]])


_WORST = 5
"""Names that are printed for a light."""


def _mapping(given: list[str]) -> dict[str, str]:
    """Return field → column of `--map`. Raises ConfigError for another form."""
    pairs = [text.partition("=") for text in given]
    for text, (field, equals, column) in zip(given, pairs, strict=True):
        if not (equals and field and column):
            raise ConfigError(f"--map: {text!r}; written as FIELD=COLUMN, for example --map answer=output")
    return {field: column for field, _, column in pairs}
