"""What both toy models are built from: images and captions, the VAE and its latents, two tiny CLIPs."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from rewards import tensor_files
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.fit import Plan
from t2ialign.toy.learning import train_clip, train_vae
from t2ialign.toy.mistakes import near_miss, web_scenes
from t2ialign.toy.networks import new_clip
from t2ialign.toy.render import render
from t2ialign.toy.tokenizer import POSITIONS, save_tokenizer

NEAR_MISSES = 4
"""Near misses of each caption that a CLIP learns from."""


def make_data(work: Path, name: str, *, count: int, seed: int) -> None:
    """`count` captions of the training split, balanced over the categories, and a rendered image of each.

    name: "clean", whose images show what their captions say, or "web", where one detail is often wrong.
    """
    texts = draw_captions(count, seed, held_out=False)
    scenes = texts if name == "clean" else web_scenes(texts, seed)
    chunks = [
        render(scenes[i : i + 1000], seed + i) for i in tqdm(range(0, count, 1000), desc=name, unit="k")
    ]
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", np.concatenate(chunks).transpose(0, 3, 1, 2))
    (folder / "captions.json").write_text(json.dumps(texts))
    if name == "clean":  # the two sets are made side by side: one of them writes what all stages share
        save_tokenizer(work / "tokenizer")


def _images(work: Path, name: str) -> Tensor:
    return torch.from_numpy(np.load(work / name / "images.npy", allow_pickle=False))


def _captions(work: Path, name: str) -> list[str]:
    return list(json.loads((work / name / "captions.json").read_text()))


def tokens(work: Path, texts: list[str]) -> Tensor:
    """N texts -> (N, 32) token ids, padded and truncated."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=POSITIONS, return_tensors="pt"
    ).input_ids


def make_vae(work: Path, *, plan: Plan, seed: int) -> None:
    """Train the VAE and save it to `work/vae`."""
    vae = train_vae(_images(work, "clean"), work / "train-vae", plan, seed=seed)
    tensor_files.save_pretrained(vae, work / "vae")


def make_clip(work: Path, name: str, *, plan: Plan, seed: int, layers: tuple[int, int]) -> None:
    """Train a tiny CLIP of (text, vision) layers and save it to `work/<name>`."""
    torch.manual_seed(seed)
    texts, rng = _captions(work, "clean"), np.random.default_rng(seed)
    misses = [tokens(work, [near_miss(text, rng) for text in texts]) for _ in range(NEAR_MISSES)]
    ids = tokens(work, texts), torch.stack(misses, 1)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    model = new_clip(tokenizer, text_layers=layers[0], vision_layers=layers[1])
    clip = train_clip(model, _images(work, "clean"), ids, work / f"train-{name}", plan, seed=seed)
    tensor_files.save_pretrained(clip, work / name)


@torch.no_grad()
def make_latents(work: Path, name: str) -> None:
    """Encode every image of a set once, for the denoiser, to `latents.safetensors` beside the images."""
    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    latents = [
        vae.encode(chunk.float() / 127.5 - 1).latent_dist.mean * vae.config.scaling_factor
        for chunk in tqdm(_images(work, name).split(64), desc=f"encode {name}", unit="batch")
    ]
    tensor_files.write({"latents": torch.cat(latents).half()}, work / name / "latents.safetensors")


@dataclass(frozen=True)
class Examples:
    """What a denoiser learns from: the latents of a set of images, and which caption belongs to each."""

    latents: Tensor
    """(N, 4, 8, 8), scaled, fp16."""
    captions: list[str]
    """The M distinct captions, the first of which is the empty one."""
    caption: Tensor
    """(N,) the row of each image's caption."""


def read_examples(work: Path, stage: str) -> Examples:
    """The set of a denoiser's stage: only one whose name ends in "web" sees the captions of the web."""
    name = "web" if stage.endswith("web") else "clean"
    texts = _captions(work, name)
    unique = ["", *dict.fromkeys(texts)]
    row = {text: i for i, text in enumerate(unique)}
    latents = load_file(work / name / "latents.safetensors")["latents"]
    return Examples(latents, unique, torch.tensor([row[text] for text in texts]))
