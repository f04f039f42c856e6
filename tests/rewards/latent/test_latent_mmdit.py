"""Latent rewards of Stable Diffusion 3: the whole network's features, the pipeline's text, files."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

import rewards
from rewards.latent import saved
from rewards.latent.lrm import LRM
from rewards.latent.mmdit import MMDiTBackbone
from rewards.latent.saved import save
from rewards.latent.untrained import from_pipeline
from tests.conftest import tiny_text_config, tiny_tokenizer, tiny_vae

MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
MEDIUM_35 = {**MEDIUM, "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm"}
LARGE_35 = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}
PROMPTS = ["a red circle", "two blue squares", "a cross"]
T = torch.tensor([1, 501, 951])


def tiny_transformer(**overrides) -> SD3Transformer2DModel:
    """Four blocks over 4x8x8 latents; the context is wider than both CLIPs together, as published."""
    config = {
        "sample_size": 8,
        "in_channels": 4,
        "num_layers": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "caption_projection_dim": 16,
        "joint_attention_dim": 64,
        "pooled_projection_dim": 56,
        "pos_embed_max_size": 8,
    }
    return SD3Transformer2DModel(**{**config, **overrides})


def tiny_t5() -> tuple[T5EncoderModel, T5TokenizerFast]:
    letters = [(chr(code), -3.0) for code in range(ord("a"), ord("z") + 1)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    tokenizer = T5TokenizerFast(vocab=special + letters, extra_ids=0, model_max_length=512)
    sizes = {"d_model": 64, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes)), tokenizer


def build_sd3(folder: Path, *, t5: bool = True, half: bool = False, **transformer) -> Path:
    """A StableDiffusion3Pipeline of the real classes, as users have it on disk."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    encoder, words = tiny_t5() if t5 else (None, None)
    pipe = StableDiffusion3Pipeline(
        transformer=tiny_transformer(**transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae(),
        text_encoder=CLIPTextModelWithProjection(tiny_text_config(tokenizer, 32)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(tiny_text_config(tokenizer, 24)),
        tokenizer_2=tokenizer,
        text_encoder_3=encoder,
        tokenizer_3=words,
    )
    (pipe.to(torch.float16) if half else pipe).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_sd3(tmp_path_factory) -> Path:
    return build_sd3(tmp_path_factory.mktemp("tiny") / "sd3")


@pytest.fixture(scope="module")
def tiny_sd3_without_t5(tmp_path_factory) -> Path:
    return build_sd3(tmp_path_factory.mktemp("tiny") / "sd3_without_t5", t5=False)


@pytest.fixture(scope="module")
def tiny_sd35(tmp_path_factory) -> Path:
    """With what 3.5 adds: a second attention in some blocks, and normalised queries and keys."""
    folder = tmp_path_factory.mktemp("tiny") / "sd35"
    return build_sd3(folder, dual_attention_layers=(0, 1), qk_norm="rms_norm")


def load_pipeline(folder: Path) -> StableDiffusion3Pipeline:
    """diffusers wants to be told that there is no T5."""
    absent = {} if (folder / "text_encoder_3").is_dir() else {"text_encoder_3": None, "tokenizer_3": None}
    return StableDiffusion3Pipeline.from_pretrained(folder, **absent)


def latents(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    "config, layer, width", [(MEDIUM, 18, 1536), (MEDIUM_35, 18, 1536), (LARGE_35, 28, 2432)]
)
def test_the_default_is_the_published_layer(config, layer, width):
    """The 18th of 24 for Stable Diffusion 3 medium, three quarters of the way for another depth."""
    with torch.device("meta"):
        backbone = MMDiTBackbone(SD3Transformer2DModel(**config), [], None, None)
    assert (backbone.layer, backbone.down_width, backbone.mid_width) == (layer, 0, width)
    assert backbone.size == (128, 128) and len(backbone.transformer.transformer_blocks) == layer


@pytest.mark.parametrize("layer, remaining", [(None, 3), (1, 1), (4, 4)])
def test_later_blocks_and_the_head_are_gone(layer, remaining):
    whole, cut = tiny_transformer(), tiny_transformer()
    MMDiTBackbone(cut, [], None, None, layer=layer)
    dropped = [*whole.transformer_blocks[remaining:], whole.norm_out, whole.proj_out]
    assert count(cut) == count(whole) - sum(map(count, dropped))


@pytest.mark.parametrize("folder", ["tiny_sd3", "tiny_sd3_without_t5"])
def test_prompts_are_encoded_as_the_pipeline_does(folder, request):
    """An empty prompt and one longer than the window among them."""
    folder = request.getfixturevalue(folder)
    pipe, backbone = load_pipeline(folder), from_pipeline(folder).backbone
    prompts = [*PROMPTS, "", "a very long prompt " * 40]
    with torch.no_grad():
        hidden, _, pooled, _ = pipe.encode_prompt(prompts, None, None, do_classifier_free_guidance=False)
        text = backbone.encode_prompts(prompts)
    assert hidden.shape == (5, 32 + 256, 64) and pooled.shape == (5, 56)
    torch.testing.assert_close(text["hidden"], hidden)
    torch.testing.assert_close(text["projections"], pooled)
    torch.testing.assert_close(text["pooled"], pooled[:, 32:])
    assert (text["hidden"][:, 32:].abs().sum() == 0) == (backbone.text_encoder_3 is None)


@pytest.mark.parametrize("folder", ["tiny_sd3", "tiny_sd3_without_t5", "tiny_sd35"])
@pytest.mark.parametrize("size", [(8, 8), (4, 8)])
def test_features_are_those_of_the_whole_network(folder, size, request):
    """The real forward of the untouched transformer, on the pipeline's own encoding, read by hooks."""
    folder = request.getfixturevalue(folder)
    pipe, backbone = load_pipeline(folder), from_pipeline(folder).backbone
    seen: list[torch.Tensor] = []
    for block in pipe.transformer.transformer_blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out[1].mean(1)))
    x = latents()[:, :, : size[0], : size[1]]
    with torch.no_grad():
        hidden, _, pooled, _ = pipe.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False)
        pipe.transformer(x, encoder_hidden_states=hidden, pooled_projections=pooled, timestep=T)
        down, middle = backbone.features(x, T, backbone.encode_prompts(PROMPTS))
    assert down.shape == (3, 0) and middle.shape == (3, 16)
    torch.testing.assert_close(middle, seen[2], rtol=1e-5, atol=1e-5)
    assert all(not torch.allclose(middle, other, atol=1e-2) for other in (seen[0], seen[1], seen[3]))


