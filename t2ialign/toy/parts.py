"""Builds the toy model from nothing: the stages of `scripts/build_toy.py`, each on the last."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from rewards import tensor_files
from rewards.toy.clip import build as build_clip
from t2ialign.models.load import load_policy
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.card import measure_reading, measure_repeats, measure_suite, write_card
from t2ialign.toy.fit import Plan, is_main
from t2ialign.toy.learning import train_clip, train_denoiser, train_vae
from t2ialign.toy.mistakes import near_miss, web_scenes
from t2ialign.toy.networks import new_clip, new_denoiser, new_scheduler, new_text_encoder
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


def _tokens(work: Path, texts: list[str]) -> Tensor:
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
    misses = [_tokens(work, [near_miss(text, rng) for text in texts]) for _ in range(NEAR_MISSES)]
    tokens = _tokens(work, texts), torch.stack(misses, 1)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    model = new_clip(tokenizer, text_layers=layers[0], vision_layers=layers[1])
    clip = train_clip(model, _images(work, "clean"), tokens, work / f"train-{name}", plan, seed=seed)
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


def make_denoiser(work: Path, stage: str, *, start: str | None, plan: Plan, seed: int) -> None:
    """Train denoiser and text encoder from those of the stage `start`, or anew, into `work/<stage>`.

    Only the stage "web" sees the captions of the web. It leaves the text encoder as it is, so that the order
    of words stays in the text states, and so does what comes after it.
    """
    torch.manual_seed(seed)
    if start is None:
        tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        unet, text_encoder = new_denoiser(), new_text_encoder(tokenizer)
    else:
        unet = UNet2DConditionModel.from_pretrained(work / start / "unet")
        text_encoder = CLIPTextModel.from_pretrained(work / start / "text_encoder")
    name = "web" if stage == "web" else "clean"
    texts = _captions(work, name)
    unique = ["", *dict.fromkeys(texts)]
    row = {text: i for i, text in enumerate(unique)}
    train_denoiser(
        unet,
        text_encoder,
        load_file(work / name / "latents.safetensors")["latents"],
        (_tokens(work, unique), torch.tensor([row[text] for text in texts])),
        work / f"train-{stage}",
        plan,
        seed=seed,
        with_text=stage.startswith("clean"),
    )
    if is_main():
        tensor_files.save_pretrained(unet, work / stage / "unet")
        tensor_files.save_pretrained(text_encoder, work / stage / "text_encoder")


def assemble(work: Path, stage: str) -> StableDiffusionPipeline:
    """The finished networks of a stage as an ordinary pipeline."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(work / stage / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(work / stage / "unet"),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pack(work: Path, output: Path, *, facts: dict[str, object]) -> None:
    """Write `toy`, `toy-clip` and `toy-clip-b` to `output` as fp16, measured, with a card."""
    target = output / "toy"
    _write_pipeline(work, "web", target)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    for name in ("clip", "clip-b"):
        clip = CLIPModel.from_pretrained(work / name)
        folder = output / f"toy-{name}"
        tensor_files.save_pretrained(clip.half(), folder)
        tensor_files.save_pretrained(tokenizer, folder)
        _load_as_float32(folder)
    policy = load_policy(str(target))
    suite, guidance_scale = measure_suite(policy, "web")
    others = {}
    for stage in ("clean-2", "recovered"):
        _write_pipeline(work, stage, work / "pipelines" / stage)
        others[stage], _ = measure_suite(load_policy(str(work / "pipelines" / stage)), stage)
    clips = {name: build_clip(str(output / name)) for name in ("toy-clip", "toy-clip-b")}
    repeats = measure_repeats(policy, guidance_scale, clips)
    measured = {**measure_reading(policy), **repeats, **_training(work)}
    suites = {"held_out_suite": suite, "clean_phase": others["clean-2"], "recovered": others["recovered"]}
    write_card(target, {**facts, **suites, **measured})


def _write_pipeline(work: Path, stage: str, target: Path) -> None:
    tensor_files.save_pretrained(assemble(work, stage).to(torch.float16), target)
    _load_as_float32(target / "text_encoder")
    for part in ("unet", "vae"):  # diffusers notes the folder on this machine that it read them from
        file = target / part / "config.json"
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        file.write_text(json.dumps(config, indent=2) + "\n")


def _load_as_float32(folder: Path) -> None:
    """transformers loads in the precision that the config names, diffusers in fp32: make both the same."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dtype": "float32"}, indent=2) + "\n")


def _training(work: Path) -> dict[str, object]:
    """Last logged loss and seconds of each stage."""
    stages = {}
    for log in sorted(work.glob("train-*/loss.jsonl")):
        last = json.loads(log.read_text().splitlines()[-1])
        stages[log.parent.name.removeprefix("train-")] = {"steps": last["step"], "final_loss": last["loss"]}
    done = {
        file.name.split(".")[0]: json.loads(file.read_text()) for file in sorted(work.glob("*.done.json"))
    }
    return {"training": stages, "seconds": {stage: value["seconds"] for stage, value in done.items()}}
