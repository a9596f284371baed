"""Plugins: the example package installed as a user does, and what is said of one that is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import scopewise
from scopewise import registry
from scopewise.cli.list_ import list_
from scopewise.cli.test_plugin import test_plugin as command
from scopewise.errors import ConfigError
from scopewise.localizers.base import make_localizer
from scopewise.methods.base import make_method
from scopewise.run_file import load_config
from scopewise.runs.pipeline import BenchEntry
from scopewise.testing import methods
from scopewise.testing.findings import findings, kind_of
from scopewise.testing.world import PropertyError, World

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
NAMES = {
    "methods": "inverted_hinge", "localizers": "attention", "metrics": "first_token", "attacks": "shouting",
    "benchmarks": "csv",
}  # fmt: skip

WRONG = """
from dataclasses import dataclass, replace
from typing import ClassVar
import torch
from scopewise.attacks.base import Attack, Outcome, score_answers
from scopewise.localizers.base import Localizer
from scopewise.localizers.all import All
from scopewise.methods.base import Method
from scopewise.metrics.base import RowMetric, Value

@dataclass(frozen=True, kw_only=True)
class Mixed(Method):
    def forget_loss(self, answers):
        return answers.nll() + answers.nll().mean()

@dataclass(frozen=True, kw_only=True)
class Sized(Method):
    def forget_loss(self, answers):
        return answers.nll() * answers.batch

@dataclass(frozen=True, kw_only=True)
class Stopped(Method):
    def forget_loss(self, answers):
        return answers.nll() * answers.nll().detach()

@dataclass(frozen=True, kw_only=True)
class Moving(All):
    name: ClassVar[str] = "moving"
    def region(self, engine, scopes):
        with torch.no_grad():
            next(engine.model.parameters()).add_(1.0)
        return super().region(engine, scopes)

class Broken(RowMetric):
    name = "broken"
    scope = "retain"
    label = "Broken"
    better = "higher"
    def measure(self, rows):
        return Value(-sum(row.log_probs[0] for row in rows) / len(rows), ())

@dataclass(frozen=True, kw_only=True)
class Lasting(Attack):
    name: ClassVar[str] = "lasting"
    suite: ClassVar[str] = "quick"
    def run(self, subject, facts, target):
        with torch.no_grad():
            next(subject.model.parameters()).add_(0.01)
        signal, _ = score_answers(subject, facts.rows, "ask")
        return Outcome(facts.rows, {"asked": [2 * s for s in signal]}, {})

class Perplexity(RowMetric):
    name = "perplexity"

