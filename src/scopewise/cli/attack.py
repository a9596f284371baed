"""`scopewise attack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scopewise.cli import Json, command, quiet_libraries
from scopewise.errors import ConfigError
from scopewise.files import check_new
from scopewise.terminal import echo, echo_json, echo_table


@command
def attack(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run folder with unlearned models, their target and their oracle. With --rows: any model, adapter or "
            "hub name."
        ),
    ],
    suite: Annotated[
        Literal["quick", "full"],
        typer.Option(help="quick: minutes on a laptop for a small model; full: all attacks, with more settings."),
    ] = "quick",
    attacks: Annotated[list[str] | None, typer.Option("--attack", help="Run only this attack. Repeatable.")] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Attack models whose path starts with this, such as memflex/tuned. Repeatable."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Use this model before unlearning instead of the run's target.")
    ] = None,
    oracle: Annotated[
        str | None, typer.Option(help="Use this model that never saw the forget scope instead of the run's oracle.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the `attack` section. Repeatable."),
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave the texts of the worst leaks out of attacks.json.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an attacks.json that was made with other settings.")
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="Attack one model with rows of your own (JSON lines, CSV, Parquet and others), without target and oracle."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --rows: also write the results as JSON here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try to recover the forget scope from a run's unlearned models: fine-tuning, quantization, prompts, white-box."""
    from scopewise.run_file import override

    if rows is not None:
        _alone(str(run), rows, output, suite, attacks or [], set_ or [], as_json)
        return
    if output is not None:
        raise ConfigError(
            "--output: given without --rows; a run's results are written to its attacks.json; leave it out"
        )
    settings: dict = {"suite": suite}
    for text in set_ or []:
        key = text.partition("=")[0].strip()
        settings = override({"attack": settings}, text if key.startswith("attack.") else f"attack.{text}")["attack"]
    if attacks:
        settings["attacks"] = attacks
    if models:
        settings["models"] = models
    quiet_libraries()
    from scopewise.report.attacks import attacks_table
    from scopewise.runs.attack import attack_run, config_of

    document = attack_run(
        config_of(run, settings),
        target=target,
        oracle=oracle,
        overwrite=overwrite,
        redact=redact,
        tell=lambda sentence: echo(sentence, err=True),
    )
    if as_json:
        echo_json(document)
        return
    echo(attacks_table(document))
    echo(f"\nThe worst leaks of each attack are in {run / 'attacks.json'}.")


def _alone(
    model: str, rows: Path, output: Path | None, suite: str, attacks: list[str], changes: list[str], as_json: bool
) -> None:
    """Attack one model with rows of one's own, and print the mean signals with their intervals."""
    from scopewise.run_file import override, parse_config

    values: dict = {"attack": {"suite": suite, **({"attacks": attacks} if attacks else {})}}
    for text in changes:
        section = text.partition("=")[0].strip().partition(".")[0]
        values = override(values, text if section in ("attack", "data", "model") else f"attack.{text}")
    config = parse_config(values, "--set")
    if output is not None:
        check_new(output, "--output")
    quiet_libraries()
    from scopewise.files import write_json
    from scopewise.runs.attack import attack_model

    document = attack_model(config, model, rows)
    if output is not None:
        write_json(output, document)
    if as_json:
        echo_json(document)
        return
    table, notes = [], {}
    for one in document["results"]:
        value = "n/a" if one["value"] is None else f"{one['value']:.3f}"
        interval = "" if one["low"] is None else f"{one['low']:.3f} to {one['high']:.3f}"
        chance = "" if one["chance"] is None else f"{one['chance']:g}"
        table.append((one["attack"].replace("_", " "), one["setting"], value, interval, chance))
        notes.update(dict.fromkeys((one["attack"], note) for note in one["notes"]))
    echo_table(("Attack", "Setting", "Signal", "95 % interval", "Chance"), table)
    for attacked, note in notes:
        echo(f"{attacked}: {note}")
