"""Settings of metrics (`evaluate.metric_args`), and how tables, page and list show what a metric declares of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import scopewise
from scopewise import registry
from scopewise.cli.list_ import list_
from scopewise.data.rows import Row
from scopewise.errors import ConfigError
from scopewise.metrics.base import Answered, RowMetric, Value, make_metric, mean
from scopewise.metrics.columns import Column, Declaration
from scopewise.models.score import Scored
from scopewise.report.columns import columns, metric_columns, recorded
from scopewise.report.page import render
from scopewise.report.run_folder import read_run
from scopewise.report.table import lines, markdown, origin_line
from scopewise.run_file import load_config, parse_config
from scopewise.runs.checks import check_run
from scopewise.settings import knobs
from scopewise.testing.metrics import PROPERTIES
from scopewise.testing.world import NotApplicableError, World

ROOT = Path(__file__).parents[2]


def value(name: str, text: str, answer: str = "Ada Quill drank Uji tea", scope: str = "forget", **settings: Any) -> Any:
    """The value of a metric of texts on one row."""
    row = Answered(Row("What?", answer, scope), Scored((-1.0,), (True,)), text, text)
    return make_metric(name, **settings).measure([row]).value  # type: ignore[attr-defined]


# -- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "settings", "default", "changed"),
    [
        # One 3-gram, no repetition; of the words a, a, b one is there twice: 1 - 2/3.
        ("repetition", "a a b", {"words": 1}, 0, 1 / 3),
        # Of the 3-grams of a b c a b c, abc bca cab abc, one of four repeats: not above a half, but above a fifth.
        ("degeneration", "a b c a b c", {"repeated_fraction": 0.2}, 0, 1),
        # One letter and one space of four characters: half of them, which is below .6.
        ("degeneration", "a !!", {"legible_fraction": 0.6}, 0, 1),
        # Of `Ada Quill` and `Uji` the text has one: .5 is above .3, and below .6.
        ("kfr", "Uji", {"threshold": 0.6}, 0, 1),
        ("krr", "Uji", {"threshold": 0.6}, 1, 0),
    ],
)
def test_a_setting_changes_the_value(
    name: str, text: str, settings: dict[str, Any], default: float, changed: float
) -> None:
    assert value(name, text) == pytest.approx(default)
    assert value(name, text, **settings) == pytest.approx(changed)


@pytest.mark.parametrize(
    ("name", "scale", "stems"),
    [("rouge_l_generated", 100, False), ("rouge_l_teacher_forced", 100, False), ("rouge_l_recall", 1, True),
     ("rouge_1_recall", 1, True)],
)  # fmt: skip
def test_stemming(name: str, scale: float, stems: bool) -> None:
    """Of `green teas` the text `green tea` has one word of two without stemming (precision too, so F is .5), else both."""
    found = {on: value(name, "green tea", "green teas", use_stemmer=on) for on in (False, True)}
    assert found == {False: pytest.approx(0.5 * scale), True: pytest.approx(scale)}
    assert value(name, "green tea", "green teas") == found[stems]


def test_the_share_of_tokens_of_min_k() -> None:
    """The lowest 40 % of five tokens are -5 and -4, the lowest 20 % is -5; both attacks standardise with µ 0 and σ 2 or not."""
    log_probs = (-5.0, -4.0, -3.0, -2.0, -1.0)
    scored = Scored(log_probs, (True,) * 5, (1,) * 5, (0.0,) * 5, (4.0,) * 5)
    row = Answered(Row("q", "a", "forget"), scored)
    for name, sigma in (("mia_min_k", 1), ("mia_min_k_plus_plus", 2)):
        assert make_metric(name).score(row) == pytest.approx(4.5 / sigma)  # type: ignore[attr-defined]
        assert make_metric(name, fraction=0.2).score(row) == pytest.approx(5 / sigma)  # type: ignore[attr-defined]


def test_one_resample_is_an_interval_without_width() -> None:
    rows = [
        Answered(Row(f"q{i}", "a", scope), Scored((-float(i),), (True,)))
        for scope in ("forget", "holdout")
        for i in range(1, 6)
    ]
    wide, narrow = (make_metric("mia_loss", **given).measure(rows) for given in ({}, {"resamples": 1}))  # type: ignore[attr-defined]
    assert wide.value == narrow.value == 0.5
    assert wide.low < wide.high
    assert narrow.low == narrow.high


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("mia_min_k", {"fraction": 0}, "fraction"),
        ("mia_min_k", {"fraction": True}, "fraction"),
        ("mia_zlib", {"resamples": 1.5}, "resamples"),
        ("kfr", {"threshold": "low"}, "threshold"),
        ("rouge_l_recall", {"use_stemmer": 1}, "use_stemmer"),
        ("repetition", {"words": 0}, "words"),
    ],
)
def test_wrong_settings_of_a_metric(name: str, arguments: dict[str, Any], key: str) -> None:
    """They are refused where the run file is checked, whether the metric is measured or not."""
    with pytest.raises(ConfigError) as caught:
        make_metric(name, **arguments)
    assert str(caught.value).startswith(f"evaluate.metric_args.{name}.{key}: ")
    with pytest.raises(ConfigError, match=rf"evaluate\.metric_args\.{name}\.{key}: "):
        check_run(parse_config({"evaluate": {"metric_args": {name: arguments}}}), length=False)


def test_settings_of_metrics_stand_under_their_names() -> None:
    config = load_config(None, ["evaluate.metric_args.mia-min-k.fraction=0.2"])
    assert config.evaluate.metric_args == {"mia_min_k": {"fraction": 0.2}}
    with pytest.raises(ConfigError, match="Did you mean 'mia_min_k'"):
        parse_config({"evaluate": {"metric_args": {"mia_mink": {}}}})
    with pytest.raises(ConfigError, match=r"metric_args\.mia_min_k: unknown 'fractoin'.*Did you mean 'fraction'"):
        check_run(load_config(None, ["evaluate.metric_args.mia_min_k.fractoin=0.2"]), length=False)
    with pytest.raises(ConfigError, match="takes none"):
        make_metric("probability", fraction=0.2)


def test_settings_reach_the_evaluation(world: World) -> None:
    """Greedy texts of a random model are no 60 words long, and not empty."""
    rows = {scope: world.rows[scope][:3] for scope in ("forget", "retain")}
    found = [
        scopewise.evaluate(
            world.model(), world.tokenizer, forget=rows["forget"], retain=rows["retain"], metrics=["repetition"],
            direct_splits=(), generate_splits=("train",), metric_args={"repetition": {"words": words}},
        )
        for words in (1, 60)
    ]  # fmt: skip
    assert found[0].values["repetition/forget_train"].skipped == ()
    assert found[1].values["repetition/forget_train"].skipped == ("3 of 3 rows: fewer than 60 words",)
    assert found[0].columns["repetition/forget_train"] == Column("Repetition forget", "", "lower")


SETTINGS = [(name, knob) for name in registry.table("metrics") for knob in knobs(registry.lookup("metrics", name))]
OTHER = {
    "fraction": 0.7, "resamples": 20, "threshold": 0.6, "words": 2, "repeated_fraction": 0.3, "legible_fraction": 0.7,
    "use_stemmer": True,
}  # fmt: skip


@pytest.mark.parametrize(("name", "knob"), SETTINGS)
def test_properties_hold_with_another_setting(name: str, knob: str, world: World) -> None:
    made = make_metric(name, **{knob: OTHER[knob]})
    for prove in PROPERTIES.values():
        try:
            prove(made, world)
        except NotApplicableError:
            continue


# -- how they are shown --------------------------------------------------------------------------------------------


class Shy(RowMetric):
    """Declares no direction."""

    name = "shy"
    label = "Shy"
    scope = "each"


class Odd(RowMetric):
    """Declares a direction that does not exist."""

    name = "odd"
    label = "Odd"
    scope = "each"
    better = "bigger"  # type: ignore[assignment]


class Vowels(RowMetric):
    """Share of vowels in the answer, in percent; a metric of another package."""

    name = "vowels"
    label = "Vowels"
    unit = "%"
    better = "lower"
    better_on_forget = "higher"
    headline = ("forget", "retain+direct")
    scope = "each"

    def measure(self, rows: Sequence[Answered]) -> Value:
        texts = [row.row.answer.lower() for row in rows]
        return mean([100 * sum(c in "aeiou" for c in text) / len(text) for text in texts], "no text")


@pytest.mark.parametrize(("cls", "key"), [("Shy", "better"), ("Odd", "better")])
def test_a_class_that_does_not_say_how_it_is_shown(cls: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"metric {cls}: {key}"):
        make_metric(f"{__name__}:{cls}")


@pytest.mark.parametrize("name", registry.table("metrics"))
def test_declarations_are_read_without_an_import(name: str) -> None:
    assert Declaration.read(name) == Declaration.of(registry.lookup("metrics", name))


@pytest.mark.parametrize(
    ("key", "column"),
    [
        ("perplexity/retain_val", Column("PPL retain", "", "lower", True)),
        ("perplexity/forget_val", Column("PPL forget", "", "to the oracle")),
        ("perplexity/retain_val+direct", Column("PPL retain, direct", "", "lower")),
        ("perplexity/retain_val.task1_qa", Column("PPL retain task1_qa", "", "lower")),
        ("perplexity/real_authors_train", Column("PPL real authors", "", "lower")),
    ],
)
def test_columns_of_a_metric(key: str, column: Column) -> None:
    assert Declaration.of(registry.lookup("metrics", "perplexity")).column(key) == column


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A run folder with evaluations of the target and the oracle by a metric of another package, beside ours."""
    world = request.getfixturevalue("world")
    folder = tmp_path_factory.mktemp("run")
    rows = {scope: world.rows[scope][:3] for scope in ("forget", "retain")}
    found = scopewise.evaluate(
        world.model(), world.tokenizer, forget=rows["forget"], retain=rows["retain"], direct_splits=("train",),
        metrics=["retention_success", f"{__name__}:Vowels"],
    )  # fmt: skip
    origin = {"scopewise": "1", "commit": None, "config_hash": "h", "processor": "p", "cores": 1, "date": "d"}
    document = {
        "format": "scopewise-evaluation/1", "values": found.document(), "answers": [],
        "origin": {**origin, "packages": {"torch": "2"}},
    }  # fmt: skip
    for which in ("target", "oracle"):
        (folder / f"{which}.evaluation.json").write_text(json.dumps(document))
    return folder


