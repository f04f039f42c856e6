"""Statistics of images: values worked out by hand, gradients by finite differences, what each one catches."""

import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import rewards
from rewards.scorers import image_stats

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
PHOTOS = DATA / "images/skimage/skimage/data"
photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photographs in {PHOTOS}; set T2IALIGN_DATA")


def plain(*colour: float, side: int = 16) -> Tensor:
    return torch.tensor(colour, dtype=torch.float32)[None, :, None, None].expand(1, 3, side, side)


def wave(period: float, side: int = 64, amplitude: float = 0.4) -> Tensor:
    """Grey stripes that change along a row."""
    row = 0.5 + amplitude * torch.cos(2 * math.pi * torch.arange(side) / period)
    return row.expand(1, 3, side, side)


def photo(name: str) -> Tensor:
    array = np.asarray(Image.open(PHOTOS / name).convert("RGB"))
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None] / 255


def score(name: str, images: Tensor) -> list[float]:
    return rewards.load(name)(images, ["anything"] * len(images)).tolist()


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((0.0, 0.0, 0.0), 0), ((1.0, 1.0, 1.0), 0), ((0.5, 0.0, 0.0), 1), ((0.8, 0.6, 0.4), 0.5)],
)
def test_saturation_is_that_of_hsv(colour, expected):
    assert score("saturation", plain(*colour)) == pytest.approx([expected])


def test_contrast_is_the_standard_deviation_of_luma():
    halves = torch.cat([plain(0, 0, 0), plain(1, 1, 1)], dim=-1)
    green = torch.cat([plain(0, 0, 0), plain(0, 1, 0)], dim=-1)
    assert score("contrast", halves) == pytest.approx([0.5])
    assert score("contrast", green) == pytest.approx([0.587 / 2])
    assert score("contrast", plain(0.3, 0.3, 0.3)) == pytest.approx([0], abs=1e-6)


def test_high_frequency_counts_what_lies_beyond_half_nyquist():
    assert score("high-frequency", wave(8)) == pytest.approx([0], abs=1e-6)
    assert score("high-frequency", wave(4)) == pytest.approx([0], abs=1e-6)  # exactly at half Nyquist
    assert score("high-frequency", wave(64 / 17)) == pytest.approx([1], abs=1e-5)
    assert score("high-frequency", plain(0.3, 0.7, 0.1)) == pytest.approx([0], abs=1e-6)
    mixed = wave(64 / 20, amplitude=0.1) + wave(16, amplitude=0.1 * math.sqrt(3)) - 0.5
    assert score("high-frequency", mixed) == pytest.approx([0.25], abs=1e-5)


