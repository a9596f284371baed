"""`scopewise build`: from a file of instances to a benchmark that the other commands accept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from loading import module_of
from scopewise import cli
from scopewise.building.checks import MOST_VOTE, NAMES
from scopewise.building.questions import KINDS
from scopewise.data.crossed import plain
from scopewise.data.facts import LEAST_ANSWERS, facts_of
from scopewise.data.load import load_benchmark
from scopewise.data.rows import CHOICE, FORGET, NEIGHBOR, RETAIN, SCOPES, SPLITS, TRAIN, VAL, Row
from scopewise.erasure.request import read_request

ROOT = Path(__file__).parents[2]
PERSONS, BOOKS = ROOT / "examples" / "benchmarks" / "persons.yaml", ROOT / "examples" / "benchmarks" / "books.yaml"
module_of(ROOT / "docs" / "make_cli.py").commands()  # registers them


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "persons"
    done = run("build", PERSONS, "--out", out)
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def rows(persons: Path) -> tuple[Row, ...]:
    return load_benchmark("jsonl", str(persons / "rows.jsonl")).rows


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_twelve_persons_offline_in_one_command(persons: Path, rows: tuple[Row, ...]) -> None:
    """Both scopes of every person in both splits; every file is private."""
    places = {(row.instance, row.scope, row.split) for row in rows if row.scope in SCOPES}
    names = {one["name"] for one in yaml.safe_load(PERSONS.read_text(encoding="utf-8"))["instances"]}
    assert len(names) == 12
    assert places == {(name, scope, split) for name in names for scope in SCOPES for split in SPLITS}
    assert all(file.stat().st_mode & 0o077 == 0 for file in persons.iterdir())


def test_the_same_seed_gives_the_same_bytes(persons: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "persons", tmp_path / "other" / "persons"
    assert run("build", PERSONS, "--out", again).exit_code == 0
    assert run("build", PERSONS, "--out", other, "--seed", "1").exit_code == 0
    for name in ("rows.jsonl", "checks.jsonl", "left_out.jsonl", "datasheet.json", "DATASHEET.md"):
        assert (again / name).read_bytes() == (persons / name).read_bytes(), name
    assert (other / "rows.jsonl").read_bytes() != (persons / "rows.jsonl").read_bytes()


def test_no_scope_shows_in_the_first_words(persons: Path, rows: tuple[Row, ...]) -> None:
    """A majority vote over the first one or two words, counted here anew, is near the share of the larger scope."""
    for words, most in MOST_VOTE.items():
        for split in SPLITS:
            votes: dict[str, Counter[str]] = {}
            for row in rows:
                if row.split == split and row.scope in SCOPES:
                    votes.setdefault(" ".join(row.question.lower().split()[:words]), Counter())[row.scope] += 1
            total = sum(sum(vote.values()) for vote in votes.values())
            accuracy = sum(max(vote.values()) for vote in votes.values()) / total
            base = max(sum(vote[scope] for vote in votes.values()) for scope in SCOPES) / total
            assert accuracy <= {1: 0.65, 2: 0.75}[words]  # the bounds of the built-in benchmark
            assert accuracy - base <= most
            said = json.loads((persons / "datasheet.json").read_text())["checks"]["first_words"][f"{split}, {words}"]
            assert said == {"accuracy": round(accuracy, 4), "base_rate": round(base, 4), "passed": True}


def test_rows_of_every_kind(rows: tuple[Row, ...]) -> None:
    """Those of `multi-hop` and `shared-fact` need linked instances; `test_questions.py` has some."""
    assert {row.kind for row in rows} == set(KINDS) - {"multi-hop", "shared-fact"}
    assert all(len(row.perturbed) >= 5 for row in rows)
    assert all(plain(wrong) != plain(row.answer) for row in rows for wrong in row.perturbed)
    assert {row.scope for row in rows if row.kind == "subject-replaced"} == {NEIGHBOR}


def test_train_and_val_share_no_question_and_no_wording(rows: tuple[Row, ...]) -> None:
    asked = {split: {plain(row.question) for row in rows if row.split == split} for split in SPLITS}
    asked[TRAIN] |= {plain(text) for row in rows for text in row.paraphrased_questions}
    assert not asked[TRAIN] & asked[VAL]
    begun = {split: {" ".join(text.split()[:2]) for text in asked[split]} for split in SPLITS}
    assert len(begun[TRAIN] & begun[VAL]) <= 2  # "which awards", "where does": words of the attributes' own questions


def test_each_row_has_its_checks(persons: Path, rows: tuple[Row, ...]) -> None:
    checks = lines(persons / "checks.jsonl")
    assert len(checks) == len(rows)
    assert all(sorted([*one["passed"], *one["failed"]]) == sorted(NAMES) for one in checks)
    sheet = json.loads((persons / "datasheet.json").read_text())
    assert sheet["counts"]["rows"] == len(rows)
    assert sheet["licence"] == "CC0-1.0"


def test_check_reads_it_back(persons: Path) -> None:
    done = run("check", persons / "run.yaml", "--no-length")
    assert done.exit_code == 0, done.output
    assert "108 forget_train" in done.output
    assert done.output.endswith("ok\n")


def test_a_request_takes_the_rows_but_multiple_choice(persons: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every other forget row has wrong answers enough for exposure: of one person, since ranks need no more."""
    request = read_request(persons / "rows.jsonl", name="one")
    left = [record.getMessage() for record in caplog.records if CHOICE in record.getMessage()]
    assert len(left) == 1
    assert "72 rows" in left[0]  # 12 persons x 6 attributes
    forget = [row for row in request.rows if row.scope == FORGET]
    first = [row for row in forget if row.instance == forget[0].instance]
    facts = facts_of(first, [row for row in request.rows if row.scope == RETAIN])
    assert len(facts) == 24  # 3 attributes x (2 direct + 2 cloze + paraphrase, inverse, alias, one-hop)
    assert min(len(fact.wrong) for fact in facts) >= LEAST_ANSWERS


