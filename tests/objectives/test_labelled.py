"""Losses that read ties and margins, against numbers derived by hand."""

import math

import pytest
import torch

from t2ialign.objectives.labelled import difference, ternary
from t2ialign.objectives.preference import dpo


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_win_tie_and_loss_sum_to_one():
    r, zero = torch.linspace(-2, 2, 9, dtype=torch.float64), torch.zeros(9, dtype=torch.float64)
    yes, no = torch.ones(9, dtype=torch.bool), torch.zeros(9, dtype=torch.bool)
    for width in (0.1, 1.0, 3.0):
        how = {"beta": 2.0, "tie_width": width}
        win, lose = (torch.exp(-ternary(a, b, tied=no, **how)) for a, b in ((r, zero), (zero, r)))
        tie = torch.exp(-ternary(r, zero, tied=yes, **how))
        torch.testing.assert_close(win + lose + tie, torch.ones_like(r))


def test_ternary_by_hand():
    """Margin 1, width 1: P(win) = sigmoid(0) = 1/2, P(tie) = (e^2 - 1) / 2 x sigmoid(-2)."""
    one, zero = double(0.5, 0.5), double(0.0, 0.0)
    losses = ternary(one, zero, beta=2.0, tied=torch.tensor([False, True]), tie_width=1.0)
    tie = (math.exp(2) - 1) / 2 / (1 + math.exp(2))
    torch.testing.assert_close(losses, double(math.log(2), -math.log(tie)))


def test_a_tie_pulls_the_margin_to_zero_and_a_tiny_width_is_dpo():
    r = double(0.7, -0.7, 0.0).requires_grad_()
    loss = ternary(r, double(0, 0, 0), beta=1.0, tied=torch.tensor([True] * 3))
    loss.sum().backward()
    assert r.grad is not None
    assert r.grad[0] > 0 and r.grad[1] == -r.grad[0] and r.grad[2] == 0
    near = ternary(r, double(0, 0, 0), beta=1.0, tied=torch.tensor([False] * 3), tie_width=1e-9)
    torch.testing.assert_close(near, dpo(r, double(0, 0, 0), beta=1.0))


def test_difference_by_hand():
    """beta 2, log-ratios 1/2 apart: an implicit difference of 1, against 3 and against 1."""
    losses = difference(double(0.5, 0.5), double(0, 0), beta=2.0, margin=double(3.0, 1.0))
    assert losses.tolist() == [4.0, 0.0]
    assert difference(double(0.5), double(0), beta=2.0, weight=0.5, margin=double(0)).tolist() == [0.25]


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_are_finite_differences(tied):
    inputs = double(0.31, -0.2).requires_grad_(), double(-0.4, 0.11).requires_grad_()
    label = torch.tensor([tied, tied])
    assert torch.autograd.gradcheck(lambda a, b: ternary(a, b, beta=1.7, tied=label), inputs)
    assert torch.autograd.gradcheck(lambda a, b: difference(a, b, beta=1.7, margin=double(0.3, -1)), inputs)
