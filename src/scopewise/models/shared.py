"""Several models in memory at a time: adapters of one base share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from scopewise.config import ModelSection
from scopewise.models.adapters import shares_base
from scopewise.models.architecture import is_quantized
from scopewise.models.checked import attach, reading, tensor_shapes
from scopewise.models.load import adapter_base, load_model, revision_of
from scopewise.models.parallel.processes import default_device


class SharedModels:
    """Models by path, each loaded once; an adapter is attached to a base that is loaded already.

    Target, unlearned model and oracle of a run then need the memory of one or two models: unlearned adapters sit on the target
    (full fine-tuning), or all are adapters of one base (LoRA). Not thread-safe.

    Args:
        section: How models are loaded; None as they are stored.
    """

    def __init__(self, section: ModelSection | None = None) -> None:
        self._section = section or ModelSection()
        self._bases: dict[str, PreTrainedModel | PeftModel] = {}
        self._adapters: dict[str, tuple[str, str]] = {}  # path → its base, and the adapter's name on it

    def load(self, path: str | Path) -> None:
        """Load a model that is not loaded yet. Raises ModelError as `load_model` does."""
        self._find(path)

    @contextmanager
    def use(self, path: str | Path) -> Iterator[PreTrainedModel | PeftModel]:
        """Return the model at `path` in evaluation mode, with its adapter active, or with all adapters disabled."""
        base, adapter = self._find(path)
        model = self._bases[base]
        if adapter is not None:
            assert isinstance(model, PeftModel)
            model.set_adapter(adapter, inference_mode=True)
            yield model
        elif isinstance(model, PeftModel):
            with model.disable_adapter():
                yield model
        else:
            yield model

    def _find(self, path: str | Path) -> tuple[str, str | None]:
        key = _key(path)
        if key in self._adapters:
            return self._adapters[key]
        if key in self._bases:
            return key, None
        below = adapter_base(path, revision_of(path, self._section))
        # An adapter on an adapter, and one that changes the base, get a base of their own.
        if below is None or adapter_base(below) is not None or not self._shares_base(Path(path)):
            model: Any = load_model(path, self._section)
            loaded = model if is_quantized(model) else model.to(default_device())
            self._bases[key] = loaded.requires_grad_(False).eval()
            if below is None:
                return key, None
            self._adapters[key] = key, "default"
            return self._adapters[key]
        base, _ = self._find(below)
        name = f"adapter{len(self._adapters)}"
        self._bases[base] = attach(self._bases[base], Path(path), name).eval()
        self._adapters[key] = base, name
        return base, name

    @staticmethod
    def _shares_base(folder: Path) -> bool:
        if not folder.is_dir():  # of the hub
            return False
        with reading(folder, "not an adapter that can be loaded", "give one that PEFT has saved"):
            return shares_base(PeftConfig.from_pretrained(str(folder)), tensor_shapes(folder))


def _key(path: str | Path) -> str:
    """Return one name for a folder however it is written, and hub names as they are."""
    return str(Path(path).resolve()) if Path(path).is_dir() else str(path)
