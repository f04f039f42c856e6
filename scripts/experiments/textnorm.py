"""TextNorm against the raw scorer under TIA2's protocol, with the oracle as the annotator.

For each prompt 50 images of the toy model; per prompt the AUROC of the score against the oracle's
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
from rewards.scorers.textnorm import TextNorm, normalised, pooled, toy_near_misses
from rewards.toy.captions import RELATIONS, Caption, Noun, parse
from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.estimates import Table, bar_figure, judged
from t2ialign.evaluation import ranking
from t2ialign.io import jsonl
from t2ialign.progress import Progress

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
    """Prompts of each set that are tested."""
    fitted: int = 10
    """Prompts of each set that the scale is fitted on."""
    images: int = 50
    batch: int = 100

    def measure(self, folder: Path, seed: int) -> None:
        """Sample, judge and score prompt by prompt, a journal line each."""
        from rewards.toy.oracle import ToyOracle
        from t2ialign.models.generate import generate
        from t2ialign.models.load import load_policy
        from t2ialign.toy.suite import GUIDANCE, STEPS

        folder.mkdir(parents=True, exist_ok=True)
        file = folder / JOURNAL
        lines, prompts = jsonl.read(file), self.prompts(seed)
        if file.exists():
            jsonl.rewrite(file, lines)  # without a torn last line
        done = {line["prompt"] for line in lines}
        missing = [prompt for prompt in prompts if prompt[1] not in done]
        if not missing:
            return
        policy, oracle = load_policy("toy", device="cpu"), ToyOracle()
        scorers = {name: TextNorm(rewards.load(name), contrasts, scale=1.0) for name in self.scorers}
        at_once = max(1, self.batch // self.images)
        bar = Progress(total=len(prompts), initial=len(done), desc=f"TextNorm, seed {seed}", unit="prompt")
        with bar:
            for place in range(0, len(missing), at_once):
                part = missing[place : place + at_once]
                texts = [text for _, text, _ in part for _ in range(self.images)]
                first_seeds = [1_000_000 * seed + 100 * number for *_, number in part]
                seeds = [first + i for first in first_seeds for i in range(self.images)]
                images = generate(
                    policy,
                    texts,
                    seeds,
                    num_inference_steps=STEPS,
                    guidance_scale=GUIDANCE,
                    batch_size=self.batch,
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
            of_prompt = slice(row * self.images, (row + 1) * self.images)
            line: dict[str, Any] = {"category": category, "prompt": text}
            line["labels"] = labels[of_prompt].tolist()
            with torch.no_grad():
                for name, scorer in scorers.items():
                    raw = scorer.raw(images[of_prompt], [text] * self.images)
                    line[name] = [[round(value, 7) for value in scores.tolist()] for scores in raw]
            lines.append(line)
        return lines

    def prompts(self, seed: int) -> list[tuple[str, str, int]]:
        """(category, caption, its number) of `fitted` + `tested` distinct captions a set."""
        from t2ialign.toy.captions import draw_caption, write

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
            for category, name in NAMES.items():
                table = tables[category]
                raw, normed = (table.mean(f"auroc_{side}") for side in SIDES)
                difference = table.difference("auroc_textnorm", "auroc_raw")
                measured: dict[str, Any] = {
                    **{"raw": raw, "textnorm": normed, "difference": difference},
                    "scale_by_seed": scales,
                    "images_a_prompt": self.images,
                    "prompts_drawn": self.tested * len(folders),
                    **{column: float(np.mean(values)) for column, values in table.columns.items()},
                }
                over = "both scorers" if scorer == BOTH else scorer
                itself = "their sum" if scorer == BOTH else "the raw score"
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
            pairs = {
                name: (tables[category].mean("auroc_raw"), tables[category].mean("auroc_textnorm"))
                for category, name in NAMES.items()
            }
            title, chance = f"AUROC against the oracle: {scorer}", "50 % is chance"
            charts.append(bar_figure(title, pairs, before="raw", after="TextNorm", note=chance))
        return charts

    def _tables(self, folders: Sequence[Path], scorer: str) -> tuple[dict[str, Table], list[list[float]]]:
        """Category -> every METRIC of both SIDES, a row for each prompt of all seeds; the scales by seed."""
        metrics: dict[str, dict[str, list[float]]] = {name: {} for name in NAMES}
        units: dict[str, list[str]] = {name: [] for name in NAMES}
        scales = []
        members = self.scorers if scorer == BOTH else (scorer,)
        for seed, folder in zip(self.seeds, folders, strict=True):
            lines = {line["prompt"]: line for line in jsonl.read(folder / JOURNAL)}
            numbered = [(lines[text], number % 1000 < self.fitted) for _, text, number in self.prompts(seed)]
            mixed = [(line, fit) for line, fit in numbered if np.ptp(line["labels"]) > 0]
            chosen = [_best_scale([line for line, fit in mixed if fit], name) for name in members]
            scales.append(chosen)
            for line in (line for line, fit in mixed if not fit):
                columns, labels = metrics[line["category"]], np.array(line["labels"])
                units[line["category"]].append(f"{seed} {line['prompt']}")
                both = zip(SIDES, _scores(line, dict(zip(members, chosen, strict=True))), strict=True)
                for side, scores in both:
                    for name, metric in METRICS.items():
                        columns.setdefault(f"{name}_{side}", []).append(metric(labels, scores))
        return {name: Table(units[name], columns) for name, columns in metrics.items()}, scales


def contrasts(prompt: str) -> list[str]:
    """Contrasts of a caption of the toy world, after TIA2's recipes.

    Counting: near misses by rule. Composition: either thing alone, two of either, colours exchanged, and one
    colour or shape taken from the other thing; for relations also the other relations and the reverse.
    """
    caption = parse(prompt)
    if caption.category == "count":
        return toy_near_misses(prompt)
    from t2ialign.toy.captions import write

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


def _scores(row: dict[str, Any], scales: dict[str, float]) -> Iterator[np.ndarray]:
    """The raw scores of a prompt's images, summed over the scorers, and the mean of their TextNorms."""
    raw = {name: [torch.tensor(scores, dtype=torch.float64) for scores in row[name]] for name in scales}
    yield np.sum([[float(scores[0]) for scores in images] for images in raw.values()], axis=0)
    logs = [normalised(raw[name], scale=scale, form="log") for name, scale in scales.items()]
    yield pooled(torch.stack(logs), log=True).numpy()
