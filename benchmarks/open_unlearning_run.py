"""One unlearning run by OpenUnlearning's own code, for `whole_run.py`. Runs in the environment that OpenUnlearning pins.

    python benchmarks/open_unlearning_run.py CHECKOUT SETTINGS.json OUT.json

SETTINGS.json: `overrides` of hydra's configuration, `template` (its `model.template_args`) and `files`, the folder of TOFU's
JSON lines, in place of the hub. OUT.json: seconds of the training and of each run of the suite, and the suites' values. Nothing
of the checkout is changed; both are timed around their own functions. So it imports nothing of scopewise.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def local(node: Any, folder: Path) -> None:
    """Point every dataset of a configuration at a file of the folder."""
    if isinstance(node, dict):
        if "hf_args" in node:
            name = node["hf_args"]["name"]
            node["hf_args"] = {"path": "json", "data_files": str(folder / f"{name}.jsonl"), "split": "train"}
        for value in node.values():
            local(value, folder)


def main() -> None:
    """Compose the configuration, run their `main`, write the times."""
    checkout, settings, out = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(checkout / "src"))
    train, trainer = import_module("train"), import_module("trainer.base").FinetuneTrainer
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(checkout / "configs"), version_base=None):
        found = OmegaConf.to_container(compose("unlearn.yaml", ["~hydra", *settings["overrides"]]), resolve=True)
    local(found, Path(settings["files"]))
    found["model"]["template_args"] = settings["template"]
    suites: list[dict[str, float]] = []
    seconds: dict[str, list[float]] = {"evaluate": [], "train": []}

    def timed(name: str) -> Callable[..., Any]:
        own = getattr(trainer, name)

        def run(*given: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            result = own(*given, **named)
            seconds[name].append(time.perf_counter() - begun)
            if name == "evaluate":
                suites.append({key: float(value) for key, value in result.items()})
            return result

        return run

    trainer.evaluate, trainer.train = timed("evaluate"), timed("train")
    train.main.__wrapped__(OmegaConf.create(found))
    training = sum(seconds["train"]) - seconds["evaluate"][0]  # the suite at the start is run by `train`
    out.write_text(json.dumps({"training_seconds": training, "suite_seconds": seconds["evaluate"], "suites": suites}))


if __name__ == "__main__":
    main()
