"""TextNorm against the raw scorer under TIA2's protocol, with the oracle as the annotator.

For each prompt 50 images of the embedded model; per prompt the AUROC of the score against the oracle's
verdict, averaged over the prompts whose images do not all pass or all fail. One scale a scorer, the one of a
grid with the best AUROC on prompts that are not tested. As in the paper there is an ensemble too: "both".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rewards
from rewards.scorers.textnorm import TextNorm, normalised, pooled, shapes_near_misses
from rewards.toy.captions import RELATIONS, Caption, Noun, parse
from scripts.experiments.claim import Claim, Figure, Row
from t2ialign.evaluation import ranking
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, paired_difference
from t2ialign.io import jsonl
from t2ialign.progress import Progress
from t2ialign.web.charts import Bar, bars

JOURNAL = "prompts.jsonl"
NAMES = {"count": "counting", "pair": "composition", "relation": "relation"}
"""Caption categories of the embedded world, and what TIA2 calls such sets (it has no relations)."""
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
    scorers: tuple[str, ...] = ("shapes-clip", "shapes-clip-b")
    tested: int = 36
    """Prompts of each set that are tested."""
    fitted: int = 10
    """Prompts of each set that the scale is fitted on."""
    images: int = 50
    batch: int = 100

    def measure(self, folder: Path, seed: int) -> None:
        """Sample, judge and score prompt by prompt, a journal line each."""
        from rewards.toy.oracle import ShapesOracle
        from t2ialign.models.generate import generate
        from t2ialign.models.load import load_policy
        from t2ialign.toy.suite import GUIDANCE, STEPS

        folder.mkdir(parents=True, exist_ok=True)
        file = folder / JOURNAL
        lines, asked = jsonl.read(file), self.prompts(seed)
        if file.exists():
            jsonl.rewrite(file, lines)  # without a torn last line
        done = {line["prompt"] for line in lines}
        left = [item for item in asked if item[1] not in done]
        if not left:
            return
        policy, oracle = load_policy("shapes", device="cpu"), ShapesOracle()
        scorers = {name: TextNorm(rewards.load(name), contrasts, scale=1.0) for name in self.scorers}
        at_once = max(1, self.batch // self.images)
        parts = [left[start : start + at_once] for start in range(0, len(left), at_once)]
        with Progress(
            total=len(asked), initial=len(done), desc=f"TextNorm, seed {seed}", unit="prompt"
        ) as bar:
            for part in parts:
                texts = [text for _, text, _ in part for _ in range(self.images)]
                first = [1_000_000 * seed + 100 * number for *_, number in part]
                seeds = [start + i for start in first for i in range(self.images)]
                images = generate(
                    policy, texts, seeds, num_steps=STEPS, guidance=GUIDANCE, batch_size=self.batch
                )
                jsonl.append(file, self._lines(part, images, oracle(images, texts), scorers))
                bar.update(len(part))

    def _lines(
        self,
        part: Sequence[tuple[str, str, int]],
        images: torch.Tensor,
        labels: torch.Tensor,
        scorers: Mapping[str, TextNorm],
    ) -> list[dict[str, Any]]:
        """What the journal says of each prompt of a part: the oracle's labels, the scorers' raw rows."""
        lines = []
        for row, (category, text, _) in enumerate(part):
            mine = slice(row * self.images, (row + 1) * self.images)
            line: dict[str, Any] = {"category": category, "prompt": text, "labels": labels[mine].tolist()}
            with torch.no_grad():
                for name, scorer in scorers.items():
                    raw = scorer.raw(images[mine], [text] * self.images)
                    line[name] = [[round(value, 7) for value in one.tolist()] for one in raw]
            lines.append(line)
        return lines

    def prompts(self, seed: int) -> list[tuple[str, str, int]]:
        """(category, caption, its number) of `fitted` + `tested` distinct captions a set."""
        from t2ialign.toy.captions import draw_caption, write

        found = []
        for place, category in enumerate(NAMES):
            rng, texts = np.random.default_rng((seed, place)), dict[str, None]()
            for _ in range(10_000):
                if len(texts) == self.fitted + self.tested:
                    break
                texts.setdefault(write(draw_caption(rng, category)))
            assert len(texts) == self.fitted + self.tested, f"too few captions of category {category}"
            found += [(category, text, 1000 * place + i) for i, text in enumerate(texts)]
        return found

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """A row for each set and scorer."""
        found = []
        for scorer in (*self.scorers, BOTH):
            table, scales = self._figures(folders, scorer)
            for category, name in NAMES.items():
                raw, normed, difference = _estimates(table[category])
                measured: dict[str, Any] = {
                    "raw": raw.to_json(),
                    "textnorm": normed.to_json(),
                    "difference": difference.to_json(),
                    "scale_by_seed": scales,
                    "images_a_prompt": self.images,
                    "prompts_drawn": self.tested * len(folders),
                }
                for metric in METRICS:
                    for side in SIDES:
                        each = [row[side][metric] for row in table[category].values()]
                        measured[f"{metric}_{side}"] = float(np.mean(each))
                over = "both scorers" if scorer == BOTH else scorer
                itself = "their sum" if scorer == BOTH else "the raw score"
                text = (
                    f"TextNorm over {over} ranks the images of {name} prompts better than {itself} does "
                    "(mean AUROC over prompts, paired)"
                )
                found.append(Row(text, measured, (difference.low, difference.high), difference.low > 0))
        return found

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """A bar chart for each scorer."""
        charts = []
        for scorer in (*self.scorers, BOTH):
            table, _ = self._figures(folders, scorer)
            rows = [Bar(name, *_estimates(table[category])[:2]) for category, name in NAMES.items()]
            body = bars(rows, before="raw", after="TextNorm")
            charts.append(Figure(f"AUROC against the oracle: {scorer}", body, "50 % is chance"))
        return charts

    def _figures(
        self, folders: Sequence[Path], scorer: str
    ) -> tuple[dict[str, dict[str, Any]], list[list[float]]]:
        """{category: {"seed prompt": {"raw": metrics, "textnorm": metrics}}} of all seeds, and the scales."""
        table: dict[str, dict[str, Any]] = {category: {} for category in NAMES}
        scales = []
        members = self.scorers if scorer == BOTH else (scorer,)
        for seed, folder in zip(self.seeds, folders, strict=True):
            lines = {row["prompt"]: row for row in jsonl.read(folder / JOURNAL)}
            numbered = [(lines[text], number % 1000 < self.fitted) for _, text, number in self.prompts(seed)]
            judged = [(row, fit) for row, fit in numbered if np.ptp(row["labels"]) > 0]
            chosen = [_best_scale([row for row, fit in judged if fit], name) for name in members]
            scales.append(chosen)
            for row in (row for row, fit in judged if not fit):
                labels = np.array(row["labels"])
                both = zip(SIDES, _scores(row, dict(zip(members, chosen, strict=True))), strict=True)
                table[row["category"]][f"{seed} {row['prompt']}"] = {
                    side: {name: metric(labels, scores) for name, metric in METRICS.items()}
                    for side, scores in both
                }
        return table, scales


def contrasts(prompt: str) -> list[str]:
    """Contrasts of a caption of the embedded world, after TIA2's recipes.

    Counting: near misses by rule. Composition: either thing alone, two of either, colours exchanged, and one
    colour or shape taken from the other thing; for relations also the other relations and the reverse.
    """
    caption = parse(prompt)
    if caption.category == "count":
        return shapes_near_misses(prompt)
    from t2ialign.toy.captions import write

    a, b = caption.nouns
    found = [Caption("attribute", (noun,)) for noun in (a, b)]
    found += [Caption("count", (noun,), count=2) for noun in (a, b)]
    ab, ba = Noun(a.colour, b.shape), Noun(b.colour, a.shape)
    mixed = [(ba, ab), (a, ab), (ba, b), (ab, b), (a, ba)]
    found += [Caption(caption.category, (x, y), link=caption.link) for x, y in mixed if x != y]
    if caption.category == "relation":
        found += [Caption(caption.category, (a, b), link=link) for link in RELATIONS]
        found += [Caption(caption.category, (b, a), link=caption.link)]
    ordered = [item for item in found if item.category != "pair" or set(item.nouns) != {a, b}]
    return [text for text in dict.fromkeys(map(write, ordered)) if text != prompt]


def _best_scale(rows: Sequence[dict[str, Any]], scorer: str) -> float:
    """The scale of the grid with the best mean AUROC over the prompts."""
    raw = [[torch.tensor(one) for one in row[scorer]] for row in rows]
    mean = [
        np.mean(
            [
                ranking.auroc(row["labels"], normalised(own, scale=scale, form="logit").numpy())
                for row, own in zip(rows, raw, strict=True)
            ]
        )
        for scale in SCALES
    ]
    return SCALES[int(np.argmax(mean))]


def _scores(row: dict[str, Any], scales: dict[str, float]) -> Iterator[np.ndarray]:
    """The raw scores of a prompt's images, summed over the scorers, and the mean of their TextNorms."""
    raw = {name: [torch.tensor(one, dtype=torch.float64) for one in row[name]] for name in scales}
    yield np.sum([[float(one[0]) for one in own] for own in raw.values()], axis=0)
    logs = [normalised(raw[name], scale=scale, form="log") for name, scale in scales.items()]
    yield pooled(torch.stack(logs), log=True).numpy()


def _estimates(table: dict[str, Any]) -> tuple[Estimate, Estimate, Estimate]:
    """AUROC of both sides and their paired difference, by prompt."""
    raw, normed = ([row[side]["auroc"] for row in table.values()] for side in SIDES)
    names = list(table)
    return bootstrap_ci(raw, names), bootstrap_ci(normed, names), paired_difference(normed, raw, names)
