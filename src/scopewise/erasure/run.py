"""`forget`: from a deletion request to an exported model, a verdict and a signed record."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from scopewise.config import UnlearnSection
from scopewise.data.builtin import read_general
from scopewise.data.facts import Fact, facts_of
from scopewise.data.rows import FORGET, RETAIN, TRAIN, Row
from scopewise.erasure import evidence, keys
from scopewise.erasure.expand import Expanded, expand
from scopewise.erasure.export import Exported, check_room, export, reload
from scopewise.erasure.figures import Kept, Resisted
from scopewise.erasure.handouts import PAGE, write_handouts
from scopewise.erasure.keep import keep
from scopewise.erasure.ledger import Ledger, State
from scopewise.erasure.model_card import Card
from scopewise.erasure.plan import Plan, finetuning, plan, taught, unlearning
from scopewise.erasure.request import Request
from scopewise.erasure.resist import ResistSettings, resist
from scopewise.erasure.search import Attempt, chosen, search
from scopewise.erasure.steps import Steps
from scopewise.erasure.verdict import Policy, Verdict, decide, is_known, read_policy
from scopewise.exposure import expose
from scopewise.files import write_text
from scopewise.models.engine import Engine
from scopewise.models.outline import outline
from scopewise.ranks import Exposure, Ranked
from scopewise.run_file import load_config
from scopewise.runs.pipeline import BenchEntry, Pipeline
from scopewise.runs.stages import digest, model_identity

MOST_ATTEMPTS = {"exact": 3, "approximate": 6}
"""Models that the search tries. Ours."""
TINY: Mapping[str, Any] = {"parameters": "all", "learning_rate": 2e-3, "num_train_epochs": 60, "batch_size": 32}
"""How the tiny model is fine-tuned if no model is given: as in the demo, at least 300 steps."""
_TINY_STEPS = 300
LIMITS = (
    "Attacks with more steps, other data or other prompts were not tried.",
    "Copies of the model from before, and models made from it, still have the facts.",
    "Whoever has the facts can teach them to the model again.",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a request is carried out.

    Attributes:
        model: Folder or hub name of the model; None: a tiny model is fine-tuned on all rows first, to try the command.
        base: The model before fine-tuning; None: what the model's own files say.
        kind: Insist on `exact` retraining or on an `approximate` method; None chooses.
        minutes: Budget of the unlearning; None: no limit.
        policy: File with the bounds of the verdict; None takes the shipped ones.
        gguf: Types of GGUF files to write beside the exported weights.
        operator: Who does it, as a role or an organisation, for the record.
        changes: Settings of the run file, as `--set`.
        seed: Of everything that is drawn.
    """

    model: str | None = None
    base: str | None = None
    kind: Literal["exact", "approximate"] | None = None
    minutes: float | None = None
    policy: str | None = None
    gguf: tuple[str, ...] = ()
    operator: str = "not named"
    changes: tuple[str, ...] = ()
    seed: int = 0


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
    with Steps(out, json.loads(json.dumps(inputs)), tell, resume=resume, overwrite=overwrite) as steps:
        return _Job(request, options, policy, steps).run(only_plan)


