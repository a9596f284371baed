"""The models that are tried for a request: each is trained and measured, until one forgets, keeps and resists."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from scopewise.bars import duration
from scopewise.documents import read_json
from scopewise.erasure.made_trials import MadeTrials
from scopewise.erasure.plan import Plan, searched, strengths, undoing_more, with_strength
from scopewise.erasure.resist import DRAWS, halves, resist, settings_of
from scopewise.erasure.search import FACTOR, Attempt, chosen, search
from scopewise.erasure.setup import Setup
from scopewise.erasure.verdict import Policy, is_known, is_over_unlearned
from scopewise.errors import ConfigError, ResultError
from scopewise.eta import Whole
from scopewise.exposure import expose
from scopewise.files import write_json
from scopewise.models.engine import Engine
from scopewise.terminal import counted

MOST = {"exact": 3, "approximate": 6}
"""Models that are tried at most. Ours."""
_MARGIN = 0.75
"""Share of the verdict's bound of leakage that an attempt must stay below, since the verdict draws anew. Ours."""


class Attempts:
    """The attempts of a request. Each is kept in the request's folder, so that an interrupted search goes on.

    The strength is searched until a model forgets and keeps. Where a method undoes a share of the fine-tuning first, that model
    is attacked by relearning on forget rows, if the verdict will be, too; while too much comes back, the search goes on with a
    larger share. All is measured under the questions that are trained on, and the attack has other seeds than the verdict's.

    Args:
        setup: Of the request.
        plan: Its plan.
        settings: Of the training, to begin with.
        policy: The bounds of the verdict.
        whole: What is to be done, for the time that is left.
        expect: Called before each attempt with the number of those that were made.
        tell: Called with what came out of each attempt of an approximate method, which takes long.
    """

    def __init__(
        self,
        setup: Setup,
        plan: Plan,
        settings: Mapping[str, Any],
        policy: Policy,
        whole: Whole,
        expect: Callable[[int], object],
        tell: Callable[[str], None],
    ) -> None:
        self.setup, self.plan, self.policy, self.whole = setup, plan, policy, whole
        self.expect, self.tell = expect, tell
        self.settings, self.name = dict(settings), searched(plan.method)
        self.made: list[Attempt] = []
        self._settings_of: dict[str, dict[str, Any]] = {}
        self._file = setup.folder / "steps" / "tried.json"
        self._tried: dict[str, dict[str, Any]] = read_json(self._file, ResultError) if self._file.exists() else {}

    def run(self) -> dict[str, Any]:
        """Make them, and return what is to be kept of them."""
        minutes, most, begin = self.setup.options.minutes, MOST[self.plan.kind], time.monotonic()
        strength, more = strengths(self.settings, self.name)[self.name], True
        while more:
            left = None if minutes is None else 60 * minutes - (time.monotonic() - begin)
            self.made += search(strength, self._told, most=most - len(self.made), budget=left)
            last, undone = self.made[-1], undoing_more(self.settings)
            undoes = "reset" in strengths(self.settings, self.name)
            if not last.good:
                self._check_budget(time.monotonic() - begin)
            if not last.good or not undoes or "relearning" not in self.setup.options.attacks:
                break
            self.made[-1] = last = self._attacked(last)
            leakage = last.leakage or 0.0
            self.tell(f"attempt {len(self.made)}: relearning brings back up to {max(0.0, leakage):.0%}")
            dearest = max(one.seconds for one in self.made)
            in_time = minutes is None or time.monotonic() - begin + dearest <= 60 * minutes
            if undone is None or leakage <= _MARGIN * self.policy.resists.bound:
                break
            more = in_time and len(self.made) < most
            strength, self.settings = last.strength / FACTOR, undone  # less is left to forget
        return self._document(chosen(self.made))

    def _check_budget(self, spent: float) -> None:
        """Raise ConfigError if the budget ended the search before a model both forgot and kept.

        To attack a model that is known to fail can take hours.
        """
        minutes, dearest = self.setup.options.minutes, max(one.seconds for one in self.made)
        if minutes is None or any(one.good for one in self.made) or len(self.made) >= MOST[self.plan.kind]:
            return
        if spent + dearest > 60 * minutes:
            raise ConfigError(
                f"--budget: {duration(60 * minutes)}; {counted(len(self.made), 'attempt')}, of which none both forgot and kept "
                f"enough; another one takes about {duration(dearest)}; add --resume and a longer budget, or no budget"
            )

    def _told(self, strength: float) -> Attempt:
        made = self._attempt(strength)
        if self.plan.kind == "approximate":
            forgot = "forgotten" if made.forgotten else "still known" if made.weak else "over-unlearned"
            lost = "retained rows kept" if made.kept else "too much of the retained rows lost"
            rise, most = made.rise or 0.0, self.policy.kept.general
            # Said now, since the verdict will be red for it, after hours of attacks.
            text = f", but general text is lost ({rise:.2f} nats per token, bound {most:g})" if rise > most else ""
            self.tell(f"attempt {len(self._settings_of)}, {self._said(made.name)}: {forgot}, {lost}{text}")
        return made

    def _attempt(self, strength: float) -> Attempt:
        begin, exact = time.monotonic(), self.plan.kind == "exact"
        settings = with_strength(self.settings, self.name, strength)
        label = "-".join(f"{value:.3g}" for value in strengths(settings, self.name).values())
        self.expect(len(self._settings_of))
        for one in self._tried.values():
            if one["settings"] == settings:  # from before an interruption
                found = Attempt(**one["attempt"])
                self._settings_of[found.name] = settings
                return found
        with self.whole.part("train"):
            path = str((self.setup.retrained if exact else self.setup.unlearned)(settings, label))
        self._settings_of[path] = settings
        with self.whole.part("measure"):
            engine = self._engine(path)
            held = self.setup.before.kept(engine, general=not exact)
            lost, general = held.loss.value, held.general
            kept = lost <= self.policy.kept.bound / 2
            # A model that was trained without the rows only has to keep: the verdict measures the rest.
            known, below, distance = (False, False, 0.0) if exact else self._exposed(engine)
        return self._noted(
            Attempt(
                strength=strength,
                name=path,
                weak=not kept if exact else known,
                forgotten=not (known or below),
                kept=kept,
                distance=distance + max(0.0, lost),
                seconds=time.monotonic() - begin,
                rise=None if general is None else general.value,
            )
        )

    def _noted(self, made: Attempt) -> Attempt:
        """Write an attempt down for after an interruption; return it."""
        self._tried[made.name] = {"settings": self._settings_of[made.name], "attempt": asdict(made)}
        write_json(self._file, self._tried)
        return made

    def _attacked(self, made: Attempt) -> Attempt:
        """Return an attempt with its leakage under relearning."""
        if made.leakage is not None:
            return made
        begin = time.monotonic()
        leakage = self._leakage(made.name)
        return self._noted(replace(made, leakage=leakage, seconds=made.seconds + time.monotonic() - begin))

    def _exposed(self, engine: Engine) -> tuple[bool, bool, float]:
        """Return whether a model knows the facts, whether it is over-unlearned, and how far from chance it is."""
        exposure = expose(engine, self.setup.measured_to_choose, seed=self.setup.options.seed)
        known, below = is_known(exposure, self.policy.level), is_over_unlearned(self.policy, exposure)
        return known, below, abs(exposure.known.value)

    def _leakage(self, path: str) -> float:
        """Return the largest upper end of an interval of leakage under relearning on forget rows, the strongest kind."""
        setup, kind, facts = self.setup, self.plan.kind, self.setup.measured_to_choose
        seed = setup.options.seed + DRAWS[kind]
        how = settings_of(kind, ("relearning",), setup.finetuning["learning_rate"], seed)
        other = ([], []) if all(halves(facts, seed)) else (setup.retain, setup.general)
        with self.whole.part("attack"):
            made = MadeTrials(self._file.parent, path).made
            found = resist(self._engine(path), setup.before.target, facts, *other, how, made=made)
        ends = [one.leakage.value if one.leakage.high is None else one.leakage.high for one in found.settings]
        return max(ends, default=0.0)

    def _engine(self, path: str) -> Engine:
        return self.setup.engine(path, f"{self.plan.method}, {self._said(path)}")

    def _said(self, path: str) -> str:
        return ", ".join(f"{name} {value:.3g}" for name, value in strengths(self._settings_of[path], self.name).items())

    def _document(self, best: Attempt) -> dict[str, Any]:
        enough = best.good and (best.leakage or 0.0) <= self.policy.resists.bound
        missed = "resisted" if best.good else "both forgot and kept enough"
        nearest = "" if enough else f"; none {missed}, so this is the nearest"
        return {
            "path": best.name,
            "settings": self._settings_of[best.name],
            "attempts": [asdict(one) for one in self.made],
            "seconds": sum(one.seconds for one in self.made),
            "said": f"{self.plan.method}, {self._said(best.name)}, {counted(len(self.made), 'attempt')}{nearest}",
        }
