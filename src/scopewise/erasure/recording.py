"""Write the signed record of a request and what is made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scopewise.erasure import evidence, keys
from scopewise.erasure.figures import Kept
from scopewise.erasure.handouts import BOM, write_handouts, write_private_page
from scopewise.erasure.page import Answers
from scopewise.erasure.plan import Plan
from scopewise.erasure.request import Request
from scopewise.erasure.verdict import Policy, Verdict
from scopewise.methods.base import make_method
from scopewise.ranks import Exposure

LIMITS = (
    "Attacks with more steps, other data or other prompts were not tried.",
    "Copies of the model from before, and models made from it, still have the facts.",
    "Whoever has the facts can teach them to the model again.",
)
NOTHING_DONE = (
    "Only the questions of the request were asked, and no attack was run.",
    "Copies of the model, and models made from it, were not tested.",
)
RETRAINED = (
    "The model was trained again on the retain rows of the request only; so says who signed this record. What else it may have "
    "learned after its base is gone."
)
GENERAL = "Of other knowledge than that of the request, only the loss on general text was tested."
SAME_TEXT = "The method was trained on other text of the same collection, so text of other kinds may have lost more."
NO_GENERAL = (
    "The loss on general text was not compared: a model that guesses it no better than by chance has none to lose."
)

TOKENIZER = (
    "The model was made to try this command, with a tokenizer from all rows: the exported vocabulary has words of them."
)
_RISE = {"name": "rise of the loss on general text", "unit": "nats per token", "better": "lower"}


@dataclass(frozen=True)
class Done:
    """What was done to a model, and found about the result.

    Attributes:
        settings: Of the training.
        seconds: Duration of the search for it.
        verdict: The three lights.
        exposure: Of the request's facts.
        kept: Retention.
        resisted: The attacks, as `Resisted` in plain values.
        files: The exported files, name → SHA-256.
        limits: Further sentences for the record.
        answers: What the models say before and after, for a page with names; None: no such page is written.
    """

    settings: Mapping[str, Any]
    seconds: float
    verdict: Verdict
    exposure: Exposure
    kept: Kept
    resisted: Mapping[str, Any]
    files: Mapping[str, str]
    limits: tuple[str, ...] = ()
    answers: Sequence[Answers] | None = None


def write_request_record(
    folder: Path,
    request: Request,
    *,
    key: Ed25519PrivateKey,
    base: str | None,
    before: Mapping[str, Any],
    known: Mapping[str, Any],
    plan: Plan,
    done: Done | None,
    policy: Policy,
    operator: str,
    seed: int,
    asked: Mapping[str, Any],
    previous: Mapping[str, Any] | None,
) -> Path:
    """Write the signed record of a request, the officer's page and the other handouts, and return the record's file.

    Args:
        folder: Of the record; one that is there already is kept.
        request: The request.
        key: Signs.
        base: What the model before was fine-tuned from.
        before: `name`, `files` and `revision` of the model before, from `evidence.digest_model`.
        known: `facts`, `known` and `p` of the request's facts, before.
        plan: What was done.
        done: How, and what came out; None if nothing was done.
        policy: The bounds of the verdict.
        operator: Who did it.
        seed: Of everything that was drawn.
        asked: Settings of the `data` section that decide how a question is asked.
        previous: From `Ledger.head`.
    """
    path = folder / evidence.NAME
    if path.exists():  # from before a kill
        return _hand_out(path, request, done)
    rows_key = keys.rows_key()
    assert rows_key is not None
    action: dict[str, Any] = {"kind": plan.kind, "seed": seed, "settings": {"data": dict(asked)}}
    found: dict[str, Any] = {"known": {name: known[name] for name in ("facts", "known", "p")}}
    limits: Iterable[str] = NOTHING_DONE
    if done is not None:
        action["settings"] |= done.settings
        action |= {"method": plan.method, "seconds": done.seconds, "form": "merged"}
        general = done.kept.general
        found |= {
            "metrics": [] if general is None else [{**_RISE, **asdict(general)}],
            "verdict": done.verdict.document(),
            "instances": evidence.describe_instances(request.rows, done.exposure, done.kept)[1],
            "policy": evidence.policy_digest(policy.model_dump()),
            "attacks": [
                {"name": f"{one['attack']}: {one['setting']}", **one["leakage"], "n": done.resisted["n"],
                 "bound": policy.resists.bound, "p": one["corrected"]}
                for one in done.resisted["settings"]
            ],
        }  # fmt: skip
        limits = limits_of(plan, done)
    statement = evidence.make_record(
        request=evidence.describe_request(request, rows_key),
        before={
            **before, "lineage": [_named(base)] if base else [],
            "descendants": [
                {"name": Path(one.path).name, "done": one.done, "kind": one.kind}
                for one in request.model.descendants
            ],
        },
        scopes=evidence.describe_scopes(request.rows, rows_key),
        action=action,
        evidence=found,
        limits=limits,
        operator=operator,
        previous=previous,
        files=before["files"] if done is None else done.files,
    )  # fmt: skip
    evidence.write_record(folder, evidence.sign(statement, key))
    return _hand_out(path, request, done)


def limits_of(plan: Plan, done: Done) -> list[str]:
    """Return the sentences that say what was not tested, and what may still leak."""
    retrained = [RETRAINED] if plan.kind == "exact" else []
    tested = [NO_GENERAL if done.kept.general is None else GENERAL]
    if done.kept.general is not None and plan.kind == "approximate":
        method = make_method(done.settings["method"], **done.settings.get("method_args", {}))
        if method.retain_terms and method.retain_data != "retain":
            tested.append(SAME_TEXT)
    return [*LIMITS, *retrained, *tested, *done.limits, *done.resisted["notes"]]


def _named(model: str) -> str:
    """Return a hub name as it is, and of a folder its own name alone."""
    return Path(model).name if Path(model).exists() or Path(model).is_absolute() else model


def _hand_out(record: Path, request: Request, done: Done | None) -> Path:
    """Write what is made from a record, and return the record's file."""
    statement = evidence.read_record(record.read_bytes(), str(record))
    if not (record.parent / BOM).exists():  # the last of them
        write_handouts(record.parent, statement)
    if done is not None and done.answers is not None:
        names = evidence.describe_instances(request.rows, done.exposure, done.kept)[0]
        shown = [answer for answer in done.answers if answer.instance in names]
        write_private_page(record.parent, statement, names, shown)
    return record
