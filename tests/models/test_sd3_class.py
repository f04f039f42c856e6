"""A flow model without a U-Net behind the boundary: it samples as diffusers does, and has LoRA files."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from t2ialign.diffusion.kernels import ODE, cps, ddim, flow_sde
from t2ialign.diffusion.sampler import rollout, sample
from t2ialign.models.full import save_all, train_all
from t2ialign.models.lora import add_lora, trainable
from t2ialign.models.lora_apply import load_lora
from t2ialign.models.lora_saved import save_lora
from t2ialign.models.families.sd3 import SD3Policy
from tests.models.tiny_sd3 import tiny_sd3, tiny_sd3_pipeline

PROMPTS = ["a red circle", "two blue squares"]
SIZE = (24, 40)


@pytest.fixture(scope="module")
def policy() -> SD3Policy:
    return tiny_sd3()


def start(policy: SD3Policy, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(2, *policy.latent_shape(*size), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("guidance_scale", [1.0, 4.5])
def test_the_ode_is_the_pipelines_own_sampler(policy: SD3Policy, guidance_scale: float) -> None:
    """The same noise, another size than the model's own, guidance on and off: diffusers' latents."""
    x_T = start(policy)
    theirs = policy.pipe(
        PROMPTS,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=5,
        guidance_scale=guidance_scale,
        latents=x_T,
        output_type="latent",
    ).images
    cond, times = policy.encode_prompts(PROMPTS), policy.timesteps(5, SIZE)
    ours = sample(policy, cond, x_T, times, kernel=ODE, guidance_scale=guidance_scale)
    assert not torch.allclose(ours, x_T, atol=0.1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    images = policy.pipe.vae.decode(theirs / 1.5305 + 0.0609).sample / 2 + 0.5
    torch.testing.assert_close(policy.decode(ours), images.clamp(0, 1), rtol=1e-3, atol=1e-4)


def test_the_grid_is_the_published_one_with_its_almost_empty_last_step(policy: SD3Policy) -> None:
    """diffusers shifts its shifted range again: sigma of shift 3 and 10 steps ends in .278, .0089, 0."""
    sigma = policy.path(policy.timesteps(10))[1]
    expected = [1, 0.960, 0.913, 0.858, 0.790, 0.707, 0.602, 0.465, 0.278, 0.0089, 0]
    torch.testing.assert_close(sigma, torch.tensor(expected), rtol=0, atol=6e-4)
    assert policy.timesteps(10).dtype == torch.float32 and policy.timesteps(10)[-1] == policy.end


def test_training_times_are_logit_normal_and_shifted(policy: SD3Policy) -> None:
    """u = 1/2 is the median: base 1/2, shifted by 3 to 3/4. u = .2441 is base 2/3, shifted to 6/7."""
    times = policy.draw_timesteps(torch.tensor([0.0, 0.2441, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(times, torch.tensor([1000, 857.14, 750, 0]), rtol=0, atol=0.1)


def test_latents_are_shifted_and_scaled(policy: SD3Policy) -> None:
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = policy.encode_images(images)
    theirs = policy.pipe.vae.encode(2 * images - 1).latent_dist
    torch.testing.assert_close(mean, (theirs.mean - 0.0609) * 1.5305)
    torch.testing.assert_close(std, theirs.std * 1.5305)
    with pytest.raises(ValueError, match="multiples of 8 pixels"):
        policy.latent_shape(28, 32)  # the VAE's factor is 4, the transformer's patch 2


@pytest.mark.parametrize("kernel", [ddim(1.0), flow_sde(0.7), cps(0.8)], ids=str)
def test_noisy_kernels_have_a_density_at_every_step_but_one_into_x_0(policy: SD3Policy, kernel) -> None:
    draw = torch.Generator().manual_seed(1)
    x_T, cond = start(policy, (32, 32)), policy.encode_prompts(PROMPTS)
    path = rollout(
        policy,
        cond,
        x_T,
        policy.timesteps(4),
        kernel=kernel,
        guidance_scale=1.0,
        noise=lambda _: torch.randn(x_T.shape, generator=draw),
    )
    assert path.latents.isfinite().all() and (path.log_probs[:, :-1] != 0).all()
    assert ((path.log_probs[:, -1] != 0) == (kernel.name == "flow_sde")).all()


def test_the_fingerprint_sees_every_text_encoder_and_the_vae(policy: SD3Policy) -> None:
    """A third encoder that changed must not leave a cache in use."""
    before = policy.fingerprint()
    assert before == SD3Policy(tiny_sd3_pipeline()).fingerprint()
    for name in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        other = tiny_sd3_pipeline()
        with torch.no_grad():
            next(getattr(other, name).parameters()).flatten()[0] += 1
        assert SD3Policy(other).fingerprint() != before, name
    other = tiny_sd3_pipeline()
    with torch.no_grad():
        next(other.transformer.parameters()).add_(1)
    assert SD3Policy(other).fingerprint() == before  # the cache holds nothing of it


def test_a_lora_is_loaded_by_the_pipeline_and_by_us(tmp_path: Path) -> None:
    policy, x_T = tiny_sd3(), start(tiny_sd3(), (32, 32))
    add_lora(policy, 2)
    names = {name.rpartition(".lora_")[0] for name in trainable(policy)}
    assert {name.rsplit(".attn.", 1)[1] for name in names} >= {"to_q", "to_out.0", "add_q_proj"}
    with torch.no_grad():
        for parameter in trainable(policy).values():
            parameter.add_(0.3)
    file = save_lora(policy, tmp_path)
    t, cond = torch.tensor([500.0, 900.0]), policy.encode_prompts(PROMPTS)
    trained = policy.predict(x_T, t, cond)
    pipe: StableDiffusion3Pipeline = tiny_sd3_pipeline()
    pipe.load_lora_weights(tmp_path, weight_name=file.name)
    again = tiny_sd3()
    load_lora(again, file)
    assert not torch.allclose(trained, tiny_sd3().predict(x_T, t, cond), atol=1e-3)
    for other in (SD3Policy(pipe), again):
        torch.testing.assert_close(other.predict(x_T, t, cond), trained.detach(), rtol=1e-4, atol=1e-4)
    with policy.reference():
        torch.testing.assert_close(policy.predict(x_T, t, cond), tiny_sd3().predict(x_T, t, cond))


def test_all_weights_are_written_under_the_networks_name(tmp_path: Path) -> None:
    policy = tiny_sd3()
    train_all(policy)
    written = save_all(policy, tmp_path)
    assert written == tmp_path / "transformer" and (written / "config.json").is_file()
    restored = type(policy.adapted).from_pretrained(written)
    for name, value in restored.state_dict().items():
        assert torch.equal(value, policy.adapted.state_dict()[name]), name
