"""A policy of the class of Stable Diffusion 3: a flow of 16 channels with a shift, and no U-Net.

The networks are tiny and random, the classes diffusers' own. What a family has to say is `FlowLatents` and
`SD3Policy`; nothing else in the project knows that it exists.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

from t2ialign.diffusion.path import fp32
from t2ialign.models.base import Cond
from t2ialign.models.latents import Latents
from t2ialign.models.options import AS_IT_IS, ModelOptions
from t2ialign.models.pipeline import PipelinePolicy
from tests.conftest import tiny_text_config, tiny_tokenizer

T5_LENGTH = 16


class FlowLatents(Latents):
    """The straight path x_t = (1 - sigma) x_0 + sigma eps; a time is 1000 sigma. Esser et al. 2024."""

    kind, end = "flow", 0.0

    def __init__(self, vae: Any, scheduler: Any, *, native_size: tuple[int, int], patch: int) -> None:
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        super().__init__(vae, native_size=native_size, size_multiple=factor * patch)
        self.scheduler, self.num_train_timesteps = scheduler, scheduler.config.num_train_timesteps

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = t.to(self.device).float() / self.num_train_timesteps
        return 1 - sigma, sigma

    def timesteps(self, num_inference_steps: int, size: tuple[int, int]) -> Tensor:
        """The pipeline's own grid: shifted once more from the shifted range of sigma, then 0."""
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(num_inference_steps)
        return torch.cat([scheduler.timesteps.cpu(), torch.zeros(1)])

    def draw_timesteps(self, u: Tensor) -> Tensor:
        """A logit-normal level, shifted as the scheduler shifts."""
        base, shift = torch.sigmoid(-torch.special.ndtri(u)), self.scheduler.config.shift
        return (self.num_train_timesteps * shift * base / (1 + (shift - 1) * base)).float()


class SD3Policy(PipelinePolicy):
    """StableDiffusion3Pipeline as a policy."""

    component, save_class, family = "transformer", "SD3Transformer2DModel", "sd3"
    lora_targets = tuple(
        f"attn.{name}"
        for name in (
            "to_q",
            "to_k",
            "to_v",
            "to_out.0",
            "add_q_proj",
            "add_k_proj",
            "add_v_proj",
            "to_add_out",
        )
    )
    default_guidance_scale = 7.0

    def __init__(
        self, pipe: Any, *, dtype: torch.dtype = torch.float32, options: ModelOptions = AS_IT_IS
    ) -> None:
        config, side = pipe.transformer.config, pipe.transformer.config.sample_size * pipe.vae_scale_factor
        latents = FlowLatents(pipe.vae, pipe.scheduler, native_size=(side, side), patch=config.patch_size)
        super().__init__(pipe, latents, dtype=dtype, options=options)

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        with self.precision():
            out = self.network(
                x_t.to(self.device, self.dtype),
                timestep=t.to(self.device),
                encoder_hidden_states=cond["prompt_embeds"].to(self.device, self.dtype),
                pooled_projections=cond["pooled"].to(self.device, self.dtype),
                return_dict=False,
            )[0]
        return fp32(out)

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str], clip_skip: int | None) -> Cond:
        hidden, _, pooled, _ = self.pipe.encode_prompt(
            prompt=list(prompts),
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            clip_skip=clip_skip,
            max_sequence_length=T5_LENGTH,
        )
        return {"prompt_embeds": hidden, "pooled": pooled}


def tiny_t5() -> tuple[T5EncoderModel, T5TokenizerFast]:
    """A T5 of single letters."""
    letters = [(chr(code), -3.0) for code in range(ord("a"), ord("z") + 1)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    tokenizer = T5TokenizerFast(vocab=special + letters, extra_ids=0, model_max_length=512)
    sizes = {"d_model": 64, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes)).eval(), tokenizer


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
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=16,
        sample_size=32,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    pipe = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae.eval(),
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
