"""Each wrapper on losses whose gradients can be derived on paper, and how wrappers are named."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scopewise.config import TinyConfig, entry_name, split_entry
from scopewise.cost import Cost
from scopewise.data.rows import FORGET, Row
from scopewise.errors import ConfigError
from scopewise.methods.base import make_method
from scopewise.methods.wrappers.base import Beginning, Gradient, Parts, Step, Term, Wrapper, make_wrappers
from scopewise.models.tiny import build_tiny
from scopewise.registry import canonical_method
from scopewise.run_file import load_config
from scopewise.testing.world import World, furthest, parameters_of
from scopewise.training.progress import TrainingProgress

ROWS = [Row("q", "a", FORGET, instance=name) for name in ("Ada", "Ada", "Bo", "Cy")]


class Half(Step):
    """L_forget = ½‖θ‖² and L_retain = -½‖θ‖², whose gradients are θ and -θ. An adversary's gradient is 1 everywhere."""

    def __init__(self, *values: float, number: int = 0, count: int = 1) -> None:
        self.parameters = [nn.Parameter(torch.tensor(values))]
        self.start: Sequence[Tensor] = []
        self.blocks: Sequence[nn.Module] = []
        self.number, self.count, self.seed, self.forget_rows = number, count, f"0/{number}", ROWS
        self.kept: list[set[int]] = []
        self.relearned: list[Sequence[int]] = []
        self.memory: dict[str, Gradient] = {}

    def loss(self, term: Term, parts: Parts) -> float:
        return float(self.local_loss({}).detach()) * (1 if term == "forget" else -1)

    def local_loss(self, part: Any) -> Tensor:
        return self.parameters[0].square().sum() / 2

    def relearning_gradient(self, rows: Sequence[int]) -> Gradient:
        self.relearned.append(rows)
        return [torch.ones_like(self.parameters[0])]

    def forget_gradient(self) -> Gradient:
        return [parameter.detach().clone() for parameter in self.parameters]

    def keep(self, parts: Parts, rows: set[int]) -> Parts:
        self.kept.append(rows)
        return parts

    def gradient(self, wrapper: Wrapper, term: Term = "forget") -> list[float]:
        sign = 1 if term == "forget" else -1
        (found,) = wrapper.gradient(self, term, [], lambda parts: [sign * self.parameters[0].detach().clone()])
        return found.tolist()


def made(name: str, **arguments: Any) -> Any:
    return make_wrappers(f"npo+{name}", {name: arguments})[0]


def test_sam() -> None:
    """θ = (3, 4): g = θ of norm 5; ρ = 1 moves by (.6, .8), where the gradient is (3.6, 4.8). The other term stays at θ."""
    step = Half(3.0, 4.0)
    assert step.gradient(made("sam", rho=1.0)) == pytest.approx([3.6, 4.8])
    assert step.parameters[0].tolist() == [3.0, 4.0]
    assert step.gradient(made("sam", rho=1.0), "retain") == pytest.approx([-3.0, -4.0])


@pytest.mark.parametrize("term", ["forget", "retain"])
def test_fo_zo(term: Term) -> None:
    """On a quadratic the central difference is exact: the slope along u is ±θ·u. Of five steps in twos, 0, 3 and 4 have it."""
    wrapper = made("fo_zo", period=2, mu=0.1)
    sign = 1 if term == "forget" else -1
    directions = []
    for number in range(5):
        step = Half(3.0, 4.0, number=number, count=5)
        (u,) = wrapper.direction(step)
        directions.append(tuple(u.tolist()))
        slope = sign * float(torch.tensor([3.0, 4.0]) @ u)
        want = [slope * x for x in u.tolist()] if number in (0, 3, 4) else [sign * 3.0, sign * 4.0]
        assert step.gradient(wrapper, term) == pytest.approx(want, rel=1e-4)
        assert step.parameters[0].tolist() == [3.0, 4.0]
    assert len(set(directions)) == 5


def test_inner_relearning() -> None:
    """Adam's first step is of the learning rate: θ' = θ - .5, so the gradient is θ + 2 (θ - .5). Nobody is in both halves."""
    step = Half(3.0, 4.0)
    assert step.gradient(made("inner_relearning", steps=1, learning_rate=0.5, weight=2.0)) == pytest.approx([8.0, 11.0])
    assert step.parameters[0].tolist() == [3.0, 4.0]
    relearned, others = set(step.relearned[0]), step.kept[0]
    assert relearned | others == {0, 1, 2, 3}
    assert not {ROWS[i].instance for i in relearned} & {ROWS[i].instance for i in others}
    assert step.gradient(made("inner_relearning", steps=1), "retain") == [-3.0, -4.0]


