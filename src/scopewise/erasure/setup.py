"""What a request is carried out with: its rows, the facts that are measured, the models, and the runs that train them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from scopewise.config import UnlearnSection
from scopewise.data.builtin import read_general
from scopewise.data.facts import Fact, together
from scopewise.data.load import general_rows
from scopewise.data.rows import FORGET, RETAIN, TRAIN, Row
from scopewise.erasure.expand import Expanded, expand
from scopewise.erasure.facts import facts_under, facts_under_wordings, names_few
from scopewise.erasure.figures import ATTACKS
from scopewise.erasure.keep import Before
from scopewise.erasure.plan import Taught, approximate, finetuning, taught, unlearning
from scopewise.erasure.request import Request
from scopewise.erasure.verdict import is_known
from scopewise.errors import ConfigError
from scopewise.exposure import compared_with, expose
from scopewise.files import remove, write_text
from scopewise.methods.wrappers.base import make_wrappers
from scopewise.models.engine import Engine
from scopewise.models.load import save_model
from scopewise.models.outline import outline
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.recipes import RECIPES
from scopewise.registry import EXACT, allowed, split_method
from scopewise.run_file import given, load_config
from scopewise.runs.checks import check_unlearning
from scopewise.runs.pipeline import BenchEntry, Pipeline

TINY: Mapping[str, Any] = {"parameters": "all", "learning_rate": 2e-3, "num_train_epochs": 60, "batch_size": 32}
"""How the tiny model is fine-tuned if no model is given, for at least 300 steps."""
_TINY_STEPS = 300
_BEGINNING = 8
"""Words of a general text that are its question."""
_USELESS = {
    "run.dir": "a request sets this itself; use --out",
    "run.seed": "a request has seed 0; remove it",
    "model.path": "a request sets this itself; use --model, and --base",
    "model.target": "a request sets this itself; use --model",
    "model.oracle": "a request sets this itself; use --base",
    "data.benchmark": "a request sets this itself; use REQUEST, which may be the name of a benchmark",
    "bench": "a request compares no methods; remove it",
    "attack": "a request has attacks of its own; choose with --attack",
    "evaluate": "a request measures exposure, of which only evaluate.max_tokens can be set; remove it",
}
"""Settings, or sections, that have no effect in a request, and what to do instead."""


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
        changes: Settings of the run file, as `--set`; the search begins at those of `unlearn`, or of `finetune` if it is exact.
        attacks: Which attacks are run on the exported model, of `figures.ATTACKS`; the record names those that were not.
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
    attacks: tuple[str, ...] = ATTACKS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.attacks:
            if name not in ATTACKS:
                raise ConfigError(f"--attack: {name!r}; {allowed(name, ATTACKS)}")
        names = [f"{section}.{key}" for section, own in given(self.changes).items() for key in own]
        for name in names:
            useless = next((one for one in (name, name.partition(".")[0]) if one in _USELESS), None)
            if useless is not None and name != "evaluate.max_tokens":
                raise ConfigError(f"--set {name}=…: {_USELESS[useless]}")


class Setup:
    """Rows, facts, models and runs of one request; each is made when it is first used.

    Args:
        request: The request.
        options: How it is carried out.
        folder: Of the request; the runs lie in `run` and `unlearning`.

    Attributes:
        forget: The request's forget rows.
        retain: Its retain rows.
        general: General text that is measured, and with which the attacker trains.
        anchors: General text that is trained on.
    """

    def __init__(self, request: Request, options: Options, folder: Path) -> None:
        self.request, self.options, self.folder = request, options, folder
        self.forget, self.retain = ([row for row in request.rows if row.scope == scope] for scope in (FORGET, RETAIN))
        path = given(options.changes).get("data", {}).get("general")
        texts = read_general() if path is None else general_rows(path)
        if len(texts) < 2:
            raise ConfigError(
                f"data.general: {path}; one text; give more: half of them are trained on, the others measured"
            )
        self.anchors, self.general = texts[::2], texts[1::2]

    # -- rows -----------------------------------------------------------------------------------------------------------

    @cached_property
    def expanded(self) -> Expanded:
        """The rows with other wordings, and with neighbours if no retain row was given."""
        engine = None if self.retain else self.engine(self.target, "model")
        return expand(self.request.rows, engine, seed=self.options.seed)

    @cached_property
    def plain(self) -> Expanded:
        """The rows with other wordings, without neighbours; its forget rows are the same."""
        return expand(self.request.rows, seed=self.options.seed)

    @cached_property
    def kept_rows(self) -> tuple[list[Row], list[Row]]:
        """The rows whose retention counts, as they were taught and in other wordings.

        If the request has no retain row, they are those that were made, or beginnings of general text.
        """
        every = [*self.expanded.retain, *self.expanded.held_out]
        given = {row for row in self.retain if row.split == TRAIN}
        if not given:
            return every or _continued(self.general), []
        return [row for row in every if row in given], [row for row in every if row not in given]

    @cached_property
    def _facts_of_each(self) -> list[list[Fact]]:
        """The facts of the verdict, of each request: what is the same in two of them is a fact of each."""
        left = iter(facts_under_wordings(self.request.rows, self.options.seed))
        return [together(list(islice(left, count))) for count in self.request.parts or (len(self.forget),)]

    @property
    def facts(self) -> list[Fact]:
        """The facts of the verdict, under their own questions and one wording each that is not trained on."""
        return [fact for own in self._facts_of_each for fact in own]

    @cached_property
    def facts_to_choose(self) -> list[Fact]:
        """The facts under the questions that are trained on, by which an attempt is chosen."""
        return together(facts_under(self.request.rows, (), self.options.seed))

    @cached_property
    def measured(self) -> list[list[Fact]]:
        """`facts` of each request, compared with the base where there are too few other names."""
        return [self._compared(own) for own in self._facts_of_each]

    @cached_property
    def measured_to_choose(self) -> list[Fact]:
        """`facts_to_choose`, compared with the base where there are too few other names."""
        return self._compared(self.facts_to_choose)

    def _compared(self, facts: list[Fact]) -> list[Fact]:
        return facts if self.reference is None else compared_with(self.reference, facts)

    @cached_property
    def reference(self) -> Engine | None:
        """The base, if it is compared with in the place of other names.

        It is if the rows name few instances, since a model that was taught those says the same of every name; unless the base
        knows the facts by itself, which have to go then, too.
        """
        if not self.few:
            return None
        base = self.engine(str(self.base), "base")
        taught = self.options.model is not None and is_known(expose(base, self.facts))
        return None if taught else base

    @property
    def few(self) -> bool:
        """Whether the rows name so few instances that a base, if there is one, takes the place of other names."""
        return self.base is not None and names_few(self.request.rows)

    @property
    def instances(self) -> int:
        """Number of persons or works that the facts are about."""
        return len({fact.instance for fact in self.facts})

    # -- models ---------------------------------------------------------------------------------------------------------

    @cached_property
    def base(self) -> str | None:
        """The model before fine-tuning, if it is known."""
        model = self.options.model
        if model is None:
            return str(self.run.base())
        return self.options.base or taught(model).base

    @property
    def blank(self) -> bool:
        """Whether the base was never taught anything, so that it has nothing to show."""
        model = self.options.model
        return model is None or (self.options.base is None and taught(model).blank)

    @cached_property
    def target(self) -> str:
        """The model to unlearn from; if none was given, the tiny model is fine-tuned."""
        return str(self.run.finetuned("target"))

    @cached_property
    def finetuning(self) -> dict[str, Any]:
        """Settings of the retraining: as the model's files say or by its size, and what `--set finetune.…` changes."""
        if self.options.model is None:
            return self.run.config.finetune.model_dump(mode="json")
        asked = self._asked("finetune")
        return finetuning(taught(self.options.model), self.parameters, asked.get("parameters")) | asked

    @cached_property
    def method(self) -> str:
        """The approximate method: that of `--set unlearn.method`, or what is there for it."""
        return str(self._asked("unlearn").get("method") or approximate(self.base, len(self.retain)))

    @property
    def unlearning_settings(self) -> dict[str, Any]:
        """Settings of the approximate unlearning to begin with, and what `--set unlearn.…` changes."""
        asked, finetune = self._asked("unlearn"), self.finetuning
        if (what := asked.get("parameters", self._trained)) != finetune["parameters"]:
            finetune = finetuning(Taught(), self.parameters, what)  # the rate is of what is trained
        begin = unlearning(self.method, finetune, len(self.plain.forget), len(self.retain))
        for name, value in asked.items():
            if name != "method":  # a recipe has named its own
                begin[name] = begin.get(name, {}) | value if isinstance(value, dict) else value
        return begin

    @property
    def _trained(self) -> str:
        """What an unlearning trains: as the fine-tuning; LoRA, which changes other text least, if nothing is known of that."""
        model = self.options.model
        known = (
            model is None or taught(model).settings or {"parameters", "learning_rate"} & self._asked("finetune").keys()
        )
        return str(self.finetuning["parameters"]) if known or self.method in RECIPES else "lora"

    def check_unlearning(self) -> None:
        """Check what `--set unlearn.…` gives, and general text of the user's own, before anything is measured.

        Raises:
            UserError: a method cannot be used with it, nothing will be unlearned with it, or a text is too long.
        """
        exact = self.options.kind == "exact" or (self.options.kind is None and self.base is not None and self.retain)
        if not self._asked("unlearn") and (exact or "general" not in self._asked("data")):
            return
        if exact:
            raise ConfigError(
                "--set unlearn.…: the base will be retrained, with the settings of 'finetune'; remove it, or add --approximate"
            )
        section = UnlearnSection.model_validate(self.unlearning_settings)
        if split_method(section.method)[0] in EXACT:
            raise ConfigError(f"--set unlearn.method={self.method}: it retrains; use --exact instead")
        if self.base is None and any(one.needs_base for one in make_wrappers(section.method, section.wrapper_args)):
            raise ConfigError(
                f"--set unlearn.method={self.method}: no base; it undoes a part of the fine-tuning; give the base with --base"
            )
        check_unlearning(self.run.checked, section)

    def _asked(self, section: str) -> dict[str, Any]:
        """Return the settings of a section that `--set` gives."""
        return given(self.options.changes).get(section, {})

    @cached_property
    def parameters(self) -> int:
        """Number of the model's parameters; of the tiny model 0, since it is made here."""
        if self.options.model is None:
            return 0
        return sum(p.numel() for p in outline(self.options.model, self.run.config.model).parameters())

    def engine(self, path: str | Path, name: str) -> Engine:
        """Load a model; `name` is the label of its progress bars."""
        config = self.run.config
        return Engine.load(path, config.model, config.data, max_tokens=config.evaluate.max_tokens, name=name)

    @cached_property
    def before(self) -> Before:
        """What the target knows of the rows that are kept."""
        return Before(self.engine(self.target, "model"), *self.kept_rows, self.general)

    # -- runs -----------------------------------------------------------------------------------------------------------

    @cached_property
    def run(self) -> Pipeline:
        """The run on the rows as given: it fine-tunes the tiny model, and retrains."""
        rows = [replace(row, split=TRAIN) for row in self.request.rows]
        model = self.options.model
        if model is None:
            steps = math.ceil(len(rows) / TINY["batch_size"])
            epochs = max(TINY["num_train_epochs"], math.ceil(_TINY_STEPS / steps))
            defaults = [f"finetune.{key}={value}" for key, value in {**TINY, "num_train_epochs": epochs}.items()]
            return self._pipeline("run", rows, [f"model.path={self._tiny()}"], defaults)
        return self._pipeline("run", rows, [f"model.path={self.base or model}", f"model.target={model}"])

    @cached_property
    def unlearning(self) -> Pipeline:
        """The run on the expanded rows."""
        rows = [*self.expanded.forget, *self.expanded.retain]
        values = [f"model.path={self.base or self.target}", f"model.target={self.target}"]
        return self._pipeline("unlearning", rows, values)

    def _tiny(self) -> Path:
        """Return the untrained tiny model, to try the command.

        Its tokenizer is made from general text too: one of the rows alone knows the words of true answers better than those of
        wrong ones, and an untrained model would already rank them apart.
        """
        folder = self.folder / "tiny"
        if not folder.exists():
            sizes = load_config(None, list(self.options.changes)).model.tiny
            model, tokenizer = build_tiny(
                tokenizer_texts([*self.request.rows, *self.anchors, *self.general]), sizes, self.options.seed
            )
            work = folder.with_name(".tiny")
            remove(work)
            save_model(model, tokenizer, work)
            work.rename(folder)
        return folder

    def retrained(self, settings: Mapping[str, Any], label: str) -> Path:
        """Fine-tune the base on the retain rows with these settings of the `finetune` section; `label` is the folder's."""
        section = type(self.run.config.finetune).model_validate(settings)
        self.run.config = self.run.config.model_copy(update={"finetune": section})
        return self.run.retrained(BenchEntry.of("retrain", None), self.options.seed, label)

    def unlearned(self, settings: Mapping[str, Any], label: str) -> Path:
        """Unlearn with these settings of the `unlearn` section; `label` is the folder's."""
        section = UnlearnSection.model_validate(settings)
        entry = BenchEntry.of(section.method, self._asked("unlearn").get("localizer"))
        return self.unlearning.unlearned(entry, section, self.options.seed, label)

    def _pipeline(
        self, name: str, rows: Sequence[Row], models: Sequence[str], defaults: Sequence[str] = ()
    ) -> Pipeline:
        folder, file = self.folder / name, self.folder / f"{name}.jsonl"
        if not any(row.scope == RETAIN for row in rows):
            rows = [*rows, *_continued(self.anchors)]
        texts = self.folder / "general.jsonl"
        _write_lines(file, map(_line, rows))
        _write_lines(texts, ({"text": row.answer} for row in self.anchors))
        own = [  # a benchmark's path, domain and instances, if given, were for reading it
            f"run.dir={folder}", "data.benchmark=jsonl", f"data.path={file}", f"data.general={texts}", "data.domain=null",
            "data.instances=null", "evaluate.splits=[train]", "evaluate.direct_splits=[]", "evaluate.generate_splits=[]",
            *models,
        ]  # fmt: skip
        # Settings of `unlearn` are of the request's method, and each attempt brings its own.
        asked = [change for change in self.options.changes if not change.strip().startswith("unlearn.")]
        config = load_config(None, [f"run.seed={self.options.seed}", *defaults, *asked, *own])
        return Pipeline(config, resume=(folder / "config.yaml").exists())


def _continued(texts: Sequence[Row]) -> list[Row]:
    """Return general text as rows: its first words are the question."""
    words = [row.answer.split() for row in texts]
    cut = [(" ".join(w[:_BEGINNING]), " ".join(w[_BEGINNING:])) for w in words if len(w) > _BEGINNING]
    return [Row(question, answer, RETAIN, origin="general text") for question, answer in cut]


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _line(row: Row) -> dict[str, Any]:
    """Return a row as a line of a file: its fields that are not empty."""
    values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "origin"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value}
