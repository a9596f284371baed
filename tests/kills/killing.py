"""Kill small runs at random moments, go on with them, and compare what comes out with an undisturbed run's, to the last bit.

    python tests/kills/killing.py --kills 100            # about ten minutes on one core
    python tests/kills/killing.py --kills 20 --signal TERM --seed 3

Everything is imported once; each run is a fork, so that most of its time is work and not imports. A run is killed again and
again until it ends by itself; then the next one begins.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = [
    "model.tiny.width=32", "model.tiny.layers=2", "model.tiny.heads=2", "model.tiny.vocab_size=400",
    "finetune.num_train_epochs=3", "finetune.save_steps=3", "unlearn.num_train_epochs=0.5", "unlearn.save_steps=2",
    "evaluate.max_new_tokens=2", "evaluate.splits=[val]", "bench.methods=[ga_kl,memflex]",
]  # fmt: skip
"""A bench of every kind of stage: a base, target and oracle, a region, a method with a reference, one on a region."""

VOLATILE = {
    "measured", "compared",  # hashes of the stages' records, which hold seconds
    "seconds", "seconds_per_step", "step_seconds", "date", "cost", "origin", "manifest", "dir", "tokens_per_second",
    "flops_utilisation", "flops_ceiling_per_second", "peak_memory_bytes", "localization_seconds", "localization",
}  # fmt: skip
"""What says how long something took, when, and by what: never what came out."""

PATIENCE_SECONDS = 300.0


@dataclass
class Found:
    """What the kills did."""

    kills: int = 0
    runs: int = 0
    during: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)


def bench(folder: Path) -> list[str]:
    """Return the words of the bench on a folder."""
    settings = [*SETTINGS, f"run.dir={folder}"]
    return ["demo", "--resume", *(word for setting in settings for word in ("--set", setting))]


def forked(words: Sequence[str], log: Path) -> int:
    """Start a command of scopewise in a process of its own; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = ["scopewise", *words]
        from scopewise.cli import main

        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int, seconds: float) -> int | None:
    """Wait for a process for so long; return its exit code (minus the signal that ended it), None where it goes on."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(min(0.002, max(0.0, end - time.monotonic())))


def under_way(folder: Path) -> str:
    """Return which stage a run is in, as far as its folder tells."""
    partial = sorted(folder.rglob("*.partial"))
    if partial:
        return str(partial[0].relative_to(folder)).removesuffix(".partial")
    return "between stages" if (folder / "config.yaml").exists() else "beginning"


def content(folder: Path) -> dict[str, Any]:
    """Return what a run folder holds: file → hash of weights and text, or the document without what is volatile."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        text = path.read_bytes().replace(str(folder).encode(), b"RUN")
        if path.suffix == ".json":
            found[name] = _lasting(json.loads(text))
        elif path.suffix != ".md" and not path.name.endswith(
            ".lock"
        ):  # the table has seconds in it; its numbers are results.json's
            found[name] = hashlib.sha256(text).hexdigest()
    return found


def _lasting(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _lasting(value) for key, value in document.items() if key not in VOLATILE}
    return [_lasting(item) for item in document] if isinstance(document, list) else document


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Yield where two contents differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            if key not in a or key not in b:
                yield f"{where}/{key}: only in {'the killed' if key in b else 'the undisturbed'} run"
            else:
                yield from differences(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{where}[{i}]")
    elif a != b:
        yield f"{where}: {str(a)[:60]} undisturbed, {str(b)[:60]} killed"


def preload() -> None:
    """Import everything that a run needs, and take one thread: a fork inherits no others."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    torch.set_num_threads(1)
    from scopewise import registry

    for kind in ("methods", "localizers", "metrics"):
        for name in registry.table(kind):
            registry.lookup(kind, name)


def kill_runs(kills: int, seed: int, work: Path, sent: signal.Signals = signal.SIGKILL) -> Found:
    """Kill runs so often in all, at moments drawn evenly over an undisturbed run's time; compare each that ends.

    Raises:
        RuntimeError: the undisturbed run failed.
    """
    rng, found = random.Random(seed), Found()
    straight, begin = work / "straight", time.monotonic()
    code = ended(forked(bench(straight), work / "straight.log"), PATIENCE_SECONDS)
    if code != 0:
        raise RuntimeError(f"the undisturbed run ended with {code}: {(work / 'straight.log').read_text()[-2000:]}")
    whole = time.monotonic() - begin
    wanted = content(straight)
    while found.kills < kills:
        folder, log = work / f"run{found.runs}", work / f"run{found.runs}.log"
        while True:
            pid = forked(bench(folder), log)
            code = ended(pid, rng.uniform(0.0, whole) if found.kills < kills else PATIENCE_SECONDS)
            if code is None:
                found.during[under_way(folder)] += 1
                os.kill(pid, sent)
                code = ended(pid, PATIENCE_SECONDS)
                found.kills += 1
                if code == 0:  # it ended between the look and the signal
                    break
                continue
            break
        if code == 0:
            found.different += [f"run {found.runs}: {text}" for text in differences(wanted, content(folder))]
        else:
            found.different.append(f"run {found.runs} ended with {code}: {log.read_text()[-2000:]}")
        found.runs += 1
        shutil.rmtree(folder)
    return found


def main() -> int:
    """Kill, print what was found, and return 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    given = parser.parse_args()
    preload()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        found = kill_runs(given.kills, given.seed, Path(work).resolve(), signal.Signals[f"SIG{given.signal}"])
    for stage, count in found.during.most_common():
        print(f"{count:4} kills in {stage}")
    for text in found.different[:20]:
        print(text)
    print(
        f"{found.kills} kills, {found.runs} runs, {len(found.different)} differences, seed {given.seed}, "
        f"{time.monotonic() - begin:.0f} s"
    )
    return int(bool(found.different))


if __name__ == "__main__":
    sys.exit(main())
