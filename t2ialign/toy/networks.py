"""The networks of the toy world, ordinary diffusers and transformers classes."""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from t2ialign.toy.tokenizer import POSITIONS

TEXT_WIDTH = 96
LATENT_CHANNELS = 4
TEXT_LAYERS = 4
WORD_STD = 0.5  # of the token embeddings at the start of training


def new_vae() -> AutoencoderKL:
    """32 x 32 pixels -> 4 x 8 x 8 latents."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=16,
        sample_size=32,
    )


def new_clip(tokenizer: CLIPTokenizer, *, text_layers: int, vision_layers: int) -> CLIPModel:
    """A CLIP of two small towers."""
    vision = {
        **_tower(vision_layers),
        "image_size": 32,
        "patch_size": 4,
        "projection_dim": 64,
    }
    text = _text(tokenizer, text_layers)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    _tell_words_apart(model.text_model)
    return model


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder of the toy Stable Diffusion, which is trained with its denoiser."""
    encoder = CLIPTextModel(CLIPTextConfig(**_text(tokenizer, TEXT_LAYERS)))
    _tell_words_apart(encoder)
    return encoder


def _tower(layers: int) -> dict[str, Any]:
    return {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
    }


def _text(tokenizer: CLIPTokenizer, layers: int) -> dict[str, Any]:
    """The configuration of a text tower; explicit token ids keep transformers off its legacy pooling path."""
    return {
        **_tower(layers),
        "vocab_size": len(tokenizer),
        "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": 64,
    }


def _tell_words_apart(encoder: CLIPTextModel) -> None:
    """Start with token embeddings that differ clearly.

    CLIP's own start, 0.02, leaves words that a loss is slow to tell apart (circle, square) all but equal in
    the text states, and a denoiser cannot draw a difference that it is not shown.
    """
    torch.nn.init.normal_(encoder.get_input_embeddings().weight, std=WORD_STD)


def new_denoiser() -> UNet2DConditionModel:
    """The denoiser of the toy Stable Diffusion."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # the number of heads, as in SD1.5's own config
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's own noise schedule and grid."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
