"""`scopewise tasks`."""

from __future__ import annotations

from importlib import resources

from scopewise.cli import command
from scopewise.terminal import echo


@command
def tasks() -> None:
    """Print the folder of the tasks for lm-evaluation-harness: `lm_eval run --include_path $(scopewise tasks) …`."""
    echo(str(resources.files("scopewise") / "lm_eval_tasks"))
