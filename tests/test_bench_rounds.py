"""The script that times rounds, small: what each pattern encodes and scores, and which rows come out."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from scripts import bench_train
from scripts.bench_parts import Counted
from scripts.bench_rounds import Remote, Sides

pytestmark = pytest.mark.rest


def test_patterns_differ_in_what_is_encoded_and_scored_and_not_in_what_they_make(tmp_path: Path) -> None:
    sides = Sides(argparse.Namespace(device="cpu", small=True, resolution=64), "toy", tmp_path)
    encode, score = Counted(sides.policy.encode_prompts), Counted(sides.judge._score)
    vars(sides.policy)["encode_prompts"], vars(sides.judge)["_score"] = encode, score
    made = {}
    for name, begin in {"ours": sides.begin, "after": sides.after, "released": sides.released}.items():
        before = (encode.calls, score.calls)
        states, waiting = begin(0, range(4))
        made[name] = (states, waiting())
        calls = (encode.calls - before[0], score.calls - before[1])
        assert calls == {"ours": (0, 1), "after": (0, 1), "released": (1, 4)}[name]
    assert torch.equal(made["ours"][0], made["after"][0]) and torch.equal(made["ours"][1], made["after"][1])
    assert made["released"][0].shape == made["ours"][0].shape == (4, 4, 4, 8, 8)
    assert made["released"][1].shape == made["ours"][1].shape == (1, 4)
    assert made["released"][1].isfinite().all()


def test_a_round_by_each_pattern_is_one_update(tmp_path: Path) -> None:
    sides = Sides(argparse.Namespace(device="cpu", small=True, resolution=64), "toy-flow", tmp_path)
    for number, begin in enumerate((sides.begin, sides.released), 1):
        sides.round(begin)
        assert sides.trainer.state.step == number


def test_a_remote_reward_scores_by_the_pixels() -> None:
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(Remote(0.01)(images, ["", ""]), images.mean((1, 2, 3)))


def test_every_row_comes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    small = ["--small", "--resolution", "64", "--repeats", "1", "--models", "sd15", "--rounds"]
    assert bench_train.main(["--device", "cpu", *small, "-o", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    shares = [row["value"] for row in rows if row["figure"].startswith("share of a round")]
    assert len(rows) == 7 and sum(shares) == pytest.approx(1)
    assert min(row["value"] for row in rows) >= 0
    assert "images a second of a round, ours / released" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench_train.main(["--models", "toy"])
