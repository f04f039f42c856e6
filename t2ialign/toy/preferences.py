"""The oracle as annotator: samples of one prompt that pass against samples of it that fail."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from rewards.toy.oracle import ToyOracle
from t2ialign.evaluation.manifest_scores import read_image
from t2ialign.io import jsonl, manifest

PER_PROMPT = 4  # at most so many pairs of one prompt, or the easy prompts would be most of the data


def judge_samples(folder: Path) -> list[bool]:
    """Pass or fail of every image in a folder that `t2ialign sample` wrote, in the order of its manifest."""
    rows, oracle = manifest.read(folder), ToyOracle()
    images = torch.stack([read_image(row.path) for row in rows])
    return [score == 1 for score in oracle(images, [row.prompt for row in rows]).tolist()]


def pair_up(prompts: Sequence[str], passed: Sequence[bool]) -> list[tuple[int, int]]:
    """Indices (winner, loser) of pairs within a prompt; one that always passes or always fails has none."""
    winners: defaultdict[str, list[int]] = defaultdict(list)
    losers: defaultdict[str, list[int]] = defaultdict(list)
    for index, (prompt, ok) in enumerate(zip(prompts, passed, strict=True)):
        (winners if ok else losers)[prompt].append(index)
    pairs = []
    for prompt in winners:
        good, bad = winners[prompt], losers[prompt]
        for i in range(min(PER_PROMPT, max(len(good), len(bad))) if bad else 0):
            pairs.append((good[i % len(good)], bad[i % len(bad)]))
    return pairs


def write_pairs(samples: Path, file: Path) -> int:
    """Judge and pair the samples -> the number of pairs, written as `prompt, chosen, rejected` JSONL.

    Raises ValueError when no prompt has both a passing and a failing sample.
    """
    rows = manifest.read(samples)
    pairs = pair_up([row.prompt for row in rows], judge_samples(samples))
    if not pairs:
        raise ValueError(
            f"got no prompt with both a passing and a failing image in {samples}; expected some; sample more"
        )
    jsonl.rewrite(
        file,
        [
            {
                "prompt": rows[win].prompt,
                "chosen": str(rows[win].path.relative_to(file.parent)),
                "rejected": str(rows[lose].path.relative_to(file.parent)),
            }
            for win, lose in pairs
        ],
    )
    return len(pairs)
