"""t2ialign export: each format gives the images of the base with its LoRA; merged files need no LoRA."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from t2ialign.cli import main as cli
from t2ialign.models.load import load_policy
from t2ialign.models.lora import add_lora
from t2ialign.models.lora_files import FILE, read_lora
from t2ialign.models.lora_saved import save_lora
from tests import loras
from tests.models.released import pipeline, released, write


def export(lora: Path | str, kind: str, output: Path, *more: str) -> int:
    return cli.main(["export", str(lora), "--format", kind, "-o", str(output), *more])


def image(pipe) -> torch.Tensor:
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return pipe("a cat", num_inference_steps=3, guidance_scale=2.0, latents=noise, output_type="pt").images


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.fixture(params=["tiny_sd", "tiny_sdxl"])
def case(request, tmp_path):
    """A model, a kohya file with text encoders for it, and its factors by key."""
    model = request.getfixturevalue(request.param)
    pipe = DiffusionPipeline.from_pretrained(model)
    parts = loras.draw(pipe)
    return model, loras.write("kohya", parts, tmp_path / "lora", pipe.unet), parts


def test_merged_is_the_base_with_the_lora_as_a_folder_and_as_one_file(case, tmp_path, capsys):
    """At a strength of .5, text encoders included; the one file is in the layout of the released ones."""
    model, lora, parts = case
    expected = image(loras.fold(DiffusionPipeline.from_pretrained(model), parts, 0.5))
    assert (image(DiffusionPipeline.from_pretrained(model)) - expected).abs().max() > 1e-2
    for output in (tmp_path / "merged", tmp_path / "merged.safetensors"):
        assert export(f"{lora}:0.5", "merged", output, "--model", str(model)) == 0
        streams = capsys.readouterr()
        assert f"wrote {output}" in streams.out and f"{len(parts)} of {len(parts)} layers" in streams.err
    close(image(DiffusionPipeline.from_pretrained(tmp_path / "merged")), expected)
    xl = "text_encoder_2" in (model / "model_index.json").read_text()
    single = (StableDiffusionXLPipeline if xl else StableDiffusionPipeline).from_single_file(
        tmp_path / "merged.safetensors", config=str(model), local_files_only=True
    )
    close(image(single), expected)
    keys = set(load_file(tmp_path / "merged.safetensors"))
    assert "model.diffusion_model.input_blocks.0.0.weight" in keys
    assert any(key.startswith("first_stage_model.decoder.") for key in keys)
    assert not list(tmp_path.glob(".*"))


def test_merged_weights_are_cast_last(tiny_sd, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(tiny_sd)
    parts = loras.draw(pipe)
    lora = loras.write("kohya", parts, tmp_path / "lora", pipe.unet)
    assert export(lora, "merged", tmp_path / "out", "--model", str(tiny_sd), "--precision", "bf16") == 0
    saved = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    exact = loras.fold(pipe, parts).unet.state_dict()
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    for name, tensor in saved.items():  # one rounding: half a step of 8 bits
        torch.testing.assert_close(tensor.float(), exact[name], rtol=2**-8, atol=1e-30)


@pytest.mark.parametrize("known", [True, False])
def test_kohya_and_diffusers_and_back(case, known, tmp_path, capsys):
    """With the model, and without: the file's header says which family it is of."""
    model, lora, parts = case
    xl = any(key.startswith("text_encoder_2") for key in parts)
    if xl and not known:  # a small network whose block numbers only the model tells
        assert export(lora, "diffusers", tmp_path / "run", "--model", str(model)) == 0
        assert export(tmp_path / "run", "kohya", tmp_path / "a.safetensors") == 2
        assert "name its base model with --model" in capsys.readouterr().err
        return
    more = ("--model", str(model)) if known else ()
    assert export(lora, "diffusers", tmp_path / "run", "--model", str(model)) == 0
    assert export(tmp_path / "run", "kohya", tmp_path / "a.safetensors", *more) == 0
    assert export(tmp_path / "a.safetensors", "diffusers", tmp_path / "again", *more) == 0
    assert (tmp_path / "run" / FILE).is_file() and (tmp_path / "again" / FILE).is_file()
    one, other = load_file(tmp_path / "run" / FILE), load_file(tmp_path / "again" / FILE)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    for key, part in parts.items():
        delta = read_lora(tmp_path / "run").layers[key].delta
        torch.testing.assert_close(delta, part.delta.float(), rtol=1e-5, atol=1e-6)
    kohya = load_file(tmp_path / "a.safetensors")
    starts = ("lora_unet_", *(("lora_te1_", "lora_te2_") if xl else ("lora_te_",)))
    assert all(key.startswith(starts) for key in kohya)
    assert any("input_blocks" in key for key in kohya) == xl
    with safe_open(tmp_path / "a.safetensors", "pt") as stream:
        about = stream.metadata()
    assert about["ss_base_model_version"] == ("sdxl_base_v1-0" if xl else "sd_v1")
    assert about["modelspec.title"] == "a"


