"""The attacks that were made on a model of a request: each is kept at once, so that an interrupted suite goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scopewise.documents import read_json
from scopewise.erasure.facts_file import exposure_document, exposure_in
from scopewise.erasure.resist import Trial
from scopewise.errors import ResultError
from scopewise.files import write_json
from scopewise.ranks import Exposure

FILE = "attacks.json"


class MadeTrials:
    """What trials gave on one model, in a file that several models share.

    Args:
        steps: Folder of the request's steps; it belongs to one set of rows and options.
        model: What tells the model from the request's others: a digest of its files, or the folder of an attempt.
    """

    def __init__(self, steps: Path, model: str) -> None:
        self._file, self._model = steps / FILE, model

    def made(self, trial: Trial) -> Exposure | None:
        """Return what a trial gave before, or make it now."""
        every: dict[str, dict[str, Any]] = read_json(self._file, ResultError) if self._file.exists() else {}
        found = every.setdefault(self._model, {})
        key = f"{trial.attack}, {trial.setting}, draw {trial.draw}"
        if key not in found:
            exposure = trial.measure()
            found[key] = None if exposure is None else exposure_document(exposure)
            write_json(self._file, every)
        return None if found[key] is None else exposure_in(found[key], trial.facts)
