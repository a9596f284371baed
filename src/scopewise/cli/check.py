"""`scopewise check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from scopewise.cli import Config, Json, Set, command, quiet_libraries
from scopewise.metrics.columns import label_of
from scopewise.run_file import load_config
from scopewise.terminal import echo, echo_json


@command
def check(
    run_file: Config = None,
    set_: Set = None,
    length: Annotated[bool, typer.Option(help="Also tokenise every row with the model's tokenizer.")] = True,
    as_json: Json = False,
) -> None:
    """Check a run file, its data and its model without training; each run does the same checks first."""
    config = load_config(run_file, set_ or [])
    quiet_libraries()
    from scopewise.data.load import with_suite
    from scopewise.data.rows import ALL_SCOPES, SCOPES, SPLITS
    from scopewise.runs.bench import plan
    from scopewise.runs.checks import check_run, check_unlearning

    config = with_suite(config)
    checked = check_run(config, length=length)
    method = check_unlearning(checked, config.unlearn)
    plan(checked, [config.unlearn.localizer or method.localizer])
    benchmark = checked.benchmark
    counts = {f"{scope}_{split}": len(benchmark.select(scope, split)) for scope in ALL_SCOPES for split in SPLITS}
    counts = {name: count for name, count in counts.items() if count or name.startswith(SCOPES)}
    report: dict[str, object] = {"benchmark": benchmark.name, "rows": counts, "general": len(benchmark.general)}
    if length:
        report["longest_tokens"] = max(map(len, checked.items), default=0)
        report["dropped_over_length"] = len(checked.dropped)
    report["warnings"] = warnings = _warnings([scope for scope in SCOPES if not counts[f"{scope}_val"]])
    if as_json:
        echo_json(report)
        return
    echo(f"{benchmark.name}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    echo(f"general text: {len(benchmark.general)} rows")
    if length:
        echo(
            f"longest row: {report['longest_tokens']} of {config.data.max_length} tokens; "
            f"{report['dropped_over_length']} rows dropped as too long"
        )
    echo(f"ok, but {warnings[0]}" if warnings else "ok")


def _warnings(scopes: Sequence[str]) -> list[str]:
    """Return warnings about metrics that are skipped because scopes have no val row."""
    if not scopes:
        return []
    one = label_of({"forget": "unlearn_success", "retain": "retention_success"}[scopes[0]])
    lost = f"on val there will be no {one} and Average Success, and no gap to the oracle"
    if len(scopes) == 2:
        lost = "success will be read from train rows, which unlearning saw"
    return [
        f"no val row of scope {' or '.join(scopes)}; {lost}; "
        'give some rows "split": "val", with other questions on the same facts'
    ]
