"""How often a training step waits for the device: once, when its metrics are read.

Nothing waits on a CPU, so that tensors of the device are told from others here: network weights, and all that
is computed of them. What reads such a tensor's numbers would wait for a GPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from t2ialign.methods.backprop import trainer as backprop
from t2ialign.methods.dpo import trainer as dpo

READS = ("tolist", "numpy", "cpu")
WAITING = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.masked_select.default")


class OnDevice(TorchDispatchMode):
    """Marks what is computed of marked tensors, and counts what reads their numbers."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self.marked = WeakTensorKeyDictionary()
        self.waits: list[str] = []
        self.mark(tensors)

    def mark(self, tree: Any) -> None:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor):
                self.marked[leaf] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) and leaf in self.marked for leaf in tree_leaves((args, kwargs))):
            if str(func) in WAITING:
                self.waits.append(str(func))
            self.mark(out)
        return out


@contextmanager
def counting(mode: OnDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reads by methods that never reach the dispatcher are counted too."""

    def noted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self in mode.marked:
                mode.waits.append(name)
            return method(self, *args, **kwargs)

        return read

    with monkeypatch.context() as patch, mode:
        for name in READS:
            patch.setattr(Tensor, name, noted(name, getattr(Tensor, name)))
        yield


def waits(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What waits for the device in one update, once the optimiser has its state."""
    trainer.update({})
    mode = OnDevice([*trainer.policy.adapted.parameters(), *trainer.state.parameters])
    with counting(mode, monkeypatch):
        trainer.update({})
    return mode.waits


@pytest.mark.parametrize("draws", [0, 2])
def test_dpo(
    draws: int, pair_folder: Path, tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "data": str(pair_folder),
        "model": str(tiny_sd),
        "output": tmp_path,
        "trackers": (),
        "holdout": 0,
    }
    values |= {"batch_size": 4, "accumulate": 2, "lora_rank": 2, "limit": 16, "noise_draws": draws}
    trainer = dpo.Trainer(dpo.Config.model_validate(values))
    assert waits(trainer, monkeypatch) == ["tolist"]


def test_backprop_waits_where_a_reward_checks_what_it_sees_and_gives(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"prompts": "a red circle", "model": str(tiny_sd), "output": tmp_path, "trackers": ()}
    values |= {"batch_size": 2, "accumulate": 1, "lora_rank": 2, "reward": "tests.training.redness"}
    values |= {"num_inference_steps": 4}
    trainer = backprop.Trainer(backprop.Config.model_validate(values))
    *checks, last = waits(trainer, monkeypatch)
    assert last == "tolist" and len(checks) <= 4  # the range of images, and that scores are finite