def test_the_score_is_a_scaled_cosine_that_hears_prompt_and_timestep(tiny_sd3):
    reward = from_pipeline(tiny_sd3)
    x = latents(1).repeat(3, 1, 1, 1)
    with torch.no_grad():
        text = reward.encode_prompts(PROMPTS)
        image = reward.embed(x, T, text)
        scores = reward(x, T, PROMPTS)
        assert len(set(reward(x, T[:1].repeat(3), PROMPTS).tolist())) == 3
        assert len(set(reward(x, T, PROMPTS[:1] * 3).tolist())) == 3
        fractions = reward.score_encoded(x, T.double(), text)
    assert reward.visual_projection.weight.shape == (24, 16) and reward.text_projection is None
    cosine = torch.cosine_similarity(image, text["pooled"], dim=1)
    torch.testing.assert_close(scores, torch.exp(torch.tensor(2.6592)) * cosine)
    torch.testing.assert_close(fractions, scores)


def test_enhancement_guides_the_features_away_from_the_empty_prompt(tiny_sd3):
    reward = from_pipeline(tiny_sd3, guidance_scale=7.5)
    x, text = latents(), reward.encode_prompts(PROMPTS)
    with torch.no_grad():
        _, full = reward.backbone.features(x, T, text)
        _, none = reward.backbone.features(x, T, reward.backbone.encode_prompts([""] * 3))
        by_hand = nn.functional.normalize(reward.visual_projection(none + 7.5 * (full - none)), dim=1)
        torch.testing.assert_close(reward.embed(x, T, text), by_hand, rtol=1e-4, atol=1e-5)
    assert (full - none).abs().min(1).values.max() > 0


@pytest.mark.parametrize("guidance_scale, rows", [(1, 12), (7.5, 24)])
def test_candidates_are_one_forward_and_no_text(tiny_sd3, guidance_scale, rows):
    reward = from_pipeline(tiny_sd3, guidance_scale=guidance_scale)
    counted, texts = list[int](), list[int]()
    backbone = reward.backbone
    backbone.transformer.pos_embed.register_forward_hook(lambda _, args, __: counted.append(len(args[0])))
    for encoder in (backbone.text_encoder, backbone.text_encoder_2, backbone.text_encoder_3):
        encoder.register_forward_hook(lambda *_: texts.append(1))
    with torch.no_grad():
        text = reward.encode_prompts(PROMPTS)
        assert len(texts) == (3 if guidance_scale == 1 else 6) and not counted
        texts.clear()
        x, t = latents(12), T.repeat_interleave(4)
        candidates = {key: value.repeat_interleave(4, 0) for key, value in text.items()}
        together = reward.score_encoded(x, t, candidates)
        assert counted == [rows] and not texts
        alone = reward(x[5:6], t[5:6], PROMPTS[1:2])
    torch.testing.assert_close(together[5:6], alone, rtol=1e-4, atol=1e-4)


