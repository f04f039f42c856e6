"""Samples and scores the images of a round, as pure functions of its weights, seed and number.

A round is a folder: a file for each batch of images, written once its scores are there, so that a kill loses
one batch; the folder is renamed when full.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor

from rewards import tensor_files
from t2ialign.diffusion.kernels import ODE, Kernel
from t2ialign.diffusion.noise import generator, normal_rows
from t2ialign.diffusion.sampler import Noise, rollout, sample
from t2ialign.io.hashes import digest, fault, note, noted
from t2ialign.methods.grpo.judge import Judge, Waiting
from t2ialign.models.base import Cond, Policy
from t2ialign.progress import Progress
from t2ialign.training.prompts import Prompts
from t2ialign.training.state import TrainState

if TYPE_CHECKING:
    from t2ialign.methods.grpo.config import Config

PATH, PROMPT, WINDOW = 0, 1, 2
"""First part of a random key: an image's noise, the order of a round's prompts, the start of its window."""
START = -1
"""Step number of the first noise of a path."""


@dataclass(frozen=True)
class Images:
    """Sampled and scored images, N of them, group by group."""

    states: Tensor
    """(N, w + 1, C, h, w): the states around w trained steps, or (N, 1, C, h, w) the clean latents"""
    scores: Tensor
    """(R, N) of R rewards"""


def noisy_steps(cfg: Config, policy: Policy) -> int:
    """The denoising steps that have a density: all but one into an image without noise."""
    _, sigma = policy.path(torch.tensor([policy.end]))
    return cfg.num_inference_steps - int(float(sigma) == 0 or cfg.kernel == "cps")


def rows_of_an_image(cfg: Config, policy: Policy) -> int:
    """The noise levels at which an image is trained."""
    if cfg.loss != "ratio":
        return cfg.train_timesteps
    return cfg.window or noisy_steps(cfg, policy)


class Sampler:
    """Images of a round, whatever process samples them and however many at a time."""

    def __init__(self, cfg: Config, state: TrainState, prompts: Prompts, judge: Judge) -> None:
        self.cfg, self.state, self.prompts, self.judge = cfg, state, prompts, judge
        self.policy = prompts.policy
        side = cfg.resolution
        self.size = self.policy.native_size if side is None else (side, side)
        self.shape = self.policy.latent_shape(*self.size)
        self.times = self.policy.timesteps(cfg.num_inference_steps, self.size)
        self.kernel = Kernel(cfg.kernel, cfg.eta) if cfg.loss == "ratio" else ODE
        self.kernel.check(self.policy.kind)
        self.noisy = noisy_steps(cfg, self.policy)

    def steps(self, number: int) -> range:
        """The denoising steps of a round that add noise and are trained, in a row."""
        cfg = self.cfg
        if not cfg.window:
            return range(self.noisy)
        draw = generator(WINDOW, cfg.seed, number)
        first = int(torch.randint(cfg.num_inference_steps // 2, (), generator=draw))
        first = min(first, self.noisy - cfg.window)
        return range(first, first + cfg.window)

    def texts(self, number: int) -> Tensor:
        """The prompt of each group of a round, (G,): every prompt once before any comes again."""
        return self.prompts.in_turn(self.cfg.groups, PROMPT, self.cfg.seed, number)

    def fill(self, folder: Path, number: int, *, stopping: Callable[[], bool]) -> bool:
        """Sample this process's batches of a round that are not there -> False if told to stop first."""
        accelerator = self.state.accelerator
        batches = _batches(self.cfg)[accelerator.process_index :: accelerator.num_processes]
        bar = Progress(batches, desc=f"round {number}", delay=3, disable=not accelerator.is_main_process)
        waiting: tuple[Path, Tensor, Waiting] | None = None
        for images in bar:
            file = folder / _name(images)
            if file.exists():
                continue
            if stopping():
                break
            states, scores = self.begin(number, images)
            if waiting is not None:
                _write(*waiting)  # its scores were made while these images were sampled
            waiting = file, states, scores
        else:
            if waiting is not None:
                _write(*waiting)
            return True
        if waiting is not None:
            _write(*waiting)
        return False

    @torch.no_grad()
    def begin(self, number: int, images: range) -> tuple[Tensor, Waiting]:
        """Sample images of a round -> their states on the CPU, and what waits for their scores (R, n)."""
        cfg, groups = self.cfg, torch.tensor([image // self.cfg.group_size for image in images])
        keys = [(PATH, cfg.seed, number, image) for image in images]
        shared = [(PATH, cfg.seed, number, int(group) * cfg.group_size) for group in groups]

        def noise(step: int) -> Tensor:
            rows = shared if step == START and cfg.shared_noise else keys
            return normal_rows(self.shape, [(*key, step) for key in rows])

        texts = self.texts(number)[groups]
        with self.state.unwrapped():
            cond = self.prompts.cond(texts, self.size)
            x_T = noise(START).to(self.policy.device)
            states, clean = self._walk(number, x_T, cond, noise)
            pixels = self.policy.decode(clean)
        prompts = [self.prompts.texts[text] for text in texts.tolist()]
        return states.cpu(), self.judge.begin(pixels, prompts)

    def _walk(self, number: int, x_T: Tensor, cond: Cond, noise: Noise) -> tuple[Tensor, Tensor]:
        """The states to learn from (n, ..., C, h, w), and the clean latents (n, C, h, w)."""
        policy, scale = self.policy, self.cfg.guidance_scale
        if self.cfg.loss != "ratio":
            clean = sample(policy, cond, x_T, self.times, kernel=ODE, guidance_scale=scale)
            return clean[:, None], clean
        steps = self.steps(number)
        path = rollout(
            policy, cond, x_T, self.times, kernel=self.kernel, guidance_scale=scale, noise=noise, noisy=steps
        )
        return path.latents[:, steps.start : steps.stop + 1], path.latents[:, -1]


def prepare(folder: Path, cfg: Config) -> None:
    """Make the folder that a round is sampled into; images of batches of another size are sampled again."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {_name(images) for images in _batches(cfg)}
    for file in folder.glob("images-*"):
        if file.name not in names:
            file.unlink()


def _batches(cfg: Config) -> list[range]:
    starts = range(0, cfg.images, cfg.rollout_batch)
    return [range(start, min(start + cfg.rollout_batch, cfg.images)) for start in starts]


def _name(images: range) -> str:
    return f"images-{images.start:06d}-{images.stop:06d}.safetensors"


def _write(file: Path, states: Tensor, scores: Waiting) -> None:
    scratch = file.with_name(f".{file.name}")
    tensor_files.write({"states": states, "scores": scores()}, scratch)
    note(file.parent, file.name, digest(scratch))
    scratch.replace(file)


def read(folder: Path, count: int) -> Images:
    """A full round of so many images. Raises ValueError if a file of it is damaged or gone."""
    known, parts = noted(folder) or {}, []
    wrong = "" if folder.is_dir() else "nothing is left"
    for file in sorted(folder.glob("images-*")):
        wrong = wrong or fault(file, known.get(file.name)) or ""
        if not wrong:
            parts.append(load_file(file))
    if not wrong and sum(len(part["states"]) for part in parts) != count:
        wrong = "images are missing"
    if wrong:
        raise ValueError(
            f"got {folder}, in which {wrong}; expected what the run was learning from; restore it, or "
            "start anew in another output"
        )
    return Images(
        torch.cat([part["states"] for part in parts]), torch.cat([part["scores"] for part in parts], 1)
    )


def folder_of(root: Path, number: int) -> Path:
    """The folder of a full round."""
    return root / f"round-{number:06d}"


def drop_after(root: Path, number: int) -> None:
    """Delete the rounds after that one, whole or not: the run may take another course."""
    for folder in _folders(root):
        if _number(folder) > number:
            shutil.rmtree(folder)


def drop_before(root: Path, number: int) -> None:
    """Delete the full rounds before that one, which no checkpoint needs."""
    for folder in _folders(root):
        if _number(folder) < number:
            shutil.rmtree(folder)


def _folders(root: Path) -> list[Path]:
    return [folder for folder in root.iterdir() if "round-" in folder.name] if root.is_dir() else []


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
