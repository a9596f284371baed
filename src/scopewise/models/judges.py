"""Local classifiers that judge generated texts: entailment, fluency. No text leaves the machine."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scopewise.bars import bar
from scopewise.models.load import load_classifier
from scopewise.models.parallel.processes import default_device

_ROWS = 32


def class_probabilities(path: str, texts: Sequence[tuple[str, ...]], description: str) -> list[dict[str, float]]:
    """Return class → probability, by a sequence classifier, of each text or pair of texts.

    Args:
        path: Folder or hub name of the classifier (safetensors).
        texts: `(text,)` or `(premise, hypothesis)` each.
        description: Of the progress bar.

    Raises:
        ModelError: there is no such classifier.
    """
    model, tokenizer = load_classifier(path)
    model = model.to(default_device())  # type: ignore[arg-type]
    labels = [str(model.config.id2label[i]).lower() for i in range(model.config.num_labels)]
    found: list[dict[str, float]] = []
    with torch.inference_mode(), bar(len(texts), description) as progress:
        for start in range(0, len(texts), _ROWS):
            part = texts[start : start + _ROWS]
            given = [list(column) for column in zip(*part, strict=True)]
            inputs = tokenizer(*given, padding=True, truncation=True, return_tensors="pt").to(model.device)
            for row in model(**inputs).logits.float().softmax(-1).tolist():
                found.append(dict(zip(labels, row, strict=True)))
            progress.update(len(part))
    return found
