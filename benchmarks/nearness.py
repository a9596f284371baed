"""How near are the forget rows of val, or held-out ones, to the train rows that a method sees? By words, without a model.

    python benchmarks/nearness.py ../shared/data/knowundo_privacy [--out FILE]

A row is near if one train row has half of the rare words of its answer (words of at most 20 forget rows). `choose.py` holds out
train rows to stand for val, so they should be as near as val's. JSON in `--out`.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from choose import rows_to_choose_on
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, TRAIN, VAL, Row
from scopewise.files import write_json
from scopewise.record import manifest

RARE = 20
RESULT = Path(__file__).parent / "results" / "nearness.json"


def near(rows: Sequence[Row], others: Sequence[Row], rare: set[str]) -> float:
    """Return the share of rows of which another row has half of the rare words."""
    seen = [_words(row) for row in others]
    own = [_words(row) & rare for row in rows]
    return sum(any(2 * len(words & one) >= len(words) > 0 for one in seen) for words in own) / len(rows)


def measure(rows: Sequence[Row]) -> dict[str, Any]:
    """Return for val, for the held-out rows and for a random fifth: how many rows, and the share that is near."""
    forget = [row for row in rows if row.scope == FORGET]
    counts = Counter(word for row in forget for word in _words(row))
    rare = {word for word, count in counts.items() if count <= RARE}
    train = [row for row in forget if row.split == TRAIN]
    drawn = set(random.Random(0).sample(range(len(train)), len(train) // 5))
    held = {
        "val": [row for row in forget if row.split != TRAIN] + train,
        "last fifth of each person": [row for row in rows_to_choose_on(rows) if row.scope == FORGET],
        "random fifth": [replace(row, split=VAL if i in drawn else TRAIN) for i, row in enumerate(train)],
    }
    found = {}
    for name, split in held.items():
        out, left = ([row for row in split if (row.split == TRAIN) == seen] for seen in (False, True))
        found[name] = {"rows": len(out), "near": round(near(out, left, rare), 4)}
    return found


def _words(row: Row) -> set[str]:
    return set(re.findall(r"\w+", row.answer.lower()))


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    found = measure(load_benchmark("knowundo", given.data, "privacy").rows)
    write_json(given.out, {"manifest": manifest(None, None), "rows": found})
    for name, one in found.items():
        print(f"{name}: {one['rows']} rows, {one['near']:.1%} near")


if __name__ == "__main__":
    main()
