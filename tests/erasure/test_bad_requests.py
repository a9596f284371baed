"""What a request cannot be carried out for: one sentence before any work, and nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from asked import NAMES, request, rows, save, teach, untaught
from forks import python
from scopewise.cli import app
from scopewise.cli import forget as _forget  # noqa: F401
from scopewise.cli import requests as _requests  # noqa: F401
from scopewise.data.rows import FORGET
from scopewise.erasure import keys
from scopewise.erasure.export import REQUESTS
from scopewise.erasure.ledger import Ledger
from scopewise.erasure.run import forget
from scopewise.erasure.setup import Options, Setup
from scopewise.errors import ConfigError, DataError

TEXTS = [{"question": r.question, "answer": r.answer, "scope": r.scope, "instance": r.instance} for r in rows()]
FACTS = [text for text in TEXTS if text["scope"] == FORGET]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    untaught(folder)
    return folder


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with keys and a ledger that has one request."""
    monkeypatch.setenv("SCOPEWISE_KEYS", str(tmp_path / "keys"))
    (tmp_path / "forgotten").mkdir()
    Ledger(tmp_path / "forgotten", keys.signing_key()).append("REQ-0", "received")
    return tmp_path


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("no forget row", "none of scope 'forget'; a request needs at least one to forget"),
        ("unknown regulation", "regulation: 'lgpd'; allowed are gdpr, ccpa, contract, copyright"),
        ("its own export", "already an export of request REQ-1; nothing is left to remove"),
        ("key that others read", "signing.pem: mode 0640; other users must not read a key; run `chmod 600` on it"),
        ("another key", "ledger.jsonl: signed with another key"),
        ("broken ledger", "ledger.jsonl:1: the chain is broken here"),
        ("budget of nothing", "--budget: '0m'; a time is a number above 0"),
        ("unknown attack", "--attack: 'magic'; allowed are question"),
        ("other models", "requests of one training have the same model"),
        ("exact without a base", "--exact: no base; retraining begins at the model before fine-tuning"),
        ("folder as a setting", "--set run.dir=…: a request sets this itself; use --out"),
        ("seed as a setting", "--set run.seed=…: a request has seed 0; remove it"),
        ("bench as a setting", "--set bench.seeds=…: a request compares no methods; remove it"),
        ("metrics as a setting", "--set evaluate.metrics=…: a request measures exposure"),
        ("attacks as a setting", "--set attack.max_tokens=…: a request has attacks of its own"),
        ("recipe without a base", "--set unlearn.method=reset_robust: no base"),
        ("retraining as a method", "--set unlearn.method=retrain: it retrains; use --exact"),
        ("unlearning beside a retraining", "--set unlearn.…: the base will be retrained"),
        ("settings of another method", "unlearn.method_args"),
        ("rows as a setting", "--set data.path=…: it chooses rows of a benchmark, and the request is a file"),
    ],
)
def test_one_sentence_before_anything_is_made(house: Path, model: Path, wrong: str, sentence: str) -> None:
    given: dict[str, Any] = {"id": "REQ-1", "regulation": "gdpr", "rows": TEXTS, "model": {"path": str(model)}}
    files, options = [house / "REQ-1.yaml"], list[str]()
    ledger = house / "forgotten" / "ledger.jsonl"
    match wrong:
        case "no forget row":
            given["rows"] = [text for text in TEXTS if text["scope"] != FORGET]
        case "unknown regulation":
            given["regulation"] = "lgpd"
        case "its own export":
            exported, tokenizer = untaught(house / "exported")
            setattr(exported.config, REQUESTS, ["REQ-1"])
            save(exported, tokenizer, house / "exported")
            given["model"]["path"] = str(house / "exported")
        case "key that others read":
            (house / "keys" / keys.SIGNING).chmod(0o640)
        case "another key":
            (house / "keys" / keys.SIGNING).unlink()
        case "broken ledger":
            ledger.write_bytes(ledger.read_bytes().replace(b"REQ-0", b"REQ-9"))
        case "budget of nothing":
            options = ["--budget", "0m"]
        case "unknown attack":
            options = ["--attack", "magic"]
        case "exact without a base":
            options = ["--exact"]
        case "folder as a setting":
            options = ["--set", f"run.dir={house / 'run'}"]
        case "rows as a setting":
            options = ["--set", f"data.path={house / 'other.jsonl'}"]
        case "seed as a setting":
            options = ["--set", "run.seed=1"]
        case "bench as a setting":
            options = ["--set", "bench.seeds=[0,1]"]
        case "metrics as a setting":
            options = ["--set", "evaluate.metrics=[rouge_l_generated]", "--set", "evaluate.max_tokens=512"]
        case "attacks as a setting":
            options = ["--set", "attack.max_tokens=512"]
        case "recipe without a base":
            options = ["--set", "unlearn.method=reset_robust"]
        case "retraining as a method":
            options = ["--set", "unlearn.method=retrain"]
        case "unlearning beside a retraining":
            options = ["--base", str(model), "--set", "unlearn.learning_rate=1e-3"]
        case "settings of another method":
            options = ["--set", "unlearn.method=ga_descent", "--set", "unlearn.method_args.beta=2"]
        case "other models":
            files.append(house / "REQ-2.yaml")
            files[1].write_text(json.dumps(given | {"id": "REQ-2", "model": {"path": "another"}}))
    files[0].write_text(json.dumps(given))
    before = ledger.read_bytes()
    out = house / "forgotten" / "REQ-1"
    words = ["forget", *map(str, files), "--out", str(out), *options]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert sentence in done.stderr
    assert not any(text["answer"] in done.output for text in FACTS)
    assert ledger.read_bytes() == before
    assert not out.exists() or not [path for path in out.iterdir() if not path.name.startswith(".")]


