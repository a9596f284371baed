"""A small server that speaks OpenAI's protocol for chats, as scripted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[str, int], Any]
"""(prompt, number of the call from 1) → a text; or (status, headers, body); or a number of seconds to wait."""


@dataclass
class Seen:
    """What a server was asked.

    Attributes:
        url: Its base URL.
        bodies: Decoded request bodies.
        keys: Authorization headers.
    """

    url: str
    bodies: list[Any] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def serving(script: Script) -> Iterator[Seen]:
    """Serve chats on a free port of this machine while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/v1/chat/completions"
            seen.bodies.append(body)
            seen.keys.append(self.headers["authorization"])
            done = script(body["messages"][0]["content"], len(seen.bodies))
            if isinstance(done, float):
                time.sleep(done)
                done = "[]"
            if isinstance(done, str):
                done = (200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": done}}]}))
            status, headers, text = done
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen = Seen(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
