"""The ledger: which states may follow, deadlines, kills, several writers at once, later checks."""

from __future__ import annotations

import datetime
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from changes import flips
from forks import python
from scopewise.erasure.keys import signing_key
from scopewise.erasure.ledger import Ledger, Status
from scopewise.errors import ResultError

WAY: Any = ("received", "known", "planned", "unlearned", "verified", "exported", "closed")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger", signing_key(tmp_path / "keys"))


def walk(ledger: Ledger, request: str, states: Any = WAY, **facts: Any) -> None:
    for state in states:
        digest = "d" * 64 if state == "exported" else None
        ledger.append(request, state, digest, facts=facts if state == "received" else None)


def test_a_request_from_received_to_closed(ledger: Ledger) -> None:
    walk(ledger, "REQ-1")
    assert [entry.state for entry in ledger.entries()] == list(WAY)
    assert [entry.number for entry in ledger.entries()] == list(range(1, 8))
    (status,) = ledger.statuses()
    assert (status.state, status.record) == ("closed", "d" * 64)
    head = ledger.head()
    assert head == {"record": "d" * 64, "ledger": {"entries": 7, "digest": ledger.digests()[-1]}}
    assert ledger.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("before", "state"),
    [((), "known"), (("received",), "received"), (("received",), "exported"), (WAY[:4], "exported"), (WAY, "exported")],
)
def test_a_state_that_cannot_follow_is_refused(ledger: Ledger, before: Any, state: Any) -> None:
    walk(ledger, "REQ-1", before)
    with pytest.raises(ResultError, match=f"REQ-1: {state!r} after"):
        ledger.append("REQ-1", state)
    assert len(ledger.entries()) == len(before)


def test_an_id_is_not_given_twice(ledger: Ledger) -> None:
    ledger.check_new(["REQ-1"])
    walk(ledger, "REQ-1")
    with pytest.raises(ResultError, match="REQ-1 already"):
        ledger.check_new(["REQ-2", "REQ-1"])


def test_a_broken_chain_is_not_appended_to(ledger: Ledger) -> None:
    walk(ledger, "REQ-1")
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    broken = b"".join(lines[:3] + lines[4:])
    ledger.path.write_bytes(broken)
    with pytest.raises(ResultError, match=r"ledger.jsonl:4: the chain is broken here"):
        ledger.append("REQ-2", "received")
    assert ledger.path.read_bytes() == broken


def test_any_changed_byte_is_found(ledger: Ledger) -> None:
    walk(ledger, "R", WAY[:3])
    content = ledger.path.read_bytes()
    lines = content.splitlines(keepends=True)
    moved = [lines[0] + lines[2], lines[0] + lines[2] + lines[1], b"".join(lines[1:]), content + lines[2]]
    for changed in (*flips(content), content[:-1], content + b"\n", *moved):
        ledger.path.write_bytes(changed)
        with pytest.raises(ResultError, match=r"ledger.jsonl:\d+: the chain is broken here"):
            ledger.entries()


def test_a_line_forged_without_the_key_is_found(ledger: Ledger, tmp_path: Path) -> None:
    """Digests alone could be computed anew by anybody."""
    walk(ledger, "REQ-1", WAY[:2])
    other = Ledger(tmp_path / "other", signing_key(tmp_path / "other keys"))
    walk(other, "REQ-1", WAY[:2])
    mine, theirs = (one.path.read_bytes().splitlines(keepends=True) for one in (ledger, other))
    ledger.path.write_bytes(mine[0] + theirs[1])
    with pytest.raises(ResultError, match="ledger.jsonl:2: .*signature"):
        ledger.entries()


def test_a_changed_state_is_a_changed_line(ledger: Ledger) -> None:
    """And not a value that somebody is asked to correct."""
    walk(ledger, "REQ-1", WAY[:2])
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"known"', b'"gone"'))
    with pytest.raises(ResultError, match="ledger.jsonl:2: .*signature"):
        ledger.entries()


