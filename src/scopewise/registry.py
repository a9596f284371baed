"""The tables are literal dicts of `module:Class`; this reads them, and finds the plugins of other packages."""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from scopewise.errors import ConfigError

TABLES: Mapping[str, str] = {
    "methods": "scopewise.methods:METHODS",
    "wrappers": "scopewise.methods.wrappers:WRAPPERS",
    "localizers": "scopewise.localizers:LOCALIZERS",
    "metrics": "scopewise.metrics:METRICS",
    "benchmarks": "scopewise.data:BENCHMARKS",
    "attacks": "scopewise.attacks:ATTACKS",
}

BASES: Mapping[str, str] = {
    "methods": "scopewise.methods.base:Method",
    "wrappers": "scopewise.methods.wrappers.base:Wrapper",
    "localizers": "scopewise.localizers.base:Localizer",
    "metrics": "scopewise.metrics.base:Metric",
    "benchmarks": "scopewise.data.rows:BenchmarkLoader",
    "attacks": "scopewise.attacks.base:Attack",
}
"""What a class of each kind derives from."""

EXACT = frozenset({"retrain"})
"""Methods that fine-tune the base again instead of changing the target; the others approximate that."""

_ALIASES: Mapping[str, str] = {"validation": "val", "training": "train"}
"""What others call it, where that is too far from our name to be found by its letters."""


_GONE: Mapping[tuple[str, str], str] = {
    ("attacks", "relearning_retain"): "part of relearning; set attack.attack_args.relearning.data=[retain]",
    ("attacks", "relearning_unrelated"): "part of relearning; set attack.attack_args.relearning.data=[general]",
}
"""Kind and name that earlier versions had → what it is now."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known name nearest to `name`, or an empty string."""
    by_lower = {other.lower(): other for other in known}
    if (alias := _ALIASES.get(name.lower().strip("'\""))) in by_lower:
        return f" Did you mean {alias!r}?"
    match = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" Did you mean {by_lower[match[0]]!r}?" if match else ""


def allowed(name: str, known: Iterable[str], advice: str = "") -> str:
    """Return the text of a message about an unknown name: `allowed are a, b; advice. Did you mean 'a'?`."""
    known = list(known)
    return f"allowed are {', '.join(known)}{advice and f'; {advice}'}.{nearest(name, known)}"


def table(kind: str) -> Mapping[str, str]:
    """Return the table of a kind (`methods`, …): name → `module:Class`. Imports no torch."""
    if kind not in TABLES:
        raise ConfigError(f"kind: {kind!r}; {allowed(kind, TABLES)}")
    module, _, attribute = TABLES[kind].partition(":")
    return getattr(importlib.import_module(module), attribute)


