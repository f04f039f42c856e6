"""The smallest real trainer, denoising of fixed latents, for tests of the loop; runs from the shell too.

python -m tests.training.toy MODEL key=value ...

In the environment, KILL_AT=step,micro,signal sends that signal to itself (to process KILL_RANK of several) at
the start of that micro-step, and KILL_IN_SAVE=1 ends it within the first checkpoint that is due.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from t2ialign import config
from t2ialign.diffusion.noise import normal_rows, uniform_rows
from t2ialign.training import base


class Config(base.TrainConfig):
    """Settings of the toy."""

    FREE: ClassVar[frozenset[str]] = base.TrainConfig.FREE

    poison: int = -1
    """At this step the loss is NaN."""


class Trainer(base.Trainer[Config, tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]]):
    method = "toy"

    def setup(self) -> None:
        self.cond = self.policy.encode_prompts(["a red circle"])
        if os.environ.get("KILL_IN_SAVE") == "1":  # weights are written by then, the checkpoint is not whole
            self.state.export = self.die_at(self.cfg.checkpoint_every)  # type: ignore[method-assign, assignment]

    def die_at(self, step: int) -> Callable[[Path], Path]:
        export = self.state.export

        def die(folder: Path) -> Path:
            if self.state.step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return export(folder)

        return die

    def batch(self, step: int, micro: int) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        kill_at(step, micro)
        keys = [(self.cfg.seed, step, row) for row in self.rows(micro)]
        shape = self.policy.latent_shape(*self.policy.native_size)
        x_0 = normal_rows(shape, [(*key, 0) for key in keys])
        t = (uniform_rows([(*key, 1) for key in keys]) * 1000).long()
        cond = {name: value.expand(len(keys), *value.shape[1:]) for name, value in self.cond.items()}
        return x_0, normal_rows(shape, [(*key, 2) for key in keys]), t, cond

    def loss(
        self, batch: tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        losses = self.policy.residual(*batch).square().flatten(1).mean(1)
        if self.state.step == self.cfg.poison:
            losses = losses * torch.nan
        return losses, {"first_t": batch[2].float()}

    def evaluate(self) -> dict[str, float]:
        total = sum(float(p.double().abs().sum()) for p in self.state.parameters)
        return {"heldout/weights": total}


def kill_at(step: int, micro: int) -> None:
    """Send this process a signal at the step and micro-step that KILL_AT names."""
    where = os.environ.get("KILL_AT")
    here = os.environ.get("RANK", "0") == os.environ.get("KILL_RANK", "0")
    if here and where and where.split(",")[:2] == [str(step), str(micro)]:
        os.kill(os.getpid(), int(where.split(",")[2]))


def main(arguments: list[str]) -> None:
    try:
        Trainer(config.load(Config, None, [f"model={arguments[0]}", *arguments[1:]])).fit()
    finally:
        print(f"process group left: {torch.distributed.is_initialized()}")


if __name__ == "__main__":
    main(sys.argv[1:])
