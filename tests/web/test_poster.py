"""The image of a report: its images pixel by pixel, its numbers in colour, its text within the margins."""

import re
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from t2ialign.web import poster
from t2ialign.web.charts import Chart, Curve, drawn_lines
from t2ialign.web.raster import BAD, COLOURS, FINE, FRAME, GOOD, QUIET, TEXT, Block, length, stacked, wrapped
from t2ialign.web.report import Comparison
from tests.web.test_report import full_report, make_image

GUIDANCE = Chart(
    "Over guidance", [Curve("aligned", [1, 2, 4], [30.0, 50.0, 40.0], [20, 40, 30], [40, 60, 50])]
)


def full(count: int = 4):
    """A report with some pairs and a curve."""
    pair = Comparison("a red circle", 7, make_image(0), make_image(1), False, True, "nothing", "a red circle")
    outcomes = {"fixed": 3, "broken": 1, "passed by both": 4, "failed by both": 2}
    return replace(full_report(), comparisons=[pair] * count, outcomes=outcomes, curve=GUIDANCE)


def test_images_are_enlarged_without_smoothing() -> None:
    whole = np.asarray(poster.draw(full(1)))
    side = 2 * poster.SIDE
    large = np.asarray(make_image(0).resize((side, side), Image.Resampling.NEAREST))
    x = 2 * poster.MARGIN
    (y,) = (
        row
        for row in range(len(whole) - side)
        if np.array_equal(whole[row + 8 : row + side - 8, x + 8 : x + side - 8], large[8:-8, 8:-8])
    )
    assert y > 200, "below the counts"


@pytest.mark.parametrize("count", [0, 1, 4, 12])
def test_every_pair_has_its_place_and_the_margins_stay_white(count: int) -> None:
    pixels = np.asarray(poster.draw(full(count)))
    assert pixels.shape[1] == 2 * poster.WIDTH
    edge = poster.MARGIN  # half of the margin
    assert (pixels[:, :edge] == 255).all() and (pixels[:, -edge:] == 255).all()
    assert len(pixels) == len(np.asarray(poster.draw(full(0)))) + -(-count // poster.COLUMNS) * rows()


def rows() -> int:
    """The height of a row of pairs in pixels."""
    return len(np.asarray(poster.draw(full(1)))) - len(np.asarray(poster.draw(full(0))))


def test_counts_have_the_colours_of_the_page() -> None:
    colours = {tuple(pixel) for pixel in np.asarray(poster.draw(full(0))).reshape(-1, 3)}
    for colour in (GOOD, BAD, COLOURS["blue"]):
        assert tuple(bytes.fromhex(colour[1:])) in colours


def test_colours_are_those_of_the_stylesheet() -> None:
    style = files("t2ialign.web").joinpath("templates/style.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", style.partition("@media")[0]))
    named = {"text": TEXT, "quiet": QUIET, "line": FRAME, "good": GOOD, "bad": BAD}
    assert {**COLOURS, **named}.items() <= light.items()


def test_a_curve_goes_through_its_points_within_its_band() -> None:
    drawing = drawn_lines(GUIDANCE)
    assert drawing is not None
    block = Block(drawing.width, drawing.height + 40)
    block.chart((0, 20), drawing, drawing.width)
    pixels = np.asarray(stacked([block]))
    blue = np.array(list(bytes.fromhex(COLOURS["blue"][1:])))
    pale = np.round(255 + 0.18 * (blue - 255.0))
    (line,), (band,) = drawing.lines, drawing.bands
    for x, y in (map(float, pair.split(",")) for pair in line.points.split()[1:-1]):
        assert np.array_equal(pixels[round(2 * (y + 32)), round(2 * x)], blue)
    x, y = map(float, band.points.split()[1].split(","))
    assert np.abs(pixels[round(2 * (y + 32)) + 12, round(2 * x)] - pale).max() <= 2


def test_text_is_wrapped_at_spaces_but_not_at_those_that_hold() -> None:
    text = "one two three 45.8\N{NO-BREAK SPACE}% four " + "x" * 80
    lines = wrapped(text, 13, 90)
    assert " ".join(lines) == text and len(lines) > 2
    assert all(length(line, 13) <= 90 for line in lines[:-1]) and lines[-1] == "x" * 80
    assert not any(line.startswith("%") for line in lines)


def test_the_file_is_whole_or_not_there(tmp_path) -> None:
    poster.write(full(1), tmp_path / "demo.png")
    assert [file.name for file in tmp_path.iterdir()] == ["demo.png"]
    with Image.open(tmp_path / "demo.png") as image:
        assert image.width == 2 * poster.WIDTH and FINE == 4
