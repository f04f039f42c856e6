"""HPSv2: its own transform and formula on a random-weight open_clip model."""

import numpy as np
import open_clip
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image

import rewards
from rewards.preprocess import CLIP_MEAN, CLIP_STD, Geometry
from rewards.scorers.hpsv2 import HumanPreferenceScore
from tests.rewards import tiny_clip
from tests.rewards.scorers.test_clip import directional

PROMPTS = ["a red circle", "two dogs in a park"]


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """Two files laid out like HPS_v2_compressed.pt and HPS_v2.1_compressed.pt."""
    monkeypatch.setattr(
        open_clip, "get_model_config", lambda name: tiny_clip.open_clip_config(False, size=224, patch=32)
    )
    for seed, name in enumerate(["HPS_v2_compressed.pt", "HPS_v2.1_compressed.pt"]):
        model = tiny_clip.random_model(seed, size=224, patch=32)
        torch.save({"state_dict": tiny_clip.to_open_clip(model.state_dict())}, tmp_path / name)
    return tmp_path


def theirs(seed: int, pil_image: Image.Image, prompt: str) -> float:
    """ToTensor, longest side to 224, zero margin, normalise; cosine of the two outputs of forward()."""
    state = tiny_clip.to_open_clip(tiny_clip.random_model(seed, size=224, patch=32).state_dict())
    model = tiny_clip.open_clip_tower(state, quick=False, size=224, patch=32).model
    image = TF.to_tensor(pil_image)
    scale = 224 / max(image.shape[1:])
    height, width = (round(side * scale) for side in image.shape[1:])
    image = TF.resize(image, [height, width], TF.InterpolationMode.BICUBIC)
    image = TF.pad(
        image,
        [
            (224 - width) // 2,
            (224 - height) // 2,
            224 - width - (224 - width) // 2,
            224 - height - (224 - height) // 2,
        ],
    )
    image = TF.normalize(image, CLIP_MEAN, CLIP_STD)[None]
    with torch.no_grad():
        image_features, text_features, _ = model(image, open_clip.tokenize([prompt]))
    return float(torch.diagonal(image_features @ text_features.T)[0])


@pytest.mark.parametrize(("name", "seed"), [("hpsv2", 0), ("hpsv2.1", 1)])
def test_the_authors_own_lines(checkpoints, name, seed):
    reward = rewards.load(name, weights=str(checkpoints))
    images = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
        for seed, shape in enumerate([(300, 401, 3), (640, 255, 3)])
    ]
    expected = [theirs(seed, image, prompt) for image, prompt in zip(images, PROMPTS, strict=True)]
    assert reward.reference(images, PROMPTS).tolist() == pytest.approx(expected, abs=1e-6)
    for image, prompt, value in zip(images, PROMPTS, expected, strict=True):
        assert reward(TF.to_tensor(image)[None], [prompt]).item() == pytest.approx(value, abs=1e-6)


def test_what_lies_outside_the_central_square_counts(checkpoints):
    """A centre crop would give two images that differ at their ends the same score."""
    image = torch.full((2, 3, 100, 300), 0.5)
    image[1, 0, :, :60] = 1
    score = rewards.load("hpsv2", weights=str(checkpoints))(image, ["a red circle"] * 2)
    assert abs(score[0] - score[1]) > 1e-3
    cropped = rewards.load("clipscore-h", weights=str(checkpoints / "HPS_v2_compressed.pt"))
    assert (cropped(image, ["a red circle"] * 2).diff().abs() < 1e-6).all()


def test_the_resize_of_2023_is_an_option(checkpoints):
    image = torch.rand(1, 3, 640, 512)
    now, then = (
        rewards.load("hpsv2", weights=str(checkpoints), antialias=flag)(image, ["a cat"])
        for flag in (True, False)
    )
    assert now != then


def test_gradient_and_batch_of_one():
    reward = HumanPreferenceScore(tiny_clip.tower(), Geometry(32, "pad", source="float")).double()
    torch.manual_seed(0)
    exact, measured = directional(reward, torch.rand(1, 3, 24, 41).double() * 0.8 + 0.1, PROMPTS[:1])
    assert exact == pytest.approx(measured, rel=1e-6)
    assert reward(torch.rand(1, 3, 32, 20), PROMPTS[:1]).shape == (1,)
