"""Each forget loss on inputs whose value, or gradient, can be derived on paper. `probabilities` become logits by their log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from scopewise.errors import ConfigError
from scopewise.methods.base import RETAIN_LOSSES, Answers, make_method
from scopewise.methods.pdu import PDU
from scopewise.methods.rmu import directions
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.scale_change import scale_change, trained_state
from scopewise.testing.world import World

LN2, LN3 = math.log(2), math.log(3)


def answers(*rows: tuple[Sequence[Sequence[float]], Sequence[int]]) -> Answers:
    """One row per (probabilities of each token, labels)."""
    logits = torch.tensor([p for probabilities, _ in rows for p in probabilities], dtype=torch.float64).log()
    labels = torch.tensor([label for _, row in rows for label in row])
    index = torch.tensor([i for i, (_, row) in enumerate(rows) for _ in row])
    return Answers(logits, labels, index, len(rows))


def value(name: str, given: Answers, **arguments: float) -> list[float]:
    return make_method(name, **arguments).forget_loss(given).tolist()


def gradient(name: str, given: Answers, **arguments: float) -> list[list[float]]:
    logits = given.logits.clone().requires_grad_(True)
    make_method(name, **arguments).forget_loss(replace(given, logits=logits)).sum().backward()
    assert logits.grad is not None
    return logits.grad.tolist()


HALF, QUARTER = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]


def test_npo() -> None:
    """S = ln 2 + ln 4 = 3 ln 2; with S_ref = 2 ln 2, β = 1: -2 log σ(ln 2) = 2 ln(1 + ½). At S = S_ref: (2/β) ln 2."""
    given = answers(([HALF, HALF], [0, 1]))
    assert value("npo", replace(given, reference_nll=torch.tensor([2 * LN2])), beta=1.0) == pytest.approx(
        [2 * math.log(1.5)], abs=1e-6
    )
    assert value("npo", replace(given, reference_nll=torch.tensor([3 * LN2]))) == pytest.approx([20 * LN2], abs=1e-5)


def test_sim_npo() -> None:
    """Mean of ln 2 and ln 4 is 1.5 ln 2; with δ = ½ ln 2, β = 1: -2 log σ(ln 2) = 2 ln 1.5."""
    given = answers(([HALF, HALF], [0, 1]))
    assert value("sim_npo", given, beta=1.0, delta=0.5 * LN2) == pytest.approx([2 * math.log(1.5)])


@pytest.mark.parametrize("name", ["dpo", "alt_po"])
def test_preference(name: str) -> None:
    """log-ratios ln 2 of the alternative (S_ref 2 ln 2, S ln 2) and -ln 2 of the answer (0, ln 2): β = ½ gives 4 ln 1.5."""
    one = replace(answers(([HALF], [0])), reference_nll=torch.tensor([0.0]))
    given = replace(one, preferred=replace(one, reference_nll=torch.tensor([2 * LN2])))
    assert value(name, given, beta=0.5) == pytest.approx([4 * math.log(1.5)], abs=1e-6)


def test_rmu() -> None:
    """States at the target are 0; one off in every dimension gives mean square 1. The target has norm c and no sign."""
    method = make_method("rmu", steering=2.0)
    row = torch.tensor([0, 0, 1])
    base = Answers(torch.zeros(3, 0), torch.zeros(3, dtype=torch.long), row, 2, hidden=torch.zeros(3, 16))
    states = torch.zeros(3, 16, requires_grad=True)
    method.forget_loss(replace(base, hidden=states)).sum().backward()
    assert states.grad is not None
    target = -states.grad[2] * 16 / 2  # d/dh of |h - t|²/16 at h = 0, for the row of one token
    assert float(target.norm()) == pytest.approx(2.0)
    assert bool((target >= 0).all())
    there = target.expand(3, 16)
    assert method.forget_loss(replace(base, hidden=there)).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert method.forget_loss(replace(base, hidden=there + 1)).tolist() == pytest.approx([1.0, 1.0])


def test_mcu() -> None:
    """Without its first coordinate a state is that of RMU where the coordinate is 0."""
    base = Answers(torch.zeros(2, 0), torch.zeros(2, dtype=torch.long), torch.tensor([0, 1]), 2)
    states = torch.tensor([[5.0, 1.0, 2.0], [-3.0, 0.5, 0.0]])
    common = replace(base, hidden=states, statistics=torch.tensor([[1.0, 0.0, 0.0]]))
    without = replace(base, hidden=states * torch.tensor([0.0, 1.0, 1.0]))
    assert value("mcu", common, steering=2.0) == pytest.approx(value("rmu", without, steering=2.0))


def test_directions_of_mcu() -> None:
    """(3, 1), (1, 1) and (2, 1) have the mean (2, 1) and vary along the first coordinate alone."""
    found = directions(torch.tensor([[3.0, 1.0], [1.0, 1.0], [2.0, 1.0]], dtype=torch.float64), 2)
    assert found[0].tolist() == pytest.approx([2 / math.sqrt(5), 1 / math.sqrt(5)])
    assert found[1].abs().tolist() == pytest.approx([1.0, 0.0])
    assert (
        len(directions(torch.eye(2, dtype=torch.float64), 9)) == 3
    )  # the mean, and no more components than dimensions


def test_per_mu() -> None:
    """p = (½, ¼, ¼), noisy logits of 0, C = 1: q ∝ (2, 4, 4). KL(q ‖ p) = ⅕ ln ⅖ + ⅘ ln 8/5, its gradient p - q.

    Where the token is the subject's own, the target is p itself: 0, without a gradient.
    """
    given = answers(([HALF, HALF], [0, 0]))
    given = replace(given, perturbed_logits=torch.zeros(2, 3).double(), of_subject=torch.tensor([False, True]))
    kl = 0.2 * math.log(0.4) + 0.8 * math.log(1.6)
    assert value("per_mu", given, clean_weight=1.0) == pytest.approx([kl / 2])
    found = gradient("per_mu", given, clean_weight=1.0)
    assert found[0] == pytest.approx([0.15, -0.075, -0.075])
    assert found[1] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_undial() -> None:
    """Uniform reference over three, β = ln 2, label 0: q = (1/5, 2/5, 2/5). A uniform model: CE = ln 3. Gradient p - q."""
    given = answers(([[1 / 3] * 3], [0]))
    given = replace(given, reference_logits=torch.zeros(1, 3))
    assert value("undial", given, beta=LN2) == pytest.approx([LN3])
    assert gradient("undial", given, beta=LN2)[0] == pytest.approx(
        [1 / 3 - 1 / 5, 1 / 3 - 2 / 5, 1 / 3 - 2 / 5], abs=1e-7
    )


def test_wga() -> None:
    """p = ¼, β = ½: -½ ln 4. The weight has no gradient: ½ times that of the log-likelihood, which is 1[v=y] - p."""
    given = answers(([HALF], [1]))
    assert value("wga", given, beta=0.5) == pytest.approx([-0.5 * 2 * LN2])
    assert gradient("wga", given, beta=0.5)[0] == pytest.approx([-0.5 * 0.5, 0.5 * 0.75, -0.5 * 0.25])


def test_sat_imp() -> None:
    """p = ¼, β1 = ½, β2 = 2: weight ½ · (¾)² = 9/32, and the gradient that of the log-likelihood times it."""
    given = answers(([HALF], [1]))
    assert value("sat_imp", given, beta1=0.5, beta2=2.0) == pytest.approx([-9 / 32 * 2 * LN2])
    want = [9 / 32 * x for x in (-0.5, 0.75, -0.25)]
    assert gradient("sat_imp", given, beta1=0.5, beta2=2.0)[0] == pytest.approx(want)


def test_sat_imp_of_a_certain_token_is_zero() -> None:
    """p = 1 in floating point: (1 - p)^0.1 is 0, not NaN."""
    given = Answers(torch.tensor([[100.0, 0.0]]), torch.tensor([0]), torch.tensor([0]), 1)
    assert value("sat_imp", given) == [0.0]


def test_ce_u() -> None:
    """p = (½, ¼, ¼), label 0: q = (0, ½, ½), CE = ln 4, gradient p - q. The first token of an answer does not count."""
    given = answers(([QUARTER, HALF], [0, 0]))
    assert value("ce_u", given) == pytest.approx([2 * LN2])
    assert gradient("ce_u", given)[0] == pytest.approx([0.0] * 3)
    assert gradient("ce_u", given)[1] == pytest.approx([0.5, -0.25, -0.25])
    assert make_method("ce_u").weight(torch.tensor([2, 1])).tolist() == [1.0, 0.0]
    assert value("ce_u", answers(([HALF], [0]))) == [0.0]  # an answer of one token: nothing counts


def test_pdu() -> None:
    """Logits (3, 0, 0): largest 3, mean 1, squared gap 4; (2, 2, 2): 0; the row's mean is 2."""
    given = Answers(torch.tensor([[3.0, 0, 0], [2.0, 2, 2]]), torch.tensor([0, 0]), torch.tensor([0, 0]), 1)
    assert value("pdu", given) == pytest.approx([2.0])


