"""Several requests in one training, and one request after the other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asked import NAMES, request, rows, teach, untaught
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.erasure import evidence, keys
from scopewise.erasure.ledger import Ledger
from scopewise.erasure.recheck import past, regress, trained_without
from scopewise.erasure.request import Lineage, union
from scopewise.erasure.run import forget
from scopewise.erasure.setup import Options
from scopewise.erasure.verdict import read_policy
from scopewise.erasure.verify import verify_record
from scopewise.errors import DataError
from scopewise.models.engine import Engine

TAUGHT = ("finetune.learning_rate=0.01", "finetune.num_train_epochs=60", "finetune.batch_size=32")


@pytest.fixture(autouse=True)
def own_keys(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPEWISE_KEYS", str(tmp_path_factory.mktemp("keys")))


def test_a_union_forgets_what_any_asks_to_forget() -> None:
    one, two = rows(NAMES[0]), rows(NAMES[1])
    theirs = [replace(row, scope=RETAIN) for row in two[:1]]
    found = union([request([*one, *theirs], "REQ-1"), request([*two, *one[2:]], "REQ-2")])
    assert found.id == "REQ-1-and-1-more"
    assert [row for row in found.rows if row.scope == FORGET] == [*one[:2], *two[:2]]
    assert [row for row in found.rows if row.scope == RETAIN] == [*one[2:], *two[2:]]
    assert union([request(one)]) == request(one)


def test_requests_that_do_not_go_together_are_one_sentence() -> None:
    one = request(rows(), "REQ-1")
    with pytest.raises(DataError, match="REQ-1: id 'REQ-1'.*its own id"):
        union([one, one])
    with pytest.raises(DataError, match="REQ-2: model other.*command of their own"):
        union([one, replace(request(rows(), "REQ-2"), model=Lineage(path="other"))])
    with pytest.raises(DataError, match="at least one"):
        union([])


@pytest.mark.slow
def test_several_are_carried_out_in_one_training_and_checked_by_the_next(tmp_path: Path) -> None:
    """Two requests about persons whom the model knows, one about a stranger; then another, on the model that was left."""
    base = untaught(tmp_path / "base")
    teach(*base, rows(), tmp_path / "target", 120)
    public = [row for row in rows() if row.scope == RETAIN]
    others = [replace(row, scope=RETAIN) for row in rows(*NAMES[4:]) if row.scope == FORGET]
    stranger = [Row("Where does Gus Lorn live?", "At 77 Larch Lane in Alder.", FORGET, instance="Gus Lorn",
                    attribute="address", perturbed=rows()[0].perturbed)]  # fmt: skip
    private = [row for row in rows() if row.scope == FORGET]
    asked = {"REQ-1": private[:4], "REQ-2": private[4:8], "REQ-3": stranger}
    requests = [request([*own, *public, *others], id) for id, own in asked.items()]
    options = Options(
        model=str(tmp_path / "target"), base=str(tmp_path / "base"), changes=TAUGHT, attacks=("question",)
    )
    out = tmp_path / "forgotten" / "several"
    found = forget(requests, options, out)
    assert found.plan.kind == "exact"
    assert found.record is None
    assert {id: one.plan.kind for id, one in found.parts.items()} == {
        "REQ-1": "exact",
        "REQ-2": "exact",
        "REQ-3": "nothing",
    }
    assert found.document()["requests"]["REQ-1"]["verdict"]["forgotten"]["light"] != "red"
    ledger = Ledger(tmp_path / "forgotten")
    assert [status.request for status in ledger.past()] == sorted(asked)
    key = keys.rows_key()
    for one in requests:
        record = found.parts[one.id].record
        assert record is not None
        checks = {check.name: check.result for check in verify_record(record, rows=one.rows, key=key)}
        wanted = dict.fromkeys(("signature", "page", "files", "ledger", "rows", "probes"), "ok") | {
            "signer": "not checked"
        }
        if one.id == "REQ-3":  # its record is about the model as it was, which lies elsewhere
            checks |= {
                check.name: check.result
                for check in verify_record(record, model=tmp_path / "target", rows=one.rows, key=key)
            }
        assert checks == wanted, one.id
    text = json.dumps(evidence.read_record(found.parts["REQ-1"].record.read_bytes(), "record"))  # type: ignore[union-attr]
    assert "for 2 requests together" in text
    again = forget(requests, options, out, resume=True)
    assert again.document() == found.document()
    assert len(ledger.entries()) == len(Ledger(tmp_path / "forgotten").entries())

    # A later request on the model that was left measures the earlier ones too.
    later = request([*others, *public], "REQ-4")
    later = replace(later, rows=tuple(replace(row, scope=FORGET) if row in others else row for row in later.rows))
    assert found.exported is not None
    options = replace(options, model=str(found.exported))
    last = forget(later, options, tmp_path / "forgotten" / "REQ-4")
    assert sorted(one["request"] for one in last.earlier) == ["REQ-1", "REQ-2"]
    assert last.exported is not None
    model = evidence.digest_files(evidence.digest_folder(last.exported))
    notes = [entry for entry in ledger.entries() if entry.request == "REQ-1" and entry.digest == model]
    assert [(entry.state, entry.facts["exact"]) for entry in notes] == [("verified", True)]
    assert trained_without(ledger, "REQ-2", model)
    config = json.loads((last.exported / "config.json").read_text())
    assert config["scopewise_requests"] == ["REQ-1", "REQ-2", "REQ-1-and-1-more", "REQ-4"]

    # On the first model, all that was removed is back, and that is said.
    before = evidence.digest_folder(tmp_path / "target")
    engine = Engine.load(tmp_path / "target")
    back: Any = regress(engine, ledger, read_policy(), [], own=["REQ-4"], ancestors=[], before=before, retrained=False)
    assert {one["request"]: one["light"] for one in back} == {"REQ-1": "red", "REQ-2": "red", "REQ-3": "green"}
    assert {one.status.request for one in past(ledger)} == {*asked, "REQ-4"}
