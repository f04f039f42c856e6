"""PAL: a reward of many tastes. A voter is a mixture of K shared prototypes, a new one costs K numbers.

Heads on frozen embeddings of a two-tower scorer; unit embeddings of images, and of prompts for PAL-B.
Chen et al., "PAL: Sample-Efficient Personalized Reward Modeling for Pluralistic Alignment", ICLR 2025,
https://arxiv.org/abs/2406.08469
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Ideal = Literal["f(Pw)", "Pw", "f(P)w", "|f(P)|w"]
MAX_SCALE = 100.0


@dataclass(frozen=True)
class Votes:
    """N comparisons of two images of one prompt.

    user (N,) long; text (N, D), None if no head needs it; left and right (N, D); right_wins (N,) in [0, 1].
    """

    user: Tensor
    left: Tensor
    right: Tensor
    right_wins: Tensor
    text: Tensor | None = None

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: Tensor) -> Votes:
        """The votes of the given rows, an index or a mask."""
        text = None if self.text is None else self.text[rows]
        return Votes(self.user[rows], self.left[rows], self.right[rows], self.right_wins[rows], text)


class Projector(nn.Module):
    """The authors' "mlp2": two hidden layers as wide as the output, (B, D) -> (B, width).

    With `residual` the input is added, for which D must equal width. Raises ValueError if it does not.
    """

    def __init__(
        self, dim: int, width: int, *, act: Callable[[], nn.Module], residual: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if residual and dim != width:
            raise ValueError(f"got width {width} for inputs of {dim}; expected them equal; or residual=False")
        self.residual = residual
        self.layers = nn.Sequential(
            *(nn.Linear(dim, width), nn.Dropout(dropout), act()),
            *(nn.Linear(width, width), nn.Dropout(dropout), act()),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, width)"""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class Pal(nn.Module, ABC):
    """The base of PAL-A and PAL-B: voters as softmax mixtures of K prototypes, and training on votes."""

    def __init__(self, users: int, prototypes: int, max_norm: float) -> None:
        super().__init__()
        self.max_norm = max_norm
        self.logits = nn.Parameter(torch.randn(users, prototypes))

    @abstractmethod
    def project(self, image: Tensor) -> Tensor:
        """Unit image embeddings (B, D) -> the space of tastes (B, width)."""

    @abstractmethod
    def ideal(self, mixture: Tensor, text: Tensor | None) -> Tensor:
        """Mixtures (B, K) and prompt embeddings (B, D) -> the points that voters like best (B, width)."""

    @abstractmethod
    def closeness(self, projected: Tensor, ideal: Tensor) -> Tensor:
        """Projected images (B, width) and ideal points (B, width) -> rewards (B,), higher is better."""

    @abstractmethod
    def loss(self, margin: Tensor, right_wins: Tensor) -> Tensor:
        """Reward of right minus left (N,), labels (N,) in [0, 1] -> losses (N,)"""

    def reward(self, image: Tensor, text: Tensor | None, mixture: Tensor) -> Tensor:
        """Unit embeddings (B, D) of images and prompts, mixtures (B, K) or (K,) -> rewards (B,)"""
        return self.closeness(self.project(image), self.ideal(mixture.expand(len(image), -1), text))

    def margin(self, votes: Votes, mixture: Tensor | None = None) -> Tensor:
        """Reward of right minus left (N,), each vote by its own user's mixture, or all by `mixture` (K,)."""
        ideal = self.ideal(self._mixed(votes, mixture), votes.text)
        left, right = self.project(votes.left), self.project(votes.right)
        return self.closeness(right, ideal) - self.closeness(left, ideal)

    def mixtures(self) -> Tensor:
        """(users, K), rows on the simplex."""
        return self.logits.softmax(-1)

    def population(self) -> Tensor:
        """The mean mixture (K,): the reward of no voter in particular, and the prior of a new one."""
        return self.mixtures().detach().mean(0)

    @torch.no_grad()
    def accuracy(self, votes: Votes, mixture: Tensor | None = None) -> float:
        """Share of the votes with a winner that the head foresees, its own ties half, in [0, 1]."""
        decided = votes[votes.right_wins != 0.5]
        margin = self.margin(decided, mixture)
        credit = (margin.sign() * (2 * decided.right_wins - 1).sign() + 1) / 2
        return float(credit.mean())

    def _mixed(self, votes: Votes, mixture: Tensor | None) -> Tensor:
        if mixture is None:
            return self.logits[votes.user].softmax(-1)
        return mixture.expand(len(votes), -1)

    def bound(self, ideal: Tensor) -> Tensor:
        """The cost of ideal points (B, width) longer than `max_norm`: their excess length (B,)."""
        return F.relu(torch.linalg.vector_norm(ideal, dim=-1) - self.max_norm)


