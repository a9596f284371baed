"""The examples of CONTRIBUTING.md are code: each is written to a file, imported, and used through the contract it shows."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from engines import engine_of
from loading import module_of
from scopewise.data.rows import Row
from scopewise.errors import DataError
from scopewise.localizers.base import Scopes
from scopewise.methods.base import Answers
from scopewise.metrics.base import Answered
from scopewise.models.score import Scored

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(\s+# src/scopewise/(\S+)\n.*?)```", TEXT, re.DOTALL)


def example(name: str, tmp_path: Path) -> Any:
    code = next(text for text, path in EXAMPLES if path.endswith(f"/{name}.py"))
    path = tmp_path / f"example_{name}.py"
    path.write_text(textwrap.dedent(code))
    return module_of(path)


def test_all_examples_are_used() -> None:
    assert [path for _, path in EXAMPLES] == [
        "methods/inverted_hinge.py", "localizers/attention.py", "metrics/exact_match.py", "data/csv_file.py",
    ]  # fmt: skip


def test_method(tmp_path: Path, sections: Any) -> None:
    """P = (.6, .3, .1), label 0, margin 1: 1 + .6 - .3 = 1.3. Its docstring makes a section."""
    given = Answers(torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.tensor([0]), torch.tensor([0]), 1)
    cls = example("inverted_hinge", tmp_path).InvertedHinge
    assert cls().forget_loss(given).tolist() == pytest.approx([1.3])
    assert "| `margin` | 1 | " in sections.section("methods", "inverted_hinge", cls)


def test_localizer(tmp_path: Path, tiny: Any, encoded: Any, sections: Any) -> None:
    cls = example("attention", tmp_path).Attention
    region = cls().region(engine_of(tiny[0]), Scopes(*encoded))
    assert len(region.names) == 8  # q, k, v, o of two layers
    assert "| `part` | `attn` | " in sections.section("localizers", "attention", cls)


def test_metric(tmp_path: Path) -> None:
    rows = [Answered(Row("q", "a", "retain"), Scored((0.0, 0.0), hits)) for hits in ((True, True), (True, False))]
    assert example("exact_match", tmp_path).ExactMatch().measure(rows).value == 50.0


def test_loader(tmp_path: Path) -> None:
    loader = example("csv_file", tmp_path).CSVFile()
    good = tmp_path / "rows.csv"
    good.write_text("question,answer,scope,split\nQ,A,forget,\nR,B,retain,val\n")
    assert [(r.answer, r.split) for r in loader.load(str(good), None)] == [("A", "train"), ("B", "val")]
    bad = tmp_path / "bad.csv"
    bad.write_text("question,answer,scope\nQ,A\n")
    with pytest.raises(DataError, match=r"bad\.csv:2: not as many cells"):
        loader.load(str(bad), None)
