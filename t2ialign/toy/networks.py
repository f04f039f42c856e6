"""The networks of the toy world, ordinary diffusers and transformers classes."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from t2ialign.toy.tokenizer import POSITIONS

TEXT_WIDTH = 96
LATENT_CHANNELS = 4
TEXT_LAYERS = 4
SHIFT = 2.0  # of the flow model's noise levels, whose median then is close to that of the U-Net's
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


def projected(encoder: CLIPTextModel, projection: Tensor) -> CLIPTextModelWithProjection:
    """A CLIP text encoder with a projection (P, width) of its pooled state."""
    sizes = {**encoder.config.to_dict(), "projection_dim": len(projection)}
    model = CLIPTextModelWithProjection(CLIPTextConfig(**sizes))
    weights = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    model.text_model.load_state_dict(weights)
    model.text_projection.weight.data = projection.clone()
    return model


def new_transformer(text_width: int, pooled_width: int) -> SD3Transformer2DModel:
    """The denoiser of the toy flow model, of SD3.5's kind: joint attention with normalised queries and keys.

    text_width, pooled_width: of all text encoders side by side.
    """
    width, heads, patch = 128, 4, 2
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=patch,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=6,
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        caption_projection_dim=width,
        joint_attention_dim=text_width,
        pooled_projection_dim=pooled_width,
        pos_embed_max_size=8 // patch,
        qk_norm="rms_norm",
    )
    _start_as_identity(transformer)
    return transformer


def _start_as_identity(transformer: SD3Transformer2DModel) -> None:
    """Every block starts as the identity and the output as zero; diffusers' own start is made for loading.

    Peebles and Xie 2023, section 3.2 (adaLN-Zero).
    """
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(transformer.pos_embed.proj.weight.flatten(1))
    for layer in (
        transformer.time_text_embed.timestep_embedder.linear_1,
        transformer.time_text_embed.timestep_embedder.linear_2,
    ):
        nn.init.normal_(layer.weight, std=0.02)
    for name, module in transformer.named_modules():
        if name.endswith(("norm1.linear", "norm1_context.linear", "norm_out.linear", "proj_out")):
            nn.init.zeros_(module.weight)


def new_flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """A straight path on SD3's own grid."""
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)
