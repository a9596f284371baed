"""What can be known before training is said before it, by `scopewise check` and by the run alike."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from forks import python
from scopewise.cli.bench import bench
from scopewise.cli.check import check
from scopewise.cli.finetune import finetune
from scopewise.cli.localize import localize
from scopewise.cli.tune import tune
from scopewise.cli.unlearn import unlearn
from scopewise.config import LoraSection
from scopewise.data.load import with_suite
from scopewise.errors import ConfigError, ModelError, ResultError, UserError
from scopewise.files import remove
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.load import load_model, load_tokenizer, save_model
from scopewise.run_file import load_config
from scopewise.runs.bench import Bench, plan
from scopewise.runs.checks import check_run, check_unlearning
from scopewise.runs.pipeline import BenchEntry, Pipeline

ROWS = [
    {"question": f"Where is {name}{split}?", "answer": "Here.", "scope": scope, "split": split}
    for split in ("train", "val")
    for name, scope in (("A", "forget"), ("B", "retain"))
]


ROWS[0]["answer"] = "kx7 qv9 zj3 wp1 hm5 bd8 gy2"  # more tokens than eight, whatever a tokenizer learns of the others


WHOLE = """
from dataclasses import dataclass
from transformers import Trainer
from scopewise.methods.open_unlearning import OpenUnlearning

@dataclass(frozen=True, kw_only=True)
class Whole(OpenUnlearning):
    trainer = Trainer
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("prompts.yaml").write_text("mine: [no field in it]\n")
    Path("empty.json").write_text("{}")
    Path("whole.py").write_text(WHOLE)
    return [
        "data.benchmark=jsonl",
        "data.path=rows.jsonl",
        "run.dir=out",
        "model.tiny={width: 16, layers: 1, heads: 2, vocab_size: 300, context: 256}",
        "unlearn.method=npo",
        "bench.methods=[npo]",
    ]


SMALL = ["localize.localizer_args.threshold=fraction", "localize.localizer_args.fraction=1e-9"]
BAD = {
    "an odd batch": ["unlearn.batch_size=3"],
    "half a pair": ["unlearn.method=whole:Whole", "unlearn.batch_size=1", "unlearn.gradient_accumulation_steps=2"],
    "a wrapper around whole batches": ["unlearn.method=whole:Whole+sam"],
    "a fresh adapter that is not trained": ["unlearn.adapter=fresh", "unlearn.parameters=all"],
    "no region": ["unlearn.region=gone.json"],
    "no region file": ["unlearn.region=empty.json"],
    "no prompts": ["attack.attack_args.prompts.file=gone.yaml"],
    "wrong prompts": ["attack.attack_args.prompts.file=prompts.yaml"],
    "no alternatives": ["unlearn.method=dpo", "unlearn.method_args={alternative: row}"],
    "no layer": ["lora.target_modules=[nothing_like_it]"],
    "no reference": ["evaluate.reference_model=./gone", "evaluate.metrics=[mia_reference]"],
    "no judge": ["evaluate.fluency_model=./gone", "evaluate.metrics=[fluency]"],
    "a row too long": ["data.max_length=8"],
    "nothing fits": ["data.max_length=8", "data.over_length=drop"],
    "arguments": ["unlearn.method_args={betta: 1}"],
    "an optimizer": ["unlearn.optim=adamm"],
    "an optimizer without its library": ["unlearn.optim=galore_adamw"],
    "no unit so small": ["unlearn.localizer=random", "localize.localizer_args.size_of=fisher_ratio", *SMALL],
    "no unit so small of a score": ["unlearn.localizer=fisher_ratio", *SMALL],
    "layers by a broken pattern": ["lora.target_modules='(['"],
    "a pattern": ["unlearn.localizer=named", "localize.localizer_args.pattern=nothing_like_it"],
    "a pattern of a control": [
        "unlearn.localizer=random",
        "localize.localizer_args={size_of: named, pattern: layers.7}",
    ],
    "no layer to fine-tune": ["unlearn.parameters=all", "lora.target_modules=[nothing_like_it]"],
    "no memory": ["model.tiny={width: 1048576, layers: 1, heads: 2}"],
}
if not torch.cuda.is_available():
    BAD["no 4-bit weights"] = ["model.quantization=nf4"]


