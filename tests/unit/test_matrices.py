"""Which matrices there are, which way round, and what is read of them, in architectures of many kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.tuners.lora import ParamWrapper
from torch import Tensor, nn

from architectures import plain
from architectures.models import build, spread
from engines import forward_of, localized
from scopewise.config import LoraSection
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.errors import ConfigError
from scopewise.localizers import LOCALIZERS
from scopewise.localizers.base import unit_means, unit_sizes
from scopewise.models.activations import mean_activations
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.gradients import mean_gradients, mean_squared_gradients
from scopewise.models.matrices import input_dims, localizable, matrices

ROWS = [Encoded(Row("q", "a", "forget"), tuple(range(5, 5 + n)), tuple(range(90 + n, 93 + 2 * n))) for n in (2, 9, 5)]


def made(kind: str) -> Any:
    model = build(kind, 300)
    spread(model)
    return model


def answer_inputs(model: nn.Module, layer: nn.Module, by_token: Any = lambda x: x) -> Tensor:
    """Return the mean absolute input of a layer at answer tokens, from a forward of each row alone."""
    found: list[Tensor] = []
    handle = layer.register_forward_pre_hook(
        lambda _, args: found.append(by_token(args[0].reshape(-1, args[0].shape[-1])))
    )
    parts = []
    with torch.no_grad():
        for row in ROWS:
            model(input_ids=torch.tensor([row.prompt_ids + row.answer_ids]), use_cache=False)
            parts.append(found.pop()[len(row.prompt_ids) :].abs())
    handle.remove()
    return torch.cat(parts).mean(0)


@pytest.mark.parametrize("unit", ["row", "column"])
def test_a_row_makes_one_output_however_the_matrix_is_stored(unit: str) -> None:
    """GPT-2 stores [inputs outputs]: its rows extend along the first dimension. Experts may stand either way round."""
    model = made("gpt2")
    assert set(input_dims(model).values()) == {-2}
    assert len(matrices(model)) == 3 * 4  # c_attn and three c_proj and c_fc of each layer
    name, weight = next((n, p) for n, p in matrices(model).items() if "c_fc" in n)
    assert tuple(weight.shape) == (32, 128)
    mean = unit_means({name: weight.detach()}, unit, input_dims(model))[name]
    assert torch.equal(mean, weight.detach().mean(0 if unit == "row" else 1, keepdim=True))
    assert unit_sizes(matrices(model), unit, input_dims(model))[name] == (32 if unit == "row" else 128)
    dims = {n.rpartition(".")[2]: d for n, d in input_dims(made("gpt_oss")).items() if "experts" in n}
    assert dims == {"gate_up_proj": -2, "down_proj": -2}
    dims = {n.rpartition(".")[2]: d for n, d in input_dims(made("qwen3_moe")).items() if "experts" in n}
    assert dims == {"gate_up_proj": -1, "down_proj": -1}
    dims = {n.rpartition(".")[2]: d for n, d in input_dims(made("llama4_text")).items() if ".experts." in n}
    assert dims == {"gate_up_proj": -2, "down_proj": -2}


@pytest.mark.parametrize("unit", ["row", "column", "weight", "matrix", "module"])
def test_a_region_of_gpt2_holds_whole_units(unit: str) -> None:
    model = made("gpt2")
    for name in ("gradient", "activation_ratio", "random"):
        settings = {"unit": unit, "threshold": "fraction", "fraction": 0.4, "repeats": 2}
        region = localized(name, model, (ROWS, ROWS[::-1]), settings)
        assert 0.2 < region.fraction <= 0.4
        for key in region.masks:
            mask = region.mask(key)
            assert mask is not None
            assert mask.shape == tuple(matrices(model)[key].shape)
            if unit in ("row", "column"):
                along = 0 if unit == "row" else 1
                assert bool((mask.all(along) | ~mask.any(along)).all())


@pytest.mark.parametrize("kind", ["opt", "qwen2_moe", "deepseek_v3", "llama4_text", "gpt_oss"])
def test_gradients_and_their_squares_are_autograds(kind: str) -> None:
    """OPT flattens rows; experts see some tokens; Llama 4's router gives more than a product."""
    model = made(kind)
    rows = plain.gradients(model, ROWS, matrices(model))
    squares = mean_squared_gradients(forward_of(model), ROWS, 4096, "rows")
    for ours, theirs in (
        (mean_gradients(forward_of(model), ROWS, 4096, "rows"), plain.mean_of(rows)),
        (squares, plain.mean_of(rows, lambda g: g.square())),
    ):
        for name, wanted in theirs.items():
            scale = float(wanted.abs().max())
            assert torch.allclose(ours[name], wanted, rtol=1e-3, atol=1e-4 * scale), name


