"""Make the built-in benchmark: `rows.jsonl` and `general.jsonl`, from the texts in `material.yaml`.

    python tools/make_builtin.py           # write both files to `src/scopewise/data/builtin`
    python tools/make_builtin.py --check   # exit 1 if the shipped files differ

The script labels each text with its scope and legal basis, checks the whole, and shuffles it with a fixed seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import yaml

from scopewise.terminal import echo

SEED = 2407
BUILTIN = Path(__file__).resolve().parents[1] / "src" / "scopewise" / "data" / "builtin"

FORGET, RETAIN = "forget", "retain"
SPLITS = ("train", "val")

_ERASE_CCPA = (FORGET, "CCPA right to deletion (Cal. Civ. Code §1798.105)")
_PUBLIC_CCPA = (RETAIN, "publicly available information (Cal. Civ. Code §1798.140(v)(2))")
_ERASE_GDPR = (FORGET, "GDPR Art. 17 right to erasure")
_MINIMISE_GDPR = (FORGET, "GDPR Art. 5(1)(c) data minimisation")
_PUBLIC_GDPR = (RETAIN, "GDPR Art. 17(3)(a) and Art. 85 freedom of expression and information")
_DERIVATIVE = (FORGET, "17 USC §106(2) derivative works")
_FAIR_USE = (RETAIN, "17 USC §107 fair use")
_EXPIRED = (RETAIN, "17 USC §302 and §304, term of protection expired")

LEGAL_BASIS: dict[str, dict[str, tuple[str, str]]] = {
    "CCPA": {
        **dict.fromkeys(("parents", "email", "address"), _ERASE_CCPA),
        **dict.fromkeys(("name", "genre", "born", "awards"), _PUBLIC_CCPA),
    },
    "GDPR": {
        "parents": _ERASE_GDPR,
        **dict.fromkeys(("email", "address"), _MINIMISE_GDPR),
        **dict.fromkeys(("name", "genre", "born", "awards"), _PUBLIC_GDPR),
    },
    "protected": {
        **dict.fromkeys(("revision", "extension"), _DERIVATIVE),
        **dict.fromkeys(("review", "recommendation", "meta_info"), _FAIR_USE),
    },
    "expired": dict.fromkeys(("revision", "extension", "review", "recommendation", "meta_info"), _EXPIRED),
}
"""Law of an instance → attribute → (scope, legal basis)."""

MAX_FIRST_WORDS = {1: 0.65, 2: 0.75}
"""The scope must not show in the first words of a question: words looked at → highest accuracy of a majority vote."""

ANSWER_WORDS = (10, 60)
GENERAL_WORDS = (20, 45)

Record = dict[str, str]


def build(material: dict, seed: int = SEED) -> list[Record]:
    """Return the rows, labelled, the train split first, and shuffled within each split."""
    rng = random.Random(seed)
    rows: list[Record] = []
    for split in SPLITS:
        part: list[Record] = []
        for instance in material["instances"]:
            for attribute, pairs in instance[split].items():
                scope, basis = LEGAL_BASIS[instance["law"]][attribute]
                part += [
                    {
                        "question": pair["q"],
                        "answer": pair["a"],
                        "scope": scope,
                        "split": split,
                        "instance": instance["instance"],
                        "attribute": attribute,
                        "domain": instance["domain"],
                        "legal_basis": basis,
                    }
                    for pair in pairs
                ]
        rng.shuffle(part)
        rows += part
    return rows


def build_general(material: dict, seed: int = SEED) -> list[Record]:
    """Return the general texts in a shuffled order."""
    texts = [{"text": text} for text in material["general"]]
    random.Random(seed).shuffle(texts)
    return texts


def verify(rows: list[Record]) -> None:
    """Raise ValueError, naming all faults, where the rows break a rule of the benchmark."""
    faults = [f"empty {key}: {row}" for row in rows for key, value in row.items() if not value.strip()]
    questions = Counter(" ".join(row["question"].casefold().split()) for row in rows)
    faults += [f"asked {n} times: {question}" for question, n in questions.items() if n > 1]
    for row in rows:
        if not ANSWER_WORDS[0] <= len(row["answer"].split()) <= ANSWER_WORDS[1]:
            faults.append(f"{len(row['answer'].split())} words, not {ANSWER_WORDS}: {row['answer']}")
        if not _names(row):
            faults.append(f"the instance, {row['instance']}, is not named: {row['question']} {row['answer']}")
    for split in SPLITS:
        for words, limit in MAX_FIRST_WORDS.items():
            accuracy = first_words_accuracy(rows, split, words)
            if accuracy > limit:
                faults.append(f"{split}: the first {words} word(s) give the scope away in {accuracy:.1%} > {limit:.0%}")
    faults += _scope_faults(rows)
    faults += _fact_faults(rows)
    if faults:
        raise ValueError("\n".join(faults))


def first_words_accuracy(rows: Iterable[Record], split: str, words: int) -> float:
    """Return how often the majority scope of a question's first words is its scope."""
    votes: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["split"] == split:
            votes[tuple(row["question"].casefold().split()[:words])][row["scope"]] += 1
    return sum(max(v.values()) for v in votes.values()) / sum(sum(v.values()) for v in votes.values())


def _names(row: Record) -> bool:
    """Say whether a row names its instance: a book by its title, a person at least by the family name."""
    text = f"{row['question']} {row['answer']}"
    surname = row["instance"].split()[-1].casefold()
    return row["instance"] in text or (row["domain"] == "privacy" and surname in text.casefold())