def test_the_gradient_in_the_latent_is_a_finite_difference(tiny_sd3):
    reward = from_pipeline(tiny_sd3, guidance_scale=3).double()
    x = latents().double().requires_grad_(True)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    slope = (torch.autograd.grad(reward(x, T, PROMPTS).sum(), x)[0] * direction).sum()
    with torch.no_grad():
        ends = [reward(x + sign * 1e-5 * direction, T, PROMPTS).sum() for sign in (1, -1)]
    assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_training_moves_all_but_the_text_half_of_the_last_block(tiny_sd3):
    """What the last block would hand on to the next one's text is nobody's any more."""
    reward = from_pipeline(tiny_sd3, guidance_scale=1)
    reward(latents(), T, PROMPTS).sum().backward()
    idle = {name for name, parameter in reward.named_parameters() if parameter.grad is None}
    last = "backbone.transformer.transformer_blocks.2."
    assert idle and all(name.startswith((last + "ff_context", last + "attn.to_add_out")) for name in idle)


@torch.no_grad()
def assert_same_reward(again: LRM, reward: LRM) -> None:
    """Stored weights exactly, computed scores closely."""
    stored = reward.state_dict()
    assert again.state_dict().keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in again.state_dict().items())
    scores, expected = again(latents(), T, PROMPTS), reward(latents(), T, PROMPTS)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("folder", ["tiny_sd3", "tiny_sd3_without_t5", "tiny_sd35"])
def test_a_saved_reward_comes_back_by_name(folder, request, tmp_path):
    reward = from_pipeline(request.getfixturevalue(folder))
    with torch.no_grad():
        reward.visual_projection.weight.mul_(1.5)
        reward.log_scale.add_(0.1)
    save(reward, tmp_path, {"step": 7})
    again = rewards.load("latent", path=tmp_path)
    assert isinstance(again, LRM) and not again.training
    assert_same_reward(again, reward)
    assert saved.read_about(tmp_path)["about"] == {"step": 7}
    assert (tmp_path / "tokenizer_3").exists() == (reward.backbone.text_encoder_3 is not None)
    assert {file.suffix for file in tmp_path.rglob("*") if file.is_file()} <= {
        ".json",
        ".txt",
        ".safetensors",
    }


def test_the_layer_is_saved(tiny_sd3, tmp_path):
    theirs = from_pipeline(tiny_sd3).backbone
    encoders = (theirs.text_encoder, theirs.text_encoder_2, theirs.text_encoder_3)
    reward = LRM(MMDiTBackbone(tiny_transformer(), theirs.tokenizers, *encoders, layer=2)).eval()
    save(reward, tmp_path)
    again = saved.build(tmp_path)
    assert again.backbone.layer == len(again.backbone.transformer.transformer_blocks) == 2
    assert_same_reward(again, reward)


def test_half_precision_files_are_read_as_full(tmp_path):
    """The published text encoders are fp16, and transformers would leave them so."""
    reward = from_pipeline(build_sd3(tmp_path / "half", half=True))
    assert {tensor.dtype for tensor in reward.parameters()} == {torch.float32}
    with torch.no_grad():
        assert reward(latents(), T, PROMPTS).isfinite().all()


def test_bad_requests_are_one_line(tiny_sd3, tmp_path):
    """Of another transformer, of a pipeline whose files are missing, of one without a network."""
    expected = "expected Stable Diffusion 1, 2 or SDXL for diffusers, or Stable Diffusion 3"
    index = json.loads((tiny_sd3 / "model_index.json").read_text())

    def refusal(**parts: object) -> str:
        (tmp_path / "model_index.json").write_text(json.dumps({**index, **parts}))
        with pytest.raises(ValueError, match=expected) as caught:
            from_pipeline(tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    flux = ["diffusers", "FluxTransformer2DModel"]
    assert "its transformer is a FluxTransformer2DModel" in refusal(transformer=flux)
    assert "no file named config.json" in refusal()
    del index["transformer"]
    assert "neither a unet nor a transformer" in refusal()
    with pytest.raises(ValueError, match="got layer 5; expected 1 to 4, as it has blocks; choose one"):
        MMDiTBackbone(tiny_transformer(), [], None, None, layer=5)
    with pytest.raises(ValueError, match="got dim 7; expected 24, as the text embeddings have"):
        from_pipeline(tiny_sd3, dim=7)
    with pytest.raises(ValueError, match=r"got text_projection .*; expected none; drop it"):
        from_pipeline(tiny_sd3, text_projection=tiny_sd3)


def test_files_of_two_runs_do_not_mix(tiny_sd3, tmp_path):
    save(from_pipeline(tiny_sd3), tmp_path)
    facts = json.loads((tmp_path / saved.ABOUT).read_text())
    (tmp_path / saved.ABOUT).write_text(json.dumps({**facts, "layer": 4}))
    with pytest.raises(ValueError, match=r"which does not fit latent_reward\.json"):
        saved.build(tmp_path)
