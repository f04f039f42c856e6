"""The part of Stable Diffusion 1, 2 and XL that a latent reward uses: text encoders, down and mid blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Text = dict[str, Tensor]
"""Encoded prompts; every value is batch-first, so candidates share one encoding by repeating its rows."""


class UNetBackbone(nn.Module):
    """A UNet without its up blocks, and the text encoders it was trained with.

    unet, text_encoder, text_encoder_2: diffusers' and transformers' own; the up blocks of `unet` are dropped.
    The second encoder, SDXL's, is a CLIPTextModelWithProjection. tokenizers: one for each encoder.
    """

    def __init__(
        self, unet: Any, tokenizers: Sequence[Any], text_encoder: Any, text_encoder_2: Any = None
    ) -> None:
        super().__init__()
        unet.up_blocks, unet.conv_norm_out, unet.conv_out = nn.ModuleList(), None, nn.Identity()
        self.unet, self.tokenizers = unet, list(tokenizers)
        self.text_encoder, self.text_encoder_2 = text_encoder, text_encoder_2

    @property
    def down_width(self) -> int:
        """The width of the pooled down features: 320 + 640 + 1280 + 1280 for Stable Diffusion 1.5."""
        return int(sum(self.unet.config.block_out_channels))

    @property
    def mid_width(self) -> int:
        """The width of the pooled middle features: 1280 for Stable Diffusion 1.5 and SDXL."""
        return int(self.unet.config.block_out_channels[-1])

    @property
    def text_width(self) -> int:
        """The width of the pooled text: 768 for Stable Diffusion 1.5, 1280 for SDXL."""
        if self.text_encoder_2 is not None:
            return int(self.text_encoder_2.config.projection_dim)
        return int(self.text_encoder.config.hidden_size)

    @property
    def text_is_projected(self) -> bool:
        """Whether the pooled text is an embedding already, as SDXL's second encoder gives it."""
        return self.text_encoder_2 is not None

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the latents the model was made for."""
        size = self.unet.config.sample_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def encode_prompts(self, prompts: Sequence[str]) -> Text:
        """B prompts -> hidden (B, positions, width) for the blocks, pooled (B, text_width)."""
        encoders = [self.text_encoder] + ([self.text_encoder_2] if self.text_encoder_2 is not None else [])
        outputs = [
            _encode(tokenizer, encoder, prompts)
            for tokenizer, encoder in zip(self.tokenizers, encoders, strict=True)
        ]
        if self.text_encoder_2 is None:
            return {"hidden": outputs[0][0], "pooled": outputs[0].pooler_output}
        hidden = torch.cat([out.hidden_states[-2] for out in outputs], dim=-1)
        return {"hidden": hidden, "pooled": outputs[1].text_embeds}

    def features(self, latents: Tensor, t: Tensor, text: Text) -> tuple[Tensor, Tensor]:
        """latents (B, C, h, w) at t (B,) -> pooled down (B, down_width) and middle (B, mid_width) features.

        Of each down block, what its last layer gives before the downsampler: residuals 2, 5, 8 and 11 of
        Stable Diffusion 1.5, 2, 5 and 8 of SDXL.
        """
        unet, hidden = self.unet, text["hidden"]
        emb = unet.time_embedding(unet.get_time_embed(sample=latents, timestep=t))
        added = unet.get_aug_embed(
            emb=emb, encoder_hidden_states=hidden, added_cond_kwargs=self._added(text, latents)
        )
        emb = emb if added is None else emb + added
        x, pooled = unet.conv_in(latents), []
        for block in unet.down_blocks:
            x, states = self._block(block, x, emb, hidden)
            pooled.append(states[-2 if block.downsamplers is not None else -1].mean((2, 3)))
        middle = unet.mid_block(x, emb, encoder_hidden_states=hidden)
        return torch.cat(pooled, 1), middle.mean((2, 3))

    @staticmethod
    def _block(block: Any, x: Tensor, emb: Tensor, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        if getattr(block, "has_cross_attention", False):
            output: tuple[Tensor, tuple[Tensor, ...]] = block(x, temb=emb, encoder_hidden_states=hidden)
        else:
            output = block(x, temb=emb)
        return output

    def _added(self, text: Text, latents: Tensor) -> dict[str, Tensor] | None:
        """SDXL's size conditioning: the image is whole and has the size of its latents."""
        if self.text_encoder_2 is None:
            return None
        height, width = (8 * side for side in latents.shape[2:])
        ids = torch.tensor([height, width, 0, 0, height, width], device=latents.device)
        return {"text_embeds": text["pooled"], "time_ids": ids.expand(len(latents), 6)}


def _encode(tokenizer: Any, encoder: Any, prompts: Sequence[str]) -> Any:
    """Padded and truncated to the encoder's window, as the diffusion model was trained."""
    window = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=window, truncation=True, return_tensors="pt"
    )
    return encoder(tokens.input_ids.to(encoder.device), output_hidden_states=True)
