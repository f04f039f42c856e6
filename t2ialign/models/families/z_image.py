"""Z-Image as a policy: a transformer over image and words, whose time runs the other way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from t2ialign.diffusion.path import fp32
from t2ialign.models.base import Cond, Policy
from t2ialign.models.families import clip_text
from t2ialign.models.families.flow import FlowLatents
from t2ialign.models.lora_targets import ATTENTION
from t2ialign.models.options import AS_IT_IS, ModelOptions
from t2ialign.models.pipeline import PipelinePolicy

LENGTH = 512
"""Tokens of a prompt that diffusers' pipeline encodes at most, its chat template included."""
SIDE = 1024
"""Pixels along one side of an image, where the pipeline is told nothing else."""


class ZImagePolicy(PipelinePolicy):
    """ZImagePipeline as a policy. Its pipeline counts guidance from 0: a scale here is 1 more than there."""

    component, save_class, family = "transformer", "ZImageTransformer2DModel", "z-image"
    lora_targets = ATTENTION
    default_guidance_scale = 6.0

    def __init__(
        self, pipe: Any, *, dtype: torch.dtype = torch.float32, options: ModelOptions = AS_IT_IS
    ) -> None:
        patch = self._patch(pipe.transformer.config)
        latents = FlowLatents(pipe.vae, pipe.scheduler, native_size=(SIDE, SIDE), patch=patch, even=True)
        super().__init__(pipe, latents, dtype=dtype, options=options)

    @classmethod
    def _patch(cls, network: Mapping[str, Any]) -> int:
        return int(network["all_patch_size"][0])

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The velocity at x_t (B, C, h, w), t (B,) -> fp32 (B, C, h, w).

        The network is told 1 - sigma, and gives the velocity towards the image: the opposite of ours.
        """
        words = cond["prompt_embeds"].to(self.device, self.dtype)
        texts = [row[:length] for row, length in zip(words, cond["lengths"].tolist(), strict=True)]
        with self.precision():
            out = self.network(
                list(x_t.to(self.device, self.dtype).unsqueeze(2).unbind()),
                1 - t.to(self.device) / self.num_train_timesteps,
                texts,
                return_dict=False,
            )[0]
        return -fp32(torch.stack(list(out))).squeeze(2)

    def _warn_if_cut(self, prompts: Sequence[str]) -> None:
        clip_text.warn_if_cut(self.pipe.tokenizer, self._as_chat(prompts), LENGTH)

    def _as_chat(self, prompts: Sequence[str]) -> list[str]:
        """Prompts as turns of a conversation, as the pipeline asks its language model."""
        template = self.pipe.tokenizer.apply_chat_template
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return [
            str(template(turn, tokenize=False, add_generation_prompt=True, enable_thinking=True))
            for turn in turns
        ]

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str], clip_skip: int | None) -> Cond:
        """The language model's last but one hidden states, filled up with zeros, and their number a prompt.

        Raises ValueError for clip_skip.
        """
        if clip_skip:
            raise ValueError(
                f"got clip_skip={clip_skip} for Z-Image, which has no CLIP; expected none; drop it"
            )
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        tokens = tokenizer(
            self._as_chat(prompts),
            padding="max_length",
            max_length=LENGTH,
            truncation=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(encoder.device).bool()
        states = encoder(
            input_ids=tokens.input_ids.to(encoder.device), attention_mask=mask, output_hidden_states=True
        ).hidden_states[-2]
        rows = [state[seen] for state, seen in zip(states, mask, strict=True)]
        embeds = states.new_zeros(len(rows), LENGTH, states.shape[2])
        for place, row in enumerate(rows):
            embeds[place, : len(row)] = row
        return {"prompt_embeds": embeds, "lengths": torch.tensor([len(row) for row in rows])}


PIPELINES: dict[str, type[Policy]] = {"ZImagePipeline": ZImagePolicy}
