"""Generators: what answers a prompt with a text, by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

from scopewise.errors import ConfigError

TEMPLATE = "template"


class Generator(ABC):
    """Answers prompts. Its replies are untrusted text."""

    name: str
    """As `--generator` names it; without a key."""

    @abstractmethod
    def ask(self, prompt: str) -> str:
        """Return the reply to a prompt. Raises ModelError if there is none."""


def generator_of(text: str) -> Generator | None:
    """Return the generator that `--generator` names; None for `template`.

    Raises:
        ConfigError: another form.
        ModelError: the model cannot be loaded.
    """
    kind, _, rest = text.partition(":")
    if text == TEMPLATE:
        return None
    if kind == "model" and rest:
        from scopewise.building.model_generator import ModelGenerator

        return ModelGenerator(rest)
    base, _, model = rest.rpartition(",")
    if kind == "openai" and base and model:
        from scopewise.building.openai_generator import OpenAIGenerator

        return OpenAIGenerator(base, model)
    raise ConfigError(f"--generator: {text!r}; write template, model:PATH or openai:BASE_URL,MODEL")
