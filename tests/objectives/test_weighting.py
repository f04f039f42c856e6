"""Discounting points at the noisy end, and both estimators weigh alike."""

import pytest
import torch
from scipy.stats import chisquare

from t2ialign.objectives.weighting import (
    discount_probabilities,
    discount_weight,
    sample_timesteps,
    steps_taken,
)

ALL_T = torch.arange(1000)


@pytest.mark.parametrize("num_steps", [1, 7, 20, 50, 1000])
def test_steps_taken_is_the_floor(num_steps):
    expected = [(999 - t) * num_steps // 1000 for t in range(1000)]
    assert steps_taken(ALL_T, num_steps).tolist() == expected
    assert expected[999] == 0 and expected[0] == (999 * num_steps) // 1000


def test_steps_of_sd_at_fifty():
    """SD's own grid at T = 50 is t = 981, 961, .. 1: step number k stands at t = 981 - 20 k."""
    grid = torch.arange(981, 0, -20)
    assert torch.equal(steps_taken(grid, 50), torch.arange(50))


def test_probabilities_by_hand():
    """gamma .9, T = 50: p[0] = .1 / (1 - .9^50) = .1005 (noisiest); mean index 8.74; last 25 share 6.7 %."""
    p = discount_probabilities(50, 0.9)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert p[0].item() == pytest.approx(0.1 / (1 - 0.9**50), rel=1e-12)
    assert (p * torch.arange(50)).sum().item() == pytest.approx(8.74, abs=0.005)
    assert p[25:].sum().item() == pytest.approx(0.067, abs=0.0005)
    assert torch.equal(discount_probabilities(4, 1.0), torch.full((4,), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("num_steps", [7, 50])
@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_weight_is_gamma_to_the_k_with_mean_one(num_steps, gamma):
    weight = discount_weight(ALL_T, num_steps=num_steps, gamma=gamma)
    assert weight.mean().item() == pytest.approx(1, abs=1e-6)
    expected = gamma ** steps_taken(ALL_T, num_steps).double()
    torch.testing.assert_close(weight.double() / weight[999], expected)


def test_no_discount_is_weight_one_exactly():
    assert (discount_weight(ALL_T, num_steps=30, gamma=1.0) == 1).all()


@pytest.mark.parametrize("num_steps", [7, 30, 50])
def test_no_discount_is_uniform_exactly(num_steps):
    """The middle of each thousandth of [0, 1) meets each t once."""
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    t = sample_timesteps(u, num_steps=num_steps, gamma=1.0)
    assert t.tolist() == list(range(999, -1, -1))


def test_ends_of_the_unit_interval():
    u = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert sample_timesteps(u, num_steps=50, gamma=0.9).tolist() == [999, 0]
    assert sample_timesteps(torch.tensor([1 - 2**-24]), num_steps=50, gamma=1.0).tolist() == [0]


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_frequencies_pass_chi_square(gamma):
    """200,000 draws: bins in proportion to gamma^k, and uniform inside the bins."""
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = sample_timesteps(u, num_steps=50, gamma=gamma)
    bins = torch.bincount(steps_taken(t, 50), minlength=50)
    assert chisquare(bins, discount_probabilities(50, gamma) * len(u)).pvalue > 1e-3
    inside = torch.bincount((999 - t) % 20, minlength=20)
    assert chisquare(inside).pvalue > 1e-3
    wrong = discount_probabilities(50, 0.88 if gamma == 0.9 else 0.99) * len(u)
    assert chisquare(bins, wrong).pvalue < 1e-6  # the test can fail


def test_both_estimators_have_the_same_expectation():
    """E over sampled t of f = E over uniform t of weight f, for any f, and T need not divide 1000."""
    f = torch.sin(ALL_T.double())
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    sampled = f[sample_timesteps(u, num_steps=30, gamma=0.8)].mean()
    weighted = (discount_weight(ALL_T, num_steps=30, gamma=0.8).double() * f).mean()
    assert sampled.item() == pytest.approx(weighted.item(), abs=1e-4)


@pytest.mark.parametrize(
    ("num_steps", "gamma", "message"),
    [(50, 0.0, "gamma=0.0"), (50, 1.01, "gamma=1.01"), (0, 0.9, "num_steps=0")],
)
def test_bad_values_are_errors(num_steps, gamma, message):
    for call in (
        lambda: discount_probabilities(num_steps, gamma),
        lambda: discount_weight(ALL_T, num_steps=num_steps, gamma=gamma),
        lambda: sample_timesteps(torch.rand(3), num_steps=num_steps, gamma=gamma),
    ):
        with pytest.raises(ValueError, match=f"got {message}; expected"):
            call()
