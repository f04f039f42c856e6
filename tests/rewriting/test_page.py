"""The page of rewrites: nothing of it is HTML but the page's own, and it can be moved with its images."""

import shutil

import pytest
from PIL import Image

from t2ialign.rewriting.page import Images, write
from t2ialign.rewriting.rewriter import Rewritten, judge
from tests.rewriting.pages import Page, links, words_of

HOSTILE = (
    """</p></main><script>alert(1)</script><img src="http://host/x" onerror='alert(2)'> {{ 7 * 7 }} & "x'"""
)
WORDS = "html head meta title style body main header h1 h2 h3 p span article div section ul li figure a img"
OWN = {*WORDS.split(), "figcaption", "script"}


def test_nothing_that_is_shown_becomes_html(tmp_path):
    name = "a b#%<\"'>&?.png"
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    pair = Images(tmp_path / name, tmp_path / name, 5)
    results = [
        Rewritten(
            HOSTILE, HOSTILE, HOSTILE, reason=HOSTILE, lost=tuple(judge(HOSTILE, "").lost), dropped=(HOSTILE,)
        ),
        judge(f'a sign "{HOSTILE}", two cats', f"<think>{HOSTILE}</think><answer>{HOSTILE}</answer>"),
    ]
    write(tmp_path / "page.html", results, rewriter=HOSTILE, images=[[pair], []])
    page = Page(tmp_path / "page.html")
    assert set(page.tags) <= OWN and page.tags.count("img") == page.tags.count("script") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [value for name, value in page.attributes if name in ("src", "href") and ":" in value]
    assert links(tmp_path / "page.html") == [tmp_path / name]
    words = " ".join(page.words)
    assert words.count(" ".join(HOSTILE.split())) >= 8 and " 49 " not in words


def test_what_survived_is_marked_in_words(tmp_path):
    results = [
        judge('three dogs, a sign "Go", no cat', '<answer>three big dogs beside a sign "Go", a cat</answer>'),
        judge("a red cube", "<answer>a red cube in fog</answer>"),
        judge("two cats", "no tags"),
        Rewritten("a long prompt", reason="prompt left alone"),
    ]
    write(tmp_path / "page.html", results, rewriter="rules")
    words = words_of(tmp_path / "page.html")
    assert "✓ quote kept: Go ✓ number kept: three dogs ✗ negation lost: no cat" in words
    assert "a red cube in fog No quoted text, number or negation was found in the prompt." in words
    assert "lost: number Prompt two cats Rewrite, not used no tags ✗ number lost: two cats" in words
    assert words.endswith("the prompt is used as it was written: prompt left alone Prompt a long prompt")
    assert "1 of 4 prompts are replaced" in words


@pytest.mark.parametrize("place", ["page.html", "deep/er/page.html"])
def test_images_are_found_wherever_folder_and_page_go_together(tmp_path, place):
    root = tmp_path / "one"
    (root / "run a" / "originals").mkdir(parents=True)
    files = [root / "run a" / "originals" / "0.png", root / "run a" / "0.png"]
    for file, side in zip(files, (32, 512), strict=True):
        Image.new("RGB", (side, side)).save(file)
    result = judge("a cat", "<answer>a grey cat</answer>")
    write(root / place, [result], rewriter="m", images=[[Images(*files, 5), Images(files[1], files[1], 6)]])
    shutil.move(root, tmp_path / "two")
    page = Page(tmp_path / "two" / place)
    linked = [file.resolve() for file in links(tmp_path / "two" / place)]
    assert linked == [tmp_path / "two" / file.relative_to(root) for file in [*files, files[1]]]
    kinds = [value for _, value in page.attributes if value in ("pixel", "smooth")]
    assert kinds == ["pixel", "pixel", "smooth"]
    words = " ".join(page.words)
    assert "The prompt, seed 5 The rewrite, seed 5 The prompt, which was not rewritten, seed 6" in words
