"""Start the playground's server for a run."""

from __future__ import annotations

import secrets
import socket as sockets
from collections.abc import Callable
from socket import socket

import uvicorn

from scopewise.bars import bar
from scopewise.errors import ConfigError
from scopewise.play.play_run import PlayRun
from scopewise.play.playground import Playground
from scopewise.play.server import make_app


def listen(host: str, port: int) -> socket:
    """Return a listening socket. Raises ConfigError if the address is unknown or in use."""
    try:
        family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
        return sockets.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        # create_server appends the address in brackets, which our sentence already names.
        reason = (error.strerror or "").partition(" (")[0] if isinstance(error, OSError) else "no host name"
        raise ConfigError(
            f"play: {host} port {port}; {reason}; give another --port (0: a free one) or --host"
        ) from None


def serve(run: PlayRun, opened: socket, host: str, announce: Callable[[str], None]) -> None:
    """Load target, oracle and the first unlearned model, then answer until interrupted.

    Args:
        run: The run whose models are asked.
        opened: The socket from `listen`.
        host: The host given to `listen`.
        announce: Called with the address to open, which contains the key, once questions can be asked.
    """
    playground = Playground(run)
    first = [name for name in ("target", run.unlearned[0], "oracle") if name in run.models]
    with bar(len(first), "load models", "model") as progress:
        for name in first:
            playground.load(name)
            progress.update()
    key = secrets.token_urlsafe(24)
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # a browser cannot open a wildcard address
    name = f"[{shown}]" if ":" in shown else shown
    port = opened.getsockname()[1]
    # The part after # stays in the browser: it is in no request line, no log and no Referer.
    announce(f"http://{name}:{port}/#{key}")
    config = uvicorn.Config(
        make_app(playground, key=key, host=host),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[opened])
