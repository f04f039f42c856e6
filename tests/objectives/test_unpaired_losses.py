"""Losses of liked and disliked images against numbers derived by hand."""

import math

import pytest
import torch

from t2ialign.objectives.unpaired import UTILITIES, balanced, bco, kto


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_kto_by_hand():
    """At the reference point it is 1/2 for both kinds; a gain of ln 3 / beta above it makes 1/4 and 3/4."""
    g, liked = double(0.1, 0.1, 0.1 + math.log(3) / 50, 0.1 + math.log(3) / 50), double(1, 0, 1, 0)
    loss = kto(g, liked, beta=50.0, point=double(0.1)[0])
    torch.testing.assert_close(loss, double(0.5, 0.5, 0.25, 0.75))


def test_utilities_saturate_where_they_say():
    """Slopes at +-10: the sigmoid flat on both sides, loss aversion steep for losses, risk for gains."""
    slopes = {}
    for name, utility in UTILITIES.items():
        x = double(-10, 10).requires_grad_()
        utility(x).sum().backward()
        slopes[name] = [round(value, 3) for value in x.grad.tolist()]
    assert slopes == {"kahneman_tversky": [0, 0], "loss_averse": [1, 0], "risk_seeking": [0, 1]}
    assert kto(double(0), double(1), beta=1.0, point=double(0)[0], utility="loss_averse").item() == (
        pytest.approx(1 + math.log(2))
    )


def test_bco_by_hand():
    """Reward 2 with shift 1: log(1 + e^-1) for a liked image, log(1 + e) for another."""
    loss = bco(double(0.5, 0.5), double(1, 0), beta=4.0, shift=double(1, 1))
    torch.testing.assert_close(loss, double(math.log1p(math.exp(-1)), math.log1p(math.e)))


@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.7])
def test_bco_bounds_dpo_from_above(shift):
    """For any shift the sum over a pair is at least -log sigmoid(reward gap). Jung et al., theorem."""
    rewards = double(0.8, -0.3)
    pair = bco(rewards, double(1, 0), beta=1.0, shift=double(shift, shift)).sum()
    assert pair.item() >= math.log1p(math.exp(-1.1))


@pytest.mark.parametrize("loss", ["kto", "bco"])
def test_gradients_are_finite_differences(loss):
    g, liked, point = double(0.3, -0.2, 0.1).requires_grad_(), double(1, 0, 1), double(0.05, 0.05, 0.05)

    def value(g: torch.Tensor) -> torch.Tensor:
        if loss == "kto":
            return kto(g, liked, beta=3.0, point=point)
        return bco(g, liked, beta=3.0, shift=point)

    assert torch.autograd.gradcheck(value, g)


def test_the_reference_point_has_no_gradient():
    point = double(0.1).requires_grad_()
    kto(double(0.3).requires_grad_(), double(1), beta=2.0, point=point[0]).sum().backward()
    assert point.grad is None


def test_the_balanced_point_weighs_kinds_and_not_images():
    liked = double(1, 1, 1, 0)
    assert balanced(liked, double(1, 2, 3, 10)).item() == 6
    assert balanced(double(1, 1), double(1, 3)).item() == 2
