"""The script that times shared forwards, small: which rows come out and what it counts; never how fast."""

import json

import pytest
import torch

from scripts import bench_lpo

pytestmark = pytest.mark.rest


@pytest.fixture
def found(tmp_path, capsys):
    """The rows of a small run by their figures."""
    file = tmp_path / "bench.json"
    small = ["--rows", "2", "--prompts", "2", "--steps", "3", "--repeats", "1"]
    assert bench_lpo.main(["--device", "cpu", *small, "-o", str(file)]) == 0
    assert "shared forward / two of policy and reference" in capsys.readouterr().out
    return {row["figure"]: row["value"] for row in json.loads(file.read_text())["rows"]}


def test_bytes_and_text_forwards_are_counted(found):
    kept = {name: value for name, value in found.items() if "backward pass" in name}
    one, two = kept.values()
    assert one == pytest.approx(two / 2, rel=0.05)
    weights = [value for name, value in found.items() if "denoisers" in name]
    assert weights[1] == pytest.approx(2 * weights[0])
    assert found["prompts encoded before: unique prompts, and the empty one"] == 2
    assert found["prompts encoded within a roll-out"] == 0
    # 3 steps of 4 candidates, each of 2 prompts and one empty prompt.
    assert found["prompts encoded within a roll-out, at each step and candidate"] == 3 * 4 * (2 + 1)


def test_both_sides_have_one_loss(tmp_path):
    import argparse
    import copy

    args = argparse.Namespace(rows=2, prompts=2, steps=3)
    trainer = bench_lpo.made(args, tmp_path)
    batch, reference = trainer.batch(0, 0), copy.deepcopy(trainer.policy.adapted)
    with torch.no_grad():
        for name, weight in trainer.state.trained.items():
            if "lora_B" in name:
                weight.add_(0.02)
    ours = trainer.loss(batch)[0].mean()
    torch.testing.assert_close(ours, bench_lpo.four(trainer, batch, reference), rtol=1e-3, atol=1e-5)
