"""What commands print at 80 and 120 columns, as files in `snapshots`. `SCOPEWISE_SNAPSHOTS=1` writes them anew."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recorded import make_house, values
from scopewise import cli, terminal
from scopewise.cli.bench import print_results
from scopewise.cli.forget import print_result
from scopewise.erasure import ledger
from scopewise.erasure.evidence import make_record, sign, write_record
from scopewise.erasure.plan import Plan
from scopewise.erasure.run import Forgotten
from scopewise.erasure.verdict import Light, Verdict
from scopewise.files import write_json

HERE = Path(__file__).parent / "snapshots"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
WIDTHS = (80, 120)
NOW = datetime.datetime(2026, 11, 20, 9, tzinfo=datetime.UTC)

Printed = Callable[..., str]


@pytest.fixture(params=WIDTHS)
def printed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Printed:
    """Returns what a command or a function prints, after comparing it with the file of this width."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("NO_COLOR", "1")
    for module in pkgutil.iter_modules(cli.__path__):
        importlib.import_module(f"scopewise.cli.{module.name}")

    def same(name: str, *words: str, show: Callable[[], None] | None = None) -> str:
        if show is not None:
            show()
        else:
            monkeypatch.setattr(sys, "argv", ["scopewise", *words])
            cli.app(words, prog_name="scopewise", standalone_mode=False)
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= request.param
        path = HERE / f"{name}-{request.param}.txt"
        if os.environ.get("SCOPEWISE_SNAPSHOTS"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"see tests/cli/snapshots/{path.name}"
        return text

    return same


def light(color: str, word: str, value: float, bound: float, why: str, *worst: str) -> Light:
    return Light(color, word, value, value - 0.0321, value + 0.0467, 12, bound, why, worst)  # type: ignore[arg-type]


GREEN = Verdict(
    light("green", "forgotten", 0.0213, 0.1, "The interval of the exposure ends below the bound."),
    light("green", "kept", 0.0104, 0.1, "The interval of the loss of retention ends below the bound."),
    light("green", "resists", 0.0611, 0.2, "The interval of the leakage ends below the bound."),
)
AMBER = Verdict(
    light("amber", "undecided", 0.0713, 0.1, "The interval of the exposure reaches beyond the bound.", "Ada Quill"),
    GREEN.kept,
    Light("amber", "undecided", None, None, None, 0, 0.2, "No attack was run."),
)
NAMES = [f"Person of a very long name indeed, number {i}" for i in range(8)]
RED = Verdict(
    light("red", "not forgotten", 0.9312, 0.1,
          "8 of 12 instances are still known: true answers rank higher than chance allows.", *NAMES),
    light("red", "damaged", 0.4112, 0.1, "41 % of the tokens of retained answers are lost.", "Ben [bold] Orrow", "Cleo"),
    light("red", "leaks", 1.0123, 0.2,
          "The attack relearning (forget rows of others, rate 0.0001, 20 steps) brings 101 % of it back.",
          "relearning: forget rows of others, rate 0.0001, 20 steps"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "verdict"), [("green", GREEN), ("amber", AMBER), ("red", RED), ("nothing", None)])
def test_forget(printed: Printed, name: str, verdict: Verdict | None) -> None:
    folder = Path("forgotten/REQ-17")
    kind = "nothing" if verdict is None else "approximate"
    exported = None if verdict is None else folder / "export"
    known = {"facts": 24, "known": 24, "p": 1e-9}
    found = Forgotten(folder, known, Plan(kind, "", ""), verdict, exported, folder / "record.intoto.json")  # type: ignore[arg-type]
    text = printed(f"forget-{name}", show=lambda: print_result(found))
    if verdict is not None:
        words = " ".join(text.split())
        for one in (verdict.forgotten, verdict.kept, verdict.resists):  # the color is a word
            assert re.search(rf"\b{one.light}:", words)


class Fixed(datetime.datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return NOW


def test_requests(printed: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datetime, "datetime", Fixed)
    monkeypatch.chdir(tmp_path)
    made = ledger.Ledger("forgotten", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    for name, due, states in (
        ("REQ-2026-11-20-privacy-team-of-the-north-1", "2026-12-20T09:00:00+00:00", ("known", "planned")),
        ("REQ-2026-11-20-privacy-team-of-the-north-2", "2026-10-20T09:00:00+00:00", ("known",)),
        ("REQ-3", None, ("known", "planned", "unlearned", "verified", "exported", "closed")),
    ):
        made.append(name, "received", facts={"due": due})
        for state in states:
            lights = {"light": "green"} if state == "verified" else {}
            made.append(name, state, "a" * 64 if state == "exported" else None, facts=lights)  # type: ignore[arg-type]
    text = printed("requests", "requests", "forgotten")
    assert len(re.findall(r"-north|north-", "".join(text.split()))) >= 2


def test_verify(printed: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    content = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "signing.pem").write_bytes(content)
    (tmp_path / "keys" / "signing.pem").chmod(0o600)
    make_house(tmp_path)
    monkeypatch.chdir(tmp_path)
    printed("verify", "verify", "REQ")


def test_show_of_a_record(printed: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of attacks are long, and the table still fits."""
    monkeypatch.setattr(datetime, "datetime", Fixed)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    house = make_house(tmp_path)
    names = ("prompts: background_hint", "relearning: forget rows of others, rate 0.00067, 20 steps")
    attacks = [{"name": name, "value": 0.31, "low": -0.2, "high": 0.62, "n": 12, "bound": 0.25} for name in names]
    evidence = {**values(house.rows)["evidence"], "attacks": attacks}
    made = sign(make_record(**values(house.rows, evidence=evidence)), key)
    (tmp_path / "long").mkdir()
    write_record(tmp_path / "long", made)
    monkeypatch.chdir(tmp_path)
    printed("show-record", "show", "long")


@pytest.mark.parametrize("name", ["unfinished", "several"])
def test_show_of_a_request(
    name: str, printed: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which steps are done, and how to go on; a finished folder of several requests says where their records lie."""
    monkeypatch.chdir(tmp_path)
    folder = Path("forgotten") / "REQ-17"
    said = {"said": "12 facts about 3 instances, 12 retain rows"}
    plan = {
        "plan": {"why": "The base is fine-tuned again on the 12 retain rows only. What else the model learned is lost."}
    }
    steps = {"check": said, "known": {"said": "9 of 12 facts (p = 1.1e-16)"}, "plan": plan}
    if name == "several":
        verdict = {light: {"light": "green"} for light in ("forgotten", "kept", "resists")}
        steps |= {"unlearn": {"said": "retrain"}, "export": {}, "verify": {"said": "28 attacks"}, "verdict": verdict}
        write_json(folder / "requests" / "REQ-18" / "record.intoto.json", {})
        write_json(folder / "requests" / "REQ-17" / "record.intoto.json", {})
    write_json(folder / "request.inputs.json", {"id": "REQ-17"})
    for step, found in steps.items():
        write_json(folder / "steps" / f"{step}.json", found)
    text = printed(f"show-{name}", "show", str(folder))
    assert ("--resume" in text) == (name == "unfinished")
    cli.app(["show", str(folder), "--json"], prog_name="scopewise", standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert (found["finished"], found["steps"]["plan"], found["steps"]["unlearn"]) == (
        name == "several",
        True,
        name == "several",
    )


def test_list(printed: Printed) -> None:
    from scopewise.registry import table

    text = printed("list-methods", "list", "methods")
    names = re.findall(r"^  (\S+)  ", text, re.MULTILINE)
    assert set(names) >= set(table("methods"))
    assert len(set(names)) == len(names)


def test_help(printed: Printed) -> None:
    from typer.main import get_command

    text = printed("help", "--help")
    assert all(f"\n  {name} " in text for name in get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["knowundo_privacy_tiny", "knowundo_privacy_tiny_all"])
def test_bench(printed: Printed, name: str) -> None:
    from scopewise.report.comparison import with_comparisons

    results = with_comparisons(json.loads((RESULTS / f"{name}.json").read_text()))
    text = printed(f"bench-{name}", show=lambda: print_results(results, wide=False))
    for method in {row["method"] for row in results["rows"]}:
        assert re.search(rf"^{re.escape(method)} ", text, re.MULTILINE)


def test_a_name_that_is_too_long_goes_on_in_the_next_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ["a" * 100 + end for end in "xy"]
    terminal.echo_table(("name", "what"), [(name, "word " * 30) for name in names])
    lines = capsys.readouterr().out.splitlines()
    shown = "".join(re.match(r"[a-z]*", line)[0] for line in lines[1:])  # type: ignore[index]
    assert shown == "".join(names)


@pytest.mark.parametrize(("color", "escapes"), [(None, True), ("1", False)])
def test_only_a_terminal_without_no_color_has_colors(
    color: str | None, escapes: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if color is not None:
        monkeypatch.setenv("NO_COLOR", color)
    row: list[Any] = ["red: leaks", "\x1b[2J"]
    terminal.echo_table((), [row])
    assert "\x1b" not in capsys.readouterr().out  # no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    terminal.echo_table((), [row])
    out = capsys.readouterr().out
    assert ("\x1b[31mred: leaks" in out) == escapes
    assert "\x1b[2J" not in out
    assert "\\x1b[2J" in out
