"""Runs a trainer and keeps the gradients of every update; alone or under accelerate launch.

python -m tests.training.recorded METHOD key=value ...
"""

import sys
from importlib import import_module

import torch
from safetensors.torch import save_file

from t2ialign import config


def record(method: str, *overrides: str) -> None:
    module = import_module(f"t2ialign.methods.{method}.trainer")
    trainer = module.Trainer(config.load(module.Config, None, overrides))
    state, gradients = trainer.state, {}

    def keep(*_: object) -> None:
        for name, p in state.trained.items():
            gradients[f"{state.step}/{name}"] = p.grad.clone()

    state.bare_optimizer.register_step_pre_hook(keep)
    trainer.fit()
    if trainer.accelerator.is_main_process:
        save_file(gradients, trainer.cfg.output / "gradients.safetensors")


def main(arguments: list[str]) -> None:
    record(*arguments)
    assert not torch.distributed.is_initialized(), "fit left the process group behind"


if __name__ == "__main__":
    main(sys.argv[1:])
