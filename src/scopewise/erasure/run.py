"""`forget`: from a deletion request to an exported model, a verdict and a signed record."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from scopewise.bars import showing
from scopewise.data.facts import Fact
from scopewise.erasure import evidence, keys, work
from scopewise.erasure.examples import examples
from scopewise.erasure.export import Exported, check_room, export, reload
from scopewise.erasure.figures import Kept, Resisted
from scopewise.erasure.handouts import PAGE, write_handouts, write_private_page
from scopewise.erasure.keep import keep
from scopewise.erasure.ledger import Ledger, State
from scopewise.erasure.model_card import Card
from scopewise.erasure.page import Answers
from scopewise.erasure.plan import Plan, plan, unlearning
from scopewise.erasure.request import Request
from scopewise.erasure.resist import ResistSettings, resist
from scopewise.erasure.search import Attempt, chosen, search
from scopewise.erasure.setup import Options, Setup
from scopewise.erasure.steps import Steps
from scopewise.erasure.verdict import Policy, Verdict, decide, is_known, read_policy
from scopewise.eta import Part
from scopewise.exposure import expose
from scopewise.models.load import load_tokenizer
from scopewise.models.outline import outline
from scopewise.ranks import Exposure, Ranked
from scopewise.runs.stages import digest, model_identity

MOST_ATTEMPTS = {"exact": 3, "approximate": 6}
"""Models that the search tries. Ours."""
LIMITS = (
    "Attacks with more steps, other data or other prompts were not tried.",
    "Copies of the model from before, and models made from it, still have the facts.",
    "Whoever has the facts can teach them to the model again.",
)


@dataclass(frozen=True)
class Forgotten:
    """What came of a request.

    Attributes:
        folder: Everything lies in it. It holds personal data, except for `export` and the record.
        known: What the model knew before: `facts`, `known`, `p`, and the rank of each fact.
        plan: What was done.
        verdict: The three lights, on the exported files; None if there was nothing to forget, or only a plan was asked for.
        exported: The exported model.
        record: The signed record.
    """

    folder: Path
    known: Mapping[str, Any]
    plan: Plan
    verdict: Verdict | None = None
    exported: Path | None = None
    record: Path | None = None

    @property
    def exit_code(self) -> int:
        """0 if all lights are green or nothing was to be done, else 3."""
        return 0 if self.verdict is None else self.verdict.exit_code

    def document(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        page = None if self.record is None else self.record.with_name(PAGE)
        paths = {"export": self.exported, "record": self.record, "page": page}
        return {
            "known": {key: self.known[key] for key in ("facts", "known", "p")},
            "plan": asdict(self.plan),
            "verdict": None if self.verdict is None else self.verdict.document(),
            **{name: None if path is None else str(path) for name, path in paths.items()},
        }


def forget(
    request: Request,
    options: Options,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    only_plan: bool = False,
    answers: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Forgotten:
    """Carry out a deletion request: check, measure what is known, plan, unlearn, export, verify, decide, record.

    Args:
        request: The rows, and the law under which they have to go.
        options: The model, and how.
        out: Folder of the request; the folder above it holds the ledger.
        resume: Continue the request in the folder.
        overwrite: Replace it.
        only_plan: Stop after the plan.
        answers: Also write a page with names, and with answers before and after, for the controller.
        tell: Called with each line for the terminal.

    Raises:
        UserError: bad input; a sentence. Finished steps stay in the folder.
    """
    policy = read_policy(options.policy)
    inputs = {
        "id": request.id,
        "rows": digest([[r.question, r.answer, r.scope, r.split, r.instance] for r in request.rows]),
        "model": None if options.model is None else model_identity(options.model),
        "options": asdict(options),
        "policy": policy.model_dump(),
    }
    with (
        Steps(out, json.loads(json.dumps(inputs)), tell, resume=resume, overwrite=overwrite) as steps,
        showing(steps.whole),
    ):
        return _Job(request, options, policy, steps).run(only_plan, answers)


class _Job:
    """One request that is being carried out."""

    def __init__(self, request: Request, options: Options, policy: Policy, steps: Steps) -> None:
        self.request, self.options, self.policy, self.steps = request, options, policy, steps
        self.folder = steps.folder
        self.setup = Setup(request, options, steps.folder)
        self.key = keys.signing_key()
        self.ledger = Ledger(self.folder.absolute().parent, self.key)

    def run(self, only_plan: bool, answers: bool) -> Forgotten:
        """Go through the steps."""
        step = self.steps.step
        checked = step("check", self._check, lambda found: found["said"])
        due = None if self.request.due is None else self.request.due.isoformat()
        self._reach("received", due=due, regulation=self.request.regulation)
        self._expect("approximate")
        known = step("known", self._known, lambda found: found["said"])
        self._reach("known", facts=known["facts"], known=known["known"])
        chosen_plan = Plan(**step("plan", lambda: asdict(self._plan(known)), lambda found: Plan(**found).said))
        self._reach("planned", kind=chosen_plan.kind)
        if only_plan:
            return Forgotten(self.folder, known, chosen_plan)
        if chosen_plan.kind == "nothing":
            record = self._record(checked, known, chosen_plan)
            self._reach("closed", self._recorded(record))
            return Forgotten(self.folder, known, chosen_plan, record=record)
        made = step("unlearn", lambda: self._unlearn(chosen_plan), lambda found: found["said"])
        self._reach("unlearned")
        self._expect(chosen_plan.kind)
        folder = self.folder / "export"
        exported = Exported(
            folder,
            **step("export", lambda: self._export(folder, made["path"], chosen_plan), lambda _: str(folder))["made"],
        )
        verified = step("verify", lambda: self._verify(exported), lambda found: found["said"])
        self._reach("verified")
        verdict = self._decide(known, verified, chosen_plan)
        step(
            "verdict",
            verdict.document,
            lambda found: ", ".join(f"{name} {one['light']}" for name, one in found.items()),
        )
        record = self._record(checked, known, chosen_plan, made | verified, verdict, exported)
        digested = self._recorded(record)
        if answers:
            self._write_answers(record, verified)
        self._reach("exported", digested, **{name: one["light"] for name, one in verdict.document().items()})
        if verdict.green:
            self._reach("closed", digested)
        return Forgotten(self.folder, known, chosen_plan, verdict, exported.folder, record)

    # -- steps ----------------------------------------------------------------------------------------------------------

    def _check(self) -> dict[str, Any]:
        model, setup = self.options.model, self.setup
        files: dict[str, str] = {}
        if model is not None:
            empty, tokenizer = outline(model, setup.run.config.model), load_tokenizer(model)
            check_room(empty, self.folder / "export", self.options.gguf, tokenizer, self.request.id)
            files = evidence.digest_folder(model) if Path(model).is_dir() else {}
        said = f"{len(setup.facts)} facts about {setup.instances} instances, {len(setup.retain)} retain rows"
        return {"said": said, "files": files}

    def _known(self) -> dict[str, Any]:
        with self.steps.whole.part("teach"):
            target = self.setup.target
        with self.steps.whole.part("known"):
            known_base = None if self.options.model is None else self.setup.base  # the tiny model's knows nothing
            base = None if known_base is None else self.setup.engine(known_base, "base")
            found = expose(self.setup.engine(target, "model"), self.setup.measured, base, self.options.seed)
        said = f"{found.count} of {len(found.facts)} facts (p = {found.p:.2g})"
        if found.base is not None:
            said += f"; the base: {found.base.count}"
        return _exposure_document(found) | {"said": said}

    def _plan(self, known: Mapping[str, Any]) -> Plan:
        found = is_known(_exposure(known, self.setup.facts), self.policy.level)
        made = plan(known=found, base=self.setup.base, retain=len(self.setup.retain), asked=self.options.kind)
        seconds = None if made.kind == "nothing" else self.steps.whole.seconds(self._expect(made.kind))
        return replace(made, seconds=seconds)

    def _expect(self, kind: str, attempt: int = 0) -> list[Part]:
        """Say what is to come, for the time that is left."""
        found = work.parts(self.setup, self.steps.has, kind, self._settings(kind), attempt)
        self.steps.whole.expect(found)
        return found

    def _settings(self, kind: str) -> dict[str, Any]:
        own = self.setup.finetuning
        return own if kind == "exact" else unlearning(own, len(self.setup.plain.forget))

    def _unlearn(self, plan: Plan) -> dict[str, Any]:
        exact, settings = plan.kind == "exact", self._settings(plan.kind)
        searched = "num_train_epochs" if exact else "learning_rate"
        budget = None if self.options.minutes is None else 60 * self.options.minutes
        target = self.setup.engine(self.setup.target, "model")
        known: dict[str, bool] = {}

        def attempt(strength: float) -> Attempt:
            begin = time.monotonic()
            self._expect(plan.kind, len(known))
            with self.steps.whole.part("train"):
                path = str((self.setup.retrained if exact else self.setup.unlearned)(settings | {searched: strength}))
            with self.steps.whole.part("measure"):
                engine = self.setup.engine(path, f"{plan.method}, {searched} {strength:.3g}")
                exposure = expose(engine, self.setup.measured_to_choose, seed=self.options.seed)
                lost = keep(engine, target, self.setup.kept_rows).loss.value
            known[path] = is_known(exposure, self.policy.level)
            forgotten = exact or not (known[path] or exposure.p_worse <= self.policy.level / 5)
            away = abs(exposure.known.value) + max(0.0, lost)
            return Attempt(
                strength, path, forgotten, lost <= self.policy.kept.bound / 2, away, time.monotonic() - begin
            )

        def too_weak(one: Attempt) -> bool:
            return not one.kept if exact else known[one.name]

        attempts = search(settings[searched], attempt, too_weak=too_weak, most=MOST_ATTEMPTS[plan.kind], budget=budget)
        best, count = chosen(attempts), f"{len(attempts)} attempt{'s' * (len(attempts) > 1)}"
        nearest = "" if best.good else "; none both forgot and kept enough, so this is the nearest"
        return {
            "path": best.name,
            "settings": settings | {searched: best.strength},
            "attempts": [asdict(one) for one in attempts],
            "seconds": sum(one.seconds for one in attempts),
            "said": f"{plan.method}, {searched} {best.strength:.3g}, {count}{nearest}",
        }

    def _export(self, folder: Path, path: str, plan: Plan) -> dict[str, Any]:
        if folder.exists():  # whole, and from before a kill
            return {"made": {"files": evidence.digest_folder(folder), "errors": {}}}
        card = Card(
            request=self.request.id,
            regulation=self.request.regulation,
            facts=len(self.setup.forget),
            instances=self.setup.instances,
            method="retrained without the rows" if plan.kind == "exact" else plan.method,
            verdict={},
            limits=LIMITS,
            base_model=self.setup.base,
        )
        engine, private = self.setup.engine(path, "export"), [row.answer for row in self.setup.forget]
        made = export(engine, folder, card, self.options.gguf, private)
        return {"made": {"files": made.files, "errors": made.errors}}

    def _verify(self, exported: Exported) -> dict[str, Any]:
        engine, target = reload(exported, self.setup.run.config.data), self.setup.engine(self.setup.target, "model")
        engine.name = "verify"
        rate = self.setup.finetuning["learning_rate"]
        how = ResistSettings(learning_rates=(rate / 10, rate / 3, rate), seed=self.options.seed)
        with self.steps.whole.part("verify"):
            exposure = expose(engine, self.setup.measured, seed=self.options.seed)
            kept = keep(engine, target, self.setup.kept_rows, self.setup.general)
            resisted = resist(engine, target, self.setup.measured, self.setup.retain, self.setup.general, how)
            shown = examples(exposure, engine, target)
        return {
            "exposure": _exposure_document(exposure),
            "kept": TypeAdapter(Kept).dump_python(kept, mode="json"),
            "resisted": TypeAdapter(Resisted).dump_python(resisted, mode="json"),
            "examples": [asdict(one) for one in shown],
            "said": f"{len(resisted.settings)} attacks",
        }

    def _decide(self, known: Mapping[str, Any], verified: Mapping[str, Any], plan: Plan) -> Verdict:
        return decide(
            self.policy,
            _exposure(known, self.setup.facts),
            _exposure(verified["exposure"], self.setup.facts),
            TypeAdapter(Kept).validate_python(verified["kept"]),
            TypeAdapter(Resisted).validate_python(verified["resisted"]),
            exact=plan.kind == "exact",
        )

    def _record(
        self,
        checked: Mapping[str, Any],
        known: Mapping[str, Any],
        plan: Plan,
        made: Mapping[str, Any] | None = None,
        verdict: Verdict | None = None,
        exported: Exported | None = None,
    ) -> Path:
        """Write the signed record, and return its file."""
        path = self.folder / evidence.NAME
        if path.exists():  # from before a kill
            return path
        request, target, rows_key = self.request, Path(self.setup.target), keys.rows_key()
        assert rows_key is not None
        before = checked["files"] if self.options.model is not None else evidence.digest_folder(target)
        action: dict[str, Any] = {"kind": plan.kind}
        found: dict[str, Any] = {"known": {key: known[key] for key in ("facts", "known", "p")}}
        if made is not None and verdict is not None:
            action |= {
                "method": plan.method,
                "settings": made["settings"],
                "seconds": made["seconds"],
                "form": "merged",
            }
            policy = json.dumps(self.policy.model_dump(), sort_keys=True)
            found |= {
                "verdict": verdict.document(),
                "instances": self._instances(made)[1],
                "policy": hashlib.sha256(policy.encode()).hexdigest(),
                "attacks": [
                    {"name": f"{one['attack']}: {one['setting']}", **one["leakage"], "n": made["resisted"]["n"],
                     "bound": self.policy.resists.bound}
                    for one in made["resisted"]["settings"]
                ],
            }  # fmt: skip
        statement = evidence.make_record(
            request=evidence.describe_request(request, rows_key),
            before={
                "name": target.name, "files": before, "lineage": [Path(self.setup.base).name] if self.setup.base else [],
                "descendants": [
                    {"name": Path(one.path).name, "done": one.done, "kind": one.kind or None}
                    for one in request.model.descendants
                ],
            },
            scopes=evidence.describe_scopes(request.rows, rows_key),
            action=action | {"seed": self.options.seed},
            evidence=found,
            limits=[*LIMITS, *(made or {}).get("resisted", {}).get("notes", ())],
            operator=self.options.operator,
            previous=self.ledger.head(),
            files=before if exported is None else exported.files,
        )  # fmt: skip
        path = evidence.write_record(self.folder, evidence.sign(statement, self.key))
        write_handouts(self.folder, evidence.read_record(path.read_bytes(), str(path)))
        return path

    def _instances(self, verified: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
        exposure = _exposure(verified["exposure"], self.setup.facts)
        kept = TypeAdapter(Kept).validate_python(verified["kept"])
        return evidence.describe_instances(self.request.rows, exposure, kept)

    def _write_answers(self, record: Path, verified: Mapping[str, Any]) -> None:
        statement = evidence.read_record(record.read_bytes(), str(record))
        shown = [Answers(**one) for one in verified.get("examples", ())]
        write_private_page(self.folder, statement, self._instances(verified)[0], shown)

    def _recorded(self, record: Path) -> str:
        """Say where the record lies, and return its digest."""
        self.steps.line("record", f"{record}, {PAGE}")
        return evidence.record_digest(record)

    def _reach(self, state: State, digested: str | None = None, **facts: Any) -> None:
        """Note in the ledger that a state is reached, unless it was noted before an interruption.

        A request that is done again (`--overwrite`) begins at `planned`.
        """
        entries = [entry for entry in self.ledger.entries() if entry.request == self.request.id]
        if state not in ("received", "known"):
            entries = [entry for entry in entries if entry.facts.get("attempt") == self.steps.attempt]
        if not any(entry.state == state for entry in entries):
            self.ledger.append(self.request.id, state, digested, facts=facts | {"attempt": self.steps.attempt})


def _exposure_document(found: Exposure) -> dict[str, Any]:
    """Return what a step keeps of an exposure: figures, and the ranks from which it can be made again."""
    return {
        "facts": len(found.facts),
        "known": found.count,
        "p": found.p,
        "value": found.known.value,
        "ranks": [[fact.rank, fact.number, list(fact.by_question)] for fact in found.facts],
    }


def _exposure(document: Mapping[str, Any], facts: Sequence[Fact]) -> Exposure:
    """Return the exposure that a step kept."""
    ranks = zip(facts, document["ranks"], strict=True)
    return Exposure(tuple(Ranked(fact, one[0], one[1], tuple(one[2])) for fact, one in ranks))
