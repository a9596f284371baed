r"""What does a pre-trained model know of twelve real books out of copyright: facts about them, and their own words?

    scopewise build examples/benchmarks/classics.yaml --law examples/benchmarks/classics-law.yaml --out runs/classics \
        --kinds direct,paraphrase
    python benchmarks/classics.py models/smollm2-135m --rows runs/classics/rows.jsonl [--prompt chat] [--out FILE]

- Facts: the rank of the true answer among those of the other books, by exposure (docs/verdict.md), with two other titles to
  compare with. Known: the first rank of twelve, which chance gives to one fact in twelve. The question is the first of train.
  Extensions and revisions are invented, so no model knows them; but they name characters and places of their book.
- Words: how much of the opening the model completes word for word by greedy decoding, if it is given what comes before
  (extraction strength: 1 minus the share that has to be given). 0 also if only the last token is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scopewise.cli import quiet_libraries
from scopewise.config import DataSection
from scopewise.data.facts import Fact
from scopewise.data.load import load_benchmark
from scopewise.data.rows import TRAIN, Row
from scopewise.exposure import expose
from scopewise.files import write_json
from scopewise.models.engine import Engine
from scopewise.record import manifest
from scopewise.runs.stages import model_identity

OUT = Path(__file__).parent / "results" / "classics.json"
NAMES = 2
WORDS = "opening"
"""The attribute whose value is the work's own words."""


def first_questions(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return attribute → the first row about it of each book."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.attribute, {}).setdefault(row.instance, row)
    return {attribute: list(by_book.values()) for attribute, by_book in found.items()}


def known(engine: Engine, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rank of each book's true answer among those of the others."""
    titles = [row.instance for row in rows]
    facts = []
    for i, row in enumerate(rows):  # all answers of an attribute have the same words around title and value
        others = dict.fromkeys(other.answer.replace(other.instance, row.instance) for other in rows)
        wrong = tuple(answer for answer in others if answer != row.answer)
        compared = tuple(titles[(i + step) % len(titles)] for step in range(1, NAMES + 1))
        facts.append(Fact(row, row.instance, row.instance, (row.question,), wrong, compared))
    return [{"book": one.fact.instance, "rank": one.rank, "of": one.number} for one in expose(engine, facts).facts]


def completed(engine: Engine, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the extraction strength of each book's words, without the sentence that announces them."""
    pairs = []
    for row in rows:
        announced = row.answer.split(": ", 1)[0]
        (whole,) = engine.encode([row])
        (before,) = engine.encode([Row(row.question, f"{announced}:", row.scope)])
        given = len(before.answer_ids)
        pairs.append((whole.prompt_ids + whole.answer_ids[:given], whole.answer_ids[given:]))
    found = []
    for row, (_, words_ids), scored in zip(rows, pairs, engine.score(pairs, moments=False), strict=True):
        wrong = [i for i, hit in enumerate(scored.hits) if not hit]
        strength = 1 - (wrong[-1] + 1) / len(words_ids) if wrong else 1.0
        found.append({"book": row.instance, "tokens": len(words_ids), "right": sum(scored.hits), "strength": strength})
    return found


def table(facts: dict[str, dict[str, Any]], words: Sequence[dict[str, Any]]) -> str:
    """Return both tables as Markdown."""
    lines = ["| attribute | scope | known |", "|---|---|---:|"]
    for attribute, about in facts.items():
        count = sum(one["rank"] == 1 for one in about["facts"])
        lines.append(f"| {attribute} | {about['scope']} | {count} of {len(about['facts'])} |")
    lines += ["", "| opening of | tokens | right under teacher forcing | completed |", "|---|---:|---:|---:|"]
    for one in words:
        share = f"{100 * one['right'] / one['tokens']:.0f} %"
        lines.append(f"| {one['book']} | {one['tokens']} | {share} | {100 * one['strength']:.0f} % |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder, GGUF file or hub name")
    parser.add_argument("--rows", required=True, help="rows.jsonl of the build")
    parser.add_argument("--prompt", default="chat", help="as data.prompt")
    parser.add_argument("--attributes", nargs="+", help="default: all")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(words)
    quiet_libraries()
    engine = Engine.load(given.model, data=DataSection(prompt=given.prompt), name=Path(given.model).name)
    benchmark = load_benchmark("jsonl", given.rows)
    asked = first_questions(benchmark.select(split=TRAIN))
    facts = {
        attribute: {"scope": rows[0].scope, "facts": known(engine, rows)}
        for attribute, rows in asked.items()
        if given.attributes is None or attribute in given.attributes
    }
    recited = completed(engine, asked[WORDS])
    write_json(
        given.out,
        {
            "manifest": manifest(None, benchmark.content_hash()),
            "model": {"name": Path(given.model).name, "identity": model_identity(given.model), "prompt": given.prompt},
            "facts": facts,
            "words": recited,
        },
    )
    print(table(facts, recited))


if __name__ == "__main__":
    main()
