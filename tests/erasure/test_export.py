"""An exported folder loads in plain transformers, says the same as the model, and tells nothing of the rows."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from scopewise.erasure.export import agreement, check_room, export, push_to_hub, reload, requests_of
from scopewise.erasure.model_card import Card, model_card
from scopewise.errors import ConfigError, ModelError, ResultError
from scopewise.models.engine import Engine


@dataclass(frozen=True)
class _Light:
    light: str
    value: float = 0.1
    low: float = 0.0
    high: float = 0.32
    n: int = 12
    bound: float = 0.5
    why: str = "Ada Quill lives at 3 Mill Lane."


CARD = Card(
    request="REQ-17",
    regulation="gdpr",
    facts=12,
    instances=3,
    method="retrained without the rows",
    verdict={"forgotten": _Light("green"), "kept": _Light("amber"), "resists": _Light("red")},
    limits=("Other languages were not tested.",),
    base_model="HuggingFaceTB/SmolLM2-135M",
    license="apache-2.0",
    language=("en",),
)


@pytest.fixture
def engine(trained_adapter: tuple[Any, Any]) -> Engine:
    """A model with an adapter that does something."""
    return Engine(*trained_adapter)


def prompts(engine: Engine, rows: Any) -> list[tuple[int, ...]]:
    return [item.prompt_ids for item in engine.encode(rows)]


def test_an_adapter_becomes_a_folder_that_plain_transformers_loads(engine: Engine, forget: Any, tmp_path: Path) -> None:
    asked = prompts(engine, forget)
    said = engine.generate(asked, 12)
    ids = torch.tensor([asked[0]])
    with torch.no_grad():
        logits = engine.model(ids).logits
    engine.model.config.name_or_path = str(tmp_path / "runs" / "target")

    made = export(engine, tmp_path / "out", CARD)

    assert not any("adapter" in name or name.endswith(".bin") for name in made.files)
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "README.md"} <= set(
        made.files
    )
    assert "chat_template.jinja" in made.files
    plain = AutoModelForCausalLM.from_pretrained(made.folder)
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, logits, rtol=1e-4, atol=1e-5)
    after = reload(made)
    assert after.generate(asked, 12) == said
    assert agreement(Engine(plain, AutoTokenizer.from_pretrained(made.folder)), after, asked) == 1
    assert not list(tmp_path.glob(".*.tmp"))
    for path in made.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert str(tmp_path).encode() not in path.read_bytes()


def test_the_base_is_not_what_is_exported(engine: Engine, forget: Any, tmp_path: Path) -> None:
    """The adapter changes what the model says, and the export says it as well."""
    with engine.model.disable_adapter():
        base = engine.generate(prompts(engine, forget), 12)
    made = export(engine, tmp_path / "out", CARD)
    assert reload(made).generate(prompts(engine, forget), 12) != base


def test_a_model_is_exported_once_for_a_request_and_again_for_another(tiny: Any, tmp_path: Path) -> None:
    first = reload(export(Engine(*tiny), tmp_path / "one", CARD))
    with pytest.raises(ModelError, match=r"^model: already an export of request REQ-17;"):
        check_room(first.model, tmp_path / "two", request="REQ-17")
    with pytest.raises(ModelError, match="REQ-17"):
        export(first, tmp_path / "two", CARD)
    assert not (tmp_path / "two").exists()
    second = export(first, tmp_path / "two", replace(CARD, request="REQ-18"))
    assert requests_of(reload(second).model) == ["REQ-17", "REQ-18"]


def test_nothing_is_overwritten(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ResultError, match=r"^export: .*out exists;"):
        export(Engine(*tiny), tmp_path / "out", CARD)
    assert not list((tmp_path / "out").iterdir())


def test_too_little_room_is_known_before_training(tmp_path: Path) -> None:
    """A model of 10^15 bytes, which has no weights here; GGUF files beside it need more."""
    config = LlamaConfig(vocab_size=2**22, hidden_size=2**15, intermediate_size=2**15, num_hidden_layers=1)
    config.num_attention_heads = config.num_key_value_heads = 2
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
        for layer in (model.lm_head, model.model.embed_tokens):
            layer.weight = torch.nn.Parameter(torch.empty(2**35, 2**15))
    with pytest.raises(ResultError, match=r"^export: .*; needs .* GB, and .* GB are free;"):
        check_room(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_room_counts_weights_and_gguf_files(tiny: Any, tmp_path: Path) -> None:
    model = tiny[0]
    count = sum(p.numel() for p in model.parameters())
    least = check_room(model, tmp_path / "out")
    assert check_room(model, tmp_path / "out", ("f16",)) - least == 2 * count
    made = export(Engine(*tiny), tmp_path / "out", CARD, ("f16", "q8_0"))
    assert sum((made.folder / name).stat().st_size for name in made.files) <= least + (2 + 34 / 32) * count


def test_a_changed_file_is_found(tiny: Any, tmp_path: Path) -> None:
    made = export(Engine(*tiny), tmp_path / "out", CARD)
    file = made.folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for use in (reload, lambda e: push_to_hub(e, "somebody/model")):
        with pytest.raises(ResultError, match=r"model\.safetensors: changed"):
            use(made)
    file.unlink()
    with pytest.raises(ResultError, match=r"model\.safetensors: missing"):
        reload(made)


def test_upload_without_a_hub_is_one_sentence(tiny: Any, tmp_path: Path) -> None:
    made = export(Engine(*tiny), tmp_path / "out", CARD)
    with pytest.raises(ResultError, match=r"^push_to_hub: somebody/model; not uploaded"):
        push_to_hub(made, "somebody/model")
    with pytest.raises(ConfigError, match=r"^push_to_hub: a/b/c;"):
        push_to_hub(made, "a/b/c")


# -- model card -----------------------------------------------------------------------------------------------------------


def test_the_card_is_valid_and_says_what_was_removed_in_kind(tmp_path: Path) -> None:
    """Read back as the hub reads it: a YAML mapping before the text."""
    without = str(model_card(replace(CARD, verdict={})))
    assert "| bound |" not in without
    assert "model-card-section.md" in without
    (tmp_path / "README.md").write_text(str(model_card(CARD)))
    card = ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False)
    assert card.data.to_dict() == {
        "base_model": "HuggingFaceTB/SmolLM2-135M",
        "language": ["en"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["unlearning", "scopewise"],
    }
    for text in (
        "12 facts about 3 persons or works",
        "`REQ-17` (GDPR, Articles 17 and 12(3))",
        "Retrained without the rows",
        "| Forgotten | **yes** (green) | 0.1 | 0 to 0.32 | 12 | 0.5 |",
        "| Kept | **undecided** (amber) |",
        "| Resists | **no** (red) |",
        "- Other languages were not tested.",
        "evidence",
    ):
        assert text in card.text
    assert "Quill" not in card.content
    assert "proof" not in card.content


def test_a_folder_is_not_named_as_the_base(tmp_path: Path) -> None:
    for base in (str(tmp_path), "runs/some/target", None):
        card = model_card(replace(CARD, base_model=base))
        assert card.data.base_model is None
        assert "not public" in card.text


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"limits": ("Fine.", "Not tested on /home/me/rows.jsonl.")}, r"card\.limits\[1\]"),
        ({"limits": (r"See C:\rows.",)}, r"card\.limits\[0\]"),
        ({"method": "retrained\nwithout"}, r"card\.method"),
        ({"limits": ("It still says: 3  mill lane, sometimes.",)}, r"card\.limits\[0\]: contains a forget answer"),
        ({"request": "Quill-3"}, r"card\.request: contains"),
        ({"regulation": "hipaa"}, r"card\.regulation: 'hipaa'; unknown; allowed: gdpr"),
        ({"license": "MIT license"}, r"card\.license"),
        ({"language": ("English",)}, r"card\.language"),
    ],
)
def test_what_a_card_must_not_say(change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match="^" + key):
        model_card(replace(CARD, **change), private=["3 Mill Lane.", "Quill", "not"])


def test_a_web_address_and_a_hub_name_are_no_paths() -> None:
    limits = ("See https://arxiv.org/abs/2410.16454 and meta-llama/Llama-3.2-1B, and/or others.",)
    assert limits[0] in model_card(replace(CARD, limits=limits)).text


def test_the_config_keeps_the_request(tiny: Any, tmp_path: Path) -> None:
    made = export(Engine(*tiny), tmp_path / "out", CARD)
    config = json.loads((made.folder / "config.json").read_text())
    assert config["scopewise_requests"] == ["REQ-17"]
    assert "_name_or_path" not in config
