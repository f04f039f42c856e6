"""Training of PAL heads: all of it on the votes of seen users, a mixture only for a new one; and files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rewards.scorers.pal import Pal, Votes

NEAR = 0.9
"""The share of the way from the population's mean to a prototype where `fit_user` starts other searches."""


@dataclass(frozen=True)
class Schedule:
    """Settings of training a head with AdamW, with the published values. Warm-up is a share of the steps."""

    epochs: int = 20
    batch_size: int = 4
    lr: float = 1e-4
    """The learning rate of the projectors, with `weight_decay`; the others have none."""
    lr_users: float = 5e-3
    """The learning rate of mixtures and prototypes."""
    lr_scale: float = 1e-1
    weight_decay: float = 0.01
    warmup: float = 0.1
    seed: int = 0


def fit(pal: Pal, votes: Votes, schedule: Schedule | None = None) -> list[float]:
    """Train every weight of a head in place on seen users' votes -> the mean loss of each epoch.

    The head must be where the votes are. Raises ValueError for a user it has no mixture for.
    """
    s = schedule or Schedule()
    if len(votes) == 0 or int(votes.user.max()) >= len(pal.logits) or int(votes.user.min()) < 0:
        raise ValueError(f"got {len(votes)} votes of users outside 0..{len(pal.logits) - 1}; expected some")
    optimizer = torch.optim.AdamW(_groups(pal, s))
    steps = s.epochs * math.ceil(len(votes) / s.batch_size)
    ramp = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / max(1.0, s.warmup * steps))
    )
    generator = torch.Generator().manual_seed(s.seed)
    losses = []
    pal.train()
    for _ in range(s.epochs):
        order = torch.randperm(len(votes), generator=generator).to(votes.user.device)
        total = 0.0
        for rows in torch.split(order, s.batch_size):
            batch = votes[rows]
            ideal = pal.ideal(pal.logits[batch.user].softmax(-1), batch.text)
            margin = pal.closeness(pal.project(batch.right), ideal)
            margin = margin - pal.closeness(pal.project(batch.left), ideal)
            loss = pal.loss(margin, batch.right_wins.to(margin.dtype)).mean()
            optimizer.zero_grad()
            torch.autograd.backward([loss + pal.bound(ideal).mean()])
            optimizer.step()
            ramp.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / len(votes))
    pal.eval()
    return losses


def _groups(pal: Pal, s: Schedule) -> list[dict[str, object]]:
    """Every parameter in one group, by what it is. A tensor that no optimiser can move is our own bug."""
    named = dict(pal.named_parameters())
    trainable = all(p.is_leaf and p.requires_grad for p in named.values())
    assert trainable, "a parameter of the head would not train"
    rates = {"logits": s.lr_users, "prototypes": s.lr_users, "scale": s.lr_scale}
    groups: list[dict[str, object]] = [
        {"params": [p], "lr": rates[name], "weight_decay": 0.0} for name, p in named.items() if name in rates
    ]
    rest = [p for name, p in named.items() if name not in rates]
    return [*groups, {"params": rest, "lr": s.lr, "weight_decay": s.weight_decay}]


def fit_user(
    pal: Pal,
    votes: Votes,
    *,
    prior: float = 1.0,
    kind: Literal["entropy", "l2"] = "entropy",
    steps: int = 300,
    lr: float = 0.05,
) -> Tensor:
    """A new voter's mixture (K,) from a few votes, all else frozen; `votes.user` is not read.

    Minimises the sum of the votes' losses plus `prior` times the distance to the population's mean mixture:
    the relative entropy, or the squared distance of the centred logits. Without votes it is that mean. The
    sum has local minima, so the search starts at the mean and near each prototype, and the lowest end wins.
    Raises ValueError for a negative prior or another kind.
    """
    if prior < 0 or kind not in ("entropy", "l2"):
        raise ValueError(f"got prior {prior}, kind {kind!r}; expected >= 0, and entropy or l2; change it")
    mean = pal.population()
    if not len(votes):
        return mean
    pal.eval()
    with torch.no_grad():
        left, right = pal.project(votes.left), pal.project(votes.right)
    wins, anchor = votes.right_wins.to(left.dtype), _centred(mean.log())

    def cost(logits: Tensor) -> Tensor:
        mixture = logits.softmax(-1)
        ideal = pal.ideal(mixture.expand(len(votes), -1), votes.text)
        margin = pal.closeness(right, ideal) - pal.closeness(left, ideal)
        if kind == "entropy":
            distance = (mixture * (logits.log_softmax(-1) - mean.log())).sum()
        else:
            distance = (_centred(logits) - anchor).square().sum()
        return pal.loss(margin, wins).sum() + prior * distance

    ends = []
    for start in (mean, *torch.lerp(mean.expand(len(mean), -1), torch.eye(len(mean)).to(mean), NEAR)):
        logits = _centred(start.log()).requires_grad_()
        optimizer = torch.optim.AdamW([logits], lr=lr, weight_decay=0.0)
        for _ in range(steps):
            (logits.grad,) = torch.autograd.grad(cost(logits), [logits])
            optimizer.step()
        ends.append(logits.detach())
    with torch.no_grad():
        return min(ends, key=lambda end: float(cost(end))).softmax(-1)


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean()