def test_latent_adversary() -> None:
    """L = Σ w·(x + δ): δ rises by sign(w) times 4 steps of .005, but not above .01. So ∂L/∂w = x + .01 sign(w)."""
    step = Half(2.0, -3.0)
    block = nn.Identity()
    step.blocks = [nn.Identity(), block]
    x = torch.tensor([[1.0, 1.0]])
    step.local_loss = lambda part: (block(x) * step.parameters[0]).sum()  # type: ignore[method-assign]

    def inner(parts: Parts) -> Gradient:
        return list(torch.autograd.grad(step.local_loss({}), step.parameters))

    (found,) = made("latent_adversary", layer_fraction=1.0).gradient(step, "forget", [{}], inner)
    assert found.tolist() == pytest.approx([1.01, 0.99])
    assert inner([])[0].tolist() == [1.0, 1.0]  # the hook is gone
    step.count = 4
    (found,) = made("latent_adversary", layer_fraction=1.0, warmup_fraction=0.5).gradient(step, "forget", [{}], inner)
    assert found.tolist() == [1.0, 1.0]


def test_repselect() -> None:
    """Of diag(3, 1) the first direction is damped by ⅓ on either side: diag(⅓, 1)."""
    both = made("repselect", components=2).damped(torch.diag(torch.tensor([3.0, 1.0])))
    assert both.flatten().tolist() == pytest.approx([1 / 3, 0.0, 0.0, 1.0], abs=1e-6)
    one = made("repselect", components=1).damped(torch.diag(torch.tensor([3.0, 1.0])))
    assert one.flatten().tolist() == pytest.approx([3.0, 0.0, 0.0, 1.0], abs=1e-5)
    flat = made("repselect").damped(torch.ones(2, 3))  # of rank one, which the two other directions do not shrink
    assert flat.flatten().tolist() == pytest.approx([1.0] * 6, abs=1e-5)


def test_repselect_keeps_the_gradient_of_the_first_step() -> None:
    """The adversary goes from θ before (5, 5) by -.5 twice (4 rows, 2 in a step): G = (4, 4); it is taken where θ is now."""
    step = Half(3.0, 4.0)
    step.start = [torch.tensor([5.0, 5.0])]
    wrapper = made("repselect", adversary_learning_rate=0.5, rows=2)
    for _ in range(2):
        assert step.gradient(wrapper) == pytest.approx([4.0, 4.0])
        assert step.parameters[0].tolist() == [3.0, 4.0]
    assert sorted(i for rows in step.relearned for i in rows) == [0, 1, 2, 3]
    assert step.gradient(wrapper, "retain") == [-3.0, -4.0]


@pytest.mark.parametrize(
    ("rule", "forget", "retain", "want"),
    [
        ("projection", [1.0, 0.0], [-1.0, 1.0], [0.5, 0.5]),  # ⟨f, r⟩ = -1, ‖r‖² = 2: f + ½ r
        ("projection", [1.0, 0.0], [1.0, 1.0], [1.0, 0.0]),
        ("sign", [1.0, 2.0], [3.0, -1.0], [1.0, 0.0]),
        ("sign", [1.0, 2.0], [0.0, -(2.0**-30)], [1.0, 2.0]),  # nothing but rounding
    ],
)
def test_conflict_projection(rule: str, forget: list[float], retain: list[float], want: list[float]) -> None:
    found = made("conflict_projection", rule=rule).combine(Half(0.0), [torch.tensor(forget)], [torch.tensor(retain)])
    assert [found[0][0].tolist(), found[1][0].tolist()] == [want, retain]


def test_weight_distance() -> None:
    """From (3, 4), of norm 5, to (3.3, 4.4): a distance of .5, which is .1. Gradient -2 · (.3, .4) / (.5 · 5)."""
    step = Half(3.3, 4.4)
    step.start = [torch.tensor([3.0, 4.0])]
    zero = [torch.zeros(2)]
    near, _ = made("weight_distance", distance=0.2, weight=2.0).combine(step, zero, zero)
    assert near[0].tolist() == pytest.approx([-0.24, -0.32], rel=1e-4)
    far, _ = made("weight_distance", distance=0.05, weight=2.0).combine(step, zero, zero)
    assert far[0].tolist() == [0.0, 0.0]


