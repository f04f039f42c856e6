"""Latent reward models: a diffusion model's own blocks judge its noisy latents at any timestep, undecoded.

Zhang et al., NeurIPS 2025, arXiv 2502.01051 (LRM): pooled features of a UNet's down and middle blocks, or
of one block of Stable Diffusion 3's transformer, one bias-free projection, a learnable temperature,
S = exp(tau) cos(image, text). Visual Feature Enhancement is classifier-free guidance on the middle features
only; it costs a second pass with the empty prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rewards.base import LatentReward
from rewards.checks import check_scores
from rewards.latent.networks import Backbone
from rewards.latent.unet import Text

LOG_SCALE = 2.6592
"""CLIP's start of the temperature: exp of it is 14.28."""
GUIDANCE = 7.5
STD = 0.02


class LRM(LatentReward):
    """S(prompt, x_t, t) = exp(log_scale) cos(visual, text): what `score` gives; differentiable in x_t.

    dim: of both embeddings; the width of the pooled text if None. guidance: of Visual Feature Enhancement; 1
    is without, and half the cost.
    """

    def __init__(
        self, backbone: Backbone, *, dim: int | None = None, guidance_scale: float = GUIDANCE, seed: int = 0
    ) -> None:
        super().__init__()
        if guidance_scale < 1:
            raise ValueError(f"got guidance {guidance_scale}; expected 1, which is none, or more")
        self.backbone, self.guidance_scale, self.dim = backbone, guidance_scale, dim or backbone.text_width
        self.visual_projection = nn.Linear(backbone.down_width + backbone.mid_width, self.dim, bias=False)
        draw = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.visual_projection.weight, std=STD, generator=draw)
        self.text_projection: nn.Linear | None = None
        if not backbone.text_is_projected:
            self.text_projection = nn.Linear(backbone.text_width, self.dim, bias=False)
            nn.init.eye_(self.text_projection.weight)
        elif self.dim != backbone.text_width:
            raise ValueError(
                f"got dim {dim}; expected {backbone.text_width}, as the text embeddings have; leave it out"
            )
        self.log_scale = nn.Parameter(torch.tensor(LOG_SCALE))

    def encode_prompts(self, prompts: list[str]) -> Text:
        """B prompts -> all that scoring needs of them, batch-first; with the empty prompt's for guidance."""
        text = self.backbone.encode_prompts(prompts)
        embedded = text["pooled"] if self.text_projection is None else self.text_projection(text["pooled"])
        text["embedding"] = normalize(embedded, dim=1)
        if self.guidance_scale != 1:
            empty = self.backbone.encode_prompts([""])
            text |= {
                f"empty_{key}": value.expand(len(prompts), *value.shape[1:]) for key, value in empty.items()
            }
        return text

    def embed(self, latents: Tensor, t: Tensor, text: Text) -> Tensor:
        """latents (B, C, h, w), t (B,) -> unit embeddings (B, dim); one pass of B, or of 2B with guidance."""
        if self.guidance_scale == 1:
            down, middle = self.backbone.features(latents, t, text)
        else:
            both = {
                key: torch.cat([text[f"empty_{key}"], text[key]]) for key in text if f"empty_{key}" in text
            }
            downs, middles = self.backbone.features(latents.repeat(2, 1, 1, 1), t.repeat(2), both)
            down, (empty, full) = downs.chunk(2)[1], middles.chunk(2)
            middle = empty + self.guidance_scale * (full - empty)
        return normalize(self.visual_projection(torch.cat([down, middle], 1)), dim=1)

    def score_encoded(self, latents: Tensor, t: Tensor, text: Text) -> Tensor:
        """latents (B, C, h, w), t (B,), B encoded prompts -> (B,); no text encoder runs.

        K candidates of B latents are one call: repeat the rows of `text`.
        """
        scores = self.log_scale.exp() * (self.embed(latents, t, text) * text["embedding"]).sum(1)
        return check_scores(self, scores, len(latents))

    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """latents (B, C, h, w) at timesteps t (B,) long, B prompts -> (B,)"""
        return self.score_encoded(latents, t, self.encode_prompts(prompts))