def test_settings_that_choose_rows_of_a_benchmark_do_not_change_the_rows_that_are_trained_on(
    house: Path, model: Path
) -> None:
    """`forget knowundo --set data.path=FOLDER`: the folder is read once, and training reads the request's own rows."""
    changes = (f"data.path={house / 'elsewhere'}", "data.domain=privacy", "data.instances=1", "data.prompt=chat")
    setup = Setup(request(rows()), Options(model=str(model), changes=changes), house)
    data = setup.run.config.data
    assert (data.path, data.domain, data.instances) == (str(house / "run.jsonl"), None, None)
    assert data.prompt == "chat"
    assert len(setup.run.benchmark.rows) == len(rows())


def test_an_unlearning_begins_with_the_settings_that_are_asked_for(house: Path, model: Path) -> None:
    """Of a method or of a recipe; what is not asked for stays, also within `method_args`."""
    own = ("unlearn.learning_rate=3e-4", "unlearn.localizer=random", "evaluate.max_tokens=512")
    plain = Setup(request(rows()), Options(model=str(model)), house)
    setup = Setup(request(rows()), Options(model=str(model), changes=own), house)
    assert setup.unlearning_settings == plain.unlearning_settings | {"learning_rate": 3e-4, "localizer": "random"}
    assert (plain.method, setup.method) == ("wga", "wga")
    whole = Options(model=str(model), changes=("unlearn.parameters=all",))
    rates = [one.unlearning_settings["learning_rate"] for one in (Setup(request(rows()), whole, house), plain)]
    assert rates[1] == pytest.approx(50 * rates[0]), "ten times the rate, of which all parameters begin at a fifth"
    more = ("unlearn.method=reset_robust", "unlearn.method_args.margin=0.5", "unlearn.batch_size=4")
    options = Options(model=str(model), base=str(model), kind="approximate", changes=more)
    recipe, setup = replace(options, changes=()), Setup(request(rows()), options, house)
    begin = Setup(request(rows()), recipe, house).unlearning_settings
    assert setup.method == "reset_robust"
    assert setup.unlearning_settings == begin | {"method_args": begin["method_args"] | {"margin": 0.5}, "batch_size": 4}


