"""`scopewise attack`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scopewise.cli import Json, command, quiet_libraries
from scopewise.terminal import echo, echo_json


class Suite(StrEnum):
    """The suites of attacks."""

    quick = "quick"
    full = "full"


@command
def attack(
    run: Annotated[Path, typer.Argument(help="A run folder with unlearned models, their target and their oracle.")],
    suite: Annotated[
        Suite, typer.Option(help="quick: minutes on a laptop for a small model; full: all attacks, with more settings.")
    ] = Suite.quick,
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
    as_json: Json = False,
) -> None:
    """Try to recover the forget scope from a run's unlearned models: fine-tuning, quantization, prompts, white-box."""
    from scopewise.config import override

    settings: dict = {"suite": suite.value}
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
