"""The measures of bench_score.py against the calls of other packages, hpsv2's and imscore's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from unittest import mock

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import normalize, resize

import rewards
from rewards.scorers.clip import ClipScore
from rewards.towers import clip_towers
from rewards.weights import load_state
from scripts.bench_parts import CLIPS, SIDE, Bench, Counted, Row, number, prompt, ratio

B, L, H = CLIPS
CALLS = 2
SHARE = 8
"""Images of a prompt in the measure `tensors`, as in a group of an online method."""


def call(bench: Bench) -> Iterator[Row]:
    """hpsv2, one image a call, two calls a prompt. The other side too keeps its module, as hpsv2 1.2 does:
    what it repeats is reading the checkpoint, filling the module with it, and tokenising to 77 positions.
    """
    if H not in bench.clips:
        return
    path, fresh = bench.checkpoint(H), {"ours": count(), "other": count()}
    other, tokenize = bench.tower(H).model, open_clip.get_tokenizer("ViT-H-14")
    pil_image = Image.effect_noise((SIDE, SIDE), 80).convert("RGB")
    found: dict[str, list[float]] = {"ours": [], "other": []}
    loads = Counted(load_state)
    with mock.patch.object(clip_towers, "load_state", loads):
        reward = rewards.load("hpsv2", weights=str(path), architecture=None).to(bench.device)
        assert isinstance(reward, ClipScore) and isinstance(reward.tower, clip_towers.ClipTower), (
            "hpsv2 is a CLIP"
        )
        reads = Counted(reward.tower.tokens.encode)
        reward.tower.tokens.encode = reads

        def ours() -> None:
            text = prompt(next(fresh["ours"]))
            found["ours"] += [float(reward.reference([pil_image], [text])) for _ in range(CALLS)]

        def load_and_score(text: str) -> float:
            state = torch.load(path, map_location=bench.device, weights_only=True)["state_dict"]
            other.load_state_dict(state)
            other.to(bench.device).eval()
            pixels = reward.geometry.reference(pil_image)[None].to(bench.device)
            image = other.encode_image(pixels, normalize=True)
            return float((image * other.encode_text(tokenize([text]).to(bench.device), normalize=True)).sum())

        def theirs() -> None:
            text = prompt(next(fresh["other"]))
            found["other"] += [load_and_score(text) for _ in range(CALLS)]

        times = bench.time({"ours": ours, "other": theirs})
    assert np.allclose(found["ours"], found["other"], atol=1e-2 if bench.bf16 else 1e-4), "other scores"
    prompts, calls = next(fresh["ours"]), len(found["ours"])
    target = ">= 20" if bench.device.type == "cuda" else None
    on = f"{H}, one image a call"
    yield ratio("load and score each call: times as long", on, times, "other / ours", target)
    yield number("checkpoints read", f"{on}, {calls} calls", loads.calls, "<= 1")
    again = reads.calls - prompts
    yield number("prompts tokenised again", f"{on}, {calls} calls, {prompts} prompts", again, "<= 0")


def tensors(bench: Bench) -> Iterator[Row]:
    """Images in memory and new prompts, eight images of each: imscore's call encodes the text of every image.

    What it does to images and texts is in its hps/model.py: bicubic resizing of the tensors, tokens padded to
    77 positions, one forward of both towers, the diagonal of the product of all with all.
    """
    for clip in bench.clips:
        if clip != B:
            yield tensors_of(bench, clip)


def tensors_of(bench: Bench, clip: str) -> Row:
    """The same for one CLIP."""
    reward, rows = bench.score(clip), bench.num_images or (64 if bench.device.type == "cuda" else 16)
    images, prompts = bench.images(rows), [prompt(row // SHARE) for row in range(rows)]
    model, tokenize, scores = bench.tower(clip).model, open_clip.get_tokenizer(clip), dict[str, Tensor]()
    mean, std, size = reward.geometry.mean, reward.geometry.std, reward.geometry.size

    def ours() -> None:
        reward.tower.forget()
        scores["ours"] = reward(images, prompts)

    def theirs() -> None:
        pixels = normalize(resize(images, [size, size], InterpolationMode.BICUBIC), mean, std)
        image = model.encode_image(pixels, normalize=True)
        text = model.encode_text(tokenize(prompts).to(bench.device), normalize=True)
        scores["other"] = torch.diagonal(image @ text.T)

    times = bench.time({"ours": ours, "other": theirs})
    assert torch.allclose(scores["ours"], scores["other"], atol=2e-2), "other scores"
    on = f"{clip}, {rows} images of {SIDE}x{SIDE}, {SHARE} of a prompt"
    return ratio("imscore's call: times as long", on, times, "other / ours", None)
