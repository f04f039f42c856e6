"""Charts: bands are the intervals, charts that share axes can be compared, histograms count."""

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

from t2ialign.evaluation.monitor_journal import read
from t2ialign.evaluation.statistics import bootstrap_ci
from t2ialign.web import report
from t2ialign.web.charts import BINS, Chart, Curve, Frame, frame, histogram, lines
from t2ialign.web.monitor_page import RESAMPLES, charts
from tests.cli.test_monitor_verb import RISES, TRAINED, Scores, make, monitor
from tests.web.test_evaluation_page import words
from tests.web.test_report import Page, points, svg

UNLIKE: Scores = {0: (0.0, 4.0), 10: (3.0, 5.0), 20: (1.0, 9.0)}
"""The two prompts change by 3 and 1, then by 1 and 5."""


def labels(drawn: ElementTree.Element) -> list[str]:
    """What is written at the axes."""
    return [str(text.text) for text in drawn.findall("text")]


def test_a_band_spans_the_interval_to_scale() -> None:
    curve = Curve("a", [0, 1], [1.0, 3.0], lows=[0.0, 2.0], highs=[2.0, 4.0])
    drawn = svg(lines(Chart("c", [curve])))
    (band,), (line,) = drawn.findall("polygon"), drawn.findall("polyline")
    high_0, high_1, low_1, low_0 = points(band)[:, 1]
    middle_0, middle_1 = points(line)[:, 1]
    assert (high_0 + low_0) / 2 == pytest.approx(middle_0, abs=0.1)
    assert low_1 - high_1 == pytest.approx(low_0 - high_0, abs=0.2)
    assert (low_0 - high_0) == pytest.approx(middle_0 - middle_1, abs=0.2), "two units both"
    unknown = Curve("a", [0, 1], [1.0, 3.0], lows=[math.nan] * 2, highs=[math.nan] * 2)
    assert not svg(lines(Chart("c", [unknown]))).findall("polygon")


def test_a_frame_spans_all_curves_and_their_intervals() -> None:
    low = Chart("c", [Curve("a", [0, 10], [1.0, 2.0], lows=[-4.0, 1.0], highs=[2.0, 3.0])])
    high = Chart("c", [Curve("a", [5, 40], [8.0, math.nan])])
    assert frame([low, high]) == Frame(0, 10, -4.0, 8.0)
    assert frame([Chart("c", [Curve("a", [1], [math.nan])])]) is None
    shared = frame([low, high])
    assert labels(svg(lines(low, shared))) == labels(svg(lines(high, shared)))
    assert labels(svg(lines(low))) != labels(svg(lines(high)))


def test_the_monitor_s_curves_have_intervals_by_prompt_paired_with_the_base(tmp_path: Path) -> None:
    first, *others = charts(read(make(tmp_path / "run", {"trained": TRAINED, "held": UNLIKE})))
    alike, unlike = first.curves[:2]
    assert alike.lows == pytest.approx(alike.values) and alike.highs == pytest.approx(alike.values)
    unit = 8**0.5  # the base's standard deviation over its two prompts
    assert unlike.values == pytest.approx([0, 2 / unit, 3 / unit])
    for place, changes in enumerate(([0, 0], [3, 1], [1, 5])):
        wanted = bootstrap_ci([change / unit for change in changes], ["a", "b"], resamples=RESAMPLES)
        assert (unlike.lows[place], unlike.highs[place]) == pytest.approx((wanted.low, wanted.high))
    assert (unlike.lows[2], unlike.highs[2]) == pytest.approx((1 / unit, 5 / unit)), "two prompts"
    assert all(len(chart.curves[0].lows) == 3 for chart in others)


def test_charts_of_one_name_have_the_same_axes_for_every_run(tmp_path: Path) -> None:
    high: Scores = {0: (0.0, 4.0), 10: (50.0, 55.0), 20: (90.0, 99.0)}
    runs = [
        make(tmp_path / "one", {"trained": TRAINED, "held": RISES}),
        make(tmp_path / "two", {"trained": high, "held": UNLIKE}),
    ]
    assert monitor(*runs, "-o", tmp_path / "page.html") == 0
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    drawn: dict[str, list[list[str]]] = {}
    for title, body in re.findall(r'<div class="chart"><h3>(.*?)</h3>.*?(<svg.*?</svg>)', html, re.DOTALL):
        drawn.setdefault(title, []).append(labels(ElementTree.fromstring(body)))
    assert len(drawn) > 3 and all(len(each) == 2 for each in drawn.values())
    assert all(first == second for first, second in drawn.values())
    assert html.count("<polygon") >= len(drawn)


def test_a_histogram_counts_every_value() -> None:
    values = {"images": [0.0, 0.1, 0.1, 1.0], "baseline": [0.5, 0.5]}
    drawn = svg(histogram(values, "clip"))
    boxes = drawn.findall("rect")
    assert len(boxes) == 2 * BINS
    heights = [float(box.attrib["height"]) for box in boxes]
    one, two = sorted({height for height in heights if height})
    assert two == pytest.approx(2 * one, rel=0.01)
    images, baseline = heights[:BINS], heights[BINS:]
    assert (images.count(one), images.count(two)) == (2, 1) and images[0] == images[-1] == one
    assert (baseline.count(one), baseline.count(two)) == (0, 1)
    assert drawn.attrib["aria-label"] == "Distribution of clip: 4 of images, 2 of baseline"
    assert svg(histogram({"images": [0.3]}, "clip")).findall("rect"), "all values alike"


def test_a_report_counts_what_became_of_the_images_before_all_else() -> None:
    counts = report.count_outcomes([False, True, True, False, False], [True, False, True, False, True])
    assert counts == {"fixed": 2, "broken": 1, "passed by both": 1, "failed by both": 1}
    with pytest.raises(ValueError, match="shorter"):
        report.count_outcomes([True], [])
    image = Image.new("RGB", (8, 8))
    sides = [(True, True), (True, False), (False, True)]
    pairs = [report.Comparison(f"p{i}", i, image, image, *pair) for i, pair in enumerate(sides)]
    html = report.render(report.Report("t", "s", [], pairs, outcomes=counts))
    assert "2 of 5 images fixed 1 of 5 images broken" in words(html)
    alts = [str(shown["alt"])[:2] for shown in Page(html).all("img")]
    assert alts == ["p0", "p0", "p1", "p1", "p2", "p2"], "in the order in which they were drawn"
    assert words(html).count("seed 1, broken") == words(html).count("seed 2, fixed") == 1
    assert html.index("images broken") < html.index("<img") < html.index("Result")


@pytest.mark.parametrize("count", [7, 8, 11])
def test_every_curve_is_drawn_and_named(count: int) -> None:
    drawn = str(lines(Chart("all", [Curve(f"curve {i}", [0, 1], [0.0, i]) for i in range(count)])))
    assert drawn.count("<polyline") == count
    assert all(f"</i>curve {i}</span>" in drawn for i in range(count))
