"""A reward that fails in training: one line that names the row of the file with its prompt."""

from pathlib import Path

import pytest

from t2ialign.cli import main as cli

REWARD = """
import torch
from rewards import Reward

class Picky(Reward):
    def score(self, images, prompts):
        scores = images.mean((1, 2, 3))
        if "two blue squares" in prompts:
            {fails}
        return scores
"""
WAYS = {
    "raise KeyError('blue')": "got KeyError ('blue') from Picky.score for 'two blue squares'",
    "return None": "'two blue squares': got a NoneType from Picky.score",
    "return scores / torch.tensor([len(p) - 16.0 for p in prompts])": "got a score of inf from",
}


@pytest.mark.rest
@pytest.mark.parametrize("fails", WAYS)
@pytest.mark.parametrize("method", ["backprop", "dense"])
def test_the_line_of_the_prompt_is_named(tmp_path: Path, monkeypatch, capsys, method, fails):
    monkeypatch.chdir(tmp_path)
    Path("picky.py").write_text(REWARD.format(fails=fails))
    Path("prompts.txt").write_text("\na red circle\ntwo blue squares\n")
    words = (
        "prompts=prompts.txt",
        "output=run",
        "reward=./picky.py:Picky",
        "model=toy",
        "num_inference_steps=2",
    )
    size = (
        ("batch_size=2",)
        if method == "backprop"
        else ("collect_prompts=2", "rollouts=2", "keep=2", "batch_size=2")
    )
    assert cli.main(["train", method, *words, *size, "max_steps=1"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("t2ialign: error")]
    assert f"prompts.txt line 3: {WAYS[fails]}" in line
