"""The walk of an evaluation: what a model allows is asked when its engine is made, once, and no room leads back to itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loading import module_of

QUESTIONS = {
    ("models/abilities.py", "find_abilities"),
    ("models/architecture.py", "attention_window"),
    ("models/architecture.py", "counts_columns"),
    ("models/architecture.py", "lm_head"),
    ("models/merging.py", "shared_layers"),
    ("models/precision.py", "mixed_dtype"),
    ("models/vocabulary.py", "check_tokenizer"),
}
"""What is asked of a model that stays as it is: its answer holds as long as the engine."""


@pytest.fixture(scope="module")
def walk(tmp_path_factory: Any) -> tuple[Any, Any]:
    """The walks of making an engine and of an evaluation, in a model with an adapter."""
    script = module_of(Path(__file__).parents[2] / "benchmarks" / "walk.py")
    return script.walks(tmp_path_factory.mktemp("cache"))


def _paths(room: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Yield each room's path with the functions by which it is entered; closures go back to who made them, and are left out."""
    for name, below in room.rooms.items():
        doors = {door for door in below.doors if "<locals>" not in door and not door.startswith("<")}
        yield (*above, name), doors
        yield from _paths(below, (*above, name))


def test_each_question_is_asked_once(walk: tuple[Any, Any]) -> None:
    made, evaluated = walk
    assert {question: made.calls[question] for question in QUESTIONS} == dict.fromkeys(QUESTIONS, 1)
    assert not {question for question in QUESTIONS if evaluated.calls[question]}


def test_the_engine_is_passed_once(walk: tuple[Any, Any]) -> None:
    """One pass of scores, one of texts; the model is put into evaluation mode for each, and merged for each."""
    calls = walk[1].calls
    assert walk[1].start.rooms["evaluation"].doors == {"evaluate": 1}
    passes = ("check", "score", "generate")
    assert {name: calls["models/engine.py", f"Engine.{name}"] for name in passes} == dict.fromkeys(passes, 1)
    assert calls["models/forward.py", "Forward.evaluating"] == 2
    assert calls["models/cache.py", "content_hash"] == 1
    assert calls["models/architecture.py", "decoder_blocks"] <= 1


def test_no_room_leads_back_to_itself(walk: tuple[Any, Any]) -> None:
    for part in walk:
        circles = [path for path, doors in _paths(part.start) if doors and path[-1] in path[:-1]]
        assert circles == []
