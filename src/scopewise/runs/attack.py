"""Attack the models of a run folder, and write `attacks.json` and `attacks.md`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scopewise import registry, schemas
from scopewise.attacks.alone import alone, attack_alone, read_rows
from scopewise.attacks.base import attacked_engine, make_attack
from scopewise.attacks.suite import Attacked, Keep, attack_models, check_attacks
from scopewise.config import AttackSection, RunConfig
from scopewise.data.load import load_benchmark
from scopewise.documents import parse_yaml, read_text
from scopewise.errors import ConfigError, ResultError
from scopewise.files import write_json
from scopewise.lock import RunLock
from scopewise.models.engine import Engine
from scopewise.models.load import load_model, load_tokenizer
from scopewise.models.outline import outline
from scopewise.models.parallel.processes import default_device
from scopewise.record import manifest
from scopewise.run_file import parse_config
from scopewise.runs.stages import digest, identity, model_identity

VERSION = 2
"""Version of the attacks. Results of another version are neither reused nor joined with new ones.

    2: relearning is a sweep, reported as its maximum; patching and logit lens are calibrated."""


def config_of(run: Path, settings: dict[str, Any]) -> RunConfig:
    """Return the run file of a run folder with other attack settings. Raises ResultError if it is no run folder."""
    marker = run / "config.yaml"
    if not marker.exists():
        raise ResultError(f"{run}: not a run folder; give one that `scopewise bench`, `run` or `unlearn` has written")
    values = parse_yaml(read_text(marker, ResultError), str(marker), ResultError)
    if not isinstance(values, dict):
        raise ConfigError(f"{marker}: {type(values).__name__}; a run file is a mapping of sections")
    parse_config(values, str(marker))  # the file may have been edited, so check it before its parts
    values["attack"] = {**values.get("attack", {}), **settings}
    values["run"] = {**values.get("run", {}), "dir": str(run)}
    return parse_config(values, str(marker))


def attack_run(
    config: RunConfig,
    *,
    target: str | None = None,
    oracle: str | None = None,
    overwrite: bool = False,
    redact: bool = False,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Attack every unlearned model of a run, and its target and oracle.

    The results for each model and attack are saved in `attacks/`, so an interrupted suite resumes. Results of other
    models and attacks in `attacks.json` are kept.

    Args:
        config: From `config_of`.
        target: Another target than the run's own, by path or hub name.
        oracle: Another oracle than the run's own.
        overwrite: Replace an `attacks.json` that was made with other settings.
        redact: Leave the texts of the worst leaks out of `attacks.json` (`attacks/` has the outputs).
        tell: Called with a sentence on how long the attacks will take, before they begin.

    Returns:
        The content of `attacks.json`.

    Raises:
        ResultError: the run has no unlearned model, target or oracle, or results with other settings, or another
            command is using it.
    """
    run, settings = Path(config.run.dir), config.attack
    with RunLock(run):
        models = _models(run, settings.models)
        # Check before any attack, and before earlier results are replaced.
        check_attacks(settings)
        for name in models:
            schemas.read(run / name / "stage.json", schemas.StageDocument)
        paths = {
            "target": target or config.model.target or _stage(run, "target"),
            "oracle": oracle or config.model.oracle or _stage(run, "oracle", config.model.target),
            **{name: str(run / name) for name in _models(run, ())},
        }
        for name in ("target", "oracle", *models):
            outline(paths[name], config.model)  # so that none is found broken after others were attacked
        data = config.data
        benchmark = load_benchmark(data.benchmark, data.path, data.domain, data.general, data.instances)
        inputs = _inputs(config, settings, benchmark.content_hash(), paths)
        output = run / "attacks.json"
        earlier = schemas.read(output, schemas.AttacksDocument) if output.exists() and not overwrite else None
        if earlier is not None and earlier["inputs"].get("attacks") != VERSION:
            raise ResultError(f"{output}: made by attacks of an earlier version; add --overwrite to replace it")
        if earlier is not None and (earlier["inputs"], earlier["threshold"]) != (_shared(inputs), settings.threshold):
            raise ResultError(f"{output}: made with other settings; add --overwrite to replace it")

        def load(name: str) -> Engine:
            return _loaded(config, name, paths[name])

        found = attack_models(
            {name: partial(load, name) for name in models},
            partial(load, "oracle"),
            partial(load, "target"),
            benchmark,
            settings,
            Keep(run / "attacks" / digest(_shared(inputs)), inputs),
            learning_rate=_learning_rate(config),
            tell=tell,
        )
        results = [_row(run, attacked) for attacked in found]
        if earlier is not None:
            results = _joined(earlier, results, inputs["models"])
        if redact:
            results = [redacted(row) for row in results]
        present = {row["attack"] for row in results}
        document = {
            "format": schemas.AttacksDocument.FORMAT,
            "manifest": manifest(config, benchmark.content_hash()),
            "inputs": _shared(inputs),
            "models": inputs["models"],
            "threshold": settings.threshold,
            "attacks": sorted(present, key=_order),
            "results": results,
        }
        write_json(output, document)
        return document


