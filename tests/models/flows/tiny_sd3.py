"""A pipeline of Stable Diffusion 3 whose networks are tiny and random, the classes diffusers' own."""

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

from t2ialign.models.families.sd3 import SD3Policy
from tests.conftest import tiny_text_config, tiny_tokenizer


def tiny_t5() -> tuple[T5EncoderModel, T5TokenizerFast]:
    """A T5 of single letters."""
    letters = [(chr(code), -3.0) for code in range(ord("a"), ord("z") + 1)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    tokenizer = T5TokenizerFast(vocab=special + letters, extra_ids=0, model_max_length=512)
    sizes = {"d_model": 64, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes)).eval(), tokenizer


def tiny_vae_16(**units: float) -> AutoencoderKL:
    """16 channels, four pixels a side of a cell; units: scaling_factor and shift_factor."""
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=16,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **units,
    ).eval()


def tiny_sd3_pipeline(seed: int = 0) -> StableDiffusion3Pipeline:
    """32x32 pixels, 16x8x8 latents, shift 3, three text encoders."""
    torch.manual_seed(seed)
    tokenizer, (t5, words) = tiny_tokenizer(), tiny_t5()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        caption_projection_dim=16,
        joint_attention_dim=64,
        pooled_projection_dim=56,
        pos_embed_max_size=16,
    )
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)
    pipe = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae_16(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(tiny_text_config(tokenizer, 32)).eval(),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(tiny_text_config(tokenizer, 24)).eval(),
        tokenizer_2=tokenizer,
        text_encoder_3=t5,
        tokenizer_3=words,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_sd3() -> SD3Policy:
    """The policy over it."""
    return SD3Policy(tiny_sd3_pipeline())
