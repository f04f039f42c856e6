"""The losses of rows: the clipped policy gradient, NFT's contrast, AWM's matching, and distances."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from t2ialign.diffusion.kernels import Kernel
from t2ialign.diffusion.path import target
from t2ialign.diffusion.transition import Gaussian
from t2ialign.methods.grpo.former import in_place_of
from t2ialign.methods.grpo.rows import Batch
from t2ialign.models.base import Policy
from t2ialign.objectives.forward_process import matching_log_prob, nft
from t2ialign.objectives.preference import mean_square
from t2ialign.objectives.stepwise import clipped_surrogate
from t2ialign.training.state import TrainState

if TYPE_CHECKING:
    from t2ialign.methods.grpo.config import Config


class Losses:
    """The settings' loss of rows. kernel: of the sampled steps."""

    def __init__(self, cfg: Config, policy: Policy, state: TrainState, kernel: Kernel) -> None:
        self.cfg, self.policy, self.state, self.kernel = cfg, policy, state, kernel
        self.former: Mapping[str, Tensor] = {}
        """The weights that sampled the round, which nft contrasts with."""
        self.log_probs: Tensor | None = None
        """log p by the place of a row, under the weights at the start of the round."""

    def __call__(self, batch: Batch, *, first: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (B,) and what to log of them. first: of the first update of a round."""
        cfg = self.cfg
        if not batch.live:  # rows that teach nothing take no forward
            nothing = torch.stack([parameter.sum() for parameter in self.state.parameters]).sum() * 0
            return nothing + torch.zeros_like(batch.advantages), {}
        others = self._others(batch)  # first: a swap of weights would spoil the graph of `out`
        out = self._out(batch)
        if "former" in others:
            losses, seen = self._contrast(out, others["former"], batch), dict[str, Tensor]()
        else:
            losses, seen = self._surrogate(self._log_prob(out, batch), batch, first=first)
        if "reference" in others:
            seen["kl"] = self._distance(out, others["reference"], batch)
            losses = losses + cfg.kl_weight * seen["kl"]
        if "average" in others:
            seen["ema_kl"] = mean_square(out - others["average"])
            losses = losses + cfg.ema_kl_weight * seen["ema_kl"]
        return losses, {"advantage_size": batch.advantages.abs(), **seen}

    def _others(self, batch: Batch) -> dict[str, Tensor]:
        """What the same network predicts of the rows with the other weights that the settings need."""
        outs = {}
        if self.cfg.loss == "nft":
            with self.sampling(self.former):
                outs["former"] = self._out(batch)
        if self.cfg.kl_weight:
            with self.policy.reference():
                outs["reference"] = self._out(batch)
        if self.cfg.ema_kl_weight:
            assert self.state.ema is not None, "the settings ask for ema"
            with in_place_of(self.state.parameters, self.state.ema.shadow_params):
                outs["average"] = self._out(batch)
        return outs

    @torch.no_grad()
    def log_prob(self, batch: Batch) -> Tensor:
        """log p (B,) of the rows under the weights at hand."""
        return self._log_prob(self._out(batch), batch)

    def sampling(self, weights: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Within this block the policy has the weights that sample."""
        return in_place_of(self.state.parameters, [weights[name] for name in self.state.names])

    def _out(self, batch: Batch) -> Tensor:
        return self.policy.guided(batch.x_t, batch.t, batch.cond, self.cfg.guidance_scale)

    def _surrogate(self, log_prob: Tensor, batch: Batch, *, first: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO's clipped loss; in the first update of a round the ratio is 1 and its gradient log p's."""
        before = log_prob.detach()
        if self.log_probs is not None and not first:
            before = self.log_probs[batch.places].to(log_prob.device)
        ratio, a = log_prob - before, batch.advantages
        scale = self.cfg.advantage_clip if self.cfg.loss == "awm" else 1.0
        clip = self.cfg.clip or math.inf
        losses = clipped_surrogate(ratio[:, None], a[:, None] / scale, clip=clip)
        size = (ratio.detach().exp() - 1).abs()
        return losses, {"ratio_size": size, "clipfrac": (size > clip).float()}

    def _log_prob(self, out: Tensor, batch: Batch) -> Tensor:
        """log p (B,) of the rows: of a step's density, of cps's squares, or by awm of the matching error."""
        if self.cfg.loss == "ratio":
            p = self._step(out, batch)
            # The code of Flow-GRPO has no deviation in it for cps, and its clip ranges are for that.
            return -mean_square(batch.goal - p.mean) if self.cfg.kernel == "cps" else p.log_prob(batch.goal)
        alpha, sigma = self.policy.path(batch.t)
        shape = (-1, 1, 1, 1)
        wanted = target(self.policy.kind, batch.goal, batch.eps, alpha.view(shape), sigma.view(shape))
        return matching_log_prob(mean_square(out - wanted), sigma)

    def _step(self, out: Tensor, batch: Batch) -> Gaussian:
        return self.policy.transition(out, batch.x_t, batch.t, batch.s, kernel=self.kernel)

    def _contrast(self, out: Tensor, former: Tensor, batch: Batch) -> Tensor:
        """NFT's loss (B,), of the x_0 that the policy and the one that sampled predict."""
        new, old = (self.policy.posterior_mean(one, batch.x_t, batch.t) for one in (out, former))
        cfg = self.cfg
        return nft(batch.goal, new, old, batch.advantages, beta=cfg.nft_beta, largest=cfg.advantage_clip)

    def _distance(self, out: Tensor, other: Tensor, batch: Batch) -> Tensor:
        """The distance (B,) of two outputs: the Kullback-Leibler divergence of a step, or the mean square."""
        if self.cfg.kl_space == "v":
            return mean_square(out - other)
        p, q = self._step(out, batch), self._step(other, batch)
        return mean_square(p.mean - q.mean) / (2 * p.std.flatten().square())
