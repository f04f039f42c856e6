"""Who beats whom on a table of candidates and rewards, worked out by hand; ties are ties."""

import pytest
import torch

from rewards.tables import group_rank, majority_vote, pareto_dominance, pareto_front, pareto_rank, preferences

# Four candidates, three rewards: the first beats the third everywhere, the fourth equals the first.
TABLE = torch.tensor([[3.0, 2.0, 2.0], [1.0, 5.0, 0.0], [2.0, 1.0, 2.0], [3.0, 2.0, 2.0]])


def test_dominance_by_hand():
    assert preferences(pareto_dominance(TABLE)).tolist() == [[0, 2], [3, 2]]
    assert pareto_front(TABLE).tolist() == [True, True, False, True]
    assert pareto_rank(TABLE).tolist() == [0, 0, 1, 0]
    assert pareto_rank(torch.tensor([[1.0], [3.0], [2.0], [3.0]])).tolist() == [2, 0, 1, 0]


def test_dominance_is_a_strict_order():
    table = torch.randint(0, 4, (40, 3), generator=torch.Generator().manual_seed(0)).float()
    beats = pareto_dominance(table).float()
    assert not beats.diagonal().any()
    assert not (beats * beats.T).any(), "nobody beats whom he is beaten by"
    assert ((beats @ beats > 0) <= (beats > 0)).all(), "transitive"
    rank = pareto_rank(table)
    assert (rank[pareto_dominance(table).nonzero()].diff(dim=1) > 0).all(), "the beaten rank later"
    assert torch.equal(rank == 0, pareto_front(table))


def test_votes_by_hand():
    votes = majority_vote(TABLE)
    assert torch.equal(votes, -votes.T)
    assert votes[0].tolist() == [0, 1, 1, 0]  # two of three rewards against the second; the third column ties
    assert votes[1].tolist() == [-1, 0, -1, -1]
    assert preferences(votes).tolist() == [[0, 1], [0, 2], [2, 1], [3, 1], [3, 2]]
    assert majority_vote(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == [[0, 0], [0, 0]]


def test_votes_may_go_in_circles():
    votes = majority_vote(torch.tensor([[3.0, 1.0, 2.0], [2.0, 3.0, 1.0], [1.0, 2.0, 3.0]]))
    assert (votes[0, 1], votes[1, 2], votes[2, 0]) == (1, 1, 1)


def test_group_rank_by_hand_and_free_of_units():
    assert group_rank(torch.tensor([[1.0], [3.0], [2.0]])).tolist() == [0.0, 1.0, 0.5]
    assert group_rank(torch.tensor([[5.0], [5.0], [1.0]])).tolist() == [0.75, 0.75, 0.0]
    assert group_rank(torch.ones(4, 2)).tolist() == [0.5] * 4
    assert group_rank(TABLE).mean().item() == pytest.approx(0.5)
    stretched = torch.stack([TABLE[:, 0].exp(), 7 * TABLE[:, 1] - 3, TABLE[:, 2] ** 3], dim=1)
    assert torch.equal(group_rank(stretched), group_rank(TABLE))


@pytest.mark.parametrize("rule", [pareto_dominance, pareto_front, pareto_rank, majority_vote, group_rank])
def test_a_reward_that_failed_is_no_score(rule):
    with pytest.raises(ValueError, match=r"got a table of shape \(2, 1\), 1 NaN"):
        rule(torch.tensor([[1.0], [float("nan")]]))
    with pytest.raises(ValueError, match="expected numbers"):
        rule(torch.ones(3))


def test_a_rank_needs_company():
    with pytest.raises(ValueError, match="got 1 candidate; expected 2"):
        group_rank(torch.ones(1, 2))
