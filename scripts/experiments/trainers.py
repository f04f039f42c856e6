"""A short run of each trainer with the settings of its toy recipe, on what training never sees.

Trainers of the image model are judged by the oracle on images of held-out captions, at the guidance and steps
that suit the base model; those of scorers by pairs of its samples; the rewriter by phrasings of users.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rewards
from rewards.latent import saved
from rewards.toy.oracle import ToyOracle
from scripts.experiments import labelled_pairs, latent_reward, stepwise
from scripts.experiments import rewriter_runs as runs
from scripts.experiments.claim import SEEDS, Claim, Figure, MeasuredOnce, Row
from scripts.experiments.estimates import Table, bar_figure, judged
from scripts.experiments.rewrite import RewriterClaim, all_shown, answers, prompts_and_captions
from scripts.experiments.training import finish, recipe
from t2ialign.evaluation.provenance import source_hash
from t2ialign.io import atomic, jsonl

SHARED = "shared"
"""Beside the claims: pairs, latent reward and the base's verdicts, made by the first run to need them."""
PROMPTS, SAMPLES, UNSEEN, VERDICTS = "prompts.txt", "samples", "unseen", "base.json"
RENDERS, JUDGED, JUDGE = "renders", "judged.jsonl", "lrm"
BASE, TRAINED = "base", "trained"
METHODS = ("dpo", "lrm", "reward", "dense", "backprop", "lpo", "grpo")
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    method: recipe(f"{method}_toy", "heldout_prompts", *stepwise.MONITOR, trackers=()) for method in METHODS
}
"""Those of each toy recipe; what it watches while it trains is left out."""


