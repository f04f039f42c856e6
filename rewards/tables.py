"""Rules on a table of K candidates and R rewards, higher is better: who beats whom, and in which order.

They compare candidates of one prompt and are not rewards. Scores that are equal are a tie, never an order.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pareto_dominance(table: Tensor) -> Tensor:
    """(K, R) -> bool (K, K): [i, j] where i is no worse than j in every reward and better in one.

    Raises ValueError for another shape and for NaN. Keeping such pairs only trades no reward for another:
    https://arxiv.org/abs/2412.21059
    """
    _check(table)
    one, other = table[:, None], table[None]
    return (one >= other).all(-1) & (one > other).any(-1)


def pareto_front(table: Tensor) -> Tensor:
    """(K, R) -> bool (K,): the candidates that nobody dominates; equal ones are in or out together."""
    return ~pareto_dominance(table).any(0)


def pareto_rank(table: Tensor) -> Tensor:
    """(K, R) -> int (K,): 0 for the front, 1 for the front of the rest, and so on."""
    beats = pareto_dominance(table)
    rank = torch.full((len(table),), -1, dtype=torch.int64, device=table.device)
    for level in range(len(table)):
        left = rank < 0
        front = left & ~(beats & left[:, None]).any(0)
        rank[front] = level
    return rank


def majority_vote(table: Tensor) -> Tensor:
    """(K, R) -> int (K, K) in {-1, 0, 1}: whether more rewards prefer i to j than j to i; 0 is a tie.

    A reward that scores both the same abstains. May go in circles (Condorcet), as votes do.
    """
    _check(table)
    return (table[:, None] - table[None]).sign().sum(-1).sign().long()


def group_rank(table: Tensor) -> Tensor:
    """(K, R) -> (K,) in [0, 1]: mean over rewards of the share of other candidates beaten, ties half.

    Free of the rewards' units; 1 is best in all, 0.5 for everybody where all are equal. Raises ValueError
    for fewer than two candidates.
    """
    _check(table)
    if len(table) < 2:
        raise ValueError(
            f"got {len(table)} candidate; expected 2 or more; a rank compares candidates, so add one"
        )
    one, other = table[:, None], table[None]
    beaten = (one > other).float() + (one == other).float() / 2
    return (beaten.sum(1) - 0.5).mean(-1) / (len(table) - 1)


def preferences(beats: Tensor) -> Tensor:
    """A dominance or vote matrix (K, K) -> pairs (P, 2) of (winner, loser), ties left out."""
    return (beats > 0).nonzero()


def _check(table: Tensor) -> None:
    if table.ndim != 2 or not table.numel() or table.isnan().any():
        raise ValueError(
            f"got a table of shape {tuple(table.shape)}, {int(table.isnan().sum())} NaN; expected numbers "
            "(candidates, rewards); stack one column a reward and drop what failed"
        )
