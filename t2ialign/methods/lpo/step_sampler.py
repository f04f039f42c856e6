"""Sampling for step-level training: judged candidates of one state, or judged whole paths."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from t2ialign.diffusion.candidates import Step, candidate_rollout
from t2ialign.diffusion.kernels import Kernel
from t2ialign.diffusion.noise import generator, normal_rows
from t2ialign.diffusion.transition import Gaussian
from t2ialign.methods.lpo.rounds import Rows
from t2ialign.methods.lpo.step_scorers import StepScorer
from t2ialign.models.base import Cond, Policy
from t2ialign.objectives.stepwise import best_and_worst, threshold
from t2ialign.training.prompts import Prompts
from t2ialign.training.state import TrainState

if TYPE_CHECKING:
    from t2ialign.methods.lpo.config import Config

PATH, PROMPT, CHOICE = range(3)
"""First part of a random key: a path's noise, the order of the prompts, which candidate goes on."""
START = -1
"""Step number of the first noise of a path."""


class StepSampler:
    """Rows as pure functions of (seed, round, place in it) and the weights, whatever process samples.

    A row has states x_t (X, C, h, w) and x_s (M, C, h, w), M / X of them drawn from each x_t, the better one
    of a pair first; t, s, prompt; scores and log_probs (M,) under the policy that sampled them. Raises
    ValueError for settings that leave no step to learn from.
    """

    def __init__(self, cfg: Config, state: TrainState, prompts: Prompts, scorer: StepScorer) -> None:
        self.cfg, self.state, self.prompts, self.scorer = cfg, state, prompts, scorer
        self.policy = prompts.policy
        self.times = self.policy.timesteps(cfg.num_inference_steps)
        self.kernel = Kernel(cfg.kernel, cfg.eta)
        self.shape = self.policy.latent_shape(*self.policy.native_size)
        self.judged = judged_steps(self.policy, self.times, self.kernel, cfg.t_min, cfg.t_max)
        self.least = self._thresholds()
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def chunks(self) -> list[range]:
        """The places of a round, in the parts that are sampled at once."""
        count, size = self.cfg.collect_prompts, self.cfg.rollout_batch
        return [range(i, min(i + size, count)) for i in range(0, count, size)]

    @torch.no_grad()
    def rows(self, number: int, places: range) -> tuple[Rows, Tensor]:
        """Roll out some places of a round -> the rows to learn from, on the CPU, and all scores seen (N,)."""
        numbers = self._prompt_of(number, places)
        sample = self._candidates if self.cfg.compare == "candidates" else self._trajectories
        with self.state.unwrapped():
            parts, scores = sample(number, places, numbers)
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        valid = joined.pop("valid").nonzero().flatten()  # for this, and not before, the device is waited for
        states = {name: value[valid].cpu() for name, value in joined.items()}
        return {**states, **self._described(places, numbers, valid.cpu())}, scores.cpu()

    def no_rows(self) -> Rows:
        """The rows of a process that was given nothing to sample."""
        X, M = (2, 2) if self.cfg.compare == "trajectories" else (1, self._states_a_row)
        numbers = dict.fromkeys(("prompt", "order"), torch.zeros(0, dtype=torch.long))
        times = dict.fromkeys(("t", "s"), torch.zeros(0))
        states = {"x_t": torch.zeros(0, X, *self.shape), "x_s": torch.zeros(0, M, *self.shape)}
        return {**states, **times, **numbers, "scores": torch.zeros(0, M), "log_probs": torch.zeros(0, M)}

    @property
    def _states_a_row(self) -> int:
        return 2 if self.cfg.loss == "preference" else self.cfg.candidates

    def _candidates(self, number: int, places: range, numbers: Tensor) -> tuple[list[Rows], Tensor]:
        """Every judged step on its own: its best and worst candidate, or all, where their gap is large."""
        rows_of_steps, seen, K = [], [], self.cfg.candidates
        cond = self.prompts.cond(numbers)
        judge = self.scorer.judge(numbers, cond)
        rows = torch.arange(len(places), device=self.policy.device)[:, None]
        everyone = torch.arange(K, device=self.policy.device).expand(len(places), K)
        for step in self._roll(number, places, cond, paths=1, candidates=K):
            if step.number not in self.judged:
                continue
            scores = judge(step)
            best, worst, gap = best_and_worst(self.cfg.reward_scale * scores)
            chosen = torch.stack([best, worst], 1) if self._states_a_row == 2 else everyone
            x_s = step.candidates[rows, chosen]
            seen.append(scores.flatten())
            rows_of_steps.append(
                {"x_t": step.x_t[:, None], "x_s": x_s, "scores": scores[rows, chosen]}
                | {"log_probs": log_probs(step.p, x_s), "valid": gap > self.least[step.number]}
            )
        return rows_of_steps, torch.cat(seen)

    def _trajectories(self, number: int, places: range, numbers: Tensor) -> tuple[list[Rows], Tensor]:
        """Two paths from one first noise, judged at their end; each step of the better one is the better."""
        pair, twice = (len(places), 2), numbers.repeat_interleave(2)
        cond = self.prompts.cond(twice)
        steps = list(self._roll(number, places, cond, paths=2, candidates=1))
        scores = self.scorer.judge(twice, cond)(steps[-1]).view(pair)
        best, worst, gap = best_and_worst(self.cfg.reward_scale * scores)
        rows, order = torch.arange(len(places), device=gap.device)[:, None], torch.stack([best, worst], 1)
        rows_of_steps = []
        for step in steps:
            if step.number not in self.judged:
                continue
            x_t, x_s = (x.unflatten(0, pair)[rows, order] for x in (step.x_t, step.candidates[:, 0]))
            likely = log_probs(step.p, step.candidates).view(pair)[rows, order]
            rows_of_steps.append(
                {"x_t": x_t, "x_s": x_s, "scores": scores[rows, order], "log_probs": likely}
                | {"valid": gap > self.cfg.threshold_low}
            )
        return rows_of_steps, scores.flatten()

    def _roll(self, number: int, places: range, cond: Cond, *, paths: int, candidates: int) -> Iterator[Step]:
        """Several paths from one first noise a place, each with candidates at each step."""
        seed, count = self.cfg.seed, len(places) * paths

        def noise(step: int) -> Tensor:
            keys = [
                (PATH, seed, number, place, step, k) for place in places for k in range(paths * candidates)
            ]
            return normal_rows(self.shape, keys).unflatten(0, (count, candidates))

        def choice(step: int) -> Tensor:
            if candidates == 1:
                return torch.zeros(count, dtype=torch.long)
            draws = [generator(CHOICE, seed, number, place, step) for place in places]
            return torch.stack([torch.randint(candidates, (), generator=draw) for draw in draws])

        first = normal_rows(self.shape, [(PATH, seed, number, place, START, 0) for place in places])
        return candidate_rollout(
            self.policy,
            cond,
            first.repeat_interleave(paths, 0).to(self.policy.device),
            self.times,
            kernel=self.kernel,
            guidance_scale=self.cfg.guidance_scale,
            noise=noise,
            choice=choice,
        )

    def _thresholds(self) -> dict[int, float]:
        """Step number -> the gap that a pair of candidates must exceed there."""
        cfg, steps = self.cfg, list(self.judged)
        stds, times = torch.tensor(list(self.judged.values())), self.times[steps]
        least = threshold(
            stds,
            times,
            low=cfg.threshold_low,
            high=cfg.threshold_high,
            stds=stds,
            times=times,
            schedule=cfg.threshold_schedule,
        )
        return dict(zip(steps, least.tolist(), strict=True))

    def _described(self, places: range, numbers: Tensor, valid: Tensor) -> Rows:
        """The columns of all rows: times, prompt, and a number that sorts the rows of all processes.

        valid: which are kept of all places at the first judged step, then all at the next.
        """
        step = torch.tensor(list(self.judged)).repeat_interleave(len(places))[valid]
        place = torch.tensor(places).repeat(len(self.judged))[valid]
        return {
            "t": self.times[step],
            "s": self.times[step + 1],
            "prompt": numbers.repeat(len(self.judged))[valid],
            "order": place * self.cfg.num_inference_steps + step,
        }

    def _prompt_of(self, number: int, places: range) -> Tensor:
        """The prompts of those places of a round: every prompt once before any comes again."""
        size, first = len(self.prompts.texts), number * self.cfg.collect_prompts
        turns = [divmod(first + place, size) for place in places]
        return torch.stack([self._order(epoch)[place] for epoch, place in turns])

    def _shuffled(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.prompts.texts), generator=generator(PROMPT, self.cfg.seed, epoch))


