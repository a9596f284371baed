"""The evaluations of a run's models, each computed once: `NAME.evaluation.json` in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scopewise import schemas
from scopewise.config import EvaluateSection, RunConfig
from scopewise.data.prompt import DIRECT_PROMPT
from scopewise.data.rows import VAL, Benchmark
from scopewise.evaluation import evaluate, read_evaluation
from scopewise.metrics.base import ReferenceValues
from scopewise.models.engine import Engine
from scopewise.record import manifest
from scopewise.runs.folder import RunFolder
from scopewise.runs.stages import digest, identity, model_identity


class Measurement:
    """The evaluations of one run.

    Args:
        config: The run file.
        benchmark: The benchmark.
        folder: The run folder.
    """

    def __init__(self, config: RunConfig, benchmark: Benchmark, folder: RunFolder) -> None:
        self.config, self.benchmark, self.folder = config, benchmark, folder
        self.content = benchmark.content_hash()

    def values(self, model: Path, name: str) -> dict[str, Any]:
        """Return the evaluation document of a model: metric key → value, interval, `per_row`, `skipped`.

        It is computed again only if the metrics, the model, or the oracle or target that it is compared with have
        changed. Scores and texts are cached in `cache/`, so that other metrics need no further forwards.

        Args:
            model: Folder or hub name of the model.
            name: Its name in the run folder: `target`, `oracle`, or the path of an unlearned model's folder.
        """
        path = self._file(name)
        compared = [] if name in ("oracle", "target") or not self._file("oracle").exists() else ["oracle", "target"]
        compared = [which for which in compared if self._file(which).exists()]
        inputs = identity(
            self.config,
            "evaluation",
            self.content,
            measured=model_identity(model),
            compared={which: digest(self._read(which).get("inputs")) for which in compared},
            direct=DIRECT_PROMPT if self.config.evaluate.direct_splits else None,  # no setting, and it has changed once
        )
        if self.folder.has(path):
            kept = self._read(name)
            if kept.get("inputs") == inputs and "answers" in kept:
                return kept["values"]
        reference = None
        if compared:
            known = {which: read_evaluation(self._file(which)) for which in compared}
            reference = ReferenceValues(known["oracle"], known.get("target", {}))
        self.folder.keep_config()
        settings, engine = self.config.evaluate, self.engine(model, name.removeprefix("models/"))
        other = None
        if settings.reference_model is not None:
            other = self.engine(settings.reference_model, f"{engine.name}: reference model")
        cache = self.folder.path / "cache"
        found = evaluate(engine, self.benchmark, settings, reference=reference, reference_model=other, cache=cache)
        document: dict[str, Any] = {
            "format": schemas.EvaluationDocument.FORMAT,
            "values": found.document(reference),
            "answers": found.answers,
            "inputs": inputs,
            "cost": found.cost,
            "origin": manifest(self.config, self.content),
        }
        self.folder.write(path, document, indent=None)
        return document["values"]

    def answers(self, name: str) -> list[dict[str, Any]]:
        """Return the answers of an evaluated model, row by row."""
        return self._read(name).get("answers", [])

    def cost(self, name: str) -> dict[str, Any] | None:
        """Return the cost of scoring an evaluated model; None if nothing was forwarded."""
        return self._read(name).get("cost")

    def engine(self, model: str | Path, name: str) -> Engine:
        """Load a model to evaluate; `name` is the label of its progress bars."""
        settings = self.config.evaluate
        return Engine.load(model, self.config.model, self.config.data, max_tokens=settings.max_tokens, name=name)

    def successes(self, engine: Engine, part: Benchmark) -> tuple[float, float]:
        """Return Unlearn and Retention Success of a model on the val rows of `part`, in percent."""
        keys = ("unlearn_success", "retention_success")
        # Use only the settings in `STAGES["trial"]` from the run file's section.
        settings = EvaluateSection(
            metrics=keys,
            splits=(VAL,),
            direct_splits=(),
            generate_splits=(),
            max_tokens=self.config.evaluate.max_tokens,
            parts=self.config.evaluate.parts,
        )
        metrics = evaluate(engine, part, settings).metrics
        unlearn, retention = (metrics[f"{key}/{VAL}"] for key in keys)
        assert unlearn is not None
        assert retention is not None
        return unlearn, retention

    def _file(self, name: str) -> Path:
        return self.folder.path / f"{name}.evaluation.json"

    def _read(self, name: str) -> dict[str, Any]:
        return schemas.read(self._file(name), schemas.EvaluationDocument)
