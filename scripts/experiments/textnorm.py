"""TextNorm against the raw scorer under TIA2's protocol, with the oracle as the annotator.

For each prompt 50 images of the toy model; per prompt the AUROC of the score against the oracle's
verdict, averaged over the prompts whose images do not all pass or all fail. One scale a scorer, the one of a
grid with the best AUROC on prompts that are not tested. As in the paper there is an ensemble too: "both".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rewards
from rewards.scorers.textnorm import TextNorm, normalised, pooled, toy_near_misses
from rewards.toy.captions import RELATIONS, Caption, Noun, parse
from scripts.experiments.claim import Claim, Figure, Row, resumable
from scripts.experiments.estimates import Table, bar_figure, judged
from t2ialign.evaluation import ranking
from t2ialign.io import jsonl
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.toy.captions import draw_caption, write
from t2ialign.toy.suite import GUIDANCE, STEPS

JOURNAL = "prompts.jsonl"
NAMES = {"count": "counting", "pair": "composition", "relation": "relation"}
"""Caption categories of the toy world, and what TIA2 calls such sets (it has no relations)."""
BOTH = "both"
"""Mean of the scorers' TextNorms, against the sum of their raw scores."""
SIDES = ("raw", "textnorm")
SCALES = tuple(float(scale) for scale in np.geomspace(1, 100, 13))
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auroc": ranking.auroc,
    "auprc": ranking.auprc,
    "ap10": partial(ranking.average_precision_at, 10),
    "spearman": ranking.spearman,
    "kendall": ranking.kendall,
}


class TextNormClaim(Claim):
    """A row for each prompt set and scorer; it holds if the paired difference of AUROC is above 0."""

    text = "TextNorm's AUROC against the oracle beats the raw scorer's on counting, composition and relations"
    paper = "Kim et al., ICLR 2024, arXiv 2404.01863, table 1"
    scorers: tuple[str, ...] = ("toy-clip", "toy-clip-b")
    tested: int = 36
    fitted: int = 10
    """Prompts of each set that are tested, and that the scale is fitted on."""
    images: int = 50

    def measure(self, folder: Path, seed: int) -> None:
        """A journal line for each prompt: the oracle's labels of its images, the scorers' raw rows."""
        policy, oracle = load_policy("toy", device="cpu"), rewards.load("toy-oracle")
        scorers = {name: TextNorm(rewards.load(name), contrasts, scale=1.0) for name in self.scorers}
        sampler: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
        numbered = self.prompts(seed)
        first_seeds = {text: 1_000_000 * seed + 100 * number for _, text, number in numbered}

        @torch.no_grad()
        def measured(item: Mapping[str, Any]) -> dict[str, Any]:
            texts, first = [item["prompt"]] * self.images, first_seeds[item["prompt"]]
            images = generate(policy, texts, range(first, first + self.images), **sampler)
            raw = {name: scorer.raw(images, texts) for name, scorer in scorers.items()}
            rounded = {
                name: [[round(value, 7) for value in scores.tolist()] for scores in rows]
                for name, rows in raw.items()
            }
            return {"labels": oracle(images, texts).tolist(), **rounded}

        items = [{"category": category, "prompt": text} for category, text, _ in numbered]
        resumable(folder / JOURNAL, items, measured, f"TextNorm, seed {seed}")

    def prompts(self, seed: int) -> list[tuple[str, str, int]]:
        """(category, caption, its number) of `fitted` + `tested` distinct captions a set."""
        numbered, wanted = [], self.fitted + self.tested
        for place, category in enumerate(NAMES):
            rng, texts = np.random.default_rng((seed, place)), dict[str, None]()
            for _ in range(10_000):
                if len(texts) == wanted:
                    break
                texts.setdefault(write(draw_caption(rng, category)))
            assert len(texts) == wanted, f"too few captions of category {category}"
            numbered += [(category, text, 1000 * place + i) for i, text in enumerate(texts)]
        return numbered

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """A row for each set and scorer."""
        rows = []
        for scorer in (*self.scorers, BOTH):
            tables, scales = self._tables(folders, scorer)
            over = "both scorers" if scorer == BOTH else scorer
            itself = "their sum" if scorer == BOTH else "the raw score"
            for category, name in NAMES.items():
                table = tables[category]
                difference = table.difference("auroc_textnorm", "auroc_raw")
                measured: dict[str, Any] = {
                    **{side: table.mean(f"auroc_{side}") for side in SIDES},
                    "difference": difference,
                    "scale_by_seed": scales,
                    "images_a_prompt": self.images,
                    "prompts_drawn": self.tested * len(folders),
                    **{column: float(np.mean(values)) for column, values in table.columns.items()},
                }
                text = (
                    f"TextNorm over {over} ranks the images of {name} prompts better than {itself} does "
                    "(mean AUROC over prompts, paired)"
                )
                rows.append(judged(text, measured, difference, difference.low > 0))
        return rows

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """A bar chart for each scorer."""
        charts = []
        for scorer in (*self.scorers, BOTH):
            tables, _ = self._tables(folders, scorer)
            means = {name: tables[category].means() for category, name in NAMES.items()}
            pairs = {name: (each["auroc_raw"], each["auroc_textnorm"]) for name, each in means.items()}
            title, chance = f"AUROC against the oracle: {scorer}", "50 % is chance"
            charts.append(bar_figure(title, pairs, before="raw", after="TextNorm", note=chance))
        return charts

    def _tables(self, folders: Sequence[Path], scorer: str) -> tuple[dict[str, Table], list[list[float]]]:
        """Category -> every METRIC of both SIDES, a row for each prompt of all seeds; the scales by seed."""
        tables, categories, scales = list[Table](), list[str](), []
        members = self.scorers if scorer == BOTH else (scorer,)
        for seed, folder in zip(self.seeds, folders, strict=True):
            lines = {line["prompt"]: line for line in jsonl.read(folder / JOURNAL)}
            numbered = [(lines[text], number % 1000 < self.fitted) for _, text, number in self.prompts(seed)]
            mixed = [(line, fit) for line, fit in numbered if np.ptp(line["labels"]) > 0]
            chosen = [_best_scale([line for line, fit in mixed if fit], name) for name in members]
            scales.append(chosen)
            tested = [line for line, fit in mixed if not fit]
            measured = [_measures(line, dict(zip(members, chosen, strict=True))) for line in tested]
            columns = {name: [one[name] for one in measured] for name in measured[0]}
            tables.append(Table([line["prompt"] for line in tested], columns))
            categories += [line["category"] for line in tested]
        return Table.pooled(self.seeds, tables).by(categories), scales


