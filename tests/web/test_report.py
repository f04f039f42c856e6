"""The report needs nothing outside its file, shows the images it was given, and draws numbers to scale."""

import base64
import io
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2ialign.evaluation.statistics import Estimate
from t2ialign.web.charts import MANY, Bar, Chart, Curve, bars, curves, lines, ticks
from t2ialign.web.embedded import LARGEST, data_uri
from t2ialign.web.report import Comparison, Headline, Report, render, write

VOID = {"meta", "img"}
OUR_SCRIPT = files("t2ialign.web").joinpath("templates/page.js").read_text(encoding="utf-8").strip()


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.scripts: list[str] = []
        """What runs on the page."""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data.strip())
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_image(seed: int, side: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def decoded(uri: str | None) -> Image.Image:
    assert uri is not None and uri.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def full_report(prompt: str = "a red circle") -> Report:
    low, high, change = (Estimate(m, m - 0.05, m + 0.05, 40, 10) for m in (0.4, 0.6, 0.2))
    return Report(
        title="Demo <1>",
        summary="Base & aligned.",
        headlines=[Headline("Accuracy", low, high, change)],
        comparisons=[Comparison(prompt, 7, make_image(0), make_image(1), False, True)],
        categories=[Bar("count", low, high)],
        charts=[Chart("Loss", [Curve("train", [1, 2, 3], [0.7, 0.6, 0.5])], "From ln 2.")],
        settings={"beta": 500.0, "model": "toy"},
    )


def test_nothing_is_loaded_from_elsewhere_and_only_the_page_s_script_runs(tmp_path: Path) -> None:
    write(full_report(), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    page = Page(html)
    assert not page.open, "every tag is closed"
    assert not {"link", "iframe", "object"} & {name for name, _ in page.tags}
    assert page.scripts == [OUR_SCRIPT]
    assert all(str(attributes["src"]).startswith("data:") for attributes in page.all("img"))
    assert "http:" not in html and "https:" not in html and "url(" not in html and "@import" not in html
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_images_are_the_given_pixels_with_words_for_both_verdicts() -> None:
    page = Page(render(full_report()))
    before, after = page.all("img")
    assert np.array_equal(np.asarray(decoded(before["src"])), np.asarray(make_image(0)))
    assert np.array_equal(np.asarray(decoded(after["src"])), np.asarray(make_image(1)))
    assert before["alt"] == "a red circle, seed 7, drawn by the base model"
    assert before["class"] == "pixel", "a 32 pixel image is enlarged without smoothing"
    assert page.text.index("base \u2717 fail") < page.text.index("aligned \u2713 pass")


def test_large_images_are_shrunk() -> None:
    shown = decoded(data_uri(make_image(0, side=2 * LARGEST)))
    assert (shown.size, shown.format) == ((LARGEST, LARGEST), "JPEG")
    assert decoded(data_uri(make_image(0, side=LARGEST))).format == "PNG"


def test_headlines_carry_both_means_and_the_paired_difference() -> None:
    text = " ".join(Page(render(full_report())).text.split())
    assert "base40.0 %95 % CI [35.0, 45.0]aligned60.0 %95 % CI [55.0, 65.0]" in text
    assert "Paired difference +20.0 points 95 % CI [15.0, 25.0]; 40 images of 10 prompts." in text


def test_what_was_asked_and_what_was_drawn_stand_with_the_images() -> None:
    (pair,) = full_report().comparisons
    pair = replace(pair, before_shows="a red square", after_shows="a red circle")
    curve = Chart("Over guidance", [Curve("base", [1, 2], [30.0, 40.0])], "shaded: 95 %")
    html = render(replace(full_report(), comparisons=[pair], chosen="At random.", curve=curve))
    text = " ".join(Page(html).text.split())
    parts = [
        "At random.",
        "asked: a red circle",
        "drawn: a red square",
        "drawn: a red circle",
        "Over guidance",
    ]
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)
    assert text.index("shaded: 95 %") < text.index("Result")
    assert "drawn:" not in render(full_report()), "nobody has read these"


def test_users_text_is_text() -> None:
    attack = '<script>alert("x")</script>" onerror="y'
    page = Page(render(full_report(attack)))
    assert page.scripts == [OUR_SCRIPT] and not any("onerror" in attributes for _, attributes in page.tags)
    assert attack in page.text
    assert "Demo <1>" in page.text


def test_empty_sections_are_left_out() -> None:
    report = Report("t", "s", full_report().headlines)
    assert [name for name in ("Before", "category", "Training", "Settings") if name in render(report)] == []


def svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text[text.index("<svg") :])