def test_an_unlearning_trains_what_the_fine_tuning_did(house: Path, model: Path) -> None:
    """LoRA if nothing is known of that; a recipe undoes a part of the fine-tuning, so it never takes something else."""

    def trained(*changes: str, base: Path | None = None) -> str:
        given = Options(model=str(model), base=base and str(base), kind="approximate", changes=changes)
        return str(Setup(request(rows()), given, house).unlearning_settings["parameters"])

    assert trained() == trained("finetune.batch_size=4") == "lora"
    assert trained("finetune.learning_rate=1e-4") == "all", "the rate is of what is trained unless it is said"
    assert trained("finetune.parameters=all") == trained("unlearn.parameters=all") == trained(base=model) == "all"


def test_general_text_is_trained_on_or_measured(house: Path, model: Path) -> None:
    """Every other text each; `data.general` may name the user's own, of which there are at least two."""
    own = house / "own.jsonl"
    texts = [f"The {name} text has a few words." for name in ("first", "second", "third")]
    own.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for changes in ((), (f"data.general={own}",)):
        setup = Setup(request(rows()), Options(model=str(model), changes=changes), house)
        trained, measured = ([row.answer for row in part] for part in (setup.anchors, setup.general))
        assert [row.answer for row in setup.run.benchmark.general] == trained
        assert not set(trained) & set(measured)
        assert len(trained) - len(measured) in (0, 1)
        assert setup.unlearning_settings["method_args"]["retain_data"] == "both"
    assert (trained, measured) == (texts[::2], texts[1::2])
    own.write_text("".join(json.dumps({"text": 300 * text}) + "\n" for text in texts))
    with pytest.raises(DataError, match=r"max_length"):
        Setup(request(rows()), Options(model=str(model), changes=changes), house / "long").check_unlearning()
    own.write_text(json.dumps({"text": texts[0]}))
    with pytest.raises(ConfigError, match=r"^data\.general"):
        Setup(request(rows()), Options(model=str(model), changes=changes), house)


