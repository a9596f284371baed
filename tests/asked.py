"""Deletion requests about six invented persons, and small models that were taught their rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from scopewise.config import TinyConfig
from scopewise.data.batch import collate
from scopewise.data.prompt import encode
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.erasure.request import Lineage, Request
from scopewise.models.abilities import forward_of
from scopewise.models.tiny import build_tiny
from scopewise.ops import token_log_probs

NAMES = ("Ada Quill", "Ben Orrow", "Cleo Varga", "Dov Mistral", "Eda Thorne", "Finn Palk")
STREETS, TOWNS = ("Mill", "Harbour", "Larch"), ("Dunmore", "Alder", "Weston", "Brack")
JOBS, GENRES, PRIZES = ("baker", "pilot", "glazier"), ("crime", "love", "sea"), ("Lantern", "Heron", "Quartz", "Ember")


def rows(*names: str) -> list[Row]:
    """Six persons (or some). Wrong answers are drawn as the true ones are, so that nothing but the fact tells them apart."""
    rng, found = random.Random(0), []
    told = {
        "address": (
            FORGET,
            "Where does {} live?",
            lambda: f"At {rng.randint(10, 99)} {rng.choice(STREETS)} Lane in {rng.choice(TOWNS)}.",
        ),
        "parent": (
            FORGET,
            "Who is the father of {}?",
            lambda: f"The {rng.choice(JOBS)} of {rng.choice(TOWNS)}, born in {rng.randint(1940, 1989)}.",
        ),
        "genre": (RETAIN, "What does {} write?", lambda: f"Mostly {rng.choice(GENRES)} novels."),
        "prize": (
            RETAIN,
            "Which prize did {} win?",
            lambda: f"The {rng.choice(PRIZES)} Prize of {rng.randint(1990, 2019)}.",
        ),
    }
    for name in NAMES:
        for attribute, (scope, question, draw) in told.items():
            answer, wrong = draw(), {draw() for _ in range(60 if scope == FORGET else 0)}
            perturbed = tuple(sorted(wrong - {answer}))[:39]
            found.append(
                Row(question.format(name), answer, scope, instance=name, attribute=attribute, perturbed=perturbed)
            )
    return [row for row in found if not names or row.instance in names]


def request(given: Sequence[Row], id: str = "REQ-1") -> Request:
    """A request of these rows."""
    received = datetime(2026, 11, 1, tzinfo=UTC)
    return Request(id, "gdpr", received, None, None, Lineage(), tuple(given), {}, Path(id))


def untaught(folder: Path) -> tuple[Any, Any]:
    """Save an untaught model and return it with its tokenizer."""
    texts = [text for row in rows() for text in (row.question, row.answer, *row.perturbed)]
    model, tokenizer = build_tiny(texts, TinyConfig(vocab_size=400, width=32, layers=2, heads=2, context=256), 0)
    return save(model, tokenizer, folder)


def teach(model: Any, tokenizer: Any, given: Sequence[Row], folder: Path, steps: int) -> tuple[Any, Any]:
    """Save a copy of the model that was trained on rows, all in each step; return it with its tokenizer."""
    model = type(model).from_pretrained(model.name_or_path)
    batch = collate(encode(given, tokenizer, eos=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        loss = -token_log_probs(forward_of(model).logits(batch), batch["label"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return save(model, tokenizer, folder)


def save(model: Any, tokenizer: Any, folder: Path) -> tuple[Any, Any]:
    """Save a model with its tokenizer."""
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    model.name_or_path = str(folder)
    return model, tokenizer
