"""`scopewise play`."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from scopewise.cli import command, quiet_libraries
from scopewise.errors import ConfigError
from scopewise.terminal import echo


@command
def play(
    run: Annotated[
        str,
        typer.Argument(help="A run folder with a target and at least one unlearned model, or the folder of a request."),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 open it to a network.")] = (
        "127.0.0.1"
    ),
) -> None:
    """Open a local page that puts a question to target, unlearned model and oracle side by side (extra: play).

    Of a deletion request it asks the model before and the exported one.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"play: {' and '.join(missing)} not installed; pip install 'scopewise[play]'")
    from scopewise.erasure.played import is_request, open_request
    from scopewise.play.access import is_loopback
    from scopewise.play.play_run import open_run
    from scopewise.play.server import listen, serve

    opened = open_request(run) if is_request(run) else open_run(run)
    socket = listen(host, port)  # before loading the models, to report a port in use at once
    quiet_libraries()
    if not is_loopback(host):
        echo(
            f"scopewise play: warning: listening on {host}, without encryption: whoever reads the traffic of this network "
            "can read questions, answers and the key",
            err=True,
        )
    try:
        serve(opened, socket, host, lambda address: echo(f"Open {address}\nStop with Ctrl+C."))
    except KeyboardInterrupt:  # the normal way to stop it
        raise typer.Exit(0) from None
