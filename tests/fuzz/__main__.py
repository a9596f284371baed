"""`python -m tests.fuzz`: give bad inputs to the commands, and count what each family's were answered with."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    COLUMNS="120",
    NO_COLOR="1",
)

from .command import Done, preload
from .families import FAMILIES
from .ground import Ground
from .inputs import Family, Input
from .judge import FAULTS, contents, faults
from .put import put, undo


def main() -> int:
    """Return 0 where every input was refused as it should be, 1 where one was not."""
    asked = _arguments()
    chosen = [FAMILIES[name] for name in asked.family or FAMILIES]
    again = json.loads(asked.replay.read_text()) if asked.replay else None
    began = time.monotonic()
    preload()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        Path(place).chmod(0o755)  # for the inputs that are run without root's rights
        ground = Ground(Path(place))
        print(f"ground: {time.monotonic() - began:.0f} s")
        failed: list[dict[str, Any]] = []
        counts: dict[str, Counter[str]] = {}
        for family in chosen if again is None else [FAMILIES[name] for name in {case["family"]: 0 for case in again}]:
            ground.restore()  # inputs are made from it
            inputs = list(enumerate(family.inputs(ground.here, asked.seed, asked.count)))
            if again is not None:
                wanted = {case["index"]: case for case in again if case["family"] == family.name}
                most = max(wanted) + 1
                inputs = list(enumerate(family.inputs(ground.here, next(iter(wanted.values()))["seed"], most)))
                inputs = [(index, one) for index, one in inputs if index in wanted]
            elif not asked.no_good:
                failed += _good(family, ground)
            counts[family.name] = _tried(family, inputs, ground, asked, failed)
        _print(counts)
        print(
            f"{sum(c['inputs'] for c in counts.values())} inputs, {time.monotonic() - began:.0f} s, seed {asked.seed}"
        )
    if asked.failures and failed:
        asked.failures.write_text(json.dumps(failed, indent=1))
        print(f"{len(failed)} failed: {asked.failures}; run them again with --replay {asked.failures}")
    return int(bool(failed))


def _tried(
    family: Family, inputs: list[tuple[int, Input]], ground: Ground, asked: argparse.Namespace, failed: list[Any]
) -> Counter[str]:
    counts: Counter[str] = Counter(inputs=len(inputs))
    for index, given in inputs:
        done, wrong, changed = try_one(given, ground)
        counts.update(wrong or ["refused"])
        if wrong:
            case = {"family": family.name, "index": index, "seed": asked.seed, "wrong": given.wrong, "faults": wrong}
            case |= {"arguments": [ascii(a)[1:-1][:300] for a in given.arguments], "code": done.code}
            case |= {
                "changed": changed,
                "seconds": round(done.seconds, 2),
                "err": done.err[-1500:].decode(errors="replace"),
            }
            failed.append(case)
        if wrong or asked.verbose:
            print(f"{family.name} {index}: {', '.join(wrong) or 'refused'}: {given.wrong!a:.150}")
            if asked.verbose:
                print(f"    {' '.join(ascii(a)[1:-1] for a in given.arguments)[:300]}")
                print(f"    {done.err[-600:]!r}")
            sys.stdout.flush()
    return counts


def try_one(given: Input, ground: Ground) -> tuple[Done, list[str], list[str]]:
    """Give one input to its command. Returns what it did, the names of what is wrong with that, and paths that it changed."""
    ground.restore()
    put(given, ground.here)
    before = contents(ground.here)
    try:
        done = ground.run(given.arguments, as_nobody=given.as_nobody, largest_file=given.largest_file)
        after = contents(ground.here)
        changed = [path for path in {**before, **after} if before.get(path) != after.get(path)]
        return done, faults(given, done, before, after), changed
    finally:
        undo(given, ground.here)


def _good(family: Family, ground: Ground) -> list[dict[str, Any]]:
    """Return which of a family's commands fail on a ground that nothing is wrong with: their refusals would say nothing."""
    failed = []
    for arguments in family.good:
        ground.restore()
        done = ground.run(arguments)
        if done.code != 0:
            err = done.err[-1500:].decode(errors="replace")
            failed.append({"family": family.name, "good": arguments, "code": done.code, "err": err})
            print(f"{family.name}: {' '.join(arguments)}: refused, with nothing wrong\n{err}")
    return failed


def _print(counts: dict[str, Counter[str]]) -> None:
    columns = ("inputs", "refused", *FAULTS)
    total: Counter[str] = sum(counts.values(), Counter())
    print(f"{'family':<16}" + "".join(f"{name:>10}" for name in columns))
    for name, count in {**counts, "all": total}.items():
        print(f"{name:<16}" + "".join(f"{count[column]:>10}" for column in columns))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=80, help="inputs of each family")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="this family alone; repeatable")
    parser.add_argument("--failures", type=Path, help="file to write what failed to")
    parser.add_argument("--replay", type=Path, help="try again what a file of --failures holds")
    parser.add_argument("--no-good", action="store_true", help="do not first try the commands with nothing wrong")
    parser.add_argument("--verbose", action="store_true", help="print every input and what was said to it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
