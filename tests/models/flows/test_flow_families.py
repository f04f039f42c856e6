"""Each flow family behind the boundary: it samples as diffusers' own pipeline, and its LoRA is read there."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import t2ialign
from t2ialign.diffusion.kernels import ODE
from t2ialign.diffusion.sampler import sample
from t2ialign.models.base import Policy
from t2ialign.models.load import load_policy, policy_of
from t2ialign.models.lora import add_lora, trainable
from t2ialign.models.lora_apply import load_lora
from t2ialign.models.lora_saved import save_lora
from tests.models.flows.tiny_flux import tiny_flux_pipeline
from tests.models.flows.tiny_sd3 import tiny_sd3_pipeline
from tests.models.flows.tiny_z_image import tiny_z_image_pipeline

PROMPTS = ["a red circle", "two blue squares left of a green cross"]
SIZE = (24, 40)


class Family(NamedTuple):
    """A tiny pipeline, and what its own guidance scale is for one of ours."""

    build: Callable[..., Any]
    scale: Callable[[float], float] = float


FAMILIES = {
    "sd3": Family(tiny_sd3_pipeline),
    "flux": Family(tiny_flux_pipeline),
    "z-image": Family(tiny_z_image_pipeline, lambda scale: scale - 1),
}


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def policy(name: str) -> Policy:
    policy = policy_of(FAMILIES[name].build())
    assert policy.family == name
    return policy


def noise(policy: Policy, size: tuple[int, int] = SIZE, rows: int = 2) -> Tensor:
    return torch.randn(rows, *policy.latent_shape(*size), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("guidance_scale", [1.0, 4.5])
def test_the_ode_is_the_pipelines_own_sampler(name: str, policy: Policy, guidance_scale: float) -> None:
    """The same noise, prompts of two lengths, another size than the model's own, guidance on and off."""
    x_T, cond = noise(policy), policy.encode_prompts(PROMPTS)
    theirs = policy.pipe(  # type: ignore[attr-defined]
        PROMPTS.copy(),  # Z-Image's pipeline writes into the list
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=5,
        guidance_scale=FAMILIES[name].scale(guidance_scale),
        latents=as_given(name, x_T),
        output_type="latent",
    ).images
    ours = sample(policy, cond, x_T, policy.timesteps(5, SIZE), kernel=ODE, guidance_scale=guidance_scale)
    assert (ours - x_T).abs().max() > 0.1
    assert (as_given(name, ours) - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def as_given(name: str, latents: Tensor) -> Tensor:
    """Latents as the pipeline takes and returns them: FLUX's are packed."""
    if name != "flux":
        return latents
    return tiny_flux_pipeline()._pack_latents(latents, *latents.shape)


@torch.no_grad()
def test_decoding_is_the_pipelines_own(policy: Policy) -> None:
    vae, latents = policy.pipe.vae, 0.5 * noise(policy)  # type: ignore[attr-defined]
    theirs = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample / 2 + 0.5
    torch.testing.assert_close(policy.decode(latents), theirs.clamp(0, 1), rtol=1e-4, atol=1e-5)
    mean, std = policy.encode_images(policy.decode(latents))
    dist = vae.encode(2 * policy.decode(latents) - 1).latent_dist
    torch.testing.assert_close(mean, (dist.mean - vae.config.shift_factor) * vae.config.scaling_factor)
    torch.testing.assert_close(std, dist.std * vae.config.scaling_factor)


@torch.no_grad()
def test_the_output_is_the_velocity_from_image_to_noise(policy: Policy) -> None:
    """x_0 = x - sigma v: near sigma = 0 the posterior mean is x itself, and the ODE goes down in sigma."""
    x, cond, small = noise(policy), policy.encode_prompts(PROMPTS), torch.full((2,), 1e-3)
    out = policy.predict(x, small, cond)
    torch.testing.assert_close(policy.posterior_mean(out, x, small), x, rtol=0, atol=1e-4)
    t, s = torch.full((2,), 500.0), torch.full((2,), 400.0)
    out = policy.predict(x, t, cond)
    moved = policy.transition(out, x, t, s, kernel=ODE).mean
    torch.testing.assert_close(moved, x - 0.1 * out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(policy.posterior_mean(out, x, t), x - 0.5 * out, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_row_does_not_depend_on_the_others(policy: Policy) -> None:
    x, t, cond = noise(policy), torch.tensor([300.0, 900.0]), policy.encode_prompts(PROMPTS)
    both = policy.guided(x, t, cond, 3.0)
    for row in range(2):
        one = slice(row, row + 1)
        alone = policy.guided(x[one], t[one], policy.encode_prompts(PROMPTS[one]), 3.0)
        torch.testing.assert_close(alone, both[one], rtol=1e-4, atol=1e-5)


def test_a_lora_goes_to_diffusers_and_comes_back(name: str, tmp_path: Path) -> None:
    """Switched off it is the base to the bit; written, the pipeline's own loader and ours read the same."""
    base, policy = policy_of(FAMILIES[name].build()), policy_of(FAMILIES[name].build())
    add_lora(policy, 2)
    with torch.no_grad():
        for parameter in trainable(policy).values():
            parameter.add_(0.2)
    file = save_lora(policy, tmp_path)
    x, t, cond = noise(policy), torch.tensor([500.0, 900.0]), policy.encode_prompts(PROMPTS)
    trained = policy.predict(x, t, cond).detach()
    with policy.reference():
        assert torch.equal(policy.predict(x, t, cond), base.predict(x, t, cond))
    pipe, again = FAMILIES[name].build(), policy_of(FAMILIES[name].build())
    pipe.load_lora_weights(tmp_path, weight_name=file.name)
    load_lora(again, file)
    assert not torch.allclose(trained, base.predict(x, t, cond), atol=1e-3)
    for other in (policy_of(pipe), again):
        torch.testing.assert_close(other.predict(x, t, cond), trained, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_folder_is_loaded_by_name(name: str, tmp_path: Path) -> None:
    pipe = FAMILIES[name].build()
    pipe.save_pretrained(tmp_path)
    ours, theirs = load_policy(str(tmp_path), device="cpu"), policy_of(pipe)
    x, t = noise(ours), torch.tensor([500.0, 900.0])
    torch.testing.assert_close(
        ours.guided(x, t, ours.encode_prompts(PROMPTS), 2.0),
        theirs.guided(x, t, theirs.encode_prompts(PROMPTS), 2.0),
    )
    assert ours.fingerprint() == theirs.fingerprint()


@torch.no_grad()
def test_prompts_that_were_kept_outlive_their_encoders(name: str) -> None:
    policy = policy_of(FAMILIES[name].build())
    x, t, cond = noise(policy), torch.tensor([500.0, 900.0]), policy.encode_prompts(PROMPTS)
    before = policy.guided(x, t, cond, 3.0)
    policy.free_encoders(keep_prompts=PROMPTS)
    parts = [part for part in policy.components if part.startswith("text_encoder") or part == "vae"]
    assert not parts
    torch.testing.assert_close(policy.guided(x, t, policy.encode_prompts(PROMPTS), 3.0), before)


COMFY = {
    "sd3": r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|add_[qkv]_proj|to_out\.0|to_add_out)"
    r"|ff(_context)?\.net\.(0\.proj|2))",
    "flux": r"(single_)?transformer_blocks\.\d+\.(attn\.(to_[qkv]|add_[qkv]_proj|to_out\.0|to_add_out)"
    r"|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)",
    "z-image": r"(layers|noise_refiner|context_refiner)\.\d+\.attention\.(to_[qkv]|to_out\.0)",
}
"""The layers of a transformer that ComfyUI has names for, by diffusers' paths (comfy/utils.py); it looks for
them with "transformer." before and one of its pairs of ends behind."""


def test_comfyui_takes_every_layer_of_the_file(name: str, tmp_path: Path) -> None:
    """No alpha and no header are read there: alpha is the rank, so the change is up @ down as it stands."""
    policy = policy_of(FAMILIES[name].build())
    add_lora(policy, 2, alpha=8)
    with torch.no_grad():
        for parameter in trainable(policy).values():
            parameter.add_(0.2)
    file = load_file(save_lora(policy, tmp_path))
    ends = (".lora_A.weight", ".lora_B.weight")
    layers = {key.removesuffix(end) for key in file for end in ends if key.endswith(end)}
    assert 2 * len(layers) == len(file) == len(trainable(policy))
    for layer in layers:
        path = layer.removeprefix("transformer.")
        assert re.fullmatch(COMFY[name], path) and layer != path
        module = policy.adapted.get_submodule(path)
        change = module.get_delta_weight("default")
        torch.testing.assert_close(file[f"{layer}.lora_B.weight"] @ file[f"{layer}.lora_A.weight"], change)


def test_a_lora_is_folded_into_the_model_and_has_no_kohya_names(name: str, tmp_path: Path) -> None:
    FAMILIES[name].build().save_pretrained(tmp_path / "model")
    policy = load_policy(str(tmp_path / "model"), device="cpu")
    add_lora(policy, 2)
    with torch.no_grad():
        for parameter in trainable(policy).values():
            parameter.add_(0.2)
    lora, model = save_lora(policy, tmp_path / "lora").parent, str(tmp_path / "model")
    merged = t2ialign.export(lora, tmp_path / "merged", format="merged", model=model)
    x, t, cond = noise(policy), torch.tensor([500.0, 900.0]), policy.encode_prompts(PROMPTS)
    folded = load_policy(str(merged), device="cpu").predict(x, t, cond)
    torch.testing.assert_close(folded, policy.predict(x, t, cond).detach(), rtol=1e-4, atol=1e-4)
    copied = t2ialign.export(f"{lora}:0.5", tmp_path / "half", format="diffusers")
    whole, half = (load_file(next(folder.glob("*.safetensors"))) for folder in (lora, copied.parent))
    assert whole.keys() == half.keys()
    for end, factor in ((".lora_A.weight", 1.0), (".lora_B.weight", 0.5)):
        (key, *_) = [key for key in whole if key.endswith(end)]
        torch.testing.assert_close(half[key], factor * whole[key])
    with pytest.raises(ValueError, match="expected one of Stable Diffusion 1, 2 or XL"):
        t2ialign.export(lora, tmp_path / "kohya", format="kohya")
