"""Losses against numbers derived by hand, and gradients against finite differences."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from t2ialign.objectives.preference import denoising_ratio, dpo, hinge, ipo, mapo

LOSSES = {"dpo": dpo, "ipo": ipo, "hinge": hinge}


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_dpo_by_hand():
    """Margin 1, beta 2: -log sigmoid(2) = log(1 + e^-2) = 0.126928; weight 1/2 makes it log(1 + 1/e)."""
    one = double(0.5)
    assert dpo(one, -one, beta=2.0).item() == pytest.approx(math.log1p(math.exp(-2)))
    assert dpo(one, -one, beta=2.0, weight=0.5).item() == pytest.approx(math.log1p(math.exp(-1)))
    assert dpo(one, -one, beta=2.0).item() == pytest.approx(0.126928, abs=1e-6)


def test_ipo_by_hand():
    """beta 2 asks for a margin of 1 / 4: at margin 1 the loss is .75^2, at weight 1/4 it is 0."""
    one = double(0.5)
    assert ipo(one, -one, beta=2.0).item() == 0.5625
    assert ipo(one, -one, beta=2.0, weight=0.25).item() == 0
    assert ipo(-one, one, beta=2.0).item() == 1.5625


def test_hinge_by_hand():
    """beta x margin of 0.5: loss 0.5; of 2: loss 0 and no gradient; of -1: loss 2."""
    win = double(0.5, 2.0, -1.0).requires_grad_()
    loss = hinge(win, double(0, 0, 0), beta=1.0)
    assert loss.tolist() == [0.5, 0, 2]
    loss.sum().backward()
    assert win.grad is not None and win.grad.tolist() == [-1, 0, -1]


@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge"])
def test_at_the_reference(name):
    zero, start = double(0.0, 0.0), {"dpo": math.log(2), "ipo": 0.01, "hinge": 1.0}[name]
    torch.testing.assert_close(LOSSES[name](zero, zero, beta=5.0), double(start, start))


def test_swapping_the_pair_flips_the_margin():
    """-log sigmoid(m) and -log sigmoid(-m) differ by m exactly."""
    win, lose = double(0.3, -1.0, 2.0), double(0.1, 0.5, 2.0)
    torch.testing.assert_close(dpo(lose, win, beta=3.0) - dpo(win, lose, beta=3.0), 3 * (win - lose))


def test_huge_margins_stay_finite():
    win = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = dpo(win, torch.zeros(2), beta=5000.0)
    loss.sum().backward()
    assert loss.tolist() == [0, 5e7] and win.grad is not None and win.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_differences(name):
    win, lose, weight = double(0.31, -0.2, 0.07), double(-0.4, 0.11, 0.05), double(0.5, 1.0, 2.0)
    inputs = win.requires_grad_(), lose.requires_grad_()
    assert torch.autograd.gradcheck(lambda w, x: LOSSES[name](w, x, beta=1.7, weight=weight), inputs)


def released_diffusion_dpo(err_w, err_l, ref_w, ref_l, beta):
    """The released trainer's: scale_term = -0.5 beta; inside = scale_term (model_diff - ref_diff)."""
    return -logsigmoid(-0.5 * beta * ((err_w - err_l) - (ref_w - ref_l)))


def test_dpo_on_denoising_ratios_is_the_released_expression():
    draw = torch.Generator().manual_seed(0)
    errors = torch.rand(4, 100, generator=draw, dtype=torch.float64) * 0.01 + 0.1
    err_w, err_l, ref_w, ref_l = errors.requires_grad_()
    ours = dpo(denoising_ratio(err_w, ref_w), denoising_ratio(err_l, ref_l), beta=5000.0)
    theirs = released_diffusion_dpo(err_w, err_l, ref_w, ref_l, 5000.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    grads = [torch.autograd.grad(loss.sum(), errors, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_denoising_ratio_gradient_at_the_reference_is_a_quarter_beta():
    """d loss / d err_w = sigmoid(0) x beta / 2 = beta / 4; the loser's is the opposite."""
    err = torch.full((2, 1), 0.2, dtype=torch.float64, requires_grad=True)
    r = denoising_ratio(err, err.detach())
    dpo(r[0], r[1], beta=5000.0).sum().backward()
    assert err.grad is not None and err.grad.flatten().tolist() == [1250, -1250]


def test_mapo_by_hand():
    """c = 1, errors ln 2, ln 3: s(ln 2) = ln 2 / (2 - 1), s(ln 3) = ln 3 / (3 - 1); margin .693 - .549."""
    win, lose = double(math.log(2)), double(math.log(3))
    margin = math.log(2) - math.log(3) / 2
    expected = math.log(2) + 0.1 * math.log1p(math.exp(-2 * margin))
    assert mapo(win, lose, beta=0.1, c=1.0, T=2).item() == pytest.approx(expected, rel=1e-12)


def test_mapo_of_equal_errors_is_supervised_training_plus_beta_ln2():
    err = double(0.0, 0.3)
    torch.testing.assert_close(mapo(err, err, beta=0.1, T=1000), err + 0.1 * math.log(2))


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-6, 1e-3, 0.0399, 0.0401, 0.5])
def test_mapo_gradient_is_right_at_small_errors(size):
    """s'(e) = -c / 2 + c^2 e / 6 - .. near 0, where exp(c e) - 1 loses every digit; in fp32 and fp64."""
    c, T, beta = 0.5, 10, 0.1
    x = c * size
    exact = -c / 2 + c * x / 6 - c * x**3 / 180 + c * x**5 / 5040
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-9)):
        win = torch.tensor([size], dtype=dtype, requires_grad=True)
        mapo(win, win.detach(), beta=beta, c=c, T=T).sum().backward()
        assert win.grad is not None
        slope = (1 - win.grad.item()) / (beta * T / 2)  # loss' = 1 - beta sigmoid(0) T s'
        assert slope == pytest.approx(exact, rel=tolerance)


def test_mapo_gradients_are_finite_differences():
    win, lose = double(0.0101, 0.3, 0.9).requires_grad_(), double(0.2, 0.0102, 0.91).requires_grad_()
    assert torch.autograd.gradcheck(lambda w, x: mapo(w, x, T=5, weight=0.7), (win, lose))