def test_noise() -> None:
    """α = ½, β = 0 halves. α = β = 1: vectors are 0, and a 2 x 4 matrix has entries up to √(6 / 6) = 1."""
    parameters = {"matrix": nn.Parameter(torch.full((2, 4), 8.0)), "vector": nn.Parameter(torch.full((4,), 8.0))}
    made("noise", alpha=0.5, beta=0.0).begin(Beginning(parameters, {}, 0, dict))
    assert {x for p in parameters.values() for x in p.detach().flatten().tolist()} == {4.0}
    mask = torch.tensor([[True] * 4, [False] * 4])
    made("noise", alpha=1.0, beta=1.0, where="region").begin(Beginning(parameters, {"matrix": mask}, 0, dict))
    assert parameters["vector"].tolist() == parameters["matrix"][1].tolist() == [4.0] * 4
    assert 0.1 < float(parameters["matrix"][0].detach().abs().max()) <= 1.0
    made("noise", alpha=1.0, beta=1.0).begin(Beginning(parameters, {}, 0, dict))
    assert parameters["vector"].tolist() == [0.0] * 4


def test_reset() -> None:
    """α = ¼: from 8 a quarter of the way to 0, so 6; outside the mask and the region nothing moves."""
    parameters = {"matrix": nn.Parameter(torch.full((2, 2), 8.0)), "other": nn.Parameter(torch.full((2,), 8.0))}
    base = {"matrix": torch.zeros(2, 2), "other": torch.zeros(2)}
    mask = {"matrix": torch.tensor([[True, True], [False, False]])}
    made("reset", alpha=0.25).begin(Beginning(parameters, mask, 0, lambda: base))
    assert parameters["matrix"].tolist() == [[6.0, 6.0], [8.0, 8.0]]
    assert parameters["other"].tolist() == [8.0, 8.0]


def test_a_whole_reset_starts_from_the_base(world: World) -> None:
    """With α = 1 and a learning rate of 0 the result is the base; for an adapter, the model under it."""
    method, (reset,) = make_method("ga_kl"), make_wrappers("ga_kl+reset", {"reset": {"alpha": 1.0}})
    base = world.base_model()
    trainer = world.trainer(world.model(), method, wrappers=[reset], base_model=base, learning_rate=0.0)
    trainer.train()
    assert furthest(parameters_of(trainer.model), parameters_of(base)) < 1e-7
    adapted = world.trainer(world.model(adapter=True, trained=True), method, wrappers=[reset], learning_rate=0.0)
    adapted.train()
    found = parameters_of(adapted.model)
    assert all(not found[name].any() for name in found if "lora_B" in name)
    assert any(found[name].any() for name in found if "lora_A" in name)


def test_a_reset_without_its_base_is_refused(world: World) -> None:
    method, wrappers = make_method("ga_kl"), make_wrappers("ga_kl+reset", {})
    with pytest.raises(ConfigError, match="base_model"):
        world.trainer(world.model(), method, wrappers=wrappers, base_model=None)
    other, _ = build_tiny(["text"], TinyConfig(vocab_size=300, width=16, layers=2, heads=2, context=256), 0)
    with pytest.raises(ConfigError, match="base_model"):
        world.trainer(world.model(), method, wrappers=wrappers, base_model=other).train()


