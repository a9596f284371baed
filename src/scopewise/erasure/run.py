"""`forget`: from a deletion request to an exported model, a verdict and a signed record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from scopewise.bars import showing
from scopewise.data.facts import Fact
from scopewise.erasure import evidence, keys, recheck, work
from scopewise.erasure.attempts import Attempts
from scopewise.erasure.examples import examples
from scopewise.erasure.export import REQUESTS, Exported, check_room, export, reload, requests_of
from scopewise.erasure.facts_file import exposure_document, exposure_in, facts_hmac, read_facts, write_facts
from scopewise.erasure.figures import Kept, Resisted
from scopewise.erasure.gguf_file import check_types
from scopewise.erasure.handouts import PAGE
from scopewise.erasure.ledger import Ledger, State
from scopewise.erasure.made_trials import MadeTrials
from scopewise.erasure.model_card import Card
from scopewise.erasure.outcome import Forgotten
from scopewise.erasure.page import Answers
from scopewise.erasure.plan import Plan, check_exact, check_models, plan
from scopewise.erasure.probes import ASKED
from scopewise.erasure.recording import LIMITS, RETRAINED, TOKENIZER, Done, write_request_record
from scopewise.erasure.request import Request, union
from scopewise.erasure.resist import resist, settings_of
from scopewise.erasure.setup import Options, Setup
from scopewise.erasure.steps import Steps
from scopewise.erasure.verdict import Policy, Verdict, decide, is_known, read_policy
from scopewise.eta import Part
from scopewise.exposure import expose
from scopewise.models.load import load_tokenizer, revision_of
from scopewise.models.outline import outline
from scopewise.ranks import Exposure
from scopewise.run_file import load_config
from scopewise.runs.stages import digest, model_identity
from scopewise.terminal import counted


def forget(
    request: Request | Sequence[Request],
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

    Several requests are carried out in one training, with one export, and a record and a page for each.

    Args:
        request: The rows, and the law under which they have to go; one request or several.
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
    check_models(options.model, options.base, load_config(None, list(options.changes)).model.revision)
    requests = [request] if isinstance(request, Request) else list(request)
    whole = union(requests)
    # Another budget, or another operator of the record, may go on with what is there.
    fixed = replace(options, minutes=None, operator=Options.operator)
    inputs = {
        "id": whole.id,
        "rows": digest([[r.question, r.answer, r.scope, r.split, r.instance] for r in whole.rows]),
        "model": None if options.model is None else model_identity(options.model),
        "options": asdict(fixed),
        "policy": policy.model_dump(),
    }
    with (
        Steps(out, json.loads(json.dumps(inputs)), tell, resume=resume, overwrite=overwrite) as steps,
        showing(steps.whole),
    ):
        return _Job(requests, options, policy, steps).run(only_plan, answers)


class _Job:
    """Requests that are being carried out together; most often it is one."""

    def __init__(self, requests: list[Request], options: Options, policy: Policy, steps: Steps) -> None:
        self.requests, self.options, self.policy, self.steps = requests, options, policy, steps
        self.folder, self.alone = steps.folder, len(requests) == 1
        self.setup = Setup(union(requests), options, steps.folder)
        self.key = keys.signing_key()
        self.ledger = Ledger(self.folder.absolute().parent, self.key)
        self.ledger.check_key()

    def run(self, only_plan: bool, answers: bool) -> Forgotten:
        """Go through the steps."""
        step = self.steps.step
        if self.steps.fresh:
            self.ledger.check_new(one.id for one in self.requests)
        checked = step("check", self._check, lambda found: found["said"])
        self._begin(checked.get("times", {}))  # a request of before they were kept has none
        for one in self.requests:
            due = None if one.due is None else one.due.isoformat()
            self._reach(one, "received", due=due, regulation=one.regulation)
        self._expect("approximate")
        known = step("known", self._known, lambda found: found["said"])
        local = {"name": Path(self.setup.target).name, "files": checked["files"], "revision": None}
        checked = {**checked, "before": known["before"] or local}
        before = self._by_request(exposure_in(known, self._facts))
        for one in self.requests:
            self._reach(one, "known", facts=len(before[one.id].facts), known=before[one.id].count)
        planned = step("plan", lambda: self._plan(before), lambda found: Plan(**found["plan"]).said)
        nothing, chosen_plan = [one for one in self.requests if one.id in planned["not_known"]], Plan(**planned["plan"])
        for one in self.requests:
            kind = "nothing" if one in nothing else chosen_plan.kind
            self._reach(one, "planned", kind=kind, rows=facts_hmac(self._facts_of(one), keys.rows_key() or b""))
        if only_plan:
            return Forgotten(self.folder, known, chosen_plan)
        parts = {one.id: self._close(one, before[one.id], checked) for one in nothing}
        if chosen_plan.kind == "nothing":
            return self._whole(Forgotten(self.folder, known, chosen_plan), parts)
        self._leave_out(nothing)
        made = step("unlearn", lambda: self._unlearn(chosen_plan), lambda found: found["said"])
        for one in self.requests:
            self._reach(one, "unlearned")
        self._expect(chosen_plan.kind)
        folder = self.folder / "export"
        made_files = step(
            "export", lambda: self._export(folder, made["path"], chosen_plan, checked), lambda _: str(folder)
        )
        exported = Exported(folder, **made_files["made"])
        model = evidence.digest_files(exported.files)
        verified = step(
            "verify", lambda: self._verify(exported, model, chosen_plan, checked), lambda found: found["said"]
        )
        for one in self.requests:
            self._reach(one, "verified", model, exact=chosen_plan.kind == "exact")
        for found in verified["earlier"]:
            recheck.note(self.ledger, found, model, self.steps.attempt)
        after = exposure_in(verified["exposure"], self._facts)
        kept = TypeAdapter(Kept).validate_python(verified["kept"])
        whole = Exposure(tuple(fact for one in self.requests for fact in before[one.id].facts))
        verdict = self._decide(whole, after, kept, verified, chosen_plan)
        step(
            "verdict",
            verdict.document,
            lambda found: ", ".join(f"{name} {one['light']}" for name, one in found.items()),
        )
        shown = [Answers(**one) for one in verified.get("examples", ())] if answers else None
        for one in self.requests:
            exposure = self._by_request(after)[one.id]
            own = self._decide(before[one.id], exposure, kept, verified, chosen_plan)
            together = f"Retention and attacks were measured for {len(self.requests)} requests together."
            notes = {together: len(self.requests) > 1, TOKENIZER: self.options.model is None}
            limits = tuple(note for note, holds in notes.items() if holds)
            resisted, files = verified["resisted"], exported.files
            done = Done(made["settings"], made["seconds"], own, exposure, kept, resisted, files, limits, shown)
            record = self._record(one, before[one.id], checked, chosen_plan, done)
            digested = self._recorded(record)
            lights = {name: light["light"] for name, light in own.document().items()}
            self._reach(one, "exported", digested, light=own.light, **lights)
            if own.green:
                self._reach(one, "closed", digested)
            document = exposure_document(before[one.id])
            parts[one.id] = Forgotten(record.parent, document, chosen_plan, own, exported.folder, record)
        earlier = tuple(verified["earlier"])
        return self._whole(Forgotten(self.folder, known, chosen_plan, verdict, exported.folder, None, earlier), parts)

    def _whole(self, found: Forgotten, parts: dict[str, Forgotten]) -> Forgotten:
        """Return what came of all requests; of a single one that is all there is to say."""
        if len(parts) > 1:
            return replace(found, parts=parts)
        return replace(found, record=next(iter(parts.values())).record)

    # -- steps ----------------------------------------------------------------------------------------------------------

    def _check(self) -> dict[str, Any]:
        model, setup = self.options.model, self.setup
        check_types(self.options.gguf)
        if self.options.kind == "exact":
            check_exact(setup.base, len(setup.retain))
        setup.check_unlearning()
        files: dict[str, str] = {}
        earlier: list[str] = []
        if model is not None:
            empty, tokenizer = outline(model, setup.run.config.model), load_tokenizer(model)
            for one in self.requests:
                check_room(empty, self.folder / "export", self.options.gguf, tokenizer, one.id)
            files, earlier = evidence.digest_folder(model) if Path(model).exists() else {}, requests_of(empty)
        facts, instances = counted(len(setup.facts), "fact"), counted(setup.instances, "instance")
        said = f"{facts} about {instances}, {counted(len(setup.retain), 'retain row')}"
        times = {
            one.id: {"received": one.received.isoformat(), "due": one.due and one.due.isoformat()}
            for one in self.requests
        }
        return {"said": said, "files": files, "requests": earlier, "times": times}

    def _begin(self, times: Mapping[str, Mapping[str, str | None]]) -> None:
        """Give each request the times of the first call where it says none itself: then it arrived."""
        for i, one in enumerate(self.requests):
            own = {key: text for key, text in times.get(one.id, {}).items() if key not in one.dated}
            found = {key: text and datetime.fromisoformat(text) for key, text in own.items()}
            self.requests[i] = replace(one, **found)  # type: ignore[arg-type]

    def _known(self) -> dict[str, Any]:
        with self.steps.whole.part("teach"):
            target = self.setup.target
        for one, own in zip(self.requests, self.setup.measured, strict=True):
            write_facts(self._folder_of(one), own, self.setup.run.config.data)
        facts = [fact for own in self.setup.measured for fact in own]
        with self.steps.whole.part("known"):
            # A base that is the reference, or that was never taught anything, has nothing to show beside.
            shown = self.setup.reference is None and self.setup.base is not None and not self.setup.blank
            base = self.setup.engine(str(self.setup.base), "base") if shown else None
            found = expose(self.setup.engine(target, "model"), facts, base, self.options.seed)
        said = f"{found.count} of {len(found.facts)} facts (p = {found.p:.2g})"
        if found.base is not None:
            said += f"; the base: {found.base.count}"
        # The files of a hub model are there once it was loaded, those of a folder were digested before.
        given = self.options.model is not None and Path(target).exists()
        before = None if given else evidence.digest_model(target, revision_of(target, self.setup.run.config.model))
        return exposure_document(found) | {"said": said, "before": before}

    def _plan(self, before: Mapping[str, Exposure]) -> dict[str, Any]:
        not_known = [id for id, exposure in before.items() if not is_known(exposure, self.policy.level)]
        some, retain = len(not_known) < len(before), len(self.setup.retain)
        made = plan(known=some, base=self.setup.base, retain=retain, asked=self.options.kind, method=self.setup.method)
        if made.kind != "nothing" and self.options.minutes is not None:
            work.check_budget(self.setup, self.steps.whole, made.kind, self.options.minutes)
        seconds = None if made.kind == "nothing" else self.steps.whole.seconds(self._expect(made.kind))
        return {"plan": asdict(replace(made, seconds=seconds)), "not_known": not_known}

    def _expect(self, kind: str, attempt: int = 0) -> list[Part]:
        """Say what is to come, for the time that is left."""
        found = work.parts(self.setup, self.steps.has, kind, self._settings(kind), attempt, self.steps.whole.seconds)
        self.steps.whole.expect(found)
        return found

    def _settings(self, kind: str) -> dict[str, Any]:
        return self.setup.finetuning if kind == "exact" else self.setup.unlearning_settings

    def _unlearn(self, plan: Plan) -> dict[str, Any]:
        settings, whole = self._settings(plan.kind), self.steps.whole
        return Attempts(
            self.setup, plan, settings, self.policy, whole,
            lambda made: self._expect(plan.kind, made), lambda text: self.steps.line("unlearn", text),
        ).run()  # fmt: skip

    def _export(self, folder: Path, path: str, plan: Plan, checked: Mapping[str, Any]) -> dict[str, Any]:
        if folder.exists():  # whole, and from before a kill
            return {"made": {"files": evidence.digest_folder(folder), "errors": {}}}
        request = self.setup.request
        card = Card(
            request=request.id,
            regulation=request.regulation,
            facts=len(self.setup.facts),
            instances=self.setup.instances,
            method="retrained without the rows" if plan.kind == "exact" else plan.method,
            verdict={},
            limits=(*LIMITS, RETRAINED) if plan.kind == "exact" else LIMITS,
            base_model=self.setup.base,
        )
        private = [row.answer for row in self.setup.forget]
        engine = self.setup.engine(path, "export")
        # A model that was retrained from the base does not list the requests of the target.
        members = [one.id for one in self.requests if one.id != request.id]
        setattr(engine.model.config, REQUESTS, [*checked["requests"], *members])
        made = export(engine, folder, card, self.options.gguf, private)
        return {"made": {"files": made.files, "errors": made.errors}}

    def _verify(self, exported: Exported, model: str, plan: Plan, checked: Mapping[str, Any]) -> dict[str, Any]:
        engine, target = reload(exported, self.setup.run.config.data), self.setup.before.target
        engine.name = "verify"
        rate = self.setup.finetuning["learning_rate"]
        how = settings_of(plan.kind, self.options.attacks, rate, self.options.seed)
        with self.steps.whole.part("verify"):
            exposure = expose(engine, self._facts, seed=self.options.seed)
            kept = self.setup.before.kept(engine)
            data = self.setup.run.config.data
            copies = [
                (f"GGUF {kind}, as exported", partial(reload, exported, data, kind)) for kind in self.options.gguf
            ]
            made = MadeTrials(self.folder / "steps", model).made
            resisted = resist(engine, target, self._facts, self.setup.retain, self.setup.general, how, copies, made)
            shown = examples(exposure, engine, target)
            earlier = recheck.regress(
                engine, self.ledger, self.policy, self.setup.request.rows, own=[one.id for one in self.requests],
                ancestors=checked["requests"], before=checked["before"]["files"], retrained=plan.kind == "exact",
                seed=self.options.seed,
            )  # fmt: skip
        red = sum(one["light"] == "red" for one in earlier)
        return {
            "exposure": exposure_document(exposure),
            "kept": TypeAdapter(Kept).dump_python(kept, mode="json"),
            "resisted": TypeAdapter(Resisted).dump_python(resisted, mode="json"),
            "examples": [asdict(one) for one in shown],
            "earlier": earlier,
            "said": counted(len(resisted.settings), "attack")
            + (f"; {counted(len(earlier), 'earlier request')}, {red} red" if earlier else ""),
        }

    def _decide(
        self, before: Exposure, after: Exposure, kept: Kept, verified: Mapping[str, Any], plan: Plan
    ) -> Verdict:
        resisted = TypeAdapter(Resisted).validate_python(verified["resisted"])
        return decide(self.policy, before, after, kept, resisted, exact=plan.kind == "exact")

    # -- requests -------------------------------------------------------------------------------------------------------

    def _folder_of(self, request: Request) -> Path:
        """Return the folder of a request's record: within that of several."""
        return self.folder if self.alone else self.folder / "requests" / request.id

    def _facts_of(self, request: Request) -> tuple[Fact, ...]:
        return read_facts(self._folder_of(request))[0]

    @property
    def _facts(self) -> list[Fact]:
        """The facts of all requests, as they were measured first."""
        return [fact for one in self.requests for fact in self._facts_of(one)]

    def _by_request(self, exposure: Exposure) -> dict[str, Exposure]:
        """Split the exposure of all facts."""
        left = iter(exposure.facts)
        return {one.id: Exposure(tuple(islice(left, len(self._facts_of(one))))) for one in self.requests}

    def _leave_out(self, nothing: Sequence[Request]) -> None:
        """Go on without the requests whose facts the model does not know."""
        if nothing:
            options = replace(self.options, model=self.setup.target, base=self.setup.base)
            self.requests = [one for one in self.requests if one not in nothing]
            self.setup = Setup(union(self.requests), options, self.folder / "known")

    def _close(self, request: Request, before: Exposure, checked: Mapping[str, Any]) -> Forgotten:
        """Record that the model does not know the facts of a request."""
        nothing, document = plan(known=False, base=None, retain=0, asked=None), exposure_document(before)
        record = self._record(request, before, checked, nothing, None)
        self._reach(request, "closed", self._recorded(record))
        return Forgotten(record.parent, document, nothing, record=record)

    def _record(
        self, request: Request, before: Exposure, checked: Mapping[str, Any], plan: Plan, done: Done | None
    ) -> Path:
        return write_request_record(
            self._folder_of(request),
            request,
            key=self.key,
            base=self.setup.base,
            before=checked["before"],
            known=exposure_document(before),
            plan=plan,
            done=done,
            policy=self.policy,
            operator=self.options.operator,
            seed=self.options.seed,
            asked=self.setup.run.config.data.model_dump(mode="json", include=set(ASKED)),
            previous=self.ledger.head(),
        )

    def _recorded(self, record: Path) -> str:
        """Say where the record lies, and return its digest."""
        self.steps.line("record", f"{record}, {PAGE}")
        return evidence.record_digest(record)

    def _reach(self, request: Request, state: State, digested: str | None = None, **facts: Any) -> None:
        self.ledger.reach(request.id, state, digested, attempt=self.steps.attempt, facts=facts)
