"""Schemas of all JSON files that a run writes, and the function that reads them. Imports no torch.

Files of earlier versions have no `format` and are still read; another `format` than ours is refused. Results, stages
and evaluations may have unknown keys; a region file may not, since users edit it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scopewise.documents import read_json
from scopewise.errors import ResultError

Number = float | None
Direction = Literal["higher", "lower", "to the oracle"] | None
Costs = dict[str, float | dict[str, Number] | None]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """Base of documents and of objects in them: no coercion between texts, numbers and booleans, and finite numbers only."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Document(Part):
    """Base of documents.

    Attributes:
        FORMAT: The `format` of files of this version.
        OLDER: `format` of an earlier version (None: files without `format`) → a function that converts its files to this
        version.
    """

    FORMAT: ClassVar[str]
    OLDER: ClassVar[Mapping[str | None, Callable[[dict[str, Any]], dict[str, Any]]]] = {}


class ManifestPart(Part):
    """Origin of a result, from `record.manifest`."""

    scopewise: str
    commit: str | None
    config_hash: str | None
    data_hash: str | None = None
    date: str
    packages: dict[str, str | None]
    processor: str
    cores: int | None


class IntervalPart(Part):
    """A number with its 95 % interval."""

    value: float
    low: Number
    high: Number


class ProbePart(Part):
    """An evaluation for early stopping."""

    step: Count
    unlearn_success: float
    retention_success: float
    kl: float | None = None


class CurvePart(Part):
    """An entry of the training log."""

    step: Count
    loss: float
    grad_norm: Number = None
    learning_rate: Number = None


class StageDocument(Document):
    """`stage.json`."""

    FORMAT = "scopewise-stage/1"
    inputs: dict[str, Any]
    origin: ManifestPart
    method: str = ""
    localizer: str | None = None
    protocol: str | None = None
    seed: int = 0
    settings: dict[str, Any] = {}
    region_fraction: Share | None = None
    weights: dict[str, Count] = {}
    cost: Costs = {}
    probes: list[ProbePart] = []
    curve: list[CurvePart] = []


class ValuePart(Part):
    """A metric's value: total, per row, its interval, its gap to the oracle's, and how it is shown."""

    value: Number
    per_row: list[Number]
    skipped: list[str]
    low: Number = None
    high: Number = None
    note: str = ""
    oracle_gap: Number = None
    label: str = ""
    unit: str = ""
    better: Direction = None
    headline: bool = False


class AnswerPart(Part):
    """A model's answer to a row."""

    question: str
    answer: str
    scope: str
    split: str
    instance: str
    attribute: str
    tokens: list[str]
    probabilities: list[float]
    generated: str | None


class EvaluationDocument(Document):
    """`NAME.evaluation.json`, and the file of `scopewise evaluate --output`."""

    FORMAT = "scopewise-evaluation/1"
    values: dict[str, ValuePart]
    answers: list[AnswerPart] = []
    inputs: dict[str, Any] = {}
    cost: dict[str, Number] | None = None
    origin: ManifestPart | None = None


class RowPart(Part):
    """A row of `results.json`."""

    model: Literal["target", "oracle", "unlearned"]
    method: str
    protocol: str | None
    seed: int
    path: str
    metrics: dict[str, Number]
    skipped: dict[str, list[str]] = {}
    localizer: str | None = None
    settings: dict[str, Any] = {}
    region_fraction: Share | None = None
    weights: dict[str, Count] = {}
    cost: Costs = {}
    probes: list[ProbePart] = []
    curve: list[CurvePart] = []


class ComparisonPart(Part):
    """A comparison in `results.json`."""

    method: str
    protocol: str | None
    split: str
    seeds: Annotated[int, Field(ge=1)]
    instances: Count | None
    success: dict[str, IntervalPart]
    oracle_gap: IntervalPart | None
    differences: dict[str, IntervalPart]
    gap_differences: dict[str, IntervalPart]


