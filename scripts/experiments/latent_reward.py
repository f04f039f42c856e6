"""A latent reward against the oracle's labels, by timestep, and against a CLIP on one-step predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from scipy.stats import spearmanr
from torch import Tensor

import rewards
from rewards.latent import saved
from rewards.latent.lrm import LRM
from scripts.experiments import labelled_pairs
from scripts.experiments.claim import Figure, MeasuredOnce, Row
from scripts.experiments.estimates import Table, judged, line_figure
from scripts.experiments.training import finish, recipe
from t2ialign.diffusion.noise import normal_rows
from t2ialign.evaluation.manifest_scores import read_image
from t2ialign.io import jsonl
from t2ialign.models.base import Policy
from t2ialign.models.load import load_policy
from t2ialign.progress import Progress
from t2ialign.toy.suite import GUIDANCE

MARGINS = "margins.json"
TIMES = (1, 101, 201, 301, 401, 501, 601, 701, 751, 851, 951)
MIDDLE, HIGH = 501, 751
"""Mid noise, where the latent reward is set against the CLIP, and high noise."""
BATCH = 64
LEAST, TREND = 0.85, -0.9
TRAINING = recipe("lrm_toy", max_steps=1400, holdout=0.05, heldout_timesteps=(1, 501), trackers=())
FINE_TUNING = recipe("reward_toy", holdout=0.05, trackers=())
"""Of the CLIP that the latent reward is compared with, on the same pairs."""


class LatentRewardClaim(MeasuredOnce):
    """Training and test share no caption; some pairs are samples of the model, some are near-miss renders."""

    text = "A latent reward orders unseen pairs as the oracle does in >= 85 % at t = 1"
    falls = "Its accuracy falls with the timestep: Spearman <= -0.9"
    chance = "At t = 750 it is still above chance"
    middle = "At mid noise it beats toy-clip, trained on the same pairs, on the one-step prediction of x_0"
    paper = "Zhang et al., NeurIPS 2025, arXiv 2502.01051"
    result = MARGINS
    sample_captions: tuple[int, int] = (500, 170)
    samples: int = 6
    """Captions drawn for training and for the test, and samples of each."""
    render_captions: tuple[int, int] = (4000, 700)
    near_misses: tuple[int, int] = (8, 2)
    """The same for the renders, in training and in the test."""
    options: ClassVar[dict[str, Any]] = labelled_pairs.SAMPLER
    training: ClassVar[dict[str, Any]] = TRAINING
    fine_tuning: ClassVar[dict[str, Any]] = FINE_TUNING

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Make the pairs, train both rewards on them, and score the unseen ones at every timestep."""
        train, test = (self.pairs(folder, seed, place) for place in (0, 1))
        for name, method, settings in (("lrm", "lrm", self.training), ("clip", "reward", self.fine_tuning)):
            finish(method, {**settings, "data": str(train)}, folder / name, seed)
        judge = saved.build(folder / "lrm")
        clip = rewards.load("trained", weights=str(folder / "clip"))
        rows = jsonl.read(test)
        return {
            "prompts": [row["prompt"] for row in rows],
            "kinds": [row["chosen"].partition("/")[0] for row in rows],
            "margins": _margins(folder, rows, judge, clip, seed),
        }

    def pairs(self, folder: Path, seed: int, place: int) -> Path:
        """The file of the training pairs (0) or of the test's (1)."""
        name, held_out = (("train", False), ("test", True))[place]
        first, second = (
            labelled_pairs.distinct_captions(count, 9000 + 10 * seed + 2 * place + i, held_out=held_out)
            for i, count in enumerate((self.sample_captions[place], self.render_captions[place]))
        )
        start = (2 * seed + place) * 100_000 + 7_000_000
        home, renders = folder / f"{name}-samples", folder / f"{name}-renders"
        parts = [
            labelled_pairs.sampled(home, first, self.samples, first_seed=start, options=self.options),
            labelled_pairs.rendered(renders, second, self.near_misses[place], seed=start),
        ]
        return labelled_pairs.joined(folder / f"{name}.jsonl", parts)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Four rows, over the pairs of all seeds."""
        table, kinds = self._right(folders)
        means = table.means()
        by_t = {t: means[f"t{t}"] for t in TIMES}
        trend = float(spearmanr(list(by_t), [estimate.mean for estimate in by_t.values()]).statistic)
        measured = {
            "accuracy_by_timestep": {str(t): estimate for t, estimate in by_t.items()},
            "at_t_1_by_kind": {kind: pairs.mean("t1") for kind, pairs in table.by(kinds).items()},
            "steps": self.training["max_steps"],
        }
        clips = [name for name in means if name.startswith("clip")]
        against = {name: table.difference(f"t{MIDDLE}", name) for name in clips}
        best = min(against.values(), key=lambda difference: difference.mean)
        middle = {"latent": by_t[MIDDLE], **{name: means[name] for name in clips}, "differences": against}
        first, high = by_t[1], by_t[HIGH]
        return [
            judged(self.text, measured, first, first.mean >= LEAST),
            judged(self.falls, {"spearman": trend}, None, trend <= TREND),
            judged(self.chance, {"accuracy": high}, high, high.low > 0.5),
            judged(self.middle, middle, best, best.low > 0),
        ]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Accuracy by timestep, of all pairs and of each kind."""
        table, kinds = self._right(folders)
        parts = {"all pairs": table, **table.by(kinds)}
        curves = {name: {t: pairs.mean(f"t{t}").mean for t in TIMES} for name, pairs in parts.items()}
        return [line_figure("Accuracy by timestep", curves, "0.5 is chance", across="timestep")]

    def _right(self, folders: Sequence[Path]) -> tuple[Table, list[str]]:
        """Whether each scorer is right on each pair of all seeds, and the kinds of the pairs."""
        results = self.results(folders)
        kinds = [kind.removeprefix("test-") for seed in results for kind in seed["kinds"]]
        return labelled_pairs.right(self.seeds, results), kinds


