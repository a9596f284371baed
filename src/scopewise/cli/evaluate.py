"""`scopewise evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from scopewise.cli import Config, Json, Set, command, quiet_libraries
from scopewise.config import load_config


@command
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder, adapter folder, or hub name.")],
    run_file: Config = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write all values as JSON here.")] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Measure any model on the run file's benchmark, and print the measures."""
    config = load_config(run_file, set_ or [])
    if output is not None and output.exists():
        from scopewise.errors import ResultError

        raise ResultError(f"--output: {output} exists; name a new file, or remove it")
    quiet_libraries()
    from scopewise.data.load import load_benchmark
    from scopewise.evaluation import evaluate as run_evaluation
    from scopewise.models.load import default_device, load_model, load_tokenizer
    from scopewise.record import manifest, write_json

    data = config.data
    benchmark = load_benchmark(data.benchmark, data.path, data.domain, data.general)
    loaded = load_model(model, config.model.dtype, config.model.revision).to(default_device())  # type: ignore[arg-type]
    tokenizer = load_tokenizer(model, config.model.revision)
    evaluation = run_evaluation(loaded, tokenizer, benchmark, config.evaluate, data)
    if output is not None:
        made = manifest(config, benchmark.content_hash())
        write_json(output, {"model": model, "values": evaluation.document(), "manifest": made})
    if as_json:
        typer.echo(json.dumps(evaluation.metrics, indent=2))
        return
    table = Table("Metric", "Value", "Skipped", box=None)
    for key, value in evaluation.values.items():
        table.add_row(key, "n/a" if value.value is None else f"{value.value:.4g}", "; ".join(value.skipped))
    Console().print(table)