def test_a_scale_is_in_the_weights(tiny_sd, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(tiny_sd)
    parts = loras.draw(pipe, only="unet")
    lora = loras.write("diffusers", parts, tmp_path, pipe.unet)
    assert export(f"{lora}:-2", "diffusers", tmp_path / "out") == 0
    for key, factors in read_lora(tmp_path / "out").layers.items():
        torch.testing.assert_close(factors.delta, -2 * parts[key].delta.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("width", "version"), [(768, "sd_v1"), (1024, "sd_v2"), (2048, "sdxl_base_v1-0")])
def test_a_family_is_known_by_the_width_of_its_prompts(width, version, tmp_path):
    key = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    state = {f"{key}.lora_A.weight": torch.randn(2, width), f"{key}.lora_B.weight": torch.randn(640, 2)}
    save_file(state, tmp_path / "bare.safetensors")
    assert export(tmp_path / "bare.safetensors", "kohya", tmp_path / "out", "--precision", "fp16") == 0
    (file,) = (tmp_path / "out").iterdir()
    assert file.name == "bare_kohya.safetensors"
    with safe_open(file, "pt") as stream:
        assert stream.metadata()["ss_base_model_version"] == version
        assert stream.metadata()["ss_v2"] == str(width == 1024)
        name = "input_blocks_4_1" if width == 2048 else "down_blocks_1_attentions_0"
        down = stream.get_tensor(f"lora_unet_{name}_transformer_blocks_0_attn2_to_k.lora_down.weight")
    assert torch.equal(down, state[f"{key}.lora_A.weight"].half())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["kohya", "new"],
            r"layers do not tell which model it is for; expected one of Stable Diffusion 1, 2 or XL",
        ),
        (["merged", "new"], r"got --format merged without --model; expected the base model"),
        (["diffusers", "used"], r"got --output .*used, which is in use \(it holds a\.txt\); expected a new"),
        (["diffusers", "used/a.txt"], r"got --output .*a\.txt, which is there; expected a new file"),
    ],
)
def test_what_cannot_be_written_is_said(arguments, message, tmp_path, capsys):
    key = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_k"
    state = {f"{key}.lora_A.weight": torch.randn(2, 8), f"{key}.lora_B.weight": torch.randn(8, 2)}
    save_file(state, tmp_path / "bare.safetensors")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "a.txt").write_text("a")
    kind, output = arguments
    assert export(tmp_path / "bare.safetensors", kind, tmp_path / output) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, error), error


