"""The loser's gradient never raises the winner's error, to first order."""

import pytest
import torch

from t2ialign.objectives.preference import denoising_ratio, dpo
from t2ialign.objectives.safeguard import loser_scale, scale_gradient


def pair(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


def test_by_hand():
    """|g_w|^2 = 2, <g_w, g_l> = 6: (1 - mu) 2 / 6 = 1/6 at mu .5; agreeing less than that: 1; opposed: 1."""
    win = pair(1.0, 1.0)
    assert loser_scale(win, pair(4.0, 2.0), mu=0.5).item() == pytest.approx(1 / 6)
    assert loser_scale(win, pair(0.5, 0.1), mu=0.5).item() == 1
    assert loser_scale(win, pair(-4.0, -2.0), mu=0.5).item() == 1
    assert loser_scale(win, pair(4.0, 2.0), mu=1.0).item() == 0
    assert loser_scale(pair(0.0, 0.0), win, mu=0.5).item() == 1  # nothing to protect, and no 0 / 0


def test_one_lambda_per_pair():
    draw = torch.Generator().manual_seed(0)
    win, lose = torch.randn(2, 50, 4, 3, 3, generator=draw)
    lose = lose + 0.4 * win
    together = loser_scale(win, lose, mu=0.6)
    alone = torch.cat([loser_scale(win[i : i + 1], lose[i : i + 1], mu=0.6) for i in range(50)])
    assert together.shape == (50,) and together.min() >= 0 and together.max() <= 1
    torch.testing.assert_close(together, alone)
    assert 0 < (together < 1).sum() < 50


@pytest.mark.parametrize("mu", [0.0, 0.2, 0.6, 0.9])
def test_a_small_step_does_not_raise_the_winner_error(mu):
    """Outputs are the parameters themselves, shared by winner and loser: the hardest case for the winner.

    The winner's first-order change is -lr |g_w|^2 + lr lambda <g_w, g_l> <= -lr mu |g_w|^2.
    """
    draw = torch.Generator().manual_seed(1)
    theta = torch.randn(40, 4, 2, 2, generator=draw, dtype=torch.float64, requires_grad=True)
    goal_win, shift = torch.randn(2, 40, 4, 2, 2, generator=draw, dtype=torch.float64)
    goal_lose = goal_win + 0.5 * shift - 2 * (theta.detach() - goal_win)  # the loser's error is the larger
    res_win, res_lose = theta - goal_win, theta - goal_lose
    err_win, err_lose = (res.square().flatten(1).mean(1) for res in (res_win, res_lose))
    (grad_win,) = torch.autograd.grad(err_win.sum(), theta, retain_graph=True)

    def change(loser):
        loss = dpo(
            denoising_ratio(err_win, err_win.detach()), denoising_ratio(loser, loser.detach()), beta=4.0
        )
        (step,) = torch.autograd.grad(loss.sum(), theta, retain_graph=True)  # beta / 4 = 1: g_w - lambda g_l
        return -(grad_win * step).flatten(1).sum(1)

    assert (change(err_lose) > 0).any()  # without the safeguard the winner does get worse
    safe = change(scale_gradient(err_lose, loser_scale(res_win, res_lose, mu=mu)))
    assert (safe <= -mu * grad_win.square().flatten(1).sum(1) + 1e-6).all()


def test_scale_gradient_keeps_the_value():
    x = torch.tensor([0.1, 1e-8, 1e8], requires_grad=True)
    scaled = scale_gradient(x, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(scaled, x)
    scaled.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 0.25, 1]


def test_lambda_carries_no_gradient():
    win, lose = torch.ones(2, 1, 2, 2, requires_grad=True), torch.ones(2, 1, 2, 2, requires_grad=True)
    assert not loser_scale(win, lose, mu=0.5).requires_grad


@pytest.mark.parametrize("mu", [-0.1, 1.1])
def test_mu_outside_its_range_is_an_error(mu):
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        loser_scale(pair(1.0), pair(1.0), mu=mu)
