"""The monitor within a run: the main process measures, all of them heed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from t2ialign.evaluation.hack_index import words
from t2ialign.training.watch.monitor import Monitor

if TYPE_CHECKING:
    from t2ialign.training.log import Log
    from t2ialign.training.settings import TrainConfig
    from t2ialign.training.state import TrainState


class Watch:
    """What the loop calls, on every process; it has a monitor on the main one, where there is one at all.

    save: writes a checkpoint; write: the weights as users load them, into a folder.
    """

    def __init__(
        self,
        monitor: Monitor | None,
        cfg: TrainConfig,
        state: TrainState,
        log: Log,
        *,
        save: Callable[[], None],
        write: Callable[[Path], Path],
    ) -> None:
        self.monitor, self.cfg, self.state, self.log = monitor, cfg, state, log
        self.save, self.write = save, write

    @property
    def prompts(self) -> list[str]:
        """The prompts that this process samples."""
        return self.monitor.prompts if self.monitor else []

    def open(self) -> bool:
        """Continue the measurements of an earlier run -> whether the run was ended then."""
        if self.monitor is not None:
            self.monitor.open(self.state.step)
            for line in self.monitor.notes():
                self.log.note(f"monitor: {line}")
        return self._ends()

    def measure(self, row: dict[str, float]) -> bool:
        """Add the numbers of the served weights to `row` -> whether the run ends here."""
        if self.monitor is not None:
            before = self.monitor.fired
            with self.state.served():
                row |= self.monitor.measure(self.state.step)
            if self.monitor.fired is not None and before is None:
                self.log.say(words(self.monitor.fired))
        return self._ends()

    def keep_best(self) -> None:
        """Export the weights if they are the best so far by the reward of the setting keep_best."""
        if self.monitor is not None:
            self.monitor.keep_best(self.state.step, self.save, self.write)

    def facts(self) -> dict[str, object]:
        """Lines for the model card."""
        return self.monitor.facts() if self.monitor else {}

    def _ends(self) -> bool:
        """The main process decides; one number tells the others."""
        fired = self.monitor.fired if self.monitor else None
        if fired is not None:
            self.log.mark("over-optimised", f"since {fired.step}")
        if not self.cfg.stop_on_hack or self.state.step >= self.cfg.max_steps:
            return False
        flag = torch.tensor(float(fired is not None), device=self.log.accelerator.device)
        ends = bool(self.log.accelerator.reduce(flag, "sum") > 0)
        if ends:
            self.log.say(
                f"ended by the monitor after step {self.state.step} of {self.cfg.max_steps}; to go on add "
                "resume=latest stop_on_hack=false to the same command"
            )
        return ends
