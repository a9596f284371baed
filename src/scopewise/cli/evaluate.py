"""`scopewise evaluate`."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scopewise.cli import Config, Json, Set, command, quiet_libraries
from scopewise.errors import ResultError
from scopewise.files import check_new, check_writable
from scopewise.run_file import load_config
from scopewise.terminal import echo_json, echo_table


@command
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder, adapter folder, GGUF file, or hub name.")],
    run_file: Config = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Evaluation of a model that never saw the forget scope: ours, or an OpenUnlearning *_EVAL.json."
        ),
    ] = None,
    target: Annotated[Path | None, typer.Option(help="Evaluation of the model before unlearning.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that caches the model's answers.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write all values as JSON here.")] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Evaluate any model on the run file's benchmark, and print the metrics with their 95 % intervals."""
    config = load_config(run_file, set_ or [])
    if cache is not None and cache.is_file():
        raise ResultError(f"--cache: {cache} is a file; name a folder")
    if output is not None:
        check_new(output, "--output")
    if cache is not None:
        check_writable(cache / "scores", "--cache")
    compared = None
    quiet_libraries()
    from scopewise.ability.tasks import load_tasks
    from scopewise.attacks.oracle import knowing
    from scopewise.data.load import load_benchmark, with_suite
    from scopewise.evaluation import evaluate as run_evaluation
    from scopewise.evaluation import read_evaluation
    from scopewise.files import write_json
    from scopewise.metrics.base import ReferenceValues
    from scopewise.models.engine import Engine
    from scopewise.models.parallel.processes import is_main
    from scopewise.record import manifest
    from scopewise.schemas import EvaluationDocument

    if reference is not None or target is not None:
        compared = ReferenceValues(
            read_evaluation(reference) if reference else {}, read_evaluation(target) if target else {}
        )
        if (warning := knowing(compared)) is not None:
            logging.getLogger("scopewise").warning("--reference: %s", warning)
    config = with_suite(config)
    data = config.data
    benchmark = load_benchmark(data.benchmark, data.path, data.domain, data.general, data.instances)
    if config.evaluate.ability.tasks:
        load_tasks(config.evaluate.ability)  # check the tasks before any forward
    load = partial(Engine.load, section=config.model, data=data, max_tokens=config.evaluate.max_tokens)
    engine = load(model, name="evaluate", revision=config.model.revision)
    other = config.evaluate.reference_model
    reference_model = load(other, name="evaluate: reference model") if other else None
    evaluation = run_evaluation(
        engine, benchmark, config.evaluate, reference=compared, reference_model=reference_model, cache=cache
    )
    if not is_main():
        return
    if output is not None:
        made = manifest(config, benchmark.content_hash())
        write_json(
            output,
            {
                "format": EvaluationDocument.FORMAT,
                "model": model,
                "values": evaluation.document(compared),
                "manifest": made,
            },
        )
    if as_json:
        echo_json(evaluation.metrics)
        return
    rows = []
    for key, value in evaluation.document(compared).items():
        notes = "; ".join([*value["skipped"], *([value["note"]] if value["note"] else [])])
        interval = "" if value["low"] is None else f"{value['low']:.4g} to {value['high']:.4g}"
        gap = "" if value["oracle_gap"] is None else f"{value['oracle_gap']:+.4g}"
        number = "n/a" if value["value"] is None else f"{value['value']:.4g} {value['unit']}".rstrip()
        rows.append((key, number, interval, value["better"] or "", gap, notes))
    echo_table(("Metric", "Value", "95 % interval", "Better", "To oracle", "Skipped, notes"), rows)
