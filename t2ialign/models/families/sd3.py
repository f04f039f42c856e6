"""Stable Diffusion 3 and 3.5 as a policy: a transformer over latents and text at once, on a straight path."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from t2ialign.diffusion.path import fp32
from t2ialign.models.base import Cond, Policy
from t2ialign.models.families import clip_text, t5_text
from t2ialign.models.families.flow import FlowLatents
from t2ialign.models.lora_targets import JOINT
from t2ialign.models.options import AS_IT_IS, ModelOptions
from t2ialign.models.pipeline import PipelinePolicy

T5_LENGTH = 256
"""Tokens that T5 reads in diffusers' pipeline, padding included; its training script reads 77 by default. A
model whose T5 tokenizer allows fewer, such as the toy's, which allows none, has so many."""


class SD3Policy(PipelinePolicy):
    """StableDiffusion3Pipeline as a policy, with or without T5. Esser et al. 2024."""

    component, save_class, family = "transformer", "SD3Transformer2DModel", "sd3"
    lora_targets = JOINT
    default_guidance_scale = 7.0

    def __init__(
        self, pipe: Any, *, dtype: torch.dtype = torch.float32, options: ModelOptions = AS_IT_IS
    ) -> None:
        config = pipe.transformer.config
        side = config.sample_size * pipe.vae_scale_factor
        latents = FlowLatents(
            pipe.vae,
            pipe.scheduler,
            native_size=(side, side),
            patch=self._patch(config),
            largest=self.largest_of(pipe.vae.config, config),
        )
        super().__init__(pipe, latents, dtype=dtype, options=options)

    @classmethod
    def _patch(cls, network: Mapping[str, Any]) -> int:
        return int(network["patch_size"])

    @classmethod
    def largest_of(cls, vae: Mapping[str, Any], network: Mapping[str, Any]) -> int | None:
        """Its table of positions has so many tokens a side: 192 in SD3, 384 in SD3.5 Medium."""
        return int(network["pos_embed_max_size"]) * cls.multiple_of(vae, network)

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The transformer's velocity at x_t (B, C, h, w), t (B,) -> fp32 (B, C, h, w)."""
        with self.precision():
            out = self.network(
                x_t.to(self.device, self.dtype),
                timestep=t.to(self.device),  # fp32: bf16 would round 987.3 to 988
                encoder_hidden_states=cond["prompt_embeds"].to(self.device, self.dtype),
                pooled_projections=cond["pooled"].to(self.device, self.dtype),
                return_dict=False,
            )[0]
        return fp32(out)

    def _warn_if_cut(self, prompts: Sequence[str]) -> None:
        """T5 reads more than the CLIPs: what it reads is not lost."""
        pipe = self.pipe
        if pipe.text_encoder_3 is None:
            clip_text.warn_if_cut(
                pipe.tokenizer, prompts, clip_text.window(pipe.tokenizer, pipe.text_encoder)
            )
        else:
            clip_text.warn_if_cut(pipe.tokenizer_3, prompts, self._t5_length)

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str], clip_skip: int | None) -> Cond:
        """Both CLIPs side by side, filled up with zeros to T5's width, then T5's tokens, which none masks."""
        pipe = self.pipe
        tokenizers, encoders = (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2)
        hidden, *pooled = clip_text.encode_two(tokenizers, encoders, prompts, clip_skip)
        words = self._encode_t5(prompts).to(hidden)
        hidden = torch.nn.functional.pad(hidden, (0, words.shape[2] - hidden.shape[2]))
        return {"prompt_embeds": torch.cat([hidden, words], 1), "pooled": torch.cat(pooled, 1)}

    @property
    def _t5_length(self) -> int:
        tokenizer = self.pipe.tokenizer_3
        return T5_LENGTH if tokenizer is None else min(T5_LENGTH, int(tokenizer.model_max_length))

    def _encode_t5(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> (B, tokens, width); zeros without T5, as the pipeline has it."""
        tokenizer, encoder = self.pipe.tokenizer_3, self.pipe.text_encoder_3
        if encoder is None:
            width = self.adapted.config.joint_attention_dim
            return torch.zeros(len(prompts), self._t5_length, width, device=self.device)
        return t5_text.encode(tokenizer, encoder, prompts, self._t5_length)


PIPELINES: dict[str, type[Policy]] = {"StableDiffusion3Pipeline": SD3Policy}
