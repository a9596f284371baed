"""Write the sections of the reference pages from the docstrings; `--check` compares."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

from scopewise.attacks.base import Attack
from scopewise.localizers.base import Localizer, ScoreLocalizer
from scopewise.methods.base import READ_THE_REFERENCE, Method
from scopewise.methods.wrappers.base import Wrapper
from scopewise.metrics.base import Aggregate, Metric, RowMetric
from scopewise.metrics.columns import Declaration
from scopewise.registry import lookup, table

FOLDER = Path(__file__).parent
SCOPES = {
    "forget": "rows of the forget scope",
    "retain": "rows of the retain scope",
    "both": "rows of both scopes together",
    "each": "rows of each scope, one value per scope",
    "membership": "forget rows against holdout rows",
}
READ = {
    "best": "leakage at the best setting for each model (highest mean signal)",
    "mean": "leakage of the mean over settings",
    "recovery": "leakage at the best settings, as a share of what the target knows without the attack",
}
KEPT = {"retain": "retain rows", "general": "general text", "both": "retain rows and general text"}


# -- the line of facts about each class, read from its attributes ---------------------------------------------------


def metric(cls: type) -> str:
    """Return the rows or metrics that a metric is computed from, its unit, direction, needs and label."""
    over = f"over {SCOPES[cls.scope]}" if issubclass(cls, RowMetric) else "computed from other metrics"
    needs = f"; needs {', '.join(sorted(cls.needs))}" if cls.needs else ""
    kind = "Aggregate, " if issubclass(cls, Aggregate) else ""
    about = Declaration.of(cls)
    unit = f", in {about.unit}" if about.unit else ""
    return f"{kind}{over}{unit}; {about.direction}{needs}; in tables: {about.label}"


def attack(cls: type) -> str:
    """Return the suite of an attack, and how its settings are combined."""
    return f"suite {cls.suite}; {READ[cls.combine]}{'; needs the weights of the target' if cls.needs_target else ''}"


def method(cls: type[Method]) -> str:
    """Return a method's retain term, reduction and localizer, and what it needs from the model before unlearning."""
    made = cls()
    facts = [
        f"retain term `{made.retain}` over {KEPT[made.retain_data]}" if made.retain_terms else "no retain term",
        f"mean over {'answers' if made.reduction == 'sequence_mean' else 'tokens of a step'}",
        f"localizer `{made.localizer}`",
    ]
    if cls.searched:
        ranges = (f"`{knob}` from {low:g} to {high:g}" for knob, (low, high) in cls.searched.items())
        facts.append(f"searched in the `tuned` protocol: {', '.join(ranges)}")
    before = {
        "labels": cls.relabel is not Method.relabel,
        "statistics of all forget rows": cls.statistics is not Method.statistics,
        "preferred answers": made.answers_from is not None,
        "the NLL of each answer": "reference_nll" in made.needs,
        "the retain loss": cls.dual is not Method.dual,
    }
    if any(before.values()):
        facts.append(f"computed before the first step: {', '.join(what for what, wanted in before.items() if wanted)}")
    if made.needs_reference:
        forget = ["forget rows"] if "reference_logits" in made.needs else []
        retain = [KEPT[made.retain_data]] if READ_THE_REFERENCE & set(made.retain_terms) else []
        facts.append(f"each step also runs the model before unlearning on {' and '.join(forget + retain)}")
    return "; ".join(facts)


def wrapper(cls: type[Wrapper]) -> str:
    """Return where a wrapper acts."""
    hooks = {
        "changes the model before the first step": "begin",
        "changes how the gradient of a term is computed": "gradient",
        "changes the gradients of both terms before they are added": "combine",
        "a further training follows": "then",
    }
    return "; ".join(what for what, hook in hooks.items() if getattr(cls, hook) is not getattr(Wrapper, hook))


def localizer(cls: type[Localizer]) -> str:
    """Return whether a localizer scores weights, whether it takes the size of another, and which methods default to it."""
    names = list(table("methods"))
    users = [f"`{name}`" for name in names if lookup("methods", name).localizer == cls.name]
    of = f"{len(users)} of {len(names)} methods" if len(users) > 3 else " and ".join(users) or "no method"
    scores = "scores every weight; " if issubclass(cls, ScoreLocalizer) else ""
    size = "takes the size of another region; " if cls().takes_size_of else ""
    return f"{scores}{size}the default of {of}"


# -- options: defaults from the code, meaning and origin from the docstrings ----------------------------------------


@dataclass(frozen=True)
class Options:
    """How the options of a kind of class are shown.

    Attributes:
        called: The word for one option.
        base: Base class; the options that it describes are in the general part of the page.
        none: Text for a class without options, with `{called}` for the word.
    """

    called: str
    base: type
    none: str = "No {called} of its own.\n"


HEADING = "Attributes"
"""The last heading of a docstring: a class describes the settings that it adds, or whose default it changes."""


HYPER_PARAMETERS = Options("hyper-parameter", Method)
WRAPPER_SETTINGS = Options("setting", Wrapper)
LOCALIZER_SETTINGS = Options("setting", Localizer)
ATTACK_SETTINGS = Options("setting", Attack, none="")
METRIC_SETTINGS = Options("setting", Metric, none="")


