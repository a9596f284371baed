"""Several models in the memory of few: adapters of one base share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from scopewise.models.load import adapter_base, default_device, load_model


class SharedModels:
    """Models by path, each loaded once; an adapter goes onto the base that is there already.

    A run's target is the base of its unlearned adapters (full fine-tuning), or target and unlearned models are adapters of
    one base (LoRA): either way three answers need the memory of one or two models, not of three. Not for threads.

    Args:
        dtype: As `load_model` takes it.
        revision: Hub revision of `base`.
        base: The path that the revision belongs to.
    """

    def __init__(self, dtype: str = "auto", revision: str | None = None, base: str | None = None) -> None:
        self._dtype, self._revision, self._revised = dtype, revision, base
        self._bases: dict[str, PreTrainedModel | PeftModel] = {}
        self._adapters: dict[str, tuple[str, str]] = {}  # path → its base, and the adapter's name on it

    def load(self, path: str | Path) -> None:
        """Load a model, unless it is here. Raises ModelError as `load_model` does."""
        self._find(path)

    @contextmanager
    def use(self, path: str | Path) -> Iterator[PreTrainedModel | PeftModel]:
        """Give the model at `path`, in evaluation mode; its adapter is switched on, or all are switched off."""
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
        below = adapter_base(path, self._revision if str(path) == self._revised else None)
        # An adapter of an adapter is rare enough to stand by itself.
        if below is None or adapter_base(below) is not None:
            self._bases[key] = self._loaded(path)
            return key, None
        base, _ = self._find(below)
        model, name = self._bases[base], f"adapter{len(self._adapters)}"
        if isinstance(model, PeftModel):
            model.load_adapter(str(path), adapter_name=name, is_trainable=False)
        else:
            model = PeftModel.from_pretrained(model, str(path), adapter_name=name, use_safetensors=True)
        self._bases[base] = model.eval()
        self._adapters[key] = base, name
        return base, name

    def _loaded(self, path: str | Path) -> PreTrainedModel | PeftModel:
        revision = self._revision if str(path) == self._revised else None
        model = load_model(path, self._dtype, revision)
        return model.to(default_device()).requires_grad_(False).eval()  # type: ignore[arg-type, return-value]


def _key(path: str | Path) -> str:
    """Return one name for a folder however it is written, and hub names as they are."""
    return str(Path(path).resolve()) if Path(path).is_dir() else str(path)


def context_tokens(model: torch.nn.Module) -> int | None:
    """Return how many tokens a model can read, where its configuration says so."""
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    return getattr(config, "max_position_embeddings", None)
