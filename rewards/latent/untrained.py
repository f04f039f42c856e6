"""An untrained latent reward, of a diffusion model in a folder or in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rewards import assets
from rewards.foreign import is_short_of_memory
from rewards.latent.lrm import GUIDANCE, LRM
from rewards.latent.mmdit import MMDiTBackbone
from rewards.latent.networks import TOKENIZERS, Backbone, read_backbone
from rewards.latent.unet import UNetBackbone


def from_pipeline(
    model: str | Path,
    *,
    dim: int | None = None,
    guidance_scale: float = GUIDANCE,
    text_projection: str | Path | None = None,
    seed: int = 0,
) -> LRM:
    """An untrained LRM of a diffusion model: "toy", "toy-flow", a diffusers folder or a Hub id.

    text_projection: a CLIP whose projection the pooled text starts from, as the released LRM-1.5 does with
    openai/clip-vit-large-patch14; the identity if None. Weights are fp32, whatever they are stored as. Raises
    ValueError for a model that is none of Stable Diffusion 1, 2, 3 and SDXL, and for a projection of another
    size, or of text that is projected already.
    """
    source = str(assets.folder(str(model)) if model in assets.TOYS else model)
    try:
        backbone = read_backbone(source)
    except Exception as error:  # a model's files lead libraries to errors of any kind
        if isinstance(error, MemoryError) or is_short_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"got model {str(model)!r}; expected Stable Diffusion 1, 2 or SDXL for diffusers, or Stable "
            f"Diffusion 3 ({reason})"
        ) from error
    return _untrained(backbone, dim, guidance_scale, text_projection, seed)


def from_networks(
    components: Mapping[str, Any],
    *,
    dim: int | None = None,
    guidance_scale: float = GUIDANCE,
    text_projection: str | Path | None = None,
    seed: int = 0,
) -> LRM:
    """The same of a loaded pipeline's networks and tokenizers, by their names there; it takes them over."""
    parts = [components.get(name) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")]
    encoders = [encoder for encoder in parts if encoder is not None]
    tokenizers = [components[name] for name in TOKENIZERS if components.get(name) is not None]
    backbone: Backbone
    if "unet" in components:
        backbone = UNetBackbone(components["unet"], tokenizers, *encoders)
    else:
        backbone = MMDiTBackbone(components["transformer"], tokenizers, *encoders)
    return _untrained(backbone, dim, guidance_scale, text_projection, seed)


def _untrained(
    backbone: Backbone, dim: int | None, guidance_scale: float, text_projection: str | Path | None, seed: int
) -> LRM:
    reward = LRM(backbone, dim=dim, guidance_scale=guidance_scale, seed=seed).float()
    if text_projection is not None:
        _start_projection(reward, text_projection)
    return reward.eval()


def _start_projection(reward: LRM, source: str | Path) -> None:
    from transformers import CLIPTextModelWithProjection

    if reward.text_projection is None:
        raise ValueError(
            "got text_projection for a model whose text embeddings are projected, as SDXL's and Stable "
            "Diffusion 3's are; expected none; drop it"
        )
    theirs = CLIPTextModelWithProjection.from_pretrained(source, use_safetensors=True).text_projection.weight
    ours = reward.text_projection.weight
    if theirs.shape != ours.shape:
        raise ValueError(
            f"got text_projection {source} of {tuple(theirs.shape)}; expected {tuple(ours.shape)}, dim x "
            "width of the pooled text; choose the CLIP the text encoder came from"
        )
    with torch.no_grad():
        ours.copy_(theirs)
