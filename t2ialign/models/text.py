"""Prompts through CLIP text encoders, and a word about what did not fit."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def window(tokenizer: Any, encoder: Any) -> int:
    """How many tokens the encoder reads, begin and end marks included."""
    return min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))


def warn_if_cut(tokenizer: Any, prompts: Sequence[str], size: int) -> None:
    """Log one warning for each prompt over `size` tokens, quoting the part the model will not see."""
    for prompt in prompts:
        ids = tokenizer(prompt, verbose=False).input_ids
        if len(ids) > size:
            cut = tokenizer.decode(ids[size - 1 : -1], skip_special_tokens=True).strip()
            log.warning(
                "prompt %r has %d tokens and the model reads %d; cut: %r", prompt, len(ids) - 2, size - 2, cut
            )


def encode(tokenizer: Any, encoder: Any, prompts: Sequence[str]) -> Any:
    """Run B prompts, padded and truncated to the window, through one encoder -> its output with hidden
    states.
    """
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=window(tokenizer, encoder),
        truncation=True,
        return_tensors="pt",
    )
    mask = (
        tokens.attention_mask.to(encoder.device)
        if getattr(encoder.config, "use_attention_mask", False)
        else None
    )
    return encoder(tokens.input_ids.to(encoder.device), attention_mask=mask, output_hidden_states=True)


@torch.no_grad()
def encode_one(tokenizer: Any, encoder: Any, prompts: Sequence[str]) -> Tensor:
    """Stable Diffusion 1 and 2: the last hidden state, (B, positions, width)."""
    return encode(tokenizer, encoder, prompts)[0]


@torch.no_grad()
def encode_two(
    tokenizers: Sequence[Any], encoders: Sequence[Any], prompts: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """SDXL: both encoders' last but one hidden states side by side, and the second's pooled embedding.

    Returns (B, positions, width_1 + width_2) and (B, projection). Podell et al. 2023, section 2.1.
    """
    outputs = [encode(*pair, prompts) for pair in zip(tokenizers, encoders, strict=True)]
    return torch.cat([out.hidden_states[-2] for out in outputs], dim=-1), outputs[-1].text_embeds