def described(cls: type) -> dict[str, str]:
    """Return the descriptions under the last heading of a docstring, as name → text."""
    under = inspect.cleandoc(cls.__doc__ or "").partition(f"\n{HEADING}:\n")[2]
    found = re.findall(r"^ {4}(\w+):(.*(?:\n {5}.*)*)", under, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def options_table(cls: type, options: Options, where: str) -> str:
    """Return the table of the options of a class and its bases; each description is that of the nearest class."""

    def undescribed(base: type, name: str) -> NoReturn:
        refuse(
            where,
            f"the {options.called} {name!r} is not described",
            f"add '{name}: what it is. Default: its origin.' to '{HEADING}:' of {base.__name__}",
        )

    defaults = {field.name: field.default for field in fields(cls)}
    meanings: dict[str, str] = {}
    origins: dict[str, str] = {}
    for base in cls.__mro__[: cls.__mro__.index(options.base) + 1]:
        said = described(base)
        for name in said.keys() - defaults.keys():
            refuse(where, f"{name!r} stands under '{HEADING}:' and is no {options.called}", "correct its name")
        for name, text in said.items():
            meaning, _, origin = text.partition("Default: ")
            meanings[name] = meanings.get(name) or meaning.strip()
            if base is not options.base:
                origins.setdefault(name, origin.rstrip("."))
        for name in sorted(set(inspect.get_annotations(base)) & defaults.keys()):
            if "Default: " not in said.get(name, ""):
                undescribed(base, name)
    for name in origins:
        if not meanings[name]:
            undescribed(cls, name)
    rows = [(f"`{name}`", shown(defaults[name]), meanings[name], origins[name]) for name in origins]
    if not rows:
        return options.none.format(called=options.called)
    lines = [("name", "default", "meaning", "default from"), ("---",) * 4, *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def shown(default: object) -> str:
    """Return a default as it is written in a run file."""
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"{default:g}" if isinstance(default, float | int) else f"`{default}`"


def refuse(where: str, wrong: str, remedy: str) -> NoReturn:
    """Stop with one sentence."""
    sys.exit(f"{where}: {wrong}; {remedy}")


# -- pages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """The page of a table.

    Attributes:
        name: File name.
        level: Markdown heading level of a section.
        facts: Returns the line of facts about a class.
        paragraphs: How the required paragraphs of a docstring begin.
        options: The options that a docstring describes; None if there are none.
    """

    name: str
    level: str
    facts: Callable[[type], str]
    paragraphs: tuple[str, ...] = ()
    options: Options | None = None


CHOICE = ("Choose it", "Source:", "Deviations:")
PAGES = {
    "metrics": Page("metrics.md", "##", metric, options=METRIC_SETTINGS),
    "attacks": Page("attacks.md", "##", attack, options=ATTACK_SETTINGS),
    "methods": Page("methods.md", "###", method, CHOICE, HYPER_PARAMETERS),
    "wrappers": Page("methods.md", "###", wrapper, CHOICE, WRAPPER_SETTINGS),
    "localizers": Page("methods.md", "###", localizer, CHOICE, LOCALIZER_SETTINGS),
}


def paragraphs_of(cls: type) -> list[str]:
    """Return the paragraphs of a docstring, without its options.

    What the abstract bases in the same file say of their family, after their first line, comes before `Source:`.
    """
    own, *bases = [
        inspect.cleandoc(base.__doc__ or "").partition(f"\n{HEADING}:\n")[0].strip("\n").split("\n\n")
        for base in cls.__mro__
        if base.__module__ == cls.__module__
    ]
    at = next((i for i, paragraph in enumerate(own) if paragraph.startswith("Source:")), len(own))
    family = [paragraph for base in bases for paragraph in base[1:] if not paragraph.startswith(CHOICE)]
    return own[:at] + family + own[at:]


def section(kind: str, name: str, cls: type) -> str:
    """Return the section for a row of a table: the line of facts, the docstring, and the table of options."""
    page, where = PAGES[kind], f"{kind} {name}"
    paragraphs = paragraphs_of(cls)
    for lead in page.paragraphs:
        if not any(paragraph.startswith(lead) for paragraph in paragraphs):
            refuse(where, f"no paragraph begins with '{lead}'", f"add one to the docstring of {cls.__name__}")
    facts = page.facts(cls)
    parts = [f"{page.level} {name}", *map(markdown, [f"*{facts[0].upper()}{facts[1:]}.*", *paragraphs])]
    text = "\n\n".join(parts) + "\n"
    options = options_table(cls, page.options, where) if page.options else ""
    return text + (f"\n{options}" if options else "")


def markdown(paragraph: str) -> str:
    """Return a paragraph re-wrapped, with its lead in bold; an indented paragraph is a formula and is not changed."""
    if paragraph.startswith("    "):
        return paragraph
    lines = textwrap.fill(" ".join(paragraph.split()), 120, break_long_words=False, break_on_hyphens=False)
    return re.sub(rf"^({'|'.join(CHOICE)})", r"**\1**", lines)


def main() -> None:
    """Write the sections of each table between the markers of its page; with `--check`, compare them."""
    for kind, page in PAGES.items():
        path = FOLDER / page.name
        begin, end = f"<!-- begin: {kind} -->\n", f"<!-- end: {kind} -->\n"
        old = path.read_text(encoding="utf-8")
        before, _, rest = old.partition(begin)
        after = rest.partition(end)[2]
        sections = "\n".join(section(kind, name, lookup(kind, name)) for name in table(kind))
        text = f"{before}{begin}\n{sections}\n{end}{after}"
        if sys.argv[1:] != ["--check"]:
            path.write_text(text, encoding="utf-8")
        elif text != old:
            sys.exit(f"docs/{page.name} is out of date; run `make docs`")


if __name__ == "__main__":
    main()
