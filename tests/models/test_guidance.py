"""Guidance belongs to the family: plain, zeroed prompts, a norm that is kept, a scale told to the network."""

import pytest
import torch
from torch import Tensor

from t2ialign.diffusion.kernels import ODE
from t2ialign.models.base import Cond
from t2ialign.models.generate import generate
from tests.models.flows.tiny_sd3 import SD3Policy, tiny_sd3_pipeline

PROMPTS = ["a red circle", "two blue squares"]


class Rescaled(SD3Policy):
    """As Qwen-Image: the guided output has the norm that the conditional one has, channel-wise."""

    def combine(self, empty: Tensor, full: Tensor, guidance_scale: float) -> Tensor:
        guided = super().combine(empty, full, guidance_scale)
        return guided * full.norm(dim=1, keepdim=True) / guided.norm(dim=1, keepdim=True)


class Embedded(SD3Policy):
    """As FLUX: the network is told the scale, and runs once."""

    def guided(self, x_t: Tensor, t: Tensor, cond: Cond, guidance_scale: float) -> Tensor:
        return self.predict(x_t, t, {**cond, "pooled": cond["pooled"] * guidance_scale})


class Zeroed(SD3Policy):
    """Without a prompt there are zeros, not the encoding of ""."""

    def null_cond(self, cond: Cond) -> Cond:
        return {name: torch.zeros_like(value) for name, value in cond.items()}


@torch.no_grad()
def outputs(policy: SD3Policy) -> tuple[Tensor, Tensor, Tensor, Cond]:
    cond, t = policy.encode_prompts(PROMPTS), torch.tensor([900.0, 400.0])
    x_t = torch.randn(2, *policy.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
    return policy.guided(x_t, t, cond, 3.0), policy.predict(x_t, t, cond), x_t, cond


def test_plain_guidance_is_the_extrapolation() -> None:
    policy = SD3Policy(tiny_sd3_pipeline())
    guided, full, x_t, _ = outputs(policy)
    with torch.no_grad():
        empty = policy.predict(x_t, torch.tensor([900.0, 400.0]), policy.encode_prompts(["", ""]))
    torch.testing.assert_close(guided, empty + 3 * (full - empty), rtol=1e-4, atol=1e-5)


def test_a_rescaled_family_keeps_the_norm() -> None:
    guided, full, _, _ = outputs(Rescaled(tiny_sd3_pipeline()))
    torch.testing.assert_close(guided.norm(dim=1), full.norm(dim=1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(guided, full, atol=1e-3)
    assert not torch.allclose(guided, outputs(SD3Policy(tiny_sd3_pipeline()))[0], atol=1e-3)


def test_an_embedded_scale_is_one_forward_and_reaches_the_step() -> None:
    policy, rows = Embedded(tiny_sd3_pipeline()), list[int]()
    policy.adapted.register_forward_hook(lambda module, args, out: rows.append(len(out[0])))
    guided, full, x_t, cond = outputs(policy)
    assert rows == [2, 2] and not torch.allclose(guided, full, atol=1e-4)
    t = torch.tensor([900.0, 400.0])
    with torch.no_grad():
        means = [policy.step(x_t, t, t - 100, cond, kernel=ODE, guidance_scale=g).mean for g in (1.0, 3.0)]
    torch.testing.assert_close(means[1], x_t - 0.1 * guided)  # Euler's step of 100 / 1000
    assert not torch.allclose(means[0], means[1], atol=1e-5)


def test_zeroed_prompts_are_the_familys_too() -> None:
    policy = Zeroed(tiny_sd3_pipeline())
    guided, full, x_t, cond = outputs(policy)
    zeros = {name: torch.zeros_like(value) for name, value in cond.items()}
    with torch.no_grad():
        empty = policy.predict(x_t, torch.tensor([900.0, 400.0]), zeros)
    torch.testing.assert_close(guided, empty + 3 * (full - empty), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [SD3Policy, Embedded])
def test_images_are_sampled_at_the_familys_own_scale(kind: type[SD3Policy]) -> None:
    policy = kind(tiny_sd3_pipeline())
    default = generate(policy, PROMPTS, [0, 1], num_inference_steps=2)
    torch.testing.assert_close(
        default, generate(policy, PROMPTS, [0, 1], num_inference_steps=2, guidance_scale=7.0)
    )
