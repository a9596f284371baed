"""How many tokens do the ability tasks forward, with prompts that begin alike joined and without?

    python benchmarks/shared_prompts.py MODEL --path ../shared/data/utility [--tasks mmlu:20:5 truthfulqa_mc2:100] [--out FILE]

Asks the tasks of lm-evaluation-harness for their requests, by the tokenizer and chat template of MODEL, and counts: each answer
with its own prompt, one prompt for all answers to a question, and, as `score_pairs` does it, one beginning for all questions
that share it. Nothing is forwarded. A task is NAME:QUESTIONS[:SHOTS]; MMLU takes so many questions of each subject.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scopewise.ability.measure import measure_ability
from scopewise.cli import quiet_libraries
from scopewise.config import AbilitySection
from scopewise.data.batch import Unit
from scopewise.files import write_json
from scopewise.models.engine import Engine
from scopewise.models.score import Pair, Scored, _units
from scopewise.record import manifest

TASKS = ("arc_challenge:100", "truthfulqa_mc2:100", "social_iqa:100", "mmlu:20:5")


class Counting(Engine):
    """An engine that counts the tokens of what it is asked to score."""

    tokens: dict[str, int]

    def score(self, pairs: Sequence[Pair], what: str = "score", **_: Any) -> list[Scored]:
        """Count, and return scores that are no scores."""
        unique = list(dict.fromkeys(pairs))
        by_prompt: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for prompt, answer in unique:
            by_prompt.setdefault(prompt, []).append(answer)
        for name, units in (
            ("alone", [Unit(prompt, (answer,)) for prompt, answer in unique]),
            ("by_question", [Unit(prompt, tuple(answers)) for prompt, answers in by_prompt.items()]),
            ("joined", _units(unique, None, self.max_tokens)),
        ):
            self.tokens[name] = self.tokens.get(name, 0) + sum(map(len, units))
        return [Scored((-1.0,) * len(answer), (False,) * len(answer)) for _, answer in pairs]


def main(words: Sequence[str] | None = None) -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--path", required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(words)
    quiet_libraries()
    loaded = Engine.load(given.model)
    found: dict[str, dict[str, int]] = {}
    for task in given.tasks:
        name, questions, *shots = task.split(":")
        engine = Counting(loaded.model, loaded.tokenizer)
        engine.tokens = {}
        settings = AbilitySection(
            tasks=(name,), path=given.path, limit={name: int(questions)}, shots={name: int(shots[0])} if shots else {}
        )
        measure_ability(engine, settings)
        found[task] = engine.tokens
    print("| task:questions:shots | each answer alone | one prompt a question | beginnings joined | times fewer |")
    print("|---|---:|---:|---:|---:|")
    for task, tokens in found.items():
        cells = " | ".join(f"{count:,}" for count in tokens.values())
        print(f"| {task} | {cells} | {tokens['by_question'] / tokens['joined']:.2f} |")
    if given.out is not None:
        write_json(given.out, {"manifest": manifest(None, None), "model": Path(given.model).name, "tokens": found})


if __name__ == "__main__":
    main()
