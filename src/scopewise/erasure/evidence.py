"""The record of a request: what was asked, done and measured, as a signed in-toto Statement. Imports no torch.

A record is evidence of what was measured, with its limits. `docs/record.md` describes it, and has a script that verifies one
with nothing but `cryptography`.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from scopewise.data.instances import instance_of
from scopewise.data.rows import Row
from scopewise.erasure.envelope import canonical, seal, unseal
from scopewise.erasure.figures import Kept
from scopewise.erasure.keys import fingerprint, keyed_hash, public_pem, read_public, rows_hmac
from scopewise.erasure.record_schema import PREDICATE_TYPE, STATEMENT_TYPE, Statement
from scopewise.errors import ResultError
from scopewise.files import write_bytes
from scopewise.models.find import hub_snapshot
from scopewise.ranks import Exposure
from scopewise.record import manifest

NAME = "record.intoto.json"
"""File of a record."""
RETEST_DAYS = 180
"""Days until a record asks for another test. Default: half a year, since attacks get better."""
_END = r"\s/\\\"'<>|,;)\]"
_ABSOLUTE = re.compile(rf"(?<![\w.:/\\<])(?:~|[A-Za-z]:|)(?:[/\\]+[^{_END}]+)*[/\\]+([^{_END}]+)[/\\]*(?![^{_END}])")
"""An absolute path in a sentence; the group is its last part."""


def make_record(
    *,
    request: Mapping[str, Any],
    before: Mapping[str, Any],
    scopes: Mapping[str, Mapping[str, Any]],
    action: Mapping[str, Any],
    evidence: Mapping[str, Any],
    limits: Iterable[str],
    operator: str,
    previous: Mapping[str, Any] | None,
    files: Mapping[str, str],
    retest: datetime.date | None = None,
) -> dict[str, Any]:
    """Return the statement of a record, not signed yet.

    The parts are mappings with the keys of the same part in `record_schema.py`. Times may be `datetime`s. Local paths in
    texts are replaced, since a record leaves the house.

    Args:
        request: `id`, `regulation`, `received`, `due`, `subject`, as from `describe_request`.
        before: `name`, `files`, `revision` (from `digest_model`), `lineage`, `descendants` (`name`, `done`, `kind`).
        scopes: Scope → `rows`, `instances`, `hmac`, as from `describe_scopes`.
        action: `kind`, `method`, `settings`, `region`, `seed`, `precision`, `form`, `seconds`.
        evidence: `known`, `verdict`, `metrics`, `attacks`, `policy`; `test_result` is added here.
        limits: Sentences: what was not tested, what still leaks, who could teach it again.
        operator: Who did it, as a role or an organisation.
        previous: From `Ledger.head`; None without a ledger.
        files: Exported file → SHA-256, from `digest_folder`; of the model as it is if nothing was exported.
        retest: When to test again; None: in half a year.

    Raises:
        ResultError: a value that the schema does not allow; the message names its key.
    """
    now = datetime.datetime.now(datetime.UTC)
    predicate = {
        "made": now.isoformat(timespec="seconds"),
        "request": request,
        "before": before,
        "scopes": scopes,
        "action": action,
        "evidence": {**evidence, "test_result": _test_result(action, evidence)},
        "limits": list(limits),
        "operator": operator,
        "tool": manifest(None, None),
        "previous": previous or {},
        "retest": retest or (now + datetime.timedelta(days=RETEST_DAYS)).date(),
    }
    commit = before.get("revision") if dict(files) == before["files"] else None  # an exported file is not on the hub
    uri = {} if commit is None else {"uri": f"pkg:huggingface/{before['name']}@{commit}"}
    subject = [{"name": name, "digest": {"sha256": digest}, **uri} for name, digest in sorted(files.items())]
    statement: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": subject,
        "predicateType": PREDICATE_TYPE,
        "predicate": _plain(predicate),
    }
    unsigned = {"keyid": "0" * 64, "public_key": ""}
    check_schema({**statement, "predicate": {**statement["predicate"], "signer": unsigned}}, "record")
    return statement


def describe_instances(rows: Iterable[Row], exposure: Exposure, kept: Kept) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the persons and works of a request in its order, and the figures of each, which have numbers in place of names."""
    names = list(dict.fromkeys(instance_of(row.instance, row.question) for row in rows))
    exposed = {one.instance: {"facts": one.facts, "known": one.known, "p": one.corrected} for one in exposure.instances}
    lost = {one.instance: {"lost": one.loss} for one in kept.instances}
    found = [{"number": i, **exposed.get(name, {}), **lost.get(name, {})} for i, name in enumerate(names, start=1)]
    return names, [one for one in found if len(one) > 1]


