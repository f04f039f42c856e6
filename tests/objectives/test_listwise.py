"""Rankings: Plackett-Luce against its definition, clipped ratios as gates."""

import itertools
import math

import pytest
import torch

from t2ialign.objectives.listwise import best_first, clipped_ratio, plackett_luce, trajectory_logits
from t2ialign.objectives.preference import dpo


def test_by_hand():
    """exp(logits) = 3, 2, 1: p(order) = 3/6 x 2/3 x 1 = 1/3, so the loss is log 3."""
    logits = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64).log()
    assert plackett_luce(logits).item() == pytest.approx(math.log(3))


def test_equal_logits_cost_log_of_the_number_of_orders():
    torch.testing.assert_close(plackett_luce(torch.zeros(2, 5)), torch.full((2,), math.log(120)))


def test_all_orders_have_probability_one():
    logits = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    assert (-plackett_luce(logits[orders])).exp().sum().item() == pytest.approx(1)


def test_two_items_are_bradley_terry():
    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(plackett_luce(logits), dpo(logits[:, 0], logits[:, 1], beta=1.0))


def test_gradients_are_finite_differences():
    r = torch.tensor([[[0.3, -0.2], [0.1, 0.4], [-0.3, 0.05]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: plackett_luce(trajectory_logits(x, temperature=10.0, clip=1.0)), (r,)
    )


def test_large_logits_stay_finite():
    logits = torch.tensor([[-1e4, 0.0, 1e4]], requires_grad=True)
    loss = plackett_luce(logits)
    loss.sum().backward()
    assert loss.item() == 3e4 and logits.grad is not None and logits.grad.isfinite().all()


def test_trajectory_logits_by_hand():
    """C = 10, clip .1: ratios .02, .3 -> (.02 + .1) / 2 x 10 = .6; the clipped step gets no gradient."""
    r = torch.tensor([[[0.02, 0.3]]], requires_grad=True)
    logits = trajectory_logits(r, temperature=10.0, clip=0.1)
    assert logits.shape == (1, 1) and logits.item() == pytest.approx(0.6)
    logits.sum().backward()
    assert r.grad is not None and r.grad.flatten().tolist() == [5, 0]


def test_published_settings_stay_near_equal_logits():
    """C = 10 and clip 1e-4 bound a logit by 1e-3, so the loss of a pair stays within 1e-3 of ln 2."""
    r = torch.randn(100, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = plackett_luce(trajectory_logits(r, temperature=10.0, clip=1e-4))
    assert (loss - math.log(2)).abs().max() <= 1e-3 + 1e-6


def test_best_first_sorts_and_breaks_ties_by_chance():
    scores = torch.tensor([[1.0, 3.0, 2.0, 3.0]]).expand(400, 4)
    order = best_first(scores, torch.rand(400, 4, generator=torch.Generator().manual_seed(0)))
    assert (scores.gather(1, order) == torch.tensor([3.0, 3.0, 2.0, 1.0])).all()
    share = (order[:, 0] == 1).float().mean()  # fair coin: .5 +- 4 x .025
    assert 0.4 < share < 0.6
    assert order[0].sort().values.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_clip_must_be_positive(clip):
    with pytest.raises(ValueError, match="expected a positive bound"):
        clipped_ratio(torch.zeros(1), clip)