def _scope_faults(rows: list[Record]) -> list[str]:
    """List rows without a train row of their instance and scope, and instances that lack a scope they should have."""
    train = {(row["instance"], row["scope"]) for row in rows if row["split"] == "train"}
    faults = [
        f"no {row['scope']} train row about {row['instance']}"
        for row in rows
        if (row["instance"], row["scope"]) not in train
    ]
    for instance in {row["instance"] for row in rows}:
        about = [row for row in rows if row["instance"] == instance]
        scopes = {row["scope"] for row in about}
        expired = {row["legal_basis"] for row in about} == {_EXPIRED[1]}
        if scopes != ({RETAIN} if expired else {FORGET, RETAIN}):
            faults.append(f"{instance}: scopes {sorted(scopes)}")
    return faults


def _fact_faults(rows: list[Record]) -> list[str]:
    """List names and numbers of val answers that no train row of the scope has, and private ones in retain rows."""
    known: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row["split"] == "train":
            known[row["instance"], row["scope"]] |= set(_TOKEN.findall(f"{row['question']} {row['answer']}"))
    faults = []
    for row in rows:
        given = known[row["instance"], row["scope"]] | set(_TOKEN.findall(row["instance"]))
        facts = _facts(row["answer"])
        if row["split"] == "val" and facts - given:
            faults.append(f"{row['instance']}: {sorted(facts - given)} in no train row: {row['answer']}")
        if row["domain"] == "privacy" and row["scope"] == FORGET:
            private = facts - set(_TOKEN.findall(row["instance"]))
            public = [r for r in rows if r["instance"] == row["instance"] and r["scope"] == RETAIN]
            shown = {t for r in public for key in ("question", "answer") for t in _facts(r[key])}
            if private & shown:
                faults.append(f"{row['instance']}: {sorted(private & shown)} in both scopes")
    return faults


_TOKEN = re.compile(r"[\w@.+-]*\w")


def _facts(text: str) -> set[str]:
    """Return the names, numbers and email addresses of a text, without the words that open a sentence."""
    facts = set()
    for sentence in re.split(r"(?<=[.?!])\s+", text):
        tokens = _TOKEN.findall(sentence)
        facts |= {t for t in tokens[1:] if t[0].isupper()} | {t for t in tokens if t[0].isdigit() or "@" in t}
    return facts


def verify_general(texts: list[Record], rows: list[Record]) -> None:
    """Raise ValueError where a general text is repeated, too short or long, or names a person or book."""
    faults = [f"repeated: {text}" for text, n in Counter(t["text"] for t in texts).items() if n > 1]
    instances = {row["instance"] for row in rows}
    for text in (t["text"] for t in texts):
        if not GENERAL_WORDS[0] <= len(text.split()) <= GENERAL_WORDS[1]:
            faults.append(f"{len(text.split())} words, not {GENERAL_WORDS}: {text}")
        faults += [f"names {instance}: {text}" for instance in instances if instance in text]
    if faults:
        raise ValueError("\n".join(faults))


def report(rows: list[Record], texts: list[Record]) -> str:
    """Return the counts as a Markdown table, and how well the first words of a question tell its scope."""
    count = Counter((row["domain"], row["scope"], row["split"]) for row in rows)
    cells = [(scope, split) for scope in (FORGET, RETAIN) for split in SPLITS]
    lines = ["| domain | instances | " + " | ".join(f"{scope} {split}" for scope, split in cells) + " | rows |"]
    lines.append("|---|" + "---:|" * (len(cells) + 2))
    for name, domains in (("privacy", {"privacy"}), ("copyright", {"copyright"}), ("both", {"privacy", "copyright"})):
        instances = {row["instance"] for row in rows if row["domain"] in domains}
        numbers = [sum(count[domain, *cell] for domain in domains) for cell in cells]
        lines.append(f"| {name} | " + " | ".join(map(str, [len(instances), *numbers, sum(numbers)])) + " |")
    lines += ["", f"General texts: {len(texts)}.", ""]
    for split in SPLITS:
        one, two = (first_words_accuracy(rows, split, words) for words in MAX_FIRST_WORDS)
        lines.append(f"Scope by majority vote, {split}: first word {one:.1%}, first two words {two:.1%}.")
    return "\n".join(lines)


def main() -> int:
    """Write the files, or compare them under `--check`; return the exit status."""
    parser = argparse.ArgumentParser(description="Make rows.jsonl and general.jsonl from material.yaml.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the shipped files differ")
    check = parser.parse_args().check
    material = yaml.safe_load((BUILTIN / "material.yaml").read_text(encoding="utf-8"))
    rows, texts = build(material), build_general(material)
    verify(rows)
    verify_general(texts, rows)
    stale = []
    for name, records in (("rows.jsonl", rows), ("general.jsonl", texts)):
        made = "".join(json.dumps(r, ensure_ascii=False, sort_keys=False) + "\n" for r in records).encode()
        path = BUILTIN / name
        if check:
            if not path.is_file() or path.read_bytes() != made:
                stale.append(name)
        else:
            temporary = path.with_name(name + ".part")
            temporary.write_bytes(made)
            os.replace(temporary, path)
    if stale:
        echo(
            f"{', '.join(stale)}: not what tools/make_builtin.py makes from material.yaml; run it without --check",
            err=True,
        )
        return 1
    echo(report(rows, texts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