@pytest.mark.parametrize("kind", ["opt", "lfm2", "gpt2", "qwen3_next"])
def test_activations_are_those_of_answer_tokens_alone(kind: str) -> None:
    model = made(kind)
    if kind == "qwen3_next":  # a layer of an adapter beside its experts
        model = with_adapter(
            model, lora_config(LoraSection(r=2, lora_dropout=0.0, target_modules=("q_proj", "in_proj_qkvz")))
        )
    found = mean_activations(forward_of(model), ROWS, 4096, "rows")
    for name, matrix in localizable(model).items():
        assert matrix.layer is not None
        assert torch.allclose(found[name], answer_inputs(model, matrix.layer), rtol=1e-4, atol=1e-6), name


def test_an_adapter_on_a_layer_that_is_never_called_has_no_gradient() -> None:
    """Jamba multiplies by the weight of `dt_proj` itself."""
    model = with_adapter(
        made("jamba"), lora_config(LoraSection(r=2, lora_dropout=0.0, target_modules=("dt_proj", "x_proj")))
    )
    squares = mean_squared_gradients(forward_of(model), ROWS, 4096, "rows")
    never = [name for name in squares if "dt_proj" in name]
    assert not any(bool(squares[name].any()) for name in never)
    assert any(bool(squares[name].any()) for name in squares if name not in never)
    assert not any(bool(g.any()) for g in mean_gradients(forward_of(model), ROWS, 4096, "rows", only=never).values())