def sign(statement: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the DSSE envelope of a statement, to which the public half of the key is added."""
    signed, public = copy.deepcopy(dict(statement)), public_pem(key)
    signed["predicate"]["signer"] = {"keyid": fingerprint(public), "public_key": public}
    return seal(canonical(signed), key, fingerprint(public))


def write_record(folder: str | Path, envelope: Mapping[str, Any]) -> Path:
    """Write a record into a folder and return its path. Raises ResultError if there is one already, or on a full disk."""
    path = Path(folder) / NAME
    if path.exists():
        raise ResultError(f"{path}: exists; a record is not replaced; write to another folder")
    write_bytes(path, canonical(envelope) + b"\n")
    return path


def read_record(content: bytes, where: str) -> dict[str, Any]:
    """Return the statement of a record's file, after checking form, signature and schema.

    The key is the one that the record names: compare its fingerprint with what the signer published.

    Raises:
        ResultError: one of the three is wrong.
    """
    statement = unseal(content, where, _signer)
    check_schema(statement, where)
    return statement


def check_schema(statement: Any, where: str) -> None:
    """Raise ResultError, with the first wrong key, unless a statement has the form of a record."""
    try:
        Statement.model_validate(statement)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ResultError(f"{where}: {key or 'all of it'}; {first['msg']}; correct this value") from None


def record_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a record's file, by which ledgers and later records name it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest_folder(folder: str | Path) -> dict[str, str]:
    """Return the SHA-256 (hex) of every file in a folder, by its path in it with slashes; or of a GGUF file, by its name.

    Raises:
        ResultError: no such folder, no file in it, or something that is neither a file nor a folder, such as a link.
    """
    folder, found = Path(folder), {}
    if folder.suffix == ".gguf" and folder.is_file():
        return {folder.name: _digest(folder)}
    if not folder.is_dir():
        raise ResultError(f"{folder}: no such folder; give the folder of the model")
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ResultError(f"{path}: a link or a device; only files can be in a record; copy the file itself")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = _digest(path)
    if not found:
        raise ResultError(f"{folder}: no file in it; give the folder of the model")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_model(path: str, revision: str | None = None) -> dict[str, Any]:
    """Return the part `before` of a record without what was made of the model: its name, its files' SHA-256, its hub commit.

    Call it after the model was loaded, which downloads the files of a hub model.

    Args:
        path: Folder, GGUF file or hub name.
        revision: Hub revision.

    Raises:
        ResultError: no file of the model is known, so that no record could say which model it is about.
    """
    if Path(path).exists():
        return {"name": Path(path).name, "files": digest_folder(path), "revision": None}
    folder = hub_snapshot(path, revision)
    if folder is None:
        raise ResultError(
            f"{path}: none of its files is in the hub's cache, so a record could not name them; download it with `hf download "
            f"{path} --local-dir FOLDER`, and give the folder"
        )
    links = [link for link in sorted(folder.rglob("*")) if link.is_file()]
    files = {link.relative_to(folder).as_posix(): _digest(link) for link in links}
    return {"name": path, "files": files, "revision": folder.name}


def digest_files(files: Mapping[str, str]) -> str:
    """Return one SHA-256 (hex) for a whole model, from `digest_folder`: by it a ledger names the model."""
    return hashlib.sha256(canonical(dict(files))).hexdigest()


def policy_digest(bounds: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the bounds of a verdict, by which a record names its policy."""
    return hashlib.sha256(json.dumps(bounds, sort_keys=True).encode()).hexdigest()


def describe_request(request: Any, key: bytes) -> dict[str, Any]:
    """Return the part `request` of a record.

    The hash of the person is hashed again with the controller's key, since a salt that others know lets them try names.

    Args:
        request: With `id`, `regulation`, `received`, `due` and `subject`, as `forget.request.Request`.
        key: From `rows_key`.
    """
    subject = keyed_hash(canonical(dict(request.subject)), key) if request.subject else None
    times = {"received": request.received, "due": request.due}
    return {"id": request.id, "regulation": request.regulation, **times, "subject": subject}


def describe_scopes(rows: Iterable[Any], key: bytes) -> dict[str, dict[str, Any]]:
    """Return the part `scopes` of a record: rows and instances of each scope, and their HMAC.

    Args:
        rows: With `question`, `answer`, `scope` and `instance`, as `data.rows.Row`.
        key: From `rows_key`.
    """
    of_scope: dict[str, list[Any]] = {}
    for row in rows:
        of_scope.setdefault(row.scope, []).append(row)
    return {
        scope: {
            "rows": len(own),
            "instances": len({row.instance for row in own if row.instance}),
            "hmac": rows_hmac(({"question": r.question, "answer": r.answer, "scope": r.scope} for r in own), key),
        }
        for scope, own in of_scope.items()
    }


def _signer(statement: Any) -> tuple[Ed25519PublicKey, str] | None:
    """Return the key that a statement names, which is not trusted yet, and its fingerprint."""
    match statement:
        case {"predicate": {"signer": {"public_key": str(text)}}} if (key := read_public(text)) is not None:
            return key, fingerprint(text)
    return None


def _test_result(action: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return lights and attacks as the in-toto predicate `test-result`: a red one fails, an amber one warns."""
    verdict, known = evidence.get("verdict") or {}, evidence.get("known") or {}
    lights = {name: light.get("light") for name, light in verdict.items()}
    lights |= {f"attack {a.get('name')}": a["light"] for a in evidence.get("attacks", ()) if a.get("light")}
    if not lights:
        nothing = action.get("kind") == "nothing" and known.get("known") == 0
        lights = {"not known before": "green" if nothing else "amber"}
    named = {light: [name for name, own in lights.items() if own == light] for light in ("green", "amber", "red")}
    policy = evidence.get("policy")
    return {
        "result": "FAILED" if named["red"] else "WARNED" if named["amber"] else "PASSED",
        "configuration": [{"name": "policy", "digest": {"sha256": policy}}] if policy else [],
        "passedTests": named["green"],
        "warnedTests": named["amber"],
        "failedTests": named["red"],
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: times as ISO 8601, tuples as lists; of an absolute path only the last part."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime.date):  # a datetime is one too
        return value.isoformat()
    if isinstance(value, Path):
        return value.name
    if not isinstance(value, str):
        return value
    if value[:1] in ("/", "~") and "\n" not in value:  # the whole is a path, maybe with spaces
        return PurePath(value).name
    return _ABSOLUTE.sub(r"\1", value)
