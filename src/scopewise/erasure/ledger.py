"""The ledger of deletion requests: signed entries, each with the digest of the one before. Imports no torch.

`ledger.jsonl` has one entry per line. An append writes a new file under a lock and renames it, so that a kill at any moment
leaves the old file or the new one. Every read checks every line: a ledger with a broken chain is refused, with the line.
Entries that are cut off at the end can be found only from outside: each record names the ledger's last entry at its time.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, ValidationError

from scopewise.erasure.envelope import canonical, is_signed, parse_canonical, sign_bytes
from scopewise.erasure.keys import fingerprint, public_pem, read_public
from scopewise.erasure.record_schema import RecordPart, Sha256, SignerPart, Text, Time
from scopewise.errors import ResultError
from scopewise.files import make_folder, write_bytes
from scopewise.lock import changing

NAME = "ledger.jsonl"
ENTRY_TYPE = "application/vnd.scopewise.ledger-entry+json"
State = Literal["received", "known", "planned", "unlearned", "verified", "exported", "closed"]
STATES: tuple[State, ...] = get_args(State)
_NEXT: dict[State | None, tuple[State, ...]] = {
    None: ("received",),
    "received": ("known", "closed"),
    "known": ("known", "planned", "closed"),
    "planned": ("planned", "unlearned", "closed"),
    "unlearned": ("unlearned", "planned", "verified", "closed"),
    "verified": ("verified", "planned", "exported", "closed"),
    "exported": ("exported", "verified", "planned", "closed"),
    "closed": ("verified", "planned"),
}
"""Which states may follow: the next, `planned` to do it again, the same after a resume, and `verified` for a later model."""


class Entry(RecordPart):
    """A line of the ledger, without its signature.

    Attributes:
        number: Counted from 1.
        time: When it was written, in UTC.
        request: Opaque id of the request.
        state: What was reached.
        digest: SHA-256 of what this state is about (a record, a plan), if anything.
        facts: Further plain values, such as `due`, `regulation` and `light`; no personal data.
        previous: SHA-256 of the line before; None in the first.
        signer: The key of the ledger; in the first line only.
    """

    number: Annotated[int, Field(ge=1)]
    time: Time
    request: Text
    state: State
    digest: Sha256 | None
    facts: dict[Text, str | int | float | bool | None]
    previous: Sha256 | None
    signer: SignerPart | None = None


@dataclass(frozen=True)
class Status:
    """Where a request stands.

    Attributes:
        request: Its id.
        state: The latest state.
        since: When that was reached.
        closed: When it was closed; None if it never was, or is done again.
        record: SHA-256 of its latest record, from the latest `exported` or `closed` that has a digest.
        facts: The facts of all its entries; later ones replace earlier ones.
    """

    request: str
    state: State
    since: datetime.datetime
    closed: datetime.datetime | None
    record: str | None
    facts: dict[str, Any]

    @property
    def due(self) -> datetime.datetime | None:
        """The deadline, if the ledger knows one."""
        text = self.facts.get("due")
        return _utc(datetime.datetime.fromisoformat(text)) if isinstance(text, str) else None

    def late(self, now: datetime.datetime | None = None) -> bool:
        """Return whether the deadline has passed: now if the request is open, when it was closed otherwise."""
        end = self.closed or now or datetime.datetime.now(datetime.UTC)
        return self.due is not None and end > self.due


class Ledger:
    """The requests of a folder.

    Args:
        folder: Holds `ledger.jsonl`, or is that file; made by the first `append`.
        key: The key that signs new entries, always the same one; None to read only.
    """

    def __init__(self, folder: str | Path, key: Ed25519PrivateKey | None = None) -> None:
        self.path = Path(folder) if Path(folder).name == NAME else Path(folder) / NAME
        self._key = key

    def append(
        self, request: str, state: State, digest: str | None = None, *, facts: dict[str, Any] | None = None
    ) -> Entry:
        """Write an entry, which is on the disk when this returns.

        Args:
            request: Opaque id of the request.
            state: The state it reached.
            digest: SHA-256 (hex) of what it is about.
            facts: Plain values to keep. `due` (a `datetime` or ISO 8601) is the deadline.

        Raises:
            ResultError: the chain is broken, the state cannot follow, a value is not allowed, or the ledger has another key.
        """
        if self._key is None:
            raise ResultError(f"{self.path}: opened without a key; give the key that signs entries")
        plain = {k: v.isoformat() if isinstance(v, datetime.date) else v for k, v in (facts or {}).items()}
        make_folder(self.path.parent)
        with changing(self.path):
            for left in self.path.parent.glob(f".{NAME}.*.tmp"):  # by a process that was killed
                left.unlink(missing_ok=True)
            content = self._content()
            entries = self._check(content)
            before = next((e.state for e in reversed(entries) if e.request == request), None)
            if state not in _NEXT[before]:
                allowed = ", ".join(_NEXT[before])
                raise ResultError(
                    f"{request}: {state!r} after {before or 'nothing'}; after that comes one of {allowed}"
                )
            signer = self._signer(self._key)
            if entries and entries[0].signer != SignerPart(**signer):
                raise ResultError(f"{self.path}: signed with another key; give that key, or begin in another folder")
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            values = {"number": len(entries) + 1, "time": now, "request": request, "state": state, "digest": digest}
            values |= {"facts": plain, "previous": _digest(content.splitlines()[-1]) if entries else None}
            values |= {} if entries else {"signer": signer}
            entry = _entry(values, f"{self.path}: the new entry")
            signature = sign_bytes(self._key, ENTRY_TYPE, canonical(values))
            write_bytes(self.path, content + canonical({"entry": values, "sig": signature}) + b"\n")
        return entry

    def check_new(self, requests: Iterable[str]) -> None:
        """Raise ResultError if the ledger has one of these requests already."""
        known = {entry.request for entry in self.entries()}
        for request in requests:
            if request in known:
                raise ResultError(
                    f"{self.path} has a request {request} already, in another folder; continue that one with --resume, or give "
                    "this one another id (that of a file of rows is the name of --out)"
                )

    def reach(
        self,
        request: str,
        state: State,
        digest: str | None = None,
        *,
        attempt: str,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Write an entry that a state is reached, unless this attempt wrote it before an interruption.

        A request that is done again begins at `planned`: the first two states are written once, whatever the attempt.

        Args:
            request: As in `append`.
            state: As in `append`.
            digest: As in `append`.
            attempt: The same after an interruption, another when the request is done again.
            facts: As in `append`.

        Raises:
            ResultError: as `append`.
        """
        once = state in ("received", "known")
        before = [entry for entry in self.entries() if (entry.request, entry.state) == (request, state)]
        if not any(once or entry.facts.get("attempt") == attempt for entry in before):
            self.append(request, state, digest, facts=(facts or {}) | {"attempt": attempt})

    def check_key(self) -> None:
        """Raise ResultError, as `append` would, if the chain is broken or the ledger has another key."""
        entries = self.entries()
        if self._key is not None and entries and entries[0].signer != SignerPart(**self._signer(self._key)):
            raise ResultError(f"{self.path}: signed with another key; give that key, or begin in another folder")

    def entries(self) -> list[Entry]:
        """Return all entries, after checking the whole chain.

        Raises:
            ResultError: a line was changed, removed, added or moved; the message names the first such line.
        """
        return self._check(self._content())

    def head(self) -> dict[str, Any] | None:
        """Return the last record's digest and the end of the ledger, for `make_record`; None if it is empty.

        Raises:
            ResultError: as `entries`.
        """
        content = self._content()
        entries = self._check(content)
        if not entries:
            return None
        record = next(filter(None, map(_record, reversed(entries))), None)
        return {"record": record, "ledger": {"entries": len(entries), "digest": _digest(content.splitlines()[-1])}}

    def digests(self) -> list[str]:
        """Return the SHA-256 of each line, in order. Raises ResultError as `entries`."""
        content = self._content()
        self._check(content)
        return [_digest(line) for line in content.splitlines()]

    def statuses(self) -> list[Status]:
        """Return where each request stands, in the order in which they came. Raises ResultError as `entries`."""
        found: dict[str, Status] = {}
        for entry in self.entries():
            before = found.get(entry.request)
            since = _utc(datetime.datetime.fromisoformat(entry.time))
            closed = (
                since if entry.state == "closed" else before.closed if before and entry.state != "planned" else None
            )
            record = _record(entry) or (before.record if before else None)
            facts = {**(before.facts if before else {}), **entry.facts}
            found[entry.request] = Status(entry.request, entry.state, since, closed, record, facts)
        return list(found.values())

    def past(self) -> list[Status]:
        """Return the requests that have a record and are not being done again. Raises ResultError as `entries`."""
        done = ("verified", "exported", "closed")
        return [status for status in self.statuses() if status.record is not None and status.state in done]

    def recheck(self, check: Callable[[Status], dict[str, Any]], model: str | None) -> list[Status]:
        """Check every request that has a record against a later model, and write down what was found.

        Args:
            check: Returns the facts to keep of a request, with `light` (`green`, `amber` or `red`), from measuring the model.
            model: SHA-256 (hex) of that model, kept as the entries' digest; None if it is not known.

        Returns:
            The new status of each, with its `light` among the facts.

        Raises:
            ResultError: as `append`.
        """
        past = self.past()
        for status in past:
            self.append(status.request, "verified", model, facts=check(status))
        checked = {status.request for status in past}
        return [status for status in self.statuses() if status.request in checked]

    @staticmethod
    def _signer(key: Ed25519PrivateKey) -> dict[str, str]:
        public = public_pem(key)
        return {"keyid": fingerprint(public), "public_key": public}

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as failure:
            raise ResultError(
                f"{self.path}: cannot be read ({failure.strerror}); give the folder of a ledger"
            ) from None

    def _check(self, content: bytes) -> list[Entry]:
        """Return the entries of a file, or raise ResultError with the first line that does not fit."""
        found: list[Entry] = []
        key: Ed25519PublicKey | None = None
        previous, state = None, dict[str, State]()
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            where = f"{self.path}:{number}"
            broken = f"{where}: the chain is broken here"
            document = parse_canonical(line, broken)
            if not isinstance(document, dict) or set(document) != {"entry", "sig"}:
                raise ResultError(f"{broken}: not an entry with its signature; restore the ledger from a copy")
            values = document["entry"]
            if number == 1:
                key = _signer_of(values)
            if key is None or not is_signed(key, ENTRY_TYPE, canonical(values), document["sig"]):
                raise ResultError(
                    f"{broken}: the signature does not fit: changed, or signed with another key; restore it from a copy"
                )
            entry = _entry(values, broken)
            fits = entry.number == number and entry.previous == previous and (entry.signer is None) == (number > 1)
            if not fits or entry.state not in _NEXT[state.get(entry.request)]:
                raise ResultError(f"{broken}: it does not follow the line before; restore the ledger from a copy")
            previous, state[entry.request] = _digest(line.removesuffix(b"\n")), entry.state
            found.append(entry)
        return found


def _signer_of(first: Any) -> Ed25519PublicKey | None:
    """Return the key that the first entry names, if it is one and has its fingerprint."""
    match first:
        case {"signer": {"keyid": str(keyid), "public_key": str(text)}}:
            key = read_public(text)
            return key if key is not None and keyid == fingerprint(text) else None
    return None


def _entry(values: Any, where: str) -> Entry:
    try:
        return Entry.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ResultError(f"{where}: {key}; {first['msg']}; correct this value") from None


def _record(entry: Entry) -> str | None:
    return entry.digest if entry.state in ("exported", "closed") else None


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _utc(time: datetime.datetime) -> datetime.datetime:
    """Return a time with a zone; without one it is UTC."""
    return time if time.tzinfo is not None else time.replace(tzinfo=datetime.UTC)
