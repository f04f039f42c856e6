"""Presets give the numbers of the authors' released code, on values worked out by hand."""

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from t2ialign.diffusion.backprop import differentiable_sample, draw_plan
from t2ialign.diffusion.kernels import Kernel, ddim
from t2ialign.diffusion.noise import generator
from t2ialign.diffusion.path import to_x0_eps
from t2ialign.diffusion.schedule import path_table, timesteps
from t2ialign.diffusion.transition import Gaussian
from t2ialign.methods.backprop import trainer as backprop

SD15 = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "set_alpha_to_one": False,
    "clip_sample": False,
}


class Ones:
    """Stable Diffusion 1's noise levels around a network that always predicts eps = 1."""

    def __init__(self) -> None:
        self.table, self.seen = path_table(SD15).double(), list[float]()

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        squared = self.table[t].view(-1, 1, 1, 1)
        return squared.sqrt(), (1 - squared).sqrt()

    def guided(self, x_t: Tensor, t: Tensor, cond: object, guidance_scale: float) -> Tensor:
        self.seen.append(float(x_t))
        return torch.ones_like(x_t, requires_grad=torch.is_grad_enabled())

    def transition(self, out: Tensor, x_t: Tensor, t: Tensor, s: Tensor, *, kernel: Kernel) -> Gaussian:
        return kernel(*to_x0_eps("eps", out, x_t, *self.path(t)), self.path(t), self.path(s))

    def posterior_mean(self, out: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return to_x0_eps("eps", out, x_t, *self.path(t))[0]


def test_refl_walks_by_the_ancestral_posterior_of_ddpm():
    """x = 1, eps = 1, z = .5, t = 976 -> 951 of 40 steps: 1.114959. DDIM's own step, eta 0, gives 0.999453.

    ReFL's trainer steps by diffusers' DDPMScheduler of Stable Diffusion 1 (leading steps, variance
    "fixed_small"): the posterior of Ho et al. 2020, eq. 6 and 7, with the betas between two steps of the grid
    merged into one, b = 1 - abar_t / abar_s.
    """
    cfg = backprop.Config(prompts="a", preset="refl")
    times, policy = timesteps(SD15, cfg.num_inference_steps), Ones()
    assert times[:2].tolist() == [976, 951]
    abar_t, abar_s = policy.table[976], policy.table[951]
    b, x_0 = 1 - abar_t / abar_s, (1 - (1 - abar_t).sqrt()) / abar_t.sqrt()
    mean = (abar_s.sqrt() * b * x_0 + (1 - b).sqrt() * (1 - abar_s)) / (1 - abar_t)
    by_hand = mean + 0.5 * (b * (1 - abar_s) / (1 - abar_t)).sqrt()
    assert abs(by_hand - 1.114959) < 1e-6

    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    plan = draw_plan(
        cfg.record, cfg.num_inference_steps, k=cfg.k, early_stop=cfg.early_stop, generator=generator(0)
    )
    walk = {
        "kernel": ddim(cfg.eta),
        "guidance_scale": cfg.guidance_scale,
        "noise": lambda _: one / 2,
        "recompute": False,
    }
    x_0, _ = differentiable_sample(policy, {}, one, times, plan, **walk)
    assert abs(policy.seen[1] - 1.114959) < 1e-6
    assert x_0.requires_grad and len(policy.seen) == len(plan.recorded) >= 31

    plain = policy.transition(one, one, times[:1], times[1:2], kernel=ddim(0))
    assert abs(plain.mean - 0.999453) < 1e-6 and plain.std == 0


def test_refl_s_whole_walk_is_that_of_diffusers_ddpm_scheduler():
    """All 40 steps but the last, which ends at x_0 of the prediction and is never taken by ReFL."""
    cfg, policy = backprop.Config(prompts="a", preset="refl"), Ones()
    scheduler = DDPMScheduler.from_config({**SD15, "variance_type": "fixed_small"})
    scheduler.set_timesteps(cfg.num_inference_steps)
    times = timesteps(SD15, cfg.num_inference_steps)
    assert times[:-1].tolist() == scheduler.timesteps.tolist()
    x = torch.ones(1, 1, 1, 1)
    for i, t in enumerate(scheduler.timesteps.tolist()[:-1]):
        draw = torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
        theirs = scheduler.step(torch.ones_like(x), t, x, generator=torch.Generator().manual_seed(i))
        ours = policy.transition(
            torch.ones_like(x), x, times[i : i + 1], times[i + 1 : i + 2], kernel=ddim(cfg.eta)
        )
        torch.testing.assert_close(ours.sample(draw).float(), theirs.prev_sample, rtol=1e-4, atol=1e-5)
        x_0 = policy.posterior_mean(torch.ones_like(x), x, times[i : i + 1]).float()
        torch.testing.assert_close(x_0, theirs.pred_original_sample, rtol=1e-4, atol=1e-4)
        x = theirs.prev_sample