def test_blade() -> None:
    """Over four tokens, τ = ½: a certain token lacks ½ ln 4 = ln 2, a uniform one nothing, and has no gradient."""
    given = answers(([[1 - 3e-12, 1e-12, 1e-12, 1e-12]], [0]), ([[0.25] * 4], [0]))
    assert value("blade", given, tau=0.5) == pytest.approx([LN2, 0.0], abs=1e-9)
    assert gradient("blade", given, tau=0.5)[1] == [0.0] * 4


def test_jens_un() -> None:
    """p = (½, ¼, ¼) and 1[v = 1]: m = (¼, ⅝, ⅛), KL(p ‖ m) = ½ ln 2 + ¼ ln ⅖ + ¼ ln 2, KL(1 ‖ m) = ln 8/5; half of the sum."""
    given = answers(([HALF], [1]))
    assert value("jens_un", given) == pytest.approx([0.5 * (0.75 * LN2 + 0.25 * math.log(0.4) + math.log(1.6))])
    assert value("jens_un", Answers(torch.tensor([[99.0, 0.0]]), torch.tensor([0]), torch.tensor([0]), 1)) == [0.0]
    impossible = Answers(torch.tensor([[999.0, 0.0]]), torch.tensor([1]), torch.tensor([0]), 1)
    assert value("jens_un", impossible) == pytest.approx([LN2])


