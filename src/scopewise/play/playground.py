"""Ask all models a question: they generate in turns, token by token; recent answers are kept for reporting."""

from __future__ import annotations

import datetime
import json
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerBase

from scopewise.errors import ConfigError, ResultError
from scopewise.models.architecture import context_tokens, lm_head
from scopewise.models.engine import Engine
from scopewise.models.load import load_tokenizer
from scopewise.models.shared import SharedModels
from scopewise.play.play_run import Domain, PlayRun
from scopewise.registry import allowed

FILE = "probes.jsonl"
"""The run's probes: questions that made a model reveal what it should have forgotten, one JSON object per line."""
ROLES = ("target", "unlearned", "oracle")
_KEPT = 100
"""Number of recent questions whose answers can be reported."""


class AskRequest(BaseModel):
    """A question from the page: its text, the unlearned model to ask, and sampling settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str = Field(min_length=1, max_length=8000)
    unlearned: str
    direct: bool = False
    domain: Domain = "privacy"
    temperature: float = Field(0.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(64, ge=1, le=1024)
    seed: int = Field(0, ge=0, lt=2**31)


class Report(BaseModel):
    """A leak to report: the model, and the question that it answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    role: Literal["target", "unlearned", "oracle"]


@dataclass(frozen=True)
class _Asked:
    """A question, the models asked (role → name in the run), their texts so far, and the roles already reported."""

    question: AskRequest
    models: dict[str, str]
    texts: dict[str, str]
    reported: set[str] = field(default_factory=set)


class Playground:
    """Asks the models of a run. Not thread-safe: one question at a time.

    Args:
        run: The run.
    """

    def __init__(self, run: PlayRun) -> None:
        self.run = run
        self._models = SharedModels(run.config.model)
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        self._engines: dict[str, Engine] = {}
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    def load(self, name: str) -> None:
        """Load a model of the run, unless it is loaded. Raises ModelError."""
        path = self.run.models[name]
        self._models.load(path)
        if name not in self._tokenizers:
            self._tokenizers[name] = load_tokenizer(path)

    def ask(self, question: AskRequest) -> Iterator[dict[str, Any]]:
        """Ask target, unlearned model and oracle a question.

        Generation stops when the iterator is closed or not advanced.

        Yields:
            `{"id", "roles"}` first; then `{"role", "text", "probability", "others"}` for each token, the models in
            turns; `{"role", "end": tokens}` at the end of each model's answer.

        Raises:
            ConfigError: no such model, or more tokens than a model's context.
            ModelError: a model cannot be loaded.
        """
        if question.unlearned not in self.run.unlearned:
            raise ConfigError(
                f"unlearned: {question.unlearned!r}; in this run {allowed(question.unlearned, self.run.unlearned)}"
            )
        names = {"target": "target", "unlearned": question.unlearned, "oracle": "oracle"}
        names = {role: name for role, name in names.items() if name in self.run.models}
        streams = {role: self._stream(name, question) for role, name in names.items()}
        asked = _Asked(question, names, dict.fromkeys(names, ""))
        key = secrets.token_hex(8)
        self._asked[key] = asked
        while len(self._asked) > _KEPT:
            self._asked.popitem(last=False)
        yield {"id": key, "roles": names}
        count = dict.fromkeys(names, 0)
        while streams:
            for role in list(streams):
                with self._models.use(self.run.models[names[role]]):
                    token = next(streams[role], None)
                if token is None:
                    del streams[role]
                    yield {"role": role, "end": count[role]}
                    continue
                count[role] += 1
                asked.texts[role] += token.text
                others = [{"text": text, "probability": p} for text, p in token.others]
                yield {"role": role, "text": token.text, "probability": token.probability, "others": others}

    def report(self, report: Report) -> dict[str, Any]:
        """Append an answer to the run's probes, once; its text is the stored one, not one that the page sends.

        Returns:
            `file`, and `new`: whether it had not been reported before.

        Raises:
            ConfigError: no such answer.
            ResultError: the file cannot be written, or the answer is empty.
        """
        asked = self._asked.get(report.id)
        if asked is None or report.role not in asked.models:
            raise ConfigError(f"report: no answer {report.id!r} of {report.role}; ask the question again")
        text = asked.texts[report.role]
        if not text.strip():
            raise ResultError(f"report: the {report.role} said nothing; there is nothing to report")
        if report.role in asked.reported:
            return {"file": FILE, "new": False}
        question = asked.question
        known = next((row for row in self.run.examples if row.question == question.question), None)
        data = self.run.config.data
        path = append_probe(
            self.run.path,
            {
                "question": question.question,
                "answer": text.strip(),
                "role": report.role,
                "model": asked.models[report.role],
                "scope": None if known is None else known.scope,
                "truth": None if known is None else known.answer,
                "prompt": data.prompt,
                "system": data.system,
                "system_role": data.system_role,
                **question.model_dump(include={"direct", "domain", "temperature", "top_p", "max_new_tokens", "seed"}),
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            },
        )
        asked.reported.add(report.role)
        return {"file": path.name, "new": True}

    def _engine(self, name: str, model: Any, tokenizer: PreTrainedTokenizerBase) -> Engine:
        """Return the engine of a model; a new one if its base has loaded another adapter since."""
        known = self._engines.get(name)
        if known is None or known.model is not model or known.forward.head is not lm_head(model):
            self._engines[name] = Engine(model, tokenizer, kernels=self.run.config.model.kernels)
        return self._engines[name]

    def _stream(self, name: str, question: AskRequest) -> Iterator[Any]:
        self.load(name)
        tokenizer = self._tokenizers[name]
        ids = self.run.prompt_ids(question.question, question.domain, question.direct, tokenizer)
        with self._models.use(self.run.models[name]) as model:
            room = context_tokens(model)
            if room is not None and len(ids) + question.max_new_tokens > room:
                raise ConfigError(
                    f"question: {len(ids)} tokens and {question.max_new_tokens} new ones; {name} has room for "
                    f"{room}; shorten the question, or ask for fewer tokens"
                )
            return self._engine(name, model, tokenizer).stream(
                ids,
                question.max_new_tokens,
                temperature=question.temperature,
                top_p=question.top_p,
                seed=question.seed,
            )


def append_probe(run: Path, probe: Mapping[str, Any]) -> Path:
    """Append a line to the run's probes; only the owner can read the file, since it holds text to be forgotten.

    The line is appended in one write, so that two writers do not mix and a kill leaves no partial line before another.

    Returns:
        The file.

    Raises:
        ResultError: the file cannot be written.
    """
    path = run / FILE
    line = json.dumps(probe, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, line.encode("utf-8"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror}; make the run folder writable") from None
    return path
