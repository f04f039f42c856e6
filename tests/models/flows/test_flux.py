"""What FLUX.1 has of its own: packed latents, a guidance scale that it is told, a shift by size, schnell."""

from typing import Any

import pytest
import torch

from t2ialign.methods.backprop import trainer as backprop
from t2ialign.models.families.flow import FlowLatents
from t2ialign.models.families.flux import FluxPolicy, packed, places, unpacked
from t2ialign.models.options import ModelOptions
from tests.models.flows.tiny_flux import tiny_flux_pipeline

PROMPTS = ["a red circle", "two blue squares"]


@pytest.fixture(scope="module")
def policy() -> FluxPolicy:
    return FluxPolicy(tiny_flux_pipeline())


def test_packing_is_the_pipelines_own_and_has_an_inverse(policy: FluxPolicy) -> None:
    latents = torch.randn(2, 16, 6, 10, generator=torch.Generator().manual_seed(0))
    tokens = packed(latents)
    assert torch.equal(tokens, policy.pipe._pack_latents(latents, *latents.shape))
    assert torch.equal(unpacked(tokens, 3, 5), latents)
    theirs = policy.pipe._prepare_latent_image_ids(2, 3, 5, torch.device("cpu"), torch.float32)
    assert torch.equal(places(3, 5, torch.device("cpu")), theirs)


@torch.no_grad()
def test_guidance_is_told_in_one_forward(policy: FluxPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, forward = [], policy.adapted.forward

    def noted(**given: Any) -> Any:
        rows.append(len(given["guidance"]))
        return forward(**given)

    monkeypatch.setattr(policy.adapted, "forward", noted)
    x, t = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((2,), 500.0)
    cond = policy.encode_prompts(PROMPTS)
    strong, weak = policy.guided(x, t, cond, 7.0), policy.guided(x, t, cond, 1.0)
    assert rows == [2, 2] and not torch.allclose(strong, weak, atol=1e-4)
    assert torch.equal(policy.predict(x, t, cond), policy.guided(x, t, cond, 3.5))


def test_the_shift_grows_with_the_image(policy: FluxPolicy) -> None:
    """mu is .5 at 256 tokens and 1.15 at 4096: e^1.15 = 3.158 at 1024x1024 pixels, where a cell is 8."""
    latents = policy.latents
    assert isinstance(latents, FlowLatents)
    side = 64 * latents.factor * 2
    assert latents.log_shift((side, side)) == pytest.approx(1.15)
    assert latents.log_shift((side // 4, side // 4)) == pytest.approx(0.5)
    sigma = policy.path(policy.timesteps(4, (side, side)))[1]
    s = 3.1582
    even = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    torch.testing.assert_close(sigma, s * even / (1 + (s - 1) * even), rtol=0, atol=1e-4)


def test_training_times_are_logit_normal_without_a_shift(policy: FluxPolicy) -> None:
    """As in diffusers' script, whose scheduler leaves a shift by size to the sampler."""
    times = policy.draw_timesteps(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(times, torch.tensor([1000.0, 500.0, 0.0]), rtol=0, atol=0.1)


def test_schnell_samples_and_is_refused_for_training(tmp_path) -> None:
    policy = FluxPolicy(tiny_flux_pipeline(schnell=True))
    x, t = torch.randn(1, 16, 8, 8), torch.full((1,), 500.0)
    cond = policy.encode_prompts(PROMPTS[:1])
    assert torch.equal(policy.guided(x, t, cond, 1.0), policy.guided(x, t, cond, 4.0))  # it is told none
    assert cond["prompt_embeds"].shape[1] == 256
    values = {"prompts": "a red circle", "reward": "tests.training.redness", "output": tmp_path}
    with pytest.raises(
        ValueError, match=r"FLUX\.1 schnell, which is distilled.*expected FLUX\.1 dev"
    ) as error:
        backprop.Trainer(backprop.Config.model_validate(values), policy=policy)
    assert "\n" not in str(error.value)


def test_there_is_no_layer_to_skip() -> None:
    policy = FluxPolicy(tiny_flux_pipeline(), options=ModelOptions(clip_skip=1))
    with pytest.raises(ValueError, match="got clip_skip=1 for FLUX"):
        policy.encode_prompts(PROMPTS)
