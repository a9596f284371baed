"""The local page on which rows are reviewed with the keyboard; each verdict is written to the review file at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from scopewise.building.review import Reviewed, check_verdict, lines, write_review
from scopewise.errors import UserError
from scopewise.play.server import page_file, protected, sent

PAGE = {
    "/": ("review.html", "text/html"),
    "/review.css": ("review.css", "text/css"),
    "/review.js": ("review.js", "text/javascript"),
}


class Verdict(BaseModel):
    """A verdict on one row, as the page sends it."""

    row: int = Field(ge=1)
    verdict: Literal["", "yes", "no", "edit"]
    new_question: str = Field("", max_length=2000)
    new_answer: str = Field("", max_length=2000)
    note: str = Field("", max_length=2000)


def make_app(reviewed: list[Reviewed], path: Path, name: str, *, key: str, host: str) -> Starlette:
    """Return the application.

    Args:
        reviewed: The rows of the review file, which are changed in place.
        path: The review file.
        name: Of the benchmark.
        key: As in `scopewise.play.access.Access`.
        host: As there.
    """
    places = {one.row: at for at, one in enumerate(reviewed)}

    async def rows(request: Request) -> Response:
        return JSONResponse({"name": name, "file": str(path), "rows": list(lines(reviewed))})

    async def verdict(request: Request) -> Response:
        given = await sent(request, Verdict)
        if given.row not in places:
            raise UserError(f"row: {given.row}; it is not among the rows of this review")
        one = replace(reviewed[places[given.row]], **given.model_dump())
        check_verdict(one, f"row {given.row}")
        reviewed[places[given.row]] = one
        await run_in_threadpool(write_review, path, reviewed)
        return JSONResponse({"judged": sum(bool(other.verdict) for other in reviewed)})

    routes = [Route(url, page_file("scopewise.building", file, kind)) for url, (file, kind) in PAGE.items()]
    routes += [Route("/api/rows", rows), Route("/api/verdict", verdict, methods=["POST"])]
    return protected(routes, key=key, host=host)
