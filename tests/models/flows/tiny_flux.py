"""A pipeline of FLUX.1 whose networks are tiny and random, the classes diffusers' own."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from tests.conftest import tiny_text_config, tiny_tokenizer
from tests.models.flows.tiny_sd3 import tiny_t5, tiny_vae_16


def tiny_flux_pipeline(seed: int = 0, *, schnell: bool = False) -> FluxPipeline:
    """16 channels at a quarter of the pixels, two text encoders; dev shifts by the number of tokens."""
    torch.manual_seed(seed)
    tokenizer, (t5, words) = tiny_tokenizer(), tiny_t5()
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        pooled_projection_dim=32,
        guidance_embeds=not schnell,
        axes_dims_rope=(4, 6, 6),
    )
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)
    pipe = FluxPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=1.0 if schnell else 3.0, use_dynamic_shifting=not schnell
        ),
        vae=tiny_vae_16(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=CLIPTextModel(tiny_text_config(tokenizer, 32)).eval(),
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=words,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
