"""The built-in benchmark: built by `scopewise build` from its instances, its small cut, and the general text beside it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import yaml
from typer.testing import CliRunner

from loading import module_of
from scopewise import cli
from scopewise.building.balance import FirstWords
from scopewise.building.questions import KINDS
from scopewise.data.builtin import SMALL, SMALL_KINDS, read_general
from scopewise.data.load import load_benchmark
from scopewise.data.rows import NEIGHBOR, RETAIN, SCOPES, SPLITS, TRAIN, VAL

ROOT = Path(__file__).parents[2]
MADE = module_of(ROOT / "tools" / "make_builtin.py")
INSTANCES = yaml.safe_load((MADE.BUILTIN / "instances.yaml").read_text(encoding="utf-8"))["instances"]
FULL = load_benchmark("builtin_full").rows
module_of(ROOT / "docs" / "make_cli.py").commands()  # registers them


def test_the_command_of_the_tool_gives_the_shipped_bytes(tmp_path: Path) -> None:
    """The command that the tool's first lines name, run as users run it."""
    command = re.sub(r"\\\n", " ", MADE.__doc__ or "").partition("scopewise build ")[2].split()
    source, *options, out = command
    assert out == "builtin"
    done = CliRunner().invoke(cli.app, ["build", str(ROOT / source), *options, str(tmp_path / out)])
    assert done.exit_code == 0, done.output
    for name in MADE.SHIPPED:
        assert (tmp_path / out / name).read_bytes() == (MADE.BUILTIN / name).read_bytes(), name


def test_sixty_persons_and_thirty_books_with_all_kinds() -> None:
    """Every instance has train and val rows of both scopes, a work out of copyright of retain only."""
    assert Counter(one.get("kind", "person") for one in INSTANCES) == {"person": 60, "work": 30}
    expired = {one["name"] for one in INSTANCES if "author_died" in one}
    wanted = {
        (one["name"], scope, split)
        for one in INSTANCES
        for scope in ((RETAIN,) if one["name"] in expired else SCOPES)
        for split in SPLITS
    }
    assert {(row.instance, row.scope, row.split) for row in FULL if row.scope in SCOPES} == wanted
    assert len(expired) == 3
    assert len(FULL) >= 1500
    assert {row.kind for row in FULL} == set(KINDS)
    assert {row.scope for row in FULL} == {*SCOPES, NEIGHBOR}
    assert all(len(row.perturbed) >= 5 for row in FULL)


def test_the_documents_count_the_rows() -> None:
    for name, persons, books in (("builtin", 12, 6), ("builtin_full", 60, 30)):
        rows = load_benchmark(name).rows
        count = Counter((row.scope, row.split) for row in rows)
        cells = [count[scope, split] for scope in SCOPES for split in SPLITS]
        numbers = " | ".join(map(str, [persons, books, *cells, count[NEIGHBOR, VAL]]))
        for document in (ROOT / "docs" / "benchmarks.md", MADE.BUILTIN / "README.md"):
            assert f"| `{name}` | {numbers} | {len(rows):,} |" in document.read_text(encoding="utf-8")


def test_no_scope_shows_in_the_first_words() -> None:
    """A majority vote on the first one or two words is right for at most 60 % of the rows, of the whole and of the cut."""
    for name in ("builtin", "builtin_full"):
        for words in (1, 2):
            vote = FirstWords(words)
            for row in load_benchmark(name).rows:
                if row.scope in SCOPES:
                    vote.add(row)
            assert all(vote.accuracy(split)[0] <= 0.6 for split in SPLITS), name


def test_the_small_cut_is_the_first_instances_and_three_kinds() -> None:
    few = {one["name"] for one in INSTANCES[:12]} | {
        one["name"] for one in [one for one in INSTANCES if one.get("kind") == "work"][:6]
    }
    small = load_benchmark("builtin").rows
    assert small == tuple(row for row in FULL if row.instance in few and row.kind in SMALL_KINDS)
    assert {row.instance for row in small} == few
    assert sum(SMALL.values()) == len(few) == 18
    assert [row for row in small if row.domain == "privacy"] == list(load_benchmark("builtin", domain="privacy").rows)


def test_every_val_row_of_the_cut_asks_for_a_fact_of_train() -> None:
    small = load_benchmark("builtin")
    facts = {split: {(row.instance, row.attribute, row.scope) for row in small.select(split=split)} for split in SPLITS}
    assert facts[VAL] <= facts[TRAIN]


def test_only_reserved_domains_and_impossible_accounts() -> None:
    """E-mail under `.example` (RFC 2606); bank accounts with the check digits 00, which no account has (ISO 13616: 02-98)."""
    for one in INSTANCES:
        facts = one["attributes"]
        assert facts.get("email", "x.example").endswith(".example")
        assert re.fullmatch(r"[A-Z]{2}00 [\d ]+", facts.get("bank_account", "XX00 1"))
    shown = " ".join(text for row in FULL for text in (row.question, row.answer, *row.perturbed))
    assert {found for found in re.findall(r"@\S+?(?=[\s,;]|\.\s|\.?$)", shown) if ".example" not in found} == set()


def test_nobody_is_a_wrong_answer_about_oneself() -> None:
    married = [row for row in FULL if row.attribute == "spouse" and row.kind == "direct"]
    assert len(married) == 10
    assert not any(wrong.count(row.instance) > 1 for row in married for wrong in row.perturbed)


def test_general_text_names_no_instance() -> None:
    texts = [row.answer for row in read_general()]
    assert len(texts) == len(set(texts)) == 100
    assert not any(one["name"] in text for text in texts for one in INSTANCES)
