"""What can be known before training is said before it, by `scopewise check` and by the run alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scopewise.bench import Bench, plan
from scopewise.checks import check_run, check_unlearning
from scopewise.cli.check import check
from scopewise.cli.finetune import finetune
from scopewise.cli.tune import tune
from scopewise.config import load_config
from scopewise.data.load import with_suite
from scopewise.errors import ModelError, ResultError, UserError
from scopewise.files import remove
from scopewise.pipeline import Entry, Pipeline

ROWS = [
    {"question": f"Where is {name}{split}?", "answer": "Here.", "scope": scope, "split": split}
    for split in ("train", "val")
    for name, scope in (("A", "forget"), ("B", "retain"))
]


ROWS[0]["answer"] = "kx7 qv9 zj3 wp1 hm5 bd8 gy2"  # more tokens than eight, whatever a tokenizer learns of the others


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("prompts.yaml").write_text("mine: [no field in it]\n")
    Path("empty.json").write_text("{}")
    return [
        "data.benchmark=jsonl",
        "data.path=rows.jsonl",
        "run.dir=out",
        "model.tiny={width: 16, layers: 1, heads: 2, vocab_size: 300, context: 256}",
        "unlearn.method=npo",
        "bench.methods=[npo]",
    ]


BAD = {
    "an odd batch": ["unlearn.batch_size=3"],
    "no region": ["unlearn.region=gone.json"],
    "no region file": ["unlearn.region=empty.json"],
    "no prompts": ["attack.prompts=gone.yaml"],
    "wrong prompts": ["attack.prompts=prompts.yaml"],
    "no alternatives": ["unlearn.method=dpo", "unlearn.method_args={alternative: row}"],
    "no layer": ["lora.target_modules=[nothing_like_it]"],
    "no reference": ["evaluate.reference_model=./gone", "evaluate.metrics=[mia_reference]"],
    "no judge": ["evaluate.fluency_model=./gone", "evaluate.metrics=[fluency]"],
    "a row too long": ["data.max_length=8"],
    "nothing fits": ["data.max_length=8", "data.over_length=drop"],
    "arguments": ["unlearn.method_args={betta: 1}"],
    "an optimizer": ["unlearn.optimizer=adamm"],
}


@pytest.mark.parametrize("wrong", BAD.values(), ids=BAD)
def test_it_is_said_before_training(settings: list[str], wrong: list[str]) -> None:
    """Of an unlearning: no stage is made, and no folder is left."""
    config = load_config(None, [*settings, *wrong])
    with pytest.raises(UserError) as by_check:  # noqa: PT012
        checked = check_run(with_suite(config))
        check_unlearning(checked, checked.config.unlearn)
    with pytest.raises(UserError) as by_run:  # noqa: PT012
        pipeline = Pipeline(config)
        with pipeline.folder:
            pipeline.unlearned(Entry.of(config.unlearn.method, None), config.unlearn, 0, "run")
    assert str(by_run.value) == str(by_check.value)
    assert type(by_run.value) is type(by_check.value)
    assert not Path("out").exists()
    with pytest.raises(UserError):
        check.__wrapped__(None, [*settings, *wrong])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "wrong", [["bench.settings={npo: {batch_size: 5}}"], ["bench.settings={npo: {method_args: {betta: 1}}}"]]
)
def test_every_method_of_a_bench_is_checked(settings: list[str], wrong: list[str]) -> None:
    with pytest.raises(UserError, match="npo"):  # noqa: PT012
        pipeline = Pipeline(load_config(None, [*settings, *wrong]))
        with pipeline.folder:
            Bench(pipeline)
    assert not Path("out").exists()


def test_what_can_run_is_not_refused(settings: list[str], capsys: Any) -> None:
    """A method without a retain term takes an odd batch; a judge that no metric asks is not looked for."""
    good = ["unlearn.method=gradient_ascent", "bench.methods=[gradient_ascent]", "unlearn.batch_size=3"]
    check.__wrapped__(None, [*settings, *good, "evaluate.fluency_model=./gone"])  # type: ignore[attr-defined]
    assert capsys.readouterr().out.rstrip().endswith("ok")


def test_a_region_of_another_model(settings: list[str]) -> None:
    from scopewise.region import Entry as Matrix
    from scopewise.region import Region

    def region(layer: int) -> str:
        name = f"model.layers.{layer}.mlp.up_proj.lora_A.weight"
        Region("named", {}, (Matrix(name, 8, True, name.removesuffix(".lora_A.weight")),)).save(f"{layer}.json")
        return f"unlearn.region={layer}.json"

    for layer in (0, 7):  # there is one layer
        checked = check_run(with_suite(load_config(None, [*settings, region(layer)])))
        if layer == 0:
            check_unlearning(checked, checked.config.unlearn)
        else:
            with pytest.raises(UserError, match="region"):
                check_unlearning(checked, checked.config.unlearn)


@pytest.fixture
def saved(settings: list[str], tiny: Any) -> Path:
    """A model in two files, with its tokenizer."""
    model, tokenizer = tiny
    model.save_pretrained("saved", max_shard_size="100KB")
    tokenizer.save_pretrained("saved")
    return Path("saved")


def _cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("setting", ["model.path", "model.target", "evaluate.reference_model"])
@pytest.mark.parametrize("change", [_cut_off, Path.unlink])
def test_weight_files_that_are_not_whole(settings: list[str], saved: Path, change: Any, setting: str) -> None:
    settings = [*settings, "data.max_length=200", "evaluate.metrics=[mia_reference]", "bench.oracle=false"]
    settings = [*settings, f"{setting}=saved"]
    check.__wrapped__(None, settings)  # type: ignore[attr-defined]
    file = sorted(saved.glob("*.safetensors"))[-1]
    change(file)
    with pytest.raises(ModelError, match=f"{setting}: saved; .*{file.name}"):
        check.__wrapped__(None, settings)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=file.name):
        Pipeline(load_config(None, settings))
    assert not Path("out").exists()


def test_a_finished_stage_whose_weights_were_changed(settings: list[str]) -> None:
    """What goes on with it says so before it makes anything; without the stage it is made again."""
    config = load_config(None, settings)

    def base() -> Path:
        pipeline = Pipeline(config, resume=True)
        with pipeline.folder:
            return Path(pipeline.base())

    file = base() / "model.safetensors"
    whole = file.read_bytes()
    assert base() == file.parent
    _cut_off(file)
    for command in (finetune, tune):
        with pytest.raises(ResultError, match=r"out/base; model.safetensors is cut off"):
            command.__wrapped__(None, set_=settings, resume=True)  # type: ignore[attr-defined]
    remove(file.parent)
    base()
    assert file.read_bytes() == whole


def test_an_oracle_of_another_kind_than_the_target(settings: list[str], tiny: Any) -> None:
    """Where the target is given, the oracle is made from `model.path`: it must be of the target's kind."""
    model, tokenizer = tiny
    for name, change in (("target", {}), ("other", {"num_hidden_layers": 1})):
        config = type(model.config).from_dict({**model.config.to_dict(), **change})
        type(model)(config).save_pretrained(name)
        tokenizer.save_pretrained(name)
    settings = [*settings, "model.target=target", "data.max_length=200"]
    for path, fits in (("target", True), ("other", False)):
        checked = check_run(with_suite(load_config(None, [*settings, f"model.path={path}"])))
        if fits:
            plan(checked)
        else:
            with pytest.raises(ModelError, match="oracle"):
                plan(checked)
    plan(check_run(with_suite(load_config(None, [*settings, "model.path=other", "bench.oracle=false"]))))
