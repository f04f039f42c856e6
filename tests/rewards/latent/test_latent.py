"""Latent rewards: features of the real networks, by hand and by count; files; what is refused."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModelWithProjection

from rewards.latent import saved
from rewards.latent.lrm import LRM
from rewards.latent.saved import build, save
from rewards.latent.unet import UNetBackbone
from rewards.latent.untrained import from_networks, from_pipeline

SD15 = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
SDXL = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
PROMPTS = ["a red circle", "two blue squares", "a cross"]
T = torch.tensor([1, 501, 951])


@pytest.fixture(params=["tiny_sd", "tiny_sdxl"])
def reward(request) -> LRM:
    return from_pipeline(request.getfixturevalue(request.param))


def latents(reward: LRM, rows: int = 3) -> torch.Tensor:
    h, w = reward.backbone.size
    return torch.randn(rows, 4, h, w, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "config, widths, residuals", [(SD15, (3520, 1280), (2, 5, 8, 11)), (SDXL, (2240, 1280), (2, 5, 8))]
)
def test_widths_are_the_published_ones(config, widths, residuals):
    """4,800 features for Stable Diffusion 1.5 and 3,520 for SDXL, of these residuals and the middle."""
    with torch.device("meta"):
        backbone = UNetBackbone(UNet2DConditionModel(**config), [], None)
    assert (backbone.down_width, backbone.mid_width) == widths
    place, places = 0, []  # residual 0 is that of conv_in
    for block in backbone.unet.down_blocks:
        place += len(block.resnets)
        places.append(place)
        place += block.downsamplers is not None
    assert tuple(places) == residuals
    assert not list(backbone.unet.up_blocks)


def test_features_are_those_of_the_whole_network(tiny_sd):
    """The real forward of the untouched UNet, read by hooks at the same places."""
    reward = from_pipeline(tiny_sd, guidance_scale=1)
    whole = UNet2DConditionModel.from_pretrained(tiny_sd, subfolder="unet").eval()
    seen: list[torch.Tensor] = []
    for block in whole.down_blocks:
        last = block.attentions[-1] if hasattr(block, "attentions") else block.resnets[-1]
        last.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out))
    whole.mid_block.register_forward_hook(lambda _, __, out: seen.append(out))
    x, text = latents(reward), reward.encode_prompts(PROMPTS)
    with torch.no_grad():
        whole(x, T, encoder_hidden_states=text["hidden"])
        down, middle = reward.backbone.features(x, T, text)
    pooled = [state.mean((2, 3)) for state in seen]
    torch.testing.assert_close(down, torch.cat(pooled[:-1], 1))
    torch.testing.assert_close(middle, pooled[-1])


def test_the_score_is_a_scaled_cosine(reward):
    with torch.no_grad():
        x, text = latents(reward), reward.encode_prompts(PROMPTS)
        image = reward.embed(x, T, text)
        scores = reward(x, T, PROMPTS)
    assert image.norm(dim=1).tolist() == pytest.approx([1] * 3, rel=1e-5)
    torch.testing.assert_close(scores, torch.exp(torch.tensor(2.6592)) * (image * text["embedding"]).sum(1))
    assert scores.abs().max() <= 14.29


def test_enhancement_guides_the_middle_and_leaves_the_down_features(tiny_sd):
    reward = from_pipeline(tiny_sd, guidance_scale=7.5)
    x, text = latents(reward), reward.encode_prompts(PROMPTS)
    empty = reward.backbone.encode_prompts([""] * 3)
    with torch.no_grad():
        down, full = reward.backbone.features(x, T, text)
        _, none = reward.backbone.features(x, T, empty)
        by_hand = reward.visual_projection(torch.cat([down, none + 7.5 * (full - none)], 1))
        torch.testing.assert_close(
            reward.embed(x, T, text), nn.functional.normalize(by_hand, dim=1), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("guidance_scale, rows", [(1, 12), (7.5, 24)])
def test_candidates_are_one_forward_and_no_text(tiny_sd, guidance_scale, rows):
    reward = from_pipeline(tiny_sd, guidance_scale=guidance_scale)
    counted, texts = list[int](), list[int]()
    reward.backbone.unet.conv_in.register_forward_hook(lambda _, args, __: counted.append(len(args[0])))
    reward.backbone.text_encoder.register_forward_hook(lambda *_: texts.append(1))
    with torch.no_grad():
        text = reward.encode_prompts(PROMPTS)
        counted.clear()
        texts.clear()
        x = latents(reward, 12)
        candidates = {key: value.repeat_interleave(4, 0) for key, value in text.items()}
        together = reward.score_encoded(x, T.repeat_interleave(4), candidates)
        assert counted == [rows] and not texts
        alone = [
            reward.score_encoded(
                x[i : i + 1], T[i // 4 : i // 4 + 1], {k: v[i : i + 1] for k, v in candidates.items()}
            )
            for i in range(12)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_the_gradient_in_the_latent_is_a_finite_difference(tiny_sd):
    reward = from_pipeline(tiny_sd, guidance_scale=3).double()
    x = latents(reward).double().requires_grad_(True)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    slope = (torch.autograd.grad(reward(x, T, PROMPTS).sum(), x)[0] * direction).sum()
    with torch.no_grad():
        ends = [reward(x + sign * 1e-5 * direction, T, PROMPTS).sum() for sign in (1, -1)]
    assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_a_saved_reward_comes_back_by_name(reward, tmp_path):
    import rewards

    with torch.no_grad():
        reward.visual_projection.weight.mul_(1.5)
        reward.log_scale.add_(0.1)
    save(reward, tmp_path, {"step": 7})
    again = rewards.load("latent", path=tmp_path)
    assert isinstance(again, LRM) and not again.training
    stored = reward.state_dict()
    assert again.state_dict().keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in again.state_dict().items())
    with torch.no_grad():
        scores, expected = (r(latents(reward), T, PROMPTS) for r in (again, reward))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / saved.ABOUT).read_text())["about"] == {"step": 7}
    assert not list(tmp_path.glob("*.bin")) and not list(tmp_path.glob("*.pkl"))


def test_guidance_may_change_on_loading(tiny_sd, tmp_path):
    save(from_pipeline(tiny_sd, guidance_scale=7.5), tmp_path)
    assert build(tmp_path).guidance_scale == 7.5 and build(tmp_path, guidance_scale=1).guidance_scale == 1


def test_the_text_projection_may_start_from_a_clip(tiny_sd, tmp_path):
    encoder = from_pipeline(tiny_sd).backbone.text_encoder
    clip = CLIPTextModelWithProjection(encoder.config)
    clip.save_pretrained(tmp_path)
    reward = from_pipeline(tiny_sd, text_projection=tmp_path)
    assert reward.text_projection is not None
    assert torch.equal(reward.text_projection.weight, clip.text_projection.weight)
    with pytest.raises(ValueError, match=r"expected .*, dim x width of the pooled text"):
        from_pipeline(tiny_sd, dim=encoder.config.hidden_size // 2, text_projection=tmp_path)


def test_bad_requests_are_one_line(tiny_sd, tiny_sdxl, tmp_path):
    import rewards

    with pytest.raises(ValueError, match="got no path for latent; expected the output of t2ialign train lrm"):
        rewards.load("latent")
    with pytest.raises(ValueError, match=r"got guidance 0\.5; expected 1, which is none, or more"):
        from_pipeline(tiny_sd, guidance_scale=0.5)
    with pytest.raises(ValueError, match=r"got dim 7; expected .*, as the text embeddings have"):
        from_pipeline(tiny_sdxl, dim=7)
    with pytest.raises(ValueError, match="expected Stable Diffusion 1, 2 or SDXL for diffusers"):
        from_pipeline(tmp_path)
    save(from_pipeline(tiny_sd), tmp_path)
    with pytest.raises(ValueError, match="latent, which scores noisy latents; expected rewards of images"):
        rewards.load_all(["latent"], {"latent": {"path": tmp_path}})
    about = json.loads((tmp_path / saved.ABOUT).read_text())
    (tmp_path / saved.ABOUT).write_text(json.dumps({**about, "dim": about["dim"] + 1}))
    with pytest.raises(ValueError, match=r"which does not fit latent_reward\.json"):
        build(tmp_path)
    (tmp_path / saved.ABOUT).write_text(json.dumps({**about, "format": 9}))
    with pytest.raises(ValueError, match="got format 9"):
        build(tmp_path)


def test_wrong_shapes_are_told_at_the_door(tiny_sd):
    reward = from_pipeline(tiny_sd)
    with pytest.raises(ValueError, match="pass one timestep a row"):
        reward(latents(reward), torch.tensor([1]), PROMPTS)
    with pytest.raises(ValueError, match="got 2 prompts for 3 rows"):
        reward(latents(reward), T, PROMPTS[:2])


@torch.no_grad()
def test_a_loaded_pipeline_gives_the_reward_of_its_folder(tiny_sd, tiny_sdxl):
    """What `train lrm` makes of a single file, which has no folder."""
    for folder in (tiny_sd, tiny_sdxl):
        pipe = DiffusionPipeline.from_pretrained(folder)
        ours = from_networks(pipe.components, guidance_scale=2, seed=3)
        theirs = from_pipeline(folder, guidance_scale=2, seed=3)
        latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        t, prompts = torch.tensor([1, 500]), ["a cat", "a dog"]
        torch.testing.assert_close(ours.score(latents, t, prompts), theirs.score(latents, t, prompts))
