"""What a model spread over processes cannot do is refused; the spreading itself is tested with two processes in `golden`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engines import forward_of
from scopewise.config import LoraSection
from scopewise.errors import ConfigError, ModelError
from scopewise.models import reference, score
from scopewise.models import scale_change as scaling
from scopewise.models.adapters import lora_config
from scopewise.models.parallel import fsdp, processes
from scopewise.models.reference import frozen_reference
from scopewise.models.scale_change import scale_change, trained_state
from scopewise.models.score import over_batches
from scopewise.region import Region
from scopewise.training import mask, trainer
from scopewise.training.mask import RegionMask


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second of two processes of `accelerate launch --config_file fsdp2.yaml` sees it."""
    for module in (fsdp, processes):
        monkeypatch.setattr(
            module, "processes", lambda: SimpleNamespace(num_processes=2, process_index=1, distributed_type="FSDP")
        )
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("FSDP_VERSION", "1", r"accelerate: fsdp_version 1; .* fsdp2\.yaml"),
        ("FSDP_OFFLOAD_PARAMS", "true", r"accelerate: fsdp_offload_params true; .* fsdp2\.yaml"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true", "accelerate: fsdp_cpu_ram_efficient_loading true; "),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", r"accelerate: .*unlearn\.activation_checkpointing"),
    ],
)
def test_configurations_that_are_refused(
    two: None, variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fsdp.uses_fsdp()
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=sentence):
        fsdp.uses_fsdp()


def test_one_process_and_other_configurations_hold_whole_models(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    assert not fsdp.uses_fsdp()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(fsdp, "processes", lambda: SimpleNamespace(num_processes=1))
    assert not fsdp.uses_fsdp()


def test_a_share_that_is_as_large_as_the_others(two: None) -> None:
    assert processes.share_of([3, 4, 5]) == [4]
    assert processes.share_of([3, 4, 5], equal=True) == [4, 3]
    assert processes.share_of([3], equal=True) == [3]
    assert processes.share_of([], equal=True) == []


def test_4_bits_are_not_spread(two: None, tiny: Any) -> None:
    tiny[0].is_quantized = True
    with pytest.raises(ConfigError, match=r"model\.quantization: nf4, with FSDP2; .* ddp\.yaml, or set none"):
        fsdp.shard_model(tiny[0])


def test_half_a_pair_in_a_process_is_refused(two: None, tiny: Any, make_trainer: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(trainer, "shard_model", lambda model, train: model)
    with pytest.raises(ConfigError, match="batch_size: 3 rows .* with FSDP2; .* must be even"):
        make_trainer(*tiny, "ga_kl", per_device_train_batch_size=3)


def test_training_where_accelerate_does_not_shard(tiny: Any, make_trainer: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(trainer, "is_sharded", lambda model: True)
    with pytest.raises(ConfigError, match=r"accelerate: FSDP2 on cpu; .* ddp\.yaml"):
        make_trainer(*tiny, "ga_kl")


def test_masks_for_each_term_are_refused(tiny: Any, encoded: Any, monkeypatch: Any) -> None:
    from scopewise.localizers.base import Scopes, localize_encoded
    from scopewise.models.engine import Engine

    region: Region = localize_encoded("grail", Engine(*tiny), Scopes(*encoded))
    monkeypatch.setattr(mask, "is_sharded", lambda model: True)
    with pytest.raises(ConfigError, match="region: grail has a mask for each term, .*FSDP2"):
        RegionMask(tiny[0], region)


def test_a_second_copy_of_the_model_is_refused(tiny: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(reference, "is_sharded", lambda model: True)
    with pytest.raises(ConfigError, match=r"unlearn\.parameters: all, with FSDP2.* set lora, or .*ddp\.yaml"):
        frozen_reference(forward_of(tiny[0])).__enter__()


def test_a_sum_of_two_adapters_is_refused(trained_adapter: Any, monkeypatch: Any) -> None:
    before = trained_state(trained_adapter[0])
    monkeypatch.setattr(scaling, "is_sharded", lambda model: True)
    with pytest.raises(ConfigError, match="method task_vector: .*with FSDP2"):
        scale_change(trained_adapter[0], before, -1.0)


def test_a_batch_is_not_halved_by_one_process_alone(two: None, tiny: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(score, "is_sharded", lambda model: True)

    def run(indices: list[int]) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(ModelError, match=r"evaluate: .*; lower evaluate\.max_tokens"):
        over_batches(forward_of(tiny[0]), [4, 4], 100, "score", run)


def test_what_is_saved_of_a_model(tiny: Any) -> None:
    """A tied head once; the frozen base not; 16 bits again where 16 bits were loaded."""
    from scopewise.models.adapters import with_adapter

    model = tiny[0]
    state = fsdp.full_state_dict(model, torch.bfloat16)
    assert "lm_head.weight" not in state
    assert set(state) == {name for name, _ in model.named_parameters()}
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    adapted = with_adapter(model, lora_config(LoraSection(r=2)), 0)
    for parameter in adapted.parameters():
        parameter.requires_grad_(False)  # a region may leave a matrix of the adapter out
    state = fsdp.full_state_dict(adapted, torch.bfloat16)
    assert state
    assert all("lora_" in name for name in state)
    assert {value.dtype for value in state.values()} == {torch.float32}
