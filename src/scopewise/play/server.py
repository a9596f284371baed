"""The playground over HTTP: a static page, the run as JSON, answers as server-sent events, reports."""

from __future__ import annotations

import json
import secrets
import socket as sockets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from importlib import resources
from socket import socket
from typing import Any, TypeVar

import anyio
import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from scopewise.bars import bar
from scopewise.errors import ConfigError, UserError
from scopewise.play.access import Access
from scopewise.play.play_run import PlayRun
from scopewise.play.playground import AskRequest, Playground, Report
from scopewise.terminal import echo

PAGE = {
    "/": ("index.html", "text/html"),
    "/play.css": ("play.css", "text/css"),
    "/play.js": ("play.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_MOST_BYTES = 64 * 1024

Sent = TypeVar("Sent", bound=BaseModel)


class EventStream:
    """A response of server-sent events; if the client disconnects, the generator of the events is closed.

    Args:
        events: Each is sent as `data: JSON`.
    """

    def __init__(self, events: AsyncGenerator[dict[str, Any], None]) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or until the client disconnects."""
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(watch)
            headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with aclosing(self._events) as events:
                async for event in events:
                    line = f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
                    await send({"type": "http.response.body", "body": line.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()


def make_app(playground: Playground, *, key: str, host: str) -> Starlette:
    """Return the application.

    Args:
        playground: The models of a run.
        key: The key that requests must carry; see `Access`.
        host: The address the server listens on; see `Access`.
    """
    run = playground.run
    one_at_a_time = anyio.Lock()

    async def show_run(request: Request) -> Response:
        rows = [
            {key: getattr(row, key) for key in ("question", "answer", "scope", "instance", "attribute", "domain")}
            for row in run.examples
        ]
        return JSONResponse(
            {
                "run": str(run.path),
                "unlearned": run.unlearned,
                "oracle": "oracle" in run.models,
                "domain": run.config.data.domain or (run.examples[0].domain if run.examples else "privacy"),
                "examples": rows,
                "no_examples": run.no_examples,
                "result": run.result,
            }
        )

    async def ask(request: Request) -> Any:
        question = await sent(request, AskRequest)

        async def events() -> AsyncGenerator[dict[str, Any], None]:
            async with one_at_a_time:
                iterator = playground.ask(question)
                try:
                    # Wait for the thread even if the client is gone, so that no model is stopped during a forward.
                    while (event := await run_in_threadpool(next, iterator, None)) is not None:
                        yield event
                except UserError as error:
                    yield {"error": str(error)}
                except Exception as error:  # the headers are sent, so the error goes into the stream
                    echo(f"scopewise play: {type(error).__name__}: {error}", err=True)
                    yield {"error": f"a fault of scopewise: {type(error).__name__}; the terminal says more"}

        return EventStream(events())

    async def report(request: Request) -> Response:
        return JSONResponse(playground.report(await sent(request, Report)))

    routes = [Route(path, page_file("scopewise.play", name, kind)) for path, (name, kind) in PAGE.items()]
    routes += [
        Route("/api/run", show_run),
        Route("/api/ask", ask, methods=["POST"]),
        Route("/api/report", report, methods=["POST"]),
    ]
    return protected(routes, key=key, host=host)


def protected(routes: Sequence[Route], *, key: str, host: str) -> Starlette:
    """Return an application of these routes that only its own page can use; see `Access`. User errors become JSON."""
    return Starlette(
        routes=routes,
        middleware=[Middleware(Access, key=key, host=host)],
        exception_handlers={UserError: _refused, ValidationError: _invalid},
    )


async def sent(request: Request, kind: type[Sent]) -> Sent:
    """Return the request's body. Only JSON is accepted, which a form on another site cannot send."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise UserError("content-type: not application/json; send JSON")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise UserError(f"body: over {_MOST_BYTES} bytes; send less")
    return kind.model_validate_json(body)


def page_file(package: str, name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """Return what sends a file of a package's folder `page`."""
    content = (resources.files(package) / "page" / name).read_bytes()

    async def send_file(request: Request) -> Response:
        return Response(content, media_type=kind)

    return send_file


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "body"
    return JSONResponse({"error": f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"}, 422)


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
    serve_app(lambda key: make_app(playground, key=key, host=host), opened, host, announce)


def serve_app(make: Callable[[str], Starlette], opened: socket, host: str, announce: Callable[[str], None]) -> None:
    """Answer until interrupted.

    Args:
        make: Returns the application for a key, which requests must carry.
        opened: The socket from `listen`.
        host: The host given to `listen`.
        announce: Called with the address to open, which contains the key.
    """
    key = secrets.token_urlsafe(24)
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # a browser cannot open a wildcard address
    name = f"[{shown}]" if ":" in shown else shown
    port = opened.getsockname()[1]
    # The part after # stays in the browser: it is in no request line, no log and no Referer.
    announce(f"http://{name}:{port}/#{key}")
    config = uvicorn.Config(
        make(key),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[opened])
