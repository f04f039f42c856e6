"""Our sampler on diffusers' networks gives the latents of diffusers' own pipeline, on the same noise."""

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from t2ialign.diffusion.kernels import ddim
from t2ialign.diffusion.sampler import rollout, sample
from t2ialign.models.load import load_policy

PROMPTS = ["a red circle", "two blue squares left of a cat"]
SIZE = (48, 32)  # height, width: not square
GUIDANCE = 6.0


def theirs(
    folder, eta: float, x_T: torch.Tensor, steps: int, output: str = "latent", **scheduler
) -> torch.Tensor:
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        PROMPTS,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        eta=eta,
        latents=x_T,
        generator=torch.Generator().manual_seed(7),
        output_type=output,
    ).images


def start(policy) -> torch.Tensor:
    shape = (len(PROMPTS), *policy.latent_shape(*SIZE))
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def encode(policy):
    return policy.with_size(policy.encode_prompts(PROMPTS), SIZE, (0, 0), SIZE)


@torch.no_grad()
def ours(policy, eta: float, x_T: torch.Tensor, steps: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(
        7
    )  # a pipeline draws its variance noise from one generator, in order
    return sample(
        policy,
        encode(policy),
        x_T,
        policy.timesteps(steps),
        kernel=ddim(eta),
        guidance_scale=GUIDANCE,
        noise=lambda i: torch.randn(x_T.shape, generator=draws),
    )


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("model", ["tiny_sd", "tiny_sd_v", "tiny_sdxl"])
def test_latents_equal_the_pipeline(request, model, eta):
    folder = request.getfixturevalue(model)
    policy = load_policy(str(folder))
    x_T = start(policy)
    expected = theirs(folder, eta, x_T, steps=8)
    assert_same(ours(policy, eta, x_T, steps=8), expected)
    other = theirs(folder, eta, x_T, steps=7)
    assert (other - expected).abs().max() > 1e-2 * expected.abs().max()  # the bound above can fail


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_zero_terminal_snr_with_v_prediction(tiny_sd_v, tmp_path, spacing):
    changes = {"rescale_betas_zero_snr": True, "timestep_spacing": spacing, "set_alpha_to_one": True}
    pipe = DiffusionPipeline.from_pretrained(tiny_sd_v)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **changes)
    pipe.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path))
    x_T = start(policy)
    found = ours(policy, 1.0, x_T, steps=5)
    assert found.isfinite().all()
    assert_same(found, theirs(tiny_sd_v, 1.0, x_T, steps=5, **changes))


def test_a_pndm_model_samples_as_ddim(tiny_sd, tmp_path):
    """SD1.5 ships a PNDM config; a DDIM built from it is the sampler, whatever the folder names."""
    from diffusers import PNDMScheduler

    pipe = DiffusionPipeline.from_pretrained(tiny_sd)
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=True)
    pipe.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path))
    x_T = start(policy)
    assert policy.timesteps(4).tolist() == [751, 501, 251, 1, -1]
    assert_same(ours(policy, 0.0, x_T, steps=4), theirs(tmp_path, 0.0, x_T, steps=4))


@pytest.mark.parametrize("model", ["tiny_sd", "tiny_sdxl"])
def test_images_equal_the_pipeline(request, model):
    folder = request.getfixturevalue(model)
    policy = load_policy(str(folder))
    x_T = start(policy)
    with torch.no_grad():
        found = policy.decode(ours(policy, 0.0, x_T, steps=3))
    torch.testing.assert_close(found, theirs(folder, 0.0, x_T, steps=3, output="pt"), rtol=0, atol=2e-4)


def test_sdxl_zeroes_its_empty_prompt(tiny_sdxl, tmp_path):
    """Where the pipeline zeroes the empty prompt so do we, where it encodes it so do we; they differ."""
    pipe = DiffusionPipeline.from_pretrained(tiny_sdxl)
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    pipe.save_pretrained(tmp_path)
    zeroed, encoded = load_policy(str(tiny_sdxl)), load_policy(str(tmp_path))
    assert zeroed.pipe.config.force_zeros_for_empty_prompt
    x_T = start(zeroed)
    null = zeroed.null_cond(encode(zeroed))
    assert null["prompt_embeds"].abs().sum() == 0 and null["pooled"].abs().sum() == 0
    assert null["time_ids"].tolist() == [[48, 32, 0, 0, 48, 32]] * 2
    assert_same(ours(encoded, 0.0, x_T, 4), theirs(tmp_path, 0.0, x_T, 4))
    difference = ours(encoded, 0.0, x_T, 4) - ours(zeroed, 0.0, x_T, 4)
    assert difference.abs().max() > 1e-3


def test_stored_log_probs_are_recomputed_exactly(tiny_sd):
    """The ratio of policy to itself is 1 on stored latents: same guidance, grid and noise level."""
    policy = load_policy(str(tiny_sd))
    cond, x_T, times = encode(policy), start(policy), policy.timesteps(4)
    with torch.no_grad():
        path = rollout(
            policy,
            cond,
            x_T,
            times,
            kernel=ddim(1.0),
            guidance_scale=GUIDANCE,
            noise=lambda i: torch.randn(x_T.shape, generator=torch.Generator().manual_seed(i)),
        )
        for i in range(4):
            t, s = (times[j].expand(2) for j in (i, i + 1))
            p = policy.step(path.latents[:, i], t, s, cond, kernel=ddim(1.0), guidance_scale=GUIDANCE)
            torch.testing.assert_close(p.log_prob(path.latents[:, i + 1]), path.log_probs[:, i])
    assert (path.log_probs != 0).all()  # SD's last step is a random one
