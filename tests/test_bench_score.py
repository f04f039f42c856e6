"""The script that times scoring, on tiny models: which rows come out and what it counts; never how fast."""

import json

import pytest

from scripts import bench_score
from scripts.bench_parts import Row, ratio, table

pytestmark = pytest.mark.rest


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a run of every measure writes."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    assert bench_score.main(["--small", "--device", "cpu", "--repeats", "1", "-o", str(path)]) == 0
    return json.loads(path.read_text())


def test_every_figure_of_every_measure_is_a_row(found):
    figures = [row["figure"] for row in found["rows"]]
    assert [sum(name in figure for figure in figures) for name in ("files to table", "one by one")] == [3, 2]
    assert sum("TextNorm" in figure for figure in figures) == 4  # of two CLIPs, with new and known texts
    assert sum("load and score" in figure for figure in figures) == 1
    assert sum(figure.startswith("aesthetic and CLIPScore") for figure in figures) == 1
    assert sum(figure.endswith("seconds") for figure in figures) == 2
    assert sum("imscore's call" in figure for figure in figures) == 2
    assert len(figures) == 22 and found["about"]["threads"] > 0 and found["about"]["precision"] == "fp32"
    assert all(row["low"] <= row["value"] <= row["high"] and row["value"] >= 0 for row in found["rows"])
    assert all(len(row["seconds"]) == 2 for row in found["rows"] if "times as long" in row["figure"])


def test_what_is_counted(found):
    counts = {row["figure"]: row for row in found["rows"] if not row["seconds"]}
    assert counts["checkpoints read"]["value"] == 1  # in four calls
    assert counts["prompts tokenised again"]["value"] == 0
    assert "4 calls, 2 prompts" in counts["prompts tokenised again"]["on"]
    assert counts["image forwards for both"]["value"] == 1
    assert (counts["image forwards"]["value"], counts["text forwards"]["value"]) == (4, 1)
    for name in ("import rewards", "t2ialign score --help"):
        assert counts[f"{name}: imports of torch and diffusers"]["verdict"] == "holds"


def test_a_figure_is_the_median_of_the_ratios_of_a_round():
    times = {"slow": [2.0, 20.0, 12.0], "fast": [1.0, 10.0, 2.0]}  # 2, 2 and 6; of the medians it is 6
    row = ratio("figure", "here", times, "slow / fast", ">= 3.5")
    assert (row.value, row.low, row.high, row.verdict) == (2.0, 2.0, 6.0, "does not hold")
    assert row.seconds == {"slow": 12.0, "fast": 2.0}


def test_the_table_is_markdown():
    row = Row("figure", "here", 2.0, 1.5, 3.0, ">= 1.0", {"slow": 4.0, "fast": 2.0})
    head, empty, *lines = table({"device": "cpu", "rounds": 3}, [row]).splitlines()
    assert (head, empty) == ("device: cpu, rounds: 3", "")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["figure", "here", "2", "1.5 .. 3", ">= 1.0", "holds", "slow 4, fast 2"]
    assert [len(line) for line in cells] == [7, 7, 7] and set(cells[1]) == {"---"}


@pytest.mark.parametrize(
    ("target", "verdict"),
    [(">= 1.0", "holds"), ("<= 1.0", "holds"), (">= 1.1", "does not hold"), (None, "reported")],
)
def test_the_verdict_compares_with_the_target(target, verdict):
    assert Row("figure", "here", 1.0, 1.0, 1.0, target).verdict == verdict


def test_an_unknown_measure_is_an_error(capsys):
    with pytest.raises(SystemExit):
        bench_score.main(["--only", "end,speed"])
    assert "got speed; expected some of end,call" in capsys.readouterr().err


def test_no_image_is_an_error(capsys):
    with pytest.raises(SystemExit):
        bench_score.main(["--images", "0"])
    assert "expected at least 1" in capsys.readouterr().err
