"""The run file and `--set`: what is wrong is said in one sentence, with the nearest right name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from scopewise.config import RunConfig, TrainingSection
from scopewise.errors import ConfigError
from scopewise.run_file import find_config, load_config, parse_config

CONFIGS = Path(__file__).parents[2] / "src" / "scopewise" / "configs"


def message(source: Any = None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults() -> None:
    assert load_config() == RunConfig()


def test_no_shipped_run_is_missed() -> None:
    assert {p.stem for p in CONFIGS.glob("*.yaml")} >= {"demo"}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_run_loads_and_is_found_by_name(path: Path) -> None:
    assert load_config(path) == load_config(path.stem)
    assert find_config(path.stem).samefile(path)
    assert load_config(path) != RunConfig()


def test_unknown_shipped_name_lists_the_known() -> None:
    text = message("demp")
    assert text.startswith("demp: no such run file")
    assert "demo" in text


@pytest.mark.parametrize(
    ("override", "key", "near"),
    [
        ("unlearn.learning_rat=1", "unlearn.learning_rat", "learning_rate"),
        ("unlern.method=memflex", "unlern", "unlearn"),
        ("model.tiny.widht=32", "model.tiny.widht", "width"),
        ("bench.tune.learning_rates=[1]", "bench.tune.learning_rates", "learning_rate"),
    ],
)
def test_unknown_key_names_the_nearest(override: str, key: str, near: str) -> None:
    text = message(None, override)
    assert f"unknown key {key!r}; allowed are " in text
    assert f"Did you mean {near!r}?" in text


def test_unknown_key_with_nothing_near() -> None:
    assert "Did you mean" not in message(None, "qqqq.zzzz=1")


@pytest.mark.parametrize(
    "override",
    ["unlearn.method=memflx", "bench.methods=[memflx]", "bench.methods=[memflx@random]", "bench.paper={memflx: {}}"],
)
def test_unknown_method_names_the_nearest(override: str) -> None:
    text = message(None, override)
    assert "method: 'memflx'; allowed are gradient_ascent" in text
    assert "Did you mean 'memflex'?" in text


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("bench.methods=[memflex@gradiant]", "gradient"),
        ("evaluate.metrics=[perplexty]", "perplexity"),
        ("data.benchmark=knowundu", "knowundo"),
    ],
)
def test_other_names(override: str, near: str) -> None:
    assert f"Did you mean {near!r}?" in message(None, override)


def test_unknown_localizer_of_the_run() -> None:
    assert "Did you mean 'gradient'?" in message(None, "unlearn.localizer=gradiant")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("unlearn.parameters=lor", "unlearn.parameters: 'lor'; allowed are lora, all. Did you mean 'lora'?"),
        ("evaluate.splits=[Train]", "evaluate.splits.0: 'Train'; allowed are train, val. Did you mean 'train'?"),
        ("unlearn.early_stopping=3", "unlearn.early_stopping: 3; a mapping; set one of its keys"),
        ("unlearn.guard.rows=0", "unlearn.guard: not a setting; it is now called 'early_stopping'"),
        ("bench.tune.knobs=3", "bench.tune.knobs: 3; a mapping; set one of its keys, as bench.tune.knobs.KEY"),
        ("data.prompt=chatt", "data.prompt: 'chatt'; plain, chat, or a text with {question} in it"),
    ],
)
def test_a_value_of_another_kind_says_what_is_allowed(override: str, sentence: str) -> None:
    assert message(None, override).startswith(f"--set: {sentence}")


def test_rows_given_for_a_run_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("{}\n")
    assert message(path).endswith(f"rows are given by --set data.benchmark=jsonl --set data.path={path}")


def test_dashes_are_underscores() -> None:
    config = load_config(None, ["unlearn.method=random-labels", "bench.methods=[ga-kl@random]"])
    assert config.unlearn.method == "random_labels"
    assert config.bench.methods == ("ga_kl@random",)


def test_set_is_yaml_and_the_last_wins() -> None:
    config = load_config(None, ["run.seed=1", "run.seed=2", "bench.seeds=[3, 4]", "data.domain=privacy", "run.dir=a=b"])
    assert config.run.seed == 2
    assert config.bench.seeds == (3, 4)
    assert config.data.domain == "privacy"
    assert config.run.dir == "a=b"  # only the first = parts name and value
    assert load_config(None, ["data.domain=null"]).data.domain is None


def test_set_wins_over_the_file_and_keeps_the_rest_of_the_section(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("run: {seed: 5, dir: here}\n", encoding="utf-8")
    config = load_config(path, ["run.seed=6"])
    assert (config.run.seed, config.run.dir) == (6, "here")


@pytest.mark.parametrize("text", ["run.seed", "seed=1", "=1", ".seed=1", "run.=1"])
def test_set_of_another_form(text: str) -> None:
    assert message(None, text).startswith(f"--set: {text!r}; written as section.key=value")


def test_set_that_is_no_yaml() -> None:
    assert message(None, "run.dir=[").startswith("--set run.dir: broken YAML")


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("2E+1", 20.0), ("5.e-5", 5e-5), ("0.01", 0.01)])
def test_exponents_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    """YAML 1.1 reads `1e-3`, without a dot, as text."""
    assert load_config(None, [f"unlearn.learning_rate={text}"]).unlearn.learning_rate == value
    path = tmp_path / "r.yaml"
    path.write_text(
        f"unlearn: {{method_args: {{retain_weight: {text}}}}}\nbench: {{tune: {{learning_rate: [{text}, 1e2]}}}}"
    )
    config = load_config(path)
    assert config.unlearn.method_args["retain_weight"] == value
    assert config.bench.tune.learning_rate == (value, 100.0)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("unlearn.learning_rate=0", "unlearn.learning_rate"),
        ("unlearn.learning_rate=fast", "unlearn.learning_rate"),
        ("lora.lora_dropout=1", "lora.lora_dropout"),
        ("data.prompt=poem", "data.prompt"),
        ("bench.seeds=[]", "bench.seeds"),
        ("model.tiny.vocab_size=10", "model.tiny.vocab_size"),
    ],
)
def test_value_out_of_range_names_key_and_value(override: str, key: str) -> None:
    text = message(None, override)
    given = override.partition("=")[2]
    assert text.startswith(f"--set: {key}: ")
    assert given in text


def test_settings_of_one_method_are_checked_in_one_sentence() -> None:
    """`bench.paper` holds changes of the `unlearn` section per method."""
    text = message(None, "bench.paper={memflex: {learning_rat: 1}}")
    assert text.startswith("unknown key 'bench.paper.memflex.learning_rat'; allowed are parameters, learning_rate,")
    assert text.endswith("Did you mean 'learning_rate'?")
    text = message(None, "bench.settings={npo: {num_train_epochs: 0}}")
    assert text.startswith("bench.settings.npo.num_train_epochs: 0; input should be greater than 0")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("bench.tune.learning_rate=[1, 0.1]", "a range is [low, high] with 0 < low <= high"),
        ("bench.tune.knobs={npo: {beta: [0, 1]}}", "a range is [low, high]"),
        ("bench.tune.knobs={npoo: {beta: [0.1, 1]}}", "Did you mean 'npo'?"),
        ("bench.settings={npoo: {}}", "Did you mean 'npo'?"),
        ("bench.methods=ga_kl", "a list, for example [ga_kl]"),
    ],
)
def test_wrong_bench_settings(text: str, part: str) -> None:
    assert part in message(None, text)


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("run:\n  seed: [1\nmodel: x\n", encoding="utf-8")
    assert message(path).startswith(f"{path}:3: broken YAML")


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"run: {dir: caf\xe9}")
    assert message(path).startswith(f"{path}:1: ")


def test_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("- a\n", encoding="utf-8")
    assert message(path).startswith(f"{path}: list; a run file is a mapping")
    assert load_config(path_of_empty(tmp_path)) == RunConfig()


def path_of_empty(folder: Path) -> Path:
    path = folder / "empty.yaml"
    path.write_text("", encoding="utf-8")
    return path


def test_config_cannot_be_changed_and_survives_a_round_trip() -> None:
    config = load_config("demo")
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 3  # type: ignore[misc]
    assert parse_config(config.model_dump()) == config
    assert parse_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "setting",
    [
        "finetune.learning_rate=.inf",
        "finetune.num_train_epochs=.nan",
        "unlearn.batch_size=true",
        "evaluate.ability.shots={mmlu: true}",
        "bench.seeds=[true]",
        "bench.seeds=[1, 1]",
        "bench.seeds=[-1]",
        "bench.methods=[]",
        "bench.methods=[npo, npo]",
        "bench.methods=['npo@']",
        "bench.protocols=[]",
        "run.seed=4294967296",
        "attack.seed=-1",
        "bench.tune.retain_weight=[1, .inf]",
        "model.tiny={width: 18, heads: 4}",
        "model.tiny={width: 18, heads: 2}",
        "unlearn.lr_scheduler_type=cosin",
        "unlearn.lr_scheduler_type=cosine_with_min_lr",
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_key(setting: str) -> None:
    assert setting.partition("=")[0] in message(None, setting)


def test_switches_stay_switches_and_every_scheduler_is_known_to_the_library() -> None:
    from typing import get_args

    from transformers import SchedulerType

    config = load_config(None, ["unlearn.bf16=true", "bench.settings={npo: {early_stopping: {keep_best: true}}}"])
    assert config.unlearn.bf16
    assert config.bench.settings["npo"]["early_stopping"]["keep_best"]
    names = get_args(TrainingSection.model_fields["lr_scheduler_type"].annotation)
    assert set(names) <= {kind.value for kind in SchedulerType}


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ('run.dir="a\\0b"', "run.dir"),
        ('run.dir="a\\eb"', "run.dir"),
        ('data.path="a\\x9bb"', "data.path"),
        ('lora.target_modules=["q\\0"]', "lora.target_modules"),
        ('evaluate.parts={"a\\0": {}}', "evaluate.parts"),
        ('data.prompt="{question}\\0"', "data.prompt"),
        ("run.dir=''", "run.dir"),
        (f"unlearn.batch_size={2**63}", "unlearn.batch_size"),
        ("evaluate.ability.shots={mmlu: -1}", "evaluate.ability.shots.mmlu"),
    ],
)
def test_what_no_setting_means(override: str, key: str) -> None:
    assert message(None, override).startswith(f"--set: {key}: ")


def test_what_stays_allowed() -> None:
    """Line breaks in what is put to a model; a threshold that is no quantile; ordinary letters of any script."""
    config = load_config(
        None,
        [
            'data.prompt="{question}\\n\\t"',
            "localize.localizer_args={threshold: absolute, sigma: 7.5}",
            "run.dir=läufe/東京",
        ],
    )
    assert config.data.prompt == "{question}\n\t"
    assert config.localize.localizer_args["sigma"] == 7.5


@pytest.mark.parametrize("overrides", [["run.seed=1", "run.seed.x=1"], ["data.path=a", "data.path.b.c=1"]])
def test_set_through_a_leaf(overrides: list[str]) -> None:
    text = message(None, *overrides)
    assert text.startswith(f"--set {overrides[1].partition('=')[0]}: {overrides[0].partition('=')[0]} is ")


@pytest.mark.parametrize("key", ["method", "localizer"])
def test_a_bench_takes_method_and_localizer_from_its_entries(key: str) -> None:
    value = {"method": "npo", "localizer": "all"}[key]
    assert message(None, f"bench.settings={{memflex: {{{key}: {value}}}}}").startswith(
        f"bench.settings.memflex.{key}: "
    )


def test_unknown_key_within_a_mapping_of_sections() -> None:
    text = message(None, "evaluate.parts={email: {stp: []}}")
    assert "unknown key 'evaluate.parts.email.stp'" in text
    assert "Did you mean 'stop'?" in text


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(message(None, f"unlearn.learning_rate={'x' * 5000}")) < 400


def test_a_run_folder_is_read_from_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept names files by their whole path; the hash does not depend on where they are, or the run was begun."""
    from scopewise.record import config_hash, stored

    hashes = set()
    for place in ("one", "two"):
        here = tmp_path / place
        here.mkdir()
        for name in ("rows.jsonl", "general.txt", "region.json", "prompts.yaml"):
            (here / name).touch()
        (here / "model").mkdir()
        monkeypatch.chdir(here)
        config = load_config(
            None,
            [
                "data.path=rows.jsonl",
                "data.general=general.txt",
                "unlearn.region=region.json",
                "attack.attack_args.prompts.file=prompts.yaml",
                "model.path=model",
                "model.target=org/name",
                "evaluate.language_model=org/name",
            ],
        )
        kept = stored(config)
        assert kept["data"]["path"] == str(here / "rows.jsonl")
        assert kept["data"]["general"] == str(here / "general.txt")
        assert kept["unlearn"]["region"] == str(here / "region.json")
        assert kept["attack"]["attack_args"]["prompts"]["file"] == str(here / "prompts.yaml")
        assert kept["model"]["path"] == str(here / "model")
        assert kept["model"]["target"] == kept["evaluate"]["language_model"] == "org/name"  # of the hub
        assert kept["run"] == config.model_dump()["run"]
        monkeypatch.chdir(tmp_path)
        again = parse_config(kept)
        hashes.add(config_hash(again))
        monkeypatch.chdir(here)
        hashes.add(config_hash(config))
        assert config_hash(parse_config({**kept, "lora": {"r": 3}})) not in hashes
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("finetune.epochs=3", "num_train_epochs"),
        ("unlearn.warmup_ratio=0.1", "warmup_steps"),
        ("unlearn.scheduler=linear", "lr_scheduler_type"),
        ("finetune.gradient_checkpointing=true", "activation_checkpointing"),
        ("unlearn.optimizer=sgd", "optim"),
        ("unlearn.compile=true", "torch_compile"),
        ("finetune.checkpoint_steps=3", "save_steps"),
        ("finetune.checkpoint_minutes=3", "save_minutes"),
        ("finetune.per_device_train_batch_size=3", "batch_size"),
        ("bench.settings={npo: {epochs: 3}}", "num_train_epochs"),
        ("bench.paper={npo: {compile: true}}", "torch_compile"),
        ("lora.alpha=3", "lora_alpha"),
        ("lora.dropout=0", "lora_dropout"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(old: str, new: str, tmp_path: Path) -> None:
    """By `--set`, and in a run file."""
    key, _, value = old.partition("=")
    section, _, name = key.partition(".")
    (tmp_path / "run.yaml").write_text(f"{section}: {{{name}: {value}}}\n")
    for found in (message(None, old), message(str(tmp_path / "run.yaml"))):
        assert key in found
        assert re.search(rf"\b{new}\b", found)


def test_a_training_setting_has_the_name_that_transformers_gives_it() -> None:
    """But for three that are ours: what is trained, the batch of all processes, and checkpoints by time."""
    from transformers import TrainingArguments

    own = set(TrainingSection.model_fields) - set(TrainingArguments.__dataclass_fields__)
    assert own == {"parameters", "batch_size", "save_minutes"}
