"""t2ialign evaluate: known scores come out as known means, against a baseline as known differences."""

import json
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from t2ialign.cli import main as cli
from t2ialign.cli.evaluate import BROKEN
from t2ialign.io import jsonl, manifest

REWARD = """
from rewards import Reward

class Redness(Reward):
    def score(self, images, prompts):
        return images[:, 0].mean((1, 2))

    def category(self, prompt):
        return prompt.split()[0]

def build():
    return Redness()
"""
NAME = "our_rewards_for_test.redness"


@pytest.fixture(autouse=True)
def reward_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "our_rewards_for_test").mkdir()
    (tmp_path / "our_rewards_for_test" / "redness.py").write_text(REWARD)
    monkeypatch.syspath_prepend(tmp_path)


def make(folder: Path, reds: dict[str, list[int]], seed: int = 0) -> Path:
    """A sample folder with plain images: prompt -> the red value (0 .. 255) of each of its images."""
    folder.mkdir()
    rows = [(prompt, red) for prompt, values in reds.items() for red in values]
    for i, (_, red) in enumerate(rows):
        Image.new("RGB", (4, 4), (red, 0, 0)).save(folder / f"{i}.png")
    jsonl.append(
        folder / manifest.NAME,
        [{"file": f"{i}.png", "prompt": prompt, "seed": seed + i} for i, (prompt, _) in enumerate(rows)],
    )
    return folder


def evaluate(source: Path, *more: str) -> int:
    return cli.main(["evaluate", str(source), "--reward", NAME, *more])


def result(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    loaded: dict[str, dict[str, dict[str, float]]] = json.loads((folder / "evaluation.json").read_text())
    return loaded


def test_means_by_category_and_paired_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = make(tmp_path / "after", {"cat one": [255, 255], "cat two": [255, 0], "dog one": [51, 51]})
    before = make(tmp_path / "before", {"cat one": [204, 204], "cat two": [204, 0], "dog one": [51, 51]})
    assert evaluate(after, "--baseline", str(before)) == 0
    found = result(after)
    assert found["scores"]["all"]["mean"] == pytest.approx((3 + 0.4) / 6)
    assert found["scores"]["cat"]["mean"] == pytest.approx(0.75)
    assert found["baseline"]["cat"]["mean"] == pytest.approx(0.6)
    assert found["difference"]["cat"]["mean"] == pytest.approx(0.15)
    low, high = cast(list[float], found["difference"]["cat"]["ci95"])
    assert (low, high) == (pytest.approx(0.1), pytest.approx(0.2)), (
        "two prompts: the means are .1, .15 and .2"
    )
    assert found["difference"]["dog"] == {"mean": 0.0, "ci95": None, "count": 2, "prompts": 1}
    assert found["difference"]["all"]["count"] == 6
    out = capsys.readouterr().out
    assert "0.150 [0.100, 0.200]" in out
    page = (after / "evaluation.html").read_text(encoding="utf-8")
    assert f"images, prompts and distribution: {after / 'evaluation.html'}" in out.splitlines()
    assert "0.150 [0.100, 0.200]" in page and page.count("<img") == 2 * 3, "three images rise, none falls"


def test_oracle_rates_are_shown_in_per_cent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "blank", {"a red circle": [0], "two blue squares": [0]})
    assert cli.main(["evaluate", str(folder), "--reward", "toy-oracle"]) == 0
    out = capsys.readouterr().out
    assert "per cent" in out and "attribute" in out and "count" in out
    assert result(folder)["scores"]["all"]["mean"] == 0


def test_a_broken_image_is_counted_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = make(tmp_path / "after", {"cat one": [255, 255], "cat two": [255, 255]})
    before = make(tmp_path / "before", {"cat one": [0, 0], "cat two": [0, 0]})
    (after / "1.png").write_bytes((after / "1.png").read_bytes()[:30])
    (before / "2.png").unlink()
    assert evaluate(after, "--baseline", str(before)) == BROKEN == 3
    found = result(after)
    assert found["errors"] == 2
    assert (found["scores"]["all"]["mean"], found["scores"]["all"]["count"]) == (1.0, 3)
    assert (found["difference"]["all"]["mean"], found["difference"]["all"]["count"]) == (1.0, 2)
    out = capsys.readouterr().out
    assert "1.png" in out and "2.png" in out and "2 images could not be scored" in out
    errors = [row for row in jsonl.read(after / "scores.jsonl") if "error" in row]
    assert [row["file"] for row in errors] == ["1.png"]


