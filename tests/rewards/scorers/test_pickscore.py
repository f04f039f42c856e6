"""PickScore: the authors' formula on a random-weight CLIP of the same classes."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

import rewards
from rewards.preprocess import CLIP_224_FLOOR, Geometry
from rewards.scorers.pickscore import PickScore
from rewards.towers.tokens import clip_tokens
from tests.rewards import tiny_clip
from tests.rewards.scorers.test_clip import directional

PROMPTS = ["a red circle", "two dogs in a park &amp; a cat"]


def test_the_authors_own_lines(tmp_path):
    """Processor, get_image_features, norm, exp(logit_scale) times the cosine: as in their README."""
    model = tiny_clip.random_model(size=224, patch=32)
    reward = rewards.load("pickscore", weights=str(tiny_clip.save_folder(model, tmp_path)))
    assert reward.geometry == CLIP_224_FLOOR
    images = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
        for seed, shape in enumerate([(300, 401, 3), (227, 301, 3)])
    ]
    tokens = clip_tokens("transformers")(PROMPTS)
    with torch.no_grad():
        pixels = CLIPImageProcessorPil()(images, return_tensors="pt").pixel_values
        image = model.get_image_features(pixel_values=pixels).pooler_output
        image = image / torch.norm(image, dim=-1, keepdim=True)
        text = model.get_text_features(input_ids=tokens).pooler_output
        text = text / torch.norm(text, dim=-1, keepdim=True)
        theirs = model.logit_scale.exp() * (text * image).sum(-1)
    assert (reward.reference(images, PROMPTS) - theirs).abs().max() < 1e-5
    assert theirs.abs().max() > 0.1


def test_html_is_left_alone_as_in_transformers(tmp_path):
    folder = str(tiny_clip.save_folder(tiny_clip.random_model(), tmp_path))
    pick, clip = rewards.load("pickscore", weights=folder), rewards.load("clipscore-h", weights=folder)
    image = torch.rand(1, 3, 32, 32)
    for prompt, same in (("a cat", True), ("a cat &amp; a dog", False)):
        scaled = clip(image, [prompt]) * pick.tower.logit_scale.exp()
        assert (pick(image, [prompt]) - scaled).abs().item() < 1e-5 if same else True
        assert torch.allclose(pick.encode_text([prompt]), clip.encode_text([prompt]), atol=1e-5) is same


def test_gradient_and_batch_of_one():
    reward = PickScore(tiny_clip.tower(), Geometry(32, middle="floor")).double()
    torch.manual_seed(0)
    exact, measured = directional(reward, torch.rand(1, 3, 32, 41).double() * 0.8 + 0.1, PROMPTS[:1])
    assert exact == pytest.approx(measured, rel=1e-6)
    assert reward(torch.rand(1, 3, 32, 32), PROMPTS[:1]).shape == (1,)


def test_scale_is_exact_in_half_precision_towers(tmp_path):
    """ln(100) = 4.60517 becomes 4.59375 in bfloat16, which would make 99 of the factor 100."""
    model = tiny_clip.random_model()
    model.logit_scale.fill_(4.60517)
    folder = str(tiny_clip.save_folder(model, tmp_path))
    whole, half = (rewards.load("pickscore", weights=folder, dtype=d) for d in ("float32", "bfloat16"))
    assert half.tower.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)
    image = torch.rand(4, 3, 32, 32)
    assert (whole(image, ["a cat"] * 4) - half(image, ["a cat"] * 4)).abs().max() < 2
