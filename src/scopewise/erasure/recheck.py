"""Do the requests of a ledger still hold on a later model? The facts of each are measured again, and its light decided anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scopewise.config import DataSection
from scopewise.data.facts import Fact
from scopewise.data.rows import Row
from scopewise.erasure import evidence, facts_file, keys
from scopewise.erasure.facts import measured_facts
from scopewise.erasure.ledger import Ledger, Status
from scopewise.erasure.resist import ResistSettings, lighter
from scopewise.erasure.verdict import Light, Policy, decide, is_known
from scopewise.errors import DataError, ResultError
from scopewise.exposure import expose
from scopewise.models.engine import Engine
from scopewise.ranks import Exposure, Ranked

MOST = 32
"""Facts of a request that a cheap check measures at most."""


@dataclass(frozen=True)
class Past:
    """A request of a ledger that has a record.

    Attributes:
        status: Where it stands.
        facts: Its facts; empty if they cannot be measured.
        data: The prompt format of its questions.
        why: Why its facts cannot be measured; empty if they can.
        models: The files (name → SHA-256) of the models that its record is about: before, and as it was exported.
    """

    status: Status
    facts: tuple[Fact, ...] = ()
    data: DataSection | None = None
    why: str = ""
    models: tuple[Mapping[str, str], ...] = ()

    @property
    def known(self) -> bool:
        """Whether the model knew the facts before."""
        return self.status.facts.get("kind") != "nothing"

    @property
    def then(self) -> str:
        """The light *Forgotten* of its record; `not known` if there was nothing to forget."""
        return str(self.status.facts.get("forgotten", "amber")) if self.known else "not known"


@dataclass(frozen=True)
class Rechecked:
    """What was found about a request on a later model.

    Attributes:
        request: Its id.
        state: Its state before this check.
        then: The light *Forgotten* of its record, or `not known`.
        now: The light on the later model; its `value` is None if the facts could not be measured.
    """

    request: str
    state: str
    then: str
    now: Light


def past(
    ledger: Ledger, rows_of: Mapping[str, Sequence[Row]] | None = None, base: str | Path | None = None
) -> list[Past]:
    """Return the requests of a ledger that have a record, each with its facts.

    The facts lie beside the record, which is found by its digest: in a folder next to the ledger, or in `requests/ID` in one.

    Args:
        ledger: The ledger.
        rows_of: Request → its rows, in place of the facts in its folder.
        base: The model before fine-tuning, with which few instances of `rows_of` are compared (`measured_facts`).

    Raises:
        ResultError: the chain is broken.
        DataError: rows of a request that has no record.
    """
    rows_of, found = rows_of or {}, ledger.past()
    if unknown := set(rows_of) - {status.request for status in found}:
        raise DataError(f"--rows-of: {min(unknown)}; the ledger has no such request with a record; correct the id")
    folder = ledger.path.parent
    records = [path for depth in ("*", "*/requests/*") for path in folder.glob(f"{depth}/{evidence.NAME}")]
    places = {evidence.record_digest(path): path for path in records}
    return [_past(status, places.get(status.record or ""), rows_of.get(status.request), base) for status in found]


def _past(status: Status, record: Path | None, rows: Sequence[Row] | None, base: str | Path | None) -> Past:
    try:
        models = () if record is None else _models(record)
        if rows is not None:
            facts, data = tuple(measured_facts(rows, base=base)), None
        elif record is None:
            return Past(status, why="its folder is gone; give its rows with --rows-of")
        else:
            facts, data = facts_file.read_facts(record.parent)
    except ResultError as error:
        return Past(status, why=str(error))
    key = keys.rows_key(make=False)
    if key is None or status.facts.get("rows") != facts_file.facts_hmac(facts, key):
        return Past(status, why="other rows than those of the request, or another key for rows", models=models)
    return Past(status, facts, data, models=models)


def _models(record: Path) -> tuple[Mapping[str, str], ...]:
    statement = evidence.read_record(record.read_bytes(), str(record))
    after = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    return statement["predicate"]["before"]["files"], after


def judge(exposure: Exposure, policy: Policy, *, known: bool, exact: bool) -> Light:
    """Return the light *Forgotten* of a later model.

    Args:
        exposure: Of the later model.
        policy: The bounds.
        known: Whether the model of the request knew the facts; if not, the request holds while they are not known.
        exact: The later model was trained without the rows.
    """
    if not known:
        value, n = exposure.known, len(exposure.instances)
        again = is_known(exposure, policy.level)
        light, word = ("red", "known") if again else ("green", "not known")
        why = "True answers rank higher than chance allows." if again else "The model still does not know these facts."
        return Light(light, word, value.value, value.low, value.high, n, policy.forgotten.bound, why)  # type: ignore[arg-type]
    return decide(policy, _all_first(exposure), exposure, None, None, exact).forgotten


def _all_first(exposure: Exposure) -> Exposure:
    """Return the exposure of a model that knows all facts: the ledger says that they were known, which is all that counts."""
    return Exposure(tuple(Ranked(f.fact, 1, f.number, (1,) * len(f.by_question)) for f in exposure.facts))


def few(facts: Iterable[Fact], seed: int = 0) -> list[Fact]:
    """Return at most `MOST` facts, of instances drawn by the seed, with the plain question and the fewest wrong answers."""
    return lighter(list(facts), ResistSettings(facts=MOST, seed=seed))


def trained_without(ledger: Ledger, request: str, model: str | None) -> bool:
    """Return whether the ledger says that a model, named by its digest, was trained without the rows of a request."""
    entries = [e for e in ledger.entries() if e.request == request and e.digest == model and model is not None]
    return any(entry.facts.get("exact") is True for entry in entries)


def entry_facts(now: Light, exact: bool = False, **more: Any) -> dict[str, Any]:
    """Return what the ledger keeps of a check: light, exposure (0-1), instances, and whether rows were left out."""
    return {"light": now.light, "exposure": now.value, "n": now.n, "why": now.why, "exact": exact, **more}


def regress(
    engine: Engine,
    ledger: Ledger,
    policy: Policy,
    rows: Iterable[Row],
    *,
    own: Collection[str],
    ancestors: Collection[str],
    before: Mapping[str, str],
    retrained: bool,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure a few facts of each earlier request on the model of a later one.

    Earlier ones count if they were made on the model that the later one was made on, or if that model descends from theirs.

    Args:
        engine: Of the model that the later request exported.
        ledger: Of all requests.
        policy: The bounds.
        rows: Of the later request; where it was `retrained`, its model was trained on no others.
        own: Ids of the later requests, which are left out.
        ancestors: Ids of the requests that the model before lists.
        before: Files of the model before, name → SHA-256.
        retrained: Whether the later model was fine-tuned anew from the base.
        seed: Of the draws.

    Returns:
        For each `request`, `then`, and what `entry_facts` keeps.
    """
    trained, found = {(row.question, row.answer) for row in rows}, []
    for one in past(ledger):
        id = one.status.request
        if id in own or not (id in ancestors or (before and before in one.models)):
            continue
        apart = not any((row.question, row.answer) in trained for fact in one.facts for row in fact.rows)
        without = retrained or trained_without(ledger, id, evidence.digest_files(before))
        exact = bool(one.facts) and one.known and apart and without
        if one.facts:
            exposure = expose(engine, few(one.facts, seed), seed=seed)
            now = judge(exposure, policy, known=one.known, exact=exact)
        else:
            now = unmeasured(policy, one.why)
        found.append({"request": id, "then": one.then, **entry_facts(now, exact)})
    return found


