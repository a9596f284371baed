"""The command line: one file per command. Commands import torch inside their functions."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from typing import Annotated, Any

import typer

from scopewise.allocator import keep_freed_memory
from scopewise.cli.failures import (
    UsageError,
    argument_sentence,
    is_out_of_memory,
    link_sentence,
    out_of_memory_sentence,
    path_sentence,
    usage_sentence,
)
from scopewise.cli.signals import again, interrupt_on_signals, signal_of
from scopewise.errors import UserError
from scopewise.terminal import close_bars, echo, echo_table, echo_wrapped, escape_streams, escaped
from scopewise.threads import wait_briefly

app = typer.Typer(
    name="scopewise",
    pretty_exceptions_enable=False,
    add_help_option=False,  # the list of commands is our own: in groups, with whole sentences
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

GROUPS = {
    "Start here": ("forget", "build", "check", "demo", "run", "bench"),
    "Deletion requests": ("forget", "requests", "verify", "recheck"),
    "Stages": ("finetune", "localize", "unlearn", "evaluate", "attack", "tune", "merge"),
    "Look at what came out": ("show", "report", "play", "review", "list", "tasks"),
}
"""Heading → commands under it in `scopewise --help`, each at its first place; the others stand at the end."""


def overview() -> None:
    """Print what `scopewise --help` says: the commands in groups, each with its first sentence."""
    every: Any = typer.main.get_command(app)
    commands = {name: found.help or "" for name, found in sorted(every.commands.items())}
    echo_wrapped(f"Usage: scopewise COMMAND …\n\n{every.help}")
    width = max(map(len, commands))
    for heading, names in {**GROUPS, "More": tuple(commands)}.items():
        rows = [(f"  {name:<{width}}", commands.pop(name)) for name in names if name in commands]
        if rows:
            echo(f"\n{heading}")
            echo_table((), [(name, f"{' '.join(text.split()).split('. ')[0].rstrip('.')}.") for name, text in rows])
    echo("\nOptions")
    context = typer.Context(every)
    records = filter(None, (option.get_help_record(context) for option in every.get_params(context)))
    echo_table((), [(f"  {name}", about) for name, about in records])
    echo_wrapped("\n`scopewise COMMAND --help` explains a command.")


def _show_overview(asked: bool) -> bool:
    if asked:
        overview()
        raise typer.Exit
    return asked


def _show_version(asked: bool) -> bool:
    if asked:
        echo(f"scopewise {version('scopewise')}")
        raise typer.Exit
    return asked


@app.callback()
def root(
    version_: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
    help_: Annotated[
        bool, typer.Option("--help", "-h", help="Print this text.", is_eager=True, callback=_show_overview)
    ] = False,
) -> None:
    """Knowledge unlearning in language models that stays in scope."""


Config = Annotated[
    str | None,
    typer.Argument(metavar="RUN_FILE", help="A run file (YAML), or a shipped run by name; none: defaults."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; the value is read as YAML. Repeatable."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite the run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wide = Annotated[bool, typer.Option("--wide", help="Print the table of a run with all columns, as Markdown.")]


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a command under its function's name; a UserError becomes one line on stderr and exit code 2."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if os.environ.get("RANK", "0") != "0":  # under `accelerate launch` only one process prints results
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        try:
            return function(*args, **kwargs)
        except UserError as error:
            _say(str(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt as error:
            kept = getattr(error, "__notes__", ["nothing was made yet"] if "resume" in kwargs else [])
            _say("; ".join(["interrupted", *kept]))
            raise typer.Exit(128 + signal_of(error)) from None
        except BrokenPipeError:
            # The reader of stdout is gone (`| head`), so discard what is left to flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            sentence = out_of_memory_sentence() if is_out_of_memory(error) else None
            if sentence is None and isinstance(error, OSError):
                sentence = path_sentence(error)
            if sentence is None and isinstance(error, RuntimeError):
                sentence = link_sentence(error)
            if sentence is None:
                raise
            _say(sentence)
            raise typer.Exit(2) from None

    return app.command(name=function.__name__.rstrip("_").replace("_", "-"))(run)


def _say(sentence: str) -> None:
    """Print one sentence on one line of stderr, after closing progress bars that were left open."""
    close_bars()
    if len(sentence) > _LONGEST:  # it quotes a long value or path: keep both ends
        sentence = f"{sentence[: _LONGEST // 2]} … {sentence[-_LONGEST // 2 :]}"
    echo(f"scopewise: {escaped(sentence, keep='')}", err=True)


_LONGEST = 1500


def sets(**keys: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Map options of a command to settings, so that an error about a setting names the option first."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(**given: Any) -> Any:
            try:
                return function(**given)
            except UserError as error:
                for option, key in keys.items():
                    _, found, rest = str(error).partition(f"{key}: ")
                    if found and given[option] is not None:
                        raise type(error)(f"--{option} ({key}): {rest}") from None
                raise

        return run

    return decorate


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and log messages off the terminal; we show our own progress bars."""
    import logging
    import warnings

    # It warns of an optional kernel that is missing on the CPU.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import transformers

    again()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="(transformers|peft|accelerate|torch)")


def main() -> None:
    """Entry point of the `scopewise` command."""
    wait_briefly()
    escape_streams()
    interrupt_on_signals()
    for wrong in filter(None, map(argument_sentence, sys.argv[1:])):
        _say(wrong)
        sys.exit(2)
    try:
        for module in pkgutil.iter_modules(__path__):  # the commands register themselves
            importlib.import_module(f"{__name__}.{module.name}")
    except KeyboardInterrupt as error:
        _say("interrupted; nothing was made yet")
        sys.exit(128 + signal_of(error))
    keep_freed_memory()
    if len(sys.argv) == 1:
        overview()
        sys.exit(2)
    try:
        code = app(prog_name="scopewise", standalone_mode=False)
    except UsageError as error:
        echo(escaped(usage_sentence(error), keep=""), err=True)
        code = error.exit_code
    sys.exit(code)
