"""A generator behind an HTTP server that speaks OpenAI's protocol for chats."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import httpx2

from scopewise.building.generator import Generator
from scopewise.documents import parse_json
from scopewise.errors import ConfigError, ModelError

KEY = "OPENAI_API_KEY"
_TRIES = 6
_LONGEST_WAIT = 60.0
_MOST_BYTES = 1 << 20
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)


class OpenAIGenerator(Generator):
    """A server by base URL and model: `POST BASE_URL/chat/completions` at temperature 0.

    The key is read from the environment (`OPENAI_API_KEY`) and sent to this server alone; redirects are not followed. Timeouts,
    lost connections, rate limits and faults of the server are tried again after 1, 2, 4 … seconds, or after as many as the
    server says (`Retry-After`), at most 60.

    Args:
        base: Such as `http://127.0.0.1:8000/v1`.
        model: As the server names it.
        timeout: Seconds for one call.
        sleep: Waits between calls.

    Raises:
        ConfigError: a URL of another form, or one with a key in it.
    """

    def __init__(
        self, base: str, model: str, timeout: float = 120.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        try:
            url = httpx2.URL(base)
        except (httpx2.InvalidURL, ValueError):
            raise ConfigError("--generator: not a URL; write openai:http://HOST:PORT/v1,MODEL") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"--generator: {url.scheme or 'no scheme'}; write openai:http://HOST:PORT/v1,MODEL")
        if url.userinfo or url.query:
            raise ConfigError(f"--generator: a URL with a user or a query; give a key in the environment as {KEY} only")
        self.name = f"openai:{base.rstrip('/')},{model}"
        self._url, self._model, self._sleep = f"{base.rstrip('/')}/chat/completions", model, sleep
        key = os.environ.get(KEY, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        once = httpx2.Limits(max_keepalive_connections=0)  # no socket is left open between calls
        self._client = httpx2.Client(timeout=timeout, headers=headers, follow_redirects=False, limits=once)

    def ask(self, prompt: str) -> str:
        """Return the reply. Raises ModelError if the server refuses, stays away, or answers in another form."""
        why = ""
        for attempt in range(_TRIES):
            wait = min(2.0**attempt, _LONGEST_WAIT)
            try:
                response = self._post(prompt)
            except httpx2.TimeoutException:
                why = "no answer in time"
            except httpx2.TransportError as error:
                why = f"{type(error).__name__}"
            else:
                if response.status_code == 200:
                    return self._content(response)
                why = f"status {response.status_code}"
                if response.status_code not in _AGAIN:
                    what = "check the key" if response.status_code in (401, 403) else "check base URL and model"
                    raise ModelError(f"{self.name}: {why}; {what}; what was answered before is kept")
                wait = _seconds(response.headers.get("retry-after"), wait)
            if attempt + 1 < _TRIES:
                self._sleep(wait)
        raise ModelError(
            f"{self.name}: {why}, {_TRIES} times; start the server or wait, then repeat the command: what was answered is kept"
        )

    def _post(self, prompt: str) -> httpx2.Response:
        body = {"model": self._model, "temperature": 0, "seed": 0, "messages": [{"role": "user", "content": prompt}]}
        with self._client.stream("POST", self._url, json=body) as response:
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise ModelError(f"{self.name}: a reply of more than {_MOST_BYTES >> 20} MiB; take another server")
            return httpx2.Response(response.status_code, headers=_plain(response.headers), content=content)

    def _content(self, response: httpx2.Response) -> str:
        try:
            record: Any = parse_json(response.content.decode("utf-8"), self.name, ModelError)
            content = record["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError, UnicodeDecodeError, ModelError):
            content = None
        if not isinstance(content, str):
            raise ModelError(
                f"{self.name}: a reply that is not a chat completion; check the base URL (it often ends in /v1)"
            )
        return content


def _plain(headers: httpx2.Headers) -> dict[str, str]:
    """Return the headers that are read; others describe how the content was sent, which has been undone."""
    return {"retry-after": headers["retry-after"]} if "retry-after" in headers else {}


def _seconds(text: str | None, default: float) -> float:
    try:
        return min(max(float(text or default), 0.0), _LONGEST_WAIT)
    except ValueError:  # a date
        return default
