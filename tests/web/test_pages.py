"""Every page is one whole file: well-formed, for any screen, readable aloud, and without the network."""

import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import jinja2
import pytest

from t2ialign.web.pages import part, render
from tests.web.test_hostile_pages import PAGES

VOID = {"meta", "img", "input"}
TEMPLATES = files("t2ialign.web").joinpath("templates")
STYLE = TEMPLATES.joinpath("style.css").read_text(encoding="utf-8").strip()
SCRIPTS = {
    name: TEMPLATES.joinpath(name).read_text(encoding="utf-8").strip() for name in ("page.js", "gallery.js")
}
OF_A_GALLERY, STILL = {"scored"}, {"proofs"}


class Strict(HTMLParser):
    """Elements with their attributes, in order; AssertionError where one is not closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.content: Counter[str] = Counter()
        self.inside: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self._open, f"<{tag}/> outside of a chart"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        tag = self._open[-1] if self._open else ""
        self.inside[tag] = self.inside.get(tag, "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element of a name."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.__name__)
def test_every_page_is_whole_and_stands_alone(page: Callable[[str, Path], str], tmp_path: Path) -> None:
    html = page("a cat", tmp_path)
    assert html.startswith("<!doctype html>")
    read = Strict(html)
    assert read.all("html") == [{"lang": "en"}] and read.inside["title"].strip()
    assert {"charset": "utf-8"} in read.all("meta")
    assert any("width=device-width" in str(meta.get("content")) for meta in read.all("meta"))
    assert len(read.all("h1")) == len(read.all("main")) == 1
    assert read.inside["style"].strip() == STYLE
    assert all(image["alt"] and image["src"] for image in read.all("img")), "each image is said in words"
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in read.elements}
    assert not re.search(
        r"https?:|url\(|@import|//[a-z]", html.replace(STYLE, "").replace(SCRIPTS["page.js"], "")
    )
    assert not re.search(r"https?:|url\(|@import", html)
    ids = [str(attributes["id"]) for _, attributes in read.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.__name__)
def test_only_our_script_runs_and_every_image_opens_by_keyboard(
    page: Callable[[str, Path], str], tmp_path: Path
) -> None:
    read = Strict(page("a cat", tmp_path))
    scripts = [] if page.__name__ in STILL else [SCRIPTS["page.js"]]
    scripts += [SCRIPTS["gallery.js"]] if page.__name__ in OF_A_GALLERY else []
    assert re.sub(r"\s+", " ", read.inside.get("script", "")).strip() == re.sub(
        r"\s+", " ", " ".join(scripts)
    )
    images = len(read.all("img"))
    zooms = [(tag, attributes) for tag, attributes in read.elements if attributes.get("class") == "zoom"]
    assert len(zooms) == images
    for tag, attributes in zooms:
        assert tag == "button" or (tag == "a" and attributes["href"]), "a tab stop that Enter activates"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.__name__)
def test_tables_scroll_in_their_own_box_and_can_be_sorted(
    page: Callable[[str, Path], str], tmp_path: Path
) -> None:
    html = page("a cat", tmp_path)
    tables = re.findall(r"<table[^>]*>.*?</table>", html, re.DOTALL)
    boxes = re.findall(r'<div class="scroll"[^>]*>\s*<table', html)
    in_cards = html.count("<figcaption") if page.__name__ in OF_A_GALLERY else 0
    assert len(boxes) == len(tables) - in_cards
    for table in tables:
        if "sortable" in table.split(">")[0]:
            columns = len(re.findall(r"<th\b", table.partition("</thead>")[0]))
            rows = table.partition("<tbody>")[2].split("</tr>")[:-1]
            assert rows and all(len(re.findall(r"<t[hd]\b", row)) == columns for row in rows)


def test_one_stylesheet_knows_dark_mode_and_every_class_of_the_templates() -> None:
    assert "prefers-color-scheme: dark" in STYLE and "overflow-x: auto" in STYLE
    assert "overflow-wrap: anywhere" not in STYLE and "break-all" not in STYLE, "no broken words"
    used: set[str] = set()
    for template in TEMPLATES.iterdir():
        text = re.sub(r"{{.*?}}|{%.*?%}", " ", template.read_text(encoding="utf-8"))
        used |= {name for group in re.findall(r'class="([^"]*)"', text) for name in group.split()}
        assert "<style" not in text or template.name == "page.html"
        assert 'style="' not in text
    known = set(re.findall(r"\.([a-z][a-z-]*)", STYLE))
    scripted = {"sortable"}
    assert used - known - scripted == set()


def test_a_value_that_a_page_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="lead"):
        render("page.html", title="a")


def test_what_a_template_made_is_not_escaped_again_and_all_else_is() -> None:
    table = part("table", ("a<b",), [("x & y", 1.5)])
    assert "<th>a&lt;b</th>" in table and "<th>x &amp; y</th><td>1.5</td>" in table
    assert "&amp;lt;" not in render("page.html", title=table, lead="")
    assert "&lt;i&gt;" in render("page.html", title="<i>", lead="")
