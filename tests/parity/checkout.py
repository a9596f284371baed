"""What the recording scripts share: a checkout of another repository, functions taken out of it, the file they write.

Functions are imported from the checkout or, where their file needs packages that have nothing to do with them, parsed
out of its source and executed. Nothing is copied, and nothing of scopewise is imported.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import Tensor, nn


def verified(checkout: Path, commit: str, *paths: str) -> Path:
    """Return the folder, if `checkout` is at that commit and `paths` (all of it by default) are unchanged; else stop."""
    checkout = checkout.resolve()
    found = git(checkout, "rev-parse", "HEAD")
    if found != commit or git(checkout, "status", "--porcelain", "--", *paths):
        sys.exit(f"{checkout}: is at {found} or changed; an unchanged checkout of {commit} is needed")
    sys.dont_write_bytecode = True  # leave the checkout as it is
    return checkout


def load(checkout: Path, path: str, name: str = "") -> ModuleType:
    """Import one file of the checkout, without the package it is in."""
    spec = importlib.util.spec_from_file_location(name or Path(path).stem, checkout / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def stand_in(name: str, **attributes: Any) -> None:
    """Put an empty module of that name where imports find it, for a package that what is run does not use."""
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(attributes)
    sys.modules[name] = module


def instance(cls: type, **attributes: Any) -> Any:
    """Return an instance that was never initialised: their trainers' methods with the attributes they read, no Trainer."""
    made = cls.__new__(cls)
    vars(made).update(attributes)
    return made


def tree(checkout: Path, path: str) -> ast.Module:
    """Parse one file of the checkout."""
    return ast.parse((checkout / path).read_text(encoding="utf-8"))


def function(source: ast.Module, name: str) -> ast.FunctionDef:
    """Return the only function of that name, however deep."""
    (found,) = (node for node in ast.walk(source) if isinstance(node, ast.FunctionDef) and node.name == name)
    return found


def executed(source: ast.Module, *names: str, **namespace: Any) -> dict[str, Any]:
    """Run the definitions of some functions of a file in a namespace, and return it."""
    nodes: list[ast.stmt] = [function(source, name) for name in names]
    exec(compile(ast.Module(nodes, []), names[0], "exec"), namespace)
    return namespace


def git(checkout: Path, *arguments: str) -> str:
    """Return what git prints."""
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients of the adapter, by full parameter name."""
    return {name: p.grad for name, p in model.named_parameters() if "lora_" in name and p.grad is not None}


def origin(script: str, commit: str | Mapping[str, str]) -> dict[str, Any]:
    """Return where figures come from: commit(s), script, versions, date."""
    return {
        "commit": commit,
        "script": f"tests/parity/{Path(script).name}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": date.today().isoformat(),
    }


def write(output: Path, recorded: Mapping[str, Any]) -> None:
    """Write figures as JSON, a list to a line."""
    text = json.dumps(rounded(recorded), indent=1)
    output.write_text(re.sub(r"\[[^\[\]{}]*\]", lambda m: " ".join(m[0].split()), text) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Return the same with floats of nine significant digits: all that float32 holds."""
    if isinstance(value, Mapping):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value