class RivalPart(IntervalPart):
    """How far a method is behind the best one."""

    p_value: Share | None


class LeadPart(Part):
    """Which method leads under a protocol, if any."""

    protocol: str
    by: Literal["oracle_gap", "average_success"]
    best: str
    leads: bool
    reason: Literal["", "close", "one method", "few seeds", "few instances", "no rows"]
    seeds: Annotated[int, Field(ge=1)]
    instances: Count | None
    rivals: dict[str, RivalPart]


def _without_comparisons(document: dict[str, Any]) -> dict[str, Any]:
    """Return results of an earlier version without its intervals (too narrow) and gaps (in which seeds cancelled)."""
    return {**document, "format": ResultsDocument.FORMAT, "comparisons": [], "leads": []}


class ColumnPart(Part):
    """How a metric's value is shown."""

    label: str
    unit: str = ""
    better: Direction = None
    headline: bool = False


class ResultsDocument(Document):
    """`results.json` and `results.partial.json`."""

    FORMAT = "scopewise-results/3"
    OLDER: ClassVar = {None: _without_comparisons, "scopewise-results/2": _without_comparisons}
    complete: bool
    manifest: ManifestPart
    config: dict[str, Any]
    rows: list[RowPart]
    columns: dict[str, ColumnPart] = {}
    comparisons: list[ComparisonPart] = []
    leads: list[LeadPart] = []
    tuning: dict[str, list[dict[str, float | bool]]] = {}


class RowValuesPart(Part):
    """The values of each row under one model."""

    method: str
    protocol: str | None
    seed: int
    target_seed: int
    values: dict[str, list[Number]]


class RowValuesDocument(Document):
    """`results.rows.json.gz`."""

    FORMAT = "scopewise-rows/1"
    split: str
    instances: dict[str, list[Count]]
    models: list[RowValuesPart]


class SecondsPart(Part):
    """The cost of an attack."""

    seconds: Seconds


class AttackCurvePart(Part):
    """Mean signal of three models over the steps of an attack that trains."""

    name: str
    steps: list[Count]
    unlearned: list[Number]
    oracle: list[Number]
    target: list[Number]


class StepsToRecoverPart(Part):
    """Steps until half of the facts are back."""

    level: float
    unlearned: Count | None
    oracle: Count | None
    most: Count


class AttackPart(Part):
    """The result of an attack."""

    attack: str
    model: str
    method: str
    protocol: str | None
    seed: int | None
    leakage: Number
    low: Number
    high: Number
    verdict: Literal[
        "leaks",
        "holds",
        "over-unlearned",
        "undecided",
        "one instance",
        "few instances",
        "not measurable",
        "not applicable",
    ]
    worst: list[dict[str, Any]]
    notes: list[str]
    cost: SecondsPart
    curves: list[AttackCurvePart] = []
    steps_to_recover: StepsToRecoverPart | None = None


class SuitePart(Part):
    """Settings of an attack that its table shows."""

    suite: str


class AttackInputsPart(Part):
    """The inputs of attacks."""

    attack: SuitePart


class AttacksDocument(Document):
    """`attacks.json`."""

    FORMAT = "scopewise-attacks/1"
    manifest: ManifestPart
    inputs: AttackInputsPart
    models: dict[str, str]
    threshold: Share
    attacks: list[str]
    results: list[AttackPart]


class LooseAttackPart(Part):
    """The result of an attack, possibly from another tool; missing keys are not shown."""

    attack: str
    model: str
    method: str | None = None
    protocol: str | None = None
    seed: int | None = None
    leakage: Number = None
    low: Number = None
    high: Number = None
    verdict: str | None = None
    worst: list[dict[str, Any]] | None = None
    notes: list[str] | None = None
    cost: dict[str, Number] | None = None
    curves: list[AttackCurvePart] = []
    steps_to_recover: StepsToRecoverPart | None = None


