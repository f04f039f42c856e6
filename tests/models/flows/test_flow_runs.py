"""Runs on the flow families: a resume and a second process change nothing."""

from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from t2ialign.methods.dpo import trainer as dpo
from tests.models.flows.tiny_flows import FLOWS
from tests.training import recorded
from tests.training.helpers import assert_same_checkpoint, numbers
from tests.training.test_processes import launch

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.rest]
SETTINGS: dict[str, Any] = {
    **{"accumulate": 1, "lora_rank": 4, "lr": 3e-4, "resolution": 32, "limit": 8, "holdout": 0},
    **{"beta": 100, "checkpoint_every": 2, "ema": 0.9, "trackers": ()},
}


@pytest.fixture(scope="module", params=FLOWS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny model of the family."""
    folder = tmp_path_factory.mktemp(request.param)
    FLOWS[request.param]().save_pretrained(folder)
    return folder


def test_a_resumed_run_is_the_uninterrupted_one(model: Path, pair_folder: Path, tmp_path: Path) -> None:
    common = {"model": str(model), "data": str(pair_folder), "batch_size": 2, **SETTINGS}
    for name, parts in (("whole", (4,)), ("resumed", (2, 4))):
        for steps in parts:
            values = {**common, "output": tmp_path / name, "max_steps": steps, "resume": "latest"}
            dpo.Trainer(dpo.Config.model_validate(values)).fit()
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "resumed")
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "resumed")


def test_two_processes_equal_one(model: Path, pair_folder: Path, tmp_path: Path) -> None:
    values = {**SETTINGS, "model": model, "data": pair_folder, "max_steps": 3, "trackers": "[]"}
    settings = [f"{name}={value}" for name, value in values.items()]
    recorded.record("dpo", *settings, "batch_size=4", f"output={tmp_path / 'one'}")
    done = launch("tests.training.recorded", "dpo", *settings, "batch_size=2", f"output={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    for one, two in zip(numbers(tmp_path / "one"), numbers(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=5e-3, abs=1e-4)
    left, right = (load_file(tmp_path / name / "gradients.safetensors") for name in ("one", "two"))
    assert left.keys() == right.keys()
    for name, gradient in left.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(gradient, right[name], rtol=5e-3, atol=2e-3 * scale, msg=name)


def test_a_bf16_base_gets_an_fp32_lora_and_loses_its_encoders(
    model: Path, pair_folder: Path, tmp_path: Path
) -> None:
    values = {**SETTINGS, "model": str(model), "data": str(pair_folder), "batch_size": 2, "precision": "bf16"}
    trainer = dpo.Trainer(dpo.Config.model_validate({**values, "output": tmp_path, "max_steps": 2}))
    assert not [part for part in trainer.policy.components if part.startswith(("text_encoder", "vae"))]
    trained = trainer.state.trained
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    base = [p for p in trainer.policy.adapted.parameters() if not p.requires_grad]
    assert sum(p.numel() for p in base if p.dtype != torch.bfloat16) < 0.01 * sum(p.numel() for p in base)
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    trainer.fit()
    assert all(isfinite(row["loss"]) for row in numbers(tmp_path)) and numbers(tmp_path)
    assert any(not torch.equal(weight, before[name]) for name, weight in trained.items())
