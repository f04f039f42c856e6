"""Discounting points at the noisy end, and both estimators weigh alike."""

import pytest
import torch
from scipy.stats import chisquare

from t2ialign.objectives.weighting import Discount, discount_probabilities, steps_taken

ALL_T = torch.arange(1000.0)


def draw(u: torch.Tensor) -> torch.Tensor:
    """Stable Diffusion's training times: every t of 0 .. 999 as likely."""
    return 999 - (1000 * u.double()).floor().clamp_max(999)


def edges(num_inference_steps: int) -> torch.Tensor:
    """T even parts of 0 .. 999."""
    return 999 - 1000 * torch.arange(num_inference_steps + 1, dtype=torch.float64) / num_inference_steps


def discount(num_inference_steps: int, gamma: float) -> Discount:
    return Discount(draw, edges(num_inference_steps), gamma)


@pytest.mark.parametrize("num_inference_steps", [1, 7, 20, 50, 1000])
def test_steps_taken_is_the_floor(num_inference_steps):
    expected = [(999 - t) * num_inference_steps // 1000 for t in range(1000)]
    assert steps_taken(ALL_T, edges(num_inference_steps)).tolist() == expected
    assert expected[999] == 0 and expected[0] == (999 * num_inference_steps) // 1000


def test_steps_of_sd_at_fifty():
    """SD's own grid at T = 50 is t = 981, 961, .. 1: step number k stands at t = 981 - 20 k."""
    grid = torch.arange(981, 0, -20)
    assert torch.equal(steps_taken(grid, edges(50)), torch.arange(50))


def test_probabilities_by_hand():
    """gamma .9, T = 50: p[0] = .1 / (1 - .9^50) = .1005 (noisiest); mean index 8.74; last 25 share 6.7 %."""
    p = discount_probabilities(50, 0.9)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert p[0].item() == pytest.approx(0.1 / (1 - 0.9**50), rel=1e-12)
    assert (p * torch.arange(50)).sum().item() == pytest.approx(8.74, abs=0.005)
    assert p[25:].sum().item() == pytest.approx(0.067, abs=0.0005)
    assert torch.equal(discount_probabilities(4, 1.0), torch.full((4,), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("num_inference_steps", [7, 50])
@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_weight_is_gamma_to_the_k_with_mean_one(num_inference_steps, gamma):
    weight = discount(num_inference_steps, gamma).weight(ALL_T)
    assert weight.mean().item() == pytest.approx(1, abs=1e-6)
    expected = gamma ** steps_taken(ALL_T, edges(num_inference_steps)).double()
    torch.testing.assert_close(weight.double() / weight[999], expected)


def test_no_discount_is_weight_one_exactly():
    assert (discount(30, 1.0).weight(ALL_T) == 1).all()


@pytest.mark.parametrize("num_inference_steps", [7, 30, 50])
def test_no_discount_is_uniform_exactly(num_inference_steps):
    """The middle of each thousandth of [0, 1) meets each t once."""
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    t = discount(num_inference_steps, 1.0).times(u)
    assert t.tolist() == list(range(999, -1, -1))


def test_ends_of_the_unit_interval():
    u = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert discount(50, 0.9).times(u).tolist() == [999, 0]
    assert discount(50, 1.0).times(torch.tensor([1 - 2**-24])).tolist() == [0]


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_frequencies_pass_chi_square(gamma):
    """200,000 draws: bins in proportion to gamma^k, and uniform inside the bins."""
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = discount(50, gamma).times(u).long()
    bins = torch.bincount(steps_taken(t, edges(50)), minlength=50)
    assert chisquare(bins, discount_probabilities(50, gamma) * len(u)).pvalue > 1e-3
    inside = torch.bincount((999 - t) % 20, minlength=20)
    assert chisquare(inside).pvalue > 1e-3
    wrong = discount_probabilities(50, 0.88 if gamma == 0.9 else 0.99) * len(u)
    assert chisquare(bins, wrong).pvalue < 1e-6  # the test can fail


def test_both_estimators_have_the_same_expectation():
    """E over sampled t of f = E over uniform t of weight f, for any f, and T need not divide 1000."""
    f = torch.sin(ALL_T.double())
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    sampled = f[discount(30, 0.8).times(u).long()].mean()
    weighted = (discount(30, 0.8).weight(ALL_T).double() * f).mean()
    assert sampled.item() == pytest.approx(weighted.item(), abs=1e-4)


@pytest.mark.parametrize(
    ("num_inference_steps", "gamma", "message"),
    [(50, 0.0, "gamma=0.0"), (50, 1.01, "gamma=1.01"), (0, 0.9, "num_inference_steps=0")],
)
def test_bad_values_are_errors(num_inference_steps, gamma, message):
    for call in (
        lambda: discount_probabilities(num_inference_steps, gamma),
        lambda: Discount(draw, torch.zeros(num_inference_steps + 1), gamma),
    ):
        with pytest.raises(ValueError, match=f"got {message}; expected"):
            call()


def old_times(u: torch.Tensor, num_inference_steps: int, gamma: float) -> torch.Tensor:
    """What runs of earlier versions drew: the inverse of the sum over all 1000 levels."""
    powers = torch.tensor(gamma, dtype=torch.float64) ** (torch.arange(1000) * num_inference_steps // 1000)
    cumulative = powers.cumsum(0)
    return 999 - torch.searchsorted(cumulative, u * cumulative[-1], right=True).clamp_max(999)


@pytest.mark.parametrize(("num_inference_steps", "gamma"), [(50, 1.0), (50, 0.9), (7, 0.5), (1000, 0.99)])
def test_the_draws_of_saved_runs_stay(num_inference_steps, gamma):
    """A resumed run of Stable Diffusion draws the integers that it drew before times were floats."""
    u = torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(
        discount(num_inference_steps, gamma).times(u), old_times(u, num_inference_steps, gamma).double()
    )


def sd3_draw(u: torch.Tensor) -> torch.Tensor:
    """1000 sigma: a logit-normal base level, shifted by 3, as Stable Diffusion 3 trains."""
    base = torch.sigmoid(-torch.special.ndtri(u))
    return 1000 * 3 * base / (1 + 2 * base)


# Base levels 1, 2/3, 1/3, 0 shifted by 3 are sigma 1, 6/7, 3/5, 0.
SD3_EDGES = torch.tensor([1000, 6000 / 7, 600, 0], dtype=torch.float64)
# P(base > 2/3) = P(logit > ln 2) = Phi(-ln 2) = .2441: the steps have .2441, .5118 and .2441 of the times.
SD3_SHARES = torch.tensor([0.24410, 0.51180, 0.24410], dtype=torch.float64)


def test_the_discount_on_sd3s_grid_by_hand():
    """T = 3, shift 3, gamma 1/2: the mean of gamma^k is .2441 + .5118 / 2 + .2441 / 4 = .56103."""
    halving = Discount(sd3_draw, SD3_EDGES, 0.5)
    torch.testing.assert_close(halving.shares, SD3_SHARES, rtol=0, atol=5e-5)
    t = torch.tensor([1000.0, 900.0, 857.0, 700.0, 601.0, 600.0, 10.0, 0.0])
    assert steps_taken(t, SD3_EDGES).tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    by_hand = torch.tensor([1.78244, 1.78244, 0.89122, 0.89122, 0.89122, 0.44561, 0.44561, 0.44561])
    torch.testing.assert_close(halving.weight(t), by_hand, rtol=0, atol=2e-4)
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    drawn = torch.bincount(steps_taken(halving.times(u), SD3_EDGES), minlength=3) / len(u)
    # .2441 / .56103, .2559 / .56103, .061025 / .56103
    torch.testing.assert_close(
        drawn.double(), torch.tensor([0.4351, 0.4561, 0.1088]).double(), rtol=0, atol=2e-4
    )
    times = halving.times(u)
    assert (times.diff() <= 0).all() and times.min() >= 0 and times.max() <= 1000


def test_both_estimators_agree_where_times_are_continuous():
    f = lambda t: torch.sin(t / 100)  # noqa: E731
    u, halving = (
        (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000,
        Discount(sd3_draw, SD3_EDGES, 0.5),
    )
    weighted = (halving.weight(sd3_draw(u)).double() * f(sd3_draw(u))).mean()
    assert f(halving.times(u)).mean().item() == pytest.approx(weighted.item(), abs=1e-4)
