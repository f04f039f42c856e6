"""CONTRIBUTING.md tells the truth: its examples run as printed, and the names it points at exist."""

import re
import textwrap
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import rewards
from rewards.declared import declared_names
from t2ialign import objectives
from t2ialign.methods.dpo import trainer as dpo

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def example(starts: str) -> str:
    blocks = [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", TEXT, re.S)]
    (found,) = [block for block in blocks if block.startswith(starts)]
    return found


def test_the_reward_example_is_a_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "contributed").mkdir()
    file = tmp_path / "contributed" / "sharpness.py"
    file.write_text(example('"""Sharpness:'))
    monkeypatch.syspath_prepend(tmp_path)
    assert declared_names(file) == {"sharpness": {}, "sharpness-strict": {"power": 2.0}}
    reward = rewards.load("contributed.sharpness")
    step = torch.zeros(1, 3, 2, 5, requires_grad=True)
    with torch.no_grad():
        step[..., 3:] = 0.5
    assert reward(step, ["x"]).tolist() == [0.125], "one of four neighbours differs, by a half"
    reward(step, ["x"]).sum().backward()
    assert step.grad is not None and step.grad.any()
    assert rewards.load("contributed.sharpness", power=2.0)(step, ["x"]).tolist() == [0.0625]
    assert reward(torch.full((1, 3, 4, 4), 0.7), ["x"]).tolist() == [0.0]


def test_the_objective_example_is_an_objective() -> None:
    space: dict[str, Any] = {}
    exec(example('"""The exponential loss on'), space)
    r = torch.tensor([0.5, -2.0, 0.0])
    assert space["exponential"](r, r, beta=7.0).tolist() == [1.0, 1.0, 1.0]
    apart = space["exponential"](r + 1, r, beta=2.0) * space["exponential"](r, r + 1, beta=2.0)
    assert apart.tolist() == pytest.approx([1.0, 1.0, 1.0]), "swapping both sides gives the reciprocal"


def test_losses_are_the_words_of_the_loss_field() -> None:
    words = get_args(dpo.Config.model_fields["loss"].annotation)
    assert words == objectives.names()


def test_files_it_names_exist() -> None:
    names = re.findall(r"`((?:t2ialign|tests|rewards|scripts)/[\w/]+(?:\.\w+|/))`", TEXT)
    written = set(re.findall(r"[Ww]rite (?:the recipe )?`([\w./]+)`", TEXT))
    assert len(names) > 5 and len(written) >= 9
    assert not {name for name in names if not (ROOT / name).exists()} - written
