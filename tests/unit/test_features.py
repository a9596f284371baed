"""The table of features: each names tests that exist, and nothing of the tables and commands is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from loading import module_of
from scopewise import registry

ROOT = Path(__file__).parents[2]
GROUPS = {
    "methods": "Methods",
    "wrappers": "Wrappers",
    "localizers": "Localizers",
    "metrics": "Metrics",
    "attacks": "Attacks",
    "benchmarks": "Data",
}
"""The heading under which the entries of each table stand."""


def lines() -> list[tuple[str, str, str]]:
    """Heading, feature and test of each line."""
    found, heading = [], ""
    for line in (ROOT / "docs" / "features.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("| ") and line != "| feature | test |":
            feature, test = line.strip("| ").rsplit(" | ", 1)
            found.append((heading, feature, test.strip("`")))
    return found


def functions_of(file: Path) -> set[str]:
    """The names of a file's test functions, without importing it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_test_exists() -> None:
    named = [test.split("::") for _, _, test in lines()]
    assert len(named) > 200
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file() or test not in functions_of(ROOT / file)
    ]
    assert not missing, f"docs/features.md: {missing}: no such test; name the one that shows the feature now"


@pytest.mark.parametrize("kind", registry.TABLES)
def test_every_entry_has_a_line(kind: str) -> None:
    named = {
        name for heading, feature, _ in lines() if heading == GROUPS[kind] for name in re.findall(r"`(\w+)`", feature)
    }
    missing = set(registry.table(kind)) - named
    assert not missing, (
        f"docs/features.md: {sorted(missing)}: add a line under {GROUPS[kind]}, with the test that shows it"
    )


def test_every_command_has_a_line() -> None:
    named = {
        n
        for heading, feature, _ in lines()
        if heading == "Commands"
        for n in re.findall(r"`scopewise ([a-z-]+)", feature)
    }
    assert named == set(module_of(ROOT / "docs" / "make_cli.py").commands())


@pytest.mark.parametrize("name", ["ga_descent_general", "ga_kl_general"])
def test_general_methods_keep_general_text(name: str, tiny: Any, make_trainer: Any, general: Any, retain: Any) -> None:
    """The rows to keep are the general text; the method without `_general` keeps the retain rows."""
    model, tokenizer = tiny
    kept = make_trainer(model, tokenizer, name).train_dataset.retain
    assert [item.row.answer for item in kept] == [row.answer for row in general]
    usual = make_trainer(model, tokenizer, name.removesuffix("_general")).train_dataset.retain
    assert [item.row.answer for item in usual] == [row.answer for row in retain]
