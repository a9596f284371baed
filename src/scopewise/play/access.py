"""Access control of the playground: only its own page, opened with the printed address, gets answers.

The page shows what a model should have forgotten, so three others must be kept out: another web site in the same
browser (by a cross-site request or DNS rebinding), another user of the machine, and the network. The key in the printed
address stops all three, since a browser never sends it by itself, as it does a cookie. Host and Origin are checked
first.
"""

from __future__ import annotations

import ipaddress
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")

HEADERS = {
    # Scripts and styles only from this server, none inline; nothing is loaded from, or sent to, another server.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Return whether a host to listen on can be reached only from this machine."""
    return host in LOOPBACK


class Access:
    """Refuses requests that do not come from the playground's page, and adds security headers.

    Args:
        app: The application to protect.
        key: Required for everything under /api, as `Authorization: Bearer KEY`.
        host: The address the server listens on. On a loopback address only loopback names are accepted as Host;
            elsewhere also the name itself and any numeric address. This stops DNS rebinding, which comes with another
            name.
    """

    def __init__(self, app: ASGIApp, *, key: str, host: str) -> None:
        self._app, self._key = app, key
        self._names = {*LOOPBACK, host.lower()}
        self._numeric = not is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with 401 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        status, why = self._refusal(scope)
        if status:
            await JSONResponse({"error": why}, status)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str]:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._known(_name_of(host)):
            return 403, "host: another name than this server's; open the address that scopewise printed"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return 403, "origin: another page; open the address that scopewise printed"
        if scope["path"].startswith("/api/"):
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), self._key.encode()):
                return 401, "key: missing or wrong; open the whole address that scopewise printed, with what follows #"
        return 0, ""

    def _known(self, name: str) -> bool:
        if name in self._names:
            return True
        if not self._numeric:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name_of(host: str) -> str:
    """Return a Host header without its port, in lower case; IPv6 without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
