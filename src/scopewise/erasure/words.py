"""What a verdict says in words without terms of the field, the same on the terminal, the page and the playground.

Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TITLES = {"forgotten": "Forgotten", "kept": "Kept", "resists": "Resists"}
"""Light → its title."""
SHAPES = {"green": "●", "amber": "▲", "red": "■"}
"""Color → the shape that says the same."""
DONE = {
    "exact": "trained again from its base, without these rows",
    "approximate": "changed by an approximate method",
    "nothing": "nothing",
}
"""Kind of the plan → what was done."""
ATTACKS = {
    "question": "asked as before",
    "prompts": "tricky prompts",
    "sampling": "many answers drawn",
    "quantization": "fewer bits per weight",
    "relearning": "fine-tuned further",
}
"""Attack → what it does, on the page."""
_ROUNDED = {"int8": "rounded to 8 bits", "int4": "rounded to 4 bits", "nf4": "rounded to 4 bits (NF4)"}
_TRAINED_ON = {
    "forget rows of others": "removed facts of others",
    "retain rows": "what was kept",
    "general text": "general text",
}
_WORDS = {"forgotten": ("forgotten", "not forgotten"), "kept": ("kept", "damaged"), "resists": ("resists", "leaks")}
_RED = {
    "forgotten": "the model still knows facts of this request",
    "kept": "the model lost other knowledge",
    "resists": "attacks bring the facts back",
}
_AMBER = {
    "forgotten": "the facts are forgotten",
    "kept": "other knowledge is kept",
    "resists": "attacks bring the facts back",
}


def setting(attack: str, name: str) -> str:
    """Return the setting of an attack in words; as it is if there are none for it."""
    match attack:
        case "question":
            return ""
        case "prompts":
            return re.sub(r" \d+$", "", name).replace("_", " ")
        case "sampling":
            return f"{name} answers"
        case "quantization":
            return _ROUNDED.get(name, name)
        case "relearning" if len(parts := name.split(", ")) == 3:
            return f"{parts[2]} of training on {_TRAINED_ON.get(parts[0], parts[0])}, learning {parts[1]}"
    return name


@dataclass(frozen=True)
class Banner:
    """The result of a request.

    Attributes:
        color: `green`, `amber` or `red`; `plain` if there was nothing to do.
        word: The result, such as `Passed`.
        sentence: What that means.
        judged: Whether the three lights mean anything.
    """

    color: Literal["green", "amber", "red", "plain"]
    word: str
    sentence: str
    judged: bool

    @property
    def text(self) -> str:
        """Word and sentence."""
        return f"{self.word}. {self.sentence}"


def banner(kind: str, lights: Mapping[str, Mapping[str, Any]] | None) -> Banner:
    """Return the result of a request.

    Args:
        kind: Of the plan: `nothing`, `exact` or `approximate`.
        lights: Name → light, as `Verdict.document` or a record has them; None without a verdict.
    """
    if lights is None:
        if kind == "nothing":
            sentence = "The model did not show that it knew these facts when it was tested. It was not changed."
            return Banner("plain", "Nothing to do", sentence, False)
        return Banner("amber", "Not tested", "The model was not tested after the change.", False)
    if lights["forgotten"].get("word") == "not known":
        sentence = "The model did not show these facts before, so no test can show that they were forgotten."
        return Banner("red", "Not valid", sentence, False)
    colors = {name: light["light"] for name, light in lights.items()}
    red, amber = ([name for name, color in colors.items() if color == wanted] for wanted in ("red", "amber"))
    if red == ["resists"] and colors["forgotten"] == "green":
        sentence = "Asked plainly, the model does not tell these facts, but attacks bring them back."
        return Banner("red", "Not passed", sentence, True)
    if red:
        return Banner("red", "Not passed", _sentence(_joined([_RED[name] for name in red], "and")), True)
    if amber:
        open_ = _joined([_AMBER[name] for name in amber], "or")
        return Banner("amber", "Not decided", f"No test failed, but the evidence does not show whether {open_}.", True)
    sentence = (
        "The model answers questions about these facts no better than a guess, it kept the other knowledge that was "
        "tested, and no attack that was tried brought the facts back."
    )
    return Banner("green", "Passed", sentence, True)


def result(name: str, light: Mapping[str, Any]) -> str:
    """Return what a light says in one or two words, such as `not forgotten`."""
    green, red = _WORDS[name]
    return light.get("word") or {"green": green, "red": red}.get(light["light"], "undecided")


def figure(value: float | None) -> str:
    """Return a figure of a light, rounded for reading."""
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"  # 0 has no sign


def interval(part: Mapping[str, Any]) -> str:
    """Return an interval of a light, rounded for reading; empty without one."""
    low, high = part.get("low"), part.get("high")
    return "" if low is None or high is None else f"{figure(low)} to {figure(high)}"


def chance(p: float | None) -> str:
    """Return a p-value, rounded for reading."""
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


BY_CONSTRUCTION = (
    "Green because the model was trained again without these rows. The tests do not speak against it, but by themselves they "
    "are too few to show it: a figure, or its interval, reaches beyond its bound."
)
"""What is said with a green light whose figures alone would not be enough."""


def is_by_construction(kind: str, evidence: Mapping[str, Any]) -> bool:
    """Return whether a green light of a retrained model has a figure, or an interval, beyond its bound."""
    if kind != "exact" or evidence["verdict"] is None:
        return False
    green = [light for light in evidence["verdict"].values() if light["light"] == "green"]
    attacks = evidence["attacks"] if evidence["verdict"]["resists"] in green else []
    bounded = [one for one in (*green, *attacks) if one["bound"] is not None]
    return any(one["high"] is None or one["high"] > one["bound"] for one in bounded)


def tests(evidence: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    """Return the lights and the attacks of a record's evidence, each with its title and its result: a color, or `_place`."""
    lights = evidence["verdict"]
    found = [(TITLES[name], light, light["light"]) for name, light in lights.items()]
    return found + [
        (f"Attack {one['name']}", one, one["light"] or _place(one, lights["resists"]["light"]) or "-")
        for one in evidence["attacks"]
    ]


def _place(attack: Mapping[str, Any], resists: str) -> str:
    """Return where the figure of an attack is, beside its bound; empty without a bound.

    Args:
        attack: Of a record.
        resists: Color of *Resists*: where it is green, chance alone explains a figure above the bound.
    """
    if attack["bound"] is None or attack["value"] is None:
        return ""
    if attack["value"] > attack["bound"]:
        return "above, as by chance" if resists == "green" else "above"
    return "below, interval above" if (attack["high"] or 0.0) > attack["bound"] else "below"


def _joined(parts: list[str], last: str) -> str:
    *first, end = parts
    return f"{', '.join(first)}{',' if len(first) > 1 else ''} {last} {end}" if first else end


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
