"""The formulas of `ops` against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from scopewise import ops
from scopewise.ops import Reduction, cosine, sequence_mean, token_counts, token_kl, token_log_probs


def test_shapes_are_checked_while_the_tests_run() -> None:
    """The canary of conftest's import hook: three labels for two rows of logits must not pass for a broadcast."""
    with pytest.raises(TypeCheckError):
        token_log_probs(torch.zeros(2, 5), torch.zeros(3, dtype=torch.long))


def test_kinds_are_checked_while_the_tests_run() -> None:
    with pytest.raises(TypeCheckError):
        token_log_probs(torch.zeros(2, 5), torch.zeros(2))


def test_log_prob_of_two_tokens() -> None:
    """Logits (ln 3, 0): probabilities 3/4 and 1/4. Logits (0, 0): 1/2."""
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0], [0.0, 0.0]])
    got = token_log_probs(logits, torch.tensor([0, 1, 1]))
    assert got.tolist() == pytest.approx([math.log(3 / 4), math.log(1 / 4), math.log(1 / 2)])


def test_log_prob_of_half_precision_logits_is_float32() -> None:
    """Uniform over 1000 tokens: -ln 1000 = -6.907755, which bfloat16 would round to -6.90625."""
    got = token_log_probs(torch.zeros(1, 1000, dtype=torch.bfloat16), torch.tensor([7]))
    assert got.dtype == torch.float32
    assert float(got) == pytest.approx(-math.log(1000), abs=1e-5)


def test_gradient_of_mean_log_probs_by_hand() -> None:
    """P = 3/4, 1/4 and labels 0 and 1: half of 1 and of 1 less the probabilities, times the gradient that comes in."""
    logits = torch.tensor([[math.log(3), 0.0]], requires_grad=True)
    value = ops.mean_log_probs(logits, torch.tensor([[0, 1]]))
    assert value.tolist() == pytest.approx([(math.log(3 / 4) + math.log(1 / 4)) / 2])
    (2 * value.sum()).backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([2 * (1 / 2 - 3 / 4), 2 * (1 / 2 - 1 / 4)])


def test_gradient_of_mean_log_probs_numerically() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (10 * torch.randn(3, 7, dtype=torch.float64, generator=generator)).requires_grad_()
    labels = torch.tensor([[0, 0, 3], [6, 5, 4], [2, 2, 2]])  # the same label twice counts twice
    assert torch.autograd.gradcheck(lambda z: ops.mean_log_probs(z, labels), (logits,))


def test_losses_with_their_gradients_are_those_that_autograd_finds() -> None:
    """Labels by hand: P = 3/4, 1/4 and labels 0 and 1; then both losses in float64, and in bfloat16."""
    value, gradient = ops.nll_and_gradient(torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0, 1]]))
    assert value.tolist() == pytest.approx([-(math.log(3 / 4) + math.log(1 / 4)) / 2])
    assert gradient.flatten().tolist() == pytest.approx([3 / 4 - 1 / 2, 1 / 4 - 1 / 2])
    generator = torch.Generator().manual_seed(0)
    reference, given = 10 * torch.randn(2, 3, 7, dtype=torch.float64, generator=generator)
    labels = torch.tensor([[0, 0, 3], [6, 5, 4], [2, 2, 2]])  # the same label twice counts twice
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.bfloat16, 1e-5)):
        before, logits = reference.to(dtype), given.to(dtype)
        for plain, both in (
            (lambda z: -ops.mean_log_probs(z, labels), lambda z: ops.nll_and_gradient(z, labels)),
            (lambda z: ops.token_kl(before, z), lambda z: ops.kl_and_gradient(before, z)),  # noqa: B023
        ):
            z = ops.at_least_float32(logits).requires_grad_()
            expected = plain(z)
            (wanted,) = torch.autograd.grad(expected.sum(), z)
            value, gradient = both(logits.clone())
            assert torch.allclose(value, expected, rtol=tolerance, atol=tolerance)
            assert torch.allclose(gradient, wanted, rtol=tolerance, atol=tolerance)


def test_gradient_of_log_probs_can_be_taken_again_of_a_kept_graph() -> None:
    logits = torch.tensor([[1.0, 0.0, -math.inf]], requires_grad=True)
    value = token_log_probs(logits, torch.tensor([1])).sum()
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    (second,) = torch.autograd.grad(value, logits)
    assert torch.equal(first, second)
    assert float(first[0, 2]) == 0.0
    assert float(first.sum()) == pytest.approx(0.0, abs=1e-6)


