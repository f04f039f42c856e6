"""What each method costs until it gains ten points: images that are drawn, and forwards of the denoiser."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.autoencoders.vae import Decoder
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import t2ialign
from scripts.experiments import labelled_pairs, stepwise
from scripts.experiments.claim import Claim, Figure, Row, resumable
from scripts.experiments.estimates import Points, Table, average, judged, line_figure
from scripts.experiments.trainers import SETTINGS, ImageRun
from scripts.experiments.training import RUN
from t2ialign.io import jsonl
from t2ialign.tasks.demo import rounds
from t2ialign.tasks.demo.settings import DEFAULT, Settings

GAIN = 0.10
"""The gain in held-out accuracy up to which work is counted."""
CURVES = "curves.jsonl"
"""A line for each method: {"method", "curve": [a dict of `Work` and "step", "guidance", "passed"], ...}"""
U_NET: dict[str, Any] = {**SETTINGS["grpo"], "lr_schedule": "constant"}
FEWER: dict[str, Any] = {"batch_size": 24, "groups": 24, "updates": 8}
ONLINE: Mapping[str, Mapping[str, Any]] = {
    "ddpo": U_NET | {"preset": "ddpo", "batch_size": 60, "lr": 2e-3, "clip": 6.4e-3},
    "flow-grpo": U_NET | FEWER | {"preset": "flow-grpo", "lr": 1e-3, "clip": 0.0256},
    "fast": U_NET | {"preset": "fast", "batch_size": 72, "clip": 2.56e-3},
    "nft": U_NET,
    "awm": U_NET | {"preset": "awm", "ema_kl_weight": 0.5, "clip": 0.2},
}
"""Chosen on seed 100, as docs/toy.md tells; a clip of denoising steps is converted to this latent."""
EVERY = 16
"""Updates between two measurements."""
MOST: Mapping[str, int] = {"ddpo": 96, "flow-grpo": 96, "fast": 176, "nft": 224, "awm": 224}
"""Updates that take some fifteen minutes on one core, after which a preset has failed."""
OTHERS: Mapping[str, Mapping[str, Any]] = {name: SETTINGS[name] for name in ("lpo", "backprop")}


@dataclass
class Work:
    """Work of the block of a `with`, counted in this process: a forward is one latent, once through the net.

    Latents that carry gradients take a backward too, which is counted apart.
    """

    images: int = 0
    forwards: int = 0
    backwards: int = 0

    def __enter__(self) -> Work:
        self._hook = register_module_forward_hook(self._hear)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hook.remove()

    def _hear(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, UNet2DConditionModel):
            sample = output[0]
            self.forwards += len(sample)
            self.backwards += len(sample) if torch.is_grad_enabled() and sample.requires_grad else 0
        elif isinstance(module, Decoder):
            self.images += len(output)


Point = tuple[int, Path, dict[str, int]]
"""Updates so far, the LoRA after them, and the work."""


class Cost(Claim):
    """Every method on the same captions, with the oracle as judge where it can be; one seed."""

    text = f"Every method gains {100 * GAIN:.0f} points of held-out oracle accuracy"
    seeds = (0,)
    single_seed = True
    captions: int = 480
    choosing: int = 80
    heldout: int = 240
    online: Mapping[str, Mapping[str, Any]] = ONLINE
    others: Mapping[str, Mapping[str, Any]] = OTHERS
    rounds: Settings = DEFAULT

    @property
    def _sizes(self) -> dict[str, int]:
        return {"choosing": self.choosing, "heldout": self.heldout}

    def measure(self, folder: Path, seed: int) -> None:
        """The base, then each method until it has gained enough."""
        folder.mkdir(parents=True, exist_ok=True)
        methods = ("base", *self.online, "dpo", *self.others)
        items = [{"method": method} for method in methods]
        resumable(folder / CURVES, items, lambda item: self._curve(folder, seed, item["method"]), "methods")

    def _curve(self, folder: Path, seed: int, method: str) -> dict[str, Any]:
        if method == "base":
            return {
                "curve": [{"step": 0, **stepwise.at_best_guidance(None, seed, **self._sizes)}],
                "seconds": 0.0,
            }
        (start,) = jsonl.read(folder / CURVES)[0]["curve"]
        shutil.rmtree(folder / method, ignore_errors=True)  # of a killed run the work is not known
        (folder / method).mkdir()
        began, curve = time.monotonic(), list[dict[str, Any]]()
        points = self._points(folder / method, seed, method)
        seconds = time.monotonic() - began
        for step, lora, work in points:
            curve.append({"step": step, **work, **stepwise.at_best_guidance(lora, seed, **self._sizes)})
            if average(curve[-1]["passed"]) - average(start["passed"]) >= GAIN:
                break
        return {"curve": [{**start, "images": 0, "forwards": 0, "backwards": 0}, *curve], "seconds": seconds}

    def _points(self, folder: Path, seed: int, method: str) -> list[Point]:
        """Train by a method to the end -> its checkpoints."""
        prompts = labelled_pairs.distinct_captions(self.captions, 10_000 + seed, held_out=False)
        (folder / stepwise.PROMPTS).write_text("".join(f"{prompt}\n" for prompt in prompts))
        values: dict[str, Any] = {"prompts": str(folder / stepwise.PROMPTS)}
        with Work() as work:
            if method == "dpo":
                return list(self._dpo_rounds(folder, prompts, seed, work))
            if method in self.online:
                values |= {**self.online[method], "max_steps": MOST[method], "checkpoint_every": EVERY}
                return self._trained("grpo", values, folder / RUN, seed, work)
            values |= self.others[method]
            values["checkpoint_every"] = max(1, values["max_steps"] // 5)
            if method == "lpo":
                values["reward_options"] = {"path": str(ImageRun("lpo").judge(folder, seed))}
            return self._trained(method, values, folder / RUN, seed, work)

    def _trained(
        self, method: str, values: dict[str, Any], output: Path, seed: int, work: Work
    ) -> list[Point]:
        done = dict[int, dict[str, int]]()
        values |= {"checkpoint_limit": 0, "evaluate_every": values["max_steps"]}
        t2ialign.train(
            method,
            **values,
            output=output,
            seed=seed,
            on_step=lambda step, row: done.__setitem__(step, asdict(work)),
        )
        steps = range(values["checkpoint_every"], values["max_steps"] + 1, values["checkpoint_every"])
        return [(step, stepwise.checkpoint_of(output, step), done[step]) for step in steps]

    def _dpo_rounds(self, folder: Path, prompts: list[str], seed: int, work: Work) -> Iterator[Point]:
        """Rounds of the demo; one is enough, or two."""
        lora, step = None, 0
        for place in rounds.places(folder, self.rounds)[:2]:
            rounds.make_pairs(place, prompts[place.number :: 2], seed, self.rounds, lora)
            rounds.train(place, seed, self.rounds, lora)
            lora, step = place.training, step + self.rounds.training["max_steps"]
            yield step, lora, asdict(work)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """One row with a line for each method; it holds if all of them gain enough."""
        (folder,) = folders
        lines, captions = {}, stepwise.held_out_captions(self.heldout, 12_000 + self.seeds[0], each=1)
        for line in jsonl.read(folder / CURVES):
            first, last = line["curve"][0], line["curve"][-1]
            table = Table(captions, {"base": first["passed"], "trained": last["passed"]})
            gain = table.difference("trained", "base")
            work = {name: value for name, value in last.items() if name != "passed"}
            lines[line["method"]] = {
                **work,
                "accuracy": table.mean("trained"),
                "gain": gain,
                "reached": gain.mean >= GAIN,
                "seconds": round(line["seconds"]),
            }
        base = lines.pop("base")["accuracy"]
        measured = {"base": base, "methods": lines, "settings": {**self.online, **self.others}}
        return [judged(self.text, measured, None, all(line["reached"] for line in lines.values()))]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Held-out accuracy of every method over the forwards and over the images so far."""
        (folder,) = folders
        curves = [line for line in jsonl.read(folder / CURVES) if line["method"] != "base"]
        charts = []
        for across in ("forwards", "images"):
            points: dict[str, Points] = {
                line["method"]: {point[across]: average(point["passed"]) for point in line["curve"]}
                for line in curves
            }
            charts.append(line_figure(f"Held-out accuracy by {across}", points, across=across))
        return charts
