"""Wrong command lines: what typer says of one, as one sentence."""

from __future__ import annotations

from typing import Any

import typer

UsageError: Any = typer.BadParameter.__base__
"""The base of all that typer raises for a wrong command line; newer releases do not take it from click."""


def usage_sentence(error: Any) -> str:
    """Return `scopewise COMMAND: what is wrong; where to read on`."""
    command = error.ctx.command_path if error.ctx is not None else "scopewise"
    text = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    return f"{command}: {text[:1].lower()}{text[1:]}; see `{command} --help`"
