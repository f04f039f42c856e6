"""Two LoRAs of two rewards, mixed: each reward changes monotonically with its share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import t2ialign
from scripts.experiments.claim import Figure, MeasuredOnce, Row
from scripts.experiments.estimates import Table, average, judged, line_figure
from scripts.experiments.training import RUN, TRAINING, train

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
        scores = {f"{alpha:g}": self._scored(folder, alpha, captions) for alpha in SHARES}
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

    def _scored(self, folder: Path, alpha: float, captions: list[str]) -> dict[str, list[float]]:
        """Reward -> its scores of an image of each caption, with `alpha` of the first LoRA."""
        first, second = (folder / name / RUN for name in self.rewards)
        sampler = {name: TRAINING[name] for name in ("num_inference_steps", "guidance_scale")}
        with TemporaryDirectory() as place:
            t2ialign.mix(first, second, f"{place}/lora", alpha=alpha)
            samples = t2ialign.sample("toy", captions, loras=f"{place}/lora", **sampler)
        scores = t2ialign.score(samples, list(self.rewards))
        return {name: scores[name].tolist() for name in self.rewards}

    def _tables(self, folders: Sequence[Path]) -> dict[str, Table]:
        """Reward -> its scores of every image of all seeds, a column for each alpha."""
        results = self.results(folders)

        def of(name: str) -> Table:
            return Table.of(
                self.seeds,
                results,
                lambda seed: {alpha: column[name] for alpha, column in seed["scores"].items()},
            )

        return {name: of(name) for name in self.rewards}