def attack_model(config: RunConfig, path: str, rows: str | Path) -> dict[str, Any]:
    """Attack any model with the user's rows, without target or oracle.

    Args:
        config: Its sections `attack`, `data` (prompt format and length) and `model` (how it is loaded) are used.
        path: Folder or hub name of the model or adapter.
        rows: As `read_rows` takes them.

    Returns:
        The content of the file of `--output`.

    Raises:
        DataError: as `read_rows`.
        ConfigError: an attack needs a target and an oracle, or has a wrong setting.
        ModelError: the model cannot be loaded.
    """
    check_attacks(config.attack)
    alone(config.attack)
    benchmark = read_rows(rows)
    found = attack_alone(_loaded(config, "model", path), benchmark, config.attack)
    return {
        "format": schemas.AloneDocument.FORMAT,
        "model": path,
        "manifest": manifest(config, benchmark.content_hash()),
        "results": [one.document() for one in found],
    }


def _loaded(config: RunConfig, name: str, path: str) -> Engine:
    """Load a model to attack, in the dequantized weights, since attacks change weights, which is impossible in 4 bits."""
    model = load_model(path, config.model, dequantized=True)
    model = model.to(default_device())  # type: ignore[arg-type]
    tokenizer, kernels = load_tokenizer(path), config.model.kernels
    return attacked_engine(name, model, tokenizer, config.data, max_tokens=config.attack.max_tokens, kernels=kernels)


def _models(run: Path, chosen: Sequence[str]) -> list[str]:
    """Return the paths of unlearned models in a run folder, restricted to the prefixes `chosen`."""
    every = sorted(str(path.parent.relative_to(run)) for path in run.glob("models/*/*/seed*/stage.json"))
    if not every:
        raise ResultError(f"{run}: no unlearned model in it; `scopewise bench` or `unlearn` makes some")
    if any(not name.strip("/ ") for name in chosen):
        raise ResultError(f"attack.models: an empty name; leave it out to attack every model of {run}")
    chosen = [name.removeprefix("models/").rstrip("/") for name in chosen]
    found = [name for name in every if not chosen or name.startswith(tuple(f"models/{c}" for c in chosen))]
    if not found:
        parts = chosen[0].count("/") + 1  # compare `memflx` with `memflex`, not with a whole path
        known = dict.fromkeys("/".join(name.split("/")[1 : parts + 1]) for name in every)
        raise ResultError(
            f"attack.models: {', '.join(chosen)}; no such model in {run}; {registry.allowed(chosen[0], known)}"
        )
    return found


def _stage(run: Path, which: str, taught: str | None = None) -> str:
    if not (run / which / "stage.json").exists():
        if taught is not None:  # not fine-tuned by us, so its base is unknown
            raise ResultError(
                f"{run}: no {which} in it, and the target {taught} is not from this run; fine-tune its base on the "
                f"retain rows (`scopewise finetune --which {which} --set model.path=BASE` in another folder), and "
                f"give it with --{which}"
            )
        raise ResultError(
            f"{run}: no {which} in it; make one with `scopewise finetune --which {which} --resume`, or name one with --{which}"
        )
    return str(run / which)


def _row(run: Path, attacked: Attacked) -> dict[str, Any]:
    stage = run / attacked.model / "stage.json"
    known = schemas.read(stage, schemas.StageDocument) if attacked.model not in ("target", "oracle") else {}
    about = {
        "method": known.get("method", attacked.model),
        "protocol": known.get("protocol"),
        "seed": known.get("seed"),
    }
    return {**about, **attacked.document()}


def _joined(earlier: dict[str, Any], fresh: list[dict[str, Any]], models: dict[str, str]) -> list[dict[str, Any]]:
    """Return the new results and earlier ones of other models and attacks, if their models have not changed."""
    same = {name for name, identity in models.items() if earlier["models"].get(name) == identity}
    done = {(row["model"], row["attack"]) for row in fresh}
    kept = [row for row in earlier["results"] if (row["model"], row["attack"]) not in done]
    kept = [row for row in kept if {row["model"], "target", "oracle"} <= same]
    order = {name: i for i, name in enumerate(models)}
    return sorted([*kept, *fresh], key=lambda row: (order[row["model"]], _order(row["attack"])))


def _order(attack: str) -> tuple[int, str]:
    """Return the sort key of an attack: the table's order, then plugins by name."""
    known = list(registry.table("attacks"))
    return (known.index(attack) if attack in known else len(known), attack)


def redacted(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result without the texts of its worst leaks."""
    texts = ("question", "answer", "output")
    return {**row, "worst": [{k: v for k, v in leak.items() if k not in texts} for leak in row["worst"]]}


def _inputs(config: RunConfig, settings: AttackSection, data_hash: str, paths: dict[str, str]) -> dict[str, Any]:
    arguments = {name: make_attack(name, **given).identity() for name, given in settings.attack_args.items()}
    attacked = config.model_copy(update={"attack": settings.model_copy(update={"attack_args": arguments})})
    shared = identity(attacked, "attack", data_hash, learning_rate=_learning_rate(config), attacks=VERSION)
    return {**shared, "models": {name: model_identity(path) for name, path in paths.items()}}


def _learning_rate(config: RunConfig) -> float:
    """Return the default learning rate of attacks that fine-tune: half of the run's fine-tuning rate."""
    return config.finetune.learning_rate / 2


def _shared(inputs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in inputs.items() if key != "models"}