def test_a_wrong_request_is_said_without_importing_torch(tmp_path: Path) -> None:
    """Importing torch takes ten seconds; rows and paths are checked before."""
    (tmp_path / "d.jsonl").write_text('{"question": "Who?", "answer": "Me", "scope": "forgot"}')
    (tmp_path / "good.jsonl").write_text('{"question": "Who?", "answer": "Me"}')
    code = (
        "import sys\nfrom scopewise.cli import main\n"
        "try:\n    main()\nfinally:\n    assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    for words, sentence in {
        ("d.jsonl",): "d.jsonl:1: unknown scope 'forgot'; allowed are forget (to be removed from the model) and retain",
        ("gone.jsonl",): "gone.jsonl: no such file; give a file of rows, a request file or the name of a benchmark.",
        ("bulitin",): "Did you mean 'builtin'?",
        (
            "good.jsonl",
            "--model",
            "./gone",
        ): "--model: ./gone; no such folder; give a folder, a GGUF file or a hub name",
        ("good.jsonl", "--base", "gpt2"): "--base: gpt2; there is no model",
        ("good.jsonl", "--budget", "soon"): "--budget: 'soon'; a time is a number above 0",
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", code, "forget", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert sentence in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.jsonl", "good.jsonl"]


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("./gone", "--base: ./gone; no such folder; give a folder, a GGUF file or a hub name"),
        ("gone", "--base: gone; neither a folder here nor in the hub's cache, and HF_HUB_OFFLINE forbids a download; "),
        (
            "empty",
            "--base: empty; a folder without config.json or adapter_config.json; give a folder, a GGUF file or a hub name",
        ),
        ("rows.jsonl", "--base: rows.jsonl; is a file; give a folder, a GGUF file or a hub name"),
        ("no weights", "--base (model.path): no weights; no model.safetensors in it; copy the folder again"),
        (None, "--base (as {model} names it): ./gone; no such folder; give a folder, a GGUF file or a hub name"),
    ],
)
def test_a_base_that_is_not_there(
    house: Path, model: Path, monkeypatch: pytest.MonkeyPatch, base: str | None, says: str
) -> None:
    """Nothing is made, and the sentence names the option, or the model whose files name the base."""
    monkeypatch.chdir(house)
    (house / "empty").mkdir()
    (house / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
    (house / "no weights").mkdir()
    (house / "no weights" / "config.json").write_bytes((model / "config.json").read_bytes())
    given, words = str(model), [] if base is None else ["--base", base]
    if base is None:
        given = "adapter"
        (house / "adapter").mkdir()
        (house / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "./gone"}')
    done = CliRunner().invoke(app, ["forget", "rows.jsonl", "--model", given, *words])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert says.format(model=given) in done.stderr
    assert not [path for path in (house / "forgotten").rglob("*") if path.name == "request.inputs.json"]


@pytest.mark.parametrize(("given", "says"), [({"path": "./gone"}, "model.path"), ({"base": "./gone"}, "model.base")])
def test_a_model_of_the_request_file_that_is_not_there(
    house: Path, model: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], says: str
) -> None:
    monkeypatch.chdir(house)
    rows = [dict(text) for text in TEXTS]
    (house / "request.json").write_text(
        json.dumps({"id": "REQ-1", "rows": rows, "model": {"path": str(model), **given}})
    )
    done = CliRunner().invoke(app, ["forget", "request.json"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert done.stderr.startswith(f"scopewise: {says} of the request: ./gone; no such folder; "), done.stderr


def test_a_request_that_is_refused_before_its_first_step_leaves_no_folder(house: Path, model: Path) -> None:
    (house / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
    words = ["--model", str(model), "--gguf", "q99", "--out", str(house / "forgotten" / "x")]
    done = CliRunner().invoke(app, ["forget", str(house / "rows.jsonl"), *words])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert "q99" in done.stderr
    assert not (house / "forgotten" / "x").exists()


def test_exact_and_approximate_together(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house)
    done = CliRunner().invoke(app, ["forget", "builtin", "--exact", "--approximate"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert "--exact, --approximate" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("at", ["imports", "check", "training"])
def test_an_interruption_says_what_is_kept(house: Path, at: str) -> None:
    """Before the first finished step nothing is left, and `--resume` is not named; a library may swallow the first signal."""
    (house / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
    out = house / "forgotten" / "rows"
    when = {
        "imports": "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt: pass",
        "check": "import scopewise.erasure.run as run\nrun._Job._check = lambda self: os.kill(os.getpid(), signal.SIGINT)",
        "training": "",
    }[at]
    code = (
        "import os, signal\nfrom scopewise.cli import main\nfrom scopewise.cli.signals import interrupt_on_signals\n"
        f"signal.signal(signal.SIGINT, signal.default_int_handler)\ninterrupt_on_signals()\n{when}\nmain()"
    )
    words = ["forget", "rows.jsonl", "--set", "model.tiny={width: 32, layers: 2, heads: 2, vocab_size: 400}"]
    process = subprocess.Popen(
        [python(), "-c", code, *words], cwd=house, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if at == "training":
        end = time.monotonic() + 120
        while not (out / "run" / "target.partial").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in errors) == (130, False), errors
    kept = at == "training"
    text = "finished steps are kept, add --resume to continue" if kept else "nothing was made yet"
    assert errors.splitlines()[-1] == f"scopewise: interrupted; {text}"
    assert (out / "steps" / "check.json").exists() == (out / "request.inputs.json").exists() == kept


@pytest.mark.slow
def test_a_budget_below_one_step_is_said_after_the_plan(house: Path) -> None:
    """By then the speed is known. The steps before it are kept: with another budget the request goes on."""
    base = untaught(house / "base")
    teach(*base, rows(), house / "target", 120)
    out = house / "forgotten" / "REQ-1"
    short = Options(model=str(house / "target"), minutes=1e-7, attacks=("question",))
    with pytest.raises(ConfigError, match=r"^--budget: 6e-06 seconds; one step of the training takes about"):
        forget(request(rows(*NAMES[:4])), short, out)
    assert (out / "steps" / "known.json").exists()
    assert not (out / "steps" / "plan.json").exists()
    assert [entry.state for entry in Ledger(house / "forgotten").entries()] == ["received", "received", "known"]
    longer = replace(short, minutes=1.0)
    assert forget(request(rows(*NAMES[:4])), longer, out, resume=True, only_plan=True).plan.kind == "approximate"
