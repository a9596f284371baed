"""Our measures against OpenUnlearning's on small models that know which word follows which: equal to 1e-4 in float32.

The figures were recorded by `record_open_unlearning_metrics.py` from locuslab/open-unlearning at d3d7cf9: of a model that knows
the forget rows, measured against one that does not, on made-up rows and on the first rows of TOFU's forget10 and its
companions. Ours come from one call of `evaluate` with `eos: true`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from questions import FILES, MAX_NEW_TOKENS, PROMPT, Rows, made_rows, tofu_rows, word_model, word_tokenizer
from rouge_score.rouge_scorer import RougeScorer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from scopewise.config import DataSection, EvaluateSection
from scopewise.data.prompt import Prompt, encode
from scopewise.data.rows import Benchmark, Row
from scopewise.evaluation import Evaluation, evaluate
from scopewise.metrics.base import ReferenceValues
from scopewise.metrics.membership import MembershipMetric
from scopewise.models.engine import Engine

TOFU = Path(__file__).parents[3] / "shared" / "data" / "tofu"
THEIRS = json.loads(Path(__file__).with_name("open_unlearning_metrics_d3d7cf9.json").read_text(encoding="utf-8"))
ATTACKS = ("mia_loss", "mia_zlib", "mia_reference", "mia_min_k", "mia_min_k_plus_plus", "mia_gradnorm")
METRICS = (
    "probability",
    "probability_paraphrase",
    "probability_normalised",
    "truth_ratio",
    "truth_ratio_forget",
    "truth_ratio_raw",
    "truth_ratio_retain",
    "rouge_1_recall",
    "rouge_l_recall",
    "rouge_l_generated",
    "exact_memorization",
    "extraction_strength",
    *ATTACKS,
    "model_utility",
    "forget_quality",
    "privleak",
    "rel_diff",
)
PREFIXES = {"forget": "forget", "retain": "retain", "real_authors": "ra", "world_facts": "wf"}
QUESTION = f"{PROMPT[0]}{{question}}{PROMPT[1]}{PROMPT[2]}"


def close(value: float | list[float]) -> Any:
    return pytest.approx(value, rel=1e-4, abs=1e-4)


@dataclass(frozen=True)
class Measured:
    """Both sides' figures of both models on one set of rows.

    Attributes:
        rows: The rows.
        tokenizer: Of both models.
        models: `target` and `retain`, which does not know the forget rows.
        ours: Our evaluations of them.
        scores: What each attack gave each forget and each holdout row, by model.
        theirs: What was recorded of them.
    """

    rows: Rows
    tokenizer: PreTrainedTokenizerFast
    models: Mapping[str, LlamaForCausalLM]
    ours: Mapping[str, Evaluation]
    scores: Mapping[str, Mapping[str, list[float]]]
    theirs: Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module", params=["made", "tofu"])
def measured(request: pytest.FixtureRequest) -> Measured:
    """Measure both models on the rows."""
    if request.param == "tofu" and not all((TOFU / name).exists() for name, _ in FILES.values()):
        pytest.skip("TOFU's files are not at ../shared/data/tofu")
    rows = made_rows() if request.param == "made" else tofu_rows(TOFU)
    tokenizer = word_tokenizer(rows)
    kept = ("retain", "real_authors", "world_facts")
    models = {
        "retain": word_model(rows, tokenizer, kept),
        "target": word_model(rows, tokenizer, ("forget", *kept)),
    }
    settings = EvaluateSection(
        metrics=METRICS,
        splits=("val",),
        generate_splits=("val",),
        direct_splits=(),
        max_new_tokens=MAX_NEW_TOKENS,
        eos=True,
    )
    data = DataSection(prompt=QUESTION, max_length=1024)
    ours: dict[str, Evaluation] = {}
    scores: dict[str, dict[str, list[float]]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, model in models.items():
            scores[name] = {}
            patch.setattr(MembershipMetric, "measure", watched(scores[name]))
            reference = ReferenceValues(ours["retain"].values) if ours else None
            ours[name] = evaluate(
                Engine(model, tokenizer, data),
                Benchmark("rows", tuple(benchmark_rows(rows))),
                settings,
                reference=reference,
                reference_model=Engine(models["retain"], tokenizer, data),
            )
    return Measured(rows, tokenizer, models, ours, scores, THEIRS[request.param])


def watched(scores: dict[str, list[float]], real: Any = MembershipMetric.measure) -> Any:
    """Return `measure` of a membership attack, keeping what it gives each row, by the attack's name."""

    def measure(self: MembershipMetric, rows: Any) -> Any:
        scores[self.name] = [self.score(row) for row in rows]
        return real(self, rows)

    return measure


def benchmark_rows(rows: Rows) -> list[Row]:
    return [
        Row(
            row["question"],
            row["answer"],
            scope,
            "val",
            paraphrase=row.get("paraphrased_answer", ""),
            perturbed=tuple(row["perturbed_answer"]),
        )
        for scope, given in rows.items()
        for row in given
    ]


