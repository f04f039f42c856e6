"""Pages as a browser shows them, where one is installed: on a phone, in the dark, by click and keyboard."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from t2ialign.web.pages import part, render
from tests.web.test_hostile_pages import PAGES, aligned

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WORDS = "an unquestionably representative prompt with punctuation, such as clipscore-h and (parentheses)"
PHONE = 360
"""Pixels across."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed to look at pages with")

HOST = """<!doctype html><body>{frames}<pre id="result"></pre><script>
addEventListener("load", async () => {{
  const pages = [...document.querySelectorAll("iframe")].map(frame => frame.contentDocument);
  const look = {look};
  document.getElementById("result").textContent = JSON.stringify(await Promise.all(pages.map(look)));
}});
</script></body>"""


def seen(folder: Path, pages: list[str], look: str, *, width: int = PHONE, dark: bool = False) -> list[Any]:
    """What the function `look` of JavaScript returns for the document of each page, `width` pixels wide."""
    frames = "".join(
        f'<iframe style="width:{width}px;height:800px;border:0" srcdoc="{escape(page)}"></iframe>'
        for page in pages
    )
    (folder / "host.html").write_text(HOST.format(frames=frames, look=look), encoding="utf-8")
    assert CHROMIUM is not None
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=3000",
        "--dump-dom",
    ]
    flags += [f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={1 - dark}"]
    done = subprocess.run(
        [CHROMIUM, *flags, f"file://{folder / 'host.html'}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    result = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert result is not None and result[1], "the pages were not loaded"
    looked: list[Any] = json.loads(unescape(result[1]))
    return looked


def write(page: Callable[[str, Path], str], folder: Path) -> str:
    (folder / page.__name__).mkdir()
    return page(WORDS, folder / page.__name__)


def test_on_a_phone_nothing_scrolls_sideways_and_no_word_is_broken(tmp_path: Path) -> None:
    look = """page => {
      const broken = [], walk = page.createTreeWalker(page.querySelector("main"), NodeFilter.SHOW_TEXT);
      for (let node = walk.nextNode(); node; node = walk.nextNode())
        for (const word of node.data.matchAll(/[A-Za-z]+/g)) {
          const range = page.createRange();
          range.setStart(node, word.index);
          range.setEnd(node, word.index + word[0].length);
          const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
          if (lines.size > 1) broken.push(word[0]);
        }
      return [page.documentElement.scrollWidth, broken];
    }"""
    pages = [write(page, tmp_path) for page in PAGES]
    for page, (width, broken) in zip(PAGES, seen(tmp_path, pages, look), strict=True):
        assert (width, broken) == (PHONE, []), page.__name__


def test_the_dark_has_light_text_on_a_dark_page(tmp_path: Path) -> None:
    look = """page => {
      const style = page.defaultView.getComputedStyle(page.body);
      return [style.backgroundColor, style.color].map(rgb => rgb.match(/\\d+/g).slice(0, 3).map(Number));
    }"""
    html = write(aligned, tmp_path)
    for dark in (False, True):
        ((back, text),) = seen(tmp_path, [html], look, dark=dark)
        assert (sum(back) < sum(text)) is dark
        assert abs(sum(back) - sum(text)) > 450, "easily read"


def test_a_column_is_sorted_by_its_head_numbers_as_numbers(tmp_path: Path) -> None:
    rows = [("b", "10", "x2"), ("a", "9.5", "x10"), ("d", "", "x1"), ("c", "-1e1", "x3")]
    html = render("page.html", title="t", lead="l").replace(
        "</header>", "</header>" + part("table", ("name", "number", "mixed"), rows)
    )
    look = """page => {
      const heads = [...page.querySelectorAll("thead button")];
      const rows = () => [...page.querySelectorAll("tbody tr")];
      const names = () => rows().map(row => row.cells[0].textContent).join("");
      return [0, 1, 1, 2].map(place => {
        heads[place].click();
        return [names(), heads[place].parentNode.getAttribute("aria-sort")];
      });
    }"""
    (orders,) = seen(tmp_path, [html], look)
    assert orders == [
        ["abcd", "ascending"],
        ["cabd", "ascending"],
        ["bacd", "descending"],  # what is missing stands last either way
        ["dbca", "ascending"],
    ]


def test_an_image_opens_large_by_keyboard_and_closes(tmp_path: Path) -> None:
    look = """async page => {
      const zoom = page.querySelector(".zoom"), image = zoom.querySelector("img");
      zoom.focus();
      const focused = page.activeElement === zoom;
      zoom.click();  // which Enter and the space bar do to a button
      const dialog = page.querySelector("dialog"), large = dialog.querySelector("img");
      const opened = [dialog.open, large.src === image.src, large.alt === image.alt];
      opened.push(large.width > image.width);
      dialog.querySelector("button").click();
      await new Promise(resolve => setTimeout(resolve, 100));
      return [focused, ...opened, page.querySelector("dialog") === null, page.activeElement === zoom];
    }"""
    assert seen(tmp_path, [write(aligned, tmp_path)], look, width=900) == [[True] * 7]
