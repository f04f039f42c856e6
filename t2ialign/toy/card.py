"""The abilities of the toy model, measured by the oracle, and the card that states them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rewards.base import Reward
from rewards.toy.captions import parse
from rewards.toy.oracle import ToyOracle
from t2ialign.evaluation.statistics import Estimate, by_category
from t2ialign.models.base import Policy
from t2ialign.toy.captions import draw_captions, has_new_combination
from t2ialign.toy.render import render
from t2ialign.toy.suite import STEPS, Outcome, ask, round_trip

SUITE, SUITE_SEED = 1500, 1  # the held-out suite whose accuracy the card states
SCALES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
OFTEN, OFTEN_SEED, TIMES = 240, 2, 8  # held-out captions of which several images are drawn
FRESH, FRESH_SEED = 5000, 7  # fresh renders that test the oracle itself, and the VAE


def measure_reading(policy: Policy) -> dict[str, object]:
    """Share of fresh renders, and of their VAE round trips, that the oracle reads as their captions say."""
    texts = draw_captions(FRESH, FRESH_SEED, held_out=False)
    images = torch.from_numpy(render(texts, FRESH_SEED)).permute(0, 3, 1, 2).float() / 255
    return {
        "oracle_on_renders": _rates(texts, images),
        "oracle_on_round_trips": _rates(texts, round_trip(policy, images)),
    }


def _rates(texts: list[str], images: torch.Tensor) -> dict[str, float]:
    oracle = ToyOracle()
    passed = oracle(images, texts).tolist()
    return _means(by_category(passed, texts, [oracle.category(text) for text in texts]))


def measure_suite(policy: Policy, name: str, sampler: str) -> tuple[dict[str, Any], float]:
    """Accuracy on the held-out suite at each of `SCALES`, more of it at the best one -> facts, that scale.

    name: of what is measured, for the progress bar. sampler: its name, for the card.
    """
    prompts = draw_captions(SUITE, SUITE_SEED, held_out=True)
    with tqdm(total=SUITE * len(SCALES), desc=f"{name}, held-out suite", unit="image") as bar:
        outcomes = {
            scale: ask(policy, prompts, range(SUITE), guidance_scale=scale, progress=bar.update)
            for scale in SCALES
        }
    accuracy = {scale: outcome.accuracy() for scale, outcome in outcomes.items()}
    best = max(SCALES, key=lambda scale: accuracy[scale].mean)
    marked = zip(prompts, outcomes[best].passed, strict=True)
    new = [passed for prompt, passed in marked if has_new_combination(parse(prompt))]
    facts = {
        "images": SUITE,
        "sampler": f"{sampler}, {STEPS} steps, guidance {best:g}",
        "accuracy": round(accuracy[best].mean, 4),
        "ci95": [round(accuracy[best].low, 4), round(accuracy[best].high, 4)],
        "by_category": _means(outcomes[best].by_category()),
        "with_a_combination_never_shown": round(sum(new) / len(new), 4),
        "unreadable_things": round(outcomes[best].unreadable(), 4),
        "by_guidance": {f"{scale:g}": round(value.mean, 4) for scale, value in accuracy.items()},
    }
    return facts, best


def measure_repeats(policy: Policy, guidance_scale: float, clips: Mapping[str, Reward]) -> dict[str, Any]:
    """Eight images of each held-out caption: pass@8, and how well each CLIP orders passes against fails."""
    prompts = [prompt for prompt in draw_captions(OFTEN, OFTEN_SEED, held_out=True) for _ in range(TIMES)]
    with tqdm(total=len(prompts), desc="eight of a caption", unit="image") as bar:
        outcome = ask(
            policy, prompts, range(len(prompts)), guidance_scale=guidance_scale, progress=bar.update
        )
    return {
        "pass_at_8": _means(outcome.any_of_prompt()),
        "clips_order_as_the_oracle": {
            name: round(_ordered(outcome, clip), 4) for name, clip in clips.items()
        },
    }


@torch.no_grad()
def _ordered(outcome: Outcome, clip: Reward) -> float:
    """Share of the pairs of a passing and a failing image of one caption of which the first scores more."""
    scores = clip(outcome.images, outcome.prompts).tolist()
    sides: dict[str, tuple[list[float], list[float]]] = {}
    for prompt, passed, score in zip(outcome.prompts, outcome.passed, scores, strict=True):
        sides.setdefault(prompt, ([], []))[0 if passed else 1].append(score)
    pairs = [right > wrong for good, bad in sides.values() for right, wrong in product(good, bad)]
    return sum(pairs) / len(pairs)


def _means(rates: Mapping[str, Estimate]) -> dict[str, float]:
    return {name: round(value.mean, 4) for name, value in rates.items()}


@dataclass(frozen=True)
class Kind:
    """What a card says of one model and not of the other."""

    sampler: str
    tag: str
    title: str
    what: str


UNET = Kind(
    "DDIM",
    "stable-diffusion",
    "a tiny Stable Diffusion",
    """
