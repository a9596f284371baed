"""Turn typer's errors about the command line into one sentence."""

from __future__ import annotations

from typing import Any

import typer

UsageError: Any = typer.BadParameter.__base__
"""Base of typer's errors for a wrong command line, which in newer releases is not click's class."""


def usage_sentence(error: Any) -> str:
    """Return `scopewise COMMAND: what is wrong; where to read on`."""
    command = error.ctx.command_path if error.ctx is not None else "scopewise"
    text = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    return f"{command}: {text[:1].lower()}{text[1:]}; see `{command} --help`"
