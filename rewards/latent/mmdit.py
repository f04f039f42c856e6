"""The part of Stable Diffusion 3 that a latent reward model uses: text encoders and the first blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from rewards.latent.unet import Text

T5_LENGTH = 256
"""Positions of T5 in the context, or as few as its tokenizer allows; as many zeros where there is no T5."""


class MMDiTBackbone(nn.Module):
    """The first blocks of a Stable Diffusion 3 transformer, and the text encoders it was trained with.

    transformer, text_encoder to text_encoder_3: diffusers' and transformers' own; CLIP-L, CLIP-G and, where
    there is one, T5. tokenizers: one for each encoder; T5's may be there without it. layer: the block, from
    1, whose image tokens are the features; the later ones and the output head are dropped from `transformer`.
    Three quarters of the depth if None: the 18th of SD3-medium's 24. "From the 18th layer" is all that Zhang
    et al. (arXiv 2502.01051) say of this layout; as every block has one scale, there are no down features
    here. Raises ValueError for a layer that the transformer has not.
    """

    def __init__(
        self,
        transformer: Any,
        tokenizers: Sequence[Any],
        text_encoder: Any,
        text_encoder_2: Any,
        text_encoder_3: Any = None,
        *,
        layer: int | None = None,
    ) -> None:
        super().__init__()
        blocks = transformer.transformer_blocks
        self.layer = max(3 * len(blocks) // 4, 1) if layer is None else layer
        if not 1 <= self.layer <= len(blocks):
            raise ValueError(f"got layer {layer}; expected 1 to {len(blocks)}, as it has blocks; choose one")
        transformer.transformer_blocks = blocks[: self.layer]
        transformer.norm_out, transformer.proj_out = nn.Identity(), nn.Identity()
        self.transformer, self.tokenizers = transformer, list(tokenizers)
        self.text_encoder, self.text_encoder_2 = text_encoder, text_encoder_2
        self.text_encoder_3 = text_encoder_3

    @property
    def down_width(self) -> int:
        """0: there are no down features."""
        return 0

    @property
    def mid_width(self) -> int:
        """The width of the pooled image tokens: 1536 for SD3-medium."""
        return int(self.transformer.inner_dim)

    @property
    def text_width(self) -> int:
        """The width of the pooled text: CLIP-G's 1280."""
        return int(self.text_encoder_2.config.projection_dim)

    @property
    def text_is_projected(self) -> bool:
        """Always: the pooled text is CLIP-G's own embedding, as in SDXL."""
        return True

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the latents the model was made for."""
        side = int(self.transformer.config.sample_size)
        return side, side

    def encode_prompts(self, prompts: Sequence[str]) -> Text:
        """B prompts -> hidden (B, positions, width), projections (B, both CLIPs') and pooled (B, text_width).

        hidden and projections condition the blocks as diffusers' StableDiffusion3Pipeline encodes them: the
        CLIPs side by side, padded to T5's width and followed by T5. The score compares pooled, CLIP-G's part.
        """
        length = int(self.tokenizers[0].model_max_length)
        clips = [
            encoder(_tokens(tokenizer, prompts, length).to(encoder.device), output_hidden_states=True)
            for tokenizer, encoder in zip(
                self.tokenizers[:2], (self.text_encoder, self.text_encoder_2), strict=True
            )
        ]
        clip = torch.cat([out.hidden_states[-2] for out in clips], dim=-1)
        t5 = self._encode_t5(prompts, clip)
        return {
            "hidden": torch.cat([pad(clip, (0, t5.shape[-1] - clip.shape[-1])), t5], dim=1),
            "projections": torch.cat([out.text_embeds for out in clips], dim=-1),
            "pooled": clips[1].text_embeds,
        }

    def features(self, latents: Tensor, t: Tensor, text: Text) -> tuple[Tensor, Tensor]:
        """latents (B, C, h, w) at t (B,) -> no down (B, 0) and the pooled middle (B, mid_width) features.

        t: 1000 sigma, in [0, 1000], as the transformer was trained. Calling a reward takes whole numbers, so
        round the flow sampler's; half a step is 0.0005 of sigma.
        """
        net = self.transformer
        tokens, context = net.pos_embed(latents), net.context_embedder(text["hidden"])
        emb = net.time_text_embed(t, text["projections"])
        for block in net.transformer_blocks:
            context, tokens = block(hidden_states=tokens, encoder_hidden_states=context, temb=emb)
        return tokens.new_zeros(len(tokens), 0), tokens.mean(1)

    def _encode_t5(self, prompts: Sequence[str], like: Tensor) -> Tensor:
        length = min([T5_LENGTH, *(int(tokenizer.model_max_length) for tokenizer in self.tokenizers[2:])])
        if self.text_encoder_3 is None:
            return like.new_zeros(len(prompts), length, self.transformer.config.joint_attention_dim)
        tokens = _tokens(self.tokenizers[2], prompts, length)
        encoded: Tensor = self.text_encoder_3(tokens.to(self.text_encoder_3.device)).last_hidden_state
        return encoded


def _tokens(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """(B, length), padded and truncated; the encoders see the padding too, as in training."""
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    ids: Tensor = tokens.input_ids
    return ids
