"""A pipeline of Z-Image whose networks are tiny and random, the classes diffusers' and transformers' own."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3Model

from tests.models.flows.tiny_sd3 import tiny_vae_16
from tests.rewards.tiny_vlm import tokenizer

CHAT = (
    "{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def tiny_z_image_pipeline(seed: int = 0) -> ZImagePipeline:
    """16 channels at a quarter of the pixels, a language model of three layers, a fixed shift of 3."""
    torch.manual_seed(seed)
    words = tokenizer()
    words.chat_template = CHAT
    transformer = ZImageTransformer2DModel(
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=24,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token, std=0.02)
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
    )
    pipe = ZImagePipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae_16(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=Qwen3Model(config).eval(),
        tokenizer=words,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
