"""Preprocessing: equal to the authors' libraries bit for bit, and differentiable within one grey level."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from transformers import CLIPImageProcessorPil

from rewards.preprocess import (
    CLIP_224,
    CLIP_224_FLOOR,
    CLIP_MEAN,
    CLIP_STD,
    HPS_224,
    SIMULACRA_224,
    Geometry,
)

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
GEOMETRIES = [CLIP_224, CLIP_224_FLOOR, HPS_224, SIMULACRA_224]
SIZES = [(224, 224), (448, 300), (301, 448), (97, 61), (640, 427), (225, 224), (229, 224)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Random blocks beside random pixels: hard edges overshoot the filter."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 2, (9, 7, 3), np.uint8) * 255)
    fine = generator.integers(0, 256, (height, width, 3), np.uint8)
    fine[: height // 2] = np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST))[: height // 2]
    return Image.fromarray(fine)


def make_images() -> list[Image.Image]:
    """Real photographs, in RGB."""
    files = sorted((DATA / "images" / "skimage").rglob("*.*g"))
    return [Image.open(file).convert("RGB") for file in files]


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def clip_pipeline(interpolation: InterpolationMode) -> transforms.Compose:
    """The validation transform of OpenAI's CLIP and of LAION's scripts, as they write it."""
    return transforms.Compose(
        [
            transforms.Resize(224, interpolation=interpolation),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )


@pytest.mark.parametrize("size", SIZES)
def test_crop_is_torchvisions(size):
    image = noise(*size)
    assert torch.equal(CLIP_224.reference(image), clip_pipeline(InterpolationMode.BICUBIC)(image))
    assert torch.equal(SIMULACRA_224.reference(image), clip_pipeline(InterpolationMode.LANCZOS)(image))


@pytest.mark.parametrize("size", SIZES)
def test_floor_crop_is_transformers(size):
    """PickScore's processor puts the smaller half of an odd margin first; torchvision rounds half to even."""
    image = noise(*size)
    theirs = CLIPImageProcessorPil()(image, return_tensors="pt").pixel_values[0]
    assert (CLIP_224_FLOOR.reference(image) - theirs).abs().max() < 1e-6
    odd = CLIP_224.scaled(image.height, image.width)
    same = all((side - 224) % 4 != 3 for side in odd)
    assert torch.equal(CLIP_224.reference(image), CLIP_224_FLOOR.reference(image)) == same


@pytest.mark.parametrize("size", SIZES)
def test_pad_is_hpsv2s(size):
    """As HPSv2 does it on the tensor: longest side to 224, zeros around, then mean and deviation."""
    image = TF.to_tensor(noise(*size))
    scale = 224 / max(image.shape[1:])
    small = image
    if scale != 1:
        height, width = (round(side * scale) for side in image.shape[1:])
        small = TF.resize(image, [height, width], InterpolationMode.BICUBIC)
        left, top = (224 - width) // 2, (224 - height) // 2
        small = TF.pad(small, [left, top, 224 - width - left, 224 - height - top])
    theirs = TF.normalize(small, CLIP_MEAN, CLIP_STD)
    assert torch.equal(HPS_224.reference(noise(*size)), theirs)
    assert torch.equal(HPS_224.tensor(image[None])[0], theirs)


def test_a_wide_image_is_padded_and_not_cut():
    """A white 2:1 image whose outer quarters are red: HPSv2 sees the red, CLIP never does."""
    image = torch.ones(1, 3, 100, 200)
    image[:, 1:, :, :50] = image[:, 1:, :, 150:] = 0
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    padded = HPS_224.tensor(image)[0] * std + mean
    assert padded[:, :56].abs().max() < 1e-6
    assert padded[:, 168:].abs().max() < 1e-6
    assert padded[:, 112, 20] == pytest.approx([1, 0, 0], abs=1e-4)
    assert padded[:, 112, 112] == pytest.approx([1, 1, 1], abs=1e-4)
    cut = CLIP_224.tensor(image)[0] * std + mean
    assert (cut[1] > 0.9).float().mean() > 0.98


def faded(width: int, height: int) -> Image.Image:
    """RGBA: noise that fades out from the left to the right."""
    image = noise(width, height).convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))))
    return image


