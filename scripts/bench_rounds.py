"""What a round of online reinforcement learning costs beside the pattern of public code, for bench_train.py.

  ours      prompts come encoded, images are scored a batch at a time (while the next are sampled, but on a
            CPU only by a reward that waits), and sampling never waits for a value
  released  the prompt of every image is encoded with it, each image is scored alone, and every step of
            sampling reads a value back

Then both learn from the images by one update of the same loss, that of the preset `fast`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rewards
from rewards import Reward
from scripts.bench_models import MODELS
from scripts.bench_parts import Bench, Row, number, prompt, ratio, rounds, say, wait
from t2ialign.diffusion.sampler import rollout
from t2ialign.methods.grpo.judge import Judge, Waiting
from t2ialign.methods.grpo.trainer import Config, Trainer
from t2ialign.models.load import load_policy, policy_of

CLIP = "ViT-L-14-quickgelu"
"""The scorer of images of models of released sizes."""
FEW: dict[str, Any] = {"groups": 2, "group_size": 4, "rollout_batch": 4, "batch_size": 2}
MANY: dict[str, Any] = {"groups": 4, "group_size": 32, "rollout_batch": 32, "batch_size": 32}
TINY: dict[str, Any] = {"groups": 1, "group_size": 4, "rollout_batch": 2, "batch_size": 2}
"""Images of a round of models of released sizes, of the toy models, and to try the script itself."""
TOYS = ("toy", "toy-flow")
"""Models that have rounds to time beside those of released sizes."""
REMOTE = 1.0
"""How many times as long as a batch takes to sample the reward waits that stands for another machine."""

Begin = Callable[[int, range], tuple[Tensor, Waiting]]
"""Samples images of a round -> their states, and what waits for their scores."""


class Remote(Reward):
    """Waits so many seconds, as for another machine, and gives the mean of the pixels."""

    needs_text = False

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """(B, 3, H, W) -> (B,)"""
        time.sleep(self.seconds)
        return images.mean((1, 2, 3))


class Sides:
    """One trainer whose images are begun by each pattern."""

    def __init__(self, args: argparse.Namespace, model: str, folder: Path) -> None:
        toy = model in TOYS
        sizes = TINY if args.small else MANY if toy else FEW
        texts = ["a red circle", "two blue squares", "a green star", "a red circle above a blue square"]
        texts = texts if toy else [prompt(row) for row in range(sizes["groups"])]
        file = folder / "prompts.txt"
        file.write_text("".join(f"{text}\n" for text in texts))
        cfg = Config(
            preset="fast",
            prompts=str(file),
            output=folder / "run",
            reward="clip",
            num_inference_steps=6 if args.small else 10,
            resolution=None if toy else args.resolution,
            updates=1,
            trackers=(),
            **sizes,
        )
        pipe = None if toy else MODELS[model](small=args.small).to(torch.device(args.device))
        policy = load_policy(model, device=args.device) if pipe is None else policy_of(pipe)
        self.trainer = Trainer(cfg, policy=policy, reward=self._reward(args, toy, folder))
        self.sampler, self.texts = self.trainer.sampler, self.trainer.prompts.texts
        self.policy, self.judge = self.sampler.policy, self.sampler.judge
        self.begin: Begin = self.sampler.begin

    def _reward(self, args: argparse.Namespace, toy: bool, folder: Path) -> Reward:
        if toy:
            return rewards.load("toy-clip")
        bench = argparse.Namespace(**vars(args), precision="fp32", clips=CLIP, workers=0, images=0)
        return Bench(bench, folder).score(CLIP)

    def round(self, begin: Begin) -> None:
        """Sample, score and learn."""
        vars(self.sampler)["begin"] = begin
        self.trainer.before_step()
        self.trainer.update({})

    def beside(self, number: int, images: range) -> tuple[Tensor, Waiting]:
        """As ours, always scored while the next images are sampled."""
        self.sampler.judge.idle = True
        return self.begin(number, images)

    def after(self, number: int, images: range) -> tuple[Tensor, Waiting]:
        """As ours, with the scores waited for before the next images are sampled."""
        states, waiting = self.begin(number, images)
        scores = waiting()
        return states, lambda: scores

    @torch.no_grad()
    def released(self, number: int, images: range) -> tuple[Tensor, Waiting]:
        """By the pattern of public code."""
        sampler, cfg = self.sampler, self.trainer.cfg
        numbers = sampler.texts(number)[[image // cfg.group_size for image in images]]
        texts = [self.texts[text] for text in numbers.tolist()]
        cond = self.policy.encode_prompts(texts)
        cond = self.policy.with_size(cond, sampler.size, (0, 0), sampler.size)
        steps = sampler.steps(number)

        def noise(step: int) -> Tensor:
            drawn = torch.randn(len(images), *sampler.shape).to(self.policy.device)
            float(drawn.sum())  # the value that a step reads back
            return drawn

        path = rollout(
            self.policy,
            cond,
            noise(-1),
            sampler.times,
            kernel=sampler.kernel,
            guidance_scale=cfg.guidance_scale,
            noise=noise,
            noisy=steps,
        )
        pixels = self.policy.decode(path.latents[:, -1])
        each = [self.judge(pixels[row : row + 1], texts[row : row + 1]) for row in range(len(images))]
        scores = torch.cat(each, 1)
        return path.latents[:, steps.start : steps.stop + 1].cpu(), lambda: scores


def measure_rounds(args: argparse.Namespace, model: str, folder: Path) -> Iterator[Row]:
    """Times of a round by both patterns, scored beside sampling or after it, and its parts."""
    sides = Sides(args, model, folder)
    cfg, device = sides.trainer.cfg, sides.policy.device
    on = f"{model}, {cfg.images} images, {cfg.num_inference_steps} steps, guidance {cfg.guidance_scale:g}"
    say(f"one round, {on}:")
    ways: dict[str, Begin] = {"ours": sides.begin, "released": sides.released}
    ways |= {"beside": sides.beside, "after": sides.after}
    runs: dict[str, Callable[[], object]] = {name: partial(sides.round, way) for name, way in ways.items()}
    times = rounds(runs, args.repeats, device)
    yield ratio("images a second of a round, ours / released", on, times, "released / ours", ">= 1.5")
    yield ratio("scored beside sampling: times as fast", on, times, "after / beside", None)
    shares = _seconds(sides)
    for name, seconds in shares.items():
        yield number(f"share of a round: {name}", on, seconds / sum(shares.values()))
    batches = -(-cfg.images // cfg.rollout_batch)
    remote = Remote(REMOTE * shares["sampling"] / batches)
    sides.sampler.judge = Judge({"remote": remote}, timeout=600, retries=0)
    times = rounds({name: runs[name] for name in ("ours", "after")}, args.repeats, device)
    yield ratio("a reward that waits, scored beside sampling", on, times, "after / ours", None)


def _seconds(sides: Sides) -> dict[str, float]:
    """Seconds of the parts of one round, one after the other."""
    device, began = sides.policy.device, time.perf_counter()
    spent = {"decoding": 0.0, "scoring": 0.0}
    decode = sides.policy.decode

    def timed(name: str, work: Callable[..., Tensor], *values: Any) -> Tensor:
        wait(device)
        start = time.perf_counter()
        out = work(*values)
        wait(device)
        spent[name] += time.perf_counter() - start
        return out

    def begin(number: int, images: range) -> tuple[Tensor, Waiting]:
        states, waiting = sides.begin(number, images)
        scores = timed("scoring", waiting)
        return states, lambda: scores

    vars(sides.policy)["decode"] = partial(timed, "decoding", decode)
    vars(sides.sampler)["begin"] = begin
    sides.trainer.before_step()
    del vars(sides.policy)["decode"]
    rolled = time.perf_counter() - began
    sides.trainer.update({})
    wait(device)
    learning = time.perf_counter() - began - rolled
    return {"sampling": rolled - sum(spent.values()), **spent, "learning": learning}
