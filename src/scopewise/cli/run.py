"""`scopewise run`."""

from __future__ import annotations

from scopewise.cli import Config, Json, Overwrite, Resume, Set, Wide, command
from scopewise.config import entry_name
from scopewise.run_file import load_config, parse_config


@command
def run(
    run_file: Config = None,
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    wide: Wide = False,
) -> None:
    """Run all stages for the run file's one method (`unlearn.method`) and seed (`run.seed`), and print the table."""
    from scopewise.cli.bench import run_bench

    config = load_config(run_file, set_ or [])
    # Only given settings, so that the benchmark's defaults fill the others.
    values = config.model_dump(exclude_unset=True)
    values["bench"] = {
        **values.get("bench", {}),
        "methods": [entry_name(config.unlearn.method, config.unlearn.localizer)],
        "seeds": [config.run.seed],
        "protocols": ["paper"],
        "settings": {},
        "paper": {},
    }
    run_bench(parse_config(values), resume=resume, overwrite=overwrite, as_json=as_json, wide=wide)