@torch.no_grad()
def _margins(
    folder: Path, rows: Sequence[dict[str, Any]], judge: LRM, clip: rewards.Reward, seed: int
) -> dict[str, list[float]]:
    """S(chosen) - S(rejected) of every pair: the latent reward's by timestep, the CLIP's by guidance."""
    margins = dict[str, list[float]]()
    for pairs in _batches(folder, rows, seed):
        part = {f"t{t}": pairs.by_latent(judge, t) for t in TIMES}
        part |= {f"clip@{g:g}": pairs.by_prediction(clip, MIDDLE, g) for g in (1.0, GUIDANCE)}
        for name, values in part.items():
            margins.setdefault(name, []).extend(values)
    return margins


@torch.no_grad()
def margins_at(judge: LRM, file: Path, t: int, seed: int) -> list[float]:
    """S(chosen) - S(rejected) of every pair of a file, by a latent reward at t."""
    batches = _batches(file.parent, jsonl.read(file), seed)
    return [margin for pairs in batches for margin in pairs.by_latent(judge, t)]


def _batches(folder: Path, rows: Sequence[dict[str, Any]], seed: int) -> Iterator[NoisyPairs]:
    policy = load_policy("toy")
    for start in Progress(range(0, len(rows), BATCH), desc="unseen pairs", unit="batch", delay=3):
        yield NoisyPairs(policy, folder, rows[start : start + BATCH], key=(seed, start))


class NoisyPairs:
    """Some pairs as latents, noised to any timestep, each side with noise of its own."""

    def __init__(
        self, policy: Policy, folder: Path, rows: Sequence[dict[str, Any]], *, key: tuple[int, int]
    ) -> None:
        self.policy, self.key = policy, key
        self.prompts = [row["prompt"] for row in rows]
        self.cond = policy.encode_prompts(self.prompts)
        self.latents = [
            policy.encode_images(torch.stack([read_image(folder / row[side]) for row in rows]))[0]
            for side in ("chosen", "rejected")
        ]

    def by_latent(self, reward: LRM, t: int) -> list[float]:
        """Margins of a latent reward at t."""
        text = reward.encode_prompts(self.prompts)
        return self._margins(t, lambda x, times: reward.score_encoded(x, times, text))

    def by_prediction(self, reward: rewards.Reward, t: int, guidance_scale: float) -> list[float]:
        """Margins of a reward of images on the one-step prediction of x_0 from t."""

        def score(x: Tensor, times: Tensor) -> Tensor:
            out = self.policy.guided(x, times, self.cond, guidance_scale)
            return reward(self.policy.decode(self.policy.posterior_mean(out, x, times)), self.prompts)

        return self._margins(t, score)

    def _margins(self, t: int, score: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
        times = torch.full((len(self.prompts),), t)
        scores = []
        for side, x in enumerate(self.latents):
            eps = normal_rows(x.shape[1:], [(*self.key, t, side, i) for i in range(len(x))])
            scores.append(score(self.policy.renoise(x, eps, times), times))
        return (scores[0] - scores[1]).tolist()