def test_another_key_cannot_append(ledger: Ledger, tmp_path: Path) -> None:
    walk(ledger, "REQ-1", WAY[:1])
    with pytest.raises(ResultError, match="another key"):
        Ledger(ledger.path.parent, signing_key(tmp_path / "other")).append("REQ-2", "received")
    with pytest.raises(ResultError, match="without a key"):
        Ledger(ledger.path.parent).append("REQ-2", "received")


@pytest.mark.parametrize("facts", [{"a": [1]}, {"a": float("nan")}, {"": 1}, {"a": "\ud800"}])
def test_a_fact_that_cannot_be_kept_is_refused(ledger: Ledger, facts: Any) -> None:
    with pytest.raises(ResultError):
        ledger.append("REQ-1", "received", facts=facts)
    assert ledger.entries() == []


def test_deadlines(ledger: Ledger) -> None:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    walk(ledger, "open", WAY[:2], due=now + day)
    walk(ledger, "late", WAY[:2], due=(now - day).isoformat())
    walk(ledger, "without", WAY[:2])
    walk(ledger, "in time", due=now + day)
    ledger.append("in time", "verified")  # a later model was checked: the request stays closed in time
    found = {status.request: (status.late(now), status.late(now + 2 * day)) for status in ledger.statuses()}
    assert found == {"open": (False, True), "late": (True, True), "without": (False, False), "in time": (False, False)}


def test_a_later_model_is_checked_for_every_request_with_a_record(ledger: Ledger) -> None:
    walk(ledger, "REQ-1")
    walk(ledger, "REQ-2", WAY[:6])
    walk(ledger, "REQ-3", WAY[:3])
    walk(ledger, "not known", ("received", "known", "closed"))
    asked: list[str] = []

    def check(status: Status) -> dict[str, Any]:
        asked.append(status.request)
        return {"light": "red" if status.request == "REQ-1" else "green"}

    found = ledger.recheck(check, "e" * 64)
    assert asked == ["REQ-1", "REQ-2"]
    assert [(s.request, s.facts["light"], s.record) for s in found] == [
        ("REQ-1", "red", "d" * 64),
        ("REQ-2", "green", "d" * 64),
    ]
    assert [entry.digest for entry in ledger.entries()[-2:]] == ["e" * 64] * 2


def test_writers_at_once_lose_no_entry(ledger: Ledger) -> None:
    threads = [threading.Thread(target=walk, args=(ledger, f"REQ-{i}")) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.entries()) == 28
    assert {status.state for status in ledger.statuses()} == {"closed"}


WRITER = """
import os, sys
from scopewise.erasure.keys import signing_key
from scopewise.erasure.ledger import Ledger
ledger = Ledger(sys.argv[1], signing_key(__import__("pathlib").Path(sys.argv[2])))
print(os.getpid(), flush=True)
for i in range(10**6):
    request = f"REQ-{os.getpid()}-{i}"
    ledger.append(request, "received")
    print(request, flush=True)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.long)])
def test_kills_lose_no_entry_and_break_no_chain(ledger: Ledger, tmp_path: Path, kills: int) -> None:
    """Each entry that a killed process had been told to be written is there, and the next process goes on."""
    rng, told = random.Random(0), list[str]()
    for _ in range(kills):
        words = [python(), "-c", WRITER, str(ledger.path.parent), str(tmp_path / "keys")]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            told.append(process.stdout.readline().strip())
            time.sleep(rng.uniform(0.0, 0.03))
            os.kill(pid, signal.SIGKILL)
            told += [line.strip() for line in process.stdout if line.endswith("\n")]
        written = [entry.request for entry in ledger.entries()]
        assert [request for request in written if request in set(told)] == told
        assert len(written) - len(told) <= 1 + _unheard(told, written)
    ledger.append("REQ-last", "received")
    assert not list(ledger.path.parent.glob(".*.tmp"))


def _unheard(told: list[str], written: list[str]) -> int:
    """Entries that were written by a process that was killed before it could say so: at most one of each."""
    return len({request.split("-")[1] for request in written if request not in set(told)})
