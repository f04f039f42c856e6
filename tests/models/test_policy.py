"""The policy's face: ranges, sizes, guidance, prompts, precision, and errors that say what to do."""

import logging

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel

from t2ialign.diffusion.path import to_x0_eps
from t2ialign.models.families.sd import UNetPolicy
from t2ialign.models.load import load_policy


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return load_policy(str(tiny_sd))


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl):
    return load_policy(str(tiny_sdxl))


def count(module, batches: list[int]):
    """Append the batch size of every forward of the module."""
    return module.register_forward_hook(
        lambda _, args, kwargs, out: batches.append(len(args[0])), with_kwargs=True
    )


def inputs(policy, rows: int):
    x_t = torch.randn(rows, *policy.latent_shape(32, 32), generator=torch.Generator().manual_seed(rows))
    return x_t, torch.full((rows,), 401), policy.encode_prompts(["a cat", "a dog", "a cow"][:rows])


def test_sizes(sd, sdxl):
    for policy in (sd, sdxl):
        assert policy.image_factor == 4 and policy.latent_channels == 4 and policy.native_size == (32, 32)
    assert sd.latent_shape(48, 32) == (4, 12, 8)
    with pytest.raises(ValueError, match="got size 50x32; expected both sides to be multiples of 4"):
        sd.latent_shape(50, 32)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_guidance_is_one_forward_of_2b(request, name):
    policy = request.getfixturevalue(name)
    batches: list[int] = []
    x_t, t, cond = inputs(policy, 3)
    with torch.no_grad():
        policy.null_cond(cond)
        hook = count(policy.unet, batches)
        plain, guided = policy.guided(x_t, t, cond, 1.0), policy.guided(x_t, t, cond, 4.0)
        hook.remove()
        assert batches == [3, 6]
        empty = policy.predict(x_t, t, policy.null_cond(cond))
    torch.testing.assert_close(guided, empty + 4 * (plain - empty), rtol=1e-4, atol=1e-5)
    assert (plain - empty).abs().max() > 1e-3  # the prompt matters, so the line above says something


def test_null_prompt_is_the_empty_one(sd):
    null = sd.null_cond(sd.encode_prompts(["a", "b"]))
    torch.testing.assert_close(null["prompt_embeds"], sd.encode_prompts(["", ""])["prompt_embeds"])


def test_residual_of_a_perfect_answer_is_zero(tiny_sd_v):
    """Solve the v output for (x_0, eps): that is what the network sees at x_t, so the residual is 0."""
    policy = load_policy(str(tiny_sd_v))
    x_t, t, cond = inputs(policy, 2)
    assert policy.kind == "v"
    with torch.no_grad():
        alpha, sigma = (value.view(-1, 1, 1, 1) for value in policy.path(t))
        x_0, eps = to_x0_eps("v", policy.predict(x_t, t, cond), x_t, alpha, sigma)
        torch.testing.assert_close(alpha * x_0 + sigma * eps, x_t)
        assert policy.residual(x_0, eps, t, cond).abs().max() < 1e-4
        assert policy.residual(x_0 + 1, eps, t, cond).abs().max() > 1e-2


def test_path_knows_the_end(sd):
    alpha, sigma = sd.path(torch.tensor([0, 999, -1]))
    assert alpha[2] == alpha[0] and sigma[2] == sigma[0]  # set_alpha_to_one is False
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(3))
    assert alpha[1].item() ** 2 == pytest.approx(0.00466, abs=5e-6)


def test_vae_sees_minus_one_to_one_and_scales(sd):
    images = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    mean, std = sd.encode_images(images)
    with torch.no_grad():
        posterior = sd.vae.encode(images * 2 - 1).latent_dist
    assert mean.shape == (2, 4, 8, 6)
    torch.testing.assert_close(mean, posterior.mean * 0.18215)
    torch.testing.assert_close(std, posterior.std * 0.18215)


def test_decode_inverts_the_scale_and_the_range(sd):
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = sd.vae.decode(latents / 0.18215).sample
        found = sd.decode(latents)
    torch.testing.assert_close(found, ((raw + 1) / 2).clamp(0, 1))
    assert found.min() >= 0 and found.max() <= 1