An ordinary `StableDiffusionPipeline` folder: 32 x 32 pixel images of coloured shapes on white, made so that
methods for alignment can be tried, tested and measured on a laptop CPU, with an exact oracle
(`rewards.load("toy-oracle")`) as the judge.

It was trained twice. First on captions that are true, until it could draw what they say. Then on captions
as the web has them: the order of a relation or comparison, which colour belongs to which shape, a number,
a size, or what should *not* be there is wrong as often as it is right. So the ability is in its weights, and
its behaviour in these details is the toss of a coin. Real models are like that: they can draw what their
captions describe, and mix up order, number, binding and negation, because the captions they learned from do.
Guidance does not help, since it raises the odds of right against wrong, and these are even. Alignment can.

The second column below is the same model before its second training, the ceiling of what alignment can
bring back; the third after ten minutes of fine-tuning on true captions: the ability is still there.
""",
)
FLOW = Kind(
    "Euler",
    "stable-diffusion-3",
    "a tiny Stable Diffusion 3",
    """
An ordinary `StableDiffusion3Pipeline` folder, the toy model's second family: a rectified flow, whose
transformer reads image and text together. It draws the same world with the same VAE and from the same text:
the toy model's text encoder stands where CLIP-L does, the text tower of `toy-clip` where CLIP-G does, and
neither was trained further. It was made without T5 and without the zeros that diffusers puts in its place:
there, `from_pretrained` needs `text_encoder_3=None`, and the pipeline's call `max_sequence_length=0`.

Its transformer was trained twice, as the toy model was: first on captions that are true, then on captions as
the web has them, which are wrong about order, binding, number, size and negation as often as right. So it is
able, and careless; guidance does not help, alignment can.

The second column below is the same model before its second training, the ceiling of what alignment can
bring back; the third after a short fine-tuning on true captions: the ability is still there.
""",
)
TITLES = {
    "held_out_suite": "the model",
    "clean_phase": "before the web's captions",
    "recovered": "after true captions again",
}
"""Suites in facts.json, and the heads of their columns."""


def write_card(folder: Path, facts: dict[str, Any], kind: Kind) -> None:
    """`facts.json` for programs and README.md for people."""
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    suites = {title: facts[key] for key, title in TITLES.items() if key in facts}
    renders, trips = facts["oracle_on_renders"], facts["oracle_on_round_trips"]
    text = CARD.format(
        **vars(kind),
        seed=facts["seed"],
        images=facts["images"],
        training=_table(facts["training"]),
        seconds=_table(facts["seconds"]),
        suite=_columns(suites, "by_category", "by_guidance"),
        categories=_columns({name: suite["by_category"] for name, suite in suites.items()}),
        guidance=_columns({name: suite["by_guidance"] for name, suite in suites.items()}),
        repeats=_table(facts["pass_at_8"]),
        clips=_table(facts["clips_order_as_the_oracle"]),
        reading=_table({name: {"renders": renders[name], "round trips": trips[name]} for name in renders}),
    )
    (folder / "README.md").write_text(text)


def _columns(tables: Mapping[str, Mapping[str, Any]], *without: str) -> str:
    """Markdown table of several mappings with equal keys, a column each."""
    first = next(iter(tables.values()))
    return _table(
        {key: {name: table[key] for name, table in tables.items()} for key in first if key not in without}
    )


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
tags: [text-to-image, diffusers, {tag}]
---
# The toy world of t2ialign: {title}
{what}
Made by `python scripts/build_toy.py` (seed {seed}) from {images} rendered images of the training split a
phase. Two colour-shape pairs and sixteen relation triples (`t2ialign/toy/captions.py`) never occur in its
captions; of the other captions a quarter (one thing) or half (two things) are kept out whole.

## Oracle accuracy on the held-out suite
Captions kept out of training, balanced over the categories, one image each.

{suite}

By category, at the best guidance:

{categories}

By guidance:

{guidance}

Share of held-out captions of which at least one of eight images passes:

{repeats}

## How well the two CLIPs judge
Share of the pairs of a passing and a failing image of one held-out caption that each orders as the oracle
does.

{clips}

## How well the oracle reads
Share of fresh renders that it reads as their caption says, and the same after a round trip through the VAE.

{reading}

## Training
{training}

Seconds of each stage, on two cores:

{seconds}
"""
