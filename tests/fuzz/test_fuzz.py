"""The generator and the judge of bad inputs: the same seed gives the same inputs, and every fault is seen."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forks import python

from .command import Done
from .inputs import Input
from .judge import FAULTS, faults, screen
from .schema import HUGE, LONE, MISSING, bad_values, with_bad

GIVEN = Input("something", ("check",))
SENTENCE = "scopewise: run.seed: 'x'; a number\n"


@pytest.mark.parametrize(
    ("expected", "code", "err", "after"),
    [
        ([], 2, SENTENCE, {"a": "1"}),
        ([], 2, f"\rtrain: 40%|## |\r{' ' * 15}\r{SENTENCE}", {"a": "1"}),
        ([], 2, f"train: 40%|## | 2/5 [00:01<?, ?step/s]\n{SENTENCE}", {"a": "1"}),
        (["glued"], 2, f"train: 40%|## | 2/5 [00:01<?, ?step/s]{SENTENCE}", {"a": "1"}),
        (["accepted"], 0, "", {"a": "1"}),
        (["code"], 1, SENTENCE, {"a": "1"}),
        (["code", "traceback"], 1, "Traceback (most recent call last):\nValueError: no\n", {"a": "1"}),
        (["control"], 2, SENTENCE.replace("x", "\x1b[31m"), {"a": "1"}),
        (["control"], 2, SENTENCE.replace("x", "\u202e"), {"a": "1"}),
        (["glued"], 2, f"\rtrain: 40%|## |{SENTENCE}", {"a": "1"}),
        (["sentence"], 2, SENTENCE * 2, {"a": "1"}),
        (["sentence"], 2, "Usage: scopewise\n\nError: no\n", {"a": "1"}),
        (["sentence"], 2, "", {"a": "1"}),
        (["lost"], 2, SENTENCE, {"a": "2"}),
        (["lost"], 2, SENTENCE, {}),
        (["left"], 2, SENTENCE, {"a": "1", "b": "1"}),
    ],
)
def test_the_judge_sees_each_fault(expected: list[str], code: int, err: str, after: dict[str, str]) -> None:
    done = Done(code, b"", err.encode(), seconds=1.0)
    found = faults(GIVEN, done, {"a": "1"}, after)
    assert found == expected
    assert set(found) <= set(FAULTS)


def test_what_takes_too_long_is_seen() -> None:
    for done in (
        Done(2, b"", SENTENCE.encode(), seconds=31.0),
        Done(2, b"", SENTENCE.encode(), seconds=1.0, late=True),
    ):
        assert faults(GIVEN, done, {}, {}) == ["slow"]


def test_the_screen_shows_what_a_terminal_would() -> None:
    assert screen("a bar 10%\ra bar 90%\r         \rdone\n\nnext") == ["done", "next"]
    assert screen("one\ntwo\x1b[A\rONE\x1b[K\n") == ["ONE", "two"]


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    kind: str | None = None
    count: int = Field(1, ge=1)
    share: float = Field(0.5, gt=0, lt=1, allow_inf_nan=False)
    many: list[int] = []
    inner: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}


def test_a_schema_forbids_what_is_found() -> None:
    good = {"name": "a", "count": 2, "many": [1], "inner": {"a": 1.0}}
    Schema.model_validate(good)
    every = list(bad_values(Schema.model_json_schema(), good))
    assert {bad.path[0] for bad in every} >= set(Schema.model_fields)
    assert any(bad.value is MISSING for bad in every)
    every = [
        bad for bad in every if bad.value not in (LONE, HUGE)
    ]  # of text: its readers refuse them, pydantic does not
    for bad in every:
        with pytest.raises(ValidationError):
            Schema.model_validate(with_bad(good, bad))


def test_a_seed_gives_the_same_inputs_again(tmp_path: Path) -> None:
    from .families import FAMILIES

    assert len(FAMILIES) >= 12
    for name in ("run file", "--set", "options", "hostile"):
        first, again, other = (FAMILIES[name].inputs(tmp_path, seed, 30) for seed in (1, 1, 2))
        assert first == again != other
        assert len(first) == 30


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_every_bad_input_is_refused_with_a_sentence(count: int, tmp_path: Path) -> None:
    """In processes of its own: what the tests put around the package is not what users run."""
    command = [python(), "-m", "tests.fuzz", "--count", str(count), "--failures", str(tmp_path / "failed.json")]
    done = subprocess.run(
        [*command, *(["--no-good"] if count < 10 else [])],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
