"""World facts: what pre-trained models know without being taught, for unlearning without fine-tuning.

About 40 countries, works out of copyright, and scientists who died before 1926. `facts.yaml` has the facts and how they are
asked; the rows are made of it when it is read.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import yaml

from scopewise.data.rows import FORGET, RETAIN, SPLITS, TRAIN, BenchmarkLoader, Row
from scopewise.errors import DataError


class WorldFacts(BenchmarkLoader):
    """Facts that a pre-trained model knows: countries, works out of copyright, scientists; no download, no fine-tuning."""

    name = "world_facts"
    domains = ("countries", "works", "scientists")
    taught = (TRAIN,)
    data: ClassVar[dict[str, Any]] = {"prompt": "Question: {question}\nAnswer: "}

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Return the rows of a domain, or of all. Raises DataError where a path is given."""
        if path is not None:
            raise DataError(
                f"data.path: {path}; the world_facts benchmark is in the package; set data.benchmark for a file"
            )
        kinds = read_facts()
        return [row for name in self.domains if domain in (None, name) for row in _rows(name, kinds[name])]


def read_facts() -> dict[str, Any]:
    """Return `facts.yaml`: kind → `attributes`, and the instances under `forget` and under `retain`."""
    file = Path(str(resources.files(__name__))) / "facts.yaml"
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def _rows(kind: str, about: dict[str, Any]) -> list[Row]:
    """Return the rows of a kind; each has the other values of its attribute as wrong answers."""
    every = {name: facts for group in (FORGET, RETAIN) for name, facts in about[group].items()}
    rows = []
    for split in SPLITS:
        for attribute, asked in about["attributes"].items():
            values = dict.fromkeys([*(facts[attribute] for facts in every.values()), *asked.get("wrong", ())])
            question, answer = asked[split]["q"], asked[split]["a"]
            for name, facts in every.items():
                value = facts[attribute]
                row = Row(
                    question.format(name=name),
                    answer.format(name=name, value=value),
                    FORGET if name in about[FORGET] and asked["scope"] == FORGET else RETAIN,
                    split,
                    instance=name,
                    attribute=attribute,
                    perturbed=tuple(answer.format(name=name, value=other) for other in values if other != value),
                    origin=f"facts.yaml: {kind}: {name}: {attribute}",
                )
                rows.append(row)
    return rows