def palette(width: int, height: int, transparency: bytes | int | None) -> Image.Image:
    """Of 32 colours, some of them transparent: by one number, or by an alpha for each colour."""
    image = noise(width, height).quantize(32)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


MODES = {
    "RGBA": faded(301, 230),
    "LA": faded(301, 230).convert("LA"),
    "P": palette(301, 230, None),
    "P, one colour clear": palette(301, 230, 3),
    "P, alpha of each colour": palette(301, 230, bytes(range(0, 256, 8))),
    "L": noise(301, 230).convert("L"),
    "1": noise(301, 230).convert("1"),
    "CMYK": noise(301, 230).convert("CMYK"),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb_when_the_authors_make_it_so(mode):
    """CLIP's, ImageReward's, CLIPScore's and LAION's code converts after the cut, all others before."""
    image = MODES[mode]
    resize, cut, *rest = clip_pipeline(InterpolationMode.BICUBIC).transforms
    last = transforms.Compose([resize, cut, transforms.Lambda(lambda x: x.convert("RGB")), *rest])
    assert torch.equal(CLIP_224.reference(image), last(image))
    rgb = image.convert("RGB")  # as MPS's code and PickScore's data set do
    rgb.info.clear()  # else transformers 5.24 puts white below what was transparent, which older ones did not
    theirs = CLIPImageProcessorPil()(rgb, return_tensors="pt").pixel_values[0]
    assert (CLIP_224_FLOOR.reference(image) - theirs).abs().max() < 1e-6
    assert torch.equal(SIMULACRA_224.reference(image), clip_pipeline(InterpolationMode.LANCZOS)(rgb))
    assert torch.equal(HPS_224.reference(image), HPS_224.reference(rgb))
    first = replace(CLIP_224, rgb="first")
    assert torch.equal(first.reference(image), clip_pipeline(InterpolationMode.BICUBIC)(rgb))
    same = mode in ("L", "CMYK")  # CMYK of an RGB image is its inverse; elsewhere the order is seen
    assert torch.equal(CLIP_224.reference(image), first.reference(image)) == same


@pytest.mark.skipif(not (DATA / "images" / "skimage").is_dir(), reason="no images in T2IALIGN_DATA")
@pytest.mark.parametrize(
    ("geometry", "levels"), [(CLIP_224, 1.06), (CLIP_224_FLOOR, 1.06), (HPS_224, 0), (SIMULACRA_224, 1.16)]
)
def test_the_tensor_path_is_within_a_grey_level_on_real_images(geometry, levels):
    std = torch.tensor(CLIP_STD).view(3, 1, 1)
    worst = 0.0
    for image in make_images():
        difference = (geometry.tensor(tensor(image))[0] - geometry.reference(image)) * std * 255
        worst = max(worst, float(difference.abs().max()))
    assert worst <= levels + 1e-4


def test_overshoot_is_clipped_where_pil_clips_it():
    """Black and white stripes: one resize in both directions at once would be off by many levels."""
    image = noise(301, 448, seed=3)
    std = torch.tensor(CLIP_STD).view(3, 1, 1)
    for geometry in (CLIP_224, SIMULACRA_224):
        difference = (geometry.tensor(tensor(image))[0] - geometry.reference(image)) * std * 255
        assert difference.abs().max() < 1.6


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("source", ["uint8", "float"])
def test_gradient_is_that_of_finite_differences(fit, interpolation, source):
    geometry = Geometry(6, fit, interpolation=interpolation, source=source)
    torch.manual_seed(0)
    image = (torch.rand(1, 3, 9, 13, dtype=torch.float64) * 0.6 + 0.2).requires_grad_()
    weights = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    assert geometry.tensor(image).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: (geometry.tensor(x) * weights).sum(), image)


def test_half_precision_images_are_resized_in_full_precision():
    image = torch.rand(1, 3, 100, 80)
    half = image.bfloat16()
    assert torch.equal(CLIP_224.tensor(half), CLIP_224.tensor(half.float()))


def test_equal_geometries_are_one_key():
    assert {Geometry(224): 1}[CLIP_224] == 1
    assert Geometry(224, "pad") != CLIP_224
    image = torch.rand(1, 3, 500, 400)
    old = replace(HPS_224, antialias=False)
    assert (old.tensor(image) - HPS_224.tensor(image)).abs().max() > 0.5  # the resize of old torchvision
