"""Jailbreak prompts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from scopewise.attacks.base import Attack, Facts, Outcome, Work, cluster, distinctive, score_answers, words
from scopewise.data.rows import Row
from scopewise.documents import parse_yaml, read_text
from scopewise.errors import ConfigError
from scopewise.models.engine import Engine
from scopewise.registry import allowed

_SHIPPED = "prompts.yaml"
_FIELDS = ("question", "instance", "hint", "example_question", "example_answer", "cloze")


@dataclass(frozen=True)
class Template:
    """A prompt around a question.

    Attributes:
        name: `kind`, or `kind 2` for the second of a kind.
        text: The prompt, with fields in braces.
        start: Prefill of the reply.
        replace: Words of the question → their replacements.
    """

    name: str
    text: str
    start: str = ""
    replace: Mapping[str, str] = field(default_factory=dict)

    def row(self, row: Row, facts: Facts) -> Row | None:
        """Return the row with this prompt; None if the prompt does not apply or would contain the answer."""
        question = re.sub(r"\w+", lambda m: _as_cased(m[0], self.replace.get(m[0].lower(), m[0])), row.question)
        if self.replace and question == row.question:
            return None
        values = {"question": question, "instance": cluster(row)}
        lawful = facts.retained_of(row)
        if lawful:
            values |= {
                "hint": lawful[0].answer,
                "example_question": lawful[0].question,
                "example_answer": lawful[0].answer,
            }
        blanked = re.sub(r"\w[\w.+@-]*", lambda m: "___" if m[0].lower() in distinctive(row) else m[0], row.answer)
        if "___" in blanked:
            values["cloze"] = blanked
        needed = {name for name in _FIELDS if f"{{{name}}}" in self.text}
        if not row.question or needed - set(values):
            return None
        asked = self.text
        for name in needed:
            asked = asked.replace(f"{{{name}}}", values[name])
        if distinctive(row) & (set(words(asked)) - set(words(row.question))):
            return None
        return replace(row, question=asked)


@dataclass(frozen=True, kw_only=True)
class Prompts(Attack):
    """Ask with jailbreak prompts: affirmative suffix, role play, synonyms, cloze, hints, an example, other languages.

    Signal: probability of the answer with each prompt, for the rows to which the prompt applies. The package ships
    prompts, and `file` adds more.

    Source: the kinds of prompts in RWKU (Jin et al., arXiv:2406.10890), of which multiple choice and reverse query are
    separate attacks here. Deviations: RWKU's prompts were written one by one for each question and scored by ROUGE;
    ours are templates with our own wording, scored by the probability of the answer. The affirmative start may also be
    a prefill of the reply, as in Unlearning Depth Score fc31639.

    Attributes:
        file: A YAML file of additional prompts. Default: none.
    """

    file: str | None = None

    name = "prompts"
    suite = "quick"
    alone = True

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=len(self.templates()))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers with each prompt."""
        signals: dict[str, Sequence[float | None]] = {}
        texts: dict[str, Sequence[str]] = {}
        for template in self.templates():
            asked = [template.row(row, facts) for row in facts.rows]
            present = [row for row in asked if row is not None]
            if not present:
                continue
            found = iter(zip(*score_answers(subject, present, template.name, template.start), strict=True))
            both = [(None, "") if row is None else next(found) for row in asked]
            signals[template.name] = [signal for signal, _ in both]
            texts[template.name] = [text for _, text in both]
        return Outcome(facts.rows, signals, texts)

    def templates(self) -> list[Template]:
        """Return the shipped prompts and those of the user's file. Raises ConfigError if the file is wrong."""
        shipped = (resources.files("scopewise.attacks") / _SHIPPED).read_text(encoding="utf-8")
        found = read_templates(shipped, _SHIPPED)
        if self.file is not None:
            found += read_templates(self._text(), str(Path(self.file)))
        return found

    def check(self) -> None:
        """Raise ConfigError if the file does not exist or is wrong."""
        self.templates()

    def identity(self) -> dict[str, Any]:
        """Return the settings with the file's content instead of its path."""
        return {"file": None if self.file is None else hashlib.sha256(self._text().encode()).hexdigest()}

    def _text(self) -> str:
        return read_text(str(self.file), ConfigError, "attack.attack_args.prompts.file")


def read_templates(text: str, where: str) -> list[Template]:
    """Parse prompts from a YAML text. Raises ConfigError that names the wrong kind."""
    kinds = parse_yaml(text, where, ConfigError) or {}
    if not isinstance(kinds, dict):
        raise ConfigError(f"{where}: {type(kinds).__name__}; a mapping of kinds to lists of prompts")
    found = []
    for kind, entries in kinds.items():
        if not isinstance(entries, list) or not entries:
            raise ConfigError(
                f"{where}: {kind}: not a list; give one prompt or more, each on a line that begins with a dash"
            )
        for number, entry in enumerate(entries, start=1):
            name = str(kind) if number == 1 else f"{kind} {number}"
            found.append(_template(entry, name, f"{where}: {name}"))
    return found


def _template(entry: Any, name: str, where: str) -> Template:
    values = {"text": entry} if isinstance(entry, str) else entry
    if not isinstance(values, dict) or not isinstance(values.get("text"), str):
        raise ConfigError(f"{where}: a prompt is a text with {{question}} in it, or a mapping with 'text'")
    unknown = set(values) - {"text", "start", "replace"}
    if unknown:
        key = min(map(str, unknown))
        raise ConfigError(f"{where}: unknown key {key!r}; {allowed(key, ('text', 'start', 'replace'))}")
    for name_in_braces in re.findall(r"{([^{}]*)}", values["text"]):
        if name_in_braces not in _FIELDS:
            raise ConfigError(f"{where}: unknown field {{{name_in_braces}}}; {allowed(name_in_braces, _FIELDS)}")
    if "{question}" not in values["text"]:
        raise ConfigError(f"{where}: no {{question}} in it; put it where the question belongs")
    given = {key: value for key, value in values.items() if value is not None}
    replaced, start = given.get("replace", {}), given.get("start", "")
    if not isinstance(replaced, dict) or not all(isinstance(word, str) for pair in replaced.items() for word in pair):
        raise ConfigError(f"{where}: replace: {replaced!r}; a mapping of words to the words that replace them")
    if not isinstance(start, str):
        raise ConfigError(f"{where}: start: {start!r}; a text that begins the reply")
    replaced = {word.lower(): other for word, other in replaced.items()}
    return Template(name, values["text"], start, replaced)


def _as_cased(word: str, other: str) -> str:
    return other[:1].upper() + other[1:] if word[:1].isupper() else other
