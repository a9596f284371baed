"""What do 1, 10 and 30 deletion requests in sequence do to a model? Each is made on the model that the one before left.

    python benchmarks/sequence.py [--kinds exact approximate] [--requests 30] [--out FILE]

Invented persons (three facts to forget and two to retain each) are taught to a small model. One person after the other asks
that the three facts be removed; `scopewise forget` does it, on the export of the request before. Those who have not asked, and
what is public of those who have, are the retain rows. After each request, on the model as it was exported:

    forgotten   exposure of all facts that were removed so far: 0 = chance, 1 = every true answer ranks first
    kept        share of answer tokens of the rows that must stay that are lost, relative to the first model
    drift       KL from the first model, nats per token of general text

Writes JSON with its origin; a kind that the JSON has from before, with the same arguments, is kept. `docs/make_sequence.py`
makes table and plot from it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from calibration import fit, persons
from drift import drift
from scopewise.cli import quiet_libraries
from scopewise.config import TinyConfig
from scopewise.data.facts import Fact, facts_of
from scopewise.data.rows import RETAIN, Row
from scopewise.erasure.keep import keep
from scopewise.erasure.request import Lineage, Request
from scopewise.erasure.run import forget
from scopewise.erasure.setup import Options
from scopewise.exposure import expose
from scopewise.files import write_json
from scopewise.models.engine import Engine
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.record import manifest

ANSWERS, EPOCHS, RATE = 39, 40, 3e-3
TAUGHT = (f"finetune.num_train_epochs={1.5 * EPOCHS:g}", f"finetune.learning_rate={RATE}", "finetune.batch_size=32")
"""How a model is retrained: as the first one was taught, but for longer, so that one attempt is enough."""


def rows_of(count: int) -> tuple[list[Row], list[Row]]:
    """Return private and public rows; wrong answers are those of further persons, so that only the fact tells them apart."""
    private, public = persons(count + ANSWERS)
    taught = set(list(dict.fromkeys(row.instance for row in private))[:count])
    wrong: dict[str, list[str]] = {}
    for row in private:
        if row.instance not in taught:
            wrong.setdefault(row.attribute, []).append(row.answer)
    own = [replace(row, perturbed=tuple(wrong[row.attribute])) for row in private if row.instance in taught]
    return own, [row for row in public if row.instance in taught]


def sequence(kind: Any, count: int, private: list[Row], public: list[Row], work: Path) -> list[dict[str, Any]]:
    """Make one request after the other, and return the figures after each."""
    names = list(dict.fromkeys(row.instance for row in private))
    first, model, found = Engine.load(work / "target"), work / "target", []
    facts: list[Fact] = []
    for number in range(1, count + 1):
        own = [row for row in private if row.instance == names[number - 1]]
        gone = set(names[:number])
        stay = [*(replace(row, scope=RETAIN) for row in private if row.instance not in gone), *public]
        rows, now = (*own, *stay), datetime.now(UTC)
        request = Request(f"REQ-{number}", "gdpr", now, None, None, Lineage(), rows, {}, Path("sequence"))
        begin = time.process_time()
        options = Options(model=str(model), base=str(work / "base"), kind=kind, changes=TAUGHT, attacks=("question",))
        done = forget(request, options, work / kind / request.id, tell=lambda line: print(line, flush=True))
        seconds = time.process_time() - begin
        if done.exported is not None:  # None: what others were taught afterwards had removed it already
            model = done.exported
        facts += facts_of(own, stay, answers=20, names=3)
        engine = Engine.load(model)
        exposure, lost = expose(engine, facts), keep(engine, first, stay)
        found.append(
            {
                "requests": number,
                "plan": done.plan.kind,
                "forgotten": interval(exposure.known),
                "known_facts": exposure.count,
                "facts": len(facts),
                "kept": interval(lost.loss),
                "drift": drift(first, engine),
                "lights": None if done.verdict is None else {k: v["light"] for k, v in done.verdict.document().items()},
                "earlier_red": sum(one["light"] == "red" for one in done.earlier),
                "cpu_seconds": seconds,
            }
        )
        print(found[-1], flush=True)
    return found


def interval(found: Any) -> dict[str, float | None]:
    """Return a value with its interval."""
    return {"value": found.value, "low": found.low, "high": found.high}


def before(out: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the sequences that a file already has, if it was made with the same arguments."""
    old = json.loads(Path(out).read_text()) if Path(out).exists() else {}
    return old.get("sequences", {}) if old.get("arguments") == arguments else {}


def main(arguments: Sequence[str] | None = None) -> None:
    """Teach the first model, run a sequence of each kind, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--kinds", nargs="*", default=["exact", "approximate"])
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--persons", type=int, default=40, help="those above --requests never ask")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "sequence.json"))
    given = parser.parse_args(arguments)
    quiet_libraries()
    torch.manual_seed(0)
    private, public = rows_of(given.persons)
    shape = TinyConfig(vocab_size=900, width=given.width, layers=2, heads=2, context=256)
    base, tokenizer = build_tiny(
        [*tokenizer_texts([*private, *public]), *(a for row in private[:3] for a in row.perturbed)], shape, 0
    )
    document: dict[str, Any] = {
        "manifest": manifest(None, None),
        "arguments": {"requests": given.requests, "persons": given.persons, "width": given.width},
        "sequences": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        target = fit(base, tokenizer, [*private, *public], EPOCHS, 0, RATE)
        for name, model in (("base", base), ("target", target)):
            for part in (model, tokenizer):
                part.save_pretrained(work / name)
        for kind in given.kinds:
            found = sequence(kind, given.requests, private, public, work)
            document["sequences"] |= before(given.out, document["arguments"]) | {kind: found}
            write_json(given.out, document)


if __name__ == "__main__":
    main()