def plugins(kind: str) -> dict[str, EntryPoint]:
    """Return the entry points that installed packages add to a table (group `scopewise.KIND`), by name."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"scopewise.{kind}"):
        name = point.name.replace("-", "_")
        if (other := found.setdefault(name, point)) != point:
            packages = " and ".join(sorted(package_of(each) for each in (other, point)))
            raise ConfigError(
                f"{kind[:-1]}: {name!r} is a plugin of {packages}; uninstall one, or write package.module:Class"
            )
    return found


def package_of(point: EntryPoint) -> str:
    """Return the name of the package that an entry point belongs to."""
    return point.dist.name if point.dist is not None else "an unknown package"


def canonical(kind: str, name: str, others: Iterable[str] = ()) -> str:
    """Return the key of a name written with dashes or underscores: of the table, or of a plugin. Imports nothing.

    `package.module:Class` is returned unchanged; `lookup` checks whether it can be imported.

    Raises:
        ConfigError: unknown name; the message lists the known ones, with `others` that may stand there, and the nearest.
    """
    known = table(kind)
    key = name.replace("-", "_")
    if key in known:
        return key
    if (kind, key) in _GONE:
        raise ConfigError(f"{kind[:-1]}: {name!r}; it is now {_GONE[kind, key]}")
    if ":" in name:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
            raise ConfigError(f"{kind[:-1]}: {name!r}; a class of a package is written package.module:Class")
        return name
    if key not in (own := plugins(kind)):
        raise ConfigError(f"{kind[:-1]}: {name!r}; {allowed(key, (*known, *own, *others))}")
    return key


def split_method(name: str) -> tuple[str, tuple[str, ...]]:
    """Split `method+wrapper+…` into the method and its wrappers, as they are written."""
    method, *wrappers = name.split("+")
    return method, tuple(wrappers)


def canonical_method(name: str, others: Iterable[str] = ()) -> str:
    """Return the key of `method` or `method+wrapper+…`. Raises ConfigError as `canonical`, or for a wrapper named twice."""
    method, wrappers = split_method(name)
    keys = [canonical("wrappers", wrapper) for wrapper in wrappers]
    for i, key in enumerate(keys):
        if key in keys[:i]:
            raise ConfigError(f"wrapper: {key!r} twice in {name!r}; name it once")
    return "+".join([canonical("methods", method, () if wrappers else others), *keys])


def lookup(kind: str, name: str) -> Any:
    """Import and return the class of a name: a key of the table, a plugin's name, or `package.module:Class`.

    Raises:
        ConfigError: unknown name, or a plugin that cannot be imported, or is no class of the kind.
    """
    key = canonical(kind, name)
    known = table(kind)
    if key in known:
        return _imported(known[key])
    target = key if ":" in key else plugins(kind)[key].value
    where = f"{kind[:-1]}: {key!r}"
    if (here := str(Path.cwd())) not in sys.path:  # as `python -m` has it; a script has its own folder there
        sys.path.append(here)
    try:
        found = _imported(target)
    except Exception as error:  # a plugin's own code may fail in any way
        raise ConfigError(
            f"{where}; {target} cannot be imported ({type(error).__name__}: {error}); install its package, or correct it"
        ) from error
    base = _imported(BASES[kind])
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"{where}; {target} is not a subclass of {BASES[kind].replace(':', '.')}; derive it from that"
        )
    if kind != "methods":  # whose names are their keys alone
        own = getattr(found, "name", None)
        if not isinstance(own, str) or own in known:
            taken = "is that of one of scopewise's own" if own in known else "is no text"
            raise ConfigError(f"{where}; its name {own!r} {taken}; give the class a unique name")
    return found


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def summary(target: str) -> str:
    """Return the first docstring line of `module:Class` without importing the module (which may import torch)."""
    module, _, attribute = target.partition(":")
    tree = _tree(module)
    if tree is None:
        return f"({module} cannot be found)"
    node = _class_in(tree, attribute)
    return "" if node is None else inspect.cleandoc(ast.get_docstring(node) or "").split("\n", 1)[0]


def declared(target: str, names: Collection[str]) -> dict[str, Any]:
    """Return class attributes of `module:Class` or its bases that are literals, without importing the module.

    Args:
        target: The class.
        names: The attributes.
    """
    module, _, attribute = target.partition(":")
    tree = _tree(module)
    node = None if tree is None else _class_in(tree, attribute)
    if tree is None or node is None:
        return {}
    imported = {
        alias.asname or alias.name: f"{line.module}:{alias.name}"
        for line in tree.body
        if isinstance(line, ast.ImportFrom) and line.module and not line.level
        for alias in line.names
    }
    found: dict[str, Any] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name):
            found |= declared(imported.get(base.id, f"{module}:{base.id}"), names)
    for line in node.body:
        left = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        if isinstance(line, ast.Assign | ast.AnnAssign) and isinstance(left, ast.Name) and left.id in names:
            with contextlib.suppress(ValueError, TypeError):
                found[left.id] = ast.literal_eval(line.value)  # type: ignore[arg-type]
    return found


def _tree(module: str) -> ast.Module | None:
    """Return the syntax tree of a module; None if it cannot be found."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _class_in(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
