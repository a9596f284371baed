"""The script that asks whether adapters of shards can be merged into one: its shards, its other names, and the sum by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from transformers import LlamaConfig, LlamaForCausalLM

from loading import module_of
from scopewise.data.rows import Row
from scopewise.models.adapters import with_adapter

SHARDS = module_of(Path(__file__).parents[2] / "benchmarks" / "shards.py")
PEOPLE = ["Ada Berg", "Ben Cole", "Cleo Dorn", "Dan Eich", "Eve Falk"]


def test_each_person_is_in_one_shard() -> None:
    shards = SHARDS.shards_of(PEOPLE, 2)
    assert sorted(name for shard in shards for name in shard) == sorted(PEOPLE)
    assert sorted(map(len, shards)) == [2, 3]
    assert SHARDS.shards_of(PEOPLE[::-1], 2) == shards


def test_another_name_replaces_the_own_everywhere() -> None:
    row = Row(
        "Where does Ada Berg live?", "Ada lives in Ulm; Berg is her name.", "forget", "train", instance="Ada Berg"
    )
    made = SHARDS.renamed({"Ada Berg": [row]}, PEOPLE[1:], seed=0)
    assert len({one.instance for one in made}) == SHARDS.NAMES == len(made)
    for one in made:
        first, last = one.instance.split()
        assert one.question == f"Where does {first} {last} live?"
        assert one.answer == f"{first} lives in Ulm; {last} is her name."
        assert one.scope == "retain"


def test_means_and_table() -> None:
    assert SHARDS.means([50.0, 100.0], [0.0, 100.0]) == [75.0, 50.0]
    text = SHARDS.table({"one adapter": {"base": [25.1, 0.0], "own": [97.8, 57.9]}})
    assert "| one adapter | 25 / 0 | 98 / 58 |" in text


@pytest.mark.parametrize("shards", [2, 4])
def test_frozen_inputs_are_orthogonal_between_shards(shards: int, tmp_path: Path) -> None:
    """Otherwise "inputs" would not be what it says: A of one shard times the transpose of another's is zero."""
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    models = [SHARDS.adapted(tmp_path, shard, shards, 4, "inputs") for shard in range(shards)]
    matrices = [[m.lora_A["default"].weight for m in model.modules() if isinstance(m, LoraLayer)] for model in models]
    for layer in zip(*matrices, strict=True):
        assert not any(a.requires_grad for a in layer)
        everything = torch.cat(layer)
        torch.testing.assert_close(everything @ everything.T, torch.eye(4 * shards), atol=1e-5, rtol=0)


def test_concatenation_is_the_sum_of_the_products() -> None:
    """PEFT's `cat` with weights w gives Σ w BA of the adapters, up to rounding."""
    torch.manual_seed(0)
    model = with_adapter(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
            )
        ),
        LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    model.add_adapter("second", model.peft_config["default"])
    model.base_model.add_weighted_adapter(["default", "second"], [0.5, 1.0], "both", combination_type="cat")
    (layer,) = (module for module in model.modules() if isinstance(module, LoraLayer))
    expected = 0.5 * layer.get_delta_weight("default") + layer.get_delta_weight("second")
    torch.testing.assert_close(layer.get_delta_weight("both"), expected)
