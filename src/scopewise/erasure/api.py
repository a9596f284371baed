"""`scopewise.forget`: a deletion request from Python."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scopewise.data.rows import FORGET, Row, make_rows
from scopewise.erasure.figures import ATTACKS
from scopewise.erasure.request import Lineage, Request, find_requests
from scopewise.erasure.run import Forgotten
from scopewise.erasure.run import forget as _forget
from scopewise.erasure.setup import Options
from scopewise.errors import ConfigError, DataError
from scopewise.run_file import load_config

logger = logging.getLogger("scopewise")


def forget(
    model: str | Path | PreTrainedModel | PeftModel | None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    rows: str | Path | Iterable[object] = (),
    *,
    base: str | Path | None = None,
    out: str | Path = "forgotten/request",
    kind: Literal["exact", "approximate"] | None = None,
    minutes: float | None = None,
    policy: str | Path | None = None,
    attacks: Sequence[str] = ATTACKS,
    gguf: Sequence[str] = (),
    operator: str = "not named",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Forgotten:
    """Remove facts from a model, verify it, and write the result with a signed record into a folder.

    Args:
        model: A folder, a hub name, or a model in memory; None teaches a tiny model the rows first.
        tokenizer: Of a model in memory.
        rows: A request file, a file of rows or the name of a benchmark, as `scopewise forget` takes it; or `Row`s or dicts with
            `question`, `answer` and `scope` (`forget` unless given).
        base: The model before fine-tuning; None: what the model's own files say.
        out: Folder of the request.
        kind: Insist on `exact` retraining or an `approximate` method.
        minutes: Budget of the unlearning.
        policy: File with the bounds of the verdict.
        attacks: Run only these, so that *Resists* is amber at best if one is left out.
        gguf: Types of GGUF files to write as well, such as `q8_0`.
        operator: Who does it, as a role, for the record.
        settings: Sections of the run file, such as `{"data": {"prompt": "chat"}, "unlearn": {"learning_rate": 5e-4}}`.
        resume: Continue the request in the folder.
        overwrite: Replace it.

    Returns:
        `.verdict` (None if there was nothing to forget), `.exported`, `.record`, `.document()`.

    Raises:
        UserError: bad input.
    """
    out = Path(out)
    changes = tuple(_changes(settings or {}))
    if isinstance(rows, str | Path):
        [request] = find_requests([rows], load_config(None, changes).data)
    else:
        now = datetime.now(UTC).replace(microsecond=0)
        request = Request(out.name, None, now, None, None, Lineage(), tuple(_rows(rows)), {}, out)
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(model, str | Path | None):
            path = None if model is None else str(model)
        else:
            if resume:
                raise DataError(
                    "forget: resume with a model in memory; only that of a folder can be resumed; save it first"
                )
            if tokenizer is None:
                raise DataError("forget: a model in memory without its tokenizer; give both, or the model's folder")
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            path = folder
        options = Options(
            model=path,
            base=None if base is None else str(base),
            kind=kind,
            minutes=minutes,
            policy=None if policy is None else str(policy),
            attacks=tuple(attacks),
            gguf=tuple(gguf),
            operator=operator,
            changes=changes,
        )
        return _forget(request, options, out, resume=resume, overwrite=overwrite, tell=logger.info)


def _changes(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield settings as arguments of `--set`, whose values are YAML, and so JSON."""
    for section, own in settings.items():
        if not isinstance(own, Mapping):
            raise ConfigError(f"settings: {section!r} is {own!r}; give a mapping of names to values")
        yield from (f"{section}.{name}={json.dumps(value, default=str)}" for name, value in own.items())


def _rows(given: Iterable[Any]) -> list[Row]:
    records = [(f"rows[{i}]", record) for i, record in enumerate(given)]
    if not records:
        raise DataError("forget: no row; give at least one question with its answer")
    made = iter(
        make_rows(
            (origin, {"scope": FORGET, **record} if isinstance(record, dict) else record)
            for origin, record in records
            if not isinstance(record, Row)
        )
    )
    return [record if isinstance(record, Row) else next(made) for _, record in records]
