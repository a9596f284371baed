"""The tables of methods, localizers, metrics and benchmarks are literal dicts of `module:Class`; this reads them."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from scopewise.errors import ConfigError

TABLES: Mapping[str, str] = {
    "methods": "scopewise.methods:METHODS",
    "localizers": "scopewise.localizers:LOCALIZERS",
    "metrics": "scopewise.metrics:METRICS",
    "benchmarks": "scopewise.data:BENCHMARKS",
    "attacks": "scopewise.attacks:ATTACKS",
}


_ALIASES: Mapping[str, str] = {"validation": "val", "training": "train"}
"""What others call it, where that is too far from our name to be found by its letters."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known name nearest to `name`, or an empty string."""
    by_lower = {other.lower(): other for other in known}
    if (alias := _ALIASES.get(name.lower().strip("'\""))) in by_lower:
        return f" Did you mean {alias!r}?"
    match = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" Did you mean {by_lower[match[0]]!r}?" if match else ""


def allowed(name: str, known: Iterable[str], advice: str = "") -> str:
    """Return what a sentence says of a name that is not known: `allowed are a, b; advice. Did you mean 'a'?`."""
    known = list(known)
    return f"allowed are {', '.join(known)}{advice and f'; {advice}'}.{nearest(name, known)}"


def table(kind: str) -> Mapping[str, str]:
    """Return the table of a kind (`methods`, …): name → `module:Class`. Imports no torch."""
    if kind not in TABLES:
        raise ConfigError(f"kind: {kind!r}; {allowed(kind, TABLES)}")
    module, _, attribute = TABLES[kind].partition(":")
    return getattr(importlib.import_module(module), attribute)


def canonical(kind: str, name: str) -> str:
    """Return the table key for a name written with dashes or underscores.

    Raises:
        ConfigError: there is no such name; the sentence lists the known ones and the nearest.
    """
    known = table(kind)
    key = name.replace("-", "_")
    if key not in known:
        raise ConfigError(f"{kind[:-1]}: {name!r}; {allowed(key, known)}")
    return key


def lookup(kind: str, name: str) -> Any:
    """Import and return the class that a table gives for `name`. Raises ConfigError for an unknown name."""
    module, _, attribute = table(kind)[canonical(kind, name)].partition(":")
    return getattr(importlib.import_module(module), attribute)


def summary(target: str) -> str:
    """Return the first docstring line of `module:Class` without importing the module (which may import torch)."""
    module, _, attribute = target.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            return inspect.cleandoc(ast.get_docstring(node) or "").split("\n", 1)[0]
    return ""
