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
from rewards.toy.captions import parse
from rewards.toy.world import COLOURS
from t2ialign.models.load import load_policy
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.card import measure, write_card
from t2ialign.toy.fit import is_main
from t2ialign.toy.networks import new_clip, new_scheduler, train_clip, train_denoiser, train_vae
from t2ialign.toy.render import render
from t2ialign.toy.tokenizer import POSITIONS, save_tokenizer


def make_data(work: Path, *, count: int, seed: int) -> None:
    """Captions of the training split, balanced over the categories, and one rendered image each."""
    texts = draw_captions(count, seed, held_out=False)
    chunks = [
        render(texts[i : i + 1000], seed + i) for i in tqdm(range(0, count, 1000), desc="render", unit="k")
    ]
    np.save(work / "images.npy", np.concatenate(chunks).transpose(0, 3, 1, 2))
    (work / "captions.json").write_text(json.dumps(texts))
    save_tokenizer(work / "tokenizer")


def _load_data(work: Path) -> tuple[Tensor, list[str]]:
    images = torch.from_numpy(np.load(work / "images.npy", allow_pickle=False))
    return images, json.loads((work / "captions.json").read_text())


def _tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=POSITIONS, return_tensors="pt"
    ).input_ids


def make_vae(work: Path, *, steps: int, seed: int) -> None:
    """Train the VAE and save it to `work/vae`."""
    images, _ = _load_data(work)
    vae = train_vae(images, work / "train-vae", steps=steps, seed=seed)
    tensor_files.save_pretrained(vae, work / "vae")


def make_clip(work: Path, name: str, *, steps: int, seed: int, layers: tuple[int, int]) -> None:
    """Train a tiny CLIP of (text, vision) layers and save it to `work/<name>`."""
    torch.manual_seed(seed)
    images, texts = _load_data(work)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    model = new_clip(tokenizer, text_layers=layers[0], vision_layers=layers[1])
    tokens = _tokens(tokenizer, texts)
    colour = torch.tensor([list(COLOURS).index(parse(text).nouns[0].colour) for text in texts])
    folder = work / f"train-{name}"
    clip = train_clip(model, images, tokens, colour, folder, steps=steps, seed=seed)
    tensor_files.save_pretrained(clip, work / name)


def text_encoder(clip: CLIPModel) -> CLIPTextModel:
    """The text tower of a CLIP as the class a Stable Diffusion pipeline wants."""
    encoder = CLIPTextModel(clip.config.text_config)
    encoder.load_state_dict(clip.text_model.state_dict() if _is_flat(encoder) else _nested(clip), strict=True)
    return encoder.eval()


def _is_flat(encoder: CLIPTextModel) -> bool:
    """Newer transformers keep the weights at the top of CLIPTextModel, older ones under `text_model.`."""
    return not any(key.startswith("text_model.") for key in encoder.state_dict())


def _nested(clip: CLIPModel) -> dict[str, Tensor]:
    return {f"text_model.{key}": value for key, value in clip.text_model.state_dict().items()}


@torch.no_grad()
def make_latents(work: Path) -> None:
    """Encode every image and every distinct caption once, for the denoiser, to `work/latents.safetensors`."""
    images, texts = _load_data(work)
    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    encoder = text_encoder(CLIPModel.from_pretrained(work / "clip"))
    scale, posteriors = vae.config.scaling_factor, []
    for chunk in tqdm(images.split(500), desc="encode", unit="chunk"):
        posterior = vae.encode(chunk.float() / 127.5 - 1).latent_dist
        posteriors.append((posterior.mean * scale, posterior.std * scale))
    mean, std = (torch.cat(part) for part in zip(*posteriors, strict=True))
    unique = ["", *dict.fromkeys(texts)]
    row = {text: i for i, text in enumerate(unique)}
    states = torch.cat([encoder(chunk).last_hidden_state for chunk in _tokens(tokenizer, unique).split(500)])
    caption = torch.tensor([row[text] for text in texts])
    tensors = {"mean": mean, "std": std, "states": states, "caption": caption}
    tensor_files.write(tensors, work / "latents.safetensors")


def make_denoiser(work: Path, *, steps: int, seed: int) -> None:
    """Train the denoiser on the cached latents and save it to `work/unet`."""
    data = load_file(work / "latents.safetensors")
    latents = data["mean"], data["std"]
    folder = work / "train-denoiser"
    unet = train_denoiser(latents, data["states"], data["caption"], folder, steps=steps, seed=seed)
    if is_main():
        tensor_files.save_pretrained(unet, work / "unet")


def assemble(work: Path) -> StableDiffusionPipeline:
    """The finished networks as an ordinary pipeline."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=text_encoder(CLIPModel.from_pretrained(work / "clip")),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(work / "unet"),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pack(work: Path, output: Path, *, facts: dict[str, object]) -> None:
    """Write `toy`, `toy-clip` and `toy-clip-b` to `output` as fp16, measured, with a card."""
    target = output / "toy"
    tensor_files.save_pretrained(assemble(work).to(torch.float16), target)
    _load_as_float32(target / "text_encoder")
    for part in ("unet", "vae"):  # diffusers notes the folder on this machine that it read them from
        file = target / part / "config.json"
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        file.write_text(json.dumps(config, indent=2) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    for name in ("clip", "clip-b"):
        clip = CLIPModel.from_pretrained(work / name)
        folder = output / f"toy-{name}"
        tensor_files.save_pretrained(clip.half(), folder)
        tensor_files.save_pretrained(tokenizer, folder)
        _load_as_float32(folder)
    write_card(target, {**facts, **measure(load_policy(str(target))), **_training(work)})


def _load_as_float32(folder: Path) -> None:
    """transformers loads in the precision that the config names, diffusers in fp32: make both the same."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dtype": "float32"}, indent=2) + "\n")


def _training(work: Path) -> dict[str, object]:
    """Last logged loss and seconds of each stage."""
    stages = {}
    for name in ("vae", "clip", "clip-b", "denoiser"):
        last = json.loads((work / f"train-{name}" / "loss.jsonl").read_text().splitlines()[-1])
        stages[name] = {"steps": last["step"], "final_loss": last["loss"]}
    done = {file.name.split(".")[0]: json.loads(file.read_text()) for file in work.glob("*.done.json")}
    return {"training": stages, "seconds": {stage: value["seconds"] for stage, value in done.items()}}