class LooseAttacksDocument(Document):
    """`attacks.json` as the report accepts it: an object with `results` is enough."""

    FORMAT = AttacksDocument.FORMAT
    results: list[LooseAttackPart]
    threshold: Share | None = None


class AbsolutePart(Part):
    """Mean signal of an attack on a single model."""

    attack: str
    setting: str
    value: Number
    low: Number
    high: Number
    chance: Number
    rows: Count
    instances: Count
    seconds: Seconds
    notes: list[str]


class AloneDocument(Document):
    """The file of `scopewise attack MODEL --rows FILE --output`."""

    FORMAT = "scopewise-attack-alone/1"
    model: str
    manifest: ManifestPart
    results: list[AbsolutePart]


class PieceDocument(Document):
    """The result of one attack on one model, in `attacks/`."""

    FORMAT = "scopewise-attack-piece/1"
    inputs: dict[str, Any]
    reason: str | None
    seconds: Seconds
    rows: list[Count] = []
    signals: dict[str, list[Number]] = {}
    texts: dict[str, list[str | None]] = {}
    notes: list[str] = []
    controls: dict[str, float] = {}
    curves: dict[str, list[list[Count | str]]] = {}


class TrialDocument(Document):
    """A trial of the search."""

    FORMAT = "scopewise-trial/1"
    unlearn_success: float
    retention_success: float
    inputs: dict[str, Any]


class CostDocument(Document):
    """The cost of a training up to a checkpoint."""

    FORMAT = "scopewise-cost/1"
    step_seconds: list[Seconds]
    seconds: Seconds
    peak_memory_bytes: Count
    tokens: Count = 0
    operations: Seconds = 0.0
    files: dict[str, Count] = {}


class ProbesDocument(Document):
    """The evaluations for early stopping up to a checkpoint."""

    FORMAT = "scopewise-probes/1"
    probes: list[ProbePart]


class DualPart(Part):
    """The dual variable of a constrained method."""

    multiplier: float
    budget: float


class StateDocument(Document):
    """Our state in a checkpoint, besides the library's."""

    FORMAT = "scopewise-state/1"
    unlogged_losses: list[float]
    unlogged_steps: Count
    dual: DualPart | None = None


class RegionEntryPart(Part):
    """A matrix of a region."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    name: Annotated[str, Field(min_length=1)]
    parameters: Annotated[int, Field(ge=1)]
    chosen: bool
    module: str
    selected: Count | None = None
    score: Number = None
    cosine: Annotated[float, Field(ge=-1.001, le=1.001)] | None = None
    magnitude: Number = None
    magnitude_retain: Number = None


class RegionDocument(Document):
    """A region file."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    FORMAT = "scopewise-region/2"
    format: str
    localizer: str
    settings: dict[str, Any]
    chosen_parameters: Count | None = None
    chosen_fraction: Share | None = None
    seconds: Seconds
    cost: dict[str, Number] | None = None
    origin: dict[str, Any] | None = None
    masks: dict[str, list[Count]] = {}
    entries: list[RegionEntryPart]


def read(path: str | Path, schema: type[Document]) -> Any:
    """Read a file that a run wrote.

    Raises:
        ResultError: missing, broken, of another version, or not valid; the message names file and key.
    """
    return checked(read_json(path, ResultError), schema, str(path))


def checked(document: Any, schema: type[Document], where: str) -> Any:
    """Return a decoded document that matches `schema`; one of an earlier version is converted.

    Raises:
        ResultError: as `read`; the message quotes no content.
    """
    made = document.get("format") if isinstance(document, dict) else None
    if isinstance(made, str | None) and made in schema.OLDER and isinstance(document, dict):
        document = schema.OLDER[made](document)
    elif made not in (None, schema.FORMAT):
        raise ResultError(
            f"{where}: format {made!r}; only {schema.FORMAT!r} can be read; another version of "
            "scopewise wrote this file; create it again"
        )
    try:
        schema.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise ResultError(f"{where}: {key or 'all of it'}; {message}; correct it, or create the file again") from None
    return document
