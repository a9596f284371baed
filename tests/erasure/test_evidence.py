"""Records: what is signed, that any changed byte is found, and what a record never says."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from changes import flips
from recorded import LIGHT, ROWS, House, make_house, values
from scopewise.data.rows import Row
from scopewise.erasure import evidence, keys
from scopewise.erasure import verify as verifying
from scopewise.erasure.envelope import canonical, pre_authentication
from scopewise.erasure.handouts import handouts
from scopewise.erasure.plan import Plan
from scopewise.erasure.recording import GENERAL, NO_GENERAL, RETRAINED, SAME_TEXT, limits_of
from scopewise.erasure.request import read_request
from scopewise.erasure.verify import Check, verify_record
from scopewise.errors import ConfigError, ResultError
from scopewise.statistics import Interval


@pytest.fixture
def house(tmp_path: Path) -> House:
    return make_house(tmp_path)


def results(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.result for check in checks}


def test_a_record_verifies(house: House) -> None:
    keyid = house.statement["predicate"]["signer"]["keyid"]
    checks = verify_record(house.record.parent, signer=f"SHA256:{keyid.upper()}", rows=ROWS[::-1], key=house.rows)
    wanted = dict.fromkeys(("signature", "signer", "page", "files", "ledger", "rows"), "ok") | {"probes": "not checked"}
    assert results(checks) == wanted


def test_what_was_not_given_is_not_checked(house: House) -> None:
    (house.folder / "ledger.jsonl").unlink()
    house.export.rename(house.folder / "elsewhere")
    for name in handouts(house.statement):
        (house.record.parent / name).unlink()
    checks = results(verify_record(house.record))
    assert checks == {
        "signature": "ok",
        **dict.fromkeys(("signer", "page", "files", "ledger", "rows", "probes"), "not checked"),
    }
    assert results(verify_record(house.record, model=house.folder / "elsewhere"))["files"] == "ok"


def test_the_statement_is_in_toto(house: House) -> None:
    envelope = json.loads(house.record.read_bytes())
    assert set(envelope) == {"payload", "payloadType", "signatures"}
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert house.statement["_type"] == "https://in-toto.io/Statement/v1"
    assert [entry["name"] for entry in house.statement["subject"]] == ["config.json", "model.safetensors"]
    found = house.statement["predicate"]["evidence"]["test_result"]
    assert (found["result"], found["warnedTests"], found["failedTests"]) == ("WARNED", ["resists"], [])
    assert found["passedTests"] == ["forgotten", "kept", "attack relearning"]


def test_the_bytes_that_are_signed_are_those_of_dsse() -> None:
    """The example of the protocol."""
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_fingerprint_is_that_of_openssl(house: House) -> None:
    public = house.statement["predicate"]["signer"]["public_key"]
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=public.encode(), capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(der).hexdigest() == keys.fingerprint(public)


@pytest.mark.parametrize(
    ("kind", "verdict", "known", "result"),
    [
        ("nothing", None, 0, "PASSED"),
        ("nothing", None, 1, "WARNED"),
        ("exact", {**dict.fromkeys(("forgotten", "kept", "resists"), LIGHT)}, 2, "PASSED"),
        ("exact", {**dict.fromkeys(("forgotten", "kept"), LIGHT), "resists": {**LIGHT, "light": "red"}}, 2, "FAILED"),
    ],
)
def test_the_result_follows_the_lights(kind: str, verdict: Any, known: int, result: str) -> None:
    found = {"known": {"facts": 2, "known": known}, "verdict": verdict}
    made = evidence.make_record(**values(b"k" * 32, action={"kind": kind}, evidence=found))
    assert made["predicate"]["evidence"]["test_result"]["result"] == result


def test_any_changed_byte_of_the_record_is_found(house: House) -> None:
    del house.statement["predicate"]["signer"], house.statement["predicate"]["tool"]["packages"]["lm-eval"]
    small = {"metrics": [], "attacks": [], "verdict": None}
    house.statement["predicate"]["evidence"] |= small
    content = canonical(evidence.sign(house.statement, house.signing)) + b"\n"
    evidence.read_record(content, "record")
    for changed in (*flips(content), content[:-1], content + b"\n", b" " + content, b""):
        with pytest.raises(ResultError, match=str(house.record)):
            evidence.read_record(changed, str(house.record))
    house.record.write_bytes(content[:-1])
    assert results(verify_record(house.record)) == {"signature": "failed"}


def test_any_changed_byte_of_the_model_is_found(house: House) -> None:
    for file in house.export.iterdir():
        content = file.read_bytes()
        for changed in (*flips(content), content[:-1], content + b"\0"):
            file.write_bytes(changed)
            (found,) = [check for check in verify_record(house.record) if check.name == "files"]
            assert found.result == "failed"
            assert f"{file.name} was changed" in found.detail
        file.write_bytes(content)
    assert results(verify_record(house.record))["files"] == "ok"


@pytest.mark.parametrize("name", ["record.html", "model-card-section.md", "bom.cdx.json"])
def test_a_page_that_says_something_else_is_found(house: House, name: str) -> None:
    file = house.record.parent / name
    file.write_text(file.read_text().replace("relearning", "nothing"))
    (check,) = (check for check in verify_record(house.record) if check.name == "page")
    assert (check.result, name in check.detail) == ("failed", True)


@pytest.mark.parametrize("other", [{"scopewise": "9.9"}, {"commit": "0" * 40}])
def test_a_page_in_the_words_of_another_version_is_not_called_changed(
    house: House, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    monkeypatch.setattr(verifying, "manifest", lambda *_: {**house.statement["predicate"]["tool"], **other})
    assert results(verify_record(house.record))["page"] == "ok"
    (house.record.parent / "record.html").write_text("other words")
    assert results(verify_record(house.record))["page"] == "not checked"


def test_the_ledger_may_be_given_as_a_file(house: House) -> None:
    assert results(verify_record(house.record, ledger=house.ledger.path))["ledger"] == "ok"
    with pytest.raises(ResultError):
        verify_record(house.record, ledger=house.export)


def test_a_broken_ledger_is_found(house: House) -> None:
    path = house.folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"known"', b'"Known"'))
    (found,) = [check for check in verify_record(house.record) if check.name == "ledger"]
    assert found.result == "failed"
    assert "ledger.jsonl:2: the chain is broken here" in found.detail


def test_files_that_are_missing_or_more_are_found(house: House) -> None:
    (house.export / "more.bin").write_bytes(b"x")
    (house.export / "config.json").unlink()
    (found,) = [check for check in verify_record(house.record) if check.name == "files"]
    assert "config.json is missing; more.bin is not in the record" in found.detail
    (house.export / "link").symlink_to(house.export / "more.bin")
    assert results(verify_record(house.record))["files"] == "failed"


def test_other_rows_or_another_key_are_found(house: House) -> None:
    other = [*ROWS[1:], Row("Where does Ada Quill live?", "13 Rook Lane", "forget", instance="1")]
    for rows, key in ((other, house.rows), (ROWS[1:], house.rows), (ROWS, b"k" * 32)):
        assert results(verify_record(house.record, rows=rows, key=key))["rows"] == "failed"


def test_a_record_by_another_key_is_found(house: House) -> None:
    """Whoever has no key of the signer can sign anew with an own one: fingerprint and ledger tell."""
    del house.statement["predicate"]["signer"]
    other = evidence.sign(house.statement, keys.signing_key(house.folder / "other"))
    house.record.write_bytes(canonical(other) + b"\n")
    keyid = keys.fingerprint(keys.public_pem(house.signing))
    checks = results(verify_record(house.record, signer=keyid))
    assert (checks["signature"], checks["signer"], checks["ledger"]) == ("ok", "failed", "failed")


def test_entries_cut_off_are_found_by_the_record(house: House) -> None:
    path = house.folder / "ledger.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert len(house.ledger.entries()) == 3  # the chain alone cannot tell
    assert results(verify_record(house.record))["ledger"] == "failed"


def test_no_local_path_and_no_text_of_rows_is_in_a_record(house: House) -> None:
    text = json.dumps(house.statement)
    assert "/home" not in text
    assert house.statement["predicate"]["before"]["name"] == "target"
    assert house.statement["predicate"]["limits"] == ["Not tested: attacks with more than 20 steps, as in notes.txt"]
    for row in ROWS:
        assert row.question not in text
        assert row.answer not in text
    assert "proof" not in text.lower()


@pytest.mark.parametrize(
    ("part", "value", "where"),
    [
        ("request", {"id": "R", "regulation": "gdpr", "subject": "Ada Quill"}, "request.subject"),
        ("request", {"id": "R", "regulation": "gdpr", "due": "soon"}, "request.due"),
        ("request", {"id": "R", "regulation": "gdpr", "email": "a@b.c"}, "request.email"),
        ("limits", [], "limits"),
        ("files", {}, "subject"),
        ("files", {"model.safetensors": "ABC"}, "subject.0.digest.sha256"),
        ("action", {"kind": "magic"}, "action.kind"),
        ("evidence", {"known": {"facts": 1, "known": float("nan")}}, "evidence.known.known"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused(part: str, value: Any, where: str) -> None:
    with pytest.raises(ResultError, match=where):
        evidence.make_record(**values(b"k" * 32, **{part: value}))


def test_the_hash_of_a_person_is_hashed_again(tmp_path: Path) -> None:
    """Whoever knows the salt could try names otherwise."""
    path = tmp_path / "request.yaml"
    rows = [{"question": row.question, "answer": row.answer, "scope": row.scope} for row in ROWS]
    subject = {"salted_hash": "0" * 64, "salt": "s"}
    path.write_text(json.dumps({"id": "R", "regulation": "gdpr", "subject": subject, "rows": rows}))
    request = read_request(path)
    found = evidence.describe_request(request, b"k" * 32)
    assert found["subject"] == evidence.describe_request(request, b"k" * 32)["subject"]
    assert found["subject"] != evidence.describe_request(request, b"l" * 32)["subject"]
    made = evidence.make_record(**values(b"k" * 32, request=found))["predicate"]["request"]
    assert (made["id"], made["due"]) == ("R", request.due and request.due.isoformat())
    assert "0" * 64 not in json.dumps(made)


@pytest.mark.parametrize(
    ("settings", "rise", "said"),
    [
        ({"method": "wga", "method_args": {"retain_data": "both"}}, Interval(0.1, None, None), True),
        ({"method": "ga_kl_general+sam"}, Interval(0.1, None, None), True),
        ({"method": "wga", "method_args": {"beta": 0.25}}, Interval(0.1, None, None), False),
        ({"method": "wga", "method_args": {"retain_data": "both"}}, None, False),
    ],
)
def test_text_like_that_which_was_trained_on_is_a_limit(settings: Any, rise: Interval | None, said: bool) -> None:
    done: Any = SimpleNamespace(
        settings=settings, kept=SimpleNamespace(general=rise), limits=("One.",), resisted={"notes": ["Two."]}
    )
    found = limits_of(Plan("approximate", "wga", ""), done)
    assert (SAME_TEXT in found) == said
    assert (GENERAL in found, NO_GENERAL in found) == (rise is not None, rise is None)
    assert found[-2:] == ["One.", "Two."]
    assert RETRAINED in limits_of(Plan("exact", "retrain", ""), done)


def test_a_record_is_not_replaced(house: House) -> None:
    with pytest.raises(ResultError, match="exists"):
        evidence.write_record(house.record.parent, {})
    assert house.record.stat().st_mode & 0o777 == 0o600


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "keys"
    assert keys.rows_key(folder, make=False) is None
    assert not folder.exists()
    first = keys.signing_key(folder)
    assert keys.public_pem(first) == keys.public_pem(keys.signing_key(folder))
    assert keys.rows_key(folder) == keys.rows_key(folder, make=False)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "rows.key": 0o600,
        "signing.pem": 0o600,
    }


@pytest.mark.parametrize("name", [keys.SIGNING, keys.ROWS])
@pytest.mark.parametrize(
    "damage", ["group can read", "others can read", "others can replace", "link", "folder", "broken", "empty"]
)
def test_a_key_that_is_not_safe_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    keys.signing_key(tmp_path), keys.rows_key(tmp_path)
    path = tmp_path / name
    match damage:
        case "group can read":
            path.chmod(0o640)
        case "others can read":
            path.chmod(0o604)
        case "others can replace":
            tmp_path.chmod(0o777)
        case "link":
            path.symlink_to(path.rename(tmp_path / "other"))
        case "folder":
            path.unlink()
            path.mkdir()
        case "broken":
            path.write_text("x" * 64)
        case "empty":
            path.write_bytes(b"")
    with pytest.raises(ConfigError, match=str(tmp_path)):
        (keys.signing_key if name == keys.SIGNING else keys.rows_key)(tmp_path)


def test_a_key_that_another_process_made_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / keys.SIGNING
    path.write_bytes(b"theirs")
    keys._make(path, b"ours")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(keys.SIGNING, b"theirs")]