def test_a_missing_lora_and_one_for_another_model_are_errors(tiny_sd, tmp_path, capsys):
    assert export(tmp_path / "none", "kohya", tmp_path / "out") == 2
    assert "expected a .safetensors file, or a folder with" in capsys.readouterr().err
    key = "unet.down_blocks.9.attentions.0.proj_in"
    state = {f"{key}.lora_A.weight": torch.randn(2, 8), f"{key}.lora_B.weight": torch.randn(8, 2)}
    save_file(state, tmp_path / "other.safetensors")
    for kind in ("kohya", "merged"):
        assert export(tmp_path / "other.safetensors", kind, tmp_path / "out", "--model", str(tiny_sd)) == 2
        assert "0 of 1 layers matched" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_single_file_of_a_v_prediction_model_says_so(tiny_sd_v, tmp_path):
    """By the key that UIs look for, and by the header."""
    pipe = DiffusionPipeline.from_pretrained(tiny_sd_v)
    lora = loras.write("kohya", loras.draw(pipe), tmp_path / "lora", pipe.unet)
    assert export(lora, "merged", tmp_path / "v.safetensors", "--model", str(tiny_sd_v)) == 0
    with safe_open(tmp_path / "v.safetensors", "pt") as stream:
        assert "v_pred" in stream.keys() and "ztsnr" not in stream.keys()  # noqa: SIM118 (no iterator)
        about = stream.metadata()
    assert about["modelspec.prediction_type"] == "v"
    assert about["modelspec.architecture"] == "stable-diffusion-v1"
    again = StableDiffusionPipeline.from_single_file(
        tmp_path / "v.safetensors", config=str(tiny_sd_v), local_files_only=True
    )
    assert torch.equal(again.unet.conv_in.weight, pipe.unet.conv_in.weight)


@pytest.mark.parametrize(
    ("family", "version"), [("sd1", "sd_v1"), ("sd2", "sd_v2_v"), ("sdxl", "sdxl_base_v1-0")]
)
def test_one_file_in_one_file_out(family, version, tmp_path, capsys):
    """A checkpoint as people have it, with a LoRA of its U-Net and text encoders, and no network to reach."""
    pipe = pipeline(family)
    parts = loras.draw(pipe)
    lora = loras.write("diffusers", parts, tmp_path / "lora", pipe.unet)
    model = write(released(pipe), tmp_path / "model.safetensors")
    for kind, name in (("kohya", "k"), ("merged", "merged")):
        assert export(lora, kind, tmp_path / f"{name}.safetensors", "--model", model) == 0
        assert f"{len(parts)} of {len(parts)} layers matched" in capsys.readouterr().err
    with safe_open(tmp_path / "k.safetensors", "pt") as stream:
        assert stream.metadata()["ss_base_model_version"] == version
    merged = load_policy(str(tmp_path / "merged.safetensors"), device="cpu")
    assert (merged.family, merged.prediction_type) == (family, pipe.scheduler.config.prediction_type)
    loras.fold(pipe, parts)
    for component in ("unet", "text_encoder", "text_encoder_2"):
        if (module := getattr(pipe, component, None)) is not None:
            state = getattr(merged.pipe, component).state_dict()
            for key, tensor in module.state_dict().items():
                torch.testing.assert_close(state[key], tensor, rtol=1e-5, atol=1e-6)


def test_a_base_model_is_read_as_the_flags_say(tmp_path):
    """A v-prediction file that does not say so: what is merged from it says so, and the LoRA's file too."""
    checkpoint = write(released(pipeline("sd1")), tmp_path / "model.safetensors")
    policy = load_policy(checkpoint, device="cpu")
    add_lora(policy, 2)
    lora = save_lora(policy, tmp_path)
    stated = ["--model", checkpoint, "--prediction-type", "v_prediction"]
    for kind in ("merged", "kohya"):
        out = tmp_path / f"{kind}.safetensors"
        assert export(lora, kind, out, *stated) == 0
        with safe_open(out, framework="pt") as stream:
            assert stream.metadata()["modelspec.prediction_type"] == "v"
    assert load_policy(str(tmp_path / "merged.safetensors"), device="cpu").kind == "v"
