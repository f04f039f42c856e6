"""All that must survive a kill: trained weights, optimiser, moving average, loss scale and the step."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from t2ialign.training import checkpoint
from t2ialign.training.optim import learning_rate, make_optimizer
from t2ialign.training.output import check_same_model, check_same_run
from t2ialign.training.settings import LoopConfig
from t2ialign.version import __version__

log = logging.getLogger(__name__)


class Owner(Protocol):
    """The owner of the trained network, which calls it through `net`; that may be wrapped for processes."""

    net: nn.Module


OF_ALL = ("weights", "optimizer", "ema")
"""Tensors of the checkpoints of every method."""


class TrainState:
    """The trained weights with what trains them; `step` counts completed optimiser steps.

    trained: the weights by name, within `owner.net`. write: puts them into a folder as users load them ->
    the file; `often` says whether each checkpoint is to hold that too. wrap: whether several processes
    wrap the net; if not, gradients are averaged in `update`. identity: says which model it is where no
    setting does, in which precision and with which weights.
    """

    def __init__(
        self,
        cfg: LoopConfig,
        accelerator: Accelerator,
        owner: Owner,
        trained: Mapping[str, Tensor],
        write: Callable[[Path], Path],
        *,
        often: bool,
        wrap: bool = True,
        identity: Mapping[str, str] | None = None,
    ) -> None:
        self.cfg, self.accelerator, self.owner, self.step = cfg, accelerator, owner, 0
        self.trained: dict[str, Tensor] = dict(trained)
        self._write, self.often, self.identity = write, often, identity
        # Lists, made once: clipping over an iterator that is used up would clip nothing and say nothing.
        self.names, self.parameters = list(self.trained), list(self.trained.values())
        self.bare_optimizer = make_optimizer(cfg, self.parameters)
        # The net and not its owner: calls go through `owner.net`, so DDP's hooks see them.
        self.wrapped = wrap
        if wrap:
            owner.net, self.optimizer = accelerator.prepare(owner.net, self.bare_optimizer)
        else:
            self.optimizer = accelerator.prepare(self.bare_optimizer)
        self.ema = EMAModel(self.parameters, decay=cfg.ema) if cfg.ema else None
        self._lr = learning_rate(cfg)
        self._state_of_methods: dict[str, dict[str, Tensor]] = {}
        self._restored: dict[str, dict[str, Tensor]] = {}

    def keep(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Have checkpoints hold tensors that a method changes in place; of a resumed run they are set now."""
        self._state_of_methods[name] = tensors
        for key, value in self._restored.get(name, {}).items():
            tensors[key].copy_(value)

    @property
    def global_batch(self) -> int:
        """Rows per optimiser step, over all processes."""
        return self.cfg.batch_size * self.cfg.accumulate * int(self.accelerator.num_processes)

    def update(self) -> Tensor:
        """Clip, step the optimiser and the moving average -> the gradient's norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        if not self.wrapped:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        norm: Tensor = self.accelerator.clip_grad_norm_(self.parameters, self.cfg.max_grad_norm or torch.inf)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.parameters)
        return norm

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._lr(self.step)

    @contextmanager
    def unwrapped(self) -> Iterator[None]:
        """Within this block `owner.net` is the bare network: one process can run it while others do not."""
        net, self.owner.net = self.owner.net, self.accelerator.unwrap_model(self.owner.net)
        try:
            yield
        finally:
            self.owner.net = net

    @contextmanager
    def served(self) -> Iterator[None]:
        """Within this block the network has the weights that users get (the moving average if on)."""
        if self.ema is not None:
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)
        try:
            with torch.no_grad(), self.unwrapped():
                yield
        finally:
            if self.ema is not None:
                self.ema.restore(self.parameters)

    def save(self, root: Path) -> Path:
        """Write the checkpoint of this step under `root`; a small result lies in it as users load it."""
        tensors = {"weights": self.trained}
        tensors["optimizer"], numbers = checkpoint.pack_optimizer(self.bare_optimizer, self.names)
        if self.ema is not None:
            tensors["ema"] = dict(zip(self.names, self.ema.shadow_params, strict=True))
        tensors |= self._state_of_methods
        scaler = self.accelerator.scaler
        meta: dict[str, Any] = {
            "t2ialign": __version__,
            "global_batch": self.global_batch,
            "threads": torch.get_num_threads(),
            "optimizer": numbers,
            "ema_step": self.ema.optimization_step if self.ema is not None else 0,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "config": json.loads(self.cfg.model_dump_json()),
            "model": self.identity,
        }
        extra = self.export if self.often else None  # all weights would be there twice
        return checkpoint.save(root, self.step, tensors, meta, extra=extra)

    def restore(self, folder: Path) -> None:
        """Take everything up again from a checkpoint. Raises ValueError if it is of another run.

        Another number of threads is a warning on a CPU, whose sums are split over them.
        """
        saved = checkpoint.load(folder)
        check_same_run(saved.meta, self.cfg, self.global_batch)
        check_same_model(saved.meta.get("model"), self.identity)
        threads, before = torch.get_num_threads(), saved.meta.get("threads")
        if self.accelerator.device.type == "cpu" and before not in (None, threads):
            log.warning(
                "got %d threads on resume, and the checkpoint was written with %d: results may differ in the "
                "last bits; set OMP_NUM_THREADS=%d to go on bit for bit",
                *(threads, before, before),
            )
        checkpoint.copy_tensors(saved.tensors["weights"], self.trained, folder)
        checkpoint.unpack_optimizer(
            self.bare_optimizer, self.names, saved.tensors["optimizer"], saved.meta["optimizer"]
        )
        if self.ema is not None:
            shadow = dict(zip(self.names, self.ema.shadow_params, strict=True))
            checkpoint.copy_tensors(saved.tensors["ema"], shadow, folder)
            self.ema.optimization_step = saved.meta["ema_step"]
        if self.accelerator.scaler is not None and saved.meta["scaler"] is not None:  # precision may change
            self.accelerator.scaler.load_state_dict(saved.meta["scaler"])
        others = {name: some for name, some in saved.tensors.items() if name not in OF_ALL}
        self._restored = {  # copies: the file is to be let go
            name: {key: value.clone() for key, value in some.items()} for name, some in others.items()
        }
        self.step = saved.step

    def export(self, folder: Path) -> Path:
        """Write what users load, of the served weights -> its path."""
        with self.served():
            return self._write(folder)
