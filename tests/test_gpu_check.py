"""The command for a GPU, on a CPU with tiny models: which rows come out; a part that fails is named."""

import json
from pathlib import Path

import pytest
import torch

from scripts import gpu_check

pytestmark = pytest.mark.rest
PARTS = "bf16,resume,dpo-sd35,lpo-sd15,backprop-sdxl,score-ViT-L-14-quickgelu"


def test_every_kind_of_part_gives_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "proofs" / "gpu.json"
    assert gpu_check.main(["--device", "cpu", "--small", "--only", PARTS, "-o", str(file)]) == 0
    result = json.loads(file.read_text())
    rows = {(row["figure"], row["on"]): row for row in result["rows"]}
    assert rows["resume: largest difference of a loss", "toy, dpo"]["value"] == 0
    for name in ("sd35, dpo", "sd15, lpo", "sdxl, backprop"):
        measured = [row["value"] for (_, on), row in rows.items() if on.startswith(name)]
        assert len(measured) == 3 and min(measured) > 0
    assert result["about"]["not measured"] == "nothing"
    assert "| images a second | ViT-L-14-quickgelu" in file.with_suffix(".md").read_text()


def test_a_part_that_fails_or_has_no_time_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(check: gpu_check.Check, name: str) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(gpu_check, "precision", broken)
    file = tmp_path / "gpu.json"
    assert gpu_check.main(["--device", "cpu", "--small", "--only", "bf16", "-o", str(file)]) == 1
    assert json.loads(file.read_text())["about"]["not measured"] == "bf16: CUDA error: out of memory"
    monkeypatch.setattr(gpu_check, "BUDGET", -1.0)
    assert gpu_check.main(["--device", "cpu", "--small", "--only", "resume", "-o", str(file)]) == 1
    assert json.loads(file.read_text())["about"]["not measured"] == "resume: no time was left"


def test_the_share_of_the_peak_is_known_for_data_centre_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    check = gpu_check.Check(torch.device("cuda"), False, Path())
    for name, peak in {"NVIDIA H200": 989.0, "NVIDIA A100-SXM4-80GB": 312.0, "NVIDIA T4": None}.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert check.peak == peak