def note(ledger: Ledger, found: Mapping[str, Any], model: str, by: str) -> None:
    """Write what `regress` found about a request into the ledger, unless it was written before an interruption.

    Args:
        ledger: Opened with the key that signs.
        found: One element of what `regress` returned.
        model: Digest of the model that was measured.
        by: The attempt of the later request.
    """
    id = found["request"]
    noted = any(e.request == id and e.digest == model and e.facts.get("by") == by for e in ledger.entries())
    if not noted and any(status.request == id for status in ledger.past()):
        facts = {key: value for key, value in found.items() if key not in ("request", "then")}
        ledger.append(id, "verified", model, facts=facts | {"by": by})


def recheck(
    ledger: Ledger,
    model: str,
    policy: Policy,
    rows_of: Mapping[str, Sequence[Row]] | None = None,
    base: str | Path | None = None,
) -> tuple[list[Rechecked], Light | None]:
    """Measure the facts of every request with a record on a later model, and write a `verified` entry for each.

    Args:
        ledger: Opened with the key that signs.
        model: Folder or hub name of the later model.
        policy: The bounds.
        rows_of: As in `past`.
        base: As in `past`.

    Returns:
        Each request, and the light over the facts of all of them, which decides also where each alone has too few
        instances; None if no facts could be measured.

    Raises:
        UserError: the model cannot be loaded, or as `past`.
    """
    requests = {one.status.request: one for one in past(ledger, rows_of, base)}
    digest = evidence.digest_files(evidence.digest_folder(model)) if Path(model).is_dir() else None
    engine = Engine.load(model, name="recheck")
    found, exposures = dict[str, Rechecked](), list[Exposure]()

    def check(status: Status) -> dict[str, Any]:
        one = requests[status.request]
        exact = trained_without(ledger, status.request, digest)
        if one.facts:
            exposures.append(expose(Engine(engine.model, engine.tokenizer, one.data, name=status.request), one.facts))
            now = judge(exposures[-1], policy, known=one.known, exact=exact)
        else:
            now = unmeasured(policy, one.why)
        found[status.request] = Rechecked(status.request, status.state, one.then, now)
        return entry_facts(now, exact, model=Path(model).name)

    ledger.recheck(check, digest)
    if not exposures:
        return list(found.values()), None
    together = Exposure(tuple(fact for exposure in exposures for fact in exposure.facts))
    return list(found.values()), judge(together, policy, known=True, exact=False)


def unmeasured(policy: Policy, why: str) -> Light:
    """Return the light of a request whose facts cannot be measured."""
    return Light("amber", "undecided", None, None, None, 0, policy.forgotten.bound, why)


def holds(found: Sequence[Rechecked], together: Light | None) -> bool:
    """Return whether all requests hold: each is green, or none is red, all were measured, and they are green together."""
    lights = [one.now.light for one in found]
    measured = all(one.now.value is not None for one in found)
    return all(light == "green" for light in lights) or (
        "red" not in lights and measured and together is not None and together.light == "green"
    )
