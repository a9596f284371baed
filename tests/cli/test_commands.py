"""The command line as a user types it: text, exit codes, and that nothing is lost."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from forks import python

ROOT = Path(__file__).parents[2]
RESULTS = str(ROOT / "benchmarks" / "results" / "knowundo_privacy_tiny.json")
TINY = ["model.tiny.width=32", "model.tiny.layers=1", "model.tiny.heads=2", "model.tiny.vocab_size=400"]
SHORT = [
    "finetune.num_train_epochs=0.2",
    "unlearn.num_train_epochs=0.2",
    "evaluate.max_new_tokens=4",
    "evaluate.splits=[val]",
]


def scopewise(*arguments: str, settings: list[str] | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    words = [python(), "-m", "scopewise", *arguments]
    for setting in settings or []:
        words += ["--set", setting]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300, check=False)


def test_help_answers_in_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "scopewise", "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # The bound is the house's 0.5 s with room for a slow machine, of processor time, which a busy one does not stretch as it
    # does the wait; importing torch alone takes over 1 s.
    assert min(seconds) < 1.0
    for name in ["demo", "finetune", "localize", "unlearn", "evaluate", "run", "bench", "list", "check", "show"]:
        assert name in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list", "methods"], ["list", "metrics"], ["show", "demo"], ["show", RESULTS]]
)
def test_answers_without_importing_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom scopewise.cli import main\n"
        f"sys.argv = ['scopewise', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("kind", ["methods", "localizers", "metrics", "benchmarks"])
def test_list_json_names_every_entry_with_a_summary(kind: str) -> None:
    from scopewise.recipes import RECIPES
    from scopewise.registry import table

    entries = json.loads(scopewise("list", kind, "--json").stdout)
    recipes = list(RECIPES) if kind == "methods" else []
    assert [e["name"] for e in entries] == [*table(kind), *recipes]
    assert [e["name"] for e in entries if e.get("default")] == (["reset_robust"] if recipes else [])
    assert all(e["summary"] for e in entries)


def test_list_runs_names_every_run_file_that_comes_with_the_package() -> None:
    entries = json.loads(scopewise("list", "runs", "--json").stdout)
    assert [e["name"] for e in entries] == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert all(0 < len(e["summary"]) <= 100 for e in entries)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["bench", "nowhere.yaml"], "nowhere.yaml: no such run file"),
        (["check", "--set", "run.dri=x"], "unknown key 'run.dri'"),
        (["check", "--set", "run.dri=x"], "Did you mean 'dir'?"),
        (["check", "--set", "rundir"], "written as section.key=value"),
        (["check", "--set", "finetune.learning_rate=-1"], "finetune.learning_rate: -1"),
        (["unlearn", "--method", "memflx"], "Did you mean 'memflex'?"),
        (["bench", "--set", "bench.methods=[memflex@randm]"], "Did you mean 'random'?"),
        (["bench", "--set", "bench.methods=[reset-robst]"], "Did you mean 'reset_robust'?"),
        (["tune", "--set", "bench.methods=[reset-robust, retrain]"], "there is nothing to search"),
        (["check", "--set", "data.benchmark=jsonl"], "data.path"),
        (["check", "--set", "data.benchmark=jsonl", "--set", "data.path=gone.jsonl"], "gone.jsonl: no such file"),
        (["check", "--set", "data.max_length=20"], "rows do not fit"),
        (["show", "nowhere.json"], "nowhere.json: no such file"),
        (["evaluate", "/nowhere"], "scopewise: model: /nowhere; no such folder"),
        (["evaluate", "any", "--cache", __file__], "is a file; name a folder"),
        (["unlearn", "--model", "./gone"], "scopewise: --model (model.target): ./gone; no such folder"),
        (["unlearn", "--set", "model.target=./gone"], "scopewise: model.target: ./gone; no such folder"),
        (["localize", "--model", "./gone"], "scopewise: --model (model.target): ./gone; no such folder"),
        (["finetune", "--set", "model.path=./gone"], "scopewise: model.path: ./gone; no such folder"),
        (
            ["bench", "--engine", "rya"],
            "scopewise: --engine (bench.engine): 'rya'; allowed are local, ray, slurm. Did you",
        ),
        (["unlearn", "--region", "gone.json"], "gone.json: no such file"),
        (
            ["check", "--set", "evaluate.ability.tasks=[race]", "--set", "evaluate.ability.path=gone"],
            "gone: no such folder",
        ),
        (["check", "--set", "evaluate.ability.tasks=[race]"], "race: "),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = scopewise(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["bnech"], "scopewise: no such command 'bnech'. Did you mean 'bench'?; see `scopewise --help`"),
        (["bench", "--resum"], "scopewise bench: no such option: --resum (Possible options: --resume); see"),
        (["show"], "scopewise show: missing argument 'what'; see `scopewise show --help`"),
        (
            ["list", "method"],
            "scopewise list: invalid value for 'kind': 'method' is not one of 'methods', 'wrappers', 'localizers'",
        ),
        (["play", "runs", "--port", "65536"], "scopewise play: invalid value for '--port':"),
        (["check", "--set"], "scopewise: option '--set' requires an argument; see `scopewise --help`"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(arguments: list[str], sentence: str) -> None:
    done = scopewise(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["show", "n" * 300], "nnn: File name too long"),
        (["check", "d/" * 3000 + "x.yaml"], "File name too long"),
        (["show", b"\xff.json"], "\\udcff.json: an argument that is not UTF-8"),
    ],
)
def test_a_path_that_the_system_refuses_is_one_sentence(arguments: Any, named: str, tmp_path: Path) -> None:
    words = [python(), "-m", "scopewise", *arguments]
    done = subprocess.run(words, capture_output=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"scopewise: ")
    assert named in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert len(done.stderr) < 2000


def test_no_command_at_all_prints_the_help() -> None:
    done = scopewise()
    assert done.returncode == 2
    assert "unlearn" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("list_", {"kind": "methods"}, "scopewise: interrupted"),
        ("finetune", {"resume": False}, "scopewise: interrupted; nothing was made yet"),
    ],
)
def test_an_interrupted_command_says_whether_anything_was_made(
    name: str, options: Any, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"scopewise.cli.{name}")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for used in {"table", "load_config"} & set(vars(module)):
        monkeypatch.setattr(module, used, interrupt)
    with pytest.raises(typer.Exit) as caught:
        getattr(module, name)(**options)
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == f"{sentence}\n"


def test_a_folder_that_holds_no_model_leaves_no_run_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    empty = scopewise("unlearn", "--model", "empty", cwd=tmp_path)
    assert empty.returncode == 2
    assert "--model (model.target): empty; a folder without config.json or adapter_config.json" in empty.stderr
    other = scopewise("unlearn", "--model", "other", cwd=tmp_path)
    assert other.returncode == 2
    assert "--model (model.target): other; no model.safetensors in it" in other.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "other"]


@pytest.mark.parametrize(
    ("val", "end"),
    [
        (["forget", "retain"], "\nok\n"),
        (["forget"], "\nok, but no val row of scope retain; on val there will be no Retention and Average Success"),
        (
            [],
            "\nok, but no val row of scope forget or retain; success will be read from train rows, which unlearning saw;",
        ),
    ],
)
def test_check_says_once_what_missing_val_rows_mean(val: list[str], end: str, tmp_path: Path) -> None:
    rows = [{"question": f"{scope}?", "answer": "A", "scope": scope} for scope in ("forget", "retain")]
    rows += [{"question": f"{scope}, please?", "answer": "A", "scope": scope, "split": "val"} for scope in val]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["data.benchmark=jsonl", "data.path=mine.jsonl"]
    done = scopewise("check", "--no-length", settings=own, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert end in done.stdout
    if val:
        return
    report = json.loads(scopewise("check", "--no-length", "--json", settings=own, cwd=tmp_path).stdout)
    assert [text.partition(";")[0] for text in report["warnings"]] == ["no val row of scope forget or retain"]
    only = [*own, "evaluate.splits=[val]", "evaluate.direct_splits=[]"]
    for command in ("check", "run"):  # not after the training
        refused = scopewise(command, settings=only, cwd=tmp_path)
        assert refused.returncode == 2
        assert "evaluate.splits: val; jsonl has rows of train; measure a split that it has" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]


def test_check_names_file_and_line_of_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(
        '{"question": "Q", "answer": "A", "scope": "forget"}\n{"question": "R", "answer": "", "scope": "retain"}\n'
    )
    done = scopewise("check", settings=["data.benchmark=jsonl", f"data.path={file}"])
    assert done.returncode == 2
    assert f"{file}:2: field 'answer' is empty" in done.stderr


def test_show_prints_a_run_file_with_its_defaults_and_it_loads_again(tmp_path: Path) -> None:
    shown = yaml.safe_load(scopewise("show", "configs/demo.yaml").stdout)
    assert {"run", "data", "bench"} <= set(shown)
    assert {"dir"} <= set(shown["run"])
    assert {"methods", "seeds"} <= set(shown["bench"])
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(shown))
    assert yaml.safe_load(scopewise("show", str(again)).stdout) == shown


@pytest.mark.slow
def test_staged_commands_from_own_data_to_a_measured_adapter(tmp_path: Path) -> None:
    rows = []
    for i, name in enumerate(["Ada", "Ben", "Cleo", "Dov"]):
        rows.append(
            {"question": f"Where does {name} live?", "answer": f"{name} lives at {i} Mill Lane.", "scope": "forget"}
        )
        rows.append(
            {"question": f"What does {name} write?", "answer": f"{name} writes sea stories.", "scope": "retain"}
        )
    rows += [{**r, "question": "Please: " + r["question"], "split": "val"} for r in rows]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    own = ["data.benchmark=jsonl", f"data.path={tmp_path / 'mine.jsonl'}", *TINY, *SHORT, "finetune.num_train_epochs=1"]

    target = scopewise("finetune", settings=[*own, f"run.dir={tmp_path / 'a'}", "finetune.parameters=all"])
    assert target.returncode == 0, target.stderr
    folder = target.stdout.strip()
    region = scopewise("localize", "--model", folder, settings=[*own, f"run.dir={tmp_path / 'b'}"])
    assert region.returncode == 0, region.stderr
    shown = scopewise("show", region.stdout.strip())
    assert "gate_proj" in shown.stdout
    words = ["unlearn", "--method", "ga-kl", "--model", folder, "--region", region.stdout.strip()]
    unlearned = scopewise(*words, settings=[*own, f"run.dir={tmp_path / 'c'}"])
    assert unlearned.returncode == 0, unlearned.stderr
    assert "Ada" not in unlearned.stderr  # forget data is personal: logs never print it
    measured = scopewise("evaluate", unlearned.stdout.strip(), "--json", settings=own)
    assert measured.returncode == 0, measured.stderr
    kept = json.loads(Path(unlearned.stdout.strip() + ".evaluation.json").read_text())["values"]
    assert json.loads(measured.stdout) == pytest.approx({k: v["value"] for k, v in kept.items()}, rel=1e-4)

    # Another method joins the same folder; a stage with other settings is refused, and what was made stays.
    words = ["unlearn", "--method", "gradient-ascent", "--model", folder, "--resume"]
    second = scopewise(*words, settings=[*own, f"run.dir={tmp_path / 'c'}"])
    assert second.returncode == 0, second.stderr
    changed = scopewise(*words, settings=[*own, f"run.dir={tmp_path / 'c'}", "unlearn.learning_rate=0.5"])
    assert changed.returncode == 2
    assert "unlearn.learning_rate was 5e-05, now 0.5" in changed.stderr
    assert "to continue it, add --resume --set unlearn.learning_rate=5e-05, or" in changed.stderr
    assert {p.name for p in (tmp_path / "c" / "models").iterdir()} == {"ga_kl", "gradient_ascent"}


def test_a_refused_resume_leaves_the_record_of_the_run(tmp_path: Path) -> None:
    """The target was made with other settings: nothing is begun, and `config.yaml` still says how the target was made."""
    run = tmp_path / "run"
    words = [*TINY, *SHORT, f"run.dir={run}"]
    made = scopewise("finetune", settings=words)
    assert made.returncode == 0, made.stderr
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".lock"}
    refused = scopewise("unlearn", "--resume", settings=[*words, "finetune.num_train_epochs=0.3"])
    assert refused.returncode == 2
    assert "finetune.num_train_epochs was 0.2, now 0.3" in refused.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not (run / "models").exists()


@pytest.mark.slow
def test_demo_in_small_prints_the_table_and_refuses_to_overwrite(tmp_path: Path) -> None:
    small = [*TINY, *SHORT, f"run.dir={tmp_path / 'run'}"]
    done = scopewise("demo", settings=small)
    assert done.returncode == 0, done.stderr
    for line in ("target", "oracle", "ga_descent", "memflex", "memflex@random", "reset_robust"):
        assert f"\n{line} " in done.stdout
    assert str(tmp_path / "run" / "results.json") in done.stderr
    untaught = "The target hardly knows what is to be forgotten"  # 0.2 epochs teach nothing
    assert done.stderr.count(untaught) == " ".join(done.stdout.split()).count(untaught) == 1
    for kind in ("html", "md"):
        written = scopewise("report", str(tmp_path / "run"), "--format", kind)
        assert Path(written.stdout.strip()).read_text().count(untaught) == 1
    for stage in ("fine-tune target", "fine-tune oracle", "localize"):  # a line for every stage, and few of them
        assert sum(line.startswith(f"{stage}: ") for line in done.stderr.splitlines()) == 1, stage
    assert len(done.stderr.splitlines()) < 30
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"method", "seed", "metrics"} <= set(results["rows"][0])
    assert scopewise("show", str(tmp_path / "run")).stdout.strip() in done.stdout
    pickles = [p for p in (tmp_path / "run").rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    assert pickles == []

    refused = scopewise("demo", settings=small)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    other = scopewise("demo", "--resume", settings=[*small, "unlearn.learning_rate=0.5"])
    assert other.returncode == 2
    assert "unlearn.learning_rate was 0.004, now 0.5" in other.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
