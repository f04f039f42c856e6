"""Real diffusers pipelines with tiny random networks, saved as users have them: no mocks."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

pytest_plugins = ["tests.runs"]

POSITIONS = 32
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tiny_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer of single bytes: every letter is a token, nothing is unknown."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [
        "<|pad|>",
        *letters,
        *(letter + "</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|pad|>",
        model_max_length=POSITIONS,
    )


def tiny_text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    """A two-layer CLIP text encoder with explicit special ids, which trigger no legacy pooling."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_vae(**overrides) -> AutoencoderKL:
    """An autoencoder that shrinks each side by 4, into 4 channels."""
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        sample_size=32,
        **overrides,
    )


def tiny_unet(**overrides) -> UNet2DConditionModel:
    """A UNet over 8x8 latents, a pixel size of 32."""
    config = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "norm_num_groups": 8,
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**{**config, **overrides})


def sd_scheduler(**overrides) -> DDIMScheduler:
    """Stable Diffusion 1.5's noise schedule."""
    config = {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    return DDIMScheduler(**{**config, **overrides})


def build_sd(folder: Path, **scheduler) -> Path:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    StableDiffusionPipeline(
        vae=tiny_vae().eval(),
        text_encoder=CLIPTextModel(tiny_text_config(tokenizer, 32)).eval(),
        tokenizer=tokenizer,
        unet=tiny_unet().eval(),
        scheduler=sd_scheduler(**scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def build_sdxl(folder: Path) -> Path:
    """As published: an Euler scheduler, two encoders, a zeroed empty prompt, a VAE that wants fp32."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    unet = tiny_unet(
        cross_attention_dim=56,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
        use_linear_projection=True,
    )
    StableDiffusionXLPipeline(
        vae=tiny_vae(scaling_factor=0.13025, force_upcast=True).eval(),
        text_encoder=CLIPTextModel(tiny_text_config(tokenizer, 32)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(tiny_text_config(tokenizer, 24)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(folder)
    # SDXL's own file carries these beside what an Euler scheduler knows; a DDIM built from it obeys them.
    file = folder / "scheduler" / "scheduler_config.json"
    config = {**json.loads(file.read_text()), "clip_sample": False, "set_alpha_to_one": False}
    file.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory) -> Path:
    """A StableDiffusionPipeline folder that predicts eps: 32x32 pixels, 4x8x8 latents."""
    return build_sd(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(scope="session")
def tiny_sd_v(tmp_path_factory) -> Path:
    """A StableDiffusionPipeline folder that predicts v."""
    return build_sd(tmp_path_factory.mktemp("tiny") / "sd_v", prediction_type="v_prediction")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory) -> Path:
    """A StableDiffusionXLPipeline folder: 32x32 pixels, 4x8x8 latents."""
    return build_sdxl(tmp_path_factory.mktemp("tiny") / "sdxl")
