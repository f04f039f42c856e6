"""One file in the released layout is the pipeline it was written from, and any other file is named."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from t2ialign.diffusion.kernels import ODE
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.models.options import ModelOptions
from t2ialign.models.single.layout import CLIP_1, CLIP_2, UNET, VAE
from tests.models.released import pipeline, released, write

FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module", params=FAMILIES)
def both(request, tmp_path_factory):
    """(family, its pipeline, its single file)"""
    pipe = pipeline(request.param)
    file = tmp_path_factory.mktemp("file") / f"{request.param}.safetensors"
    return request.param, pipe, write(released(pipe), file)


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    """Stable Diffusion 1 as a dict of weights in the released layout."""
    return released(pipeline("sd1"))


@pytest.fixture(scope="module")
def small(sd1):
    """Names of the same model, each with one number: enough to tell what a file is."""
    return {name: value.flatten()[:1].clone() for name, value in sd1.items()}


def test_a_file_is_the_pipeline_it_was_written_from(both):
    family, pipe, file = both
    policy = load_policy(file, device="cpu")
    assert (policy.family, policy.source) == (family, str(file))
    assert policy.prediction_type == ("v_prediction" if family == "sd2" else "epsilon")
    assert policy.native_size == tuple(
        2 * [2 * {"sd1": 64, "sd2": 96, "sdxl": 128}[family]]
    )  # a VAE of 2 levels
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if hasattr(pipe, name):
            theirs, ours = getattr(pipe, name), getattr(policy.pipe, name)
            assert theirs.state_dict().keys() == ours.state_dict().keys()
            assert all(
                torch.equal(value, ours.state_dict()[key]) for key, value in theirs.state_dict().items()
            )
    assert policy.vae.config.scaling_factor == pipe.vae.config.scaling_factor
    assert policy.vae.config.force_upcast == pipe.vae.config.force_upcast


@torch.no_grad()
def test_a_file_gives_the_images_of_its_pipeline(both):
    """Heads, activations, the layer that is read and the padding are in no tensor: images tell them."""
    _, pipe, file = both
    policy = load_policy(file, device="cpu")
    x_T = torch.randn(1, *policy.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        ["a photo of a cat!"],
        height=16,
        width=16,
        num_inference_steps=2,
        guidance_scale=5.0,
        latents=x_T,
        output_type="latent",
    ).images
    from t2ialign.diffusion.sampler import sample

    cond = policy.with_size(policy.encode_prompts(["a photo of a cat!"]), (16, 16), (0, 0), (16, 16))
    ours = sample(policy, cond, x_T, policy.timesteps(2), kernel=ODE, guidance_scale=5.0)
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_checkpoint_of_plain_tensors_is_read_and_any_other_is_refused(sd1, tmp_path):
    torch.save({"state_dict": sd1, "global_step": 5}, tmp_path / "model.ckpt")
    policy = load_policy(str(tmp_path / "model.ckpt"), device="cpu")
    assert torch.equal(policy.unet.conv_in.weight, sd1[UNET + "input_blocks.0.0.weight"])
    torch.save({"state_dict": {}, "callbacks": logging.getLogger()}, tmp_path / "code.ckpt")
    with pytest.raises(
        ValueError, match=r"does not open as plain tensors .*convert it.*docs/models\.md"
    ) as caught:
        load_policy(str(tmp_path / "code.ckpt"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_goes_by_part(both, precision):
    family, _, file = both
    policy = load_policy(file, precision=precision, device="cpu", master_weights=True)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    assert policy.unet.dtype == torch.float32 and policy.pipe.text_encoder.dtype == dtype
    assert policy.vae.dtype == (torch.float32 if family == "sdxl" else dtype)


def test_images_are_sampled_from_a_half_precision_file(sd1, tmp_path):
    half = {name: value.half() for name, value in sd1.items()}
    policy = load_policy(write(half, tmp_path / "half.safetensors"), precision="fp16", device="cpu")
    (image,) = generate(
        policy, ["a cat"], [0], num_inference_steps=1, guidance_scale=1.0, height=16, width=16
    )
    assert image.isfinite().all() and image.std() > 0


@pytest.mark.parametrize(
    ("keys", "header", "expected"),
    [
        ((), {}, ("epsilon", False)),
        (("v_pred",), {}, ("v_prediction", False)),
        (("v_pred", "ztsnr"), {}, ("v_prediction", True)),
        ((), {"modelspec.prediction_type": "v"}, ("v_prediction", False)),
        ((), {"modelspec.prediction_type": "epsilon"}, ("epsilon", False)),
    ],
)
def test_what_a_file_says_of_its_prediction(sd1, tmp_path, keys, header, expected):
    weights = {**sd1, **{key: torch.tensor([]) for key in keys}}
    policy = load_policy(write(weights, tmp_path / "model.safetensors", header), device="cpu")
    assert (policy.prediction_type, policy.schedule["rescale_betas_zero_snr"]) == expected
    assert policy.schedule["timestep_spacing"] == ("trailing" if expected[1] else "leading")
    if expected[1]:
        assert policy.path(torch.tensor([999]))[0] == 0 and policy.timesteps(10)[0] == 999


def test_stable_diffusion_2_goes_by_its_name_and_says_so(tmp_path, caplog):
    weights, kinds = released(pipeline("sd2")), {}
    for name in ("v2-1_768-ema-pruned", "v2-1_512-ema-pruned", "mine-base", "other"):
        with caplog.at_level(logging.INFO, logger="t2ialign"):
            policy = load_policy(write(weights, tmp_path / f"{name}.safetensors"), device="cpu")
        kinds[name] = (policy.prediction_type, policy.unet.config.sample_size)
        assert [m for m in caplog.messages if f"{name}.safetensors is Stable Diffusion 2" in m]
        assert all("set prediction_type=" in m for m in caplog.messages if "is Stable Diffusion 2" in m)
    v, eps = ("v_prediction", 96), ("epsilon", 64)
    assert kinds == {
        "v2-1_768-ema-pruned": v,
        "v2-1_512-ema-pruned": eps,
        "mine-base": eps,
        "other": v,
    }
    set_ = load_policy(
        str(tmp_path / "other.safetensors"), device="cpu", options=ModelOptions(prediction_type="epsilon")
    )
    assert set_.prediction_type == "epsilon" and set_.unet.config.sample_size == 64


def test_a_file_without_the_layer_nobody_reads_is_the_same_model(tmp_path):
    """Converters from diffusers write Stable Diffusion 2 without its last encoder layer and projection."""
    from t2ialign.models.single.layout import to_original

    pipe = pipeline("sd2")
    whole = load_policy(write(released(pipe), tmp_path / "whole.safetensors"), device="cpu")
    short = load_policy(write(to_original(pipe), tmp_path / "short.safetensors"), device="cpu")
    assert whole.pipe.text_encoder.config.num_hidden_layers == 2
    assert short.pipe.text_encoder.config.num_hidden_layers == 2
    first, second = (policy.encode_prompts(["a cat"])["prompt_embeds"] for policy in (whole, short))
    torch.testing.assert_close(first, second)


def widened(small, channels: int):
    return {**small, UNET + "input_blocks.0.0.weight": torch.zeros(8, channels, 3, 3)}


def only(small, prefix: str, new: str | None = None):
    return {
        (name if new is None else new + name.removeprefix(prefix)): value
        for name, value in small.items()
        if name.startswith(prefix)
    }


OTHERS = {
    "an inpainting model": lambda s: widened(s, 9),
    "InstructPix2Pix": lambda s: widened(s, 8),
    "a depth model": lambda s: widened(s, 5),
    "an upscaler": lambda s: widened(s, 7),
    "the refiner of Stable Diffusion XL": lambda s: {
        **only(s, UNET),
        "conditioner.embedders.0.model.positional_embedding": torch.zeros(1),
    },
    "Stable Diffusion 3": lambda s: {UNET + "joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(1)},
    "FLUX": lambda s: {"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(1)},
    "a U-Net alone": lambda s: only(s, UNET, ""),
    "a VAE alone": lambda s: only(s, VAE, ""),
    "a VAE alone;": lambda s: only(s, VAE),
    "a U-Net without a text encoder and a VAE": lambda s: only(s, UNET),
    "a U-Net without a VAE": lambda s: {**only(s, UNET), **only(s, CLIP_1)},
    "a LoRA .*--lora": lambda s: {"lora_unet_mid_block_to_q.lora_down.weight": torch.zeros(1)},
    "a LoRA": lambda s: {"unet.mid_block.to_q.lora_A.weight": torch.zeros(1)},
    "ControlNet": lambda s: {"control_model.input_blocks.0.0.weight": torch.zeros(1)},
    "Playground": lambda s: {**s, "edm_mean": torch.zeros(4)},
    "unCLIP": lambda s: {**s, UNET + "label_emb.0.0.weight": torch.zeros(1)},
    "weights of no known layout .*'some.weight'": lambda s: {"some.weight": torch.zeros(1)},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_named(small, tmp_path, kind):
    conv = {UNET + "input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)}
    file = write(OTHERS[kind]({**small, **conv}), tmp_path / "file.safetensors")
    with pytest.raises(ValueError, match=f"got {tmp_path}.*{kind}") as caught:
        load_policy(file)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)


def test_a_damaged_file_says_what_is_wrong(sd1, tmp_path):
    file = tmp_path / "cut.safetensors"
    write(sd1, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="which is no whole safetensors file"):
        load_policy(str(file))
    lacking = {name: value for name, value in sd1.items() if "out_layers.3" not in name}
    with pytest.raises(ValueError, match=r"expected a whole .* weights are missing") as caught:
        load_policy(write(lacking, file))
    assert "\n" not in str(caught.value)
    half = {name: value for name, value in sd1.items() if "text_model.encoder.layers.0.mlp.fc2" not in name}
    for precision in ("fp32", "bf16"):
        with pytest.raises(ValueError, match=r"expected a whole model;|weights are missing"):
            load_policy(write(half, file), precision=precision)
    with pytest.raises(ValueError, match=r"which lacks .*middle_block\.1"):
        load_policy(write({k: v for k, v in sd1.items() if "middle_block.1" not in k}, file))
    fewer = {**sd1, CLIP_1 + "text_model.embeddings.token_embedding.weight": torch.zeros(100, 64)}
    with pytest.raises(ValueError, match="49408 tokens of CLIP"):
        load_policy(write(fewer, file))


def test_options_of_a_folder_are_refused(sd1, tmp_path):
    file = write(sd1, tmp_path / "model.safetensors")
    for options in (ModelOptions(variant="fp16"), ModelOptions(revision="main")):
        with pytest.raises(ValueError, match="for the single file"):
            load_policy(file, options=options)


def test_a_run_on_a_file_is_that_file_with_its_weights(sd1, tmp_path):
    """The output of lora_rank=0 names the file as its base, and how it was read."""
    base = write(sd1, tmp_path / "model.safetensors")
    policy = load_policy(base, device="cpu")
    with torch.no_grad():
        policy.unet.conv_out.bias.add_(1.0)
    policy.unet.save_pretrained(tmp_path / "run" / "unet")
    (tmp_path / "run" / "config.yaml").write_text(
        f"model: {base}\nclip_skip: 1\nprediction_type: v_prediction\n"
    )
    run = load_policy(str(tmp_path / "run"), device="cpu")
    assert torch.equal(run.unet.conv_out.bias, policy.unet.conv_out.bias)
    assert (run.options.clip_skip, run.prediction_type) == (1, "v_prediction")


def test_the_released_layout_of_stable_diffusion_2_is_read_to_its_last_but_one_layer(tmp_path):
    file = write(released(pipeline("sd2")), tmp_path / "model.safetensors")
    assert CLIP_2 + "transformer.resblocks.2.ln_1.weight" in load_file(file)
    save_file(load_file(file), tmp_path / "again.safetensors")  # without a header
    assert load_policy(str(tmp_path / "again.safetensors"), device="cpu").family == "sd2"
