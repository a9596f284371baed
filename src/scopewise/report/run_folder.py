"""Read a whole run folder: results, each model's answers, regions, attacks. Imports no torch."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scopewise.documents import parse_yaml, read_json, read_text
from scopewise.errors import ResultError
from scopewise.lock import under_way
from scopewise.region import Region
from scopewise.report.columns import recorded
from scopewise.report.comparison import compared, with_comparisons
from scopewise.report.row_values import RowValues
from scopewise.schemas import (
    EvaluationDocument,
    LooseAttacksDocument,
    ResultsDocument,
    StageDocument,
    checked,
    read,
)


@dataclass(frozen=True)
class Model:
    """One evaluated model.

    Attributes:
        row: Its row in the results.
        values: Metric key → value with `per_row`; empty if its evaluation document is missing.
        answers: Its answers, row by row; empty if the document has none.
    """

    row: Mapping[str, Any]
    values: Mapping[str, Any]
    answers: Sequence[Mapping[str, Any]]

    @property
    def group(self) -> tuple[str, str]:
        """Method and protocol, the same for all seeds."""
        return self.row["method"], self.row["protocol"] or ""

    @property
    def unlearned(self) -> bool:
        """Whether it is neither target nor oracle."""
        return self.row["model"] == "unlearned"


@dataclass(frozen=True)
class Run:
    """The content of a run folder.

    Attributes:
        name: Its name on the page.
        path: The folder.
        results: The content of `results.json`.
        models: In the order of the table.
        regions: Label → trained region of the first seed; each distinct region once.
        attacks: The content of `attacks.json` with the key `results`; None without attacks.
        going: If a command is running in the folder: its stage and when it started; else None.
    """

    name: str
    path: Path
    results: Mapping[str, Any]
    models: Sequence[Model]
    regions: Mapping[str, Region]
    attacks: Mapping[str, Any] | None
    going: str | None = None

    def groups(self) -> dict[tuple[str, str], list[Model]]:
        """Return (method, protocol) → its models over seeds, in the order of the table."""
        found: dict[tuple[str, str], list[Model]] = {}
        for model in self.models:
            found.setdefault(model.group, []).append(model)
        return found

    def label(self, group: tuple[str, str]) -> str:
        """Return the label of a line of the table, which names the protocol if there are several."""
        protocols = {protocol for _, protocol in self.groups() if protocol}
        return f"{group[0]} ({group[1]})" if group[1] and len(protocols) > 1 else group[0]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders; each gets the shortest path suffix that is unique as its name.

    Raises:
        ResultError: a folder holds no evaluated model, or is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ResultError("RUN: the same folder twice; name each run once")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [read_run(folder, "/".join(path.parts[-depth:])) for folder, path in zip(folders, paths, strict=True)]


def read_run(folder: Path, name: str) -> Run:
    """Read a run folder. Raises ResultError if it holds no evaluated model."""
    found = [folder / file for file in ("results.partial.json", "results.json") if (folder / file).exists()]
    results = read(found[0], ResultsDocument) if found else _without_bench(folder)
    if not isinstance(results, dict) or not results.get("rows") or "manifest" not in results:
        raise ResultError(f"{folder}: no evaluated model in it; `scopewise bench`, `run` or `unlearn` writes one")
    models = [_model(folder, row) for row in results["rows"]]
    if not results.get("comparisons"):  # of an earlier version, or of stage commands
        results = with_comparisons({**results, **_compared(models)})
    return Run(name, folder, results, models, _regions(folder, models), _attacks(folder), _going(folder))


def _going(folder: Path) -> str | None:
    known = under_way(folder)
    if known is None:
        return None
    begun = [path for path in folder.rglob("*.partial") if path.is_dir()]
    stage = "none that trains"
    if begun:
        newest = max(begun, key=lambda path: path.stat().st_mtime)
        stage = newest.relative_to(folder).as_posix().removesuffix(".partial")
    written = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return f"stage: {stage}; begun {known.get('since') or 'at an unknown time'}; this page was written {written}"


def _model(folder: Path, row: Mapping[str, Any]) -> Model:
    name = row["path"] if row["model"] == "unlearned" else row["model"]
    file = folder / f"{name}.evaluation.json"
    document = read(file, EvaluationDocument) if file.exists() else {}
    stage = folder / row["path"] / "stage.json"
    # A target's curve is in its stage document, not in its row.
    curve = row.get("curve") or (read(stage, StageDocument).get("curve", []) if stage.exists() else [])
    return Model({**row, "curve": curve}, document.get("values", {}), document.get("answers", ()))


def _without_bench(folder: Path) -> dict[str, Any] | None:
    """Return results as `bench` would write them, from a folder of stage commands (`finetune`, `unlearn`)."""
    rows, values, origin = [], [], None
    for file in sorted(folder.glob("*.evaluation.json")) + sorted(folder.glob("models/*/*/*.evaluation.json")):
        document = read(file, EvaluationDocument)
        path = str(file.relative_to(folder)).removesuffix(".evaluation.json")
        stage = folder / path / "stage.json"
        made = read(stage, StageDocument) if stage.exists() else {}
        made.pop("format", None)
        which = path if path in ("target", "oracle") else "unlearned"
        if which == "unlearned" and "method" not in made:
            continue
        about = {"model": which, "method": which, "protocol": None, "seed": made.get("inputs", {}).get("seed", 0)}
        metrics = {key: value["value"] for key, value in document["values"].items()}
        rows.append({**about, "settings": {}, "cost": {}, **made, "metrics": metrics, "path": path})
        values.append(document["values"])
        origin = document.get("origin") or origin
    if origin is None:
        return None
    marker = folder / "config.yaml"
    config = parse_yaml(read_text(marker, ResultError), str(marker), ResultError) if marker.exists() else {}
    rows.sort(key=lambda row: ("target", "oracle", "unlearned").index(row["model"]))
    return {
        "complete": True,
        "manifest": {"device": "", **origin},
        "config": config,
        "rows": rows,
        "columns": recorded(values),
    }


def _compared(models: Sequence[Model]) -> dict[str, Any]:
    """Return comparisons from the evaluation documents of the models; none if one of them has no values of rows."""
    if not all(model.values for model in models):
        return {}
    collected = RowValues(next((model.row["seed"] for model in models if not model.unlearned), 0))
    for model in models:
        collected.add(model.row, model.values, model.answers)
    return compared(collected.document())


def _regions(folder: Path, models: Sequence[Model]) -> dict[str, Region]:
    """Return the trained regions, each once, labelled with all methods that share it."""
    named: dict[str, tuple[list[str], Region]] = {}
    seen = set()
    for model in models:
        path = folder / model.row["path"] / "region.json"
        if model.unlearned and model.row["method"] not in seen and path.exists():
            seen.add(model.row["method"])
            region = Region.load(path)
            named.setdefault(f"{region.localizer} {region.content_hash()}", ([], region))[0].append(model.row["method"])
    return {f"{region.localizer}: {', '.join(methods)}": region for methods, region in named.values()}


def _attacks(folder: Path) -> dict[str, Any] | None:
    """Read `attacks.json`, which is an object with `results`, or only the list of results."""
    path = folder / "attacks.json"
    if not path.exists():
        return None
    document = read_json(path, ResultError)
    document = {"results": document} if isinstance(document, list) else document
    checked(document, LooseAttacksDocument, str(path))
    return document if document["results"] else None
