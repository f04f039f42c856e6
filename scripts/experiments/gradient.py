"""Each preset's gradient against a finite difference, in fp64, through sampler, decoder and reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rewards
from scripts.experiments.claim import Claim, Row, resumable
from scripts.experiments.estimates import judged
from t2ialign.diffusion.backprop import Plan, differentiable_sample, draw_plan, low_variance_sample
from t2ialign.diffusion.kernels import ddim
from t2ialign.diffusion.noise import generator, normal_rows
from t2ialign.io import jsonl
from t2ialign.methods.backprop.presets import PRESETS
from t2ialign.models.base import Cond, Policy
from t2ialign.models.families.ddpm import DDPMLatents
from t2ialign.models.load import load_policy

SLOPES = "gradients.jsonl"
STEP = 1e-4
"""The step of the central difference, along a random direction of norm 1 in the space of all weights."""
TOLERANCE = 1e-4
ROWS = ("a red circle", "two blue squares")

Call = tuple[Tensor, Tensor]
"""The inputs of the network, and its outputs."""


class GradientClaim(Claim):
    """A directional derivative of each preset, all weights trainable, the reward toy-clip."""

    text = (
        f"The gradient of every preset equals a finite difference in fp64 (relative error < {TOLERANCE:g}): "
        "of the full chain for draft, of its surrogate for the others"
    )
    num_inference_steps: int = 6
    guidance_scale: float = 2.0

    def measure(self, folder: Path, seed: int) -> None:
        """A line a preset."""
        problem = Problem(self.num_inference_steps, self.guidance_scale, seed)
        items = [{"preset": preset} for preset in PRESETS]
        resumable(folder / SLOPES, items, lambda item: problem.compare(**item), f"gradients, seed {seed}")

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """It holds if the worst error of all presets and seeds is below the tolerance."""
        errors: dict[str, float] = {}
        for row in [row for folder in folders for row in jsonl.read(folder / SLOPES)]:
            error = abs(row["slope"] - row["difference"]) / abs(row["difference"])
            errors[row["preset"]] = max(error, errors.get(row["preset"], 0.0))
        measured = {"largest_relative_error": errors, "steps": self.num_inference_steps}
        return [judged(self.text, measured, None, max(errors.values()) < TOLERANCE)]


class Problem:
    """The toy model and its CLIP in fp64, two prompts, and the noise of one seed."""

    def __init__(self, num_inference_steps: int, guidance_scale: float, seed: int) -> None:
        self.num_inference_steps, self.guidance_scale, self.seed = num_inference_steps, guidance_scale, seed
        self.policy = double(load_policy("toy"))
        self.reward = rewards.load("toy-clip").double().requires_grad_(False)
        self.times = self.policy.timesteps(num_inference_steps)
        self.shape = self.policy.latent_shape(*self.policy.native_size)
        cond = self.policy.encode_prompts(ROWS)
        self.cond: Cond = {name: value.double() for name, value in cond.items()}
        self.x_T = self.noise(-1)
        self.weights = list(self.policy.adapted.parameters())

    def compare(self, preset: str) -> dict[str, float]:
        """The slope along a random direction by the gradient, and by a central difference."""
        settings = {"record": "last", "k": 1, **PRESETS[preset]}
        if settings.get("lv_samples"):
            return self._compare(*self._low_variance(settings["lv_samples"]))
        plan = draw_plan(
            settings["record"],
            self.num_inference_steps,
            k=settings["k"],
            early_stop=min(settings.get("early_stop", 0), self.num_inference_steps // 2),
            detach_input=settings.get("detach_input", False),
            generator=generator(1, self.seed),
        )
        eta = settings.get("eta", 0.0)
        with spied(self.policy) as held:
            self._path(plan, eta, recompute=False)
        return self._compare(
            lambda: self._score(self._path(plan, eta, recompute=True)),
            lambda: self._score(surrogate(self, plan, eta, held)),
        )

    def noise(self, step: int) -> Tensor:
        """The noise of one step of a stochastic path, (2, C, h, w)."""
        return normal_rows(self.shape, [(0, self.seed, step, row) for row in range(len(ROWS))]).double()

    def _compare(self, value: Callable[[], Tensor], held: Callable[[], Tensor]) -> dict[str, float]:
        shapes = [weight.shape for weight in self.weights]
        draws = [torch.randn(shape, generator=generator(2, self.seed, i)) for i, shape in enumerate(shapes)]
        norm = float(sum(d.square().sum() for d in draws)) ** 0.5
        direction = [d.to(w) / norm for d, w in zip(draws, self.weights, strict=True)]
        gradients = torch.autograd.grad(value(), self.weights, allow_unused=True)
        pairs = zip(gradients, direction, strict=True)
        slope = float(sum((g * d).sum() for g, d in pairs if g is not None))
        ends = []
        with torch.no_grad():
            for sign in (1, -1):
                self._move(direction, sign * STEP)
                ends.append(float(held()))
                self._move(direction, -sign * STEP)
        return {"slope": slope, "difference": (ends[0] - ends[1]) / (2 * STEP)}

    def _move(self, direction: list[Tensor], length: float) -> None:
        for weight, part in zip(self.weights, direction, strict=True):
            weight += length * part

    def _path(self, plan: Plan, eta: float, *, recompute: bool) -> Tensor:
        path = (self.policy, self.cond, self.x_T, self.times, plan)
        how: dict[str, Any] = {"guidance_scale": self.guidance_scale, "recompute": recompute}
        noise = self.noise if eta else None
        return differentiable_sample(*path, kernel=ddim(eta), noise=noise, **how)[0]

    def _low_variance(self, samples: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        with torch.no_grad():
            x_0 = self._path(Plan((False,) * self.num_inference_steps), 0.0, recompute=False)
        eps = torch.stack([self.noise(100 + n) for n in range(samples)])

        def last(recompute: bool) -> Tensor:
            path = (self.policy, self.cond, x_0, self.times, eps)
            how: dict[str, Any] = {"guidance_scale": self.guidance_scale, "recompute": recompute}
            return self._score(low_variance_sample(*path, **how)[0])

        return lambda: last(True), lambda: last(False)

    def _score(self, latents: Tensor) -> Tensor:
        images = self.policy.decode(latents)
        return self.reward(images, list(ROWS) * (len(images) // len(ROWS))).sum()


def double(policy: Policy) -> Policy:
    """The policy with networks and path in fp64, all weights of its denoiser trainable."""
    policy.adapted.double().requires_grad_(True)
    policy.latents.vae.double()
    assert isinstance(policy.latents, DDPMLatents), "the claim is about Stable Diffusion"
    policy.dtype, policy.latents.table = torch.float64, policy.latents.table.double()
    return policy


@contextmanager
def spied(policy: Policy) -> Iterator[list[Call]]:
    """Within this block the inputs and outputs of the guided network are recorded, call by call."""
    seen: list[Call] = []
    guided = policy.guided

    def spy(x_t: Tensor, t: Tensor, cond: Cond, guidance_scale: float) -> Tensor:
        out = guided(x_t, t, cond, guidance_scale)
        seen.append((x_t.detach(), out.detach()))
        return out

    policy.guided = spy  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del policy.guided


def surrogate(problem: Any, plan: Plan, eta: float, held: list[Call]) -> Tensor:
    """x_0 as a function of the weights whose true gradient a plan computes; written without a detach.

    What does not record, and latents that lose their gradient, stay what they were (`held`); the equations
    are DDIM's (Song et al. 2021, eq. 12 and 16), written out. problem: `policy, cond, x_T, times, guidance,
    noise`.
    """
    policy, x = problem.policy, problem.x_T
    table = policy.latents.table[problem.times.long()].view(-1, 1, 1, 1, 1)
    for i, records in enumerate(plan.recorded):
        t = problem.times[i].expand(len(x))
        x = held[i][0] if i == plan.detach_before else x
        shown = held[i][0] if plan.detach_input else x
        out = policy.guided(shown, t, problem.cond, problem.guidance_scale) if records else held[i][1]
        now, then = table[i], table[i + 1]
        x_0 = (x - (1 - now).sqrt() * out) / now.sqrt()
        if plan.posterior and i == len(plan.recorded) - 1:
            return x_0
        std = eta * (((1 - then) / (1 - now)) * (1 - now / then)).sqrt()
        x = then.sqrt() * x_0 + (1 - then - std**2).sqrt() * out
        x = x + std * problem.noise(i) if eta else x
    return x
