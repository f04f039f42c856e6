"""The oracle reads what was drawn, and nothing that was not."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import ndimage

import rewards
from rewards.toy.captions import CATEGORIES
from rewards.toy.oracle import ToyOracle
from rewards.toy.vision import read_things
from rewards.toy.world import COLOURS, SHAPES, Thing, coverage, distance_map, signed_distance
from t2ialign.evaluation.statistics import by_category
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.render import paint, render


def as_images(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def fresh() -> tuple[list[str], torch.Tensor]:
    texts = draw_captions(5000, 11, held_out=False)
    return texts, as_images(render(texts, 11))


@pytest.mark.rest
def test_reads_fresh_renders_in_every_category(fresh: tuple[list[str], torch.Tensor]) -> None:
    texts, images = fresh
    oracle = ToyOracle()
    rates = by_category(oracle(images, texts).tolist(), texts, [oracle.category(text) for text in texts])
    assert set(rates) == set(CATEGORIES)
    for category, rate in rates.items():
        assert rate.mean >= 0.995, f"{category}: {rate.mean}"


def test_reads_place_and_size() -> None:
    things = [Thing("triangle", "green", 9.3, 10.2, 4.4), Thing("cross", "black", 22.6, 21.1, 6.0)]
    seen = read_things(paint(things))
    assert [(thing.shape, thing.colour) for thing in seen] == [("triangle", "green"), ("cross", "black")]
    for thing, drawn in zip(seen, things, strict=True):
        assert abs(thing.x - drawn.x) < 0.25 and abs(thing.y - drawn.y) < 0.25
        assert abs(thing.size / drawn.size - 1) < 0.03


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [4.0, 6.5, 9.0])
def test_size_is_the_radius_of_the_circle_of_equal_area(shape: str, size: float) -> None:
    step = 0.02
    y, x = np.mgrid[-16:16:step, -16:16:step]
    area = (signed_distance(shape, x, y, size) < 0).sum() * step**2
    assert area == pytest.approx(np.pi * size**2, rel=5e-3)
    ink = coverage(distance_map(Thing(shape, None, 16, 16, size)))
    assert ink.sum() == pytest.approx(np.pi * size**2, rel=2e-2)


@pytest.mark.rest
def test_the_wrong_caption_fails(fresh: tuple[list[str], torch.Tensor]) -> None:
    """Rolled by one category: an image passes as its neighbour's caption only where that is true of it."""
    texts, images = fresh
    passed = ToyOracle()(images, texts[1:] + texts[:1])
    assert passed.mean() < 0.02


def test_artefacts_fail_and_do_not_crash() -> None:
    rng = np.random.default_rng(0)
    text, thing = "a red circle", Thing("circle", "red", 11, 16, 6)
    clean = paint([thing])
    blob = clean.copy()
    blob[22:28, 22:29] = ndimage.gaussian_filter(rng.random((6, 7, 3)), 1)  # junk beside it
    off_palette = np.where(clean < 0.99, np.array([0.95, 0.6, 0.75]), 1.0)  # pink
    blurred = ndimage.gaussian_filter(clean, (4, 4, 0))
    for name, image in {"blob": blob, "off-palette": off_palette, "blur": blurred}.items():
        passed = ToyOracle()(torch.from_numpy(image).permute(2, 0, 1)[None].float(), [text])
        assert passed.item() == 0, name
    for image in (
        np.ones((32, 32, 3)),
        np.zeros((32, 32, 3)),
        rng.random((32, 32, 3)),
        rng.random((7, 5, 3)),
    ):
        assert ToyOracle()(torch.from_numpy(image).permute(2, 0, 1)[None].float(), [text]).item() == 0
    assert ToyOracle()(torch.from_numpy(clean).permute(2, 0, 1)[None].float(), [text]).item() == 1


@pytest.mark.parametrize("left, right", combinations(SHAPES, 2))
def test_half_of_one_shape_grown_into_half_of_another_is_neither(left: str, right: str) -> None:
    """What a denoiser draws when it cannot decide: in halves, and blended pixel by pixel."""
    one, other = (paint([Thing(shape, "blue", 16, 16, 6)]) for shape in (left, right))
    halves = np.where((np.arange(32) < 16)[None, :, None], one, other)
    for name, image in {"halves": halves, "blend": (one + other) / 2}.items():
        (seen,) = read_things(image)
        assert (seen.shape, seen.colour) == (None, "blue"), name
    for mostly, image in {left: 0.85 * one + 0.15 * other, right: 0.15 * one + 0.85 * other}.items():
        (seen,) = read_things(image)
        assert seen.shape == mostly


def test_a_speck_of_decoder_noise_is_forgiven() -> None:
    image = paint([Thing("square", "blue", 12, 12, 5)])
    image[28, 28] = 0.6
    assert ToyOracle()(torch.from_numpy(image).permute(2, 0, 1)[None].float(), ["a blue square"]).item() == 1


def test_every_colour_and_shape_is_told_apart_at_the_smallest_size() -> None:
    for colour in COLOURS:
        for shape in SHAPES:
            for shift in np.linspace(0, 1, 5):
                (seen,) = read_things(paint([Thing(shape, colour, 12 + shift, 14 - shift / 2, 3.8)]))
                assert (seen.shape, seen.colour) == (shape, colour)


def test_is_a_reward_by_name() -> None:
    oracle = rewards.load("toy-oracle")
    assert isinstance(oracle, ToyOracle) and oracle.differentiable is False
    with pytest.raises(ValueError, match="cannot judge"):
        oracle(torch.ones(1, 3, 32, 32), ["a crimson blob"])
    assert oracle(torch.ones(1, 3, 32, 32), ["a red circle"]).shape == (1,)


def test_renders_are_seeded_by_row() -> None:
    texts = ["a red circle", "two blue squares", "a green cross and no circle"]
    assert (render(texts, 5) == render(texts, 5)).all()
    assert (render(texts, 5)[1] == render(["a black cross", *texts[1:]], 5)[1]).all()
    assert (render(texts, 5) != render(texts, 6)).any()
