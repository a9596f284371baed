"""A run folder for the playground: its models, its prompt format, and example questions of its benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from scopewise.config import RunConfig
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Prompt, encode
from scopewise.data.rows import FORGET, SCOPES, Row
from scopewise.errors import DataError, ResultError
from scopewise.run_file import load_config

EXAMPLES = 100
"""Example questions per scope."""

Domain = Literal["privacy", "copyright"]


@dataclass(frozen=True)
class PlayRun:
    """A run as the playground sees it.

    Attributes:
        path: The run folder.
        config: Its run file.
        models: Role or name → folder (or hub name): `target`, `oracle` if there is one, and the unlearned models by
            their path in the run folder.
        examples: Example rows of both scopes.
        no_examples: Why there are none, if the benchmark cannot be read; else empty.
        result: Of a deletion request: `color`, `shape`, `word`, `sentence` and `lights`; None for other runs.
    """

    path: Path
    config: RunConfig
    models: dict[str, str]
    examples: tuple[Row, ...]
    no_examples: str
    result: Mapping[str, Any] | None = None

    @property
    def unlearned(self) -> list[str]:
        """Return the names of the unlearned models."""
        return [name for name in self.models if name not in ("target", "oracle")]

    def prompt_ids(
        self, question: str, domain: Domain, direct: bool, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[int, ...]:
        """Return the prompt's ids, tokenised as in the run's evaluation.

        There, prompt and answer are tokenised as one text, and the first character of the answer may change the
        prompt's last token; so we tokenise with a capital letter as the answer.
        """
        row = Row(question, "A", FORGET, domain=domain, origin="question")
        prompt = Prompt.of(self.config.data, direct)
        return encode([row], tokenizer, prompt, 10**9)[0].prompt_ids


def open_run(path: str | Path) -> PlayRun:
    """Read a run folder. Raises ResultError if it is none, or has no target or no unlearned model."""
    folder = Path(path)
    if not (folder / "config.yaml").exists():
        raise ResultError(f"{folder}: not a run folder (it has no config.yaml); give a folder that a run has written")
    config = load_config(folder / "config.yaml")
    target = config.model.target or (str(folder / "target") if (folder / "target").is_dir() else None)
    if target is None:
        raise ResultError(f"{folder}: no target in it; `scopewise run` or `scopewise finetune` makes one")
    models = {"target": target}
    if config.model.oracle is not None or (folder / "oracle").is_dir():
        models["oracle"] = config.model.oracle or str(folder / "oracle")
    # A stage in progress is called NAME.partial, and has no stage.json until it is complete.
    for stage in sorted((folder / "models").glob("*/*/seed*/stage.json")):
        if stage.parent.suffix != ".partial":
            models[stage.parent.relative_to(folder / "models").as_posix()] = str(stage.parent)
    if set(models) <= {"target", "oracle"}:
        raise ResultError(f"{folder}: no unlearned model in it; `scopewise run` or `scopewise unlearn` makes one")
    examples, why_not = examples_of(config)
    return PlayRun(folder, config, models, examples, why_not)


def examples_of(config: RunConfig) -> tuple[tuple[Row, ...], str]:
    """Return example rows of both scopes, and why there are none if the benchmark cannot be read."""
    data, rows, why_not = config.data, [], ""
    try:
        rows = list(load_benchmark(data.benchmark, data.path, data.domain, data.general, data.instances).rows)
    except DataError as error:  # the data may not be on this machine; other questions can still be asked
        why_not = str(error)
    found = [row for scope in SCOPES for row in _spread([r for r in rows if r.scope == scope and r.question])]
    return tuple(found), why_not


def _spread(rows: Sequence[Row]) -> list[Row]:
    """Return at most `EXAMPLES` rows, evenly spaced over the file, so that they cover many instances."""
    count = min(EXAMPLES, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]
