"""Small pipelines of random weights that have the layout of released files, and their single files."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from rewards.towers.clip_tokenizer import SIZE, clip_tokenizer
from t2ialign.models.single.layout import CLIP_1, CLIP_2, CLIP_XL, OPEN_CLIP_XL, to_original

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
WIDTHS = (64, 128)


def text_config(width: int, layers: int, *, open_clip: bool) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=SIZE,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        hidden_act="gelu" if open_clip else "quick_gelu",
        bos_token_id=SIZE - 2,
        eos_token_id=SIZE - 1,
    )


def unet(family: str, cross: int) -> UNet2DConditionModel:
    """Two levels; SDXL's has transformers on the second one only, three in a row, as the published one."""
    more = {}
    if family == "sdxl":
        more = {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": [1, 3],
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 128,
        }
    else:
        more = {
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        }
    return UNet2DConditionModel(
        sample_size={"sd1": 64, "sd2": 96, "sdxl": 128}[family],
        block_out_channels=WIDTHS,
        layers_per_block=1,
        cross_attention_dim=cross,
        attention_head_dim=8 if family == "sd1" else [width // 64 for width in WIDTHS],
        use_linear_projection=family != "sd1",
        **more,
    )


def pipeline(family: str, seed: int = 0):
    """A pipeline of random weights: "sd1", "sd2" (which predicts v) or "sdxl"."""
    torch.manual_seed(seed)
    xl = family == "sdxl"
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        scaling_factor=0.13025 if xl else 0.18215,
        force_upcast=xl,
    )
    kind = "v_prediction" if family == "sd2" else "epsilon"
    parts = {
        "vae": vae.eval(),
        "scheduler": DDIMScheduler(**SCHEDULE, prediction_type=kind),
        "text_encoder": CLIPTextModel(text_config(64, 2, open_clip=family == "sd2")).eval(),
        "tokenizer": clip_tokenizer(open_clip=family == "sd2"),
        "unet": unet(family, 64 + 128 * xl).eval(),
    }
    if xl:
        return StableDiffusionXLPipeline(
            **parts,
            text_encoder_2=CLIPTextModelWithProjection(text_config(128, 3, open_clip=True)).eval(),
            tokenizer_2=clip_tokenizer(open_clip=True),
            add_watermarker=False,
        )
    return StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def released(pipe) -> dict[str, torch.Tensor]:
    """Its weights as the authors publish them, with what their training programs left beside them.

    Stable Diffusion 2's encoder has one more layer and a projection, which nobody reads.
    """
    weights = to_original(pipe) | {"alphas_cumprod": torch.ones(1000), "model_ema.decay": torch.ones(())}
    for prefix in (CLIP_1, CLIP_XL):
        if any(name.startswith(prefix) for name in weights):
            weights[prefix + "text_model.embeddings.position_ids"] = torch.arange(77)[None]
    last = [name for name in weights if name.startswith(CLIP_2 + "transformer.resblocks.1.")]
    if last:
        spare = {name.replace(".resblocks.1.", ".resblocks.2."): weights[name] + 1 for name in last}
        weights |= {**spare, CLIP_2 + "text_projection": torch.ones(64, 64)}
    if any(name.startswith(OPEN_CLIP_XL) for name in weights) or last:
        weights[(CLIP_2 if last else OPEN_CLIP_XL) + "logit_scale"] = torch.tensor(4.6)
    return weights


def write(weights: dict[str, torch.Tensor], file: Path, header: dict[str, str] | None = None) -> str:
    """The weights as one safetensors file -> its path."""
    save_file(weights, file, metadata={"format": "pt", **(header or {})})
    return str(file)
