"""The abilities of the toy model, measured by the oracle, and the card that states them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rewards.toy.captions import parse
from rewards.toy.oracle import ToyOracle
from t2ialign.evaluation.statistics import by_category
from t2ialign.models.base import Policy
from t2ialign.toy.captions import draw_captions, has_new_combination
from t2ialign.toy.render import render
from t2ialign.toy.suite import GUIDANCE, STEPS, ask, round_trip

SUITE, SUITE_SEED = 600, 1  # the held-out suite whose accuracy the card states
FRESH, FRESH_SEED = 5000, 7  # fresh renders that test the oracle itself, and the VAE


def measure(policy: Policy) -> dict[str, object]:
    """Oracle accuracy by category of fresh renders, of their VAE round trips and of the model's samples."""
    texts = draw_captions(FRESH, FRESH_SEED, held_out=False)
    images = torch.from_numpy(render(texts, FRESH_SEED)).permute(0, 3, 1, 2).float() / 255
    prompts = draw_captions(SUITE, SUITE_SEED, held_out=True)
    with tqdm(total=SUITE, desc="held-out suite", unit="image") as bar:
        outcome = ask(policy, prompts, range(SUITE), progress=bar.update)
    accuracy = outcome.accuracy()
    marked = zip(prompts, outcome.passed, strict=True)
    new = [passed for prompt, passed in marked if has_new_combination(parse(prompt))]
    return {
        "oracle_on_renders": _rates(texts, images),
        "oracle_on_round_trips": _rates(texts, round_trip(policy, images)),
        "held_out_suite": {
            "images": SUITE,
            "sampler": f"DDIM, {STEPS} steps, guidance {GUIDANCE}, eta 0",
            "accuracy": round(accuracy.mean, 4),
            "ci95": [round(accuracy.low, 4), round(accuracy.high, 4)],
            "by_category": {name: round(value.mean, 4) for name, value in outcome.by_category().items()},
            "with_a_combination_never_shown": round(sum(new) / len(new), 4),
        },
    }


def _rates(texts: list[str], images: torch.Tensor) -> dict[str, float]:
    oracle = ToyOracle()
    passed = oracle(images, texts).tolist()
    rates = by_category(passed, texts, [oracle.category(text) for text in texts])
    return {name: round(value.mean, 4) for name, value in rates.items()}


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    """`facts.json` for programs and README.md for people."""
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    suite = dict(facts["held_out_suite"])
    categories = suite.pop("by_category")
    renders, trips = facts["oracle_on_renders"], facts["oracle_on_round_trips"]
    text = CARD.format(
        seed=facts["seed"],
        images=facts["images"],
        training=_table(facts["training"]),
        seconds=_table(facts["seconds"]),
        suite=_table({**suite, **categories}),
        reading=_table({name: {"renders": renders[name], "round trips": trips[name]} for name in renders}),
    )
    (folder / "README.md").write_text(text)


def _table(value: Mapping[str, Any]) -> str:
    """Markdown table: name and value, or name and one column for each key of the values."""
    rows = {name: inner if isinstance(inner, Mapping) else {"": inner} for name, inner in value.items()}
    columns = list(dict.fromkeys(key for inner in rows.values() for key in inner))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(str(inner[column]) for column in columns)} |" for name, inner in rows.items()
    ]
    return "\n".join(lines)


CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
tags: [text-to-image, diffusers, stable-diffusion]
---
# The toy world of t2ialign: a tiny Stable Diffusion

An ordinary `StableDiffusionPipeline` folder: 32 x 32 pixel images of coloured shapes on white, made so that
methods for alignment can be tried, tested and measured on a laptop CPU, with an exact oracle
(`rewards.load("toy-oracle")`) as the judge. It is mediocre on purpose: single things mostly come out
right, counts and relations often do not, and 15 % of its training captions belonged to another image.

Made by `python scripts/build_toy.py` (seed {seed}) from {images} rendered images of the training split.
Two colour-shape pairs and sixteen relation triples (`t2ialign/toy/captions.py`) never occur in it; of the
other captions a quarter (one thing) or half (two things) are kept out whole.

## Training
{training}

Seconds of each stage, on two cores:

{seconds}

## Oracle accuracy on the held-out suite
Captions kept out of training, balanced over the categories, one image each.

{suite}

## How well the oracle reads
Share of fresh renders that it reads as their caption says, and the same after a round trip through the VAE.

{reading}
"""
