"""A redacted report: forget answers as salted hashes, no local paths. A report must not reveal what was deleted."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, Benchmark
from scopewise.errors import UserError
from scopewise.report.run_folder import Run
from scopewise.report.secrets import LENGTH, Secrets

_TRIES = 1000
PATH = "[path]"
_PATHS = frozenset(
    (
        *("dir", "path", "target", "oracle", "general", "region", "prompts", "models"),
        *("reference_model", "entailment_model", "fluency_model", "language_model"),
        *("address", "partition", "account", "setup"),
    )
)
"""Settings that hold paths, models or cluster addresses."""
_TEXTS = frozenset(["prompt", "system", "pattern", "stop", "parts"])
"""Settings that hold text written by the user."""
_LOCAL = re.compile(
    r"(?<![\w<>/:\\.~-])(?:(?:file:/+|~\w*|[A-Za-z]:|\.{1,2})?[/\\]+[^\s/\\\"'<>|,;)\]]+(?:[/\\]+[^\s\"'<>|,;)\]]*)?"
    r"|[\w.-]+(?:[/\\][\w.-]+)*\.(?:jsonl?|ya?ml|txt|csv|parquet|safetensors|bin|gguf)\b)"
)
"""A path in a sentence."""


class Redaction:
    """Hides text that only the forget answers have.

    Answers and outputs of forget rows are replaced as a whole. In every other text, `Secrets` finds the parts that
    occur in a forget answer, but in no question and no other answer. A hash is 12 hexadecimal digits of HMAC-SHA256 of
    the text, ignoring case and spacing: equal texts have equal hashes in one report, and guesses cannot be tried
    without the salt.

    Args:
        rows: All known rows, with `question`, `answer`, `scope` and the optional fields of a row.
        salt: The same salt gives the same hashes in several reports; None: random, and stored nowhere.
        suspects: Further texts to hide like forget answers.
    """

    def __init__(
        self, rows: Iterable[Mapping[str, Any]], salt: str | None = None, suspects: Iterable[str] = ()
    ) -> None:
        self._salt = secrets.token_bytes(32) if salt is None else salt.encode()
        secret, public = list(suspects), []
        for row in rows:
            public.append(row["question"])
            if row["scope"] == FORGET:
                secret += [row["answer"], row.get("paraphrase") or "", *row.get("others", ())]
            else:
                public.append(row["answer"])
        self._secrets = Secrets(secret, public)
        self._scrubbed: dict[str, str] = {}

    def hide(self, text: str) -> str:
        """Return the replacement of a text, chosen so that its digits contain no secret themselves."""
        if not text:
            return text
        folded = unicodedata.normalize("NFKC", " ".join(text.split())).casefold()
        for i in range(_TRIES):
            digits = self._hash(folded if i == 0 else f"{folded}\0{i}")
            # The label reveals nothing; check only the digits and the characters next to them.
            if not self._secrets.has("redacted"[1 - LENGTH :] + f" {digits}]"):
                return f"[redacted {digits}]"
        return "[redacted]"

    def scrub(self, text: str) -> str:
        """Replace the secret parts of a text, by whole words."""
        found = self._scrubbed.get(text)
        if found is None:
            parts, end = [], 0
            for start, stop in self._secrets.spans(text):
                parts += [text[end:start], self.hide(text[start:stop])]
                end = stop
            found = self._scrubbed[text] = "".join([*parts, text[end:]])
        return found

    def seal(self, text: str) -> str:
        """Return the salted hash of a text that is no answer, such as an unsalted hash."""
        return self._hash(text)

    def _hash(self, text: str) -> str:
        return hmac.new(self._salt, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:12]


class Open:
    """Hides nothing: replaces `Redaction` in a report without redaction."""

    def hide(self, text: str) -> str:
        """Return the text unchanged."""
        return text

    def scrub(self, text: str) -> str:
        """Return the text unchanged."""
        return text


def private(runs: Sequence[Run], salt: str | None = None) -> tuple[list[Run], Redaction, list[str]]:
    """Return runs without local paths, the redaction for the forget answers of all of them, and notes for the reader.

    The redaction knows the rows that some model answered, the rows of the worst leaks and, if it can still be read, the
    whole benchmark: the run folder has no text of train answers that were not evaluated.
    """
    rows: list[Mapping[str, Any]] = [row for run in runs for model in run.models for row in model.answers]
    suspects: list[str] = []
    notes = []
    for run in runs:
        for result in (run.attacks or {}).get("results", []):
            suspects += [str(leak["answer"]) for leak in result.get("worst") or [] if leak.get("answer")]
        found, note = _benchmark(run)
        if note:
            notes.append(note)
        if found is None:
            continue
        if note:  # other rows than the run had: hide their answers, but treat none of their text as public
            suspects += [text for row in found.rows if row.scope == FORGET for text in (row.answer, row.paraphrase)]
        else:
            rows += [asdict(row) for row in found.rows]
    redaction = Redaction(rows, salt, suspects)
    names = ["run"] if len(runs) == 1 else [f"run {i}" for i in range(1, len(runs) + 1)]
    shown = [_without_paths(run, name, redaction) for run, name in zip(runs, names, strict=True)]
    return shown, redaction, list(dict.fromkeys(notes))


def _benchmark(run: Run) -> tuple[Benchmark | None, str]:
    """Return the benchmark of a run, and a note if it may differ from the one the run had."""
    unread = (
        "The rows of the benchmark could not be read again, so texts that occur only in answers that no model of the run "
        "was asked for are not hidden."
    )
    data = (run.results.get("config") or {}).get("data") or {}
    name, path = data.get("benchmark", "builtin"), data.get("path")
    if path is None and name not in ("builtin", "builtin_full", "world_facts"):
        return None, unread  # it is on the hub, and a report must not use the network
    try:
        places = _there(path, run.path), data.get("domain"), _there(data.get("general"), run.path)
        found = load_benchmark(name, *places, data.get("instances"))
    except (UserError, OSError):
        return None, unread
    changed = (
        "The rows of the benchmark have changed since the run: what only answers of the earlier rows say that no model of "
        "the run was asked for is not hidden."
    )
    return found, "" if found.content_hash() == run.results["manifest"].get("data_hash") else changed


def _there(path: str | None, folder: Path) -> str | None:
    """Resolve a path from the working directory, or else from the nearest folder above the run that has it."""
    if path is None or Path(path).exists():
        return path
    return next((str(above / path) for above in folder.resolve().parents if (above / path).exists()), path)


def _without_paths(run: Run, name: str, redaction: Redaction) -> Run:
    results = dict(run.results)
    results["config"] = _settings(results.get("config") or {}, redaction)
    made = {key: _changed(value, local) for key, value in results["manifest"].items()}
    for key in ("data_hash", "config_hash"):  # unsalted hashes of rows or paths, so guesses could be tried out
        if made.get(key):
            made[key] = redaction.seal(made[key])
    results["manifest"] = made
    models = []
    for model in run.models:  # why rows were skipped may quote them
        skipped = _changed(model.row.get("skipped") or {}, lambda text: redaction.scrub(local(text)))
        models.append(replace(model, row={**model.row, "skipped": skipped}))
    return replace(run, name=name, results=results, models=models)


def _settings(value: Any, redaction: Redaction, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {
            (redaction.scrub(k) if key == "parts" else k): _settings(v, redaction, key if key in _TEXTS else str(k))
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_settings(v, redaction, key) for v in value]
    if not isinstance(value, str):
        return value
    if key in _TEXTS:
        return redaction.scrub(local(value))
    path_like = key in _PATHS and value != "tiny"
    return PATH if path_like or "/" in value or "\\" in value else local(value)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value in which every text is changed, but for keys."""
    if isinstance(value, Mapping):
        return {key: _changed(v, change) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(v, change) for v in value]
    return change(value) if isinstance(value, str) else value


def local(text: str) -> str:
    """Replace the paths in a text."""
    home = str(Path.home())
    return _LOCAL.sub(PATH, text.replace(home, PATH) if len(home) > 1 else text)
