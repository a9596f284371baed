"""The attempts of a request, on made-up models whose leakage falls with the share of the fine-tuning that is undone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scopewise.erasure.attempts import Attempts
from scopewise.erasure.figures import Kept
from scopewise.erasure.plan import Plan, undoing_more, unlearning
from scopewise.erasure.request import Lineage, Request
from scopewise.erasure.search import Attempt
from scopewise.erasure.setup import Options, Setup
from scopewise.erasure.verdict import read_policy
from scopewise.errors import ConfigError
from scopewise.eta import Whole
from scopewise.statistics import Interval

_FINETUNE = {"parameters": "all", "learning_rate": 2e-3, "num_train_epochs": 20.0, "batch_size": 10}


class MadeUp(Attempts):
    """Models that forget with a weight from .05 x what is not undone to .05, and of which that x `leaky` comes back."""

    def __init__(self, method: str, leaky: float, minutes: float | None = None) -> None:
        request = Request("made-up", None, datetime.now(UTC), None, None, Lineage(), (), {}, Path("x"))
        self.setup = Setup(request, Options(model="x", minutes=minutes), Path("x"))
        self.plan, self.policy, self.whole = Plan("approximate", method, ""), read_policy(), Whole()
        self.settings, self.name = unlearning(method, _FINETUNE, 50, 100), "forget_weight"
        self.settings["method_args"] = {"forget_weight": 0.05} | self.settings.get("method_args", {})
        self.expect, self.made, self._settings_of = lambda made: None, [], {}
        self.told: list[str] = []
        self.tell = self.told.append
        self.leaky = leaky

    def _attempt(self, strength: float) -> Attempt:
        name = f"{strength:.4f} {_undone(self.settings):g}"
        self._settings_of[name] = {**self.settings, "method_args": {"forget_weight": strength}}
        least = 0.05 * (1 - _undone(self.settings))
        return Attempt(strength, name, strength < least, least <= strength <= 0.05, True, 0.0, 10.0)

    def _noted(self, made: Attempt) -> Attempt:
        return made

    def _leakage(self, path: str) -> float:
        return self.leaky * (1 - float(path.split()[1]))


def _undone(settings: Mapping[str, Any]) -> float:
    return float(settings.get("wrapper_args", {}).get("reset", {"alpha": 0})["alpha"])


def test_more_is_undone_while_too_much_comes_back() -> None:
    """The recipe begins at .065 with .7 undone. .065 is too much, .0325 is good and 3 x .3 = .9 comes back; with .97 undone and
    half of the weight .09, below the bound of .25."""
    made = MadeUp("reset_robust", leaky=3.0)
    found = made.run()
    assert [one.name for one in made.made] == ["0.0650 0.7", "0.0325 0.7", "0.0163 0.97"]
    assert [one.leakage for one in made.made] == [None, pytest.approx(0.9), pytest.approx(0.09)]
    assert found["path"] == "0.0163 0.97"
    assert _undone(found["settings"]) == pytest.approx(0.97)
    assert found["settings"]["method_args"] == {"forget_weight": 0.065 / 4}
    assert "nearest" not in found["said"]
    assert made.told == [
        "attempt 1, forget_weight 0.065, reset 0.7: over-unlearned, retained rows kept",
        "attempt 2, forget_weight 0.0325, reset 0.7: forgotten, retained rows kept",
        "attempt 2: relearning brings back up to 90%",
        "attempt 3, forget_weight 0.0163, reset 0.97: forgotten, retained rows kept",
        "attempt 3: relearning brings back up to 9%",
    ]


@pytest.mark.parametrize(("rise", "said"), [(0.25, False), (1.1, True), (None, False)])
def test_an_attempt_that_loses_general_text_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rise: float | None, said: bool
) -> None:
    """Its verdict will be red, which the user should know before hours of attacks."""
    made = MadeUp("wga", leaky=0.0)
    made._file, made._tried, made.name = tmp_path / "tried.json", {}, "learning_rate"
    found = Kept(Interval(0.0, 0.0, 0.0), (), None if rise is None else Interval(rise, rise, rise))
    made.setup.__dict__["before"] = SimpleNamespace(kept=lambda engine, general: found)
    monkeypatch.setattr(made.setup, "unlearned", lambda settings, label: tmp_path / label)
    monkeypatch.setattr(made, "_engine", lambda path: None)
    monkeypatch.setattr(made, "_exposed", lambda engine: (False, False, 0.0))
    monkeypatch.setattr(made, "_attempt", partial(Attempts._attempt, made))
    assert made._told(1e-3).rise == rise
    assert ("general text" in made.told[0]) == said


def test_a_model_that_resists_at_once_is_taken() -> None:
    made = MadeUp("reset_robust", leaky=0.5)
    made.run()
    assert [one.name for one in made.made] == ["0.0650 0.7", "0.0325 0.7"]


def test_the_attempts_end_with_the_one_that_leaks_least() -> None:
    """A thousand x .003 is still above the bound where .997 is undone, and nothing worth undoing is left."""
    made = MadeUp("reset_robust", leaky=1e3)
    found = made.run()
    assert [one.name for one in made.made] == ["0.0650 0.7", "0.0325 0.7", "0.0163 0.97", "0.0081 0.997"]
    assert found["path"] == made.made[-1].name
    assert "none resisted" in found["said"]


def test_a_budget_ends_the_attempts() -> None:
    """An attempt takes 10 s, as it says, and the budget is a second. A good model from which an attack brings facts back has no
    next one; one that forgot too much is not attacked for its record, and a longer budget goes on."""
    made = MadeUp("reset_robust", leaky=100.0, minutes=1 / 60)
    made.settings["method_args"] = {"forget_weight": 0.03}
    made.run()
    assert [(one.name, one.leakage) for one in made.made] == [("0.0300 0.7", pytest.approx(30))]
    made = MadeUp("reset_robust", leaky=100.0, minutes=1 / 60)
    with pytest.raises(ConfigError, match=r"^--budget: .*1 attempt.*--resume"):
        made.run()
    assert [one.name for one in made.made] == ["0.0650 0.7"]


def test_a_method_that_undoes_nothing_is_not_attacked() -> None:
    assert undoing_more({"method_args": {}}) is None
    made = MadeUp("wga", leaky=100.0)
    made.run()
    assert [(one.name, one.leakage) for one in made.made] == [("0.0500 0", None)]