def test_jens_un_repeats_its_text(world: World) -> None:
    items, engine = world.items[0], world.engine()
    tokens = engine.tokenizer(" No Idea", add_special_tokens=False)["input_ids"]
    for item, labels in zip(items, make_method("jens_un").relabel(items, engine, 0), strict=True):
        assert len(labels) == len(item.answer_ids)
        assert all(label == tokens[t % len(tokens)] for t, label in enumerate(labels))
    with pytest.raises(ConfigError, match=r"method_args\.text"):
        make_method("jens_un", text="").relabel(items, engine, 0)


def test_js_of_the_retain_term() -> None:
    """(¾, ¼) against (¼, ¾): m = (½, ½), so ¾ ln 3/2 + ¼ ln ½ from either side."""
    given = answers(([[0.25, 0.75]], [0]))
    given = replace(given, reference_logits=torch.tensor([[0.75, 0.25]], dtype=torch.float64).log())
    assert RETAIN_LOSSES["js"](given).tolist() == pytest.approx([0.75 * math.log(1.5) - 0.25 * LN2])


@pytest.mark.parametrize("name", ["me_gd", "max_ent"])
def test_entropy(name: str) -> None:
    """KL of a third each from (½, ¼, ¼): ⅓ (ln ⅔ + 2 ln 4/3); gradient p - ⅓. Zero where all are alike."""
    given = answers(([HALF], [0]), ([[1 / 3] * 3], [0]))
    assert value(name, given) == pytest.approx([(math.log(2 / 3) + 2 * math.log(4 / 3)) / 3, 0.0], abs=1e-12)
    assert gradient(name, given)[0] == pytest.approx([1 / 6, -1 / 12, -1 / 12])


def test_ihl() -> None:
    """½ against ¼: 1 + ¼; ¼ against ½: 1 - ¼. With a margin of .2 the second is far enough below: 0, without a gradient."""
    given = answers(([HALF], [0]), ([HALF], [1]))
    assert value("ihl", given) == pytest.approx([1.25, 0.75])
    assert value("ihl", given, margin=0.2) == pytest.approx([0.45, 0.0])
    assert gradient("ihl", given, margin=0.2)[1] == [0.0] * 3


@pytest.mark.parametrize(("name", "sign"), [("relearn", 1), ("task_vector", 1), ("grail", -1)])
def test_plain(name: str, sign: int) -> None:
    """± the mean of ln 2 and ln 4."""
    assert value(name, answers(([HALF, HALF], [0, 1]))) == pytest.approx([sign * 1.5 * LN2])


def test_dual_variable() -> None:
    """Two answers of 1 and 3 tokens with NLL 1 and 6 nats: token mean 7/4. Budget 2 · 7/4 + ½ = 4."""
    method = PDU(retain_weight=10.0, budget_factor=2.0, budget_nats=0.5, dual_step=4.0, slack=0.5, penalty=3.0)
    dual = method.dual([1, 3], lambda: [1.0, 6.0])
    assert (dual.multiplier, dual.budget) == (10.0, 4.0)
    assert dual.weight(5.0) == 13.0  # λ + ρ · 1
    assert dual.weight(3.0) == 10.0
    dual.update(9.0, done_fraction=0.4)  # warm-up: half of the training
    assert dual.multiplier == 10.0
    dual.update(5.0, done_fraction=0.6)
    assert dual.multiplier == 14.0
    dual.update(1.0, done_fraction=0.6)  # slack: ½ · 4 · (1 - 4)
    assert dual.multiplier == 8.0
    dual.update(-20.0, done_fraction=0.6)
    assert dual.multiplier == 0.0


def effective(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """W + s·B·A of every adapted layer."""
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            found[name] = module.base_layer.weight + module.get_delta_weight("default")
    return {name: weight.detach().clone() for name, weight in found.items()}


@pytest.mark.parametrize("start", ["fresh", "continued"])
def test_task_vector_of_an_adapter_is_exact(start: str, tiny: tuple) -> None:
    """θ - 3 (θ_trained - θ) of the products BA, whichever B the adapter began with; it saves as an adapter named default."""
    model = with_adapter(tiny[0], lora_config(), 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if start == "continued" and "lora_B" in name:
                parameter.normal_(std=0.1, generator=generator)
    first, before = effective(model), trained_state(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or ("lora_A" in name and start == "continued"):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    trained = effective(model)
    scale_change(model, before, -3.0)
    got = effective(model)
    assert list(model.peft_config) == ["default"]
    for name in first:
        assert torch.allclose(got[name], first[name] - 3 * (trained[name] - first[name]), atol=1e-5)


def test_task_vector_of_all_parameters(tiny: tuple) -> None:
    model = tiny[0]
    before = trained_state(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    scale_change(model, before, -2.0)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, before[name] - 1.0, atol=1e-5)
