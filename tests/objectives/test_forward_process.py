"""Losses of clean images on numbers worked out by hand."""

import math

import pytest
import torch

from t2ialign.objectives.forward_process import matching_log_prob, nft


def image(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 2), value, dtype=torch.float64)


def test_nft_by_hand() -> None:
    """x_0 = 1, new = 2, old = 1.5, beta = 0.5, a = 2.5 of at most 5: r = 0.75."""
    good, bad = 0.5 * 2 + 0.5 * 1.5 - 1, 1.5 * 1.5 - 0.5 * 2 - 1  # 0.75 and 0.25, each by its own size
    wanted = 5 * (0.75 * good + 0.25 * bad) / 0.5
    loss = nft(image(1), image(2), image(1.5), torch.tensor([2.5], dtype=torch.float64), beta=0.5)
    torch.testing.assert_close(loss, torch.tensor([wanted], dtype=torch.float64))


@pytest.mark.parametrize("advantage, sign", [(4.0, 1), (-4.0, -1)])
def test_nft_draws_to_a_good_image_and_away_from_a_bad_one(advantage: float, sign: int) -> None:
    new = image(0.5).requires_grad_()
    nft(image(1), new, image(0.5), torch.tensor([advantage]), beta=1.0).sum().backward()
    assert new.grad is not None and (new.grad * sign < 0).all()


def test_nft_without_advantage_moves_nothing_from_the_policy_that_sampled() -> None:
    new = image(0.5).requires_grad_()
    nft(image(1), new, image(0.5), torch.zeros(1), beta=1.0).sum().backward()
    torch.testing.assert_close(new.grad, torch.zeros_like(new))


def test_the_size_of_an_error_carries_no_gradient_and_ends_at_1e_5() -> None:
    x_0, old = image(1), image(1)
    new = image(1 + 1e-7).requires_grad_()
    nft(x_0, new, old, torch.tensor([5.0]), beta=1.0).sum().backward()  # r = 1: 5 (new - 1)^2 / 1e-5
    torch.testing.assert_close(new.grad, torch.full_like(new, 5 * 2e-7 / 1e-5 / 2), rtol=1e-6, atol=0)


def test_matching_log_prob_by_hand() -> None:
    """-0.5 (16^(1/4) - (1e-10)^(1/4)) / (1/4), and finite in value and slope at an error of 0."""
    error = torch.tensor([16.0, 0.0], dtype=torch.float64, requires_grad=True)
    value = matching_log_prob(error, torch.tensor([0.5, 0.5], dtype=torch.float64))
    torch.testing.assert_close(value.detach(), torch.tensor([-2 * (2 - 10**-2.5), 0], dtype=torch.float64))
    value.sum().backward()
    assert error.grad is not None and math.isfinite(error.grad[1])