def test_whitened_latents(tiny_sdxl):
    """Some SDXL VAEs give each channel's mean and deviation: z' = (z - mean) scale / deviation, and back."""
    policy, plain = load_policy(str(tiny_sdxl)), load_policy(str(tiny_sdxl))
    shift, spread = [-1.6, 1.1, 3.3, -0.2], [8.4, 5.9, 7.3, 6.0]
    policy.vae.register_to_config(latents_mean=shift, latents_std=spread)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (mean, std), (raw_mean, raw_std) = policy.encode_images(images), plain.encode_images(images)
    m, s = (torch.tensor(values).view(1, 4, 1, 1) for values in (shift, spread))
    torch.testing.assert_close(mean, (raw_mean / 0.13025 - m) * 0.13025 / s)
    torch.testing.assert_close(std, raw_std / s)
    with torch.no_grad():
        torch.testing.assert_close(policy.decode(mean), plain.decode(raw_mean))


def test_decode_passes_gradients(sd):
    latents = (0.1 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
    direction = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad(sd.decode(latents).sum(), latents)
    with torch.no_grad():
        step = 1e-3
        finite = (
            (sd.decode(latents + step * direction).sum() - sd.decode(latents - step * direction).sum())
            / step
            / 2
        )
    assert finite.abs() > 1e-2
    assert (slope * direction).sum().item() == pytest.approx(finite.item(), rel=2e-2)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 3, 32, 32) * 2 - 1, r"got images from -.* expected \[0, 1\]"),
        (torch.rand(1, 3, 32, 32) * 255, r"got images from .* to 2\d\d; expected \[0, 1\]"),
        (torch.full((1, 3, 32, 32), float("nan")), "got images from nan"),
        (torch.rand(3, 32, 32), r"got images of shape \(3, 32, 32\); expected \(B, 3, H, W\)"),
        (torch.rand(1, 3, 30, 32), "got size 30x32; expected"),
    ],
)
def test_wrong_images_are_errors(sd, images, message):
    with pytest.raises(ValueError, match=message):
        sd.encode_images(images)


def test_sdxl_sizes_go_row_by_row(sdxl):
    cond = sdxl.encode_prompts(["a", "b"])
    assert cond["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]] * 2
    sized = sdxl.with_size(cond, torch.tensor([[40, 50], [60, 70]]), torch.tensor([[1, 2], [3, 4]]), (32, 24))
    assert sized["time_ids"].tolist() == [[40, 50, 1, 2, 32, 24], [60, 70, 3, 4, 32, 24]]
    x_t, t, _ = inputs(sdxl, 2)
    with torch.no_grad():
        both = sdxl.predict(x_t, t, sized)
        second = sdxl.predict(x_t[1:], t[1:], {name: value[1:] for name, value in sized.items()})
        moved = sdxl.predict(x_t, t, cond)
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-5)
    assert (both - moved).abs().max() > 1e-4


def test_other_families_ignore_sizes(sd):
    cond = sd.encode_prompts(["a"])
    assert sd.with_size(cond, (1, 2), (3, 4), (5, 6)) is cond


def test_a_long_prompt_is_cut_with_a_word(sd, caplog):
    """The window is 32 tokens, 30 without the marks, and a letter is a token."""
    kept, cut = "abcde" * 6, "crimson"
    with caplog.at_level(logging.WARNING):
        long = sd.encode_prompts(["fits", kept + " " + cut])
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("t2ialign")]
    assert len(messages) == 1
    assert "has 37 tokens and the model reads 30" in messages[0] and "cut: 'crimson'" in messages[0]
    torch.testing.assert_close(long["prompt_embeds"][1:], sd.encode_prompts([kept])["prompt_embeds"])


def test_no_prompts_is_an_error(sd):
    with pytest.raises(ValueError, match="got no prompts"):
        sd.encode_prompts([])


