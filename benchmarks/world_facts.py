"""Which facts of the benchmark `world_facts` does a pre-trained model know? One forward of each answer; no training.

    python benchmarks/world_facts.py --model models/smollm2-135m     # about ten minutes on one core

- Facts of the attributes that are forgotten, of all 40 instances, neighbours included: by exposure, the rank of the true answer
  among 20 wrong ones of the same kind, compared with what the model says of two other instances. Known: the first rank, which
  chance gives to one fact in 21.
- Facts of the attributes that are kept have few values (continents, forms of works): the rank of the true answer among the
  benchmark's other values, by its likelihood for its length. Known: the first rank.

Questions are those of train, in the model's chat template.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scopewise.config import DataSection
from scopewise.data.facts import LEAST_ANSWERS, Fact, facts_of
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, TRAIN, Row
from scopewise.data.world_facts import read_facts
from scopewise.exposure import expose
from scopewise.files import write_json
from scopewise.models.engine import Engine
from scopewise.record import manifest
from scopewise.runs.stages import model_identity
from scopewise.terminal import echo

OUT = Path(__file__).parent / "results" / "world_facts.json"
NAMES = 2


@dataclass(frozen=True)
class Known:
    """Where the true answer of one row ranks.

    Attributes:
        row: The row.
        kind: `countries`, `works` or `scientists`.
        rank: 1 = the likeliest.
        number: How many answers are compared, with the true one.
    """

    row: Row
    kind: str
    rank: int
    number: int

    def document(self) -> dict[str, Any]:
        """Return it for the results."""
        what = {
            "kind": self.kind,
            "instance": self.row.instance,
            "attribute": self.row.attribute,
            "scope": self.row.scope,
        }
        return {**what, "rank": self.rank, "number": self.number, "known": self.rank == 1}


def known_facts(engine: Engine, kind: str, instances: int | None = None) -> list[Known]:
    """Rank the true answers of all train rows of a kind, or of its first few instances."""
    asked = read_facts()[kind]["attributes"]
    rows = load_benchmark("world_facts", None, kind).select(split=TRAIN)
    names = list(dict.fromkeys(row.instance for row in rows))[:instances]
    forgotten = [row for row in rows if asked[row.attribute]["scope"] == FORGET]
    kept = [row for row in rows if asked[row.attribute]["scope"] != FORGET]
    exposed = facts_of(forgotten, kept, answers=LEAST_ANSWERS, names=NAMES)
    options = [Fact(row, row.instance, row.instance, (row.question,), row.perturbed, ()) for row in kept]
    chosen = [fact for fact in (*exposed, *options) if fact.instance in names]
    return [Known(ranked.fact.row, kind, ranked.rank, ranked.number) for ranked in expose(engine, chosen).facts]


def table(found: Iterable[Known]) -> str:
    """Return how many facts of each attribute are known, as Markdown."""
    counts: dict[tuple[str, str], list[Known]] = {}
    for one in found:
        counts.setdefault((one.kind, one.row.attribute), []).append(one)
    lines = ["| kind | attribute | answers compared | known |", "|---|---|---:|---:|"]
    for (kind, attribute), ones in counts.items():
        known = sum(one.rank == 1 for one in ones)
        lines.append(f"| {kind} | {attribute} | {ones[0].number} | {known} of {len(ones)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure a model, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/smollm2-135m", help="folder, GGUF file or hub name")
    parser.add_argument("--prompt", default="chat", help="as data.prompt")
    parser.add_argument("--instances", type=int, help="only the first few of each kind, to try it")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    engine = Engine.load(given.model, data=DataSection(prompt=given.prompt), name=Path(given.model).name)
    begin = time.perf_counter()
    found = [one for kind in ("countries", "works", "scientists") for one in known_facts(engine, kind, given.instances)]
    rows = load_benchmark("world_facts")
    document = {
        "manifest": manifest(None, rows.content_hash()),
        "model": {"path": given.model, "identity": model_identity(given.model), "prompt": given.prompt},
        "seconds": round(time.perf_counter() - begin, 1),
        "facts": [one.document() for one in found],
    }
    write_json(given.out, document)
    echo(table(found))


if __name__ == "__main__":
    main()
