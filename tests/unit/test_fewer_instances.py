"""`data.instances`: a benchmark of fewer persons or books."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scopewise.data.instances import first_instances
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.errors import DataError

PRIVACY = Path(__file__).parents[3] / "shared" / "data" / "knowundo_privacy"


def rows(*about: tuple[str, str]) -> list[Row]:
    return [Row(f"Question {i}?", "Answer.", scope, instance=name) for i, (name, scope) in enumerate(about)]


def test_instances_of_both_scopes_come_first() -> None:
    given = rows(
        ("A", FORGET), ("B", FORGET), ("B", RETAIN), ("C", RETAIN), ("B", FORGET), ("C", FORGET), ("D", RETAIN)
    )
    assert [row.instance for row in first_instances(given, 1)] == ["B", "B", "B"]
    assert [row.instance for row in first_instances(given, 2)] == ["B", "B", "C", "B", "C"]
    assert first_instances(given, 3) == given


def test_scopes_about_different_persons_keep_as_many_each() -> None:
    """As in TOFU: the forget rows are about other authors than the retain rows."""
    given = rows(("A", FORGET), ("B", FORGET), ("C", RETAIN), ("D", RETAIN), ("E", "holdout"), ("F", "holdout"))
    assert [row.instance for row in first_instances(given, 1)] == ["A", "C", "E"]


def test_names_are_found_in_questions_where_the_data_has_none() -> None:
    given = [
        Row("Where does Ada Quill live?", "In Mill Lane.", FORGET),
        Row("Is it raining?", "No.", FORGET),
        Row("What does Ada Quill write?", "Plays.", RETAIN),
        Row("Where does Ben Amber live?", "In Oak Road.", FORGET),
        Row("What does Ben Amber write?", "Poems.", RETAIN),
    ]
    assert first_instances(given, 1) == [given[0], given[2]]
    assert first_instances(given, 2) == [given[0], *given[2:]]
    assert first_instances(given, 3) == given  # the row without a name is about itself


def test_of_any_benchmark() -> None:
    whole, some = load_benchmark("builtin"), load_benchmark("builtin", instances=3)
    assert {scope: len({row.instance for row in some.select(scope)}) for scope in (FORGET, RETAIN)} == {
        FORGET: 3,
        RETAIN: 3,
    }
    assert set(some.rows) < set(whole.rows)
    assert some.content_hash() != whole.content_hash()


def test_more_than_there_are() -> None:
    with pytest.raises(DataError, match=r"^data\.instances: 99; there are 18 in a scope;"):
        load_benchmark("builtin", instances=99)


def test_plain_text_counts_by_row() -> None:
    texts = [
        replace(row, question="", instance="", origin=f"file:{i}") for i, row in enumerate(rows(*[("", FORGET)] * 3))
    ]
    assert first_instances(texts, 2) == texts[:2]


@pytest.mark.skipif(not PRIVACY.is_dir(), reason="needs ../shared/data/knowundo_privacy (see tests/SKIPS.md)")
def test_twelve_persons_of_knowundo() -> None:
    found = load_benchmark("knowundo", str(PRIVACY), "privacy", instances=12)
    assert len(found.rows) == 227
    assert {row.question for row in found.rows if "Isabella Marquez" in row.question}
    assert len(found.select(FORGET)) == 110
