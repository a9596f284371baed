"""What a record says: the schema of its in-toto Statement, from which docs/record.schema.json is made. Imports no torch."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from scopewise.schemas import Count, Direction, ManifestPart, Number, Part, Share

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:scopewise:unlearning-record:1"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


def _time(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


Time = Annotated[str, AfterValidator(_time), Field(json_schema_extra={"format": "date-time"})]
Date = Annotated[str, AfterValidator(_time), Field(json_schema_extra={"format": "date"})]


class RecordPart(Part):
    """Base of the parts of a record: a key that the schema does not name is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class RequestPart(RecordPart):
    """The request: an opaque id, the law, its times, and the HMAC of the person's hash; no name."""

    id: Text
    regulation: Text | None = None
    received: Time | None = None
    due: Time | None = None
    subject: Sha256 | None = None


class DescendantPart(RecordPart):
    """A model that was made from the model: an adapter, a quantized or distilled copy."""

    name: Text
    done: bool
    kind: str = ""


class BeforePart(RecordPart):
    """The model before: the SHA-256 of each file, its commit on the hub, what it was made from, and what was made from it."""

    name: Text
    files: dict[Text, Sha256]
    revision: Text | None = None
    lineage: list[Text] = []
    descendants: list[DescendantPart] = []


class ScopePart(RecordPart):
    """The rows of a scope: how many, about how many instances, and their HMAC-SHA256 with the controller's key."""

    rows: Count
    hmac: Sha256
    instances: Count | None = None


class ActionPart(RecordPart):
    """What was done to the weights."""

    kind: Literal["nothing", "exact", "approximate"]
    method: Text | None = None
    settings: dict[str, Any] = {}
    region: Sha256 | None = None
    seed: int | None = None
    precision: Text | None = None
    form: Literal["unchanged", "merged", "adapter"] = "unchanged"
    seconds: Number = None


class KnownPart(RecordPart):
    """How many facts the model knew before, and the combined p-value of that."""

    facts: Count
    known: Count
    p: Share | None = None


class LightPart(RecordPart):
    """A light of the verdict: its word (such as `not forgotten`), number, interval, n, threshold, reason and p-value."""

    light: Literal["green", "amber", "red"]
    word: str = ""
    value: Number = None
    low: Number = None
    high: Number = None
    n: Count | None = None
    bound: Number = None
    why: str = ""
    p: Share | None = None


class VerdictPart(RecordPart):
    """The three lights."""

    forgotten: LightPart
    kept: LightPart
    resists: LightPart


class InstancePart(RecordPart):
    """A person or work, by its place in the request: the exposure of its facts, and the lost share of its retain rows."""

    number: Annotated[int, Field(ge=1)]
    facts: Count = 0
    known: Number = None
    p: Share | None = None
    lost: Number = None


class MetricPart(RecordPart):
    """A metric of the model after, with its interval and the same of the models that are compared."""

    name: Text
    value: Number
    low: Number = None
    high: Number = None
    n: Count | None = None
    unit: str = ""
    better: Direction = None
    target: Number = None
    oracle: Number = None
    base: Number = None


class AttackPart(RecordPart):
    """An attack: what it recovered, with its interval, its bound, its budget, and its p-value corrected for all settings."""

    name: Text
    value: Number
    low: Number = None
    high: Number = None
    n: Count | None = None
    bound: Number = None
    p: Share | None = None
    light: Literal["green", "amber", "red"] | None = None
    budget: dict[str, Any] = {}


class ResourcePart(RecordPart):
    """An in-toto ResourceDescriptor: a name and its digest; of a hub model's file also the package URL of its commit."""

    name: Text
    digest: dict[Literal["sha256"], Sha256]
    uri: Text | None = None


class TestResultPart(RecordPart):
    """The predicate `https://in-toto.io/attestation/test-result/v0.1`, with its own spelling of keys."""

    __test__ = False
    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: list[ResourcePart] = []
    passed_tests: list[Text] = Field(default=[], alias="passedTests")
    warned_tests: list[Text] = Field(default=[], alias="warnedTests")
    failed_tests: list[Text] = Field(default=[], alias="failedTests")


class EvidencePart(RecordPart):
    """What was measured."""

    known: KnownPart
    verdict: VerdictPart | None = None
    instances: list[InstancePart] = []
    metrics: list[MetricPart] = []
    attacks: list[AttackPart] = []
    policy: Sha256 | None = None
    test_result: TestResultPart


class SignerPart(RecordPart):
    """The key that signs: its public half (PEM) and its fingerprint."""

    keyid: Sha256
    public_key: Annotated[str, StringConstraints(max_length=500)]


class HeadPart(RecordPart):
    """The end of a ledger when a record was made: its number of entries and the SHA-256 of the last."""

    entries: Annotated[int, Field(ge=1)]
    digest: Sha256


class PreviousPart(RecordPart):
    """What came before: the SHA-256 of the previous record's file, and the end of the ledger."""

    record: Sha256 | None = None
    ledger: HeadPart | None = None


class PredicatePart(RecordPart):
    """The predicate of a record."""

    made: Time
    request: RequestPart
    before: BeforePart
    scopes: dict[Text, ScopePart]
    action: ActionPart
    evidence: EvidencePart
    limits: Annotated[list[Text], Field(min_length=1)]
    operator: Text
    tool: ManifestPart
    previous: PreviousPart = PreviousPart()
    retest: Date | None = None
    signer: SignerPart


class Statement(RecordPart):
    """An in-toto Statement v1 whose subject is every exported file."""

    statement_type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[ResourcePart], Field(min_length=1)]
    predicate_type: Literal["urn:scopewise:unlearning-record:1"] = Field(alias="predicateType")
    predicate: PredicatePart


def predicate_of(statement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the predicate of a statement, with the defaults of what it leaves out."""
    return Statement.model_validate(statement).predicate.model_dump(by_alias=True)