def log_probs(p: Gaussian, x_s: Tensor) -> Tensor:
    """log p of states (B, M, C, h, w), M under each of B Gaussians -> (B, M), means over the latent."""
    M = x_s.shape[1]
    rows = Gaussian(p.mean.repeat_interleave(M, 0), p.std.expand(len(x_s), 1, 1, 1).repeat_interleave(M, 0))
    return rows.log_prob(x_s.flatten(0, 1)).view(-1, M)


def judged_steps(
    policy: Policy, times: Tensor, kernel: Kernel, t_min: float, t_max: float
) -> dict[int, float]:
    """Step number -> std of p(x_s | x_t), of the steps that have noise and a t in range.

    t_min and t_max are times of the policy. A step into x_0 itself is left out, whatever noise a kernel adds
    to it: the last one of a flow, but not of Stable Diffusion's own grid, whose last step goes to a state
    with a little noise left.
    """
    stds = {}
    zero = torch.zeros(1, 1, 1, 1, device=policy.device)
    for i, (t, s) in enumerate(pairwise(times)):
        std = float(policy.transition(zero, zero, t.view(1), s.view(1), kernel=kernel).std)
        ends_noisy = float(policy.path(s.view(1))[1]) > 0
        if std > 0 and ends_noisy and t_min <= float(t) <= t_max + 1:  # the paper calls t = 951 950
            stds[i] = std
    if not stds:
        raise ValueError(
            f"got t_min={t_min:g}, t_max={t_max:g}, which no noisy step of "
            f"num_inference_steps={len(times) - 1} falls into; expected one to learn from; widen them"
        )
    return stds