def test_white_noise_has_the_share_of_its_area():
    """All frequencies are alike, so the share is that of the square outside the circle: 1 - pi / 16."""
    noise = torch.rand(4, 1, 256, 256, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    assert score("high-frequency", noise) == pytest.approx([1 - math.pi / 16] * 4, abs=0.01)
    assert max(score("grid", noise)) < 0.1


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_a_grid_scores_one_and_edges_score_nothing(period):
    assert score("grid", wave(period, side=66)) == pytest.approx([1], abs=0.05)
    assert score("grid", wave(period, side=66).transpose(2, 3)) == pytest.approx([1], abs=0.05)
    assert score("grid", torch.cat([plain(0, 0, 0), plain(1, 1, 1)], dim=-1)) == pytest.approx([0], abs=1e-6)
    assert score("grid", plain(0.3, 0.7, 0.1)) == pytest.approx([0], abs=1e-3)


def test_clipped_pixels_have_a_channel_at_an_end():
    image = plain(0.5, 0.5, 0.5, side=10).clone()
    image[0, 0, 0, 0], image[0, 1, 0, 1], image[0, :, 0, 2] = 1.0, 0.0, 1.0
    image[0, 2, 0, 3] = 0.4 / 255  # rounds to 0
    image[0, 2, 0, 4] = 0.6 / 255  # rounds to 1
    assert score("clipped", image) == pytest.approx([0.04])


def test_jpeg_size_is_that_of_the_file():
    noise = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    noise[1] = 0.5
    expected = []
    for array in (noise * 255).round().byte().permute(0, 2, 3, 1).numpy():
        Image.fromarray(array).save(buffer := io.BytesIO(), format="JPEG", quality=95)
        expected.append(len(buffer.getvalue()) / 1000)
    assert score("jpeg-incompressibility", noise) == pytest.approx(expected)
    assert score("jpeg-compressibility", noise) == pytest.approx([-size for size in expected])
    assert expected[0] > 2 > expected[1]


@pytest.mark.parametrize("name", ["saturation", "contrast", "high-frequency", "grid"])
def test_gradients_are_those_of_finite_differences(name):
    reward = rewards.load(name)
    assert reward.differentiable
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    start = 0.2 + 0.6 * torch.rand(2, 3, 12, 14, dtype=torch.float64, generator=seeds[0])
    start.requires_grad_()
    reward(start, ["a", "b"]).sum().backward()
    direction = torch.randn(start.shape, dtype=torch.float64, generator=seeds[1])
    step = 1e-6 * direction
    with torch.no_grad():
        numeric = (reward(start + step, ["a", "b"]) - reward(start - step, ["a", "b"])).sum() / 2e-6
    assert float((start.grad * direction).sum()) == pytest.approx(float(numeric), rel=1e-5)


@pytest.mark.parametrize("name", ["saturation", "contrast", "high-frequency", "grid"])
@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5)])
def test_gradients_stay_finite_where_there_is_nothing_to_see(name, colour):
    image = plain(*colour).clone().requires_grad_()
    rewards.load(name)(image, ["a"]).sum().backward()
    assert image.grad is not None and image.grad.isfinite().all()


def test_half_precision_is_worked_out_in_full():
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name, exact in image_stats.statistics(noise, which=list(image_stats.SMOOTH)).items():
        half = image_stats.statistics(noise.bfloat16(), which=[name])[name]
        assert half.dtype == torch.float32
        assert float(half) == pytest.approx(float(exact), abs=0.01)


def test_what_is_refused():
    assert not rewards.load("jpeg-compressibility").differentiable
    assert not rewards.load("clipped").differentiable
    with pytest.raises(
        ValueError, match=r"got statistic 'sharpness'; expected one of saturation, .*, clipped"
    ):
        image_stats.build("sharpness")
    with pytest.raises(ValueError, match="got images of 7x9; expected 8 pixels a side"):
        score("grid", torch.rand(1, 3, 7, 9))


@photos
def test_each_statistic_sees_its_artefact_in_photographs():
    """A fault is added to each photograph: the statistic that is there for it must notice, in all of them."""
    for name in ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg"):
        image = photo(name)
        height, width = image.shape[-2:]
        cells = (torch.arange(height)[:, None] // 8 + torch.arange(width) // 8) % 2
        faulty = {
            "grid": (image + 0.06 * (cells - 0.5)).clamp(0, 1),
            "high-frequency": (image + 0.1 * torch.randn(image.shape)).clamp(0, 1),
            "saturation": (image.mean(1, keepdim=True) + 2 * (image - image.mean(1, keepdim=True))).clamp(
                0, 1
            ),
            "contrast": (0.5 + 1.8 * (image - image.mean())).clamp(0, 1),
            "clipped": (0.5 + 1.8 * (image - image.mean())).clamp(0, 1),
        }
        before = image_stats.statistics(image)
        print(name, {key: round(float(value), 4) for key, value in before.items()})
        for key, damaged in faulty.items():
            after = float(image_stats.statistics(damaged, which=[key])[key])
            print("  with a fault:", key, round(after, 4))
            assert after > 1.1 * float(before[key]) + 0.01, (name, key)
