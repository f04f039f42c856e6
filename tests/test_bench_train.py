"""The script that times training steps, small: all sides have one loss, and which rows come out."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from scripts import bench_train
from scripts.bench_models import MODELS
from scripts.bench_variants import VARIANTS

pytestmark = pytest.mark.rest


@pytest.mark.parametrize("model", MODELS)
def test_all_sides_have_one_loss(model: str, tmp_path: Path) -> None:
    """For the same latents: those of the other side are the means of what the cache draws from."""
    args = argparse.Namespace(resolution=64, rows=2, small=True, device="cpu")
    sides = bench_train.Sides(args, model, tmp_path)
    with torch.no_grad():
        for name, weight in sides.trainer.state.trained.items():
            if "lora_B" in name:
                weight.add_(3.0)
    ours = sides.ours()
    torch.testing.assert_close(sides.again(), ours)
    torch.testing.assert_close(sides._loss(sides.batch), ours, rtol=1e-3, atol=1e-3)
    assert sides.research().isfinite()
    assert ours.item() != pytest.approx(0.6931, abs=1e-4)


def test_every_row_comes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    small = ["--small", "--resolution", "64", "--repeats", "1", "--models", "sd15,sd35"]
    assert bench_train.main(["--device", "cpu", *small, "-o", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == 2 * 5 and "our step / the research script's" in capsys.readouterr().out
    held = [row["value"] for row in rows if "megabytes" in row["figure"]]
    assert held[0] < held[1] < held[2]
    with pytest.raises(SystemExit):
        bench_train.main(["--models", "sd9"])


QUICK = {name: change for name, change in VARIANTS.items() if name != "compiled"}
"""Compiling takes minutes, however small the model."""


def test_variants_are_timed_beside_the_step_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "VARIANTS", QUICK)
    file = tmp_path / "bench.json"
    small = ["--small", "--resolution", "64", "--repeats", "1", "--models", "sd15,sd35", "--variants"]
    assert bench_train.main(["--device", "cpu", *small, "-o", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    names = [row["figure"].removeprefix("our step, ").removesuffix(" / as it is") for row in rows]
    assert names == 2 * list(QUICK) and min(row["value"] for row in rows) > 0


def test_variants_have_the_loss_of_the_step_as_it_is(tmp_path: Path) -> None:
    args = argparse.Namespace(resolution=64, rows=2, small=True, device="cpu")
    losses = []
    for name, change in {"plain": lambda trainer: None, **QUICK}.items():
        torch.manual_seed(0)  # the weights of each are drawn anew
        sides = bench_train.Sides(args, "sd15", tmp_path / name)
        change(sides.trainer)
        sides.step(sides.ours)
        losses.append(sides.ours().detach())
    torch.testing.assert_close(torch.stack(losses), losses[0].expand(len(losses)), rtol=1e-3, atol=1e-5)