class ShortRun(MeasuredOnce):
    """Base and trained, value by value on the same captions; a run holds if the difference is above 0."""

    seeds: tuple[int, ...] = (0,)
    single_seed = True
    result = "heldout.json"
    training: Mapping[str, Any]
    sampler: Mapping[str, Any] = labelled_pairs.SAMPLER

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """One row over the captions of all seeds."""
        table, categories = self._tables(folders)
        difference = table.difference(TRAINED, BASE)
        measured = {
            **table.means(),
            "difference": difference,
            "by_category": {name: part.means() for name, part in categories.items()},
            "sampler": self.sampler,
            "settings": self.training,
        }
        return [judged(self.text, measured, difference, difference.low > 0)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Base and trained, of all captions and by their category."""
        table, categories = self._tables(folders)
        parts = {"all": table, **categories}
        pairs = {name: (part.mean(BASE), part.mean(TRAINED)) for name, part in parts.items()}
        return [bar_figure(self.text, pairs, before=BASE, after=TRAINED)]

    def _tables(self, folders: Sequence[Path]) -> tuple[Table, dict[str, Table]]:
        """The captions of all seeds, and by category."""
        results, oracle = self.results(folders), ToyOracle()
        table = Table.of(self.seeds, results, lambda result: {side: result[side] for side in (BASE, TRAINED)})
        return table, table.by([oracle.category(text) for result in results for text in result["prompts"]])


class RecipeRun(ShortRun):
    """A run by one toy recipe, with the data that runs of a seed share."""

    captions: int = 480
    unseen: int = 240
    samples: int = 4
    """Captions drawn for training and for unseen pairs, and samples of each."""
    renders: int = 1500
    near_misses: int = 4
    """Captions that are rendered for the latent reward beside its samples, and near misses of each."""

    def __init__(self, method: str, *, seeds: Sequence[int] = (0,)) -> None:
        self.method, self.seeds, self.training = method, tuple(seeds), SETTINGS[method]
        self.judge_training = SETTINGS["lrm"]

    def shared(self, folder: Path, seed: int) -> Path:
        """The folder of what this seed's runs share; that of other code is left alone."""
        return folder.parents[1] / SHARED / source_hash() / f"seed-{seed}"

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train, and measure base and trained."""
        shared = self.shared(folder, seed)
        shared.mkdir(parents=True, exist_ok=True)
        return self.trained(shared, folder / "run", seed)

    @abstractmethod
    def trained(self, shared: Path, run: Path, seed: int) -> dict[str, Any]:
        """Train into `run`, with what lies in `shared` -> the result."""

    def pairs(self, shared: Path, seed: int, name: str = SAMPLES) -> Path:
        """The file of judged pairs of the base's samples, of training captions or of unseen ones."""
        unseen = name == UNSEEN
        count, draw = (self.unseen, 11_000 + seed) if unseen else (self.captions, 10_000 + seed)
        captions = labelled_pairs.distinct_captions(count, draw, held_out=unseen)
        first_seed = (2 * seed + unseen) * 100_000 + 10_000_000
        return labelled_pairs.sampled(
            shared / name, captions, self.samples, first_seed=first_seed, options=self.sampler
        )

    def judge(self, shared: Path, seed: int) -> Path:
        """The latent reward that is trained by its own recipe, on the pairs and on renders.

        On some hundred pairs of samples alone it learns them by heart (docs/lpo.md).
        """
        captions = labelled_pairs.distinct_captions(self.renders, 14_000 + seed, held_out=False)
        renders = labelled_pairs.rendered(shared / RENDERS, captions, self.near_misses, seed=seed)
        data = labelled_pairs.joined(shared / JUDGED, [self.pairs(shared, seed), renders])
        finish("lrm", {**self.judge_training, "data": str(data)}, shared / JUDGE, seed)
        return shared / JUDGE


class ImageRun(RecipeRun):
    """A LoRA of the image model; `latent`: its reward is the latent reward."""

    heldout: int = 300
    images: int = 2
    """Held-out captions, and images of each."""

    def __init__(self, method: str, *, seeds: Sequence[int] = (0,), latent: bool = False) -> None:
        super().__init__(method, seeds=seeds)
        self.latent = latent
        on = " on the latent reward" if latent else ""
        self.text = f"{method}{on} raises held-out oracle accuracy at the base model's best guidance"

    def trained(self, shared: Path, run: Path, seed: int) -> dict[str, Any]:
        """Whether the oracle passes each held-out image."""
        finish(self.method, {**self.training, **self.data(shared, seed)}, run, seed)
        prompts = stepwise.held_out_captions(self.heldout, 12_000 + seed, each=self.images)
        if not (shared / VERDICTS).exists():
            atomic.write_json(shared / VERDICTS, stepwise.oracle_on(None, prompts, seed, self.sampler))
        base = json.loads((shared / VERDICTS).read_text())
        return {"prompts": prompts, BASE: base, TRAINED: stepwise.oracle_on(run, prompts, seed, self.sampler)}

    def data(self, shared: Path, seed: int) -> dict[str, Any]:
        """The settings that name data: pairs for dpo, captions and a reward for the others."""
        if self.method == "dpo":
            return {"data": str(self.pairs(shared, seed))}
        captions = labelled_pairs.distinct_captions(self.captions, 10_000 + seed, held_out=False)
        (shared / PROMPTS).write_text("".join(f"{caption}\n" for caption in captions))
        values: dict[str, Any] = {"prompts": str(shared / PROMPTS)}
        if self.latent:
            values["reward"] = "latent"
        if self.latent or self.method == "lpo":
            values["reward_options"] = {"path": str(self.judge(shared, seed))}
        return values


class ScorerRun(RecipeRun):
    """The scorer before and after training on pairs: the oracle's, or those of a taste, a reward by name."""

    def __init__(self, method: str, *, taste: str | None = None) -> None:
        super().__init__(method)
        self.taste = taste
        how = f"by {taste}, a taste," if taste else "right"
        self.text = f"{method} orders held-out pairs of samples {how} more often than before"

    def trained(self, shared: Path, run: Path, seed: int) -> dict[str, Any]:
        """Whether each scorer orders each unseen pair as it should; a tie is wrong."""
        finish(self.method, {**self.training, "data": str(self.labelled(shared, seed))}, run, seed)
        before = rewards.load(self.training["reward"])
        scorers = {BASE: before, TRAINED: rewards.load("trained", weights=str(run))}
        return labelled_pairs.ordered(self.labelled(shared, seed, UNSEEN), scorers)

    def labelled(self, shared: Path, seed: int, name: str = SAMPLES) -> Path:
        """The file of pairs."""
        file = self.pairs(shared, seed, name)
        return labelled_pairs.tasted(shared / name, self.taste) if self.taste else file


class JudgeRun(RecipeRun):
    """The latent reward that judges lpo, against chance."""

    text = "lrm orders held-out pairs of samples right more often than chance"

    def trained(self, shared: Path, run: Path, seed: int) -> dict[str, Any]:
        """Whether it orders each unseen pair as the oracle does, almost without noise; the base is 0.5."""
        judge, file = saved.build(self.judge(shared, seed)), self.pairs(shared, seed, UNSEEN)
        margins = latent_reward.margins_at(judge, file, latent_reward.TIMES[0], seed)
        return {
            "prompts": [row["prompt"] for row in jsonl.read(file)],
            TRAINED: [float(margin > 0) for margin in margins],
            BASE: [0.5] * len(margins),
        }


class RewriterRun(ShortRun, RewriterClaim):
    """The user's prompt against its rewrite by SFT and GRPO, rendered from the same noise."""

    text = "A rewriter raises the oracle accuracy of users' phrasings at the base model's best guidance"
    training: Mapping[str, Any] = {"sft": runs.SFT_SETTINGS, "grpo": runs.GRPO_SETTINGS}
    heldout = 400

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train the rewriter, and render and judge prompts and rewrites for what is meant."""
        rewriter = self.rewriters(folder, seed, plain=False) / runs.GRPO
        prompts, captions = prompts_and_captions(self.phrasings(seed))
        images = runs.JudgedImages(captions, first_seed=13_000_000 + 10_000 * seed)
        sides = {BASE: prompts, TRAINED: answers(runs.written(rewriter, prompts), prompts)}
        return {
            "prompts": captions,
            **{side: list(map(all_shown, images.matches(texts))) for side, texts in sides.items()},
        }


CLAIMS: tuple[Claim, ...] = (
    *(ImageRun("dpo", seeds=SEEDS), JudgeRun("lrm"), ScorerRun("reward"), ImageRun("dense")),
    *(ImageRun("backprop"), ImageRun("backprop", latent=True), ImageRun("lpo", seeds=SEEDS), RewriterRun()),
    *(ScorerRun("reward", taste="saturation"), ImageRun("grpo")),
)
