"""Advantages on numbers worked out by hand, of one reward and of several."""

import math

import pytest
import torch

from rewards.combine import leave_one_out_quantile
from t2ialign.objectives.advantages import PromptStatistics, combined, over_round
from t2ialign.objectives.stepwise import group_advantages

SCORES = torch.tensor([[0.0, 2.0], [5.0, 5.0], [1.0, 3.0]])
"""Of three groups; the second is flat."""


def test_group_and_round() -> None:
    std = math.sqrt(
        ((0 - 8 / 3) ** 2 + (2 - 8 / 3) ** 2 + 2 * (5 - 8 / 3) ** 2 + (1 - 8 / 3) ** 2 + (3 - 8 / 3) ** 2) / 6
    )
    a = 1 / (std + 1e-4)
    torch.testing.assert_close(over_round(SCORES), torch.tensor([[-a, a], [0, 0], [-a, a]]))
    torch.testing.assert_close(group_advantages(SCORES), torch.tensor([[-1.0, 1], [0, 0], [-1, 1]]))


@pytest.mark.parametrize("standardise", [group_advantages, over_round])
def test_they_sum_to_zero_in_each_group(standardise) -> None:
    scores = torch.rand(7, 5, generator=torch.Generator().manual_seed(1)) * 30 + 100
    torch.testing.assert_close(standardise(scores).sum(1), torch.zeros(7), atol=1e-4, rtol=0)


def test_statistics_of_a_prompt_count_from_the_least_number_on() -> None:
    statistics = PromptStatistics(latest=4, least=3)
    first = torch.tensor([[1.0, 3.0], [10.0, 10.0]])
    statistics.add(["a", "b"], first)
    mean, std = 6.0, math.sqrt((25 + 9 + 16 + 16) / 4)  # too few of each: those of the round
    wanted = (first - mean) / std
    torch.testing.assert_close(statistics(["a", "b"], first), wanted)
    second = torch.tensor([[5.0, 7.0]])
    statistics.add(["a"], second)
    std = math.sqrt((9 + 1 + 1 + 9) / 4)  # of 1, 3, 5, 7 around 4
    torch.testing.assert_close(statistics(["a"], second), (second - 4) / std)
    third = torch.tensor([[7.0, 7.0]])
    statistics.add(["a"], third)  # of 5, 7, 7, 7: the oldest are forgotten
    torch.testing.assert_close(statistics(["a"], third), (third - 6.5) / math.sqrt(0.75))


def test_gdpo_keeps_a_reward_alive_that_the_sum_drowns() -> None:
    """One reward a hundred times as wide: in the sum of scores the other decides nothing."""
    wide = torch.tensor([[0.0, 100.0, 50.0]])
    narrow = torch.tensor([[1.0, 0.0, 0.0]])
    scores, weights, ways = torch.stack([wide, narrow]), torch.ones(2), [group_advantages] * 2
    a = math.sqrt(1.5)  # of 0, 100, 50; and 1, 0, 0 are 1.414, -0.707, -0.707
    total = torch.tensor([[-a + math.sqrt(2), a - math.sqrt(0.5), -math.sqrt(0.5)]])
    torch.testing.assert_close(combined(scores, weights, "advantages", ways), total)
    std = total.std(correction=0)
    torch.testing.assert_close(combined(scores, weights, "gdpo", ways), total / (std + 1e-4))
    summed = combined(scores, weights, "scores", ways)
    assert summed[0, 0] < -1.2 < combined(scores, weights, "gdpo", ways)[0, 0]


def test_log_sigmoid_counts_a_reward_less_that_is_ahead() -> None:
    """The same step up is worth more to the reward that lags behind the others of its group."""
    ahead = torch.tensor([[3.0, 0.0, 0.0, 0.0]])
    scores = torch.stack([ahead, ahead])
    references = torch.stack([leave_one_out_quantile(ahead)] * 2)
    same = combined(scores, torch.ones(2), "log_sigmoid", [lambda x: x] * 2, references)
    std = ahead.std(correction=0)
    first = 2 * torch.nn.functional.logsigmoid(3 / std)
    # The 0.85 quantile of 3, 0, 0 is 2.1, between the second and the first of three.
    rest = 2 * torch.nn.functional.logsigmoid(-2.1 / std)
    torch.testing.assert_close(same, torch.stack([first, rest, rest, rest])[None])


def test_weights_weigh() -> None:
    scores = torch.stack([SCORES, -SCORES])
    ways = [group_advantages] * 2
    both = combined(scores, torch.tensor([3.0, 1.0]), "advantages", ways)
    torch.testing.assert_close(both, 2 * group_advantages(SCORES))
