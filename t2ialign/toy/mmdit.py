"""Builds the toy flow model: a Stable Diffusion 3 whose transformer learns, stage by stage.

VAE, tokenizer and text are those of the toy model. Its text encoder, whose states carry the order of words,
stands where CLIP-L does, and the text tower of `toy-clip`, an ordinary contrastive one, where CLIP-G does.
Neither is trained further, as in Esser et al. 2024. There is no T5, nor zeros in its place.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from tqdm import trange
from transformers import (
    CLIPModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from rewards import tensor_files
from t2ialign.models.families import clip_text
from t2ialign.toy.fit import Plan, is_main
from t2ialign.toy.learning import States, train_transformer
from t2ialign.toy.networks import new_flow_scheduler, new_transformer, projected
from t2ialign.toy.parts import read_examples
from t2ialign.toy.tokenizer import no_tokenizer

WINDOW = 12
"""Tokens that the text encoders read here; a caption has at most ten."""


def text_encoders(work: Path) -> tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]:
    """The toy model's text encoder, which has no projection and gets the identity, and toy-clip's tower."""
    first = CLIPTextModel.from_pretrained(work / "web" / "text_encoder")
    second = CLIPModel.from_pretrained(work / "clip")
    return (
        projected(first, torch.eye(first.config.hidden_size)),
        projected(second.text_model, second.text_projection.weight.detach()),
    )


def read_tokenizer(work: Path) -> CLIPTokenizer:
    """The toy's tokenizer with this window."""
    return CLIPTokenizer.from_pretrained(work / "tokenizer", model_max_length=WINDOW)


@torch.no_grad()
def encode(work: Path, captions: list[str]) -> States:
    """M captions -> what the transformer reads of each: (M, 12, 192) side by side and (M, 160) pooled."""
    encoders = [encoder.eval() for encoder in text_encoders(work)]
    tokenizer = read_tokenizer(work)
    hidden, pooled = [], []
    for start in trange(0, len(captions), 500, desc="encode captions", unit="batch", disable=not is_main()):
        states, *embeds = clip_text.encode_two([tokenizer] * 2, encoders, captions[start : start + 500])
        hidden.append(states.half())
        pooled.append(torch.cat(embeds, -1))
    return States(torch.cat(hidden), torch.cat(pooled))


def train(work: Path, stage: str, *, start: str | None, plan: Plan, seed: int) -> None:
    """Train the transformer from that of the stage `start`, or anew, into `work/<stage>`."""
    torch.manual_seed(seed)
    examples = read_examples(work, stage)
    states = encode(work, examples.captions)
    transformer = (
        new_transformer(states.hidden.shape[-1], states.pooled.shape[-1])
        if start is None
        else SD3Transformer2DModel.from_pretrained(work / start / "transformer")
    )
    train_transformer(
        transformer,
        examples.latents,
        (states, examples.caption),
        work / f"train-{stage}",
        plan,
        seed=seed,
    )
    if is_main():
        tensor_files.save_pretrained(transformer, work / stage / "transformer")


def assemble(work: Path, stage: str) -> StableDiffusion3Pipeline:
    """The finished transformer of a stage in an ordinary pipeline."""
    tokenizer = read_tokenizer(work)
    first, second = text_encoders(work)
    vae = AutoencoderKL.from_pretrained(work / "vae")
    vae.register_to_config(shift_factor=0.0)  # the pipeline adds one, unlike Stable Diffusion 1's
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_pretrained(work / stage / "transformer"),
        scheduler=new_flow_scheduler(),
        vae=vae,
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=no_tokenizer(),
    )
