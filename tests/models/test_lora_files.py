"""LoRA files of every known format: the same weights come out, and the same images whatever reads them."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from t2ialign.cli import main as cli
from t2ialign.diffusion.kernels import ODE
from t2ialign.diffusion.sampler import sample
from t2ialign.models.load import load_policy
from t2ialign.models.lora import add_lora, trainable
from t2ialign.models.lora_apply import load_lora
from t2ialign.models.lora_files import FILE, METADATA, read_lora, write_diffusers, write_kohya
from t2ialign.models.lora_saved import save_kohya, save_lora
from t2ialign.models.options import ModelOptions
from tests import loras
from tests.loras import Part

WITH_ALPHA = ["diffusers", "kohya", "kohya SGM", "PEFT", "ComfyUI"]
UNET_ONLY = ("PEFT", "ComfyUI")
PROMPT = "a cat"
DOWN = ("lora_A.weight", "lora_down.weight")


@pytest.fixture(params=["tiny_sd", "tiny_sdxl"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


def pipeline(folder: Path):
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def image(pipe) -> torch.Tensor:
    """By diffusers' own pipeline."""
    call = pipe(PROMPT, num_inference_steps=3, guidance_scale=2.0, latents=noise(), output_type="pt")
    return call.images


def ours(folder: Path, *files: tuple[Path, float]) -> torch.Tensor:
    """The same by the project, with LoRAs."""
    policy = load_policy(str(folder), device="cpu")
    for file, weight in files:
        load_lora(policy, file, weight=weight)
    assert not trainable(policy)
    with torch.no_grad():
        cond = policy.encode_prompts([PROMPT])
        return policy.decode(
            sample(policy, cond, noise(), policy.timesteps(3), kernel=ODE, guidance_scale=2.0)
        )


@pytest.fixture
def any_peft(monkeypatch) -> None:
    """transformers 5.24 asks for peft 0.22, of which the loading of text encoders needs nothing."""
    monkeypatch.setattr("transformers.integrations.peft.check_peft_version", lambda **_: None)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def plain(parts: dict[str, Part]) -> dict[str, Part]:
    """With alpha = rank, for formats that have no alpha."""
    return {key: Part(down, up, float(len(down))) for key, (down, up, _) in parts.items()}