def test_nothing_but_broken_images_has_no_mean(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", {"cat": [255]})
    (folder / "0.png").write_bytes(b"")
    assert evaluate(folder) == 3
    assert result(folder)["scores"] == {}


def test_results_are_never_overwritten_and_a_resume_repeats_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "x", {"cat one": [255, 0], "cat two": [51, 0]})
    assert evaluate(folder / manifest.NAME) == 0
    first = (folder / "evaluation.json").read_bytes()
    capsys.readouterr()
    assert evaluate(folder) == 2
    assert "scores with --resume latest, or choose another --output" in capsys.readouterr().err
    assert evaluate(folder, "--resume", "latest") == 0
    again = json.loads((folder / "evaluation.json").read_bytes())
    assert again | {"source": None} == json.loads(first) | {"source": None}
    assert evaluate(folder, "--output", str(tmp_path / "other")) == 0
    assert result(tmp_path / "other")["scores"] == again["scores"]


def test_a_baseline_of_other_seeds_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after, before = (make(tmp_path / str(seed), {"cat": [9, 9]}, seed) for seed in (0, 100))
    assert evaluate(after, "--baseline", str(before)) == 2
    assert "shares no prompt and seed" in capsys.readouterr().err
    assert not (after / "evaluation.json").exists()


def test_a_resume_never_takes_scores_of_another_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both folders hold 0.png of the same prompt and seed, as base and aligned samples do."""
    base, aligned, out = (tmp_path / name for name in ("base", "aligned", "out"))
    make(base, {"cat": [0, 0]})
    make(aligned, {"cat": [255, 255]})
    assert evaluate(base, "--output", str(out)) == 0
    assert evaluate(aligned, "--output", str(out), "--resume", "latest") == 2
    assert "got source ../aligned/manifest.jsonl for" in (err := capsys.readouterr().err)
    assert "holds scores with source ../base/manifest.jsonl" in err
    assert result(out)["scores"]["all"]["mean"] == 0
    assert evaluate(base, "--baseline", str(aligned), "--output", str(out), "--resume", "latest") == 0
    assert result(out)["difference"]["all"]["mean"] == -1
    more = ["--baseline", str(make(tmp_path / "third", {"cat": [51, 51]})), "--output", str(out)]
    assert evaluate(base, *more, "--resume", "latest") == 2
    assert "got baseline ../third/manifest.jsonl" in capsys.readouterr().err
    assert evaluate(base, "--output", str(out), "--resume", "latest") == 2, (
        "the baseline would be left behind"
    )


def test_a_command_that_failed_before_scoring_leaves_no_claim(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", {"cat": [255]})
    assert cli.main(["evaluate", str(folder), "--reward", "shapes-orcale"]) == 2
    assert evaluate(folder) == 0


@pytest.mark.parametrize("doubled", ["source", "baseline"])
def test_images_that_cannot_be_told_apart_are_not_paired(
    doubled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {name: make(tmp_path / name, {"cat": [0, 255]}) for name in ("source", "baseline")}
    rows = jsonl.read(folders[doubled] / manifest.NAME)
    jsonl.rewrite(folders[doubled] / manifest.NAME, [row | {"seed": None} for row in rows])
    assert evaluate(folders["source"], "--baseline", str(folders["baseline"])) == 2
    assert f"more than one image of prompt 'cat' and seed None in the {doubled}" in capsys.readouterr().err
    assert not (folders["source"] / "scores.jsonl").exists(), "said before anything is scored"


def test_a_prompt_the_oracle_cannot_judge_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "x", {"a portrait of a lady": [9]})
    assert cli.main(["evaluate", str(folder), "--reward", "toy-oracle"]) == 2
    err = capsys.readouterr().err
    assert "t2ialign: error: got caption 'a portrait of a lady'" in err and "Traceback" not in err
