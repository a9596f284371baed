"""`scopewise tasks`."""

from __future__ import annotations

from importlib import resources

import typer

from scopewise.cli import command


@command
def tasks() -> None:
    """Print the folder of the tasks for lm-evaluation-harness: `lm_eval run --include_path $(scopewise tasks) …`."""
    typer.echo(str(resources.files("scopewise") / "lm_eval_tasks"))
