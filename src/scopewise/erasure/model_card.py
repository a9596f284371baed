"""The model card of an exported model: what was removed in kind, how, the verdict and its limits; never what the rows say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from scopewise.erasure.request import REGULATIONS
from scopewise.errors import ConfigError

_LOCAL = re.compile(r"(?<![\w/:.])(?:~|\.{1,2})?/[^\s/]+/|\b[A-Za-z]:\\|\\\\\w|file:/")
"""The begin of a path of a file system; a hub name or an address of the web is none."""
_LICENSE, _LANGUAGE = re.compile(r"[a-z0-9][a-z0-9.-]*"), re.compile(r"[a-z]{2,3}|code|multilingual")
_WORDS = {"green": "yes", "amber": "undecided", "red": "no"}


@runtime_checkable
class Light(Protocol):
    """One light of a verdict: its colour, and its number with interval, count and bound."""

    @property
    def light(self) -> str:
        """`green`, `amber` or `red`."""
        ...

    @property
    def value(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def n(self) -> int: ...  # noqa: D102
    @property
    def bound(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card says. All texts are ours, not from the rows.

    Attributes:
        request: Opaque id of the request; no personal data.
        regulation: Key of `REGULATIONS`, such as `gdpr`; None if the request names none.
        facts: Number of facts that were removed.
        instances: Number of persons or works that they are about.
        method: How, in words, such as "retrained without the rows".
        verdict: Name → light, in their order.
        limits: What was not tested, and what remains, a sentence each.
        base_model: Hub name of the model that was changed; None, or a local folder: it is not named.
        license: Identifier of the model's license, such as `apache-2.0`.
        language: Codes of its languages, such as `en`.
    """

    request: str
    regulation: str | None
    facts: int
    instances: int
    method: str
    verdict: Mapping[str, Light]
    limits: tuple[str, ...]
    base_model: str | None = None
    license: str | None = None
    language: tuple[str, ...] = field(default=())


def model_card(card: Card, private: Iterable[str] = ()) -> ModelCard:
    """Return a model card that the hub accepts.

    Args:
        card: What it says.
        private: Texts that it must not contain, such as the answers of the forget rows: whole, ignoring case and spacing.
            Those of fewer than four characters are ordinary words.

    Raises:
        ConfigError: an unknown regulation, an invalid license or language, or a text of several lines, with a path, or
            with a private text in it.
    """
    if card.regulation is not None and card.regulation not in REGULATIONS:
        raise ConfigError(f"card.regulation: {card.regulation!r}; unknown; allowed: {', '.join(REGULATIONS)}")
    texts = {"request": card.request, "method": card.method}
    texts |= {f"limits[{i}]": text for i, text in enumerate(card.limits)}
    hidden = [found for found in map(_folded, private) if len(found) >= 4]
    for name, text in texts.items():
        if "\n" in text or _LOCAL.search(text):
            raise ConfigError(f"card.{name}: {text!r}; has a path or a second line; give one line without a path")
        if any(re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", _folded(text)) for secret in hidden):
            raise ConfigError(f"card.{name}: contains a forget answer; say in kind what was removed, not what it said")
    if card.license is not None and not _LICENSE.fullmatch(card.license):
        raise ConfigError(f"card.license: {card.license!r}; no identifier of a license; give one such as apache-2.0")
    for code in card.language:
        if not _LANGUAGE.fullmatch(code):
            raise ConfigError(f"card.language: {code!r}; no ISO 639 code; give one such as en")
    header = ModelCardData(
        base_model=_hub_name(card.base_model),
        language=list(card.language) or None,
        library_name="transformers",
        license=card.license,
        pipeline_tag="text-generation",
        tags=["unlearning", "scopewise"],
    )
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n{_body(card)}")


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _hub_name(name: str | None) -> str | None:
    """Return a name that may be shown and linked: not that of a folder of this machine."""
    try:
        validate_repo_id(name or "")
    except HFValidationError:
        return None
    return None if name is None or Path(name).exists() else name


def _body(card: Card) -> str:
    base = _hub_name(card.base_model)
    instances = f"{card.instances} {'person or work' if card.instances == 1 else 'persons or works'}"
    law = f" ({REGULATIONS[card.regulation].title})" if card.regulation else ""
    lines = [
        "# A language model with some knowledge removed",
        "",
        "## What was removed",
        "",
        f"{card.facts} {'fact' if card.facts == 1 else 'facts'} about {instances}, on request `{card.request}`"
        f"{law}. What they say is not told here.",
        "",
        "## How",
        "",
        f"{card.method[:1].upper()}{card.method[1:]}. The starting point was "
        + (f"[{base}](https://huggingface.co/{base})." if base else "a model that is not public."),
        "The weights in this folder are whole: there is no adapter that one could take off.",
        "",
        "## Verdict",
        "",
    ]
    if card.verdict:
        lines += ["| | verdict | value | interval | n | bound |", "|---|---|---|---|---|---|"]
    for name, light in card.verdict.items():
        word = _WORDS.get(light.light, light.light)
        shown = f"{light.value:.3g} | {light.low:.3g} to {light.high:.3g} | {light.n} | {light.bound:.3g}"
        lines.append(f"| {name.capitalize()} | **{word}** ({light.light}) | {shown} |")
    lines += (
        [
            "",
            "These figures are evidence for the exported files, from the questions and attacks that were tried.",
            "",
        ]
        if card.verdict
        else [
            "It is in the record of the request, which was made of these files. The record's folder has it as a section for a "
            "published card, `model-card-section.md`. Adding it changes this file, and `scopewise verify` "
            "then finds that it is not the one of the record.",
            "",
        ]
    )
    lines += [
        "## Limits",
        "",
        *(f"- {text}" for text in card.limits or ("None were stated.",)),
        "",
        "## Use",
        "",
        "Load it with `AutoModelForCausalLM.from_pretrained`, or with `vllm serve`. A `.gguf` file beside the weights is for "
        "llama.cpp.",
        "",
    ]
    return "\n".join(lines)
