"""Two LoRAs of two rewards, mixed: each reward changes monotonically with its share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

import rewards
from rewards import Reward
from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.judged_run import RUN, TRAINING, train
from t2ialign.cli.mix import mix
from t2ialign.evaluation.statistics import bootstrap_ci, paired_difference
from t2ialign.io import atomic
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.models.lora_apply import load_lora
from t2ialign.models.lora_files import FILE, read_lora, write_diffusers
from t2ialign.web.charts import Chart, Curve, lines

SCORES = "scores.json"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""alpha: of the first reward's LoRA."""


class MixingClaim(Claim):
    """The same pictures, prompt by prompt and seed by seed, under five mixtures."""

    text = "Mixing the LoRAs of two rewards interpolates both rewards monotonically"
    paper = "Prabhudesai et al. 2023, arXiv 2310.03739; Clark et al., ICLR 2024, arXiv 2309.17400"
    rewards: ClassVar[dict[str, float]] = {"shapes-clip": 7e-4, "saturation": 7e-5}
    """Reward -> learning rate. At ten times its own, saturation paints every picture over."""
    max_steps: int = 60
    train_prompts: int = 400
    heldout_prompts: int = 120

    def measure(self, folder: Path, seed: int) -> None:
        """Train one LoRA for each reward, mix, render and score."""
        from t2ialign.toy.captions import draw_captions

        if (folder / SCORES).exists():
            return
        for name, lr in self.rewards.items():
            training = {
                **TRAINING,
                "reward": name,
                "lr": lr,
                "max_steps": self.max_steps,
                "evaluate_every": self.max_steps,
                "monitor_rewards": (),
            }
            train(folder / name, seed, training, self.train_prompts, self.heldout_prompts)
        captions = draw_captions(self.heldout_prompts, 7500 + seed, held_out=True)
        judges = rewards.load_all(self.rewards)
        scores = {f"{alpha:g}": self._scored(folder, alpha, captions, judges) for alpha in SHARES}
        atomic.write_json(folder / SCORES, {"prompts": captions, "scores": scores})

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """It holds if over all seeds the first reward never falls with alpha and the second never rises."""
        prompts, scores = self._scores(folders)
        first, second = self.rewards
        means = {
            name: {alpha: bootstrap_ci(column[name], prompts) for alpha, column in scores.items()}
            for name in self.rewards
        }
        up = [means[first][f"{alpha:g}"].mean for alpha in SHARES]
        down = [means[second][f"{alpha:g}"].mean for alpha in SHARES]
        ends = {
            name: paired_difference(scores["1"][name], scores["0"][name], prompts) for name in self.rewards
        }
        measured: dict[str, Any] = {
            "by_alpha": {name: {a: e.to_json() for a, e in column.items()} for name, column in means.items()},
            "from_0_to_1": {name: end.to_json() for name, end in ends.items()},
        }
        apart = ends[first].low > 0 and ends[second].high < 0
        holds = apart and up == sorted(up) and down == sorted(down, reverse=True)
        return [Row(self.text, measured, (ends[first].low, ends[first].high), holds)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Each reward by alpha, over all seeds."""
        _, scores = self._scores(folders)
        found = []
        for name in self.rewards:
            means = [torch.tensor(scores[f"{alpha:g}"][name]).double().mean().item() for alpha in SHARES]
            title = f"{name} by the share of the LoRA trained on {next(iter(self.rewards))}"
            body = lines(Chart(title, [Curve(name, [100 * alpha for alpha in SHARES], means)]))
            found.append(Figure(title, body, "share in per cent"))
        return found

    def _scored(
        self, folder: Path, alpha: float, captions: list[str], judges: Mapping[str, Reward]
    ) -> dict[str, list[float]]:
        first, second = (read_lora(folder / name / RUN).layers for name in self.rewards)
        place = folder / f"mix-{alpha:g}"
        place.mkdir(exist_ok=True)
        write_diffusers(mix(first, second, alpha), place / FILE, {})
        policy = load_policy("shapes")
        load_lora(policy, place)
        images = generate(
            policy,
            captions,
            range(len(captions)),
            num_steps=TRAINING["num_steps"],
            guidance=TRAINING["guidance"],
        )
        with torch.no_grad():
            return {name: judge(images, captions).tolist() for name, judge in judges.items()}

    def _scores(self, folders: Sequence[Path]) -> tuple[list[str], dict[str, dict[str, list[float]]]]:
        """The unit of the bootstrap of each picture of all seeds, and alpha -> reward -> scores."""
        prompts: list[str] = []
        scores: dict[str, dict[str, list[float]]] = {
            f"{alpha:g}": {name: [] for name in self.rewards} for alpha in SHARES
        }
        for seed, folder in zip(self.seeds, folders, strict=True):
            found = json.loads((folder / SCORES).read_text())
            prompts += [f"{seed} {prompt}" for prompt in found["prompts"]]
            for alpha, column in found["scores"].items():
                for name, values in column.items():
                    scores[alpha][name] += values
        return prompts, scores