def contrasts(prompt: str) -> list[str]:
    """Contrasts of a caption of the toy world, after TIA2's recipes.

    Counting: near misses by rule. Composition: either thing alone, two of either, colours exchanged, and one
    colour or shape taken from the other thing; for relations also the other relations and the reverse.
    """
    caption = parse(prompt)
    if caption.category == "count":
        return toy_near_misses(prompt)
    a, b = caption.nouns
    changed = [Caption("attribute", (noun,)) for noun in (a, b)]
    changed += [Caption("count", (noun,), count=2) for noun in (a, b)]
    ab, ba = Noun(a.colour, b.shape), Noun(b.colour, a.shape)
    mixed = [(ba, ab), (a, ab), (ba, b), (ab, b), (a, ba)]
    changed += [Caption(caption.category, (x, y), link=caption.link) for x, y in mixed if x != y]
    if caption.category == "relation":
        changed += [Caption(caption.category, (a, b), link=link) for link in RELATIONS]
        changed += [Caption(caption.category, (b, a), link=caption.link)]
    ordered = [item for item in changed if item.category != "pair" or set(item.nouns) != {a, b}]
    return [text for text in dict.fromkeys(map(write, ordered)) if text != prompt]


def _best_scale(rows: Sequence[dict[str, Any]], scorer: str) -> float:
    """The scale of the grid with the best mean AUROC over the prompts."""
    raw = [[torch.tensor(scores) for scores in row[scorer]] for row in rows]

    def mean_auroc(scale: float) -> float:
        normed = [normalised(scores, scale=scale, form="logit").numpy() for scores in raw]
        return float(np.mean([ranking.auroc(r["labels"], n) for r, n in zip(rows, normed, strict=True)]))

    return SCALES[int(np.argmax([mean_auroc(scale) for scale in SCALES]))]


def _measures(row: dict[str, Any], scales: dict[str, float]) -> dict[str, float]:
    """Every METRIC of a prompt's raw scores, summed over the scorers, and of the mean of their TextNorms."""
    raw = {name: [torch.tensor(scores, dtype=torch.float64) for scores in row[name]] for name in scales}
    summed = np.sum([[float(scores[0]) for scores in images] for images in raw.values()], axis=0)
    logs = [normalised(raw[name], scale=scale, form="log") for name, scale in scales.items()]
    sides = dict(zip(SIDES, (summed, pooled(torch.stack(logs), log=True).numpy()), strict=True))
    labels = np.array(row["labels"])
    return {
        f"{name}_{side}": metric(labels, scores)
        for side, scores in sides.items()
        for name, metric in METRICS.items()
    }
