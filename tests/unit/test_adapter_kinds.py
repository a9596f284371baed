"""Every kind of adapter PEFT has for linear layers, under methods that keep a reference: what does not train does not move.

The independent value: logits of a deep copy that was made before anything of ours saw the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from engines import forward_of
from often import often
from scopewise.api import unlearn
from scopewise.errors import ConfigError
from scopewise.models import reference as reference_module
from scopewise.models.adapters import with_adapter
from scopewise.models.reference import frozen_reference
from scopewise.models.scale_change import scale_change, trained_state

IDS = torch.arange(5, 25)[None]
TARGETS = ["q_proj", "v_proj", "up_proj"]


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(**{"r": 2, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **settings})


def other(kind: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(peft, kind)(**{"target_modules": TARGETS, "task_type": "CAUSAL_LM", **settings})


KINDS: dict[str, Callable[[], Any]] = {
    "lora": lora,
    "random": lambda: lora(init_lora_weights=False),
    "gaussian": lambda: lora(init_lora_weights="gaussian"),
    "pissa": lambda: lora(init_lora_weights="pissa"),
    "pissa_niter": lambda: lora(init_lora_weights="pissa_niter_4"),
    "olora": lambda: lora(init_lora_weights="olora"),
    "orthogonal": lambda: lora(init_lora_weights="orthogonal"),
    "mica": lambda: lora(init_lora_weights="mica"),
    "dora": lambda: lora(use_dora=True, init_lora_weights=False),
    "rslora": lambda: lora(use_rslora=True, init_lora_weights=False),
    "bias": lambda: lora(bias="all", init_lora_weights=False),
    "lora_bias": lambda: lora(lora_bias=True, init_lora_weights=False),
    "modules": lambda: lora(modules_to_save=["norm"], init_lora_weights=False),
    "tokens": lambda: lora(trainable_token_indices=[5, 9], init_lora_weights=False),
    "embedding": lambda: lora(target_modules=["embed_tokens", "q_proj"], init_lora_weights=False),
    "ia3": other("IA3Config", feedforward_modules=["up_proj"]),
    "loha": other("LoHaConfig", r=2, init_weights=False),
    "lokr": other("LoKrConfig", r=2, init_weights=False),
    "vera": other("VeraConfig", r=2, target_modules=["q_proj", "v_proj"], init_weights=False),
    "oft": other("OFTConfig", r=0, oft_block_size=4),
    "hra": other("HRAConfig", r=2),
    "ln": other("LNTuningConfig", target_modules=["input_layernorm"]),
}
OFTEN = {"lora", "pissa", "olora", "dora", "bias", "modules", "tokens", "ia3"}
STEPS = (
    "pissa",
    "olora",
    "random",
    "orthogonal",
    "mica",
    "dora",
    "bias",
    "modules",
    "tokens",
    "ia3",
    "loha",
    "vera",
    "oft",
)
REFUSED = ("pissa", "olora", "mica", "dora", "bias", "ia3", "loha", "vera", "oft")
METHODS = ("ga_kl", "undial", "task_vector")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*lora_bias=True.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
]
"""What PEFT says of these configurations, on whichever model."""


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.clone()


def adapted(tiny: Any, kind: str, name: str = "default") -> Any:
    """The tiny model with an adapter that was trained already: its parameters are not as they began."""
    torch.manual_seed(0)
    model = get_peft_model(tiny[0], KINDS[kind](), adapter_name=name)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def moved(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)


@pytest.mark.parametrize("kind", often(KINDS, OFTEN))
def test_the_reference_is_the_model_as_it_was_and_nothing_else_moves(kind: str, tiny: Any) -> None:
    model = adapted(tiny, kind)
    before = logits(copy.deepcopy(model))
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with frozen_reference(forward_of(model)) as reference:
        assert torch.equal(logits(model), before)
        moved(model)
        after = logits(copy.deepcopy(model))
        assert float((after - before).abs().max()) > 1e-4
        for _ in range(2):
            with reference() as frozen:
                assert torch.equal(logits(frozen.model), before)
            assert torch.equal(logits(model), after)
    assert torch.equal(logits(model), after)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", often(STEPS, OFTEN & set(STEPS)))
def test_without_a_learning_rate_no_logit_moves(kind: str, method: str, tiny: Any, forget: Any, retain: Any) -> None:
    model = adapted(tiny, kind)
    before = logits(copy.deepcopy(model))
    arguments = {"learning_rate": 0.0, "max_steps": 1, "use_cpu": True, "disable_tqdm": True, "region": "all"}
    if method == "task_vector" and kind in REFUSED:  # it could not be exact: said before anything is trained
        with pytest.raises(ConfigError, match="method task_vector: an adapter"):
            unlearn(model, tiny[1], forget[:2], retain[:2], method, **arguments)
        assert torch.equal(logits(model), before)
        return
    got = unlearn(model, tiny[1], forget[:2], retain[:2], method, **arguments)
    assert float((logits(got) - before).abs().max()) < (1e-4 if method == "task_vector" else 1e-6)


def test_reference_under_deepspeed_is_a_second_adapter_that_leaves_the_base(tiny: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(reference_module, "on_deepspeed", lambda: True)
    for kind in ("pissa", "dora", "modules"):
        model = adapted((copy.deepcopy(tiny[0]), None), kind, "mine")
        before = logits(copy.deepcopy(model))
        with frozen_reference(forward_of(model)) as reference:
            moved(model)
            after = logits(copy.deepcopy(model))
            with reference() as frozen:
                assert torch.equal(logits(frozen.model), before)
            assert torch.equal(logits(model), after)
        assert list(model.peft_config) == ["mine"]
        assert torch.equal(logits(model), after)
    for kind in ("ia3", "bias"):
        model = adapted((copy.deepcopy(tiny[0]), None), kind)
        with pytest.raises(ConfigError, match="DeepSpeed"), frozen_reference(forward_of(model)):
            pass


@pytest.mark.parametrize("kind", ["random", "rslora", "modules", "tokens", "embedding"])
@pytest.mark.parametrize("name", ["default", "mine"])
def test_a_task_vector_is_linear_in_the_merged_weights(kind: str, name: str, tiny: Any) -> None:
    """θ_before - 3 (θ_trained - θ_before) of each merged weight, which PEFT's own `merge_and_unload` gives."""

    def merged() -> dict[str, torch.Tensor]:
        return dict(copy.deepcopy(model).merge_and_unload().named_parameters())

    head = tiny[0].lm_head
    head.weight = torch.nn.Parameter(
        head.weight.detach().clone()
    )  # merged into a shared weight, the head would change too
    tiny[0].config.tie_word_embeddings = False
    model = adapted(tiny, kind, name)
    first, state = merged(), trained_state(model)
    moved(model)
    trained = merged()
    scale_change(model, state, -3.0)
    assert list(model.peft_config) == [name]
    got = merged()
    assert got.keys() == first.keys()
    for key, value in got.items():
        torch.testing.assert_close(value, first[key] - 3 * (trained[key] - first[key]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["memflex", "ga_kl", "npo", "task_vector"])
def test_an_adapter_of_another_name_or_loaded_for_inference_is_trained(
    method: str, tiny: Any, forget: Any, retain: Any, tmp_path: Any
) -> None:
    """As the same adapter under the usual name: the same weights, to the last bit."""
    arguments = {"learning_rate": 1e-2, "max_steps": 2, "use_cpu": True, "disable_tqdm": True}
    base = tiny[0]
    start = adapted((copy.deepcopy(base), None), "random")
    start.save_pretrained(str(tmp_path))
    wanted = unlearn(copy.deepcopy(start), tiny[1], forget[:4], retain[:4], method, **arguments)
    assert float((logits(wanted) - logits(start)).abs().max()) > 1e-4

    named = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path), adapter_name="mine")
    named.load_adapter(str(tmp_path), adapter_name="aside")
    aside = {n: p.clone() for n, p in named.named_parameters() if ".aside." in n}
    got = unlearn(named, tiny[1], forget[:4], retain[:4], method, **arguments)
    assert torch.equal(logits(got), logits(wanted))
    assert list(got.active_adapters) == ["mine"]
    assert aside
    assert all(torch.equal(p, aside[n]) for n, p in got.named_parameters() if n in aside)


def test_adapters_that_cannot_be_trained_are_refused(tiny: Any, forget: Any, retain: Any) -> None:
    model = adapted(tiny, "random")
    with pytest.raises(ConfigError, match="peft_config: "):
        unlearn(model, tiny[1], forget, retain, peft_config=lora())
    model.merge_adapter()
    with pytest.raises(ConfigError, match="merged"):
        unlearn(model, tiny[1], forget, retain)
    model.unmerge_adapter()
    model.add_adapter("second", lora())
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ConfigError, match="default, second"):
        unlearn(model, tiny[1], forget, retain)


def test_target_modules_that_match_nothing_name_what_there_is(tiny: Any) -> None:
    with pytest.raises(ConfigError, match=r"lora\.target_modules: query; .*q_proj"):
        with_adapter(tiny[0], lora(target_modules=["query"]))
