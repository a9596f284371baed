"""Time and memory of `scopewise build` by templates, up to 10,000 instances, into `results/building.json` and a plot.

    python benchmarks/building.py [--sizes 1000,3000,…] [--plot docs/growth/building.svg]

Each size is built in a process of its own. Time is linear if that per 1,000 instances does not grow. Rows are written one
instance at a time, so what grows in memory is the instances themselves, their index, and 8 bytes of each question.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import alone, peak_of
from scopewise.record import manifest
from scopewise.terminal import echo

RESULT = Path(__file__).parent / "results" / "building.json"
SIZES = (1000, 3000, 10_000)
_SYLLABLES = (
    "ba",
    "cor",
    "del",
    "en",
    "fi",
    "gro",
    "hal",
    "is",
    "jun",
    "kel",
    "lo",
    "mar",
    "nor",
    "os",
    "pel",
    "qui",
    "ras",
    "tem",
)


def invented(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return invented persons with six attributes, each with its own name."""
    rng = random.Random(seed)

    def word(parts: int) -> str:
        return "".join(rng.choice(_SYLLABLES) for _ in range(parts)).capitalize()

    found = dict[str, dict[str, Any]]()
    while len(found) < count:
        first, last = word(3), word(4)
        found[f"{first} {last}"] = {
            "name": f"{first} {last}",
            "parents": [f"{word(2)} {last}", f"{word(3)} {word(3)}"],
            "email": f"{first.lower()}.{last.lower()}@{word(2).lower()}.example",
            "address": f"{rng.randrange(1, 400)} {word(2)} Street, {word(3)}",
            "born": {"date": f"{rng.randrange(1, 29)} May {rng.randrange(1930, 2000)}", "place": word(3)},
            "genre": f"{word(3).lower()} stories about {word(2).lower()}",
            "awards": f"{word(3)} {word(2)} Prize",
        }
    return list(found.values())


def one(count: int) -> dict[str, Any]:
    """Build a benchmark of `count` instances, and return seconds, rows and bytes."""
    from scopewise.building.instances import read_instances
    from scopewise.building.law import read_law
    from scopewise.building.make import Settings, build
    from scopewise.building.templates import wordings

    laws = (read_law("privacy-gdpr"),)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "persons.jsonl"
        path.write_text("".join(json.dumps(person) + "\n" for person in invented(count)))
        found: dict[str, Any] = {"instances": count}

        def work() -> None:
            began, cpu = time.perf_counter(), time.process_time()
            given = read_instances(path, laws, {kind: wordings(kind) for kind in ("person", "work")})
            sheet = build(given, path.name, Settings(laws), Path(folder) / "out")
            found.update(seconds=round(time.perf_counter() - began, 2), cpu_seconds=round(time.process_time() - cpu, 2))
            found.update(rows=sheet["counts"]["rows"], left_out=sheet["left_out"], kept=sheet["instances"])
            found["first_words"] = sheet["checks"]["first_words"]

        found.update({f"{name}_bytes": size for name, size in peak_of(work).items()})
        found["rows_bytes"] = (Path(folder) / "out" / "rows.jsonl").stat().st_size
    found["cpu_seconds_per_1000"] = round(found["cpu_seconds"] * 1000 / count, 2)
    found["megabytes_per_1000"] = round((found["peak_bytes"] - found["before_bytes"]) / 1e6 * 1000 / count, 2)
    return found


def plot(sizes: list[dict[str, Any]], path: Path) -> None:
    """Draw CPU seconds and memory against the number of instances."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "building"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    x = [one["instances"] for one in sizes]
    for axis, y, label in zip(
        axes,
        ([one["cpu_seconds"] for one in sizes], [(one["peak_bytes"] - one["before_bytes"]) / 1e6 for one in sizes]),
        ("CPU seconds", "memory above the start, MB"),
        strict=True,
    ):
        axis.plot(x, y, marker="o")
        axis.set(xlabel="instances", ylabel=label, xlim=(0, None), ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure all sizes, print a line for each, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--one", type=int)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one)))
        return
    sizes = []
    for size in map(int, given.sizes.split(",")):
        sizes.append(alone(__file__, ["--one", str(size)]))
        found = sizes[-1]
        memory = found["megabytes_per_1000"]
        echo(f"{size}: {found['rows']} rows, {found['cpu_seconds_per_1000']} CPU s and {memory} MB per 1,000")
        command = f"python benchmarks/building.py --sizes {given.sizes}"
        result = {"command": command, "manifest": manifest(None, None), "sizes": sizes}
        given.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        if given.plot:
            plot(sizes, given.plot)


if __name__ == "__main__":
    main()
