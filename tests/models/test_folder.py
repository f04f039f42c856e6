"""Folders as people have them: half-precision files alone or beside others, and parts that are missing."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline

from t2ialign.diffusion.kernels import ODE
from t2ialign.models.advice import distilled, not_followed
from t2ialign.models.load import load_policy
from t2ialign.models.options import ModelOptions


@pytest.fixture
def folder(tiny_sd, tmp_path) -> Path:
    return shutil.copytree(tiny_sd, tmp_path / "model")


def rename(folder: Path, variant: str, parts: str = "*") -> Path:
    for file in folder.glob(f"{parts}/*.safetensors"):
        file.rename(file.with_suffix(f".{variant}.safetensors"))
    return folder


def test_a_folder_of_fp16_files_loads_by_itself(folder, tiny_sd, caplog):
    with caplog.at_level(logging.INFO, logger="t2ialign"):
        policy = load_policy(str(rename(folder, "fp16")), device="cpu")
    assert f"{folder} holds only fp16 weights, so these are read" in caplog.messages
    expected = load_policy(str(tiny_sd), device="cpu").unet.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in policy.unet.state_dict().items())


def test_one_part_may_have_a_variant_only(folder):
    assert load_policy(str(rename(folder, "fp16", "vae")), device="cpu").unet.dtype == torch.float32


def test_variant_chooses_where_both_exist(folder, tiny_sd):
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(7)
    pipe.unet.save_pretrained(folder / "unet", variant="ema")
    plain, chosen = (
        load_policy(str(folder), device="cpu", options=ModelOptions(variant=variant)).unet.conv_out.bias
        for variant in (None, "ema")
    )
    assert (plain != 7).all() and (chosen == 7).all()
    with pytest.raises(ValueError, match=r"got variant='fp16' .*expected one of ema") as caught:
        load_policy(str(folder), options=ModelOptions(variant="fp16"))
    assert "\n" not in str(caught.value)


def test_several_variants_and_no_plain_files_are_a_question(folder):
    rename(folder, "fp16")
    for file in folder.glob("*/*.fp16.safetensors"):
        shutil.copy(file, file.with_name(file.name.replace(".fp16.", ".bf16.")))
    with pytest.raises(
        ValueError, match=r"has no plain weights but bf16, fp16; .* choose it with variant=NAME"
    ):
        load_policy(str(folder))
    assert load_policy(str(folder), device="cpu", options=ModelOptions(variant="bf16"))


def test_unused_parts_may_be_missing(folder):
    """Indexes name a safety checker, a feature extractor and an image encoder; people delete them."""
    file = folder / "model_index.json"
    index = json.loads(file.read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": True,
    }
    file.write_text(json.dumps(index))
    assert load_policy(str(folder), device="cpu").pipe.safety_checker is None


def test_a_revision_is_for_the_hub(folder):
    with pytest.raises(ValueError, match="got revision='main' for a folder; expected it for a Hub id"):
        load_policy(str(folder), options=ModelOptions(revision="main"))


def test_prediction_type_overrides_the_scheduler(tiny_sd, tiny_sdxl, tiny_sd_v):
    for model in (tiny_sd, tiny_sdxl):
        policy = load_policy(str(model), device="cpu", options=ModelOptions(prediction_type="v_prediction"))
        assert (policy.kind, policy.prediction_type) == ("v", "v_prediction")
    policy = load_policy(str(tiny_sd_v), device="cpu", options=ModelOptions(prediction_type="epsilon"))
    assert policy.kind == "eps"


@torch.no_grad()
@pytest.mark.parametrize("model", ["tiny_sd_v", "tiny_sdxl"])
def test_zero_terminal_snr_samples_as_diffusers_advises(request, model):
    """rescale_betas_zero_snr with trailing steps: the grid begins at pure noise, t = 999."""
    folder = request.getfixturevalue(model)
    options = ModelOptions(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    policy = load_policy(str(folder), device="cpu", options=options)
    theirs = DDIMScheduler.from_config(
        policy.pipe.scheduler.config,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    theirs.set_timesteps(5)
    assert policy.timesteps(5).tolist() == [*theirs.timesteps.tolist(), -1] == [999, 799, 599, 399, 199, -1]
    torch.testing.assert_close(policy.latents.table[:-1], theirs.alphas_cumprod, rtol=0, atol=1e-7)
    assert policy.latents.table[999] == 0
    x_t = torch.randn(1, *policy.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
    cond = policy.encode_prompts(["a cat"])
    for t, s in zip(policy.timesteps(5)[:-1], policy.timesteps(5)[1:], strict=True):
        out = policy.predict(x_t, t.expand(1), cond)
        ours = policy.transition(out, x_t, t.expand(1), s.expand(1), kernel=ODE).mean
        x_t = theirs.step(out, int(t), x_t).prev_sample
        torch.testing.assert_close(ours, x_t, rtol=1e-5, atol=1e-5)


def test_zero_terminal_snr_can_be_switched_off(tiny_sd_v, tmp_path, caplog):
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd_v, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    pipe.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="t2ialign"):
        assert load_policy(str(tmp_path), device="cpu").latents.table[999] == 0
    assert "which the leading steps of the model's config never visit" in caplog.messages[-1]
    policy = load_policy(str(tmp_path), device="cpu", options=ModelOptions(rescale_betas_zero_snr=False))
    assert policy.latents.table[999] > 0


def test_eps_on_pure_noise_is_refused_with_the_settings_that_mend_it(tiny_sd):
    with pytest.raises(ValueError, match="set prediction_type=v_prediction, or rescale_betas_zero_snr=false"):
        load_policy(str(tiny_sd), device="cpu", options=ModelOptions(rescale_betas_zero_snr=True))


def test_a_sampler_that_is_not_followed_is_said_once(tiny_sd, tiny_sdxl, caplog):
    with caplog.at_level(logging.INFO, logger="t2ialign"):
        load_policy(str(tiny_sd), device="cpu")
        assert caplog.messages == []
        load_policy(str(tiny_sdxl), device="cpu")
    line = (
        "the model names EulerDiscreteScheduler; images are sampled with DDIM on its noise schedule instead"
    )
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("place", "mark"),
    [
        ("stabilityai/sdxl-turbo", "turbo"),
        ("/models/dreamshaperXL_v21TurboDPMSDE.safetensors", "turbo"),
        ("ByteDance/SDXL-Lightning", "lightning"),
        ("~/x/realvisxlV50_v50LightningBakedvae.safetensors", "lightning"),
        ("Hyper-SDXL-8steps", "hyper"),
        ("SimianLuo/LCM_Dreamshaper_v7", "lcm"),
        ("black-forest-labs/FLUX.1-schnell", "schnell"),
        ("/models/turbo/plain.safetensors", None),
        ("me/hyperrealistic", None),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", None),
    ],
)
def test_distilled_models_are_known_by_name(place, mark):
    assert distilled(place, {}) == (mark and f"its name has {mark!r}")


def test_distilled_models_are_known_by_scheduler(tiny_sd, tmp_path):
    ancestral = {"_class_name": "EulerAncestralDiscreteScheduler"}
    assert distilled("m", {**ancestral, "timestep_spacing": "leading"}) is None
    assert "trailing" in str(distilled("m", {**ancestral, "timestep_spacing": "trailing"}))
    assert not_followed({"_class_name": "DDIMScheduler"}) is None and not_followed({}) is None
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path)
    assert load_policy(str(tmp_path), device="cpu").distilled == "its scheduler is LCMScheduler"


DEEP = "[" * 100_000
WHOLE: list[Any] = [DEEP, "[]", "null", '"a"', "{", {"_class_name": ["a"]}]
PARTS: list[Any] = [None, 3, ["a"], ["os", "system"], ["diffusers", {}]]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(("model_index.json", change) for change in WHOLE),
        *(("model_index.json", {"vae": part}) for part in PARTS),
        ("model_index.json", {"unet": ["transformers", "pipeline"]}),
        *(("unet/config.json", change) for change in (DEEP, "null")),
        ("unet/config.json", {"quantization_config": 3}),
        ("unet/config.json", {"dtype": {}}),
        *(("vae/config.json", change) for change in (DEEP, "[]")),
        ("vae/config.json", {"block_out_channels": "abc"}),
        *(("text_encoder/config.json", change) for change in (DEEP, "[]", "{}")),
        ("text_encoder/config.json", {"hidden_size": -1}),
        ("text_encoder/config.json", {"attn_implementation": "owner/kernel"}),
        *(("tokenizer/tokenizer_config.json", change) for change in (DEEP, "[]")),
        ("tokenizer/tokenizer_config.json", {"eos_token": 5}),
        *(("scheduler/scheduler_config.json", {"num_train_timesteps": value}) for value in ("a", -5, 10**12)),
        ("scheduler/scheduler_config.json", {"trained_betas": "x"}),
    ],
)
def test_configurations_of_strangers_never_lead_to_a_traceback(folder, name, change):
    file = folder / name
    if isinstance(change, dict):
        change = json.dumps({**json.loads(file.read_text(encoding="utf-8")), **change})
    file.write_text(change, encoding="utf-8")
    with pytest.raises(ValueError, match="got ") as caught:
        load_policy(str(folder), device="cpu")
    assert "expected" in str(caught.value)
