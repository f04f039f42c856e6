"""Several rewrites of a prompt, a picture of each, the best by the key points of the user's prompt kept.

The oracle chooses and measures, so the best of several never shows less than the first of them: what tells
something of rewriting is the second row, against as many pictures of one rewrite.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.experiments import rewriter_runs as runs
from scripts.experiments.claim import Row
from scripts.experiments.rewriter_pictures import Pictures
from scripts.experiments.rewriting_gain import RESULT, RewriterClaim, units_of
from t2ialign.evaluation.statistics import bootstrap_ci, paired_difference
from t2ialign.io import atomic
from t2ialign.rewriting.language import AGAIN
from t2ialign.rewriting.parse import parse

ONE, REWRITES, SEEDS = "one rewrite", "best of rewrites", "best of seeds of one rewrite"


class BestOfClaim(RewriterClaim):
    """The first rewrite is greedy, the others are drawn; beside it as many seeds of the first one."""

    text = "The best of 4 rewrites, judged on the user's prompt, beats one rewrite"
    more = "It also beats the best of 4 pictures of the one rewrite"
    heldout = 300
    n: int = 4

    def measure(self, folder: Path, seed: int) -> None:
        """Write, render and judge."""
        if (folder / RESULT).exists():
            return
        rewriter, asked = self.rewriters(folder, seed, plain=False) / runs.GRPO, self.asked(seed)
        prompts = [phrasing.prompt for phrasing in asked]
        texts = [
            [
                parse(output, prompt).answer
                for output, prompt in zip(
                    runs.written(
                        rewriter,
                        prompts,
                        temperature=AGAIN if draw else 0.0,
                        seed=10_000 * seed + 1000 * draw,
                    ),
                    prompts,
                    strict=True,
                )
            ]
            for draw in range(self.n)
        ]
        pictures = Pictures([phrasing.caption for phrasing in asked], first_seed=5_000_000 + 10_000 * seed)
        found = {
            REWRITES: [pictures.matches(each, draw=draw) for draw, each in enumerate(texts)],
            SEEDS: [pictures.matches(texts[0], draw=draw) for draw in range(self.n)],
        }
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(
            folder / RESULT,
            {"captions": pictures.captions, "texts": texts, "matches": found},
        )

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Two rows over the prompts of all seeds."""
        found = [runs.read_json(folder / RESULT) for folder in folders]
        units = units_of(found)
        right = {
            ONE: [float(all(own)) for each in found for own in each["matches"][REWRITES][0]],
            **{
                name: [
                    float(all(best(draws)))
                    for each in found
                    for draws in zip(*each["matches"][name], strict=True)
                ]
                for name in (REWRITES, SEEDS)
            },
        }
        accuracy = {name: bootstrap_ci(values, units).to_json() for name, values in right.items()}
        gain, over = (paired_difference(right[REWRITES], right[name], units) for name in (ONE, SEEDS))
        return [
            Row(
                self.text,
                {**accuracy, "gain": gain.to_json(), "chosen_by": "the oracle, which also measures"},
                (gain.low, gain.high),
                gain.low > 0,
            ),
            Row(self.more, {"gain": over.to_json()}, (over.low, over.high), over.low > 0),
        ]


def best(draws: Sequence[list[float]]) -> list[float]:
    """The matches of the picture with the highest mean; the first of equals."""
    return max(draws, key=lambda own: sum(own) / len(own))
