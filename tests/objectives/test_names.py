"""Losses are found by the names that their files declare, without an import of torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from t2ialign import config, objectives
from t2ialign.methods.dpo.config import Config
from t2ialign.objectives import preference


def test_names_are_functions_of_the_file_that_declares_them():
    assert {"dpo", "ipo", "hinge", "mapo"} <= set(objectives.names())
    assert "mapo" in objectives.names(objectives.ERRORS) and "dpo" in objectives.names(objectives.LOG_RATIOS)
    assert objectives.load("ipo") is preference.ipo
    win, lose = torch.tensor([0.5, -2.0]), torch.tensor([0.25, 1.0])
    for name in objectives.names():
        (kind,) = (kind for kind in objectives.INPUTS if name in objectives.names(kind))
        more = {
            objectives.ERRORS: {"T": 1000},
            objectives.TIES: {"tied": win > 0},
            objectives.MARGINS: {"margin": win},
        }.get(kind, {})
        assert objectives.load(name)(win, lose, beta=2.0, weight=0.5, **more).shape == (2,), name


def test_an_unknown_name_is_one_line_with_the_names_that_there_are():
    with pytest.raises(ValueError, match=r"got loss 'expo'; expected one of .*dpo, ipo, hinge, mapo.*; "):
        objectives.load("expo")
    with pytest.raises(ValueError, match=r"got 'expo'; expected .*'dpo', 'ipo', 'hinge'.*'mapo'") as told:
        config.load(Config, None, ["loss=expo", "data=pairs", "output=run"])
    assert "\n" not in str(told.value)


def test_inputs_that_no_trainer_gives_are_refused(tmp_path: Path):
    file = tmp_path / "square.py"
    file.write_text('"""Square."""\n\nNAMES = {"square": "scores"}\n', encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"got inputs 'scores' in NAMES of square.py; expected log-ratios or"
    ):
        objectives._literal(file)
    file.write_text('"""No loss that a setting names."""\n', encoding="utf-8")
    assert objectives._literal(file) == {}


def test_the_settings_know_the_losses_without_torch():
    code = "import sys, t2ialign.methods.dpo.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
