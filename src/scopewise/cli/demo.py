"""`scopewise demo`."""

from __future__ import annotations

from scopewise.cli import Json, Overwrite, Resume, Set, Wide, command
from scopewise.run_file import load_config


@command
def demo(
    set_: Set = None, resume: Resume = False, overwrite: Overwrite = False, as_json: Json = False, wide: Wide = False
) -> None:
    """Train the tiny model on the built-in benchmark, unlearn with four methods, and compare them (minutes on a laptop)."""
    from scopewise.cli.bench import run_bench

    run_bench(load_config("demo", set_ or []), resume=resume, overwrite=overwrite, as_json=as_json, wide=wide)
