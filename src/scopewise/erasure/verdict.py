"""The verdict: three lights from measured figures and a policy. Imports no torch.

*Forgotten*: exposure is not above chance. *Kept*: little is lost on the retain rows and on general text. *Resists*: no attack
brings much back. A light is green only where its interval excludes more than the policy's bound, red where the figures show
more than the bound, and amber otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from scopewise.documents import parse_yaml, read_text
from scopewise.erasure.figures import Kept, Resisted
from scopewise.errors import ConfigError
from scopewise.ranks import Exposure
from scopewise.section import Section, make_section

Color = Literal["green", "amber", "red"]
_SHIPPED = "policy.yaml"
_EXACT = 50
"""After exact retraining, exposure is called knowledge only if it is this much less likely by chance than otherwise."""


class ForgottenBound(Section):
    """Bound of *Forgotten*: mean exposure, from chance (0) to true answers that always rank first (1)."""

    bound: float = Field(gt=0, lt=1)


class KeptBound(Section):
    """Bounds of *Kept*: lost share of answer tokens (0-1), and rise of the loss on general text (nats per token)."""

    bound: float = Field(gt=0, lt=1)
    general: float = Field(gt=0)


class ResistsBound(Section):
    """Bound of *Resists*: leakage, 0 = chance, 1 = what the target knows without an attack."""

    bound: float = Field(gt=0, lt=1)


class Policy(Section):
    """The bounds of a verdict.

    Attributes:
        level: Of tests and intervals; 0.05 gives 95 % intervals.
        least_instances: With fewer instances, no light is green by intervals alone.
    """

    level: float = Field(gt=0, lt=0.5)
    least_instances: int = Field(ge=2)
    forgotten: ForgottenBound
    kept: KeptBound
    resists: ResistsBound


@dataclass(frozen=True)
class Light:
    """One of the three lights.

    Attributes:
        light: Green, amber (undecided) or red.
        word: What it says: `forgotten`, `not forgotten`, `over-unlearned`, `kept`, `damaged`, `resists`, `leaks`, `undecided`,
            `not known`.
        value: The figure; None if it was not measured.
        low: Lower end of its interval; None with a single instance.
        high: Upper end.
        n: Instances.
        bound: The policy's bound.
        why: One sentence.
        worst: The worst instances (or attacks), the worst first.
        p: Probability of such ranks by chance, if the model knows nothing; of all attacks, the smallest after Holm's
            correction. None where the figure is no exposure.
    """

    light: Color
    word: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    bound: float
    why: str
    worst: tuple[str, ...] = ()
    p: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The three lights."""

    forgotten: Light
    kept: Light
    resists: Light

    @property
    def light(self) -> Color:
        """The worst of the three."""
        colors = {one.light for one in (self.forgotten, self.kept, self.resists)}
        return "red" if "red" in colors else "amber" if "amber" in colors else "green"

    @property
    def green(self) -> bool:
        """Whether all three are green."""
        return self.light == "green"

    @property
    def exit_code(self) -> int:
        """0 if all are green, else 3."""
        return 0 if self.green else 3

    def document(self) -> dict[str, Any]:
        """Return the lights for JSON; `worst` is left out, since it names instances."""
        return {
            name: {key: value for key, value in asdict(one).items() if key != "worst"}
            for name, one in (("forgotten", self.forgotten), ("kept", self.kept), ("resists", self.resists))
        }


def read_policy(path: str | Path | None = None) -> Policy:
    """Return the policy of a YAML file; None takes the shipped one.

    Raises:
        ConfigError: the file cannot be read, or a key is missing, unknown or out of its range.
    """
    if path is None:
        text = (resources.files("scopewise") / "erasure" / _SHIPPED).read_text(encoding="utf-8")
    else:
        text = read_text(path, ConfigError, "--policy")
    values = parse_yaml(text, str(path or _SHIPPED), ConfigError)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: {type(values).__name__}; a policy is a mapping, as the shipped `erasure/policy.yaml` is"
        )
    return make_section(Policy, values, "policy")


def decide(
    policy: Policy,
    known: Exposure,
    exposure: Exposure,
    kept: Kept | None,
    resisted: Resisted | None,
    exact: bool = False,
) -> Verdict:
    """Return the verdict on a model.

    Args:
        policy: The bounds.
        known: Exposure of the target, before unlearning.
        exposure: Exposure of the model, on the same facts.
        kept: Retention of the model; None if it was not measured.
        resisted: The attacks on the model; None if they were not run.
        exact: The model was retrained without the rows. Then fewer instances than the policy's are enough: the facts are
            gone by construction, and the figures only have to agree. *Resists* relies on it only if *Forgotten* is green.
    """
    forgotten = _forgotten(policy, known, exposure, exact)
    gone = exact and forgotten.light == "green"
    return Verdict(forgotten, _kept(policy, kept, exact), _resists(policy, known, resisted, gone))


def is_known(exposure: Exposure, level: float = 0.05) -> bool:
    """Return whether the model knows any of the facts: all together, or one instance after Holm's correction.

    Of a model that knows none, about 2 · level of the answers are wrong.
    """
    return min(exposure.p, *(one.corrected for one in exposure.instances)) <= level


def is_over_unlearned(policy: Policy, exposure: Exposure) -> bool:
    """Return whether true answers rank lower than chance allows, and further below chance than the bound of *Forgotten*.

    A model that never saw the facts can be a little below: it may prefer values of those whom it still knows. With many facts
    that alone has a small p-value.
    """
    return exposure.p_worse <= policy.level / 5 and exposure.known.value < -policy.forgotten.bound


