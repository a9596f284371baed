"""Verify a record: its signature and schema, the page made from it, the model's files, the ledger, rows, a sample of its tests.

Only the last one imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scopewise.erasure import ledger as ledgers
from scopewise.erasure.evidence import NAME, describe_scopes, digest_folder, policy_digest, read_record
from scopewise.erasure.handouts import handouts
from scopewise.erasure.ledger import Ledger
from scopewise.erasure.verdict import Policy, read_policy
from scopewise.errors import ResultError, UserError
from scopewise.record import manifest


@dataclass(frozen=True)
class Check:
    """One thing that was verified.

    Attributes:
        name: What was checked.
        result: `ok`, `failed`, `undecided` (of probes that few facts leave open), or `not checked`.
        detail: What was found, or what to give so that it can be checked.
    """

    name: Literal["signature", "signer", "page", "files", "ledger", "rows", "probes"]
    result: Literal["ok", "failed", "undecided", "not checked"]
    detail: str


def find(record: str | Path) -> Path:
    """Return the file of a record, given that file or the folder that holds it. Raises ResultError if there is none."""
    path = Path(record)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise ResultError(f"{path}: no such record; give {NAME} or the folder that holds it")
    return path


def verify_record(
    record: str | Path,
    *,
    model: str | Path | None = None,
    ledger: str | Path | None = None,
    signer: str | None = None,
    rows: Iterable[Any] | None = None,
    key: bytes | None = None,
    policy: Policy | None = None,
    base: str | Path | None = None,
) -> list[Check]:
    """Return what was verified of a record.

    If the signature fails, nothing else is checked, since what the record says cannot be relied on.

    Args:
        record: Its file, or the folder that holds it.
        model: Folder of the model that the record is about; None: `export` beside the record, if it is there.
        ledger: The ledger, or its folder; None: the record's folder or the one above it, if it has one.
        signer: Fingerprint (hex) of the key that should have signed, as its owner published it.
        rows: The rows of the request.
        key: The controller's key for rows; None: rows are not checked.
        policy: The bounds of the verdict; None: the shipped ones.
        base: The model before fine-tuning, with which the facts of few instances are compared; None: with other names.

    Raises:
        ResultError: there is no such record, model folder or ledger.
    """
    path = find(record)
    content = path.read_bytes()
    try:
        statement = read_record(content, str(path))
    except ResultError as error:
        why = str(error).rpartition("; ")[0] or str(error)
        return [Check("signature", "failed", f"no record that is as it was signed; nothing else was checked. {why}")]
    predicate, keyid = statement["predicate"], statement["predicate"]["signer"]["keyid"]
    found = [Check("signature", "ok", f"signed with the key {keyid}, and in the form of the schema")]
    if signer is None:
        detail = "compare the fingerprint with the one that the signer published, or give it"
        found.append(Check("signer", "not checked", detail))
    else:
        given = signer.strip().lower().removeprefix("sha256:")
        detail = "the expected key" if given == keyid else f"signed with {keyid}; expected {given}"
        found.append(Check("signer", "ok" if given == keyid else "failed", detail))
    found.append(_page(statement, path.parent))
    above = path.absolute().parents  # a record of several requests is in `requests/ID` of their folder
    places = (path.parent, *above[2:3])
    model = model or next(filter(None, (_there(place / "export") for place in places)), None)
    if model is None:
        found.append(Check("files", "not checked", "give the folder of the model"))
    else:
        found.append(_files(statement["subject"], Path(model)))
    if ledger is None:
        ledger = next(
            (place for place in (path.parent, *above[1:2], *above[3:4]) if _there(place / ledgers.NAME)), None
        )
    elif not Ledger(ledger).path.is_file():
        raise ResultError(f"{ledger}: no {ledgers.NAME}; give it, or the folder that holds it")
    if ledger is None:
        found.append(Check("ledger", "not checked", "give the ledger, or its folder"))
    else:
        found.append(_ledger(predicate, hashlib.sha256(content).hexdigest(), Ledger(ledger)))
    rows = None if rows is None else list(rows)
    found.append(_rows(predicate["scopes"], rows, key))
    found.append(_probes(statement, found, model, rows, policy or read_policy(), base))
    return found


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def _page(statement: dict[str, Any], folder: Path) -> Check:
    """Check that the page and the other files made from the record say what it says.

    Another version, or another commit, may put the same in other words.
    """
    texts = {name: text for name, text in handouts(statement).items() if (folder / name).is_file()}
    if not texts:
        return Check("page", "not checked", f"no page beside {folder / NAME}")
    wrong = [name for name, text in texts.items() if (folder / name).read_bytes() != text.encode()]
    made, own = statement["predicate"]["tool"], manifest(None, None)
    if wrong and any(made.get(key) != own[key] for key in ("scopewise", "commit")):
        detail = f"{', '.join(wrong)}: made by another version of scopewise, in other words; `scopewise show` prints the record"
        return Check("page", "not checked", detail)
    if wrong:
        return Check("page", "failed", f"{', '.join(wrong)}: not what the record says; rely on the record alone")
    return Check("page", "ok", f"{', '.join(texts)}: as made from the record")


def _files(subject: list[dict[str, Any]], folder: Path) -> Check:
    if not folder.is_dir():
        raise ResultError(f"{folder}: no such folder; give the folder of the model")
    named = {entry["name"]: entry["digest"]["sha256"] for entry in subject}
    try:
        there = digest_folder(folder)
    except ResultError as error:
        return Check("files", "failed", str(error))
    wrong = [f"{name} is missing" for name in named if name not in there]
    wrong += [f"{name} was changed" for name in named if there.get(name, named[name]) != named[name]]
    wrong += [f"{name} is not in the record" for name in there if name not in named]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        return Check("files", "failed", f"{folder}: {'; '.join(wrong[:5])}{more}")
    return Check("files", "ok", f"{len(named)} files in {folder}, each with its SHA-256")


def _ledger(predicate: dict[str, Any], digest: str, ledger: Ledger) -> Check:
    """Check the chain, and that record and ledger name each other."""
    try:
        entries, lines = ledger.entries(), ledger.digests()
    except ResultError as error:
        return Check("ledger", "failed", str(error))
    request, previous = predicate["request"]["id"], predicate["previous"]
    place = next((e.number for e in entries if e.digest == digest and e.request == request), None)
    earlier = [e.digest for e in entries[: (place or 1) - 1]]
    head, wrong = previous.get("ledger"), ""
    if entries and entries[0].signer is not None and entries[0].signer.keyid != predicate["signer"]["keyid"]:
        wrong = "it is signed with another key than the record"
    elif place is None:
        wrong = f"no entry of {request} names this record"
    elif head is not None and lines[head["entries"] - 1 : head["entries"]] != [head["digest"]]:
        wrong = f"its entry {head['entries']} is not the one that the record names"
    elif previous.get("record") is not None and previous["record"] not in earlier:
        wrong = "no entry before names the previous record"
    if wrong:
        return Check("ledger", "failed", f"{ledger.path}: {wrong}")
    return Check("ledger", "ok", f"{len(entries)} entries in an unbroken chain; entry {place} names this record")


def _probes(
    statement: dict[str, Any],
    found: list[Check],
    model: str | Path | None,
    rows: list[Any] | None,
    policy: Policy,
    base: str | Path | None,
) -> Check:
    """Ask the model again, if it and the rows are there and are those of the record."""
    results = {check.name: check.result for check in found}
    named = statement["predicate"]["evidence"].get("policy")
    if model is None or rows is None:
        return Check("probes", "not checked", "give the model and the rows")
    if results["files"] != "ok" or results["rows"] == "failed":
        return Check("probes", "not checked", "the model or the rows are not those of the record")
    if named is not None and named != policy_digest(policy.model_dump()):
        return Check("probes", "not checked", "decided by another policy; give the file of the record's policy")
    from scopewise.erasure.probes import probe  # imports torch

    try:
        return Check("probes", *probe(statement, Path(model), rows, policy, base))
    except UserError as error:
        return Check("probes", "not checked", str(error))


def _rows(scopes: dict[str, Any], rows: Iterable[Any] | None, key: bytes | None) -> Check:
    if rows is None or key is None:
        return Check(
            "rows",
            "not checked",
            "give the rows, and the controller's key for rows" if rows is None else "no key for rows",
        )
    there = describe_scopes(rows, key)
    wrong = [scope for scope in scopes if there.get(scope, {}).get("hmac") != scopes[scope]["hmac"]]
    wrong += [scope for scope in there if scope not in scopes]
    if wrong:
        return Check("rows", "failed", f"other rows than the record's, or another key, in scope {', '.join(wrong)}")
    total = sum(scope["rows"] for scope in scopes.values())
    return Check("rows", "ok", f"{total} rows, each scope with its HMAC")
