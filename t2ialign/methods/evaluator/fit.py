"""Fitting of the light head of `evaluator_head.py` to pairs of image and key point with known answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.keypoints.evaluator_head import Features, MatchHead


@dataclass(frozen=True)
class Schedule:
    """The fit of a head with AdamW; `held_out` is the share of prompts that decide when to stop."""

    epochs: int = 60
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.1
    width: int = 256
    held_out: float = 0.2
    patience: int = 10
    """Epochs without a better held-out loss after which it stops."""
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """A fitted head and its accuracy on prompts that it was not fitted to."""

    head: MatchHead
    losses: list[float]
    """The held-out loss of each epoch; the head is that of the least."""
    accuracy: float | None
    """`balanced_accuracy` on the held-out prompts; None where no kind has both labels there."""


def fit(
    features: Features,
    labels: Tensor,
    prompts: Sequence[Hashable],
    schedule: Schedule | None = None,
    *,
    after_epoch: Callable[[float], object] | None = None,
) -> Fit:
    """N pairs, whether each matches (N,) of 0 and 1, and the prompt of each -> the head, in eval mode.

    All pairs of a prompt are held out or none. Within a kind, matches weigh as much as mismatches, so that no
    kind's base rate is learned. `after_epoch` is called with each held-out loss. Raises ValueError for counts
    that differ, for other labels, and unless both parts have both labels.
    """
    s = schedule or Schedule()
    _check(features, labels, prompts)
    labels = labels.to(features.image)
    held = torch.tensor(_held_out(prompts, s), device=labels.device)
    for name, part in (("held out", held), ("left to fit", ~held)):
        if len(set(labels[part].tolist())) < 2:
            raise ValueError(f"got pairs {name} of one label; expected both; pass more prompts or pairs")
    weights = _weights(features.kind, labels)
    seen, rest = features[~held], features[held]
    losses: list[float] = []
    with torch.random.fork_rng(devices=[labels.device] if labels.is_cuda else []):  # dropout draws there
        torch.manual_seed(s.seed)
        head = MatchHead(features.image.shape[-1], width=s.width).to(labels.device)
        head.scale_to(seen)
        best = copy.deepcopy(head.state_dict())
        optimizer = torch.optim.AdamW(head.parameters(), lr=s.lr, weight_decay=s.weight_decay)
        while len(losses) < s.epochs and len(losses) - _place_of_least(losses) <= s.patience:
            _epoch(head, optimizer, seen, labels[~held], weights[~held], s.batch_size)
            with torch.no_grad():
                losses.append(float(_loss(head(rest), labels[held], weights[held])))
            if losses[-1] == min(losses):
                best = copy.deepcopy(head.state_dict())
            if after_epoch is not None:
                after_epoch(losses[-1])
    head.load_state_dict(best)
    head.requires_grad_(False)
    return Fit(head, losses, balanced_accuracy(head(rest), labels[held], rest.kind))


def balanced_accuracy(odds: Tensor, labels: Tensor, kind: Tensor) -> float | None:
    """Log-odds, labels of 0 and 1, kinds, all (N,) -> the share that is right, in [0, 1]; 0.5 is chance.

    For each kind the mean of the shares of matches and of mismatches that are right, averaged over pairs;
    kinds with one label only are left out. None if that leaves none.
    """
    weights = _weights(kind, labels)
    both = weights != 0.5  # a label that is alone in its kind has half the weight of the kind
    right = ((odds > 0) == (labels > 0.5)).to(weights)
    return float((right * weights)[both].sum() / weights[both].sum()) if both.any() else None


def _epoch(
    head: MatchHead,
    optimizer: torch.optim.Optimizer,
    seen: Features,
    labels: Tensor,
    weights: Tensor,
    batch_size: int,
) -> None:
    """All pairs once, in random order; the head is in eval mode before and after."""
    head.train()
    for rows in torch.split(torch.randperm(len(seen)).to(labels.device), batch_size):
        optimizer.zero_grad()
        torch.autograd.backward([_loss(head(seen[rows]), labels[rows], weights[rows])])
        optimizer.step()
    head.eval()


def _place_of_least(losses: list[float]) -> int:
    return losses.index(min(losses)) + 1 if losses else 0


def _loss(odds: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(odds, labels, weights)


def _weights(kind: Tensor, labels: Tensor) -> Tensor:
    """(N,) with mean 1 within a kind that has both labels: half of it on either label."""
    cell = 2 * kind + labels.long()
    in_cell, in_kind = torch.bincount(cell), torch.bincount(kind)
    return in_kind[kind] / (2 * in_cell[cell])


def _held_out(prompts: Sequence[Hashable], s: Schedule) -> list[bool]:
    """Whether each pair belongs to a prompt that is held out; at least one prompt is."""
    unique = list(dict.fromkeys(prompts))
    order = torch.randperm(len(unique), generator=torch.Generator().manual_seed(s.seed)).tolist()
    chosen = {unique[place] for place in order[: max(1, round(s.held_out * len(unique)))]}
    return [prompt in chosen for prompt in prompts]


def _check(features: Features, labels: Tensor, prompts: Sequence[Hashable]) -> None:
    count = len(features)
    if labels.shape != (count,) or len(prompts) != count or not count:
        raise ValueError(
            f"got {count} pairs, labels {tuple(labels.shape)} and {len(prompts)} prompts; expected as many "
            "of each, and some; pair them"
        )
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError(
            "got labels that are neither 0 nor 1; expected whether each pair matches; round them"
        )
