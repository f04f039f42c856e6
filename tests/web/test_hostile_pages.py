"""Every page shows what files hold as text: no string of theirs becomes a tag, an attribute or an address."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rewards.keypoints.taxonomy import kinds
from scripts.experiments import page as proofs_page
from scripts.experiments.claim import Figure
from t2ialign.data.consistent_filter import Limits
from t2ialign.data.pairs import PairRecord
from t2ialign.evaluation import monitor_journal
from t2ialign.evaluation.cross_reward import matrix
from t2ialign.evaluation.filter_report import summarise
from t2ialign.evaluation.statistics import Estimate
from t2ialign.io.inside import inside
from t2ialign.rewriting import page as rewriting_page
from t2ialign.rewriting.rewriter import Rewritten
from t2ialign.scoring import gallery, output
from t2ialign.web import evaluation_page, filter_page, monitor_page, report
from t2ialign.web import keypoint_report as keypoint_report
from t2ialign.web.charts import Bar, Chart, Curve
from t2ialign.web.embedded import Shown
from t2ialign.web.markup import escaped
from tests.cli.test_monitor_verb import FALLS, RISES, make

NASTY = (
    "\"'><script>pwn()</script><img src=x onerror=pwn()>",
    "</title></style></td></script><svg/onload=pwn()>",
    '" onmouseover=pwn() x=',
    "javascript:pwn() {x.__class__} {{ x*x }} &lt;b&gt; \udcff",
)
HALF = Estimate(0.5, 0.4, 0.6, 40, 10)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.shown = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.shown += data


def monitor(nasty: str, folder: Path) -> str:
    """A run whose every text is hostile, and the seeds of its rows too."""
    run = make(folder / "run", {"NAME": RISES, "trained": FALLS, "NAME again": FALLS})
    about, scores = run / "monitor" / "about.json", run / "monitor" / "scores.jsonl"
    texts = dict.fromkeys(("method", "model", "embedding", "trained"), nasty)
    about.write_text(json.dumps({**json.loads(about.read_text(encoding="utf-8")), **texts}), encoding="utf-8")
    inner = json.dumps(nasty)[1:-1]  # within a string of JSON
    lines = scores.read_text(encoding="utf-8").replace("NAME", inner).splitlines()
    rows = [json.loads(line) for line in lines]
    hostile = [{**row, "seed": nasty, "prompt": f"{row['prompt']} {nasty}"} for row in rows]
    scores.write_text("\n".join(map(json.dumps, hostile)), encoding="utf-8")
    runs = {nasty: monitor_journal.read(run)}
    return monitor_page.render(runs, matrix(runs))


def aligned(nasty: str, folder: Path) -> str:
    """The report of evaluate and demo."""
    image = Image.new("RGB", (8, 8))
    seed: int = nasty  # type: ignore[assignment]
    return report.render(
        report.Report(
            title=nasty,
            summary=nasty,
            headlines=[report.Headline(nasty, HALF, HALF, HALF, unit=nasty)],
            comparisons=[report.Comparison(nasty, seed, image, image, None, True, nasty, nasty)],
            chosen=nasty,
            curve=Chart(nasty, [Curve(nasty, [0, 1], [0.0, 1.0])], nasty, nasty),
            categories=[Bar(nasty, HALF, HALF)],
            charts=[Chart(nasty, [Curve(nasty, [0, 1], [0.0, 1.0])], nasty, nasty)],
            settings={nasty: nasty},
            before=nasty,
            after=nasty,
        )
    )


def scored(nasty: str, folder: Path) -> str:
    """The gallery of scores."""
    text = str(output.text(nasty))  # as the table of scores holds it
    row: dict[str, Any] = {"shard": 0, "file": text, "prompt": text}
    rows = [
        {**row, "row": 0, "scores": {text: 1.0}, "error": None},
        {**row, "row": 1, "scores": {}, "error": text},
    ]
    images = (None, Shown("data:image/png;base64,", nasty, "pixel"))
    cards = [gallery.Card({**row, text: 1.0}, [text], image) for image in images]
    return gallery.render(nasty, output.table(rows, [text]), cards)


def judged(nasty: str, folder: Path) -> str:
    """The report of key points, with a row that was not shown."""
    (kind, *_) = kinds()
    missed = dict.fromkeys(("id", "file", "prompt", "description", "reason"), nasty)
    lines = [keypoint_report.Line(kind, nasty, HALF, HALF, 1, total=total) for total in (True, False)]
    images = {nasty: Shown("data:image/png;base64,", nasty, "pixel")}
    return keypoint_report.page(nasty, lines, [{**missed, "kind": kind, "correct": False}], nasty, images)


def proofs(nasty: str, folder: Path) -> str:
    """The page of a subject's proofs."""
    texts = ("number", "claim", "paper", "seconds", "source", "tree")
    row = {**dict.fromkeys(texts, nasty), "verdict": "holds", "ci95": None, "seeds": [nasty]}
    figures = {nasty: [Figure(nasty, "<p>drawn by us</p>", nasty)]}
    proofs_page.write(folder / "p.html", nasty, [{**row, "measured": {nasty: {nasty: [nasty]}}}], figures)  # type: ignore[arg-type]
    return (folder / "p.html").read_text(encoding="utf-8")