def test_the_first_name_is_the_innermost(tiny: Any, make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(*tiny, "npo+sam+fo_zo", wrapper_args={"sam": {"rho": 0.5}})
    assert [type(wrapper).__name__ for wrapper in trainer.wrappers] == ["SAM", "FOZO"]
    assert trainer.wrappers[0].rho == 0.5


def test_noise_leaves_the_reference(tiny: Any, make_trainer: Callable[..., Any]) -> None:
    """The first KL to the reference is that of the damaged model, and not zero; without noise it is zero."""
    losses = []
    for method in ("ga_kl", "ga_kl+noise"):
        trainer = make_trainer(
            *tiny, method, method_args={"forget_weight": 0.0}, logging_strategy="steps", logging_steps=1.0
        )
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(0.0, abs=1e-5)
    assert losses[1] > 1e-3


def test_names() -> None:
    assert canonical_method("sim-npo+inner-relearning") == "sim_npo+inner_relearning"
    assert split_entry("npo+fo-zo@gradient") == ("npo+fo_zo", "gradient")
    assert entry_name(*split_entry("npo+sam@gradient")) == "npo+sam@gradient"
    assert make_method("npo+sam") == make_method("npo")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["unlearn.method=npo+sams"], "Did you mean 'sam'"),
        (["unlearn.method=npo+sam+sam"], "twice"),
        (["unlearn.method=npo+"], "wrapper"),
        (["unlearn.wrapper_args={sum: {rho: 1}}"], "Did you mean 'sam'"),
        (["bench.methods=[npo+zam]"], "wrapper"),
    ],
)
def test_wrong_names_are_refused(settings: list[str], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_config(None, settings)


@pytest.mark.parametrize(
    ("method", "arguments", "part"),
    [
        ("npo", {"sam": {}}, r"unlearn\.wrapper_args: 'sam'"),
        ("npo+sam", {"sam": {"rho": 0}}, r"unlearn\.wrapper_args\.sam\.rho: 0"),
        ("npo+sam", {"sam": {"ro": 1}}, r"unlearn\.wrapper_args\.sam: unknown 'ro'"),
    ],
)
def test_wrong_settings_are_refused(method: str, arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        make_wrappers(method, arguments)


def test_what_has_no_meaning_is_refused(tiny: Any, trained_adapter: Any, make_trainer: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"wrapper_args\.conflict_projection: a method without a retain term"):
        make_trainer(*tiny, "gradient_ascent+conflict_projection")
    with pytest.raises(ConfigError, match=r"wrapper_args\.noise: on an adapter"):
        make_trainer(*trained_adapter, "npo+noise")


def test_gradients_are_those_of_a_plain_step(tiny: Any, make_trainer: Callable[..., Any]) -> None:
    """A wrapper that changes nothing: ρ so small that it rounds away. The step is that without it, to rounding."""
    model, tokenizer = tiny
    after = []
    for method in ("dpo", "dpo+sam"):
        given = {"wrapper_args": {"sam": {"rho": 1e-12}}} if "+" in method else {}
        trainer = make_trainer(
            copy.deepcopy(model), tokenizer, method, logging_strategy="steps", logging_steps=1.0, **given
        )
        trainer.train()
        after.append((list(trainer.model.parameters()), trainer.state.log_history[0]["loss"]))
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-5)
    moved = max(float((p - q).detach().abs().max()) for p, q in zip(after[0][0], model.parameters(), strict=True))
    apart = max(float((p - q).detach().abs().max()) for p, q in zip(after[0][0], after[1][0], strict=True))
    assert math.isfinite(moved)
    assert apart < 1e-4 * moved


def test_undo(world: World, tmp_path: Path) -> None:
    """The reference of the distillation is the suppressed model: with α = 0 its first KL is 0. Its steps follow in the log."""
    losses = {}
    for alpha in (0.0, 0.5):
        trainer = world.trainer(
            world.model(), "ga_descent+undo", wrapper_args={"undo": {"alpha": alpha, "num_train_epochs": 1}}, max_steps=3,
            logging_strategy="steps", logging_steps=1.0, output_dir=str(tmp_path / str(alpha)),
        )  # fmt: skip
        trainer.train()
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5]  # of 8 rows, 4 in a step are to be forgotten
        losses[alpha] = [entry["loss"] for entry in log]
    assert losses[0.0][:3] == losses[0.5][:3]
    assert losses[0.0][3] == pytest.approx(0.0, abs=1e-5)
    assert losses[0.5][3] > 1e-3


def test_undo_is_resumed_within_its_distillation(world: World, tmp_path: Path) -> None:
    """Without its last checkpoint the distillation takes its last step again, and no other."""

    def run(resume: str | None = None) -> tuple[Any, int]:
        cost = Cost()
        with cost:
            trainer = world.trainer(
                world.model(), "ga_descent+undo", wrapper_args={"undo": {"num_train_epochs": 1}}, max_steps=2,
                output_dir=str(tmp_path), save_strategy="steps", save_steps=1.0, callbacks=[TrainingProgress("undo", cost)],
                optim="adamw_torch", learning_rate=1e-3,
            )  # fmt: skip
            trainer.train(resume_from_checkpoint=resume)
        return parameters_of(trainer.model), len(list((tmp_path / "then-0").glob("checkpoint-*")))

    straight, count = run()
    assert count == 2
    shutil.rmtree(tmp_path / "then-0" / "checkpoint-2")
    kept = (tmp_path / "then-0" / "checkpoint-1" / "model.safetensors").stat().st_mtime_ns
    again, count = run(str(tmp_path / "checkpoint-2"))
    assert count == 2
    assert (tmp_path / "then-0" / "checkpoint-1" / "model.safetensors").stat().st_mtime_ns == kept
    assert all(torch.equal(straight[name], again[name]) for name in straight)
