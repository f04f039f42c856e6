"""A seed gives the image that a diffusers pipeline gives for it."""

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy

PROMPTS = ["a red circle", "two blue squares left of a cat", "a dog"]
SEEDS = [3, 0, 2**40 + 7]
TOLERANCE = 2e-4
"""Of pixels in [0, 1]: the same numbers, summed in another order."""


@pytest.fixture(
    scope="module", params=[("tiny_sd", StableDiffusionPipeline), ("tiny_sdxl", StableDiffusionXLPipeline)]
)
def both(request):
    name, family = request.param
    folder = request.getfixturevalue(name)
    pipe = family.from_pretrained(folder)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe, load_policy(str(folder))


def theirs(pipe, prompts, seeds, size, eta):
    return pipe(
        prompts,
        height=size[0],
        width=size[1],
        num_inference_steps=4,
        guidance_scale=6.0,
        eta=eta,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="pt",
    ).images


def ours(policy, prompts, seeds, size, eta, **options):
    height, width = size
    shape = {"height": height, "width": width}
    return generate(
        policy, prompts, seeds, num_inference_steps=4, guidance_scale=6.0, eta=eta, **shape, **options
    )


@pytest.mark.parametrize(("eta", "size"), [(0.0, (48, 32)), (1.0, (32, 32)), (0.5, (32, 48))])
def test_images_equal_the_pipelines(both, eta, size):
    pipe, policy = both
    together = theirs(pipe, PROMPTS, SEEDS, size, eta)
    images = ours(policy, PROMPTS, SEEDS, size, eta)
    torch.testing.assert_close(images, together, rtol=0, atol=TOLERANCE)
    by_two = ours(policy, PROMPTS, SEEDS, size, eta, batch_size=2)
    torch.testing.assert_close(by_two, together, rtol=0, atol=TOLERANCE)
    alone = theirs(pipe, PROMPTS[1:2], SEEDS[1:2], size, eta)
    torch.testing.assert_close(images[1:2], alone, rtol=0, atol=TOLERANCE)
    other = theirs(pipe, PROMPTS, [seed + 1 for seed in SEEDS], size, eta)
    assert (other - together).flatten(1).abs().amax(1).min() > 50 * TOLERANCE  # the bounds above can fail


def test_noise_is_drawn_in_the_precision_of_the_pipeline(tiny_sd):
    """A pipeline of dtype=torch.bfloat16 draws in bf16, which is not fp32 noise rounded."""
    policy, seen = load_policy(str(tiny_sd), precision="bf16"), []
    policy.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    generate(policy, ["a cat"] * 2, [5, 6], num_inference_steps=1, guidance_scale=1.0)
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    draws = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    pipe(["a cat"] * 2, num_inference_steps=1, guidance_scale=1.0, generator=draws, output_type="latent")
    assert seen[0].dtype == torch.bfloat16 and torch.equal(seen[0], seen[1])
