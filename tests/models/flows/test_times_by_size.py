"""A grid that depends on the image's size, as FLUX's does: the boundary hands the size on."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from t2ialign.methods.backprop import trainer as backprop
from t2ialign.models.families.flow import FlowLatents
from t2ialign.models.families.sd3 import SD3Policy
from t2ialign.models.generate import generate
from tests.models.flows.tiny_sd3 import tiny_sd3_pipeline

SHIFTS = {"base_shift": 0.5, "max_shift": 1.15}
TOKENS = {"base_image_seq_len": 4, "max_image_seq_len": 64}


class NotedLatents(FlowLatents):
    """Notes the sizes that it is asked for."""

    sizes: list[tuple[int, int]]

    def timesteps(self, num_inference_steps: int, size: tuple[int, int]) -> Tensor:
        self.sizes.append(size)
        return super().timesteps(num_inference_steps, size)


@pytest.fixture
def policy() -> SD3Policy:
    policy = SD3Policy(tiny_sd3_pipeline())
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **SHIFTS, **TOKENS)
    latents = NotedLatents(policy.pipe.vae, scheduler, native_size=(32, 32), patch=2, even=True)
    policy.latents, latents.sizes = latents, []
    return policy


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (64, 64)])
def test_the_grid_is_that_of_diffusers_for_the_size(policy: SD3Policy, size: tuple[int, int]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    patches = (size[0] // 8) * (size[1] // 8)
    scheduler.set_timesteps(
        sigmas=[1, 0.75, 0.5, 0.25], mu=calculate_shift(patches, *TOKENS.values(), *SHIFTS.values())
    )
    torch.testing.assert_close(policy.timesteps(4, size)[:-1], scheduler.timesteps, rtol=1e-5, atol=1e-3)
    assert not torch.allclose(policy.timesteps(4, size), policy.timesteps(4, (24, 24)), atol=1)


def test_sampling_and_training_tell_the_size(policy: SD3Policy, tmp_path) -> None:
    assert isinstance(policy.latents, NotedLatents)
    generate(policy, ["a"], [0], num_inference_steps=1, guidance_scale=1.0, height=16, width=48)
    assert policy.latents.sizes == [(16, 48)]
    values = {"prompts": "a", "reward": "tests.training.redness", "num_inference_steps": 2, "trackers": ()}
    cfg = backprop.Config.model_validate({**values, "height": 24, "width": 40, "output": tmp_path})
    trainer = backprop.Trainer(cfg, policy=policy)
    assert policy.latents.sizes[-1] == (24, 40)
    assert torch.equal(trainer.times, policy.timesteps(2, (24, 40)))
