"""The folder of a request for the playground: the exported model beside the one before, with the request's questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scopewise.documents import read_json
from scopewise.erasure import words
from scopewise.erasure.steps import INPUTS
from scopewise.errors import ResultError
from scopewise.play.play_run import PlayRun, examples_of
from scopewise.run_file import load_config


def is_request(folder: str | Path) -> bool:
    """Return whether a folder is that of a request."""
    return (Path(folder) / INPUTS).exists()


def open_request(path: str | Path) -> PlayRun:
    """Read the folder of a request.

    Raises:
        ResultError: nothing was exported, since the request is not finished or there was nothing to forget.
    """
    folder = Path(path)
    if not (folder / "export").is_dir():
        raise ResultError(
            f"{folder}: nothing was exported; finish the request with `scopewise forget --resume`, unless its plan is 'nothing'"
        )
    options = read_json(folder / INPUTS, ResultError)["options"]
    target = options["model"] or str(folder / "run" / "target")
    rows = ["data.benchmark=jsonl", f"data.path={folder / 'run.jsonl'}", "data.domain=null", "data.instances=null"]
    config = load_config(None, [*options["changes"], *rows, f"model.target={target}"])
    examples, why_not = examples_of(config)
    models = {"target": target, "export": str(folder / "export")}
    return PlayRun(folder, config, models, examples, why_not, _result(folder / "steps"))


def _result(steps: Path) -> dict[str, Any] | None:
    """Return the result as the page shows it; None if there is no verdict yet."""
    if not (steps / "verdict.json").exists():
        return None
    kind = read_json(steps / "plan.json", ResultError)["plan"]["kind"]
    lights = read_json(steps / "verdict.json", ResultError)
    banner = words.banner(kind, lights)
    shown = [
        {"title": words.TITLES[name], "color": one["light"], "shape": words.SHAPES[one["light"]],
         "result": words.result(name, one)}
        for name, one in lights.items()
    ]  # fmt: skip
    return {
        "color": banner.color,
        "shape": words.SHAPES.get(banner.color, ""),
        "word": banner.word,
        "sentence": banner.sentence,
        "lights": shown if banner.judged else [],
    }
