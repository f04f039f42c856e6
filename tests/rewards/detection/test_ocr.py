"""The OCR reward: its rules by hand, the published prompts, and a real engine where it is installed."""

import os
from functools import lru_cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import rewards
from rewards.detection.ocr import (
    Line,
    Ocr,
    RapidReader,
    TextArea,
    TextReader,
    contains,
    edit_distance,
    exact,
    quoted,
)

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
PROMPTS = DATA / "flow-grpo/dataset/ocr/test.txt"
CASES = DATA / "diffusion-nft/flow_grpo/test_cases"
PAGE = DATA / "images/skimage/skimage/data/page.png"

engine = pytest.mark.skipif(
    find_spec("rapidocr") is None or find_spec("onnxruntime") is None,
    reason="the OCR engine is not installed; pip install 't2ialign[ocr]'",
)
images = pytest.mark.skipif(not CASES.is_dir(), reason=f"no images in {CASES}; set T2IALIGN_DATA")


class Spelled(TextReader):
    """Reads image i as the i-th list of lines."""

    def __init__(self, *texts: list[str]) -> None:
        self.texts, self.read_images = texts, 0

    def read(self, images: Tensor) -> list[list[Line]]:
        self.read_images += len(images)
        square = ((0.0, 0.0), (4.0, 0.0), (4.0, 2.0), (0.0, 2.0))
        return [[Line(text, 0.9, square) for text in lines] for lines in self.texts[: len(images)]]


def photo(path: Path) -> Tensor:
    array = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None] / 255


def test_edit_distance_is_the_fewest_steps():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3 == edit_distance("abc", "")

    @lru_cache
    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    words = ["".join(letters) for size in range(5) for letters in product("ab", repeat=size)]
    assert all(edit_distance(a, b) == slow(a, b) for a in words for b in words)


@pytest.mark.parametrize(
    ("target", "reading", "expected"),
    [
        ("ABC", "xxABCyy", 1),
        ("Hello World!", "hello  WORLD!", 1),
        ("ABC", "", 0),
        ("ABCD", "ABXD", 0.75),
        ("AB", "xyzxyzxyz", 0),  # never below 0
        ("open", "openopenopen", 1),  # drawn over and over it still scores
    ],
)
def test_the_published_rule(target, reading, expected):
    assert contains(target, reading) == expected


@pytest.mark.parametrize(
    ("target", "reading", "expected"),
    [
        ("ABC", "a b c", 1),
        ("open", "openopen", 0.5),
        ("AB", "ABCDEFGH", 0.25),
        ("AB", "", 0),
        ("ABCD", "ABXD", 0.75),
    ],
)
def test_the_exact_rule_makes_repeats_and_extras_cost(target, reading, expected):
    assert exact(target, reading) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ('a sign that says "open"', "open"),
        ("a mug with \u201cGood Day\u201d on it", "Good Day"),
        ('"first" and "second"', "first"),
        ("it's a dog's sign: \"5 o'clock\"", "5 o'clock"),
    ],
)
def test_the_target_is_the_first_quoted_text(prompt, expected):
    assert quoted(prompt) == expected


@pytest.mark.parametrize("prompt", ["a cat", 'a sign that says "open', 'a sign that says ""', 'a sign " "'])
def test_a_prompt_that_quotes_nothing_is_refused_before_any_image_is_read(prompt):
    reader = Spelled(["a"], ["b"])
    with pytest.raises(ValueError, match=r"got prompt .*; expected the text to draw in double quotes"):
        Ocr(reader)(torch.zeros(2, 3, 8, 8), ['"a"', prompt])
    assert reader.read_images == 0


@pytest.mark.skipif(not PROMPTS.is_file(), reason=f"no {PROMPTS}; set T2IALIGN_DATA")
def test_every_published_prompt_has_a_target():
    lines = PROMPTS.read_text().split("\n")
    targets = [quoted(line) for line in lines if line]
    assert len(targets) == 1018
    assert targets[:2] == ["Spring Collection 2024", "Step Goal Achieved"]
    assert all(target == line.split('"')[1] for target, line in zip(targets, lines, strict=False))


def test_the_reward_joins_lines_and_reads_each_image_once():
    reader = Spelled(["Good", "Day"], ["G00d Day"], [])
    reward = Ocr(reader)
    scores = reward(torch.zeros(3, 3, 8, 8), ['"Good Day"'] * 3)
    assert scores.tolist() == pytest.approx([1, 1 - 2 / 7, 0])
    assert reader.read_images == 3
    table = reward.table(torch.zeros(1, 3, 8, 8), [['"good"', '"bad"', '"day"']])
    assert table[0].tolist() == [1, 0, 1]  # what else is written counts as errors
    assert reader.read_images == 4
    assert not reward.differentiable
    assert rewards.load("ocr-exact", reader=reader)(torch.zeros(1, 3, 8, 8), ['"Good"']).tolist() == [
        pytest.approx(4 / 7)
    ]
    with pytest.raises(ValueError, match=r"got form 'fuzzy'; expected one of contains, exact"):
        rewards.load("rewards.detection.ocr", form="fuzzy", reader=reader)


def test_the_area_of_text_is_that_of_its_corners():
    reader = Spelled(["a", "b"], [])
    reward = rewards.load("text-area", reader=reader)
    assert isinstance(reward, TextArea)
    assert reward(torch.zeros(2, 3, 8, 16), ["a cat"] * 2).tolist() == [16 / 128, 0]
    assert Line("x", 1.0, ((0, 0), (3, 1), (2, 3), (-1, 2))).area == 7


@pytest.mark.skipif(find_spec("rapidocr") is not None, reason="the OCR engine is installed")
def test_a_missing_engine_says_what_to_install():
    with pytest.raises(
        ValueError, match=r"got no OCR engine \(No module named 'rapidocr'\).*t2ialign\[ocr\]"
    ):
        rewards.load("ocr")


@pytest.fixture(scope="module")
def rapid() -> RapidReader:
    return RapidReader()


@engine
@images
@pytest.mark.parametrize(
    ("path", "target", "least"),
    [
        (CASES / "hello world.jpg", "Hello World!", 1.0),
        (CASES / "nasa.jpg", "NASA 2049", 1.0),
        (CASES / "a photo of a brown giraffe and a white stop sign.png", "STOP", 1.0),
        (PAGE, "Let us first determine markers of the coins and the background.", 0.95),
        (PAGE, "Region-based segmentation", 1.0),
    ],
)
def test_the_engine_reads_images_that_nobody_here_made(rapid, path, target, least):
    score = Ocr(rapid)(photo(path), [f'an image that says "{target}"'])
    assert score.shape == (1,) and float(score) >= least


@engine
@images
def test_the_engine_reads_nothing_where_there_is_nothing(rapid):
    cat = photo(CASES / "cat.jpg")
    assert Ocr(rapid)(cat, ['"Hello World!"']).tolist() == [0]
    assert TextArea(rapid)(cat, [""]).tolist() == [0] and not TextArea.needs_text
    hello = TextArea(rapid)(photo(CASES / "hello world.jpg"), ["a chalkboard"])
    assert 0.02 < float(hello) < 0.8
