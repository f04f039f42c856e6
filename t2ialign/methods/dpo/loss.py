"""The loss of one step of Diffusion-DPO as pure functions of residuals, and how its times are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from t2ialign import objectives
from t2ialign.objectives.preference import denoising_ratio, mean_square, wins
from t2ialign.objectives.safeguard import loser_scale, scale_gradient
from t2ialign.objectives.weighting import Discount

if TYPE_CHECKING:
    from t2ialign.data.cache.stored import Pairs
    from t2ialign.methods.dpo.config import Config

NONE: Mapping[str, Any] = MappingProxyType({})


def labels_of(cfg: Config, pairs: Pairs) -> dict[str, Any]:
    """What the loss reads of the labels of B pairs, by its parameters."""
    if cfg.loss in objectives.names(objectives.TIES):
        return {"tied": pairs.preference == 0.5, "tie_width": cfg.tie_width}
    if cfg.loss in objectives.names(objectives.MARGINS):
        return {"margin": cfg.margin_scale * pairs.margin}
    return {}


def draw_times(cfg: Config, discount: Discount, u: Tensor) -> Tensor:
    """u (B,) uniform in [0, 1) -> training times (B,)."""
    return discount.times(u) if cfg.discount == "sample" else discount.draw(u)


def reference_loss(
    cfg: Config,
    policy: tuple[Tensor, Tensor],
    reference: Tensor,
    weight: Tensor | float,
    labels: Mapping[str, Any] = NONE,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Residuals (B, C, h, w) of winner and loser under the policy, their errors (B, 2) under the reference,
    the weight (B,) inside the sigmoid, and what the loss reads of the labels -> losses (B,), metrics.

    Without safeguard and discount it is the released -log sigmoid(-beta / 2 (drop_win - drop_lose)).
    """
    (err_win, err_lose), scale = guarded_errors(cfg, *policy)
    ref_win, ref_lose = reference.unbind(1)
    r_win, r_lose = denoising_ratio(err_win, ref_win), denoising_ratio(err_lose, ref_lose)
    losses = objectives.load(cfg.loss)(r_win, r_lose, beta=cfg.beta, weight=weight, **labels)
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
