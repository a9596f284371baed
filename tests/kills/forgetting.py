"""Kill `scopewise forget` at random moments, go on with `--resume`, and check that nothing is lost.

    python tests/kills/forgetting.py FOLDER --kills 30

A process that has imported everything forks for each command, so that most of its time is work. A request is killed again and
again until it ends by itself; then the next one begins, in the same ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

from kills.killing import PATIENCE_SECONDS, ended, forked, preload  # noqa: E402

WAY = ["received", "known", "planned", "unlearned", "verified", "exported"]
SETTINGS = ("finetune.learning_rate=0.01", "finetune.num_train_epochs=20", "finetune.batch_size=32")


def main() -> int:
    """Kill, and print for each request how it ended and what `verify` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    work = given.folder.resolve()
    os.environ["SCOPEWISE_KEYS"] = str(work / "keys")
    preload()
    from asked import rows, teach, untaught
    from scopewise.erasure.ledger import Ledger
    from scopewise.erasure.verify import verify_record

    teach(*untaught(work / "base"), rows(), work / "target", 100)
    texts = [{"question": r.question, "answer": r.answer, "scope": r.scope, "instance": r.instance,
              "attribute": r.attribute, "perturbed": list(r.perturbed)} for r in rows()]  # fmt: skip
    (work / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    options = ["--model", str(work / "target"), "--base", str(work / "base"), "--attack", "question", "--resume"]
    options += [word for setting in SETTINGS for word in ("--set", setting)]
    rng, kills, number, problems = random.Random(given.seed), 0, 0, list[str]()
    whole, ledger = 20.0, Ledger(work / "forgotten")
    while number == 0 or kills < given.kills:
        id, begin, killed = f"REQ-{number}", time.monotonic(), 0
        request = work / f"{id}.jsonl"
        request.write_text((work / "rows.jsonl").read_text())
        words = ["forget", str(request), "--out", str(work / "forgotten" / id), *options]
        while True:
            last = number == 0 or kills >= given.kills  # the first one is not disturbed: it says how long one takes
            pid = forked(words, work / f"{id}.log")
            code = ended(pid, PATIENCE_SECONDS if last else rng.uniform(0.0, whole))
            if code is not None:
                break
            os.kill(pid, signal.SIGKILL)
            ended(pid, PATIENCE_SECONDS)
            kills, killed = kills + 1, killed + 1
            ledger.entries()  # raises where the chain is broken
        whole = time.monotonic() - begin if number == 0 else whole
        checks = {check.name: check.result for check in verify_record(work / "forgotten" / id)}
        states = [entry.state for entry in ledger.entries() if entry.request == id]
        if code not in (0, 3) or [checks[name] for name in ("signature", "files", "ledger")] != ["ok"] * 3:
            problems.append(f"{id} ended with {code}: {checks} {(work / f'{id}.log').read_text()[-1500:]}")
        if [state for state in states if state != "closed"] != WAY:
            problems.append(f"{id}: states {states}")
        if not (work / "forgotten" / id / "record.html").exists():
            problems.append(f"{id}: no page")
        print(f"{id}: {killed} kills, exit code {code}, {len(states)} entries")
        number += 1
    held = {status.request for status in ledger.statuses()}
    if held != {f"REQ-{i}" for i in range(number)}:
        problems.append(f"the ledger has {sorted(held)}")
    print("\n".join(problems))
    print(f"{kills} kills, {number} requests, {len(problems)} problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
