"""Pairs that the oracle labels, for claims on preference models: samples of the model, near-miss renders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import t2ialign
from rewards import Reward
from rewards.scorers.textnorm import toy_near_misses
from rewards.toy.captions import parse
from scripts.experiments.estimates import Table
from t2ialign.io import jsonl, manifest
from t2ialign.toy.suite import GUIDANCE, STEPS

SAMPLER: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "batch_size": 128}
"""Of samples and of held-out images: what suits the base model best."""


def sampled(
    folder: Path, captions: Sequence[str], each: int, *, first_seed: int, options: Mapping[str, Any] = SAMPLER
) -> Path:
    """Pairs of one caption's samples, one right and one wrong -> the JSONL file beside `folder`.

    options: of `t2ialign.sample`, which goes on with what a killed run left.
    """
    from t2ialign.toy.preferences import write_pairs

    file = folder.with_suffix(".jsonl")
    if not file.exists():
        settings: dict[str, Any] = {"num_images_per_prompt": each, "seed": first_seed, **options}
        t2ialign.sample("toy", captions, output=folder, resume=folder.exists(), **settings)
        write_pairs(folder, file)
    return file


def tasted(samples: Path, taste: str) -> Path:
    """Of each caption's images in a folder of samples those that a reward likes most and least -> JSONL."""
    file = samples.with_name(f"{samples.name}-{taste}.jsonl")
    if file.exists():
        return file
    rows = manifest.read(samples)
    scores = t2ialign.score([row.path for row in rows], taste, [row.prompt for row in rows])[taste].tolist()
    captions: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for row, score in zip(rows, scores, strict=True):
        captions[row.prompt].append((score, str(row.path.relative_to(file.parent))))
    pairs = {prompt: (max(images)[1], min(images)[1]) for prompt, images in captions.items()}
    jsonl.rewrite(
        file, [{"prompt": p, "chosen": most, "rejected": least} for p, (most, least) in pairs.items()]
    )
    return file


def rendered(folder: Path, captions: Sequence[str], each: int, *, seed: int) -> Path:
    """Pairs of renders, one of the caption and one of a near miss of it -> the JSONL file beside `folder`."""
    from t2ialign.toy.render import render

    file = folder.with_suffix(".jsonl")
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    pairs = _near_misses(captions, each, seed)
    right, wrong = (render([pair[side] for pair in pairs], seed + side) for side in (0, 1))
    rows: list[dict[str, Any]] = []
    for i, (caption, _) in enumerate(pairs):
        names = {"chosen": f"{i}-right.png", "rejected": f"{i}-wrong.png"}
        for pixels, name in zip((right[i], wrong[i]), names.values(), strict=True):
            Image.fromarray(pixels).save(folder / name)
        rows.append({"prompt": caption, **{key: f"{folder.name}/{name}" for key, name in names.items()}})
    jsonl.rewrite(file, rows)
    return file


def joined(file: Path, parts: Sequence[Path]) -> Path:
    """The rows of several files of one folder in one of it."""
    jsonl.rewrite(file, [row for part in parts for row in jsonl.read(part)])
    return file


def distinct_captions(count: int, seed: int, *, held_out: bool) -> list[str]:
    """The distinct ones of `count` drawn captions."""
    from t2ialign.toy.captions import draw_captions

    return list(dict.fromkeys(draw_captions(count, seed, held_out=held_out)))


def margins(file: Path, scorers: Mapping[str, Reward]) -> dict[str, list[float]]:
    """Scorer -> its score of the chosen image less that of the rejected one, for each pair of a file."""
    rows = jsonl.read(file)
    chosen, rejected = (
        t2ialign.score([file.parent / row[side] for row in rows], scorers, [row["prompt"] for row in rows])
        for side in ("chosen", "rejected")
    )
    return {name: (chosen[name] - rejected[name]).tolist() for name in scorers}


def ordered(file: Path, scorers: Mapping[str, Reward]) -> dict[str, Any]:
    """The prompts of a file's pairs, and scorer -> whether it orders each pair right; a tie is wrong."""
    right = {name: [float(one > 0) for one in values] for name, values in margins(file, scorers).items()}
    return {"prompts": [row["prompt"] for row in jsonl.read(file)], **right}


def right(seeds: Sequence[int], results: Sequence[Mapping[str, Any]]) -> Table:
    """Whether each scorer orders each pair of all seeds right, from their "margins"; a tie is wrong."""

    def columns(result: Mapping[str, Any]) -> dict[str, list[float]]:
        return {name: [float(one > 0) for one in values] for name, values in result["margins"].items()}

    return Table.of(seeds, results, columns)


def _near_misses(captions: Sequence[str], each: int, seed: int) -> list[tuple[str, str]]:
    """(caption, near miss) up to `each` a caption, drawn from those that can be rendered."""
    rng, pairs = np.random.default_rng(seed), list[tuple[str, str]]()
    for caption in captions:
        wrong = [text for text in toy_near_misses(caption) if parse(text) is not None]
        pairs += [(caption, wrong[place]) for place in rng.permutation(len(wrong))[:each]]
    return pairs
