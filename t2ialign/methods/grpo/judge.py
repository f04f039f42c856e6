"""Scores images in a thread of its own: the next images are sampled meanwhile, and one that hangs is left.

On a CPU a reward that computes would only take the sampler's cores, which is slower than one after the other
(docs/performance.md): there, scores of all but rewards that wait, for a server say, are waited for at once.

A score is never invented: a reward that fails is called again for the same images as often as the settings
say, and then the run stops.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from multiprocessing import TimeoutError as Late
from multiprocessing.pool import ThreadPool

import torch
from torch import Tensor

from rewards import Reward, score_all
from rewards.failures import check_finite

log = logging.getLogger(__name__)

IDLE = 0.1
"""The share of its time that a reward computes at most if it waits, for a server say; one that shares its
core with many others computes for more."""

Waiting = Callable[[], Tensor]
"""Waits for scores (R, B), in the order of the rewards, fp32 on the CPU. Raises ValueError."""


class Judge:
    """Scores by one or several rewards.

    timeout: seconds for one batch. retries: calls after a first one that failed.
    """

    def __init__(self, rewards: Mapping[str, Reward], *, timeout: float, retries: int) -> None:
        self.rewards, self.timeout, self.retries = dict(rewards), timeout, retries
        self.idle = False
        """Whether the last scoring spent its time waiting; the first one is taken to compute."""

    def begin(self, images: Tensor, prompts: list[str]) -> Waiting:
        """Start to score images (B, 3, H, W) in [0, 1] -> what waits for the scores."""
        thread = ThreadPool(1)  # a daemon: a reward that hangs does not hold the exit
        first = thread.apply_async(self._score, (images, prompts))
        patience = self.timeout
        if images.device.type == "cpu" and not self.idle:
            first.wait(self.timeout)
            patience = 0

        def wait() -> Tensor:
            attempt, limit = first, patience
            try:
                for left in range(self.retries, -1, -1):
                    try:
                        return attempt.get(timeout=limit)
                    except Late:
                        raise self._too_slow(prompts) from None  # it may hang again, and holds the images
                    except (ValueError, OSError) as error:
                        if not left:
                            raise
                        log.warning("scoring again after a failure: %s", error)
                        attempt, limit = thread.apply_async(self._score, (images, prompts)), self.timeout
            finally:
                thread.terminate()
            raise AssertionError("the last attempt returns or raises")

        return wait

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores (R, B) of images (B, 3, H, W) in [0, 1]. Raises ValueError if they cannot be had."""
        return self.begin(images, prompts)()

    @torch.no_grad()
    def _score(self, images: Tensor, prompts: list[str]) -> Tensor:
        began, busy = time.monotonic(), time.thread_time()
        scores = score_all(self.rewards, images, prompts)
        self.idle = time.thread_time() - busy < IDLE * (time.monotonic() - began)
        return torch.stack([check_finite(name, one, prompts).float().cpu() for name, one in scores.items()])

    def _too_slow(self, prompts: list[str]) -> ValueError:
        names = ", ".join(self.rewards)
        return ValueError(
            f"got no scores from {names} for {len(prompts)} images within {self.timeout:g} seconds; expected "
            "them by then; raise reward_timeout, or look why it hangs, and go on with resume=latest"
        )
