"""The page of filter: counts as in the report, and examples of each group, with the winner on the left."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from t2ialign.data.consistent_filter import Limits
from t2ialign.data.pairs import PairRecord
from t2ialign.evaluation.filter_report import summarise
from t2ialign.web.filter_page import EXAMPLES, STAYS, Examples, page, write
from tests.web.test_evaluation_page import words
from tests.web.test_report import Page, decoded

NAMES = ["a", "b", "c"]
LIMITS = Limits((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
GAPS = np.array([[1.0, 1, 1]] * 8 + [[-1, 1, 1], [-1, -1, 1], [0.1, 0.1, 0.1], [np.nan, 1, 1]])
PREFERENCES = np.array([1.0] * 10 + [0.5, 1.0])


def records(folder: Path) -> list[PairRecord]:
    """Pairs whose winner has its number as red, and whose loser is blue."""
    found = []
    for number in range(len(GAPS)):
        win, lose = folder / f"{number}w.png", folder / f"{number}l.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(win)
        Image.new("RGB", (8, 8), (0, 0, 255)).save(lose)
        found.append(PairRecord(f"prompt {number}", win, lose))
    return found


def report(**other: Any) -> dict[str, Any]:
    whole = np.isfinite(GAPS).all(1)
    parts = summarise(NAMES, GAPS[whole], PREFERENCES[whole], LIMITS)
    unreadable = {"rows": 1, "pairs": 1, "images": []}
    head = {"source": "pairs/", "rewards": NAMES, "pairs": len(GAPS), "kept": 9, "unreadable": unreadable}
    return {**head, **parts, **other}


def test_examples_are_the_first_of_each_group_and_all_pairs_pass(tmp_path: Path) -> None:
    examples, pairs = Examples("pairs.jsonl", NAMES, GAPS, PREFERENCES, LIMITS), records(tmp_path)
    assert [record for _, record in examples.passing(enumerate(pairs))] == pairs
    prompts = {name: [pair.prompt for pair in group] for name, group in examples.groups.items()}
    assert prompts == {
        STAYS: [f"prompt {number}" for number in range(EXAMPLES)],
        "a": ["prompt 8"],
        "a + b": ["prompt 9"],
    }
    assert examples.groups["a"][0].gaps == {"a": -1, "b": 1, "c": 1}


def test_the_page_shows_counts_and_pairs(tmp_path: Path) -> None:
    examples = Examples("pairs.jsonl", NAMES, GAPS, PREFERENCES, LIMITS)
    list(examples.passing(enumerate(records(tmp_path))))
    write(tmp_path / "p.html", report(), examples)
    html = (tmp_path / "p.html").read_text(encoding="utf-8")
    shown, text = Page(html), words(html)
    assert "9 of 12 pairs are kept" in text
    assert "9 pairs kept" in text and "2 pairs dropped" in text and "1 could not be read or scored" in text
    assert "rewards preferences ties a 1 0 b 0 0" in text and "Dropped by a + b" in text
    colours = [decoded(image["src"]).getpixel((0, 0)) for image in shown.all("img")]
    wins = [*range(EXAMPLES), 8, 9]
    assert colours == [colour for red in wins for colour in ((red, 0, 0), (0, 0, 255))]
    assert shown.all("img")[0]["alt"] == "prompt 0, the preferred image"


def test_a_tie_is_named_and_no_pair_at_all_is_shown_too(tmp_path: Path) -> None:
    examples = Examples("x", NAMES, GAPS[10:11], PREFERENCES[10:11], LIMITS)
    list(examples.passing(enumerate(records(tmp_path)[10:11])))
    assert examples.groups[STAYS][0].tie and "<b>tie</b>" in page(report(), examples.groups)
    empty = np.zeros((0, 3))
    nothing = summarise(NAMES, empty, np.zeros(0), LIMITS)
    assert "0 of 0 pairs are kept" in page(report(pairs=0, kept=0, **nothing), {STAYS: []})


def test_of_a_folder_no_image_outside_of_it_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    (inside,) = records(folder)[:1]
    (outside,) = records(tmp_path)[:1]
    (folder / "link.png").symlink_to(tmp_path / "0w.png")
    linked = PairRecord("p", folder / "link.png", inside.lose)
    gone = PairRecord("p", folder / "gone.png", inside.lose)
    examples = Examples(str(folder), NAMES, GAPS, PREFERENCES, LIMITS)
    list(examples.passing(enumerate([outside, linked, gone, inside])))
    assert [pair.prompt for pair in examples.groups[STAYS]] == ["prompt 0"]
    assert len(examples.groups[STAYS]) == 1
