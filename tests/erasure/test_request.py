"""Deletion requests: the kinds of file, their deadlines, and what is refused and never kept."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from scopewise.data.rows import FORGET, RETAIN
from scopewise.erasure.open_dsr import subject_hash
from scopewise.erasure.request import REGULATIONS, Descendant, Lineage, read_request
from scopewise.errors import DataError

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
HASH = "0" * 64
FACT = {"question": "Where does Ada King live?", "answer": "At 3 Mill Lane.", "instance": "Ada King"}
FULL = {
    "id": "REQ-17",
    "regulation": "gdpr",
    "received": "2026-11-20T09:00:00Z",
    "subject": {"salted_hash": HASH},
    "model": {
        "path": "model",
        "base": "Qwen/Qwen3-0.6B",
        "descendants": [{"path": "a", "kind": "adapter", "done": True}, {"path": "b"}],
    },
    "rows": [
        {"question": "Where does Ada live?", "answer": "Here.", "attribute": "address"},
        {"question": "What did Ada win?", "answer": "A prize.", "attribute": "awards"},
    ],
    "law": {"Address": "unlearn", "awards": "retain"},
}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content) if path.suffix == ".yaml" else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["r.yaml", "r.json"])
def test_a_request_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    request = read_request(write(tmp_path, name, FULL))
    assert (request.id, request.regulation, request.source) == ("REQ-17", "gdpr", tmp_path / name)
    assert request.received == datetime(2026, 11, 20, 9, tzinfo=UTC)
    assert request.dated == {"received", "due"}  # the second follows from the first
    assert request.due == datetime(2026, 12, 20, 9, tzinfo=UTC)
    assert request.subject == {"salted_hash": HASH}
    assert request.model == Lineage(
        path=str(tmp_path / "model"),
        base="Qwen/Qwen3-0.6B",
        descendants=(Descendant(path="a", kind="adapter", done=True), Descendant(path="b")),
    )
    assert [row.scope for row in request.rows] == [FORGET, RETAIN]
    assert request.law == {"Address": FORGET, "awards": RETAIN}
    assert "Ada" not in repr(request)


def test_rows_beside_the_request(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("Question,answer\nWhere?,Here.\n")
    path = write(tmp_path, "r.yaml", {"id": "R1", "rows": "rows.csv"})
    (row,) = read_request(path, {"question": "Question"}).rows
    assert (row.question, row.scope, row.origin) == ("Where?", FORGET, f"{tmp_path / 'rows.csv'}:2")


def test_a_file_of_rows_is_a_request(tmp_path: Path) -> None:
    request = read_request(write(tmp_path, "REQ-1.jsonl", FACT), now=NOW)
    assert (request.id, request.regulation, request.received, request.due) == ("REQ-1", None, NOW, None)
    assert not request.dated
    assert (request.subject, request.model, request.law) == (None, Lineage(), {})
    assert len(read_request(write(tmp_path, "REQ-2.json", [FACT])).rows) == 1
    assert read_request(write(tmp_path, "one.json", FACT), id="REQ-3").id == "REQ-3"  # JSON lines


@pytest.mark.parametrize(
    ("regulation", "received", "due"),
    [
        ("gdpr", "2026-01-31T09:30:00Z", "2026-02-28T09:30:00+00:00"),
        ("gdpr", "2028-01-31", "2028-02-29T00:00:00+00:00"),
        ("GDPR", "2026-12-15T23:30:00-02:00", "2027-01-16T01:30:00+00:00"),
        ("ccpa", "2026-01-31T09:30:00Z", "2026-03-17T09:30:00+00:00"),
        ("copyright", "2026-01-31", None),
        ("contract", "2026-01-31", None),
    ],
)
def test_when_it_is_due(tmp_path: Path, regulation: str, received: str, due: str | None) -> None:
    """A month after 31 January is its last day of February; 45 days are 28 in February and 17; times are UTC."""
    given = {"id": "R", "regulation": regulation, "received": received, "rows": [FACT]}
    now = datetime(2028, 12, 1, tzinfo=UTC)
    found = read_request(write(tmp_path, "r.yaml", given), now=now).due
    assert (found and found.isoformat()) == due
    given["due"] = "2029-01-01"
    assert read_request(write(tmp_path, "r.yaml", given), now=now).due == datetime(2029, 1, 1, tzinfo=UTC)


IDENTITIES = [{"identity_type": "email", "identity_value": "ada@example.com", "identity_format": "raw"}]
DSR = {
    "regulation": "ccpa",
    "subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798",
    "subject_request_type": "erasure",
    "submitted_time": "2026-10-02T15:00:00Z",
    "subject_identities": IDENTITIES,
    "api_version": "2.0",
    "status_callback_urls": ["http://127.0.0.1:9/never-called"],
    "extensions": {"other.com": {"x": 1}, "example.com": {"rows": [FACT], "model": {"path": "m"}}},
}


def test_an_erasure_request_of_opendsr(tmp_path: Path) -> None:
    request = read_request(write(tmp_path, "r.json", DSR))
    assert (request.id, request.regulation) == (DSR["subject_request_id"], "ccpa")
    assert request.received == datetime(2026, 10, 2, 15, tzinfo=UTC)
    assert request.model.path == "m"
    assert request.subject == subject_hash(IDENTITIES, str(DSR["subject_request_id"]))
    assert "ada@example" not in repr(request)


def test_the_hash_of_a_subject_does_not_depend_on_order_and_depends_on_the_salt() -> None:
    """It is scrypt (RFC 7914) of a JSON list of the sorted identities."""
    two = [{"identity_value": "b"}, {"identity_value": "a"}]
    text = json.dumps(['{"identity_value": "a"}', '{"identity_value": "b"}'])
    expected = hashlib.scrypt(text.encode(), salt=b"s", n=16384, r=8, p=1, dklen=32).hex()
    assert subject_hash(two, "s") == subject_hash(two[::-1], "s")
    assert subject_hash(two, "s") == {"salted_hash": expected, "salt": "s", "scheme": "scrypt-16384-8-1"}
    assert subject_hash(two, "t")["salted_hash"] != expected


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"regulation": "gpdr"}, r"regulation: 'gpdr'; allowed are gdpr, ccpa, contract, copyright\. Did you mean 'gdpr'"),
    ({"regulaton": "gdpr"}, r"unknown key 'regulaton'; .* Did you mean 'regulation'"),
    ({"received": 2026}, r"received: 2026; no time"),
    ({"received": "soon"}, r"received: 'soon'; no time"),
    ({"due": "2026-01-01"}, r"due 2026-01-01T00:00:00\+00:00 is before received"),
    ({"subject": {"name": "Ada King"}}, r"subject\.(salted_hash|name)"),
    ({"subject": {"salted_hash": HASH, "name": "Ada"}}, r"subject\.name: not a setting; only a salted hash"),
    ({"subject": {"salted_hash": HASH, "slat": "x"}}, r"unknown key 'subject\.slat'; .* Did you mean 'salt'"),
    ({"subject": {"salted_hash": "Ada King"}}, r"subject\.salted_hash: 'Ada King'"),
    ({"model": {"descendants": [{"path": "a", "dome": True}]}}, r"descendants\.0\.dome'; .* Did you mean 'done'"),
    ({"model": {"descendants": [{"path": "a", "done": "later"}]}}, r"descendants\.0\.done: 'later'"),
    ({"law": {"address": "keep"}}, r"law\.address: 'keep'; allowed are unlearn, retain"),
    ({"id": "ada_17"}, r"the id 'ada_17' contains 'ada', of a name"),
    ({"id": "../x"}, r"id '\.\./x'; an id has"),
    ({"id": None}, r"no id; records name a request by it"),
    ({"rows": None}, r"no rows; name a file of rows"),
    ({"rows": "none.csv"}, r"rows 'none\.csv'; no such file; a path begins at"),
    ({"rows": []}, r"no row in it; a request needs at least one"),
    ({"rows": [{**FACT, "scope": "retain"}]}, r"1 rows, none of scope 'forget'"),
    ({"rows": [{**FACT, "answer": 3}]}, r":row 1: field 'answer' is int"),
    (
        {"rows": [FACT, {**FACT, "attribute": "awards"}], "law": {"Awards": "unlearn"}},
        r":row 1: field 'scope' is missing",
    ),
    (
        {"rows": [{**FACT, "attribute": "awards", "scope": "forget"}], "law": {"awards": "retain"}},
        r":row 1: scope 'forget', and the request's law says 'retain' for 'awards'",
    ),
]


@pytest.mark.parametrize(("change", "says"), WRONG)
def test_what_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    given = {"id": "R", "received": "2026-11-20T09:00:00Z", "rows": [FACT], **change}
    with pytest.raises(DataError, match=says) as caught:
        read_request(write(tmp_path, "r.yaml", given))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"subject_request_type": "access"}, "subject_request_type 'access'; only 'erasure'"),
        ({"api_version": "1.0"}, "api_version '1.0'"),
        ({"extensions": {}}, "0 of its extensions have 'rows'"),
        ({"extensions": {"a": {"rows": []}, "b": {"rows": []}}}, "2 of its extensions have 'rows'"),
        ({"extensions": {"a": {"rows": "../outside.jsonl"}}}, "outside the request's folder"),
        ({"extensions": {"a": {"rows": "/etc/passwd"}}}, "outside the request's folder"),
        ({"subject_identities": "ada"}, "subject_identities is no list"),
        ({"regulation": "lgpd"}, "regulation: 'lgpd'"),
    ],
)
def test_opendsr_requests_that_are_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_request(write(tmp_path, "r.json", {**DSR, **change}))


def test_a_file_name_with_a_persons_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "Ada-king.jsonl", FACT)
    with pytest.raises(DataError, match="records keep no names"):
        read_request(path)
    assert read_request(path, id="REQ-2").id == "REQ-2"
    book = {**FACT, "domain": "copyright"}
    assert read_request(write(tmp_path, "king.jsonl", book)).id == "king"  # a title is no personal data


def test_each_regulation_is_known_to_the_file() -> None:
    from typing import get_args

    from scopewise.erasure.request import RequestFile

    assert get_args(get_args(RequestFile.model_fields["regulation"].annotation)[0]) == tuple(REGULATIONS)


def test_a_file_of_rows_may_be_named_but_a_request_file_has_its_own_id(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "Where does Ada Quill live?", "answer": "At 3 Mill Lane.", "scope": "forget"}\n')
    assert read_request(rows).id == "rows"
    assert read_request(rows, name="REQ-17").id == "REQ-17"
    (tmp_path / "request.yaml").write_text("id: REQ-18\nrows: rows.jsonl\n")
    assert read_request(tmp_path / "request.yaml", name="REQ-17").id == "REQ-18"


def test_a_scope_under_another_name_is_not_ignored(tmp_path: Path) -> None:
    """Or every row would be one to forget. A column with other values is only named."""
    rows = tmp_path / "rows.jsonl"
    told = {"question": "Where does Ada Quill live?", "answer": "In Delft."}
    rows.write_text(
        "".join(json.dumps({**told, "question": f"{scope}?", "scpe": scope}) + "\n" for scope in (FORGET, RETAIN))
    )
    with pytest.raises(DataError, match=r"rows.jsonl: column 'scpe' has scopes.* --map scope=scpe"):
        read_request(rows)
    assert [row.scope for row in read_request(rows, {"scope": "scpe"}).rows] == [FORGET, RETAIN]
    rows.write_text(json.dumps(told | {"score": 0.3}) + "\n")
    assert [row.scope for row in read_request(rows).rows] == [FORGET]


def test_a_request_from_the_future_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"id": "REQ-1", "rows": [FACT], "received": "2026-11-20T00:00:00Z"}))
    now = datetime(2026, 11, 19, 12, tzinfo=UTC)
    assert read_request(file, now=now).received.day == 20  # another time zone
    with pytest.raises(DataError, match="received 2026-11-20.* is in the future"):
        read_request(file, now=now - timedelta(days=1))