def points(line: ElementTree.Element) -> np.ndarray:
    return np.array([[float(v) for v in pair.split(",")] for pair in line.attrib["points"].split()])


def test_bars_are_to_scale_with_whiskers_at_the_interval() -> None:
    rows = [Bar("a & b", Estimate(0.5, 0.4, 0.6, 8, 4), Estimate(0.25, math.nan, math.nan, 4, 1))]
    drawn = svg(bars(rows, before="base", after="aligned"))
    first, second = (float(bar.attrib["width"]) for bar in drawn.findall("rect"))
    assert first / second == pytest.approx(2, rel=0.01)
    (whisker,) = drawn.findall("path")  # none where there is no interval
    start = float(drawn.findall("rect")[0].attrib["x"])
    low = float(whisker.attrib["d"][1:].split()[0])
    assert (low - start) / first == pytest.approx(0.4 / 0.5, rel=0.01)
    assert drawn.attrib["aria-label"] == "a & b: base 50.0%, aligned 25.0%"


def test_lines_are_to_scale_and_skip_what_is_not_finite() -> None:
    curve = Curve("loss", [0, 1, 2, 3], [0.0, math.nan, 1.0, 0.5])
    (line,) = svg(lines(Chart("c", [curve]))).findall("polyline")
    (x_0, y_0), (x_2, y_2), (x_3, y_3) = points(line)
    assert (x_3 - x_2) / (x_3 - x_0) == pytest.approx(1 / 3, abs=0.01)
    assert y_2 < y_3 < y_0, "up is larger"
    assert (y_0 - y_3) / (y_0 - y_2) == pytest.approx(0.5, abs=0.01)


def test_long_lines_get_a_running_mean_that_keeps_a_constant_and_calms_noise() -> None:
    steps = list(range(10 * MANY))
    noise = np.random.default_rng(0).normal(size=len(steps))
    faint, calm = svg(lines(Chart("c", [Curve("a", steps, noise.tolist())]))).findall("polyline")
    assert points(calm)[:, 1].std() < 0.4 * points(faint)[:, 1].std()
    flat = svg(lines(Chart("c", [Curve("a", steps, [0.3] * len(steps))]))).findall("polyline")[1]
    assert np.ptp(points(flat)[:, 1]) == 0


def test_one_point_and_no_points_are_drawn_too() -> None:
    assert svg(lines(Chart("c", [Curve("a", [5], [0.0])]))).findall("polyline")
    assert "Nothing was logged" in lines(Chart("c", [Curve("a", [1], [math.nan])]))


def test_ticks_are_round_and_cover_the_range() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, span = rng.normal() * 10 ** rng.uniform(-4, 4), 10 ** rng.uniform(-4, 4)
        found = ticks(low, low + span)
        gap = found[1] - found[0]
        assert found[0] <= low + 1e-6 * span and found[-1] >= low + span - 1e-6 * span
        assert 2 <= len(found) <= 8
        assert min(abs(gap / 10 ** math.floor(math.log10(gap * 1.001)) - m) for m in (1, 2, 5)) < 1e-6


def test_curves_are_read_from_metric_rows() -> None:
    rows: list[dict[str, float]] = [
        {"step": 1, "loss": 0.7},
        {"step": 2, "loss": 0.6, "held": 0.5},
        {"step": 3},
    ]
    found = curves(rows, {"loss": "train loss", "held": "held out", "never": "never logged"})
    assert found == [Curve("train loss", [1, 2], [0.7, 0.6]), Curve("held out", [2], [0.5])]
