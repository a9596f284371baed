"""Ask a recorded model again: does a sample of the facts agree with what the record says?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from scopewise.config import DataSection
from scopewise.data.rows import Row
from scopewise.erasure.envelope import canonical
from scopewise.erasure.facts import measured_facts
from scopewise.erasure.recheck import few, judge
from scopewise.erasure.verdict import Policy
from scopewise.exposure import expose
from scopewise.models.engine import Engine
from scopewise.terminal import counted

ASKED = ("prompt", "system", "system_role", "max_length")
"""Settings of the `data` section that decide how a question is asked; a record has them."""


def probe(
    statement: Mapping[str, Any], model: Path, rows: Sequence[Row], policy: Policy, base: str | Path | None = None
) -> tuple[Literal["ok", "failed", "undecided"], str]:
    """Measure the exposure of a few facts, and return whether the light agrees with the record's, and a sentence.

    They disagree if the facts are known and the record does not say so, or the other way round. An amber sample says nothing
    about a record that is not amber.

    Args:
        statement: Of the record; the sample is drawn by its digest.
        model: Folder of the model that the record is about.
        rows: Of the request.
        policy: The bounds that the record names.
        base: The model before fine-tuning, as in `measured_facts`.
    """
    predicate = statement["predicate"]
    action, verdict = predicate["action"], predicate["evidence"].get("verdict")
    seed = int.from_bytes(hashlib.sha256(canonical(dict(statement))).digest()[:4])
    facts = few(measured_facts(rows, action.get("seed") or 0, base), seed)
    data = DataSection.model_validate(action.get("settings", {}).get("data", {}))
    exposure = expose(Engine.load(model, data=data, name="probes"), facts)
    now = judge(exposure, policy, known=verdict is not None, exact=action["kind"] == "exact")
    said = "not known" if verdict is None else verdict["forgotten"]["light"]
    compared = ", compared with the base" if any(fact.reference for fact in facts) else ""
    asked = f"{counted(len(facts), 'fact')}, each asked in one wording{compared}"
    return compared_lights(
        now.light, said
    ), f"{asked}: {now.light} (p = {exposure.p:.2g}); the record says {said}. {now.why}"


def compared_lights(now: str, said: str) -> Literal["ok", "failed", "undecided"]:
    """Return whether the light of a sample agrees with what the record says: a light, or `not known`."""
    if now == "amber":
        return "ok" if said == "amber" else "undecided"
    return "ok" if (now == "red") == (said == "red") else "failed"
