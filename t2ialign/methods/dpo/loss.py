"""One step of Diffusion-DPO as pure functions: what is drawn, and the loss of the residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from t2ialign import objectives
from t2ialign.data.cache.stored import Pairs
from t2ialign.diffusion.noise import Key, normal_rows, uniform_rows
from t2ialign.methods.dpo.remembered import Place
from t2ialign.models.base import Policy
from t2ialign.objectives.preference import denoising_ratio, mean_square, wins
from t2ialign.objectives.safeguard import loser_scale, scale_gradient
from t2ialign.objectives.weighting import Discount

if TYPE_CHECKING:
    from t2ialign.methods.dpo.config import Config

LEVEL, NOISE, LATENT, CAPTION = range(4)
"""Last parts of a row's random keys: of its timestep, its noise, its draw from the image encoder, and of
whether its caption is dropped."""


@dataclass(frozen=True)
class Batch:
    """Pairs with one timestep and one noise each, shared by both images: only the images may differ."""

    pairs: Pairs
    t: Tensor
    """(B,) training times"""
    eps: Tensor
    """(B, C, h, w)"""
    places: tuple[Place, ...] = ()
    """The B places of their draws among those that come again; none where all are drawn anew."""

    def residuals(self, policy: Policy) -> tuple[Tensor, Tensor]:
        """Network output minus target for winner and loser, (B, C, h, w) each, from one forward of 2B."""
        x_0, cond = self.pairs.both(policy)
        win, lose = policy.residual(x_0, self.eps.repeat(2, 1, 1, 1), self.t.repeat(2), cond).chunk(2)
        return win, lose

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return replace(self, pairs=self.pairs.to(device), t=self.t.to(device), eps=self.eps.to(device))

    def rows(self, rows: list[int]) -> Batch:
        """Some of its rows."""
        places = tuple(self.places[row] for row in rows) if self.places else ()
        return Batch(self.pairs.rows(rows), self.t[rows], self.eps[rows], places)


def draw(cfg: Config, discount: Discount, pairs: Pairs, keys: Sequence[Key]) -> Batch:
    """Add a time and a noise to each pair; row i depends on keys[i] only."""
    u = uniform_rows([(*key, LEVEL) for key in keys])
    t = discount.times(u) if cfg.discount == "sample" else discount.draw(u)
    return Batch(pairs, t, normal_rows(pairs.win.shape[1:], [(*key, NOISE) for key in keys]))


def drop_captions(rate: float, policy: Policy, pairs: Pairs, keys: Sequence[Key]) -> Pairs:
    """Give a pair the empty prompt with probability `rate`; row i depends on keys[i] only."""
    if not rate:
        return pairs
    dropped = uniform_rows([(*key, CAPTION) for key in keys]) < rate
    empty = policy.null_cond(pairs.cond)
    cond = {
        name: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), empty[name], value)
        for name, value in pairs.cond.items()
    }
    return replace(pairs, cond=cond)


def reference_loss(
    cfg: Config, policy: tuple[Tensor, Tensor], reference: Tensor, weight: Tensor | float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Residuals (B, C, h, w) of winner and loser under the policy, their errors (B, 2) under the reference,
    and the weight (B,) inside the sigmoid -> losses (B,), metrics.

    Without safeguard and discount it is the released -log sigmoid(-beta / 2 (drop_win - drop_lose)).
    """
    (err_win, err_lose), scale = guarded_errors(cfg, *policy)
    ref_win, ref_lose = reference.unbind(1)
    r_win, r_lose = denoising_ratio(err_win, ref_win), denoising_ratio(err_lose, ref_lose)
    losses = objectives.load(cfg.loss)(r_win, r_lose, beta=cfg.beta, weight=weight)
    return losses, {
        "implicit_acc": wins(r_win - r_lose),
        "margin": cfg.beta * (r_win - r_lose),
        "err_win_minus_ref": err_win - ref_win,
        "err_lose_minus_ref": err_lose - ref_lose,
        "loser_scale": scale,
    }


def reference_free_loss(
    cfg: Config, win: Tensor, lose: Tensor, weight: Tensor | float, *, num_train_timesteps: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """MaPO, or another loss on errors, of residuals (B, C, h, w) of winner and loser, and the weight (B,)
    inside the sigmoid -> losses (B,), metrics.
    """
    (err_win, err_lose), scale = guarded_errors(cfg, win, lose)
    loss = objectives.load(cfg.loss)
    losses = loss(err_win, err_lose, beta=cfg.mapo_beta, T=num_train_timesteps, weight=weight)
    metrics = {"implicit_acc": wins(err_lose - err_win), "margin": err_lose - err_win}
    return losses, {**metrics, "err_win": err_win, "err_lose": err_lose, "loser_scale": scale}


def guarded_errors(cfg: Config, win: Tensor, lose: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Mean squared errors (B,) of both, the loser's gradient scaled by lambda (B,), and lambda."""
    err_win, err_lose = mean_square(win), mean_square(lose)
    if not cfg.safeguard:
        return (err_win, err_lose), torch.ones_like(err_win)
    scale = loser_scale(win, lose, mu=cfg.safeguard)
    return (err_win, scale_gradient(err_lose, scale)), scale


def discount_weight(cfg: Config, discount: Discount, t: Tensor) -> Tensor | float:
    """The weight inside the sigmoid, (B,): 1 when gamma acts on the draw of t instead."""
    return 1.0 if cfg.discount == "sample" or cfg.gamma == 1 else discount.weight(t)
