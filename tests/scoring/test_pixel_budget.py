"""The budget of pixels: how many images at full size are in memory at once, and that no row is lost by it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from rewards import Geometry
from t2ialign.data.images import OverBudget, open_rgb
from t2ialign.scoring.decode import Decoder, Images, load
from t2ialign.scoring.engine import Engine, floats
from t2ialign.scoring.items import Item
from tests.scoring.images import SQUARE, Corner, Redness, plain, png

SMALL, LARGE = (10, 10), (40, 30)
ROOT = Path(__file__).parents[2]


def items(sizes: list[tuple[int, int]]) -> list[Item]:
    """Red images, the i-th with red i."""
    return [Item(0, i, f"{i}.png", "a red square", png(plain(i, size=size))) for i, size in enumerate(sizes)]


def decoded(batch: Images) -> int:
    return sum(image.shape[0] * image.shape[1] for image in batch.raw)


@pytest.mark.parametrize("workers", [0, 1])
def test_no_batch_has_more_pixels_than_the_budget_and_a_larger_image_is_alone(workers):
    rows = items([SMALL] * 5 + [LARGE] + [SMALL] * 6 + [LARGE, LARGE])
    decoder = Decoder([SQUARE], raw=True, max_pixels=300)
    batches = list(load([rows[:8], rows[8:]], decoder, workers=workers))
    assert [item.file for batch in batches for item in batch.items] == [row.file for row in rows]
    assert [len(batch.items) for batch in batches] == [3, 2, 1, 2, 3, 1, 1, 1]
    for batch in batches:
        assert decoded(batch) <= 300 or len(batch.raw) == 1
        assert len(batch.prepared[SQUARE]) == len(batch.raw) == len(batch.good)


def test_a_worker_leaves_an_image_above_the_budget_undecoded():
    batch = Decoder([], raw=True, max_pixels=300)[items([LARGE, SMALL])]
    assert not batch.items and [item.file for item in batch.rest] == ["0.png", "1.png"]
    with pytest.raises(OverBudget):
        open_rgb(png(plain(1)), admit=refuse)


def refuse(height: int, width: int) -> None:
    raise OverBudget


def test_rows_of_one_file_count_once_each():
    (image,) = items([SMALL])
    rows = [Item(0, row, image.file, f"{row}", image.image) for row in range(5)]
    parts = list(Decoder([], raw=True, max_pixels=250).parts(rows))
    assert [len(part.items) for part in parts] == [2, 2, 1]
    assert [item.prompt for part in parts for item in part.items] == list("01234")


def test_images_that_become_squares_take_no_budget():
    (batch,) = Decoder([SQUARE], raw=False, max_pixels=300).parts(items([SMALL] * 9))
    assert len(batch.good) == 9 and not batch.raw


def test_a_large_image_that_becomes_a_square_is_not_decoded_by_a_worker():
    decoder, rows = Decoder([SQUARE], raw=False, max_pixels=300), items([SMALL, LARGE, SMALL])
    assert [item.file for item in decoder[rows].rest] == ["1.png", "2.png"]
    (first, second) = load([rows], decoder, workers=0)
    assert len(first.good) == 1 and len(second.good) == 2


def test_huge_and_small_images_keep_their_order_and_scores():
    red = Redness()
    engine = Engine({"red": red, "corner": Corner()}, batch_size=4, max_batch_pixels=250)
    rows = [row for batch in engine.score(items([SMALL, LARGE, SMALL, SMALL] * 3)) for row in batch]
    assert [row["file"] for row in rows] == [f"{i}.png" for i in range(12)]
    for i, row in enumerate(rows):
        assert row["error"] is None and row["scores"]["red"] == pytest.approx(i / 255)
    assert max(shape[0] * shape[2] * shape[3] for shape in red.batches) == 1200, "one large image"


def test_batches_are_drawn_as_large_as_the_last_ones_fitted():
    decoder = Decoder([], raw=True, max_pixels=500)
    assert decoder.room(64) == 64
    list(load([items([SMALL] * 8)], decoder, workers=0))
    assert decoder.room(64) == 5 and decoder.room(3) == 3


def test_the_images_of_a_batch_are_given_up_when_they_were_scored():
    engine = Engine({"red": Redness(), "corner": Corner()})
    batch = engine.decoder.decode(items([SMALL] * 3))
    engine.launch(batch)
    assert not batch.raw and not batch.prepared


def test_floats_are_the_levels_over_255_and_nobody_elses_memory():
    levels = torch.arange(60, dtype=torch.uint8).view(4, 5, 3)
    images = floats([levels], "cpu")
    assert torch.equal(images, (levels.permute(2, 0, 1)[None].float() / 255)) and images.is_contiguous()
    assert torch.equal(floats([levels, levels], "cpu")[1], images[0])


def jpeg(width: int, height: int) -> bytes:
    gradient = Image.linear_gradient("L").resize((width, height), Image.Resampling.BICUBIC).convert("RGB")
    stream = io.BytesIO()
    gradient.save(stream, "jpeg", quality=95)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("side", "sizes"),
    [(8, (80, 60)), (64, (320, 240)), (200, (640, 480))],
    ids=["an eighth", "a half, twice what is read", "whole: a half would be too small"],
)
def test_a_jpeg_above_the_budget_is_decoded_at_what_is_twice_as_large_as_is_read(side, sizes):
    seen = []
    geometry = Geometry(side, "squash")
    decoder = Decoder([geometry], raw=False, max_pixels=1000)

    def admit(height, width):
        return decoder._admit(None)(height, width)

    seen.append(open_rgb(jpeg(640, 480), admit=admit).size)
    assert seen == [sizes]


def test_a_reduced_jpeg_gives_nearly_the_same_square_and_one_within_the_budget_the_same():
    geometry = Geometry(32, "squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    row = [Item(0, 0, "a.jpg", "x", jpeg(640, 480))]
    exact = geometry.reference(open_rgb(jpeg(640, 480)))
    within, reduced = (
        Decoder([geometry], raw=False, max_pixels=most).decode(row).prepared[geometry][0]
        for most in (640 * 480, 640 * 480 - 1)
    )
    assert torch.equal(within, exact)
    assert (reduced - exact).abs().max() < 2 / 255


def test_a_reward_that_reads_every_pixel_keeps_a_jpeg_whole():
    (batch,) = Decoder([SQUARE], raw=True, max_pixels=1000).parts([Item(0, 0, "a.jpg", "x", jpeg(640, 480))])
    assert batch.raw[0].shape == (480, 640, 3)


@pytest.mark.parametrize("verb", ["score", "filter", "keypoints"])
def test_a_budget_below_one_is_refused(verb, capsys):
    from t2ialign.cli.main import main

    rest = {
        "score": ["x", "--rewards", "saturation", "-o", "o.csv"],
        "filter": ["x", "-o", "o.jsonl", "--rewards", "saturation", "contrast", "grid"],
        "keypoints": ["x"],
    }[verb]
    assert main([verb, *rest, "--max-batch-pixels", "0"]) == 2
    assert "got --max-batch-pixels 0; expected at least 1" in capsys.readouterr().err


PEAK = """
import re, sys
from pathlib import Path
from t2ialign.cli.main import main
code = main(sys.argv[1:])
print(code, re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
"""
"""Not ru_maxrss, which begins with the peak of the process that started this one."""


@pytest.mark.rest
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize(
    ("rewards", "gigabytes", "code"),
    [("saturation", 2.4, 0), ("saturation,contrast", 2.9, 0), ("toy-oracle,saturation,contrast", 2.9, 3)],
)
def test_an_image_of_88_million_pixels_costs_little_more_than_itself(tmp_path, rewards, gigabytes, code):
    image = Image.new("P", (9400, 9400), 1)
    image.putpalette([0, 0, 0, 200, 30, 40])
    image.save(tmp_path / "huge.png", bits=1)
    assert (tmp_path / "huge.png").stat().st_size < 40_000
    out = tmp_path / "scores.jsonl"
    words = ["score", str(tmp_path), "--rewards", rewards, "-o", str(out), "--prompts", "a red circle"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *words, "--workers", "0"],
        **{"capture_output": True, "text": True, "check": True, "cwd": ROOT},
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    exit_code, peak = map(int, done.stdout.split("\n")[-2].split())
    assert exit_code == code and peak < gigabytes * 1e6
    row = json.loads(out.read_text(encoding="utf-8"))
    assert row["saturation"] == pytest.approx(0.85, abs=1e-3)
