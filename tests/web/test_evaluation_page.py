"""evaluation.html: intervals, prompts, the best and worst images, and nothing from outside of the folder."""

import re
from pathlib import Path
from typing import Any

from PIL import Image

from t2ialign.evaluation.statistics import bootstrap_ci
from t2ialign.web.evaluation_page import EXTREMES, NAME, Side, page, write
from tests.web.test_report import Page, decoded


def rows(folder: Path, scores: list[float], first_red: int = 0) -> list[dict[str, Any]]:
    """Images whose red is their number, two a prompt."""
    folder.mkdir(exist_ok=True)
    for number in range(len(scores)):
        Image.new("RGB", (8, 8), (first_red + number, 0, 0)).save(folder / f"{number}.png")
    return [
        {"file": f"{number}.png", "prompt": f"prompt {number // 2}", "seed": number, "score": score}
        for number, score in enumerate(scores)
    ]


def reds(html: str) -> list[int]:
    return [decoded(image["src"]).getpixel((0, 0))[0] for image in Page(html).all("img")]  # type: ignore[index]


def words(html: str) -> str:
    """The text of a page, its cells apart."""
    return " ".join(re.sub(r"<[^>]+>", " ", html.partition("</style>")[2]).split())


def columns(scores: list[float]) -> dict[str, Any]:
    return {"scores": {"all": bootstrap_ci(scores, [f"{i // 2}" for i in range(len(scores))])}}


def test_best_and_worst_images_are_those_of_the_scores(tmp_path: Path) -> None:
    scores = [float(number) for number in range(40)]
    images = rows(tmp_path / "run", scores)
    file = write(tmp_path, "clip", columns(scores), Side(tmp_path / "run", images))
    assert file == tmp_path / NAME
    html = file.read_text(encoding="utf-8")
    assert reds(html) == [*range(39, 39 - EXTREMES, -1), *range(EXTREMES)]
    text = words(html)
    assert "40 images of 20 prompts; 0 could not be scored." in text
    assert re.search(r"all 19\.500 \[\d+\.\d{3}, \d+\.\d{3}\] 40 20", text), "mean, interval, n, prompts"
    assert "prompt 0 2 0.5 0 1" in text.partition("By prompt")[2], "n, mean, lowest and highest"
    assert html.index("prompt 0</td>") < html.index("prompt 19</td>"), "the lowest mean first"
    assert html.count("<rect") == 24, "the bins of the distribution"


def test_few_images_are_shown_once(tmp_path: Path) -> None:
    images = rows(tmp_path / "run", [0.2, 0.4, 0.3])
    html = page("clip", columns([0.2, 0.4, 0.3]), Side(tmp_path / "run", images))
    assert reds(html) == [1, 2, 0]


def test_with_a_baseline_the_largest_rises_and_falls_stand_beside_it(tmp_path: Path) -> None:
    after = rows(tmp_path / "after", [1.0, 0.0, 1.0, 0.0], first_red=100)
    before = rows(tmp_path / "before", [0.0, 1.0, 1.0, 0.0])
    table = {name: columns([1.0, 0.0])["scores"] for name in ("scores", "baseline", "difference")}
    html = page("oracle", table, Side(tmp_path / "after", after), Side(tmp_path / "before", before))
    assert reds(html) == [0, 100, 1, 101], "the baseline on the left; nothing that stayed as it was"
    text = words(html)
    assert "Of 4 images with the same prompt and seed" in text
    assert "1 score higher and 1 score lower" in text
    assert "50.0 [50.0, 50.0]" in text or "50.0 (one prompt)" in text, "a rate is shown in per cent"
    assert "prompt 1 2 0.5 0 1 0.5 +0" in text


def test_what_lies_outside_a_folder_or_behind_a_link_is_not_shown(tmp_path: Path) -> None:
    run, outside = rows(tmp_path / "run", [0.1, 0.2]), tmp_path / "secret.png"
    Image.new("RGB", (8, 8), (200, 0, 0)).save(outside)
    (tmp_path / "run" / "link.png").symlink_to(outside)
    for name in ("../secret.png", "link.png", str(outside), "gone.png"):
        run.append({"file": name, "prompt": "p", "seed": 5, "score": 9.0})
    scores = [row["score"] for row in run]
    assert sorted(reds(page("clip", columns(scores), Side(tmp_path / "run", run)))) == [0, 1]
    table = tmp_path / "run" / "manifest.jsonl"
    shown = reds(page("clip", columns(scores), Side(table, run)))
    assert shown.count(200) == 3, "a table of the user's may name any image"


def test_nothing_scored_and_errors(tmp_path: Path) -> None:
    broken = [{"file": "a.png", "prompt": "p", "seed": 1, "error": "a.png: it broke"}]
    html = page("clip", {"scores": {}}, Side(tmp_path, broken))
    assert "No image could be scored" in html and "a.png: it broke" in html
    assert "1 could not be scored" in html and "<svg" not in html
