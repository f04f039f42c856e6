"""FLUX.1 as a policy: latents packed into tokens, and a guidance scale that the network is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from t2ialign.diffusion.path import fp32
from t2ialign.models.base import Cond, Policy
from t2ialign.models.families import clip_text, t5_text
from t2ialign.models.families.flow import FlowLatents
from t2ialign.models.lora_targets import JOINT_AND_MLP
from t2ialign.models.options import AS_IT_IS, ModelOptions
from t2ialign.models.pipeline import PipelinePolicy

T5_LENGTH, SCHNELL_T5_LENGTH = 512, 256
"""Tokens that T5 reads in diffusers' pipeline, padding included; for schnell no more than 256."""
PATCH = 2
"""Latent cells along one side of a token."""
GUIDANCE = 3.5
"""The scale that the network is told where a loss has none of its own, as in diffusers' training script."""


class FluxPolicy(PipelinePolicy):
    """FluxPipeline as a policy, dev or schnell; schnell samples and cannot be trained."""

    component, save_class, family = "transformer", "FluxTransformer2DModel", "flux"
    lora_targets = JOINT_AND_MLP
    default_guidance_scale = GUIDANCE

    def __init__(
        self, pipe: Any, *, dtype: torch.dtype = torch.float32, options: ModelOptions = AS_IT_IS
    ) -> None:
        side = pipe.default_sample_size * pipe.vae_scale_factor
        latents = FlowLatents(pipe.vae, pipe.scheduler, native_size=(side, side), patch=PATCH, even=True)
        super().__init__(pipe, latents, dtype=dtype, options=options)
        self.is_told_guidance = bool(pipe.transformer.config.guidance_embeds)
        self.t5_length = T5_LENGTH if self.is_told_guidance else SCHNELL_T5_LENGTH

    @classmethod
    def untrainable_by(cls, network: Mapping[str, Any]) -> str | None:
        """What schnell is, which is not told a guidance scale."""
        if network["guidance_embeds"]:
            return None
        return (
            "FLUX.1 schnell, which is distilled to four steps that training on all times undoes; expected "
            "FLUX.1 dev"
        )

    @classmethod
    def _patch(cls, network: Mapping[str, Any]) -> int:
        return PATCH

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The velocity at x_t (B, C, h, w), t (B,), told a guidance scale of 3.5 -> fp32 (B, C, h, w)."""
        return self.guided(x_t, t, cond, GUIDANCE)

    def guided(self, x_t: Tensor, t: Tensor, cond: Cond, guidance_scale: float) -> Tensor:
        """The velocity where the network is told the scale, fp32 (B, C, h, w): one forward of B rows."""
        rows, columns = x_t.shape[2] // PATCH, x_t.shape[3] // PATCH
        text = cond["prompt_embeds"].to(self.device, self.dtype)
        told = torch.full((len(x_t),), guidance_scale, device=self.device) if self.is_told_guidance else None
        with self.precision():
            out = self.network(
                hidden_states=packed(x_t.to(self.device, self.dtype)),
                timestep=t.to(self.device) / self.num_train_timesteps,
                guidance=told,
                pooled_projections=cond["pooled"].to(self.device, self.dtype),
                encoder_hidden_states=text,
                txt_ids=torch.zeros(text.shape[1], 3, device=self.device),
                img_ids=places(rows, columns, self.device),
                return_dict=False,
            )[0]
        return fp32(unpacked(out, rows, columns))

    def _warn_if_cut(self, prompts: Sequence[str]) -> None:
        """T5 reads more than CLIP: what it reads is not lost."""
        clip_text.warn_if_cut(self.pipe.tokenizer_2, prompts, self.t5_length)

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str], clip_skip: int | None) -> Cond:
        """CLIP's pooled embedding, and T5's tokens, which none masks. Raises ValueError for clip_skip."""
        if clip_skip:
            raise ValueError(
                f"got clip_skip={clip_skip} for FLUX.1, which reads CLIP's pooled embedding alone; expected "
                "none; drop it"
            )
        pipe = self.pipe
        pooled = clip_text.encode(pipe.tokenizer, pipe.text_encoder, prompts).pooler_output
        hidden = t5_text.encode(pipe.tokenizer_2, pipe.text_encoder_2, prompts, self.t5_length)
        return {"prompt_embeds": hidden, "pooled": pooled}


def packed(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> tokens of 2x2 cells (B, h w / 4, 4 C), the channel first within a token."""
    B, C, h, w = latents.shape
    tokens = latents.reshape(B, C, h // PATCH, PATCH, w // PATCH, PATCH).permute(0, 2, 4, 1, 3, 5)
    return tokens.reshape(B, h * w // PATCH**2, C * PATCH**2)


def unpacked(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `packed`: (B, rows columns, 4 C) -> (B, C, 2 rows, 2 columns)."""
    cells = tokens.reshape(len(tokens), rows, columns, -1, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(len(tokens), -1, PATCH * rows, PATCH * columns)


def places(rows: int, columns: int, device: torch.device) -> Tensor:
    """(0, y, x) of every token, (rows columns, 3)."""
    y, x = torch.arange(rows, device=device), torch.arange(columns, device=device)
    ids = torch.cartesian_prod(y, x).view(-1, 2)
    return torch.nn.functional.pad(ids, (1, 0)).float()


PIPELINES: dict[str, type[Policy]] = {"FluxPipeline": FluxPolicy}