def test_kl_by_hand_and_its_direction() -> None:
    """KL((3/4, 1/4) ‖ (1/2, 1/2)) = 3/4 ln 3/2 + 1/4 ln 1/2 = 3/4 ln 3 - ln 2; the other way ln 2 - 1/2 ln 3."""
    p, q = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    assert float(token_kl(p, q)) == pytest.approx(0.75 * math.log(3) - math.log(2), abs=1e-6)
    assert float(token_kl(q, p)) == pytest.approx(math.log(2) - 0.5 * math.log(3), abs=1e-6)


def test_kl_is_zero_when_logits_differ_by_a_constant() -> None:
    logits = torch.tensor([[0.3, -2.0, 5.0]])
    assert float(token_kl(logits, logits + 11.0)) == pytest.approx(0.0, abs=1e-6)


def test_token_counts() -> None:
    assert token_counts(torch.tensor([0, 0, 2]), 4).tolist() == [2, 0, 1, 0]


def test_sequence_mean() -> None:
    """Rows 0: (1 + 3) / 2 = 2, row 1: no token, 0, row 2: 5."""
    got = sequence_mean(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([0, 2, 0]), 3)
    assert got.tolist() == [2.0, 0.0, 5.0]


def test_reduction_weights() -> None:
    counts = torch.tensor([3, 1])
    assert Reduction.SEQUENCE_MEAN.weight(counts).tolist() == [1.0, 1.0]
    assert Reduction.TOKEN_MEAN.weight(counts).tolist() == [3.0, 1.0]


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        ([1.0, 0.0], [0.0, 2.0], 0.0),
        ([1.0, 2.0], [-2.0, -4.0], -1.0),
        ([3.0, 4.0], [4.0, 3.0], 24 / 25),  # 12 + 12 over 5 · 5
    ],
)
def test_cosine(a: list[float], b: list[float], want: float) -> None:
    assert cosine(torch.tensor(a), torch.tensor(b)) == pytest.approx(want, abs=1e-12)


def test_cosine_with_zero_is_no_angle() -> None:
    assert cosine(torch.zeros(2), torch.ones(2)) is None


def test_cosine_of_tiny_gradients_does_not_underflow() -> None:
    """1e-30² is below float32's range, not below float64's."""
    tiny = torch.full((2,), 1e-30)
    assert cosine(tiny, tiny) == pytest.approx(1.0)


def test_token_statistics_by_hand() -> None:
    """P = 1/2, 1/4, 1/4 and a token of probability zero: log P is -ln 2 or -2 ln 2, with probability 1/2 each."""
    logits = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log() + 7
    found = ops.token_statistics(logits, torch.tensor([2]))
    assert found.log_probs.tolist() == pytest.approx([-2 * math.log(2)])
    assert found.predicted.tolist() == [0]
    assert found.means.tolist() == pytest.approx([-1.5 * math.log(2)])
    assert found.variances.tolist() == pytest.approx([(0.5 * math.log(2)) ** 2])
    assert ops.token_statistics(logits, torch.tensor([3])).log_probs.tolist() == [-math.inf]
    plain = ops.token_statistics(logits, torch.tensor([2]), moments=False)
    assert plain[:2] == found[:2]
    assert math.isnan(plain.means)
    assert math.isnan(plain.variances)


@pytest.mark.parametrize("columns", [1, 63, 64, 128, 200, 320])
def test_the_predicted_token_is_the_first_of_equals_wherever_it_stands(columns: int) -> None:
    """Also across the blocks in which it is looked for."""
    generator = torch.Generator().manual_seed(columns)
    logits = (torch.rand(500, columns, generator=generator) < 1.5 / columns).float()  # one or two largest, or none
    found = ops.token_statistics(logits, torch.zeros(500, dtype=torch.long))
    assert found.predicted.tolist() == [row.index(max(row)) for row in logits.tolist()]


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_token_statistics_in_pieces_are_those_of_the_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "CACHED_LOGITS", rows * 50)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 50, generator=generator) * torch.logspace(-2, 3, 20).unsqueeze(-1)
    labels = torch.randint(50, (20,), generator=generator)
    log_p = logits.double().log_softmax(-1)
    mean = (log_p.exp() * log_p).sum(-1)
    variance = (log_p.exp() * (log_p - mean.unsqueeze(-1)).square()).sum(-1)
    found = ops.token_statistics(logits, labels)
    torch.testing.assert_close(found.log_probs.double(), log_p[torch.arange(20), labels], rtol=1e-5, atol=1e-5)
    assert found.predicted.tolist() == logits.argmax(-1).tolist()
    torch.testing.assert_close(found.means.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.variances.double(), variance, rtol=1e-4, atol=1e-5)
