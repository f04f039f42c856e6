"""t2ialign monitor: journals with numbers chosen by hand come out as known curves, verdicts and changes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2ialign.cli import main as cli
from t2ialign.evaluation.monitor_journal import Journal, image_file, read
from t2ialign.web.charts import COLOURS
from t2ialign.web.monitor_page import CURVES, charts
from tests.cli.test_cli import fails
from tests.web.test_report import OUR_SCRIPT, Page, decoded

PROMPTS = ("a cat", "a dog")
STATISTICS = [name for _, names, _ in CURVES for name in names]
Scores = Mapping[int, Sequence[float]]
"""Step -> the score of each prompt, the same for its two images."""

TRAINED: Scores = {0: (0.0, 2.0), 10: (1.0, 3.0), 20: (2.0, 4.0)}
RISES: Scores = {0: (0.0, 4.0), 10: (1.0, 5.0), 20: (2.0, 6.0)}
FALLS: Scores = {0: (0.0, 4.0), 10: (1.0, 5.0), 20: (-1.0, 3.0)}


def make(
    run: Path,
    scores: Mapping[str, Scores],
    trained: str | None = "pickscore",
    diversity: Scores | None = None,
    **about: object,
) -> Path:
    """A run with a journal and images, plain ones whose red is the step; statistics are step / 100."""
    journal = Journal(run)
    settings: dict[str, object] = {"method": "toy", "model": "toy", "embedding": "clipscore"}
    settings |= {"trained": trained, "prompts": list(PROMPTS), "images": 2, "steps": 3, "guidance": 2.0}
    journal.about = {**settings, **about}
    for step in next(iter(scores.values())):
        rows = []
        for seed in range(4):
            file = image_file(step, seed)
            (journal.folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (step, seed, 0)).save(journal.folder / file)
            values = {name: float(table[step][seed // 2]) for name, table in scores.items()}
            statistics = dict.fromkeys(STATISTICS, step / 100)
            if diversity:
                statistics["diversity"] = diversity[step][seed // 2]
            rows.append({"step": step, "prompt": PROMPTS[seed // 2], "seed": seed, "file": file})
            rows[-1] |= {"scores": values, "statistics": statistics}
        journal.add(step, rows)
    return run


def monitor(*arguments: object) -> int:
    return cli.main(["monitor", *map(str, arguments)])


def test_a_run_that_over_optimises_is_shown_in_words_curves_and_images(tmp_path, capsys):
    run, page = make(tmp_path / "run", {"trained": TRAINED, "hpsv2.1": FALLS}), tmp_path / "out" / "page.html"
    assert monitor(run, "-o", page) == 0
    words = (
        "over-optimised at step 20: held-out hpsv2.1 fell 2 (0.71 base-std) below its best of step 10, "
        "beyond the threshold of 0.2828, while the trained reward rose from 2 to 3; usable reward: 2"
    )
    assert f"{run}: {words}." in capsys.readouterr().out
    html = page.read_text()
    shown = Page(html)
    assert not shown.open and words in shown.text
    assert not {"link", "iframe"} & {name for name, _ in shown.tags}
    assert shown.scripts == [OUR_SCRIPT]
    assert "http:" not in html and "https:" not in html and "url(" not in html
    images = [np.asarray(decoded(image["src"]))[0, 0].tolist() for image in shown.all("img")]
    assert images == [[step, seed, 0] for seed in (0, 2) for step in (0, 10, 20)]
    assert "base; best, step 10; last, step 20" in shown.text
    numbers = json.loads(page.with_suffix(".json").read_text())[str(run)]
    assert numbers["fired"]["usable"] == 2 and numbers["fired"]["best_step"] == 10
    assert numbers["steps"] == [0, 10, 20] and numbers["trained"] == "pickscore"


def test_diversity_that_falls_further_than_the_rewards_rise_is_found_by_their_mean(tmp_path, capsys):
    """+1 of 2.83 is .35 base-std, -.5 of .71 is -.71: the mean falls by .18, then by .35 from the base."""
    lost: Scores = {0: (0.5, 1.5), 10: (0.0, 1.0), 20: (-0.5, 0.5)}
    run = make(tmp_path / "run", {"trained": TRAINED, "hpsv2.1": RISES}, diversity=lost)
    monitor(run, "-o", tmp_path / "page.html")
    assert "over-optimised at step 10: held-out mean of all fell 0.1768" in capsys.readouterr().out
    fired = json.loads((tmp_path / "page.json").read_text())[str(run)]["fired"]
    assert (fired["reward"], fired["best_step"], fired["usable"]) == ("mean of all", 0, 1)
    mean = charts(read(run))[0].curves[-1]
    assert mean.name == "mean of all" and mean.values == pytest.approx([0, -0.17678, -0.35355], abs=1e-5)


def test_a_run_that_does_not_over_optimise_says_so(tmp_path, capsys):
    run = make(tmp_path / "run", {"trained": TRAINED, "hpsv2.1": RISES})
    monitor(run, "-o", tmp_path / "page.html")
    said = "it takes 5 or more); up to step 20 the largest index is 0.00, of hpsv2.1 at step 0."
    assert said in capsys.readouterr().out
    assert json.loads((tmp_path / "page.json").read_text())[str(run)]["fired"] is None
    only = make(tmp_path / "statistics", {"trained": TRAINED})
    monitor(only, "-o", tmp_path / "page.html")
    assert "The hack index was not measured" in capsys.readouterr().out


def test_a_run_whose_own_reward_falls_is_said_to_diverge(tmp_path, capsys):
    """Both fall from 3 to 1 on average, alike for both prompts: nothing rises that could be hacked."""
    monitor(make(tmp_path / "run", {"trained": FALLS, "hpsv2.1": FALLS}), "-o", tmp_path / "page.html")
    found = capsys.readouterr().out
    assert "Too short to tell (measurements after the base: 2;" in found
    assert "trained reward itself lies 2 below its best of step 10: the run diverges; lower lr" in found
    monitor(make(tmp_path / "well", {"trained": RISES, "hpsv2.1": RISES}), "-o", tmp_path / "page.html")
    assert "diverges" not in capsys.readouterr().out


def test_rewards_are_drawn_in_units_of_the_base_s_spread_and_statistics_as_they_are(tmp_path):
    """Base means 0 and 4 have the standard deviation sqrt 8; 0 and 2 have sqrt 2."""
    run = make(tmp_path / "run", {"trained": TRAINED, "hpsv2.1": FALLS})
    first, *others = charts(read(run))
    own, held = first.curves
    assert own.name == "pickscore (trained on)" and own.values == pytest.approx([0, 2**-0.5, 2**0.5])
    assert held.name == "hpsv2.1" and held.values == pytest.approx([0, 8**-0.5, -(8**-0.5)])
    assert len(others) == len(CURVES)
    for chart in others:
        assert chart.curves[0].steps == [0, 10, 20] and chart.curves[0].values == pytest.approx([0, 0.1, 0.2])
    assert any("by clipscore" in chart.note for chart in others)


def test_no_curve_is_lost_for_want_of_a_colour_and_a_flat_base_is_named(tmp_path):
    flat: Scores = {0: (1.0, 1.0), 10: (2.0, 2.0), 20: (3.0, 3.0)}
    many = {f"reward-{i}": RISES for i in range(len(COLOURS))}
    run = make(tmp_path / "run", {"trained": TRAINED, **many, "flat": flat})
    shown = [chart for chart in charts(read(run)) if chart.title == "Rewards"]
    assert [len(chart.curves) for chart in shown] == [len(COLOURS), 2]  # the last two: one reward, the mean
    assert all("scores all prompts alike: flat" in chart.note for chart in shown)


def test_trained_on_tested_on(tmp_path, capsys):
    """All prompts change alike, so every interval has zero width: 2 of sqrt 2, 2 of sqrt 8, -1 of sqrt 8."""
    one = make(tmp_path / "one", {"trained": TRAINED, "hpsv2.1": FALLS})
    two = make(tmp_path / "two", {"trained": RISES, "aesthetic": RISES}, trained="hpsv2.1")
    page = tmp_path / "page.html"
    assert monitor(one, two, "-o", page) == 0
    cells = json.loads(page.with_suffix(".json").read_text())
    first, second = (cells[str(run)]["change"] for run in (one, two))
    assert list(first) == ["pickscore", "hpsv2.1"] and list(second) == ["hpsv2.1", "aesthetic"]
    assert first["pickscore"]["base_std_units"]["mean"] == pytest.approx(2**0.5)
    assert first["pickscore"]["trained_on"] and second["hpsv2.1"]["trained_on"]
    assert first["hpsv2.1"]["base_std_units"]["ci95"] == pytest.approx([-(8**-0.5)] * 2)
    assert first["hpsv2.1"]["raw"]["mean"] == -1 and not first["hpsv2.1"]["trained_on"]
    assert second["hpsv2.1"]["base_std_units"]["mean"] == pytest.approx(2 / 8**0.5)
    text = Page(page.read_text())
    own = [attributes for attributes in text.all("td") if attributes.get("class") == "own"]
    assert len(own) == 2 and len(text.all("td")) == 6, "a cell a reward, empty where it was not tested"
    assert "1.414 [1.414, 1.414] (trained on)" in text.text and "-0.354 [-0.354, -0.354]" in text.text


def test_a_change_has_no_unit_where_the_base_scores_all_alike(tmp_path):
    flat: Scores = {0: (1.0, 1.0), 10: (2.0, 2.0)}
    run = make(tmp_path / "run", {"hpsv2.1": flat}, trained=None)
    monitor(run, "-o", tmp_path / "page.html")
    change = json.loads((tmp_path / "page.json").read_text())[str(run)]["change"]["hpsv2.1"]
    assert change["base_std_units"] is None and change["raw"]["mean"] == 1
    assert "1.000 [1.000, 1.000] in its own units" in Page((tmp_path / "page.html").read_text()).text


def test_a_step_that_is_still_being_written_is_passed_over(tmp_path):
    run = make(tmp_path / "run", {"trained": TRAINED, "hpsv2.1": RISES})
    file = run / "monitor" / "scores.jsonl"
    rows = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(rows[:-2]) + rows[-2][:40])
    assert read(run).steps == [0, 10]
    assert monitor(run, "-o", tmp_path / "page.html") == 0


def test_users_errors_are_one_line(tmp_path, capsys):
    run = make(tmp_path / "run", {"trained": TRAINED, "hpsv2.1": RISES})
    other = make(tmp_path / "other", {"trained": TRAINED}, prompts=["a cat", "a fish"])
    page = str(tmp_path / "page.html")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([tmp_path / "empty", "-o", page], "empty/monitor/scores.jsonl; expected the output of a run with a"),
        ([run, other, "-o", page], "other, whose monitor has other prompts than that of"),
        ([run, run, "-o", page], "got a run twice"),
        ([run, "-o", str(tmp_path / "page.json")], "expected a name that ends in .html"),
    ):
        assert words in fails(capsys, "monitor", *map(str, arguments))
    assert not Path(page).exists()
    (run / "monitor" / image_file(0, 2)).unlink()
    assert "step-000000/00002.png" in fails(capsys, "monitor", str(run), "-o", page)


DAMAGE = {
    "statistics are text": {"statistics": {"diversity": "x"}},
    "scores are a list": {"scores": [1]},
    "scores of another reward": {"scores": {"other": 1.0}},
    "no prompt": {"prompt": None},
    "step is a truth": {"step": True},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_row_that_no_monitor_wrote_is_one_line(tmp_path, name):
    file = make(tmp_path / "run", {"clipscore": FALLS}) / "monitor" / "scores.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[5] |= DAMAGE[name]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"scores\.jsonl.*; correct it") as error:
        Journal(tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("about", [None, {}, {"prompts": "a", "images": 2}, {"prompts": ["a"], "images": 0}])
def test_without_what_the_rows_were_measured_with_they_are_not_thrown_away(tmp_path, about):
    folder = make(tmp_path / "run", {"clipscore": FALLS}) / "monitor"
    before = (folder / "scores.jsonl").read_bytes()
    (folder / "about.json").unlink()
    if about is not None:
        (folder / "about.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"about\.json, which is missing or damaged; .*remove .* anew"):
        Journal(tmp_path / "run").cut(20)
    assert (folder / "scores.jsonl").read_bytes() == before
