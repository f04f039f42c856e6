"""Two LoRAs of two rewards, mixed: each reward changes monotonically with its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

import rewards
from rewards import Reward
from scripts.experiments.claim import Figure, MeasuredOnce, Row
from scripts.experiments.estimates import Table, average, judged, line_figure
from scripts.experiments.training import RUN, TRAINING, train
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.models.lora_apply import load_lora
from t2ialign.models.lora_files import FILE, read_lora, write_diffusers
from t2ialign.models.mixing import mix_layers

SCORES = "scores.json"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""alpha: of the first reward's LoRA."""


class MixingClaim(MeasuredOnce):
    """The same images, prompt by prompt and seed by seed, under five mixtures."""

    text = "Mixing the LoRAs of two rewards interpolates both rewards monotonically"
    paper = "Prabhudesai et al. 2023, arXiv 2310.03739; Clark et al., ICLR 2024, arXiv 2309.17400"
    result = SCORES
    rewards: ClassVar[dict[str, float]] = {"toy-clip": 7e-4, "saturation": 7e-5}
    """Reward -> learning rate. At ten times its own, saturation paints every image over."""
    max_steps: int = 60
    train_prompts: int = 400
    heldout_prompts: int = 120

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train one LoRA for each reward, mix, render and score: prompts, and alpha -> reward -> scores."""
        from t2ialign.toy.captions import draw_captions

        for name, lr in self.rewards.items():
            training = {**TRAINING, "reward": name, "lr": lr, "monitor_rewards": ()}
            training |= {"max_steps": self.max_steps, "evaluate_every": self.max_steps}
            train(folder / name, seed, training, self.train_prompts, self.heldout_prompts)
        captions = draw_captions(self.heldout_prompts, 7500 + seed, held_out=True)
        judges = rewards.load_all(self.rewards)
        scores = {f"{alpha:g}": self._scored(folder, alpha, captions, judges) for alpha in SHARES}
        return {"prompts": captions, "scores": scores}

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """It holds if over all seeds the first reward never falls with alpha and the second never rises."""
        tables = self._tables(folders)
        means = {name: table.means() for name, table in tables.items()}
        ends = {name: table.difference("1", "0") for name, table in tables.items()}
        (first, up), (second, down) = (
            (ends[name], [means[name][f"{alpha:g}"].mean for alpha in SHARES]) for name in self.rewards
        )
        apart = first.low > 0 and second.high < 0
        holds = apart and up == sorted(up) and down == sorted(down, reverse=True)
        return [judged(self.text, {"by_alpha": means, "from_0_to_1": ends}, first, holds)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Each reward by alpha, over all seeds."""
        title = f"{{}} by the share of the LoRA trained on {next(iter(self.rewards))}"
        return [
            line_figure(
                title.format(name),
                {name: {100 * alpha: average(table.columns[f"{alpha:g}"]) for alpha in SHARES}},
                "share in per cent",
            )
            for name, table in self._tables(folders).items()
        ]

    def _scored(
        self, folder: Path, alpha: float, captions: list[str], judges: Mapping[str, Reward]
    ) -> dict[str, list[float]]:
        first, second = (read_lora(folder / name / RUN).layers for name in self.rewards)
        place = folder / f"mix-{alpha:g}"
        place.mkdir(exist_ok=True)
        write_diffusers(mix_layers(first, second, alpha), place / FILE, {})
        policy = load_policy("toy")
        load_lora(policy, place)
        images = generate(
            policy,
            captions,
            range(len(captions)),
            num_inference_steps=TRAINING["num_inference_steps"],
            guidance_scale=TRAINING["guidance_scale"],
        )
        with torch.no_grad():
            return {name: judge(images, captions).tolist() for name, judge in judges.items()}

    def _tables(self, folders: Sequence[Path]) -> dict[str, Table]:
        """Reward -> its scores of every image of all seeds, a column for each alpha."""
        results = self.results(folders)
        return {
            name: Table.pooled(
                self.seeds,
                [
                    Table(seed["prompts"], {alpha: column[name] for alpha, column in seed["scores"].items()})
                    for seed in results
                ],
            )
            for name in self.rewards
        }