@pytest.mark.parametrize("wrong", BAD.values(), ids=BAD)
def test_it_is_said_before_training(settings: list[str], wrong: list[str]) -> None:
    """Of an unlearning: no stage is made, and no folder is left."""
    with pytest.raises(UserError) as by_check:  # noqa: PT012
        config = load_config(None, [*settings, *wrong])
        checked = check_run(with_suite(config))
        check_unlearning(checked, checked.config.unlearn)
    with pytest.raises(UserError) as by_run:  # noqa: PT012
        config = load_config(None, [*settings, *wrong])
        pipeline = Pipeline(config)
        with pipeline.folder:
            pipeline.unlearned(BenchEntry.of(config.unlearn.method, None), config.unlearn, 0, "run")
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
    from scopewise.region import Entry, Region

    def region(layer: int) -> str:
        name = f"model.layers.{layer}.mlp.up_proj.lora_A.weight"
        Region("named", {}, (Entry(name, 8, True, name.removesuffix(".lora_A.weight")),)).save(f"{layer}.json")
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


def _configure(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _without_a_tensor(folder: Path) -> None:
    file = sorted(folder.glob("*.safetensors"))[0]
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, file, metadata={"format": "pt"})


def _config(**values: Any) -> Any:
    return lambda folder: _configure(folder / "config.json", **values)


def _rope(**values: Any) -> Any:
    return _config(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0, **values})


BAD_MODEL = {
    "a tensor missing": (_without_a_tensor, "missing"),
    "another width": (_config(intermediate_size=96), "shape"),
    "more layers": (_config(num_hidden_layers=3), "missing"),
    "a million layers": (_config(num_hidden_layers=10**6), "num_hidden_layers"),
    "far too wide": (_config(hidden_size=2**16), "shape|memory"),
    "positions scaled by -1": (_rope(factor=-1.0), "factor"),
    "positions scaled by 0": (_rope(factor=0), "factor"),
    "no rotation": (_rope(rope_theta=0), "rope_theta"),
    "norms of a negative": (_config(rms_norm_eps=-1.0), "rms_norm_eps"),
    "dropout of three": (_config(attention_dropout=3.0), "attention_dropout"),
    "a tokenizer class": (
        lambda folder: _configure(folder / "tokenizer_config.json", tokenizer_class="NobodysTokenizer"),
        "tokenizer_class",
    ),
}


@pytest.mark.parametrize(("change", "key"), BAD_MODEL.values(), ids=BAD_MODEL)
def test_a_model_that_cannot_be_loaded(settings: list[str], saved: Path, change: Any, key: str) -> None:
    settings = [*settings, "data.max_length=200", "model.path=saved"]
    change(saved)
    with pytest.raises(ModelError, match=f"saved.*({key})"):
        check.__wrapped__(None, settings)  # type: ignore[attr-defined]
    for command in (finetune, tune):
        with pytest.raises(ModelError, match=f"saved.*({key})"):
            command.__wrapped__(None, set_=settings)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=f"saved.*({key})"):
        load_tokenizer("saved") if "tokenizer" in key else load_model("saved")
    assert not Path("out").exists()


def test_positions_that_are_scaled_and_classes_that_are_known(settings: list[str], saved: Path) -> None:
    """Bloom's tokenizer has no class of its own any more: its `tokenizer.json` is all of it."""
    _rope()(saved)
    _configure(saved / "tokenizer_config.json", tokenizer_class="BloomTokenizerFast")
    check.__wrapped__(None, [*settings, "data.max_length=200", "model.path=saved"])  # type: ignore[attr-defined]


@pytest.fixture
def adapter(saved: Path, settings: list[str]) -> Path:
    """An adapter on `saved` of rank 2, alpha 4, without dropout, on q_proj and up_proj."""
    lora = LoraSection(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=("q_proj", "up_proj"))
    model = with_adapter(load_model("saved"), lora_config(lora), seed=0)
    save_model(model, load_tokenizer("saved"), "adapter")
    return Path("adapter")


GIVEN = {
    "lora.r": (3, 2),
    "lora.lora_alpha": (5, 4),
    "lora.lora_dropout": (0.2, 0.0),
    "lora.target_modules": (["q_proj"], ["up_proj", "q_proj"]),
}


@pytest.mark.parametrize("setting", ["model.target", "model.path"])
@pytest.mark.parametrize("key", GIVEN)
def test_lora_settings_that_the_adapter_does_not_have(
    settings: list[str], adapter: Path, key: str, setting: str
) -> None:
    """Those that are equal, and those that are not given (rank 8 by default), are fine; merged, the adapter is gone."""
    settings = [*settings, "data.max_length=200", f"{setting}=adapter", "bench.oracle=false"]
    other, own = GIVEN[key]
    check.__wrapped__(None, settings)  # type: ignore[attr-defined]
    check.__wrapped__(None, [*settings, f"{key}={own}"])  # type: ignore[attr-defined]
    wrong = [*settings, f"{key}={other}"]
    with pytest.raises(ConfigError, match=f"{key}: .*adapter"):
        check.__wrapped__(None, wrong)  # type: ignore[attr-defined]
    command = tune if setting == "model.target" else finetune
    with pytest.raises(ConfigError, match=f"{key}: .*adapter"):
        command.__wrapped__(None, set_=wrong)  # type: ignore[attr-defined]
    if setting == "model.target":
        check.__wrapped__(None, [*wrong, "unlearn.parameters=all"])  # type: ignore[attr-defined]


