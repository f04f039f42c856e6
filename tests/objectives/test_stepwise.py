"""Losses on candidates against numbers by hand, and the identity of two draws from one state."""

import math

import pytest
import torch

from t2ialign.diffusion.transition import Gaussian
from t2ialign.objectives.stepwise import (
    best_and_worst,
    candidate_preference,
    clipped,
    clipped_surrogate,
    group_advantages,
    threshold,
)


def test_the_gap_is_the_difference_of_the_two_way_softmax():
    scores = torch.tensor([[0.0, 1.0, 3.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    best, worst, gap = best_and_worst(scores)
    assert best.tolist()[0] == 2 and worst.tolist()[0] == 0
    p = torch.softmax(torch.tensor([3.0, 0.0]), 0)
    assert gap.tolist() == pytest.approx([float(p[0] - p[1]), 0.0])


def test_published_thresholds_are_score_differences():
    """p_max - p_min = tanh(dS / 2): .35, .45, .5 and .6 are dS of .731, .969, 1.099 and 1.386."""
    for gap, difference in ((0.35, 0.731), (0.45, 0.969), (0.5, 1.099), (0.6, 1.386)):
        _, _, found = best_and_worst(torch.tensor([[difference, 0.0]]))
        assert float(found) == pytest.approx(gap, abs=5e-4)


def test_the_threshold_grows_with_the_noise():
    stds, times = torch.tensor([0.1, 0.3, 0.5]), torch.tensor([1, 51, 201])
    ends = {"low": 0.35, "high": 0.5, "stds": stds, "times": times}
    of = {name: threshold(stds, times, schedule=name, **ends) for name in ("std", "variance", "linear")}
    assert of["std"].tolist() == pytest.approx([0.35, 0.425, 0.5])
    assert of["variance"].tolist() == pytest.approx([0.35, 0.35 + 0.15 * 0.08 / 0.24, 0.5])
    assert of["linear"].tolist() == pytest.approx([0.35, 0.35 + 0.15 * 0.25, 0.5])
    constant = threshold(stds, times, schedule="std", **{**ends, "high": 0.35})
    assert constant.tolist() == pytest.approx([0.35] * 3)
    one = threshold(stds[:1], times[:1], schedule="std", **{**ends, "stds": stds[:1]})
    assert one.tolist() == pytest.approx([0.35])


def test_impossible_thresholds_are_one_line():
    step = torch.tensor([0.1]), torch.tensor([1])
    with pytest.raises(ValueError, match=r"got thresholds 0\.5 and 0\.3; expected 0 <= low <= high < 1"):
        threshold(*step, low=0.5, high=0.3, stds=step[0], times=step[1], schedule="std")
    with pytest.raises(ValueError, match=r"got schedule 'sigma'; expected one of std, variance, linear"):
        threshold(*step, low=0.3, high=0.5, stds=step[0], times=step[1], schedule="sigma")


def test_a_clipped_ratio_is_the_log_of_the_clipped_quotient_and_has_no_gradient_beyond():
    ratio = torch.tensor([-0.5, -0.05, 0.0, 0.05, 0.5], requires_grad=True)
    found = clipped(ratio, 0.1)
    torch.testing.assert_close(found, ratio.exp().clamp(0.9, 1.1).log())
    found.sum().backward()
    assert ratio.grad.tolist() == [0, 1, 1, 1, 0]


def test_the_loss_is_ln_2_at_the_reference_and_by_hand_elsewhere():
    zero = torch.zeros(1)
    assert float(candidate_preference(zero, zero, beta=500, clip=0.1)) == pytest.approx(math.log(2))
    found = candidate_preference(torch.tensor([0.002]), torch.tensor([-0.001]), beta=500, clip=0.1)
    assert float(found) == pytest.approx(math.log(1 + math.exp(-1.5)))


def test_candidates_of_one_state_need_one_mean():
    """[log r_w - log r_l] = <w - l, mu - mu_ref> / (D sigma^2), mean-reduced; in fp64-like precision."""
    draw = torch.Generator().manual_seed(0)
    mean, other, win, lose = (torch.randn(3, 4, 8, 8, generator=draw) for _ in range(4))
    other = mean + 0.01 * other
    std = torch.tensor([0.2, 0.5, 0.9]).view(-1, 1, 1, 1)
    p, q = Gaussian(mean, std), Gaussian(other, std)
    general = (p.log_prob(win) - q.log_prob(win)) - (p.log_prob(lose) - q.log_prob(lose))
    identity = ((win - lose) * (mean - other)).flatten(1).mean(1) / std.flatten().square()
    torch.testing.assert_close(general, identity, rtol=1e-3, atol=1e-5)


def test_advantages_are_standard_scores_and_0_at_a_tie():
    found = group_advantages(torch.tensor([[0.0, 2.0], [5.0, 5.0]]))
    assert found.tolist() == [[-1, 1], [0, 0]]


def test_the_surrogate_takes_the_worse_of_both():
    """A good candidate earns no more than 1 + clip; a bad one is punished in full."""
    ratio = torch.log(torch.tensor([[1.5, 1.5]]))
    loss = clipped_surrogate(ratio, torch.tensor([[1.0, -1.0]]), clip=0.2)
    assert float(loss) == pytest.approx(-(1.2 - 1.5) / 2)