class Nothing:
    pass
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed by pip into a folder of its own; a copy of it is built, since pip writes beside the sources."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("target")
    shutil.copytree(EXAMPLE, source)
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--target",
        str(target),
        str(source),
    ]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of plugins that are wrong, in the working directory."""
    (tmp_path / "wrong_plugins.py").write_text(WRONG)
    (tmp_path / "breaks.py").write_text("raise RuntimeError('no such device')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong_plugins", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_without_plugins_there_are_none() -> None:
    assert all(not registry.plugins(kind) for kind in registry.TABLES)


@pytest.mark.parametrize("kind", NAMES)
def test_listed_with_its_package(kind: str, installed: Path, capsys: Any) -> None:
    list_.__wrapped__(kind, as_json=True)  # type: ignore[attr-defined]
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(entries)[: len(registry.table(kind))] == list(registry.table(kind))
    assert entries[NAMES[kind]]["package"] == "scopewise-example"
    assert entries[NAMES[kind]]["summary"].endswith((".", "given the question."))
    list_.__wrapped__(kind, as_json=False)  # type: ignore[attr-defined]
    assert "[scopewise-example]" in capsys.readouterr().out


@pytest.mark.parametrize("kind", NAMES)
def test_the_example_passes_its_tests(kind: str, installed: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("question,answer,scope,split\nQ,A,forget,\nR,B,retain,\n")
    name = NAMES[kind].replace("_", "-")
    assert kind_of(name) == kind
    found = list(findings(kind, name, {}, str(rows)))
    assert len(found) > 1
    assert [f for f in found if f.verdict == "fail"] == []
    assert any(f.verdict == "pass" for f in found)


def test_taken_wherever_a_name_is(installed: Path, tiny: Any, forget: Any, retain: Any) -> None:
    config = load_config(
        None,
        [
            "unlearn.method=inverted-hinge", "unlearn.localizer=scopewise_example.localizer:Attention",
            "evaluate.metrics=[first-token]", "attack.attacks=[shouting]", "attack.attack_args={shouting: {marks: 1}}",
            "data.benchmark=csv", "bench.methods=[inverted_hinge@attention, npo@scopewise_example.localizer:Attention]",
        ],
    )  # fmt: skip
    assert (config.unlearn.method, config.evaluate.metrics) == ("inverted_hinge", ("first_token",))
    entries = [BenchEntry.parse(text) for text in config.bench.methods]
    assert [entry.localizer for entry in entries] == ["attention", "scopewise_example.localizer:Attention"]
    assert make_method("inverted-hinge", margin=0.5).margin == 0.5  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"unlearn\.method_args\.margin: 0"):
        make_method("scopewise_example.method:InvertedHinge", margin=0)
    with pytest.raises(ConfigError, match="localizer_args: unknown 'parts'.*Did you mean 'part'"):
        make_localizer("attention", parts="mlp")

    model, tokenizer = tiny
    region = scopewise.localize(model, tokenizer, forget, retain, "attention", localizer_args={"part": "q_proj"})
    assert region.names
    assert all("q_proj" in name for name in region.names)
    unlearned = scopewise.unlearn(
        model,
        tokenizer,
        forget,
        retain,
        "inverted-hinge",
        region="attention",
        max_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    found = scopewise.evaluate(unlearned, tokenizer, forget=forget, retain=retain, metrics=["first_token"])
    assert {"first_token/forget_train", "first_token/retain_train"} <= set(found.metrics)
    assert found.document()["first_token/retain_train"]["better"] == "higher"
    assert found.document()["first_token/forget_train"]["better"] == "to the oracle"


@pytest.mark.parametrize(
    ("kind", "name", "failing"),
    [
        (
            "methods",
            "Sized",
            {"padding, row order and batch mates change nothing", "micro-batches change nothing, LoRA"},
        ),
        ("methods", "Stopped", {"gradients by finite differences"}),
        ("localizers", "Moving", {"the model is left as it was, all parameters"}),
        ("metrics", "Broken", {"no row gives None, with a reason", "the direction is that of its anchors"}),
        ("attacks", "Lasting", {"the models are left as they were", "signals are 0 to 1, one for each row"}),
    ],
)
def test_what_is_wrong_fails(kind: str, name: str, failing: set[str], wrong: None) -> None:
    found = {}
    for f in findings(kind, f"wrong_plugins:{name}", {}):
        found[f.name] = f
        if failing <= found.keys():  # what comes behind them takes its time, and the example has passed it
            break
    assert {n for n in failing if found[n].verdict == "fail"} == failing
    assert all(f.note for f in found.values() if f.verdict == "fail")
    assert any(f.verdict == "pass" for f in found.values())


def test_sequences_that_are_mixed(wrong: None, world: World) -> None:
    with pytest.raises(PropertyError, match="another row"):
        methods.PROPERTIES["sequences are not mixed"](make_method("wrong_plugins:Mixed"), world)


@pytest.mark.parametrize(
    ("kind", "name", "part"),
    [
        ("methods", "gone.module:Class", "cannot be imported"),
        ("methods", "wrong_plugins:Gone", "cannot be imported"),
        ("methods", "breaks:Class", "no such device"),
        ("methods", "wrong_plugins:Nothing", "scopewise.methods.base.Method"),
        ("localizers", "wrong_plugins:Mixed", "scopewise.localizers.base.Localizer"),
        ("metrics", "wrong_plugins:Perplexity", "its name 'perplexity'"),
        ("methods", "wrong_plugins.py:Mixed()", "package.module:Class"),
        ("methods", ":Mixed", "package.module:Class"),
    ],
)
def test_one_sentence_on_a_plugin_that_cannot_be_used(kind: str, name: str, part: str, wrong: None) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.lookup(kind, name)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command(wrong: None, capsys: Any) -> None:
    with pytest.raises(typer.Exit) as caught:
        command.__wrapped__("wrong_plugins:Broken", set_=None)  # type: ignore[attr-defined]
    assert caught.value.exit_code == 3
    assert "fail  no row gives None, with a reason" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        command.__wrapped__("npo", set_=["beta"])  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="unknown 'betta'"):
        command.__wrapped__("npo", set_=["betta=1"])  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="--kind"):
        command.__wrapped__("grail", set_=None)  # type: ignore[attr-defined]


def test_the_page_shows_the_example() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "howto" / "write-a-plugin.md").read_text(encoding="utf-8")
    for path in (EXAMPLE / "pyproject.toml", *sorted(EXAMPLE.glob("src/*/[!_]*.py"))):
        assert path.read_text(encoding="utf-8") in page, f"docs/howto/write-a-plugin.md has not the text of {path.name}"