def test_the_record_of_a_run_gives_no_setting_that_was_not_given(settings: list[str], adapter: Path) -> None:
    settings = [*settings, "data.max_length=200", "model.target=adapter", "bench.oracle=false", "lora.r=2"]
    with Pipeline(load_config(None, settings)).folder:
        check.__wrapped__("out/config.yaml", [])  # type: ignore[attr-defined]
        assert load_config("out/config.yaml").lora.model_fields_set == {"r"}


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_an_adapter_that_is_scaled_by_no_number(settings: list[str], adapter: Path, value: str) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": 4', f'"lora_alpha": {value}'))
    with pytest.raises(ModelError, match="lora_alpha"):
        check.__wrapped__(None, [*settings, "model.target=adapter"])  # type: ignore[attr-defined]


def test_an_adapter_that_is_none_of_its_base(settings: list[str], adapter: Path) -> None:
    _without_a_tensor(adapter)
    with pytest.raises(ModelError, match="missing"):
        check.__wrapped__(None, [*settings, "model.target=adapter"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [check, unlearn, localize, bench])
def test_a_setting_that_no_localizer_of_the_run_has(settings: list[str], command: Any) -> None:
    """MemFlex's is `gradient`: what `named` reads would change nothing."""
    with pytest.raises(ConfigError, match=r"localize\.localizer_args: unknown 'pattern'"):
        command.__wrapped__(run_file=None, set_=[*settings, "localize.localizer_args.pattern=layers"])
    assert not Path("out").exists()


def test_each_localizer_of_a_bench_takes_its_own_settings(settings: list[str]) -> None:
    both = ["bench.methods=[memflex, npo@named]", "localize.localizer_args={pattern: layers, mu: 0.5}"]
    check.__wrapped__(run_file=None, set_=[*settings, *both])  # type: ignore[attr-defined]


def test_all_parameters_of_a_target_that_is_an_adapter(settings: list[str], adapter: Path) -> None:
    """Merged, the base is trained, which was frozen below the adapter; without a region nobody else says so."""
    settings = [
        *settings,
        "data.max_length=200",
        "model.target=adapter",
        "unlearn.parameters=all",
        "unlearn.num_train_epochs=2",
    ]
    settings += ["unlearn.learning_rate=0.01", "unlearn.warmup_steps=0", "evaluate.metrics=[unlearn_success]"]
    settings += ["evaluate.splits=[val]", "evaluate.direct_splits=[]"]
    sets = [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run([python(), "-m", "scopewise", "unlearn", *sets], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = load_model("saved").state_dict(), load_model(done.stdout.strip()).state_dict()
    assert not torch.equal(before["model.norm.weight"], after["model.norm.weight"])


@pytest.mark.parametrize(("count", "fits"), [(256, True), (20, False)])
def test_rows_longer_than_learned_positions(settings: list[str], saved: Path, count: int, fits: bool) -> None:
    config = GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=count)
    GPT2LMHeadModel(config).save_pretrained("gpt2")
    load_tokenizer("saved").save_pretrained("gpt2")
    settings = [*settings, "data.max_length=200", "model.path=gpt2"]
    if fits:
        check.__wrapped__(None, settings)  # type: ignore[attr-defined]
    else:
        with pytest.raises(ModelError, match="positions for 20 tokens, .*rows.jsonl:1"):
            check.__wrapped__(None, settings)  # type: ignore[attr-defined]


def test_the_localize_command_checks_its_own_localizer(settings: list[str]) -> None:
    """Not the run file's method: `localize --localizer named` before the target is made."""
    config = load_config(None, [*settings, "localize.localizer_args.pattern=nothing_like_it"])
    with pytest.raises(ConfigError, match="pattern"), Pipeline(config).folder:
        Pipeline(config, resume=True).region("named", 0)
    assert not Path("out").exists()


def test_an_outline_needs_no_memory_and_reads_what_is_loaded(saved: Path, adapter: Path) -> None:
    for path in (saved, adapter):
        whole, outlined = load_model(path, trainable=True), load_model(path, trainable=True, outline=True)
        assert {parameter.device.type for parameter in outlined.parameters()} == {"meta"}
        shapes = [{name: (p.shape, p.dtype) for name, p in m.named_parameters()} for m in (whole, outlined)]
        assert shapes[0] == shapes[1]


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
