"""The monitor within a run: the main process measures, all of them heed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from t2ialign.evaluation.hack_index import words
from t2ialign.trainers.monitor import Monitor

if TYPE_CHECKING:
    from t2ialign.trainers.base import Trainer


class Watch:
    """What the loop calls, on every process; `monitor` is None on all but the main one, and if not asked for.

    trainer: after its `setup`. Raises ValueError like `Monitor`.
    """

    def __init__(self, trainer: Trainer[Any, Any]) -> None:
        self.cfg, self.accelerator, self.state = trainer.cfg, trainer.accelerator, trainer.state
        self.log, self.save, self.write = trainer.log, trainer.save_once, trainer.result
        self.monitor: Monitor | None = None
        if self.cfg.monitor_prompts is not None and self.accelerator.is_main_process:
            reward = trainer.trained_reward
            self.monitor = Monitor(self.cfg, trainer.policy, method=trainer.method, trained=reward)

    @property
    def prompts(self) -> list[str]:
        """Those it samples on this process."""
        return self.monitor.prompts if self.monitor else []

    def open(self) -> bool:
        """Take up what was measured before, and say what cannot be -> whether the run was ended then."""
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
        """Export the weights if they are the best so far by the reward that was asked for."""
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
        flag = torch.tensor(float(fired is not None), device=self.accelerator.device)
        ends = bool(self.accelerator.reduce(flag, "sum") > 0)
        if ends:
            self.log.say(
                f"ended by the monitor after step {self.state.step} of {self.cfg.max_steps}; to go on add "
                "resume=latest stop_on_hack=false to the same command"
            )
        return ends
