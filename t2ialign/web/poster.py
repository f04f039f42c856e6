"""The top of a report as one image: what was fixed and broken, the pairs of images, and the curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from t2ialign.web.charts import drawn_lines
from t2ialign.web.raster import BAD, GOOD, LEADING, QUIET, TEXT, Block, length, stacked, wrapped
from t2ialign.web.report import BROKEN, FIXED, Comparison, Report

WIDTH, MARGIN, COLUMNS = 880, 24, 3
"""Width of the image and of its margin in points, and pairs in a row."""
SIDE, GAP, CHART = 128, 6, 600
"""Side of an image in points, what is between the two of a pair, and the width of the chart."""
COLOURS = {FIXED: GOOD, BROKEN: BAD}
"""Colours of the counts; those of other outcomes are as plain text."""


def draw(report: Report) -> Image.Image:
    """The top of the report, twice as many pixels wide as `WIDTH`."""
    pairs, blocks = report.comparisons, [_head(report)]
    blocks += [_row(report, pairs[first : first + COLUMNS]) for first in range(0, len(pairs), COLUMNS)]
    return stacked([*blocks, *_curve(report)])


def write(report: Report, file: Path) -> None:
    """Write that image as a PNG file, whole or not at all."""
    scratch = file.with_name(f".{file.name}.part")
    draw(report).save(scratch, format="png", optimize=True)
    scratch.replace(file)


def _head(report: Report) -> Block:
    summary = wrapped(report.summary, 16, WIDTH - 2 * MARGIN)
    block = Block(WIDTH, 172 + LEADING * 16 * len(summary))
    block.write((MARGIN, 46), report.title, 25, bold=True)
    y = block.paragraph((MARGIN, 76), report.summary, 16, WIDTH - 2 * MARGIN, colour=QUIET)
    step = (WIDTH - 2 * MARGIN) / max(len(report.outcomes), 1)
    for place, (name, count) in enumerate(report.outcomes.items()):
        x = MARGIN + place * step
        block.write((x, y + 34), f"{count}", 36, colour=COLOURS.get(name, TEXT), bold=True)
        block.write((x + length(f"{count}", 36) + 8, y + 34), name, 16, colour=QUIET)
    sides = f"Left {report.before}, right {report.after}, with the same prompt and seed. {report.chosen}"
    block.write((MARGIN, y + 74), sides, 14, colour=QUIET)
    return block


def _row(report: Report, pairs: Sequence[Comparison]) -> Block:
    words = [(_caption(pair), _shown(pair)) for pair in pairs]
    above = max(len(lines) for lines, _ in words)
    shown = max(len(lines) for _, sides in words for lines in sides)
    block = Block(WIDTH, SIDE + 62 + LEADING * (15 * above + 13 * shown))
    across = (WIDTH - 2 * MARGIN - 2 * SIDE - GAP) / (COLUMNS - 1)
    for column, (pair, (caption, sides)) in enumerate(zip(pairs, words, strict=True)):
        x = MARGIN + column * across
        for line, text in enumerate(caption):
            block.write((x, 14 + LEADING * 15 * line), text, 15)
        top = 8 + LEADING * 15 * above
        images = ((pair.before, pair.before_passed), (pair.after, pair.after_passed))
        names = (report.before, report.after)
        for (image, passed), name, lines in zip(images, names, sides, strict=True):
            block.put((x, top), image, SIDE)
            _verdict(block, (x, top + SIDE + 18), name, passed)
            for line, text in enumerate(lines):
                block.write((x, top + SIDE + 36 + LEADING * 13 * line), text, 13)
            x += SIDE + GAP
    return block


def _verdict(block: Block, at: tuple[float, float], name: str, passed: bool | None) -> None:
    end = block.write(at, name, 13, colour=QUIET)
    if passed is not None:
        words, colour = ("pass", GOOD) if passed else ("fail", BAD)
        block.write((end + 6, at[1]), words, 13, colour=colour, bold=True)


def _caption(pair: Comparison) -> list[str]:
    return wrapped(f"asked: {pair.prompt}", 15, 2 * SIDE + GAP)


def _shown(pair: Comparison) -> list[list[str]]:
    """The lines under both images."""
    words = (pair.before_shows, pair.after_shows)
    return [wrapped(f"drawn: {text}", 13, SIDE) if text else [] for text in words]


def _curve(report: Report) -> list[Block]:
    drawing = None if report.curve is None else drawn_lines(report.curve)
    if report.curve is None or drawing is None:
        return []
    left = 2 * MARGIN + CHART
    block = Block(WIDTH, 84 + drawing.height * CHART / drawing.width)
    block.write((MARGIN, 24), report.curve.title, 19, bold=True)
    block.chart((MARGIN, 52), drawing, CHART)
    block.paragraph((left, 84), report.curve.note, 14, WIDTH - MARGIN - left, colour=QUIET)
    return [block]