def _forgotten(policy: Policy, known: Exposure, exposure: Exposure, exact: bool) -> Light:
    bound, value = policy.forgotten.bound, exposure.known
    exposed = [one for one in exposure.instances if one.corrected <= policy.level and one.known > bound]
    worst = tuple(one.instance for one in exposed or exposure.instances)
    n = len(exposure.instances)

    def light(color: Color, word: str, why: str) -> Light:
        return Light(color, word, value.value, value.low, value.high, n, bound, why, worst, exposure.p)

    if not is_known(known, policy.level):
        return light("amber", "not known", "The model did not know these facts before, so there was nothing to forget.")
    strongest = min(exposure.p, *(one.corrected for one in exposure.instances))
    if exact and policy.level >= strongest > policy.level / _EXACT:
        why = (
            "The model was trained without these rows, but true answers rank high: do the retained rows give them away?"
        )
        return light("amber", "undecided", why)
    if exposed:
        several = f"{len(exposed)} of {n} instances are" if len(exposed) > 1 else f"One of {n} instances is"
        return light("red", "not forgotten", f"{several} still known: true answers rank higher than chance allows.")
    if exposure.p <= policy.level and value.value > bound:
        return light("red", "not forgotten", "True answers rank higher than chance allows.")
    if is_over_unlearned(policy, exposure) and not exact:
        why = "True answers rank much lower than chance allows, so one can see that something was removed here."
        return light("amber", "over-unlearned", why)
    if exact and exposure.p > policy.level:
        return light(
            "green", "forgotten", "The model was trained without these rows, and true answers rank as by chance."
        )
    return _by_interval(policy, light, n, value.high, bound, "forgotten", "exposure")


def _kept(policy: Policy, kept: Kept | None, exact: bool) -> Light:
    bound = policy.kept.bound
    if kept is None:
        return Light(
            "amber", "undecided", None, None, None, 0, bound, "Retention was not measured: there are no retain rows."
        )
    value, n, rise = kept.loss, len(kept.instances), kept.general
    worst = tuple(one.instance for one in kept.instances if one.loss > bound)

    def light(color: Color, word: str, why: str) -> Light:
        return Light(color, word, value.value, value.low, value.high, n, bound, why, worst)

    if value.value > bound and (value.low is None or value.low > 0):
        return light("red", "damaged", f"{100 * value.value:.0f} % of the tokens of retained answers are lost.")
    if rise is not None and rise.value > policy.kept.general and (rise.low is None or rise.low > 0):
        return light("red", "damaged", f"The loss on general text rose by {rise.value:.2f} nats per token.")
    if rise is not None and (rise.high is None or rise.high > policy.kept.general):
        return light("amber", "undecided", "The interval of the loss on general text reaches beyond the bound.")
    if exact and value.value <= bound:
        return light("green", "kept", "The model was trained on the retained rows, and answers them as before.")
    return _by_interval(policy, light, n, value.high, bound, "kept", "loss of retention")


def _resists(policy: Policy, known: Exposure, resisted: Resisted | None, gone: bool) -> Light:
    bound = policy.resists.bound
    if resisted is None or not resisted.settings:
        return Light("amber", "undecided", None, None, None, 0, bound, "No attack was run.")
    top = max(resisted.settings, key=lambda one: one.leakage.value)
    bounded = [one for one in resisted.settings if one.leakage.high is not None]
    highest = max(bounded, key=lambda one: one.leakage.high or 0.0, default=top)
    strong = sorted((one for one in resisted.settings if one.leakage.value > bound), key=lambda one: -one.leakage.value)
    worst = tuple(f"{one.attack}: {one.setting}" for one in strong or [top])
    smallest = min(one.corrected for one in resisted.settings)

    def light(color: Color, word: str, why: str) -> Light:
        value = top.leakage
        return Light(color, word, value.value, value.low, value.high, resisted.n, bound, why, worst, smallest)

    if not is_known(known, policy.level):
        return light(
            "amber", "not known", "The model did not know these facts before, so an attack has nothing to bring back."
        )
    leaks = [one for one in strong if one.corrected <= policy.level / (_EXACT if gone else 1)]
    if leaks:
        share = f"{100 * leaks[0].leakage.value:.0f} %"
        return light("red", "leaks", f"The attack {leaks[0].attack} ({leaks[0].setting}) brings {share} of it back.")
    if resisted.left_out:
        return light("amber", "undecided", f"Not all attacks were run; left out: {', '.join(resisted.left_out)}.")
    if gone and smallest > policy.level:
        many = len(resisted.settings)
        why = (
            "The model was trained without these rows, and "
            + (f"the strongest of {many} attacks brings" if many > 1 else "the attack brings")
            + " no more back than chance does"
            + (f" in the strongest of {many}." if many > 1 else ".")
        )
        return light("green", "resists", why)
    what = f"leakage that reaches highest ({highest.attack}, {highest.setting})"
    return _by_interval(policy, light, resisted.n, highest.leakage.high, bound, "resists", what)


def _by_interval(policy: Policy, light: Any, n: int, high: float | None, bound: float, word: str, what: str) -> Light:
    """Return green if the interval ends below the bound and there are enough instances, else amber."""
    found: Light
    if n < policy.least_instances or high is None:
        few = "One instance is" if n == 1 else f"{n} instances are"
        why = f"{few} too few to say more; {policy.least_instances} are needed."
        found = light("amber", "undecided", why)
    elif high > bound:
        found = light("amber", "undecided", f"The interval of the {what} reaches beyond the bound.")
    else:
        found = light("green", word, f"The interval of the {what} ends below the bound.")
    return found