class Sent(nn.Module):
    """Two experts, each a list of layers of its own, that see some of the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        flat, found = x.reshape(-1, x.shape[-1]), x.new_zeros(x.shape[:-1].numel(), x.shape[-1])
        for i, expert in enumerate(self.experts):
            here = (flat[:, 0] > 0) == bool(i)
            found[here] = expert(flat[here])
        return found.view_as(x)


def test_an_expert_counts_tokens_that_it_does_not_see_as_zero() -> None:
    torch.manual_seed(0)
    model = made("llama")
    model.model.layers[1].mlp = Sent(32)
    found = mean_activations(forward_of(model), ROWS, 4096, "rows")
    inputs = []
    handle = model.model.layers[1].mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0]))
    with torch.no_grad():
        for row in ROWS:
            model(torch.tensor([row.prompt_ids + row.answer_ids]))
    handle.remove()
    answers = torch.cat([x[len(row.prompt_ids) :] for x, row in zip(inputs, ROWS, strict=True)])
    for i in range(2):
        here = (answers[:, :1] > 0) == bool(i)
        assert 0 < int(here.sum()) < len(answers)
        want = (answers.abs() * here).mean(0)
        assert torch.allclose(found[f"model.layers.1.mlp.experts.{i}.weight"], want, rtol=1e-4, atol=1e-6)


def routed(model: nn.Module, block: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return, for each row's answer tokens, what a block of experts is given and which experts each token is sent to."""
    given: list[Tensor] = []
    sent: list[Tensor] = []

    def look(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        given.append(args[0])
        sent.append(args[1])

    handle = block.register_forward_pre_hook(look)
    with torch.no_grad():
        for row in ROWS:
            model(input_ids=torch.tensor([row.prompt_ids + row.answer_ids]), use_cache=False)
    handle.remove()
    starts = [len(row.prompt_ids) for row in ROWS]
    return [x[n:] for x, n in zip(given, starts, strict=True)], [e[n:] for e, n in zip(sent, starts, strict=True)]


def by_expert(given: list[Tensor], sent: list[Tensor], count: int, of: Any) -> Tensor:
    """Return the mean over all answer tokens of |of(expert, x)|, which is 0 for a token that the expert does not get."""
    tokens = sum(map(len, given))
    return torch.stack(
        [
            sum(of(e, x[(s == e).any(-1)]).abs().sum(0) for x, s in zip(given, sent, strict=True)) / tokens
            for e in range(count)
        ]
    )


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_experts_in_one_tensor_have_the_inputs_of_their_own_tokens(kind: str) -> None:
    model = made(kind)
    before = model.get_experts_implementation()
    found = mean_activations(forward_of(model), ROWS, 4096, "rows")
    assert model.get_experts_implementation() == before
    (name, block), *_ = [(n, m) for n, m in model.named_modules() if n.endswith(".experts")]
    given, sent = routed(model, block)
    count = len(block.gate_up_proj)
    want = by_expert(given, sent, count, lambda e, x: x)
    assert torch.allclose(found[f"{name}.gate_up_proj"], want, rtol=1e-4, atol=1e-6)

    def between(e: int, x: Tensor) -> Tensor:
        with torch.no_grad():
            if kind != "gpt_oss":
                gate, up = (x @ block.gate_up_proj[e].T).chunk(2, -1)
                return torch.nn.functional.silu(gate) * up
            both = x @ block.gate_up_proj[e] + block.gate_up_proj_bias[e]
            gate, up = both[:, ::2].clamp(max=block.limit), both[:, 1::2].clamp(-block.limit, block.limit)
            return (up + 1) * gate * torch.sigmoid(gate * block.alpha)

    want = by_expert(given, sent, count, between)
    assert torch.allclose(found[f"{name}.down_proj"], want, rtol=1e-4, atol=1e-6)
    region = localized(
        "activation_ratio",
        model,
        (ROWS, ROWS[::-1]),
        {"unit": "column", "threshold": "fraction", "fraction": 0.4},
    )
    assert any("experts" in entry.name for entry in region.entries)


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_an_adapter_on_experts_has_its_rows_and_columns_by_expert(kind: str) -> None:
    """PEFT puts the rows of A expert by expert, and the columns of B rank by rank: B's are given A_e x."""
    model = with_adapter(made(kind), lora_config(LoraSection(r=2, lora_dropout=0.0)))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.05)
    found = mean_activations(forward_of(model), ROWS, 4096, "rows")
    wrapped = next(m for m in model.modules() if isinstance(m, ParamWrapper) and m.parameter_name == "gate_up_proj")
    block = wrapped.get_base_layer()
    a, b = wrapped.lora_A["default"].weight, wrapped.lora_B["default"].weight
    count = wrapped.num_experts
    rank = len(a) // count  # PEFT doubles it where gate and up stand in one tensor
    given, sent = routed(model, block)
    (name_a,), (name_b,) = ([n for n, m in localizable(model).items() if m.parameter is p] for p in (a, b))
    want = by_expert(given, sent, count, lambda e, x: x).repeat_interleave(rank, 0)
    assert found[name_a].shape == a.shape
    assert torch.allclose(found[name_a], want, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        want = by_expert(given, sent, count, lambda e, x: x @ a[e * rank : (e + 1) * rank].T)
    assert torch.allclose(found[name_b], want.T.flatten(), rtol=1e-4, atol=1e-6)
    assert localized("activation_ratio", model, (ROWS, ROWS[::-1]), {"unit": "row"}).names


def test_llama_4_multiplies_all_experts_at_once_by_what_is_scaled_for_each() -> None:
    """Its tokens go to every expert, times the router's score, which is 0 for those that do not get it."""
    model = made("llama4_text")
    found = mean_activations(forward_of(model), ROWS, 4096, "rows")
    name, block = next((n, m) for n, m in model.named_modules() if n.endswith(".experts"))
    want = answer_inputs(model, block, lambda x: x.view(block.num_experts, -1, x.shape[-1]).transpose(0, 1))
    assert torch.allclose(found[f"{name}.gate_up_proj"], want, rtol=1e-4, atol=1e-6)
    # PEFT takes these tensors for the other way round.
    with pytest.raises(ConfigError, match=r"activation_ratio: .*experts.*; use gradient"):
        localized("activation_ratio", with_adapter(model, lora_config(LoraSection(r=2))), (ROWS, ROWS))


class Unfollowed(nn.Module):
    """Experts that are multiplied in a way of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_experts = 2
        self.weight = nn.Parameter(torch.ones(2, width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bsi,eoi->bso", x, self.weight)


def test_experts_that_cannot_be_followed_are_refused_not_left_out() -> None:
    model = made("llama")
    model.model.layers[1].mlp = Unfollowed(32)
    with pytest.raises(ConfigError, match=r"activation_ratio: .*layers\.1\.mlp\.weight .*; use gradient"):
        localized("activation_ratio", model, (ROWS, ROWS))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("name", LOCALIZERS)
def test_lora_on_the_head_is_localized(name: str) -> None:
    """The head reads states of its own, at answer tokens alone, and none where it computes nothing."""
    model = with_adapter(
        made("llama"), lora_config(LoraSection(r=2, lora_dropout=0.1, target_modules=("lm_head", "q_proj")))
    )
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.1)
    region = localized(name, model, (ROWS, ROWS[::-1]), {"repeats": 2})
    assert {e.module for e in region.entries} >= {"lm_head"}
    assert region.names


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_gradients_of_lora_on_the_head_are_autograds() -> None:
    model = with_adapter(
        made("llama"), lora_config(LoraSection(r=2, lora_dropout=0.0, target_modules=("lm_head", "q_proj")))
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    rows = plain.gradients(model, ROWS, matrices(model))
    squares = mean_squared_gradients(forward_of(model), ROWS, 4096, "rows")
    for name, wanted in plain.mean_of(rows, lambda g: g.square()).items():
        assert torch.allclose(squares[name], wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())), name
    one = [n for n in matrices(model) if "q_proj" in n]  # with the head's adapter frozen its logits come in chunks
    found = mean_gradients(forward_of(model), ROWS, 4096, "rows", only=one)
    for name in one:
        assert torch.allclose(found[name], plain.mean_of(rows)[name], rtol=1e-3, atol=1e-6), name