@pytest.mark.parametrize("model", ["target", "retain"])
@pytest.mark.parametrize("scope", list(PREFIXES))
def test_measures_of_rows(measured: Measured, model: str, scope: str) -> None:
    """Of every row and in the mean: probabilities, truth ratio as right / (right + wrong), ROUGE recall, memorization."""
    names = {
        "Prob": "probability",
        "TR_prob_mean": "truth_ratio",
        "rouge1_recall": "rouge_1_recall",
        "rougeL_recall": "rouge_l_recall",
        "exact_memorization": "exact_memorization",
        "extraction_strength": "extraction_strength",
    }
    if scope in ("forget", "retain"):
        names["correct_Prob"] = "probability_paraphrase"
    else:
        names["Prob_normalised"] = "probability_normalised"
    for name, ours in names.items():
        theirs = measured.theirs[model][f"{PREFIXES[scope]}_{name}"]
        value = measured.ours[model].values[f"{ours}/{scope}_val"]
        assert value.skipped == ()
        assert list(value.per_row) == close(theirs["rows"]), name
        assert value.value == close(theirs["value"]), name


@pytest.mark.parametrize("model", ["target", "retain"])
def test_truth_ratios(measured: Measured, model: str) -> None:
    """TOFU's two aggregations, and the raw ratios that forget quality tests."""
    values = measured.ours[model].values
    forget = measured.theirs[model]["forget_TR_closer_to_1_better"]
    assert values["truth_ratio_forget/val"].value == close(forget["value"])
    assert list(values["truth_ratio_raw/val"].per_row) == close(forget["rows"])
    for scope in ("retain", "real_authors", "world_facts"):
        theirs = measured.theirs[model][f"{PREFIXES[scope]}_TR_true_better"]
        value = values[f"truth_ratio_retain/{scope}_val"]
        assert value.value == close(theirs["value"])
        assert list(value.per_row) == close([max(0.0, 1 - ratio) for ratio in theirs["rows"]])


@pytest.mark.parametrize("model", ["target", "retain"])
def test_rouge_l_f(measured: Measured, model: str) -> None:
    """Intended difference: theirs stems words, ours (the paper's ROUGE-L) does not, and is in percent.

    Both are of the same generated texts: with stemming these give theirs, without it ours.
    """
    for scope, prefix in PREFIXES.items():
        rows = [row for row in benchmark_rows(measured.rows) if row.scope == scope]
        items = encode(rows, measured.tokenizer, Prompt(QUESTION), 1024)
        engine = Engine(measured.models[model], measured.tokenizer)
        written = engine.generate([item.prompt_ids for item in items], MAX_NEW_TOKENS)
        stemmed, plain = (
            [
                RougeScorer(["rougeL"], use_stemmer=stem).score(row.answer, text)["rougeL"].fmeasure
                for row, (text,) in zip(rows, written, strict=True)
            ]
            for stem in (True, False)
        )
        assert stemmed == close(measured.theirs[model][f"{prefix}_rougeL_f1"]["rows"])
        value = measured.ours[model].values[f"rouge_l_generated/{scope}_val"]
        assert list(value.per_row) == close([100 * x for x in plain])


@pytest.mark.parametrize("model", ["target", "retain"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_membership(measured: Measured, model: str, attack: str) -> None:
    """The score of every forget and holdout row, and the area under the curve."""
    theirs = measured.theirs[model][attack]
    assert measured.scores[model][attack] == close([*theirs["forget"], *theirs["holdout"]])
    if (model, attack) == ("retain", "mia_reference"):
        # A model against itself: every score is 0 up to rounding, which alone would decide the order.
        assert measured.scores[model][attack] == pytest.approx([0.0] * len(measured.scores[model][attack]), abs=1e-5)
        return
    assert measured.ours[model].values[f"{attack}/val"].value == close(theirs["value"])


@pytest.mark.parametrize("model", ["target", "retain"])
@pytest.mark.parametrize("name", ["model_utility", "forget_quality", "privleak", "rel_diff"])
def test_aggregates(measured: Measured, model: str, name: str) -> None:
    """Against the model that never saw the forget rows; of that model itself without any, where .5 stands for it."""
    value = measured.ours[model].values[f"{name}/val"]
    theirs = measured.theirs[model][name]["value"]
    assert value.value == (None if theirs is None else close(theirs))
    assert (theirs is None) == (name == "forget_quality" and model == "retain")


def test_the_models_are_worth_measuring() -> None:
    """The two differ, and neither is at an end of the scale: figures that agree on zeros would prove nothing."""
    for figures in (THEIRS["made"], THEIRS["tofu"]):
        target, retain = figures["target"], figures["retain"]
        assert target["forget_Prob"]["value"] > 2 * retain["forget_Prob"]["value"]
        for name in ("exact_memorization", "extraction_strength", "rougeL_recall", "TR_prob_mean"):
            assert 0.02 < target[f"forget_{name}"]["value"] < 0.98
        assert 0 < target["forget_quality"]["value"] < 1
        assert any(len(set(target[f"{p}_rougeL_recall"]["rows"])) >= 3 for p in PREFIXES.values())
    assert 0.01 < THEIRS["made"]["target"]["model_utility"]["value"] < 0.9


def test_recorded_by_the_script_beside() -> None:
    assert THEIRS["commit"].startswith("d3d7cf9")
    assert (Path(__file__).parents[2] / THEIRS["script"]).is_file()


def test_nothing_is_generated_for_the_holdout(measured: Measured) -> None:
    """Membership reads log-probabilities; their suite generates for the other four sets alone, too."""
    found = measured.ours["target"].metrics
    assert "probability/holdout_val" in found
    assert {key for key in found if key.startswith("rouge_l_recall")} == {
        f"rouge_l_recall/{scope}_val" for scope in PREFIXES
    }
