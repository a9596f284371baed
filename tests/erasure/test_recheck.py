"""Later models: which of all requests of a ledger still hold."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from asked import NAMES, request, rows, teach, untaught
from scopewise.cli import app
from scopewise.cli import recheck as _recheck  # noqa: F401
from scopewise.cli import requests as _requests  # noqa: F401
from scopewise.config import DataSection
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.erasure import evidence, facts_file, keys, recheck
from scopewise.erasure.facts import measured_facts
from scopewise.erasure.ledger import Ledger
from scopewise.erasure.probes import compared_lights
from scopewise.erasure.verdict import Light, read_policy
from scopewise.erasure.verify import Check, verify_record
from scopewise.errors import DataError
from scopewise.exposure import compared_with, expose
from scopewise.models.engine import Engine

POLICY = read_policy()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`; `target`, which was taught all rows; `clean`, without the forget rows."""
    folder = tmp_path_factory.mktemp("models")
    base = untaught(folder / "base")
    teach(*base, rows(), folder / "target", 120)
    teach(*base, [row for row in rows() if row.scope == RETAIN], folder / "clean", 60)
    return folder


@pytest.fixture
def ledger(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Two requests of two persons each, and one about a person whom no model knows; the record names `clean` as exported."""
    monkeypatch.setenv("SCOPEWISE_KEYS", str(tmp_path / "keys"))
    ledger = Ledger(tmp_path / "forgotten", keys.signing_key())
    unknown = [Row(row.question.replace("Ada Quill", "Gus Lorn"), "At 77 Brack Lane in Alder.", FORGET, instance="Gus Lorn")
               for row in rows("Ada Quill")[:1]]  # fmt: skip
    for id, given, kind in (
        ("REQ-1", rows(*NAMES[:2]), "exact"),
        ("REQ-2", rows(*NAMES[3:5]), "exact"),
        ("REQ-3", [*unknown, *rows(NAMES[0])[2:4]], "nothing"),
    ):
        record(ledger, id, given, kind, models)
    return ledger


def record(ledger: Ledger, id: str, given: list[Row], kind: str, models: Path) -> None:
    facts, key = measured_facts(given), keys.rows_key()
    assert key is not None
    folder = ledger.path.parent / id
    facts_file.write_facts(folder, facts, DataSection())
    ledger.append(id, "received")
    ledger.append(id, "known")
    ledger.append(id, "planned", facts={"kind": kind, "rows": facts_file.facts_hmac(facts, key)})
    files = evidence.digest_folder(models / "clean")
    if kind == "exact":
        ledger.append(id, "unlearned")
        ledger.append(id, "verified", evidence.digest_files(files), facts={"exact": True})
    made = statement(ledger, id, given, kind, models, "clean", {})
    path = evidence.write_record(folder, evidence.sign(made, keys.signing_key()))
    lights = {"forgotten": "green"} if kind == "exact" else {}
    ledger.append(id, "exported" if lights else "closed", evidence.record_digest(path), facts=lights)


def statement(
    ledger: Ledger, id: str, given: list[Row], kind: str, models: Path, after: str, more: dict[str, Any]
) -> dict[str, Any]:
    key = keys.rows_key()
    assert key is not None
    return evidence.make_record(
        request=evidence.describe_request(request(given, id), key),
        before={"name": "target", "files": evidence.digest_folder(models / "target")},
        scopes=evidence.describe_scopes(given, key),
        action={"kind": kind},
        evidence={"known": {"facts": 4, "known": 0, "p": 0.5}, **more},
        limits=["none"],
        operator="test",
        previous=ledger.head(),
        files=evidence.digest_folder(models / after),
    )


def lights(found: list[recheck.Rechecked]) -> dict[str, tuple[str, str]]:
    return {one.request: (one.then, one.now.light) for one in found}


def test_a_model_that_was_retrained_without_the_rows_is_not_red(ledger: Ledger, models: Path) -> None:
    """The ledger says of these files that they were retrained without the rows, so that two persons are enough."""
    found, _ = recheck.recheck(ledger, str(models / "clean"), POLICY)
    assert [(one.request, one.state, one.then) for one in found] == [
        ("REQ-1", "exported", "green"),
        ("REQ-2", "exported", "green"),
        ("REQ-3", "closed", "not known"),
    ]
    assert "red" not in [light for _, light in lights(found).values()]
    assert "few" not in found[0].now.why + found[1].now.why
    digest = evidence.digest_files(evidence.digest_folder(models / "clean"))
    assert [(e.request, e.state, e.digest, e.facts["light"], e.facts["exact"]) for e in ledger.entries()[-3:]] == [
        (one.request, "verified", digest, one.now.light, one.request != "REQ-3") for one in found
    ]


@pytest.mark.parametrize(
    ("each", "together", "holds"),
    [
        (["green", "green"], "red", True),
        (["green", "amber"], "green", True),
        (["green", "amber"], "amber", False),
        (["green", "red"], "green", False),
        (["green", "not measured"], "green", False),
        ([], None, True),
    ],
)
def test_which_lights_hold(each: list[str], together: str | None, holds: bool) -> None:
    def light(color: str) -> Light:
        if color == "not measured":
            return recheck.unmeasured(POLICY, "its folder is gone")
        return Light(color, "", 0.1, None, None, 2, 0.25, "")  # type: ignore[arg-type]

    found = [recheck.Rechecked(f"REQ-{i}", "closed", "green", light(color)) for i, color in enumerate(each)]
    assert recheck.holds(found, None if together is None else light(together)) == holds


def test_what_was_taught_again_is_red(ledger: Ledger, models: Path) -> None:
    found, together = recheck.recheck(ledger, str(models / "target"), POLICY)
    assert lights(found)["REQ-1"] == ("green", "red")
    assert lights(found)["REQ-2"] == ("green", "red")
    assert not recheck.holds(found, together)
    assert ledger.statuses()[0].facts["light"] == "red"
    assert (ledger.statuses()[0].state, ledger.statuses()[0].facts["forgotten"]) == ("verified", "green")


def test_another_model_without_the_facts_is_not_called_retrained(ledger: Ledger, models: Path) -> None:
    """Two persons are too few for an interval, and the ledger does not say how the base was made."""
    found, _ = recheck.recheck(ledger, str(models / "base"), POLICY)
    assert lights(found)["REQ-1"][1] != "green"


def test_a_request_whose_folder_is_gone_is_not_green(ledger: Ledger, models: Path) -> None:
    shutil.rmtree(ledger.path.parent / "REQ-1")
    found, together = recheck.recheck(ledger, str(models / "clean"), POLICY)
    assert lights(found)["REQ-1"] == ("green", "amber")
    assert found[0].now.why.startswith("its folder is gone")
    assert not recheck.holds(found, together)
    assert recheck.past(ledger, {"REQ-1": rows(*NAMES[:2])})[0].facts == tuple(measured_facts(rows(*NAMES[:2])))
    with pytest.raises(DataError, match="--rows-of: REQ-9"):
        recheck.recheck(ledger, str(models / "clean"), POLICY, {"REQ-9": rows()})


def test_few_persons_are_compared_with_the_base_again(ledger: Ledger, models: Path) -> None:
    """Rows in place of a folder: with the base they are measured as they were first, without it against other names."""
    shutil.rmtree(ledger.path.parent / "REQ-1")
    given, base = {"REQ-1": rows(*NAMES[:2])}, Engine.load(models / "base")
    facts, engine = measured_facts(given["REQ-1"]), Engine.load(models / "clean")
    for path, wanted in ((None, facts), (models / "base", compared_with(base, facts)), (models / "target", facts)):
        found, _ = recheck.recheck(ledger, str(models / "clean"), POLICY, given, path)
        assert found[0].now.value == pytest.approx(
            expose(engine, wanted).known.value
        )  # the target knows them by itself
    assert not any(fact.reference for fact in measured_facts(rows(), base=models / "base"))  # of six persons


@pytest.mark.parametrize("damage", ["other facts", "broken", "missing", "other rows given", "other key"])
def test_facts_that_are_not_those_of_the_request_are_not_green(ledger: Ledger, models: Path, damage: str) -> None:
    path, given = ledger.path.parent / "REQ-1" / facts_file.NAME, {}
    match damage:
        case "other facts":
            path.write_text(path.read_text().replace("Mill", "Till").replace("Larch", "March"))
        case "broken":
            path.write_text("{}")
        case "missing":
            path.unlink()
        case "other rows given":
            given = {"REQ-1": rows(NAMES[0])}
        case "other key":
            (ledger.path.parents[1] / "keys" / keys.ROWS).unlink()
    found = recheck.past(ledger, given)
    assert (found[0].facts, bool(found[0].why), bool(found[1].facts)) == ((), True, damage != "other key")


def test_the_command(ledger: Ledger, models: Path) -> None:
    folder = str(ledger.path.parent)
    shutil.rmtree(ledger.path.parent / "REQ-1")
    done = CliRunner().invoke(app, ["recheck", folder, "--model", str(models / "clean")])
    assert done.exit_code == 3, done.output
    found = [entry.facts["light"] for entry in ledger.entries()[-3:]]
    assert [line.split()[:4] for line in done.stdout.splitlines() if "REQ-" in line] == [
        ["REQ-1", "exported", "green", "amber"],
        ["REQ-2", "exported", "green", found[1]],
        ["REQ-3", "closed", "not", "known"],
    ]
    assert done.stdout.splitlines()[-1] == "3 requests; not all hold"
    done = CliRunner().invoke(app, ["recheck", folder, "--model", str(models / "target"), "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["holds"], found["requests"][1]["now"]["light"]) == (3, False, "red")
    for wrong in (
        ["nowhere", "--model", "x"],
        [folder, "--model", "nowhere"],
        [folder, "--model", "x", "--rows-of", "REQ-1"],
    ):
        done = CliRunner().invoke(app, ["recheck", *wrong])
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert len(ledger.entries()) == 16 + 3 + 3  # wrong input adds none


@pytest.mark.parametrize(
    ("now", "said", "result"),
    [
        ("green", "green", "ok"), ("red", "red", "ok"), ("amber", "amber", "ok"), ("green", "amber", "ok"),
        ("green", "not known", "ok"), ("red", "green", "failed"), ("red", "amber", "failed"), ("green", "red", "failed"),
        ("red", "not known", "failed"), ("amber", "green", "undecided"), ("amber", "red", "undecided"),
    ],
)  # fmt: skip
def test_an_amber_sample_neither_agrees_nor_contradicts(now: str, said: str, result: str) -> None:
    assert compared_lights(now, said) == result


def test_probes_agree_with_a_true_record_alone(ledger: Ledger, models: Path) -> None:
    """The record says that `clean` was retrained. A record that says so of the target is found."""
    given, key = rows(*NAMES[:2]), keys.rows_key()

    def probed(record: Path, model: str, **more: Any) -> Check:
        return verify_record(record, model=models / model, rows=given, key=key, **more)[-1]

    record = ledger.path.parent / "REQ-1" / evidence.NAME
    assert (probed(record, "clean").name, probed(record, "clean").result) == ("probes", "ok")
    assert (
        "4 facts, each asked in one wording, compared with the base: "
        in probed(record, "clean", base=models / "base").detail
    )
    assert probed(record, "target").result == "not checked"  # other files than the record's
    assert verify_record(record, model=models / "clean")[-1].result == "not checked"  # no rows
    light = {"light": "green", "value": 0.0}
    for said, result in (("green", "failed"), ("amber", "failed"), ("red", "ok")):
        lights = {name: {**light, "light": said} for name in ("forgotten", "kept", "resists")}
        folder = ledger.path.parents[1] / said
        folder.mkdir()
        made = statement(ledger, "REQ-1", given, "exact", models, "target", {"verdict": lights})
        false = evidence.write_record(folder, evidence.sign(made, keys.signing_key()))
        assert probed(false, "target").result == result
    policy = {"policy": evidence.policy_digest(POLICY.model_dump()), "verdict": lights}
    made = statement(ledger, "REQ-1", given, "exact", models, "target", policy)
    (ledger.path.parents[1] / "policy").mkdir()
    named = evidence.write_record(ledger.path.parents[1] / "policy", evidence.sign(made, keys.signing_key()))
    assert probed(named, "target").result == "ok"
    assert probed(named, "target", policy=POLICY.model_copy(update={"level": 0.01})).result == "not checked"


def test_verify_imports_torch_only_to_probe(ledger: Ledger, models: Path) -> None:
    code = (
        "import sys; from scopewise.erasure.verify import verify_record; "
        f"verify_record({str(ledger.path.parent / 'REQ-1')!r}, model={str(models / 'clean')!r}); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
