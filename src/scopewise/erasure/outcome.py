"""What came of a deletion request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scopewise.erasure.handouts import PAGE
from scopewise.erasure.plan import Plan
from scopewise.erasure.verdict import Verdict


@dataclass(frozen=True)
class Forgotten:
    """What came of a request.

    Attributes:
        folder: Everything lies in it. It holds personal data, except for `export` and the record.
        known: What the model knew before: `facts`, `known`, `p`, and the rank of each fact.
        plan: What was done.
        verdict: The three lights, on the exported files; None if there was nothing to forget, or only a plan was asked for.
        exported: The exported model.
        record: The signed record; None if there are several.
        earlier: Requests that were carried out before on this model, measured on the exported one: `request`, `then`, `light`.
        parts: Of several requests, what came of each, by its id.
    """

    folder: Path
    known: Mapping[str, Any]
    plan: Plan
    verdict: Verdict | None = None
    exported: Path | None = None
    record: Path | None = None
    earlier: tuple[Mapping[str, Any], ...] = ()
    parts: Mapping[str, Forgotten] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if all lights are green or nothing was to be done, and no earlier request is red; else 3."""
        verdicts = [one.verdict for one in self.parts.values() or (self,)]
        green = all(verdict is None or verdict.green for verdict in verdicts)
        return 0 if green and all(one["light"] != "red" for one in self.earlier) else 3

    def document(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        page = None if self.record is None else self.record.with_name(PAGE)
        paths = {"export": self.exported, "record": self.record, "page": page}
        return {
            "known": {key: self.known[key] for key in ("facts", "known", "p")},
            "plan": asdict(self.plan),
            "verdict": None if self.verdict is None else self.verdict.document(),
            "earlier": [dict(one) for one in self.earlier],
            **{name: None if path is None else str(path) for name, path in paths.items()},
        } | ({"requests": {id: one.document() for id, one in self.parts.items()}} if self.parts else {})
