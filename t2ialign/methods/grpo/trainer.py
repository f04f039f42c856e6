"""Online reinforcement learning of an image model: sample a round, score it, learn from it, sample the next.

Groups of images of one prompt are compared by any reward. The clipped policy gradient learns from denoising
steps as they were sampled (DDPO, Flow-GRPO); NFT and AWM learn from clean images that are noised anew, which
takes the memory of DPO. One loop serves them all: a row is an image at one noise level.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import rewards
from rewards import Reward, tensor_files
from rewards.combine import WeightedSum
from rewards.loading import of_images
from t2ialign.data.prompts import read_prompts
from t2ialign.evaluation.panel import Trained
from t2ialign.methods.grpo import rollouts
from t2ialign.methods.grpo.config import Config
from t2ialign.methods.grpo.former import next_sampling_policy
from t2ialign.methods.grpo.judge import Judge
from t2ialign.methods.grpo.loss import Losses
from t2ialign.methods.grpo.presets import PRESETS
from t2ialign.methods.grpo.rows import Batch, Rows
from t2ialign.methods.grpo.rule import Rule
from t2ialign.progress import Progress
from t2ialign.training import base, checkpoint
from t2ialign.training.conversion import FLOW, SD, Published
from t2ialign.training.facts import Facts
from t2ialign.training.output import CHECKPOINTS
from t2ialign.training.prompts import Prompts
from t2ialign.training.state import TrainState
from t2ialign.training.watch.heldout_reward import IMAGES, mean_reward, starting_reward

LEVERS = ("lr", "clip", "kl_weight", "group_size", "guidance_scale", "lora_rank")
"""Settings that decide whether anything moves."""
SCORES, SAMPLING_POLICY, LOG_PROBS = "scores.jsonl", "sampling_policy.safetensors", "log_probs.safetensors"
"""Files of `rounds/`: every score of the run; and of a round: the weights it was sampled with (nft), and the
log-probabilities under these of the rows that later updates learn from."""


class Trainer(base.Trainer[Config, Batch]):
    """Samples, scores and learns, in rounds of `updates` optimiser steps.

    reward: the loaded reward, or several by name, which are then `cfg.reward`; else they are loaded by it.
    """

    method = "grpo"
    times: Tensor
    decodes = True
    wraps = False
    any_reward = True

    def __init__(
        self, cfg: Config, *, policy: Any = None, reward: Reward | Mapping[str, Reward] | None = None
    ) -> None:
        self._given: dict[str, Reward] | None = None
        if isinstance(reward, Mapping):
            self._given = {name: of_images(one) for name, one in reward.items()}
            cfg = cfg.model_copy(update={"reward": ",".join(reward)})
        elif reward is not None:
            self._given = {cfg.reward: of_images(reward)}
        self.supplied |= {"reward"} if reward is not None else frozenset()
        super().__init__(cfg, policy=policy)

    def load(self) -> TrainState:
        """The policy, and how many micro-steps an update takes. Raises ValueError for rows left over."""
        state, cfg = super().load(), self.cfg
        self.levels = rollouts.rows_of_an_image(cfg, self.policy)
        rows = cfg.images // cfg.updates * self.levels
        at_once = cfg.batch_size * int(state.accelerator.num_processes)
        if rows % at_once:
            raise ValueError(
                f"got batch_size x processes = {at_once} for {rows} rows an update ({cfg.images} images / "
                f"{cfg.updates} updates x {self.levels} noise levels); expected a divisor; change "
                "batch_size or groups"
            )
        self.cfg = state.cfg = cfg.model_copy(update={"accumulate": rows // at_once})
        return state

    def setup(self) -> None:
        """Encode every prompt once, load the rewards."""
        cfg = self.cfg
        self.prompts = Prompts(self.policy, read_prompts(cfg.prompts))
        self.heldout = read_prompts(cfg.heldout_prompts) if cfg.heldout_prompts else []
        self.shown = (self.validation_prompts or self.prompts.texts)[:IMAGES]
        self.keep_prompts += [*self.heldout, *self.shown]
        self.reward = self._reward().to(self.accelerator.device).requires_grad_(False).eval()
        members = self.reward.members if isinstance(self.reward, WeightedSum) else {cfg.reward: self.reward}
        judge = Judge(members, timeout=cfg.reward_timeout, retries=cfg.reward_retries)
        self.sampler = rollouts.Sampler(cfg, self.state, self.prompts, judge)
        self.times = self.sampler.times
        self.losses = Losses(cfg, self.policy, self.state, self.sampler.kernel)
        self.root, self.number = cfg.output / "rounds", -1
        self.rule = Rule(cfg, tuple(members), self.root / SCORES)
        if self.accelerator.is_main_process:
            rollouts.drop_after(self.root, self.state.step // cfg.updates)
        self.accelerator.wait_for_everyone()

    def _reward(self) -> Reward:
        """The reward, or the weighted sum of several, whose members are scored together."""
        cfg, names = self.cfg, self.cfg.reward_names
        options = cfg.reward_options if len(names) > 1 else {cfg.reward: cfg.reward_options}
        members = self._given or rewards.load_all(names, options)
        if len(members) == 1:
            return next(iter(members.values()))
        return WeightedSum(
            members, dict(zip(members, cfg.reward_weights or [1.0] * len(members), strict=True))
        )

    def before_step(self) -> dict[str, float]:
        """Open the round of this update, sampling it if need be -> its figures, before its first update."""
        number, update = divmod(self.state.step, self.cfg.updates)
        if number != self.number and not self._open(number, update):
            return {}
        return {} if update else self.figures

    def _open(self, number: int, update: int) -> bool:
        """Read a round, after it was sampled -> False if told to stop first."""
        folder = rollouts.folder_of(self.root, number)
        if not (update or folder.is_dir() or self._sample(folder, number)):
            return False
        images = rollouts.read(folder, self.cfg.images)
        scores = images.scores.unflatten(1, (self.cfg.groups, -1))
        texts = [self.prompts.texts[text] for text in self.sampler.texts(number).tolist()]
        self.rule.open(number, texts, scores, main=self.accelerator.is_main_process)
        advantages = self.rule.advantages(texts, scores).flatten()
        self.data = Rows(self.cfg, self.sampler, number, images.states, advantages, self.levels)
        self.figures = {**self.rule.figures(scores), "flat_groups": self.data.flat}
        self.number, losses = number, self.losses
        losses.former = load_file(folder / SAMPLING_POLICY) if self.cfg.loss == "nft" else {}
        losses.log_probs = self._log_probs_before(folder, update)
        return True

    def _sample(self, folder: Path, number: int) -> bool:
        """Sample and score a round; the checkpoint it is a pure function of is written first."""
        main, wait = self.accelerator.is_main_process, self.accelerator.wait_for_everyone
        self.save_once()
        filling = folder.with_name(f".{folder.name}")
        if main:
            rollouts.prepare(filling, self.cfg)
            if self.cfg.loss == "nft":
                earlier = rollouts.folder_of(self.root, number - 1) / SAMPLING_POLICY
                former = load_file(earlier) if number else self.state.trained
                weights = next_sampling_policy(former, self.state.trained, self.state.step)
                tensor_files.write(weights, filling / SAMPLING_POLICY)
        wait()
        lagging = self.cfg.loss == "nft"  # the policy that samples
        with self.losses.sampling(load_file(filling / SAMPLING_POLICY)) if lagging else nullcontext():
            done = self.sampler.fill(filling, number, stopping=lambda: self.stopping)
        wait()
        if done and main:
            filling.rename(folder)
            oldest = checkpoint.step_of(checkpoint.whole(self.cfg.output / CHECKPOINTS)[0])
            rollouts.drop_before(self.root, oldest // self.cfg.updates - 1)  # nft goes on from the one before
        wait()
        return done

    def _log_probs_before(self, folder: Path, update: int) -> Tensor | None:
        """log p under the weights at the start of the round, (rows,), of the rows of its later updates.

        Computed at the shape of a micro-step, since kernels round otherwise at another one; the first update
        needs none, its ratio being 1. None where no later update needs any.
        """
        cfg, file = self.cfg, folder / LOG_PROBS
        if cfg.updates == 1 or cfg.loss == "nft":
            return None
        if update or file.exists():
            return load_file(file)["log_probs"]
        known = torch.zeros(cfg.images * self.levels)
        micros = [(later, micro) for later in range(1, cfg.updates) for micro in range(cfg.accumulate)]
        main = self.accelerator.is_main_process
        bar = Progress(micros, desc="log-probabilities", unit="micro-step", delay=3, disable=not main)
        for later, micro in bar:
            batch = self.batch(self.state.step + later, micro)
            if batch.live:
                known[batch.places] = self.losses.log_prob(batch).cpu()
        known = self.accelerator.reduce(known.to(self.accelerator.device), "sum").cpu()
        if main:
            tensor_files.write({"log_probs": known}, file)
        return known

    def batch(self, step: int, micro: int) -> Batch:
        """The rows of one micro-step of the round."""
        return self.data.batch(step % self.cfg.updates, self.rows(micro))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the rows and their distances to the reference and the moving average."""
        return self.losses(batch, first=self.state.step % self.cfg.updates == 0)

    @property
    def trained_reward(self) -> Trained:
        """The reward that is trained, which the monitor must not take for held out."""
        return self.cfg.reward, self.reward

    def evaluate(self) -> dict[str, float]:
        """The mean reward of images of the held-out prompts, at the same seeds every time."""
        cfg = self.cfg
        return mean_reward(
            self.policy,
            self.reward,
            self.heldout,
            num_inference_steps=cfg.num_inference_steps,
            guidance_scale=cfg.guidance_scale,
            batch_size=cfg.rollout_batch,
        )

    def facts(self) -> Facts:
        """The prompts, how images are sampled, the reward at the start, and the clip at this latent."""
        cfg, facts = self.cfg, super().facts()
        path = f"{cfg.num_inference_steps} steps, guidance {cfg.guidance_scale:g}, {self.sampler.kernel}"
        if cfg.loss == "ratio" and cfg.window:
            path += f" in {cfg.window} of them"
        rounds = f"{cfg.groups} groups of {cfg.group_size} images, learnt from in {cfg.updates} updates"
        published, size = PRESETS[cfg.preset]["clip"], SD if cfg.preset == "ddpo" else FLOW
        clips = (Published("clip", published, cfg.clip, "bound", (size,)),) if published and cfg.clip else ()
        return replace(
            facts,
            unit="prompts",
            train=len(self.prompts.texts),
            heldout=len(self.heldout),
            more={"rounds": rounds, "sampling": path, "reward": cfg.reward, **facts.more},
            published=clips,
            watched={"reward": None},
            levers={name: getattr(cfg, name) for name in LEVERS},
            start=self.start,
        )

    def start(self) -> str:
        """The mean reward of images of the weights at hand."""
        cfg = self.cfg
        return starting_reward(self.policy, self.reward, self.shown, cfg, batch_size=cfg.rollout_batch)

    def data_card(self) -> str:
        """The prompts and the reward, for the model card."""
        count = len(self.prompts.texts)
        return f"{count} prompts from {self.cfg.prompts}, groups of images scored by {self.cfg.reward}"