@pytest.mark.parametrize("model", ["tiny_sd", "tiny_sdxl"])
def test_freed_encoders(request, model):
    policy = load_policy(str(request.getfixturevalue(model)))
    before = policy.encode_prompts(["kept", "kept too"])
    null = policy.null_cond(before)
    policy.free_encoders(keep_decoder=True, keep_prompts=["kept too", "kept"])
    assert policy.pipe.text_encoder is None and policy.vae.encoder is None
    after = policy.encode_prompts(["kept", "kept too"])
    for name, value in before.items():
        torch.testing.assert_close(after[name], value)
        torch.testing.assert_close(policy.null_cond(after)[name], null[name])
    assert policy.decode(torch.zeros(1, 4, 8, 8)).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match="got prompt 'new' after the text encoders were freed"):
        policy.encode_prompts(["kept", "new"])
    with pytest.raises(ValueError, match="got images after the image encoder was freed"):
        policy.encode_images(torch.zeros(1, 3, 32, 32))
    policy.free_encoders()
    with pytest.raises(ValueError, match="got latents after the decoder was freed"):
        policy.decode(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize(("model", "force_upcast"), [("tiny_sdxl", True), ("tiny_sdxl", False)])
def test_half_precision_keeps_the_vae_in_fp32_where_it_asks(request, tmp_path, model, force_upcast):
    pipe = DiffusionPipeline.from_pretrained(request.getfixturevalue(model))
    pipe.vae.register_to_config(force_upcast=force_upcast)
    pipe.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), precision="bf16")
    assert policy.unet.dtype == torch.bfloat16 and policy.pipe.text_encoder.dtype == torch.bfloat16
    assert policy.vae.dtype == (torch.float32 if force_upcast else torch.bfloat16)
    if force_upcast:  # not just cast back: the bits that bf16 would lose are there
        assert torch.equal(policy.vae.decoder.conv_in.weight, pipe.vae.decoder.conv_in.weight)
    mean, std = policy.encode_images(torch.rand(1, 3, 32, 32))
    x_t, t, cond = inputs(policy, 2)
    out = policy.guided(x_t, t, cond, 5.0)
    images = policy.decode(x_t)
    assert {mean.dtype, std.dtype, out.dtype, images.dtype} == {torch.float32}


def test_bf16_is_close_to_fp32(tiny_sd, sd):
    policy = load_policy(str(tiny_sd), precision="bf16")
    x_t, t, cond = inputs(sd, 3)
    with torch.no_grad():
        exact, rough = sd.predict(x_t, t, cond), policy.predict(x_t, t, cond)
    error = (exact - rough).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < error < 0.03


def test_gradient_checkpointing_changes_nothing_but_memory(tiny_sd):
    policy = load_policy(str(tiny_sd))
    x_t, t, cond = inputs(policy, 2)
    grads = []
    for _ in range(2):
        x = x_t.clone().requires_grad_()
        policy.predict(x, t, cond).square().sum().backward()
        grads.append(x.grad)
        policy.checkpoint_gradients()
    assert policy.unet.is_gradient_checkpointing
    torch.testing.assert_close(*grads)


def with_part(folder, **parts):
    pipe = DiffusionPipeline.from_pretrained(folder)
    for name, part in parts.items():
        setattr(pipe, name, part)
    return pipe


def scheduler(folder, **changes) -> DDIMScheduler:
    return DDIMScheduler.from_config(DiffusionPipeline.from_pretrained(folder).scheduler.config, **changes)


def unet(folder, **changes) -> UNet2DConditionModel:
    config = UNet2DConditionModel.load_config(folder, subfolder="unet")
    return UNet2DConditionModel.from_config({**config, **changes})


def test_models_we_cannot_train_are_named(tiny_sd):
    cases = [
        ({"scheduler": scheduler(tiny_sd, prediction_type="sample")}, "got prediction_type='sample'"),
        (
            {"scheduler": scheduler(tiny_sd, rescale_betas_zero_snr=True)},
            "got eps prediction on a zero-terminal-SNR",
        ),
        ({"unet": unet(tiny_sd, in_channels=9)}, "got a UNet of 9 input channels; expected 4"),
        ({"unet": unet(tiny_sd, time_cond_proj_dim=8)}, "got a guidance-distilled"),
    ]
    for parts, message in cases:
        with pytest.raises(ValueError, match=message):
            UNetPolicy(with_part(tiny_sd, **parts))
