"""The facts of a request as they were measured, kept beside its record so that they can be measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from scopewise.config import DataSection
from scopewise.data.facts import Fact
from scopewise.documents import read_json
from scopewise.erasure.evidence import describe_scopes
from scopewise.errors import ResultError
from scopewise.files import write_json
from scopewise.ranks import Exposure, Ranked

NAME = "facts.json"
_FACTS = TypeAdapter(tuple[Fact, ...])


def write_facts(folder: Path, facts: Sequence[Fact], data: DataSection) -> None:
    """Write facts with their wrong answers, and the prompt format under which they are asked. They are personal data."""
    document = {"data": data.model_dump(mode="json"), "facts": _FACTS.dump_python(tuple(facts), mode="json")}
    write_json(folder / NAME, document)


def read_facts(folder: Path) -> tuple[tuple[Fact, ...], DataSection]:
    """Return what `write_facts` wrote.

    Raises:
        ResultError: the file is not there, or is not as it was written.
    """
    document = read_json(folder / NAME, ResultError)
    try:
        return _FACTS.validate_python(document["facts"]), DataSection.model_validate(document["data"])
    except (ValidationError, KeyError, TypeError):
        raise ResultError(f"{folder / NAME}: not the facts of a request; restore the file from a copy") from None


def facts_hmac(facts: Sequence[Fact], key: bytes) -> str:
    """Return the HMAC of the facts' rows, the same as that of the forget rows in a record."""
    return str(describe_scopes([row for fact in facts for row in fact.rows], key)["forget"]["hmac"])


def exposure_document(found: Exposure) -> dict[str, Any]:
    """Return what a step keeps of an exposure: figures, and the ranks from which it can be made again."""
    return {
        "facts": len(found.facts),
        "known": found.count,
        "p": found.p,
        "value": found.known.value,
        "ranks": [[fact.rank, fact.number, list(fact.by_question)] for fact in found.facts],
    }


def exposure_in(document: Mapping[str, Any], facts: Sequence[Fact]) -> Exposure:
    """Return the exposure that a step kept of these facts."""
    ranks = zip(facts, document["ranks"], strict=True)
    return Exposure(tuple(Ranked(fact, one[0], one[1], tuple(one[2])) for fact, one in ranks))