class _Job:
    """One request that is being carried out."""

    def __init__(self, request: Request, options: Options, policy: Policy, steps: Steps) -> None:
        self.request, self.options, self.policy, self.steps = request, options, policy, steps
        self.folder = steps.folder
        self.forget, self.retain = ([row for row in request.rows if row.scope == scope] for scope in (FORGET, RETAIN))
        self.general = read_general()
        self.key = keys.signing_key()
        self.ledger = Ledger(self.folder.absolute().parent, self.key)

    def run(self, only_plan: bool) -> Forgotten:
        """Go through the steps."""
        due = None if self.request.due is None else self.request.due.isoformat()
        self._reach("received", due=due, regulation=self.request.regulation)
        step = self.steps.step
        step("check", self._check, lambda found: found["said"])
        known = step("known", self._known, lambda found: found["said"])
        self._reach("known", facts=known["facts"], known=known["known"])
        chosen_plan = Plan(**step("plan", lambda: asdict(self._plan(known)), lambda found: found["why"]))
        self._reach("planned", kind=chosen_plan.kind)
        if only_plan:
            return Forgotten(self.folder, known, chosen_plan)
        if chosen_plan.kind == "nothing":
            record = self._record(known, chosen_plan)
            self._reach("closed", self._recorded(record))
            return Forgotten(self.folder, known, chosen_plan, record=record)
        made = step("unlearn", lambda: self._unlearn(chosen_plan), lambda found: found["said"])
        self._reach("unlearned")
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
        record = self._record(known, chosen_plan, made | verified, verdict, exported)
        digested = self._recorded(record)
        self._reach("exported", digested, **{name: one["light"] for name, one in verdict.document().items()})
        if verdict.green:
            self._reach("closed", digested)
        return Forgotten(self.folder, known, chosen_plan, verdict, exported.folder, record)

    # -- steps ----------------------------------------------------------------------------------------------------------

    def _check(self) -> dict[str, Any]:
        model = self.options.model
        if model is not None:
            empty = outline(model, self.pipeline.config.model)
            check_room(empty, self.folder / "export", self.options.gguf, request=self.request.id)
        instances, facts = len({fact.instance for fact in self.facts}), len(self.facts)
        return {"said": f"{facts} facts about {instances} instances, {len(self.retain)} retain rows"}

    def _known(self) -> dict[str, Any]:
        base = None if self.base is None else self._engine(self.base, "base")
        found = expose(self._engine(self.target, "model"), self.facts, base, self.options.seed)
        said = f"{found.count} of {len(found.facts)} facts (p = {found.p:.2g})"
        if found.base is not None:
            said += f"; the base: {found.base.count}"
        return _exposure_document(found) | {"said": said}

    def _plan(self, known: Mapping[str, Any]) -> Plan:
        found = is_known(self._exposure(known), self.policy.level)
        return plan(known=found, base=self.base, retain=len(self.retain), asked=self.options.kind)

    def _unlearn(self, plan: Plan) -> dict[str, Any]:
        exact = plan.kind == "exact"
        settings = self.finetuning if exact else unlearning(self.finetuning, len(self.expanded.forget))
        searched = "num_train_epochs" if exact else "learning_rate"
        budget = None if self.options.minutes is None else 60 * self.options.minutes
        target = self._engine(self.target, "model")
        known: dict[str, bool] = {}

        def attempt(strength: float) -> Attempt:
            begin = time.monotonic()
            path = str((self._retrained if exact else self._unlearned)(settings | {searched: strength}))
            engine = self._engine(path, f"{plan.method}, {searched} {strength:.3g}")
            exposure = expose(engine, self.facts_to_choose, seed=self.options.seed)
            lost = keep(engine, target, self.kept_rows).loss.value
            known[path] = is_known(exposure, self.policy.level)
            forgotten = exact or not (known[path] or exposure.p_worse <= self.policy.level / 5)
            away = abs(exposure.known.value) + max(0.0, lost)
            return Attempt(
                strength, path, forgotten, lost <= self.policy.kept.bound / 2, away, time.monotonic() - begin
            )

        def too_weak(one: Attempt) -> bool:
            return not one.kept if exact else known[one.name]

        attempts = search(settings[searched], attempt, too_weak=too_weak, most=MOST_ATTEMPTS[plan.kind], budget=budget)
        best = chosen(attempts)
        count = "1 attempt" if len(attempts) == 1 else f"{len(attempts)} attempts"
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
            facts=len(self.forget),
            instances=len({fact.instance for fact in self.facts}),
            method="retrained without the rows" if plan.kind == "exact" else plan.method,
            verdict={},
            limits=LIMITS,
            base_model=self.base,
        )
        private = [row.answer for row in self.forget]
        made = export(self._engine(path, "export"), folder, card, self.options.gguf, private)
        return {"made": {"files": made.files, "errors": made.errors}}

    def _verify(self, exported: Exported) -> dict[str, Any]:
        engine, target = reload(exported, self.pipeline.config.data), self._engine(self.target, "model")
        engine.name = "verify"
        exposure = expose(engine, self.facts, seed=self.options.seed)
        kept = keep(engine, target, self.kept_rows, self.general) if self.kept_rows else None
        rate = self.finetuning["learning_rate"]
        how = ResistSettings(learning_rates=(rate / 10, rate / 3, rate), seed=self.options.seed)
        resisted = resist(engine, target, self.facts, self.retain, self.general, how)
        return {
            "exposure": _exposure_document(exposure),
            "kept": None if kept is None else TypeAdapter(Kept).dump_python(kept, mode="json"),
            "resisted": TypeAdapter(Resisted).dump_python(resisted, mode="json"),
            "said": f"{len(resisted.settings)} attacks",
        }

    def _decide(self, known: Mapping[str, Any], verified: Mapping[str, Any], plan: Plan) -> Verdict:
        kept, resisted = verified["kept"], verified["resisted"]
        return decide(
            self.policy,
            self._exposure(known),
            self._exposure(verified["exposure"]),
            None if kept is None else TypeAdapter(Kept).validate_python(kept),
            TypeAdapter(Resisted).validate_python(resisted),
            exact=plan.kind == "exact",
        )

    def _record(
        self,
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
        request, target, rows_key = self.request, Path(self.target), keys.rows_key() or b""
        before = evidence.digest_folder(target) if target.is_dir() else {}
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
                "verdict": _without(verdict.document(), "word"),
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
                "name": target.name, "files": before, "lineage": [Path(self.base).name] if self.base else [],
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

    def _recorded(self, record: Path) -> str:
        """Say where the record lies, and return its digest."""
        self.steps.line("record", f"{record}, {record.with_name(PAGE).name}")
        return evidence.record_digest(record)

    def _reach(self, state: State, digested: str | None = None, **facts: Any) -> None:
        """Note in the ledger that a state is reached, unless it was before an interruption."""
        states = [entry.state for entry in self.ledger.entries() if entry.request == self.request.id]
        if state not in states:
            self.ledger.append(self.request.id, state, digested, facts=facts)

    # -- what the steps share -------------------------------------------------------------------------------------------

    @cached_property
    def expanded(self) -> Expanded:
        """The rows with other wordings, and with neighbours if no retain row was given."""
        engine = None if self.retain else self._engine(self.target, "model")
        return expand(self.request.rows, engine, seed=self.options.seed)

    @cached_property
    def kept_rows(self) -> list[Row]:
        """The retain rows whose retention counts."""
        return [*self.expanded.retain, *self.expanded.held_out]

    @cached_property
    def facts(self) -> list[Fact]:
        """The facts of the verdict, under their own questions and wordings that are not trained on."""
        return self._facts(expand(self.request.rows, seed=self.options.seed).verification)

    @cached_property
    def facts_to_choose(self) -> list[Fact]:
        """The facts under the questions that are trained on, by which an attempt is chosen."""
        return self._facts(())

    def _facts(self, wordings: Sequence[Row]) -> list[Fact]:
        of_row: dict[tuple[str, str], list[str]] = {}
        for row in wordings:
            of_row.setdefault((row.answer, row.instance), []).append(row.question)
        rows = [
            replace(
                row,
                paraphrased_questions=tuple(q for q in of_row.get((row.answer, row.instance), ()) if q != row.question),
            )
            for row in self.forget
        ]
        return facts_of(rows, self.retain, self.options.seed)

    def _exposure(self, document: Mapping[str, Any], facts: Sequence[Fact] | None = None) -> Exposure:
        ranks = zip(facts or self.facts, document["ranks"], strict=True)
        return Exposure(tuple(Ranked(fact, one[0], one[1], tuple(one[2])) for fact, one in ranks))

    @cached_property
    def pipeline(self) -> Pipeline:
        """The run on the rows as given: it fine-tunes the tiny model, and retrains."""
        rows = [replace(row, split=TRAIN) for row in self.request.rows]
        model = self.options.model
        if model is None:
            steps = math.ceil(len(rows) / TINY["batch_size"])
            epochs = max(TINY["num_train_epochs"], math.ceil(_TINY_STEPS / steps))
            values = [f"finetune.{key}={value}" for key, value in {**TINY, "num_train_epochs": epochs}.items()]
        else:
            base = self.options.base or taught(model).base
            values = [f"model.path={base or model}", f"model.target={model}"]
        return self._run("run", rows, values)

    @cached_property
    def unlearning_run(self) -> Pipeline:
        """The run on the expanded rows."""
        rows = [*self.expanded.forget, *self.expanded.retain]
        return self._run("unlearning", rows, [f"model.path={self.base or self.target}", f"model.target={self.target}"])

    def _run(self, name: str, rows: Sequence[Row], values: Sequence[str]) -> Pipeline:
        folder, file = self.folder / name, self.folder / f"{name}.jsonl"
        if not any(row.scope == RETAIN for row in rows):
            rows = [*rows, Row("What is this?", "A question.", RETAIN)]  # a run has rows of both scopes
        write_text(file, "".join(json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows))
        shared = [
            f"run.dir={folder}", f"run.seed={self.options.seed}", "data.benchmark=jsonl", f"data.path={file}",
            "evaluate.splits=[train]", "evaluate.direct_splits=[]", "evaluate.generate_splits=[]",
        ]  # fmt: skip
        config = load_config(None, [*shared, *values, *self.options.changes])
        return Pipeline(config, resume=(folder / "config.yaml").exists())

    @cached_property
    def base(self) -> str | None:
        """The model before fine-tuning, if it is known."""
        model = self.options.model
        if model is None:
            return str(self.pipeline.base())
        return self.options.base or taught(model).base

    @cached_property
    def target(self) -> str:
        """The model to unlearn from; if none was given, the tiny model is fine-tuned."""
        return str(self.pipeline.finetuned("target"))

    @cached_property
    def finetuning(self) -> dict[str, Any]:
        """Settings of the retraining."""
        if self.options.model is None:
            return self.pipeline.config.finetune.model_dump(mode="json")
        model = outline(self.options.model, self.pipeline.config.model)
        return finetuning(taught(self.options.model), sum(p.numel() for p in model.parameters()))

    def _retrained(self, settings: Mapping[str, Any]) -> Path:
        pipeline = self.pipeline
        section = type(pipeline.config.finetune).model_validate(settings)
        pipeline.config = pipeline.config.model_copy(update={"finetune": section})
        entry = BenchEntry.of("retrain", None)
        return pipeline.retrained(entry, self.options.seed, f"{section.num_train_epochs:g}")

    def _unlearned(self, settings: Mapping[str, Any]) -> Path:
        section = UnlearnSection.model_validate(settings)
        entry = BenchEntry.of(section.method, None)
        return self.unlearning_run.unlearned(entry, section, self.options.seed, f"{section.learning_rate:.3g}")

    def _engine(self, path: str | Path, name: str) -> Engine:
        config = self.pipeline.config
        return Engine.load(path, config.model, config.data, max_tokens=config.evaluate.max_tokens, name=name)


def _exposure_document(found: Exposure) -> dict[str, Any]:
    """Return what a step keeps of an exposure: figures, and the ranks from which it can be made again."""
    return {
        "facts": len(found.facts),
        "known": found.count,
        "p": found.p,
        "value": found.known.value,
        "ranks": [[fact.rank, fact.number, list(fact.by_question)] for fact in found.facts],
    }


def _plain(row: Row) -> dict[str, Any]:
    """Return a row as a line of a file: its fields that are not empty."""
    values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "origin"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value}


def _without(lights: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, Any]:
    return {name: {k: v for k, v in one.items() if k != key} for name, one in lights.items()}