def test_a_metric_of_another_package_has_its_columns_in_table_and_page(run: Path) -> None:
    """Nothing in this package knows it: label, unit and directions are those of its class."""
    read = read_run(run, "run")
    results = read.results
    shown = {column.key: (column.heading, column.unit, column.better) for column in columns(results)}
    assert shown["vowels/forget_train"] == ("Vowels forget", "%", "higher")
    assert shown["vowels/retain_train+direct"] == ("Vowels retain, direct", "%", "lower")
    assert "vowels/retain_train" not in shown
    assert lines(results)[0][:3] == ["Method", "Retention", "Vowels forget"]
    value = results["rows"][0]["metrics"]["vowels/forget_train"]
    assert f"{value:.2f}" in markdown(results).splitlines()[2]
    assert "In %: Retention, Vowels forget; on train" in origin_line({**results, "manifest": MANIFEST})
    page = render([read])
    assert "Vowels forget</button> <small>%, higher</small>" in page
    assert '<th scope="row">vowels/retain_train <small>%, lower</small></th>' in page


MANIFEST = {
    "scopewise": "1", "commit": None, "config_hash": "h", "processor": "p", "cores": 1, "device": "cpu",
    "packages": {"torch": "2"}, "date": "d",
}  # fmt: skip


def test_results_from_before_columns_were_recorded() -> None:
    """Ours are read from their classes; one of a package that is not there is called by its key, and is no column."""
    metrics = {"retention_success/val": 50.0, "perplexity/retain_val": 3.0, "gone/val": 1.0, "ability/mean": 40.0}
    results = {"rows": [{"metrics": metrics, "cost": {"seconds_per_step": 1.0}}]}
    assert [column.heading for column in columns(results)] == ["Retention", "PPL retain", "Ability mean", "s/step"]
    assert metric_columns(results, all_keys=True)["gone/val"].heading == "gone/val"
    assert recorded([{"gone/val": {"value": 1.0}}]) == {}


def test_list_says_unit_and_direction(capsys: Any) -> None:
    list_.__wrapped__("metrics", as_json=True)  # type: ignore[attr-defined]
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["perplexity"] | {"summary": ""} == {
        "name": "perplexity", "summary": "", "label": "PPL", "unit": "",
        "better": "lower is better; on forget rows, closer to the oracle is better",
    }  # fmt: skip
    assert found["mia_loss"]["better"] == "closer to the oracle is better"  # from its base class
    list_.__wrapped__("metrics", as_json=False)  # type: ignore[attr-defined]
    assert "(%, higher is better)" in capsys.readouterr().out


def test_no_label_is_written_twice() -> None:
    """Outside of the metrics, no file of the report has the label of a metric as a text of its own."""
    labels = {Declaration.of(registry.lookup("metrics", name)).label for name in registry.table("metrics")}
    for path in sorted((ROOT / "src" / "scopewise" / "report").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert [label for label in labels if f'"{label}"' in text or f"'{label}'" in text] == [], path.name