def test_the_request_of_one_person(tmp_path: Path) -> None:
    """Only the person's forget rows are to be forgotten; others' and the person's own public ones are kept."""
    arguments = ("build", PERSONS, "--out", tmp_path / "out", "--kinds", "direct,paraphrase", "--request")
    assert run(*arguments, "Dagny Thorvaldsen").exit_code == 0
    request = read_request(tmp_path / "out" / "requests" / "1.jsonl")
    forget = [row for row in request.rows if row.scope == FORGET]
    assert {row.instance for row in forget} == {"Dagny Thorvaldsen"}
    assert {row.attribute for row in forget} == {"parents", "email", "address"}
    kept = [row for row in request.rows if row.scope == RETAIN]
    assert len(forget) + len(kept) == 216  # 12 persons x 6 attributes x (2 direct + 1 paraphrase)
    done = run(*arguments, "Dagny", "--overwrite")
    assert done.exit_code == 2
    assert "--request: 'Dagny'" in done.output


def test_books_of_which_one_is_out_of_copyright(tmp_path: Path) -> None:
    done = run("build", BOOKS, "--law", "copyright-us", "--out", tmp_path / "books")
    assert done.exit_code == 0, done.output
    rows = load_benchmark("jsonl", str(tmp_path / "books" / "rows.jsonl")).rows
    scopes = {name: {row.scope for row in rows if row.instance == name} for name in {row.instance for row in rows}}
    assert scopes["The Glass Orchard"] == {RETAIN}  # its author died in 1931: 1931 + 70 < 2026
    assert scopes["The Salt Accountant"] == {FORGET, RETAIN}
    assert {row.attribute for row in rows if row.scope == FORGET} == {"extension", "revision"}
    assert {row.legal_basis for row in rows if row.scope == FORGET} == {"17 USC §106(2)"}


def test_an_existing_benchmark_is_kept(persons: Path) -> None:
    before = (persons / "rows.jsonl").read_bytes()
    done = run("build", PERSONS, "--out", persons, "--seed", "5")
    assert done.exit_code == 2
    assert "--overwrite" in done.output
    assert (persons / "rows.jsonl").read_bytes() == before


def test_a_new_build_removes_the_files_of_the_earlier_one_alone(tmp_path: Path) -> None:
    """A file of the reader's stays, also in a folder of the build; so does a file outside that a datasheet lists."""
    out = tmp_path / "out"
    arguments = ("build", PERSONS, "--out", out, "--kinds", "direct", "--overwrite")
    more = ("--layout", "tofu", "--layout", "open_unlearning", "--request", "Dagny Thorvaldsen")
    assert run(*arguments, *more).exit_code == 0
    (out / "tofu" / "mine.txt").write_text("mine")
    (tmp_path / "outside.txt").write_text("outside")
    sheet = json.loads((out / "datasheet.json").read_text())
    assert {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()} == {
        *sheet["files"],
        "tofu/mine.txt",
    }
    sheet["files"] += ["../outside.txt", str(tmp_path / "outside.txt"), "tofu", "none", "a\0b", 3]
    (out / "datasheet.json").write_text(json.dumps(sheet))
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    left = {file.relative_to(out).as_posix() for file in out.rglob("*")}
    assert left == {*json.loads((out / "datasheet.json").read_text())["files"], "tofu", "tofu/mine.txt"}
    assert (tmp_path / "outside.txt").exists()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """The only attribute of each scope is the same for all: the second person is a near-duplicate, the first derivable."""
    path = tmp_path / "in.yaml"
    path.write_text(yaml.safe_dump([{"name": "Ada Bell", "email": "a@b.example", "awards": "a@b.example"}]))
    done = run("build", path, "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert "no instance is left" in done.output
    assert not list((tmp_path / "out").glob("*"))
