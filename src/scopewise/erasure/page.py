"""The page for the data-protection officer: the result first, then persons, attacks, figures, settings, origin.

Made from the record alone it has no name and no text of rows. With names and answers it is for the controller only. Imports no
torch.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from scopewise.erasure import words
from scopewise.erasure.record_schema import predicate_of
from scopewise.report.templates import environment

FOLDER = Path(__file__).parent
_SHOWN = 8
"""Persons in the table; the page says how many more there are."""


@dataclass(frozen=True)
class Answers:
    """What the models say to a question, for a page that stays with the controller.

    Attributes:
        instance: The person or work.
        question: The question.
        truth: The answer that was to be forgotten.
        before: Answer of the model before.
        after: Answer of the exported model.
    """

    instance: str
    question: str
    truth: str
    before: str
    after: str


def officer_page(
    statement: Mapping[str, Any], names: Sequence[str] | None = None, answers: Sequence[Answers] = ()
) -> str:
    """Return one HTML page that prints on A4; it loads nothing and has no script.

    Args:
        statement: From `read_record`.
        names: Name of each person or work, by their number in the record; None for a page that may leave the house.
        answers: Answers before and after, the worst first.
    """
    templates = environment(FOLDER)
    templates.globals.update(words=words, marked=marked)
    predicate = predicate_of(statement)
    evidence = predicate["evidence"]
    banner = words.banner(predicate["action"]["kind"], evidence["verdict"])
    style = (FOLDER / "record.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    persons = _persons(evidence, names) if banner.judged else []
    return templates.get_template("record.html").render(
        predicate=predicate,
        banner=banner,
        persons=persons[:_SHOWN],
        more=max(0, len(persons) - _SHOWN),
        attacks=_attacks(evidence["attacks"], evidence["verdict"]["resists"]["light"]) if banner.judged else [],
        answers=answers if banner.judged else (),
        private=names is not None,
        files=len(statement["subject"]),
        by_construction=banner.judged and words.is_by_construction(predicate["action"]["kind"], evidence),
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'",
    )


def marked(text: str, truth: str, question: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a text, and whether each is a word of the true answer that the question does not give away."""
    told = _telling(truth) - _telling(question)
    for part in re.findall(r"\w+|\W+", text):
        yield part, part.casefold() in told


def _telling(text: str) -> set[str]:
    """Return the words of a text but for those of one or two letters."""
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 2 or any(map(str.isdigit, word))}


def _persons(evidence: Mapping[str, Any], names: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return the persons or works: those with facts that had to go first, of these the ones that are still known."""
    verdict = evidence["verdict"]
    known, lost = verdict["forgotten"]["bound"] or 0.0, verdict["kept"]["bound"] or 0.0
    found = []
    for one in evidence["instances"]:
        name = f"Person or work {one['number']}" if names is None else names[one["number"] - 1]
        high = one["known"] is not None and one["known"] > known
        remembered = high and (one["p"] or 0.0) <= _LEVEL
        damaged = one["lost"] is not None and one["lost"] > lost
        unsure = high and not remembered
        found.append({**one, "name": name, "remembered": remembered, "damaged": damaged, "unsure": unsure})

    def worst_first(p: Mapping[str, Any]) -> tuple[Any, ...]:
        return p["known"] is None, -p["remembered"], -p["damaged"], -(p["known"] or 0.0), -(p["lost"] or 0.0)

    return sorted(found, key=worst_first)


_LEVEL = 0.05
"""Corrected p-value up to which the facts of a person count as known."""


def _attacks(attacks: Sequence[Mapping[str, Any]], light: str) -> list[dict[str, Any]]:
    """Return each attack with its strongest setting, the strongest first, and where its bar ends (percent)."""
    strongest: dict[str, Mapping[str, Any]] = {}
    for attack in attacks:
        name = attack["name"].partition(": ")[0]
        if name not in strongest or (attack["value"] or 0.0) > (strongest[name]["value"] or 0.0):
            strongest[name] = attack
    end = max(1.0, *(attack[key] or 0.0 for attack in strongest.values() for key in ("value", "bound")), 0.0)

    def at(value: float | None) -> float | None:
        return None if value is None else round(100 * min(max(value, 0.0), end) / end, 2)

    found = [
        {
            **attack,
            "title": words.ATTACKS.get(name, name),
            "setting": words.setting(name, attack["name"].partition(": ")[2]),
            "at": {key: at(attack[key]) for key in ("value", "low", "high", "bound")},
            "above": (above := attack["bound"] is not None and (attack["value"] or 0.0) > attack["bound"]),
            "leaks": above and light != "green",
        }
        for name, attack in strongest.items()
    ]
    return sorted(found, key=lambda one: -(one["value"] or 0.0))
