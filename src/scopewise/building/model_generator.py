"""A generator that is a causal LM on this machine."""

from __future__ import annotations

from scopewise.building.generator import Generator
from scopewise.config import DataSection
from scopewise.data.rows import RETAIN, Row
from scopewise.models.engine import Engine
from scopewise.models.load import load_tokenizer

_LENGTH = 2048


class ModelGenerator(Generator):
    """A local model: greedy, by its chat template if its tokenizer has one.

    Args:
        path: Folder or hub name.
        max_new_tokens: Longest reply.
    """

    def __init__(self, path: str, max_new_tokens: int = 256) -> None:
        self.name = f"model:{path}"
        self._new = max_new_tokens
        chat = load_tokenizer(path).chat_template is not None
        self._engine = Engine.load(
            path, data=DataSection(prompt="chat" if chat else "plain", max_length=_LENGTH), name=""
        )

    def ask(self, prompt: str) -> str:
        """Return the greedy continuation."""
        (item,) = self._engine.encode([Row(prompt, ".", RETAIN, origin=self.name)])
        ((text,),) = self._engine.generate([item.prompt_ids], self._new)
        return text
