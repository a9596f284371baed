"""Reads a run file: YAML or the name of a shipped one, with the changes of `--set`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scopewise.config import RunConfig, UnlearnSection
from scopewise.documents import parse_yaml, read_text
from scopewise.errors import ConfigError
from scopewise.recipes import RECIPES
from scopewise.section import sentence, shown


def load_config(source: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file and apply `section.key=value` overrides, whose values are read as YAML.

    Args:
        source: A YAML file, the name of a shipped run (`demo`), or None for the defaults.
        overrides: Arguments of `--set`; later ones win.

    Raises:
        ConfigError: no such file, broken YAML, an unknown key, or a value out of range.
    """
    values: Any = {}
    where = "--set"
    if source is not None:
        where = str(source)
        values = parse_yaml(read_text(find_config(source), ConfigError), where, ConfigError) or {}
        if not isinstance(values, dict):
            raise ConfigError(f"{source}: {type(values).__name__}; a run file is a mapping of sections")
    for text in overrides:
        values = override(values, text)
    return parse_config(_numbers(values), where)


def parse_config(values: Mapping[str, Any], where: str = "run file") -> RunConfig:
    """Check decoded values, and write out a recipe. Raises ConfigError with the first error."""
    config = _checked(values, where)
    recipe, unlearn = RECIPES.get(config.unlearn.method), config.unlearn
    if recipe is None:
        return config
    given = unlearn.model_dump(include=unlearn.model_fields_set - {"method"})
    return config.model_copy(
        update={"unlearn": UnlearnSection.model_validate({**recipe.settings(config.finetune), **given})}
    )


def given(overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return only the settings that `section.key=value` overrides give: section → name → checked value.

    A recipe is not written out: it depends on how the target was fine-tuned.

    Raises:
        ConfigError: as `load_config`.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        values = override(values, text)
    return _checked(_numbers(values), "--set").model_dump(mode="json", exclude_unset=True)


def _checked(values: Mapping[str, Any], where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {sentence(error, RunConfig)}") from None


def find_config(source: str | Path) -> Path:
    """Return the path of a run file, given as a path or as the name of a run shipped with the package."""
    path = Path(source)
    if path.suffix == ".jsonl":
        raise ConfigError(
            f"{source}: JSON lines, not a run file; rows are given by --set data.benchmark=jsonl --set data.path={source}"
        )
    if path.is_file():
        return path
    candidate = _shipped() / (path.name if path.suffix else f"{path.name}.yaml")
    if candidate.is_file() and len(path.parts) <= 2:
        return candidate
    known = ", ".join(shipped_runs())
    raise ConfigError(f"{source}: no such run file; give a YAML file, or one of those shipped: {known}")


def shipped_runs() -> dict[str, str]:
    """Return the run files that come with the package: name → first sentence of the comment at its top."""
    found = {}
    for path in sorted(_shipped().glob("*.yaml")):
        comment = takewhile(lambda line: line.startswith("#"), read_text(path, ConfigError).splitlines())
        words = " ".join(line.removeprefix("#").strip() for line in comment)
        found[path.stem] = re.split(r"(?<=[.?]) ", words)[0].removesuffix(".")
    return found


def _shipped() -> Path:
    return Path(str(resources.files("scopewise"))) / "configs"


def override(values: dict[str, Any], text: str) -> dict[str, Any]:
    """Return decoded values with one `section.key=value` override. Raises ConfigError if it has another form."""
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set: {text!r}; written as section.key=value, for example --set run.dir=runs/first")
    decoded = parse_yaml(value, f"--set {name}", ConfigError)
    changed = dict(values)
    inner = changed
    for depth, key in enumerate(keys[:-1], start=1):
        below = inner.get(key)
        if below is not None and not isinstance(below, dict):
            raise ConfigError(
                f"--set {name}: {'.'.join(keys[:depth])} is {shown(below)}; it has no keys; set it as a whole"
            )
        inner[key] = dict(below or {})
        inner = inner[key]
    inner[keys[-1]] = decoded
    return changed


def _numbers(value: Any) -> Any:
    """Convert texts like `1e-3` to numbers, which YAML 1.1 does not do without a dot."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) else value