def rewritten(nasty: str, folder: Path) -> str:
    """The page of prompts and rewrites, whose images have hostile names too."""
    place = folder / re.sub(r"[/\udcff]", "-", nasty)
    place.mkdir()
    Image.new("RGB", (8, 8)).save(place / "a.png")
    pair = rewriting_page.Images(place / "a.png", place / "a.png", nasty)  # type: ignore[arg-type]
    result = Rewritten(prompt=nasty, rewrite=nasty, thought=nasty, used="prompt", reason=nasty)
    rewriting_page.write(folder / "r.html", [result], rewriter=nasty, images=[[pair]])
    return (folder / "r.html").read_text(encoding="utf-8")


def evaluated(nasty: str, folder: Path) -> str:
    """The page of evaluate, with a baseline, images on both sides and an image that could not be scored."""
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    rows: list[dict[str, Any]] = [
        {"file": "a.png", "prompt": nasty, "seed": seed, "score": 0.5} for seed in range(2)
    ]
    rows += [{"file": nasty, "prompt": nasty, "seed": nasty, "error": nasty}]
    before = [row | {"score": float(row["seed"])} for row in rows[:2]]  # one rises, the other falls
    columns = {name: {nasty: HALF} for name in ("scores", "baseline", "difference")}
    side, baseline = (evaluation_page.Side(folder, each) for each in (rows, before))
    return evaluation_page.page(nasty, columns, side, baseline)


def filtered(nasty: str, folder: Path) -> str:
    """The page of filter, with an example that is kept and one that is dropped."""
    limits, names = Limits((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), [nasty, "b", "c"]
    gaps, preferences = np.array([[1.0, 1, 1], [-1, 1, 1]]), np.ones(2)
    image, source = Image.new("RGB", (8, 8)), nasty.replace("\udcff", "")
    examples = filter_page.Examples(source, names, gaps, preferences, limits)
    list(examples.passing(enumerate([PairRecord(nasty, image, image)] * 2)))
    report = {"source": nasty, "rewards": names, "pairs": 2, "kept": 1}
    report |= {"unreadable": {"rows": 0, "pairs": 0}, **summarise(names, gaps, preferences, limits)}
    return filter_page.page(report, examples.groups)


PAGES = [monitor, aligned, scored, judged, proofs, rewritten, evaluated, filtered]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("number", range(len(NASTY)))
def test_no_string_of_a_file_is_taken_for_html(
    page: Callable[[str, Path], str], number: int, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "nasty").mkdir()
    plain = Page(page("harmless", tmp_path / "plain"))
    html = page(NASTY[number], tmp_path / "nasty")
    html.encode("utf-8")  # which a lone surrogate would refuse
    there = Page(html)
    assert there.tags == plain.tags
    assert [name for name, _ in there.attributes] == [name for name, _ in plain.attributes]
    assert not any(name.startswith("on") for name, _ in there.attributes)
    shown = re.split(r"[\s\udcff]", NASTY[number])[0]
    assert shown in there.shown, "the text itself is shown as it is"
    addresses = [value for name, value in there.attributes if name in ("src", "href")]
    assert all(value.startswith("data:") or ":" not in value for value in addresses)


def test_only_the_one_helper_escapes() -> None:
    root = Path(report.__file__).parents[1]
    users = [file.name for file in root.rglob("*.py") if "html import" in file.read_text(encoding="utf-8")]
    assert users == ["markup.py"]
    assert escaped('<a b="c">\udcff') == "&lt;a b=&quot;c&quot;&gt;\\udcff"


@pytest.mark.parametrize(
    "name",
    ["../a.png", "a/../../b.png", "/etc/a.png", "C:\\a.png", "C:a.png", "\\a", "..\\a.png", "", 3, None],
)
def test_a_run_cannot_show_what_lies_outside_it(name: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a path within that folder"):
        inside(tmp_path, name)
    run = make(tmp_path / "run", {"clip": RISES})
    scores = run / "monitor" / "scores.jsonl"
    rows = [json.loads(line) for line in scores.read_text(encoding="utf-8").splitlines()]
    scores.write_text("\n".join(json.dumps({**row, "file": name}) for row in rows), encoding="utf-8")
    runs = {"run": monitor_journal.read(run)}
    with pytest.raises(ValueError, match="expected a path within that folder"):
        monitor_page.render(runs, matrix(runs))
    assert inside(tmp_path, "step-1/a..b.png") == tmp_path / "step-1" / "a..b.png"


def test_a_run_cannot_show_what_a_link_in_it_leads_to(tmp_path: Path) -> None:
    run = make(tmp_path / "run", {"clip": RISES})
    images = run / "monitor"
    outside = tmp_path / "outside"
    outside.mkdir()
    for link, target in (("folder", outside), ("a.png", outside / "a.png"), ("loop", images / "loop")):
        (images / link).symlink_to(target)
    for name in ("folder/a.png", "a.png"):
        with pytest.raises(ValueError, match="which a link leads out of that folder"):
            inside(images, name)
    assert inside(images, "loop") == images / "loop", "which opens as no file"
    scores = images / "scores.jsonl"
    rows = [json.loads(line) for line in scores.read_text(encoding="utf-8").splitlines()]
    scores.write_text("\n".join(json.dumps({**row, "file": "a.png"}) for row in rows), encoding="utf-8")
    runs = {"run": monitor_journal.read(run)}
    with pytest.raises(ValueError, match="expected a file within it"):
        monitor_page.render(runs, matrix(runs))