@pytest.mark.parametrize("kind", [*WITH_ALPHA, "old diffusers"])
def test_every_format_is_read(kind, folder, tmp_path):
    """Mixed ranks, alpha != rank, convolutions, text encoders: delta W = alpha / r * up @ down."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    parts = loras.draw(pipe, only="unet" if kind in UNET_ONLY else None)
    parts = parts if kind in WITH_ALPHA else plain(parts)
    assert len({len(part.down) for part in parts.values()}) == 3
    file = loras.write(kind, parts, tmp_path, pipe.unet)
    lora = read_lora(tmp_path if kind == "PEFT" else file, layout=pipe.unet.config)
    assert lora.layers.keys() == parts.keys() and lora.format == kind.removesuffix(" SGM")
    for key, factors in lora.layers.items():
        torch.testing.assert_close(factors.delta, parts[key].delta.float(), rtol=1e-5, atol=1e-6)


def test_alpha_is_the_tensors_before_the_headers_before_the_rank(tmp_path):
    key, kohya = "unet.mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in"
    down, up = torch.randn(2, 4), torch.randn(3, 2)
    weights = {f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up}

    def scale(state, **settings) -> float:
        header = {METADATA: json.dumps({f"unet.{k}": v for k, v in settings.items()})} if settings else None
        save_file(state, tmp_path / "a.safetensors", metadata=header)
        factors = read_lora(tmp_path / "a.safetensors").layers[key]
        ratio = factors.up / up
        torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
        return round(ratio[0, 0].item(), 5)

    assert scale(weights) == 1
    assert scale({**weights, f"{kohya}.alpha": torch.tensor(0.0)}) == 1  # sd-scripts: none means the rank
    assert scale({**weights, f"{kohya}.alpha": torch.tensor([8.0])}, lora_alpha=6) == 4
    assert scale(weights, lora_alpha=6) == 3
    assert scale(weights, lora_alpha=6, use_rslora=True) == round(6 / 2**0.5, 5)
    assert scale(weights, lora_alpha=6, alpha_pattern={"proj_out": 1, "attentions.0.proj_in": 8}) == 4


@pytest.mark.usefixtures("any_peft")
@pytest.mark.parametrize("kind", ["diffusers", "kohya SGM", "old diffusers"])
def test_images_are_those_of_the_folded_weights_whoever_reads(kind, folder, tmp_path):
    """A file of another program, its export to kohya and to diffusers, in diffusers and here."""
    pipe = pipeline(folder)
    parts = loras.draw(pipe)
    parts = parts if kind in WITH_ALPHA else plain(parts)
    file = loras.write(kind, parts, tmp_path, pipe.unet)
    base, whole = image(pipe), image(loras.fold(pipeline(folder), parts))
    assert (whole - base).abs().max() > 1e-2
    close(ours(folder, (file, 1.0)), whole)
    close(ours(folder, (file, 0.5)), image(loras.fold(pipeline(folder), parts, 0.5)))

    lora = read_lora(file, layout=pipe.unet.config)
    architecture = "stable-diffusion-xl-v1-base" if hasattr(pipe, "text_encoder_2") else "stable-diffusion-v1"
    exported = [
        write_diffusers(lora.layers, tmp_path / FILE, {}),
        write_kohya(
            lora.layers, tmp_path / "k.safetensors", {}, architecture=architecture, layout=pipe.unet.config
        ),
    ]
    save_file(load_file(exported[0]), tmp_path / "bare.safetensors")  # the header dropped
    for one in (*exported, tmp_path / "bare.safetensors"):
        assert {len(t) for name, t in load_file(one).items() if name.endswith(DOWN)} == {3}
        close(ours(folder, (one, 1.0)), whole)
        again = pipeline(folder)
        again.load_lora_weights(tmp_path, weight_name=one.name)
        close(image(again), whole)


@pytest.mark.parametrize("alpha", [None, 12.0])
def test_a_trained_lora_gives_the_same_images_in_every_file(alpha, folder, tmp_path):
    """alpha 12 of rank 4 is in the weights, so that a reader of no header gets all of it."""
    policy = load_policy(str(folder), device="cpu")
    add_lora(policy, 4, alpha)
    for i, parameter in enumerate(trainable(policy).values()):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    with torch.no_grad():
        cond = policy.encode_prompts([PROMPT])
        moved = policy.decode(
            sample(policy, cond, noise(), policy.timesteps(3), kernel=ODE, guidance_scale=2.0)
        )
    file = save_lora(policy, tmp_path)
    kohya = save_kohya(policy, file, tmp_path / "run_kohya.safetensors")
    assert {float(t) for name, t in load_file(kohya).items() if name.endswith(".alpha")} == {4.0}
    save_file(load_file(file), tmp_path / "bare.safetensors")
    assert (moved - image(pipeline(folder))).abs().max() > 1e-2
    for one in (file, kohya, tmp_path / "bare.safetensors"):
        pipe = pipeline(folder)
        pipe.load_lora_weights(tmp_path, weight_name=one.name)
        close(image(pipe), moved)


def test_the_headers_say_what_it_is_for(folder, tmp_path):
    policy = load_policy(str(folder), device="cpu")
    add_lora(policy, 4, 8)
    file = save_lora(policy, tmp_path, title="run")
    kohya = save_kohya(policy, file, tmp_path / "run_kohya.safetensors")
    headers = []
    for one in (file, kohya):
        with safe_open(one, "pt") as stream:
            headers.append(stream.metadata())
    xl = policy.unet.config.addition_embed_type is not None
    assert {header["modelspec.architecture"] for header in headers} == {
        "stable-diffusion-xl-v1-base/lora" if xl else "stable-diffusion-v1/lora"
    }
    assert {header["modelspec.prediction_type"] for header in headers} == {"epsilon"}
    assert [header["modelspec.title"] for header in headers] == ["run", "run_kohya"]
    assert headers[1]["ss_base_model_version"] == ("sdxl_base_v1-0" if xl else "sd_v1")
    assert headers[1]["ss_network_module"] == "networks.lora"
    assert headers[1]["ss_network_dim"] == "4" and headers[1]["ss_network_alpha"] == "4.0"
    settings = json.loads(headers[0][METADATA])
    assert settings["unet.r"] == settings["unet.lora_alpha"] == 4


def test_two_loras_with_text_encoders_add_up_by_weight(tiny_sd, tmp_path):
    pipe = pipeline(tiny_sd)
    one, other = loras.draw(pipe, seed=1, only="text_encoder"), loras.draw(pipe, seed=2)
    files = [
        loras.write("kohya", parts, tmp_path / str(i), pipe.unet) for i, parts in enumerate((one, other))
    ]
    expected = image(loras.fold(loras.fold(pipe, one, 0.7), other, -0.5))
    close(ours(tiny_sd, (files[0], 0.7), (files[1], -0.5)), expected)


def test_a_bf16_model_takes_a_lora(tiny_sd, tmp_path):
    policy = load_policy(str(tiny_sd), device="cpu", precision="bf16")
    file = loras.write("kohya", loras.draw(policy.pipe), tmp_path, policy.unet)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    load_lora(policy, file)
    assert torch.equal(torch.get_rng_state(), state), "peft's draws must not move the global generator"
    names = [
        name for name, p in policy.unet.named_parameters() if "lora_" in name and p.dtype == torch.bfloat16
    ]
    assert len(names) == 2 * 49
    with torch.no_grad():
        cond = policy.encode_prompts([PROMPT])
        half = policy.decode(
            sample(policy, cond, noise(), policy.timesteps(3), kernel=ODE, guidance_scale=2.0)
        )
    torch.testing.assert_close(half, ours(tiny_sd, (file, 1.0)), rtol=0, atol=0.05)


def test_prompts_are_encoded_anew_after_a_text_encoder_changes(tiny_sd, tmp_path):
    policy = load_policy(str(tiny_sd), device="cpu")
    cond = policy.encode_prompts([PROMPT])
    before = policy.null_cond(cond)["prompt_embeds"]
    file = loras.write("kohya", loras.draw(policy.pipe, only="text_encoder"), tmp_path, policy.unet)
    load_lora(policy, file)
    assert (policy.null_cond(cond)["prompt_embeds"] - before).abs().max() > 1e-2
    assert (policy.encode_prompts([PROMPT])["prompt_embeds"] - cond["prompt_embeds"]).abs().max() > 1e-2


def test_how_many_layers_matched_is_said(tiny_sd, tmp_path, caplog):
    caplog.set_level("INFO")
    policy = load_policy(str(tiny_sd), device="cpu")
    parts = loras.draw(policy.pipe)
    file = loras.write("kohya", parts, tmp_path, policy.unet)
    load_lora(policy, file)
    assert f"LoRA {file} (kohya): {len(parts)} of {len(parts)} layers matched" in caplog.messages
    state = load_file(file)
    more = {
        key.replace("down_blocks_0_attentions_0", f"down_blocks_{i}_attentions_0"): tensor.clone()
        for i in range(6, 12)
        for key, tensor in state.items()
        if "down_blocks_0_attentions_0" in key
    }
    save_file({**state, **more}, tmp_path / "more.safetensors")
    caplog.clear()
    load_lora(policy, tmp_path / "more.safetensors")
    (record,) = [r for r in caplog.records if "matched" in r.getMessage()]
    total = len(parts) + len(more) // 3
    assert record.levelname == "WARNING" and f"{len(parts)} of {total} layers matched" in record.getMessage()
    assert "unet.down_blocks.10.attentions.0" in record.getMessage() and len(record.getMessage()) < 600
    save_file(more, tmp_path / "none.safetensors")
    with pytest.raises(
        ValueError, match=r"got LoRA .* \(kohya\): 0 of \d+ layers matched .*made for this model"
    ):
        load_lora(policy, tmp_path / "none.safetensors")


def test_a_layer_of_another_shape_does_not_match(tiny_sd, tmp_path, caplog):
    policy = load_policy(str(tiny_sd), device="cpu")
    parts = loras.draw(policy.pipe, only="unet")
    key = next(iter(parts))
    parts[key] = Part(parts[key].down[:, :-1], parts[key].up, 1.0)
    load_lora(policy, loras.write("diffusers", parts, tmp_path, policy.unet))
    assert f"{len(parts) - 1} of {len(parts)} layers matched" in caplog.text and key in caplog.text


def test_a_linear_layer_is_a_convolution_of_one_pixel(tiny_sd, tmp_path):
    """Files have either for a projection; the model decides."""
    pipe = pipeline(tiny_sd)
    parts = {
        key: part for key, part in loras.draw(pipe, only="unet").items() if "proj_in" in key or "to_q" in key
    }
    assert {part.down.ndim for part in parts.values()} == {2, 4}
    swapped = {
        key: Part(*(f.flatten(1) if f.ndim == 4 else f[:, :, None, None] for f in part[:2]), part.alpha)
        for key, part in parts.items()
    }
    file = loras.write("kohya", swapped, tmp_path, pipe.unet)
    close(ours(tiny_sd, (file, 1.0)), image(loras.fold(pipe, parts)))


def test_torn_and_doubled_files_are_refused(tmp_path):
    file, key = tmp_path / "a.safetensors", "unet.mid_block.attentions.0.proj_in"
    down, up = {f"{key}.lora_A.weight": torch.ones(2, 4)}, {f"{key}.lora_B.weight": torch.ones(3, 2)}
    again = {f"{key.removeprefix('unet.')}.lora.down.weight": torch.ones(2, 4)}
    pattern = {METADATA: json.dumps({"unet.alpha_pattern": {"(": 1}})}
    for state, header, message in (
        (down, None, "half of unet.mid_block"),
        ({f"{key}.alpha": torch.tensor(1.0)}, None, "without factors"),
        ({**down, **up, **again}, None, "with two factors down of unet.mid_block.attentions.0.proj_in"),
        ({**down, **up}, pattern, "with settings that peft could not read"),
        ({**down, **up}, {METADATA: "{"}, "with settings that are no JSON"),
    ):
        save_file(state, file, metadata=header)
        with pytest.raises(ValueError, match=f"got (a )?LoRA.* {message}"):
            read_lora(file)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.dora_scale", "DoRA"),
        ("unet.mid_block.attentions.0.proj_in.lora_magnitude_vector", "DoRA"),
        ("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a", "LoHa"),
        ("lora_unet_mid_block_attentions_0_proj_in.lokr_w1", "LoKr"),
        ("lora_unet_mid_block_resnets_0_conv1.lora_mid.weight", "a LoCon with three factors"),
    ],
)
def test_other_adapters_are_refused_by_name(name, kind, tmp_path):
    save_file({name: torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(
        ValueError, match=rf"got LoRA .* with '{name}', which is {kind}; expected a plain LoRA"
    ):
        read_lora(tmp_path / "a.safetensors")


def test_how_the_base_was_read_is_in_every_header(tiny_sd, tmp_path):
    """sd-scripts' clip_skip counts from 1, the last layer: diffusers' 1 is its 2."""
    options = ModelOptions(clip_skip=1, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    policy = load_policy(str(tiny_sd), device="cpu", options=options)
    add_lora(policy, 2)
    lora = save_lora(policy, tmp_path)
    files = [lora, save_kohya(policy, lora, tmp_path / "a_kohya.safetensors")]
    assert cli.main(["export", str(lora), "--format", "kohya", "-o", str(tmp_path / "b.safetensors")]) == 0
    for file in (*files, tmp_path / "b.safetensors"):
        with safe_open(file, framework="pt") as stream:
            header = stream.metadata()
        assert (header["ss_clip_skip"], header["ss_zero_terminal_snr"]) == ("2", "True")
        assert header["modelspec.prediction_type"] == "v"
    plain = load_policy(str(tiny_sd), device="cpu")
    add_lora(plain, 2)
    with safe_open(save_lora(plain, tmp_path / "plain"), framework="pt") as stream:
        assert not {"ss_clip_skip", "ss_zero_terminal_snr"} & stream.metadata().keys()
