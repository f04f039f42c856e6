"""Models of the benchmarks: released architectures at their own sizes, or tiny, with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from t2ialign.models.single.configs import tokenizers

SPREAD = 0.02
"""Random weights lie evenly between plus and minus this."""
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
TINY_CLIP = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ATTENTION, PLAIN = "CrossAttn{}Block2D", "{}Block2D"


def random(kind: Callable[..., nn.Module], *config: Any, **settings: Any) -> Any:
    """A network of that class whose weights are random; norms and biases start as they do nothing."""
    with init_empty_weights():
        network = kind(*config, **settings)
    for module in network.modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            weight = torch.zeros(empty.shape)
            if empty.ndim > 1:
                weight.uniform_(-SPREAD, SPREAD)
            elif name == "weight":
                weight.fill_(1.0)
            setattr(module, name, nn.Parameter(weight))
    return network.eval()


def clip(kind: Any, sizes: Mapping[str, int], tokenizer: Any, *, small: bool) -> Any:
    """A CLIP text encoder of those sizes over that tokenizer's words."""
    sizes = TINY_CLIP if small else sizes
    return random(
        kind,
        CLIPTextConfig(
            **sizes,
            vocab_size=len(tokenizer),
            projection_dim=sizes["hidden_size"],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
    )


def vae(channels: int, scale: float, *, small: bool, **settings: Any) -> Any:
    """Stable Diffusion's autoencoder, a cell of eight pixels a side; small: narrow."""
    return random(
        AutoencoderKL,
        block_out_channels=(8, 8, 16, 16) if small else (128, 256, 512, 512),
        norm_num_groups=4 if small else 32,
        layers_per_block=1 if small else 2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        scaling_factor=scale,
        **settings,
    )


def blocks(pattern: str) -> dict[str, tuple[str, ...]]:
    """The blocks of a U-Net on its way down, "a" with attention and "p" without, and back up."""
    kinds = [ATTENTION if letter == "a" else PLAIN for letter in pattern]
    down, up = (tuple(kind.format(way) for kind in kinds) for way in ("Down", "Up"))
    return {"down_block_types": down, "up_block_types": up[::-1]}


def ddim() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )


def sd15(*, small: bool = False) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5."""
    (words,) = tokenizers("sd1").values()
    sizes: dict[str, Any] = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}
    if small:
        sizes = {"block_out_channels": (16, 16, 32, 32), "cross_attention_dim": 32, "norm_num_groups": 4}
    unet = random(UNet2DConditionModel, sample_size=64, attention_head_dim=8, **blocks("aaap"), **sizes)
    return StableDiffusionPipeline(
        vae=vae(4, 0.18215, small=small),
        text_encoder=clip(CLIPTextModel, CLIP_L, words, small=small),
        tokenizer=words,
        unet=unet,
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(*, small: bool = False) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL."""
    words, words_2 = tokenizers("sdxl").values()
    sizes: dict[str, Any] = {
        **{"block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048},
        **{"attention_head_dim": (5, 10, 20), "projection_class_embeddings_input_dim": 2816},
        "transformer_layers_per_block": (1, 2, 10),
    }
    if small:
        sizes |= {"block_out_channels": (16, 16, 32), "cross_attention_dim": 64, "norm_num_groups": 4}
        sizes |= {"attention_head_dim": (2, 2, 2), "projection_class_embeddings_input_dim": 32 + 6 * 256}
        sizes |= {"transformer_layers_per_block": 1}
    unet = random(
        UNet2DConditionModel,
        sample_size=128,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        **blocks("paa"),
        **sizes,
    )
    return StableDiffusionXLPipeline(
        vae=vae(4, 0.13025, small=small),
        text_encoder=clip(CLIPTextModel, CLIP_L, words, small=small),
        text_encoder_2=clip(CLIPTextModelWithProjection, CLIP_G, words_2, small=small),
        tokenizer=words,
        tokenizer_2=words_2,
        unet=unet,
        scheduler=ddim(),
    )


def sd35_medium(*, small: bool = False) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 Medium without T5, whose 4.8 billion weights only encode prompts."""
    words, words_2 = tokenizers("sdxl").values()
    sizes: dict[str, Any] = {
        **{"num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "sample_size": 128},
        **{"caption_projection_dim": 1536, "joint_attention_dim": 4096, "pooled_projection_dim": 2048},
        **{"pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13))},
    }
    if small:
        sizes |= {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "sample_size": 32}
        sizes |= {"caption_projection_dim": 16, "joint_attention_dim": 64, "pooled_projection_dim": 64}
        sizes |= {"dual_attention_layers": (0,)}
    return StableDiffusion3Pipeline(
        vae=vae(
            16, 1.5305, small=small, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=clip(CLIPTextModelWithProjection, CLIP_L, words, small=small),
        text_encoder_2=clip(CLIPTextModelWithProjection, CLIP_G, words_2, small=small),
        text_encoder_3=None,
        tokenizer=words,
        tokenizer_2=words_2,
        tokenizer_3=None,
        transformer=random(SD3Transformer2DModel, qk_norm="rms_norm", **sizes),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


MODELS: Mapping[str, Callable[..., Any]] = {"sd15": sd15, "sdxl": sdxl, "sd35": sd35_medium}
"""Name of a model -> what builds its pipeline; `small` for one that tests run."""
