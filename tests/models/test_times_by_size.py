"""A family whose grid depends on the image's size, as FLUX's does: the boundary hands the size on."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from t2ialign.methods.backprop import trainer as backprop
from t2ialign.models.generate import generate
from tests.models.tiny_sd3 import FlowLatents, SD3Policy, tiny_sd3_pipeline

SHIFTS = {"base_seq_len": 4, "max_seq_len": 64, "base_shift": 0.5, "max_shift": 1.15}


class SizedLatents(FlowLatents):
    """sigma' = e^mu / (e^mu + 1 / sigma - 1), mu linear in the number of 2x2 patches of the latent."""

    sizes: list[tuple[int, int]]

    def timesteps(self, num_inference_steps: int, size: tuple[int, int]) -> Tensor:
        self.sizes.append(size)
        _, rows, columns = self.shape(*size)
        shift = math.exp(calculate_shift(rows * columns // 4, *SHIFTS.values()))
        sigma = torch.linspace(1, 1 / num_inference_steps, num_inference_steps)
        return torch.cat([1000 * shift / (shift + 1 / sigma - 1), torch.zeros(1)])


@pytest.fixture
def policy() -> SD3Policy:
    policy = SD3Policy(tiny_sd3_pipeline())
    latents = SizedLatents(policy.pipe.vae, policy.pipe.scheduler, native_size=(32, 32), patch=2)
    policy.latents, latents.sizes = latents, []
    return policy


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (64, 64)])
def test_the_grid_is_that_of_diffusers_for_the_size(policy: SD3Policy, size: tuple[int, int]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    patches = (size[0] // 8) * (size[1] // 8)
    scheduler.set_timesteps(sigmas=[1, 0.75, 0.5, 0.25], mu=calculate_shift(patches, *SHIFTS.values()))
    torch.testing.assert_close(policy.timesteps(4, size)[:-1], scheduler.timesteps, rtol=1e-5, atol=1e-3)
    assert not torch.allclose(policy.timesteps(4, size), policy.timesteps(4, (24, 24)), atol=1)


def test_sampling_and_training_tell_the_size(policy: SD3Policy, tmp_path) -> None:
    assert isinstance(policy.latents, SizedLatents)
    generate(policy, ["a"], [0], num_inference_steps=1, guidance_scale=1.0, height=16, width=48)
    assert policy.latents.sizes == [(16, 48)]
    values = {"prompts": "a", "reward": "tests.training.redness", "num_inference_steps": 2, "trackers": ()}
    cfg = backprop.Config.model_validate({**values, "height": 24, "width": 40, "output": tmp_path})
    trainer = backprop.Trainer(cfg, policy=policy)
    assert policy.latents.sizes[-1] == (24, 40)
    assert torch.equal(trainer.times, policy.timesteps(2, (24, 40)))
