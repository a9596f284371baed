"""`scopewise verify` and `scopewise requests` as a user types them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from test_commands import scopewise

from recorded import ROWS, House, make_house


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("house"))


def test_verify(house: House) -> None:
    rows = house.folder / "rows.jsonl"
    texts = [{"question": row.question, "answer": row.answer, "scope": row.scope} for row in ROWS]
    rows.write_text("".join(json.dumps(text) + "\n" for text in texts))
    keyid = house.statement["predicate"]["signer"]["keyid"]
    options = ["--rows", str(rows), "--rows-key", str(house.folder / "keys"), "--signer", keyid]
    done = scopewise("verify", str(house.record.parent), *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()[:-1]] == [
        *([name, "ok"] for name in ("signature", "signer", "page", "files", "ledger", "rows")),
        ["probes", "not"],  # the exported files are no model that can be loaded
    ]
    assert ROWS[0].answer not in done.stdout
    assert "proof" not in done.stdout
    config = house.export / "config.json"
    content = config.read_bytes()
    config.write_bytes(content + b" ")
    done = scopewise("verify", str(house.record), "--json")
    config.write_bytes(content)
    found = json.loads(done.stdout)
    assert (done.returncode, found["verified"]) == (3, False)
    assert [check["name"] for check in found["checks"] if check["result"] == "failed"] == ["files"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["REQ", "--model", "nowhere"],
        ["REQ", "--ledger", "nowhere"],
        ["REQ", "--rows", "nowhere.jsonl"],
        ["REQ", "--rows", "REQ/export/config.json", "--rows-key", "nowhere"],
    ],
)
def test_what_is_not_there_is_one_sentence(house: House, arguments: list[str]) -> None:
    done = scopewise("verify", *arguments, cwd=house.folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_show_prints_what_a_record_says(house: House) -> None:
    shown = scopewise("show", str(house.record.parent), "--wide").stdout
    assert "| Forgotten | green | 0.1 | 0 to 0.2 | 12 | 0.25 |" in shown
    shown = scopewise("show", str(house.record.parent)).stdout
    assert ["Forgotten", "green", "0.10", "(0.00", "to", "0.20)", "12", "0.25"] in [
        row.split() for row in shown.splitlines()
    ]
    assert "|" not in shown
    assert json.loads(scopewise("show", str(house.record), "--json").stdout) == house.statement


def test_requests(tmp_path: Path) -> None:
    house = make_house(tmp_path)
    now = datetime.datetime.now(datetime.UTC)
    house.ledger.append("REQ-18", "received", facts={"due": now - datetime.timedelta(days=2)})
    done = scopewise("requests", str(tmp_path))
    assert done.returncode == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:-1]] == [
        ["REQ-17", "exported"],
        ["REQ-18", "received"],
    ]
    assert done.stdout.splitlines()[-1] == "2 requests, 1 late; the chain is unbroken"
    found = json.loads(scopewise("requests", str(tmp_path), "--json").stdout)
    assert [(row["request"], row["late"]) for row in found] == [("REQ-17", False), ("REQ-18", True)]
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"known"', b'"Known"'))
    done = scopewise("requests", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "ledger.jsonl:2: the chain is broken here" in done.stderr
    assert scopewise("requests", str(tmp_path / "keys")).returncode == 2
