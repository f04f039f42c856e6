"""Watches a run for over-optimisation: the same prompts and seeds each time, scored by held-out rewards.

Every number is taken from the saved images, 8 bits a channel: whoever scores those gets the same, and so
does a resumed run.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.scorers.image_stats import statistics
from t2ialign.data.prompts import read_prompts
from t2ialign.evaluation import diversity
from t2ialign.evaluation.hack_index import Fall, best_step, first_fired, none_found, words
from t2ialign.evaluation.manifest_scores import read_image
from t2ialign.evaluation.monitor_journal import ABOUT, DIVERSITY, TRAINED, Journal, Row, image_file
from t2ialign.evaluation.panel import Panel, Trained
from t2ialign.io import atomic, png_text
from t2ialign.io.inside import inside
from t2ialign.models.base import Policy
from t2ialign.models.generate import generate
from t2ialign.progress import Progress
from t2ialign.training.settings import TrainConfig
from t2ialign.training.watch.validation import grid

BEST, BEST_FACTS = "best", "best.json"
BATCH = 16
"""Images sampled at once, at least those of one prompt."""


class Monitor:
    """Measures images of the weights at hand, on the main process; `fired` is the first fall that did.

    method: the trainer's name, for readers of the journal. Raises ValueError like `Panel`, for prompts that
    cannot be read, and for stop_on_hack with fewer than two of them.
    """

    def __init__(self, cfg: TrainConfig, policy: Policy, *, method: str, trained: Trained | None) -> None:
        assert cfg.monitor_prompts is not None, "a run without monitor prompts has no monitor"
        self.cfg, self.policy = cfg, policy
        self.prompts = list(dict.fromkeys(read_prompts(cfg.monitor_prompts)))
        if cfg.stop_on_hack and len(self.prompts) < 2:
            raise ValueError(
                "got stop_on_hack with one monitor prompt; expected 2 or more, since one has no standard "
                "error; add some to monitor_prompts"
            )
        self.panel = Panel(cfg.monitor_rewards, trained, policy.device)
        self.journal = Journal(cfg.output)
        self.fired: Fall | None = None
        self._base: dict[str, Tensor] = {}
        self.about: dict[str, Any] = {
            "method": method,
            "model": cfg.model,
            "trained": trained[0] if trained else None,
            "embedding": self.panel.eye,
            "prompts": self.prompts,
            "images": cfg.monitor_images,
            "steps": cfg.monitor_steps,
            "guidance": cfg.monitor_guidance_scale,
        }

    def notes(self) -> Iterator[str]:
        """The measures that this monitor cannot take, a line each."""
        if self.panel.eye is None:
            yield "diversity is not measured: no reward of monitor_rewards embeds images, as clipscore does"
        if self.cfg.monitor_rewards and len(self.prompts) < 2:
            yield "the hack index is not measured: it needs two prompts or more"
        elif self.cfg.monitor_rewards and self.about["trained"] is None:
            yield "no trained reward is known: any significant fall counts as over-optimisation"

    def open(self, step: int) -> None:
        """Go on after so many updates. Raises ValueError if what was measured before does not fit."""
        self.best()
        self.journal.cut(step or -1)  # step 0 is measured again at step 0
        if self.journal.steps:
            self._check_same()
        self.journal.about = self.about
        self.fired = first_fired(self._falls())

    def measure(self, step: int) -> dict[str, float]:
        """Sample, score and record -> the means, and monitor/hack: the largest index of a held-out reward.

        Raises ValueError for a score that is no number.
        """
        if step and not self.journal.steps:  # a branch of a run, or a monitor switched on later
            with self.policy.reference():
                self._record(0)
        self._record(step)
        now = [fall for fall in self._falls() if fall.step == step]
        self.fired = self.fired or first_fired(now)
        means = {
            f"monitor/{name}": sum(row[kind][name] for row in rows) / len(rows)
            for rows in [self.journal.at(step)]
            for kind in ("scores", "statistics")
            for name in rows[0][kind]
        }
        return means | ({"monitor/hack": max(fall.index for fall in now)} if now else {})

    def keep_best(self, step: int, save: Callable[[], None], export: Callable[[Path], Path]) -> None:
        """Put the weights at hand into output/best if this step is the best so far.

        `save` writes a checkpoint first: no resume starts before the best step, so none can lose it.
        """
        name, folder = self.cfg.keep_best, self.cfg.output / BEST
        if name is None or step not in self.journal.steps:
            return
        series = self.journal.series("scores", name)
        best = {"reward": name, "step": step, "mean": sum(series[step]) / len(series[step])}
        if best_step(series) != step or self.best() == best:
            return
        save()
        folder.mkdir(exist_ok=True)
        (folder / BEST_FACTS).unlink(missing_ok=True)  # a folder without it is not whole
        export(folder)
        atomic.write_json(folder / BEST_FACTS, best)

    def best(self) -> dict[str, Any] | None:
        """{"reward", "step", "mean"} of the weights in output/best, if there are any."""
        file = self.cfg.output / BEST / BEST_FACTS
        if not file.is_file():
            return None
        best = atomic.read_json(file)
        if type(best.get("step")) is not int or type(best.get("mean")) not in (int, float):
            raise ValueError(
                f"got {file}, which is damaged; expected a step and a mean; restore it, or remove "
                f"{file.parent}, whose weights are unknown"
            )
        return best

    def facts(self) -> dict[str, object]:
        """Lines for the model card."""
        held = ", ".join(self.cfg.monitor_rewards) or "image statistics only"
        measured, best = sum(step > 0 for step in self.journal.steps), self.best()
        verdict = none_found(measured) if self._falls() else "the hack index was not measured"
        verdict = words(self.fired) if self.fired else verdict
        facts: dict[str, object] = {"Monitor": f"{held} on {len(self.prompts)} prompts: {verdict}"}
        if best is not None:
            facts["Best"] = f"`{BEST}/`: step {best['step']}, {best['reward']} {best['mean']:.5g}"
        return facts

    def _falls(self) -> list[Fall]:
        return self.journal.falls([n for n in self.cfg.monitor_rewards if n in self.journal.names("scores")])

    def _check_same(self) -> None:
        """The journal goes on only with what it began with."""
        file, base = self.journal.folder / ABOUT, self.journal.at(0)
        for key, value in self.about.items():
            if self.journal.about.get(key) != value:
                raise ValueError(
                    f"got a monitor on resume with {key} {_short(value)}; expected "
                    f"{_short(self.journal.about.get(key))}, as in {file}; restore it, or start anew in "
                    "another output"
                )
        if new := [name for name in self.cfg.monitor_rewards if name not in base[0]["scores"]]:
            raise ValueError(
                f"got monitor reward {new[0]} on resume, which has not scored the base; expected some of "
                f"{', '.join(self.journal.heldout())}; leave it out, or start anew in another output"
            )
        if lost := [
            row["file"] for row in base if not inside(self.journal.folder, row.get("file")).is_file()
        ]:
            raise ValueError(
                f"got no {self.journal.folder / lost[0]}; expected the base's images beside their scores; "
                f"restore them, or remove {self.journal.folder} to measure the base again"
            )

    def _record(self, step: int) -> None:
        """One step's images: sampled several prompts at once, saved, read back, scored prompt by prompt."""
        rows, count = list[Row](), self.cfg.monitor_images
        numbers, size = range(len(self.prompts)), max(1, BATCH // count)
        with Progress(total=len(numbers), desc="monitor", unit="prompt", delay=3) as bar:
            for part in (numbers[i : i + size] for i in range(0, len(numbers), size)):
                self._sample(step, part)
                for number in part:
                    seeds = range(number * count, (number + 1) * count)
                    rows += self._rows(step, self.prompts[number], seeds)
                bar.update(len(part))
        self.journal.add(step, rows)

    def _sample(self, step: int, numbers: range) -> None:
        count = self.cfg.monitor_images
        seeds = range(numbers.start * count, numbers.stop * count)
        images = generate(
            self.policy,
            [self.prompts[number] for number in numbers for _ in range(count)],
            seeds,
            num_inference_steps=self.cfg.monitor_steps,
            guidance_scale=self.cfg.monitor_guidance_scale,
            batch_size=len(seeds),
        )
        for seed, image in zip(seeds, images, strict=True):
            file, pil_image = self.journal.folder / image_file(step, seed), grid(image[None], 1)
            file.parent.mkdir(parents=True, exist_ok=True)
            row = {**self.about, "prompt": self.prompts[seed // count], "seed": seed}
            png_text.save(pil_image, file, png_text.image_text(row, pil_image.size))

    def _rows(self, step: int, prompt: str, seeds: Sequence[int]) -> list[Row]:
        images, base = self._images(step, seeds), self._images(0, seeds)
        scores, embedded = self.panel.score(images, [prompt] * len(seeds))
        figures = {**statistics(images), "distance": diversity.pixel_distance(images, base)}
        if embedded is not None:
            figures |= self._of_embeddings(embedded, base, prompt, step)
        kinds = {
            kind: {name: value.cpu().double().tolist() for name, value in table.items()}
            for kind, table in (("scores", scores), ("statistics", figures))
        }
        self._check_finite(kinds["scores"], prompt, seeds)
        return [
            {"step": step, "prompt": prompt, "seed": seed, "file": image_file(step, seed)}
            | {kind: {name: values[i] for name, values in table.items()} for kind, table in kinds.items()}
            for i, seed in enumerate(seeds)
        ]

    def _images(self, step: int, seeds: Sequence[int]) -> Tensor:
        return torch.stack([read_image(self.journal.folder / image_file(step, seed)) for seed in seeds])

    def _of_embeddings(self, embedded: Tensor, base: Tensor, prompt: str, step: int) -> dict[str, Tensor]:
        """Distance to the base's, image by image, and the prompt's diversity, one number for all."""
        if step == 0:
            self._base[prompt] = embedded
        elif prompt not in self._base:
            self._base[prompt] = self.panel.embed(base)
        away = diversity.embedding_distance(embedded, self._base[prompt])
        return {
            "embedding-distance": away,
            DIVERSITY: away.new_full(away.shape, diversity.pairwise_distance(embedded)),
            "vendi": away.new_full(away.shape, diversity.vendi_score(embedded)),
        }

    def _check_finite(self, scores: dict[str, list[float]], prompt: str, seeds: Sequence[int]) -> None:
        for name, values in scores.items():
            for seed, value in zip(seeds, values, strict=True):
                if not math.isfinite(value):
                    who = self.about["trained"] if name == TRAINED else name
                    raise ValueError(
                        f"got the score {value} of {who} for prompt {prompt!r}, seed {seed}; expected a "
                        "number; correct the reward, or drop it from monitor_rewards, and add resume=latest"
                    )


def check_monitor(cfg: TrainConfig) -> None:
    """Raises ValueError for settings of the monitor that miss another one; before anything is loaded."""
    given = [key for key in ("monitor_rewards", "stop_on_hack", "keep_best") if getattr(cfg, key)]
    if given and cfg.monitor_prompts is None:
        raise ValueError(f"got {given[0]} without monitor_prompts; expected prompts to sample; set both")
    if cfg.stop_on_hack and not cfg.monitor_rewards:
        raise ValueError("got stop_on_hack without monitor_rewards; expected rewards to stop by; set both")
    if cfg.keep_best is not None and cfg.keep_best not in cfg.monitor_rewards:
        known = ", ".join(cfg.monitor_rewards) or "none"
        raise ValueError(f"got keep_best={cfg.keep_best}; expected one of monitor_rewards ({known}); add it")


def _short(value: object) -> str:
    return textwrap.shorten(repr(value), 80, placeholder=" ...")
