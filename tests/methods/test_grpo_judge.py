"""When scores are waited for: at once where a reward computes on a CPU, later where it waits."""

from __future__ import annotations

import threading
import time

import torch
from torch import Tensor

from rewards import Reward
from t2ialign.methods.grpo.judge import Judge

IMAGES, PROMPTS = torch.rand(2, 3, 8, 8), ["a circle", "a cross"]


class Scorer(Reward):
    """Computes for a moment, or waits until it may go on."""

    needs_text = False

    def __init__(self) -> None:
        super().__init__()
        self.computes, self.go, self.calls = True, threading.Event(), 0

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        if self.computes:
            until = time.thread_time() + 0.05
            while time.thread_time() < until:
                pass
        else:
            assert self.go.wait(30)
        self.calls += 1
        return images.mean((1, 2, 3))


def test_scores_are_waited_for_at_once_on_a_cpu_unless_the_reward_waits() -> None:
    scorer = Scorer()
    judge = Judge({"it": scorer}, timeout=60, retries=0)
    for calls in (1, 2):
        judge.begin(IMAGES, PROMPTS)
        assert scorer.calls == calls  # before anybody asks for the scores
    scorer.computes = False
    threading.Timer(0.3, scorer.go.set).start()
    judge.begin(IMAGES, PROMPTS)  # not known yet to wait
    assert scorer.calls == 3
    scorer.go.clear()
    waiting = judge.begin(IMAGES, PROMPTS)
    assert scorer.calls == 3
    scorer.go.set()
    assert torch.allclose(waiting()[0], IMAGES.mean((1, 2, 3))) and scorer.calls == 4
    scorer.computes = True
    judge.begin(IMAGES, PROMPTS)()
    judge.begin(IMAGES, PROMPTS)
    assert scorer.calls == 6


def test_a_reward_that_hangs_is_left_after_its_time_and_not_twice_of_it() -> None:
    scorer = Scorer()
    scorer.computes = False
    judge = Judge({"it": scorer}, timeout=0.5, retries=3)
    began = time.monotonic()
    waiting = judge.begin(IMAGES, PROMPTS)
    try:
        waiting()
    except ValueError as error:
        assert "within 0.5 seconds" in str(error)
    else:
        raise AssertionError("no scores were there")
    assert 0.5 <= time.monotonic() - began < 0.95
    scorer.go.set()
