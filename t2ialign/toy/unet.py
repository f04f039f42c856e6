"""Builds the toy model: a Stable Diffusion whose U-Net and text encoder learn together, stage by stage."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from rewards import tensor_files
from t2ialign.toy.fit import Plan, is_main
from t2ialign.toy.learning import train_denoiser
from t2ialign.toy.networks import new_denoiser, new_scheduler, new_text_encoder
from t2ialign.toy.parts import read_examples, tokens


def train(work: Path, stage: str, *, start: str | None, plan: Plan, seed: int) -> None:
    """Train denoiser and text encoder from those of the stage `start`, or anew, into `work/<stage>`.

    The stage "web" leaves the text encoder as it is, so that the order of words stays in the text states, and
    so does what comes after it.
    """
    torch.manual_seed(seed)
    if start is None:
        tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        unet, text_encoder = new_denoiser(), new_text_encoder(tokenizer)
    else:
        unet = UNet2DConditionModel.from_pretrained(work / start / "unet")
        text_encoder = CLIPTextModel.from_pretrained(work / start / "text_encoder")
    examples = read_examples(work, stage)
    train_denoiser(
        unet,
        text_encoder,
        examples.latents,
        (tokens(work, examples.captions), examples.caption),
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
