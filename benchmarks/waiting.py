"""What do threads that wait cost, on an idle machine and on a busy one?

    python benchmarks/waiting.py [--busy 0 3] [--rounds 5] [--steps 6] [--spins 10000] [--out FILE]

Trains a Llama of random weights (6 layers, width 256) for some steps in a process of its own: as OpenMP waits by default, with
as many turns of its waiting loop as each of `--spins` says (the command sets 10,000; GNU's OpenMP has 300,000), threads that
sleep at once (`OMP_WAIT_POLICY=passive`), and one thread. Beside it run as many processes that do nothing but count as
`--busy` says. The ways take turns. Median seconds of a step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NAMED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


def step_seconds(steps: int) -> float:
    """Return the median seconds of a training step in this process, after one that does not count."""
    import torch

    from shapes import SHAPES, random_model

    model = random_model(SHAPES["small"], torch.float32, torch.device("cpu")).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.randint(3, SHAPES["small"].vocab, (16, 48), generator=torch.Generator().manual_seed(0))
    taken = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def ways(spins: Sequence[int]) -> dict[str, dict[str, str]]:
    """Return the ways to wait, and the environment of each."""
    counts = {f"{count:,} spins": {"GOMP_SPINCOUNT": str(count)} for count in spins}
    return {"default": {}, **counts, "asleep": {"OMP_WAIT_POLICY": "passive"}, "one thread": {"OMP_NUM_THREADS": "1"}}


def measure(busy: int, rounds: int, steps: int, spins: Sequence[int]) -> dict[str, float]:
    """Return the seconds of each way, beside busy processes."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    found: dict[str, list[float]] = {name: [] for name in ways(spins)}
    clean = {key: value for key, value in os.environ.items() if key not in NAMED}
    try:
        for _ in range(rounds):
            for name, own in ways(spins).items():
                command = [sys.executable, __file__, "--one", str(steps)]
                done = subprocess.run(command, env=clean | own, capture_output=True, text=True, check=True)
                found[name].append(float(done.stdout))
    finally:
        for other in others:
            other.kill()
    return {name: statistics.median(values) for name, values in found.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 3])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--spins", type=int, nargs="+", default=[10_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(words)
    if given.one is not None:
        print(step_seconds(given.one))
        return
    from scopewise.files import write_json
    from scopewise.record import manifest

    found = {busy: measure(busy, given.rounds, given.steps, given.spins) for busy in given.busy}
    if given.out is not None:
        write_json(given.out, {"manifest": manifest(None, None), "cores": os.cpu_count(), "busy": found})
    names = list(ways(given.spins))
    print(f"| busy processes beside it | {' | '.join(names)} |\n|---:|{'---:|' * len(names)}")
    for busy, seconds in found.items():
        print(f"| {busy} | {' | '.join(f'{seconds[name]:.3f} s' for name in names)} |")


if __name__ == "__main__":
    main()