class PalA(Pal):
    """PAL-A: r(x) = -|f(x) - a|, one ideal point a for all prompts; hinge loss with margin 1.

    `form` says how a comes from prototypes P and mixture w: "f(Pw)" as published first, "Pw", "f(P)w" or
    "|f(P)|w", whose rows have length 1. The distance is not squared, as in the released code; the paper's is.
    """

    def __init__(
        self,
        dim: int,
        users: int,
        *,
        prototypes: int = 2,
        width: int = 512,
        form: Ideal = "f(Pw)",
        max_norm: float = 23.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(users, prototypes, max_norm)
        if form not in get_args(Ideal):
            raise ValueError(f"got form {form!r}; expected one of {', '.join(get_args(Ideal))}; choose one")
        self.form = form
        self.f = Projector(dim, width, act=nn.ReLU, residual=dim == width, dropout=dropout)
        size = width if form == "Pw" else dim
        self.prototypes = nn.Parameter(torch.randn(prototypes, size) / math.sqrt(size))

    def project(self, image: Tensor) -> Tensor:
        """(B, D) -> (B, width)"""
        projected: Tensor = self.f(image)
        return projected

    def ideal(self, mixture: Tensor, text: Tensor | None = None) -> Tensor:
        """Mixtures (B, K) -> (B, width); the prompt plays no part."""
        if self.form in ("f(Pw)", "Pw"):
            mixed = mixture @ self.prototypes
            return mixed if self.form == "Pw" else self.project(mixed)
        points = self.project(self.prototypes)
        if self.form == "|f(P)|w":
            points = F.normalize(points, dim=-1)
        return mixture @ points

    def closeness(self, projected: Tensor, ideal: Tensor) -> Tensor:
        """Minus the distance (B,)"""
        distance: Tensor = torch.linalg.vector_norm(projected - ideal, dim=-1)
        return -distance

    def loss(self, margin: Tensor, right_wins: Tensor) -> Tensor:
        """max(0, 1 - y margin) for y = 1 and -1, weighted by the label; (N,)"""
        return right_wins * F.relu(1 - margin) + (1 - right_wins) * F.relu(1 + margin)


class PalB(Pal):
    """PAL-B: r(x | c) = exp(l) cos(f(x), sum_k w_k g_k(c)), an ideal point for each prompt c; cross-entropy.

    exp(l) starts at 1 / 0.07 and is clamped at 100. A positive factor of f changes nothing.
    """

    def __init__(
        self,
        dim: int,
        users: int,
        *,
        prototypes: int = 2,
        width: int = 512,
        max_norm: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(users, prototypes, max_norm)
        self.f = Projector(dim, width, act=nn.GELU, residual=False, dropout=dropout)
        self.g = nn.ModuleList(
            Projector(dim, width, act=nn.GELU, residual=False, dropout=dropout) for _ in range(prototypes)
        )
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def project(self, image: Tensor) -> Tensor:
        """(B, D) -> (B, width)"""
        projected: Tensor = self.f(image)
        return projected

    def ideal(self, mixture: Tensor, text: Tensor | None) -> Tensor:
        """Mixtures (B, K), prompts (B, D) -> (B, width). Raises ValueError without prompts."""
        if text is None:
            raise ValueError("got no prompt embeddings; expected (B, D) for PAL-B; set text, or use PalA")
        points = torch.stack([g(text) for g in self.g], dim=1)
        return (mixture[..., None] * points).sum(1)

    def closeness(self, projected: Tensor, ideal: Tensor) -> Tensor:
        """The scaled cosine (B,)"""
        return self.scale.exp().clamp(max=MAX_SCALE) * F.cosine_similarity(projected, ideal, dim=-1)

    def loss(self, margin: Tensor, right_wins: Tensor) -> Tensor:
        """Cross-entropy of the softmax over the two images, soft labels included; (N,)"""
        return F.binary_cross_entropy_with_logits(margin, right_wins, reduction="none")
