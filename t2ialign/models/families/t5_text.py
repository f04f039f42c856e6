"""Prompts through T5, as Stable Diffusion 3 and FLUX.1 read it: padded to one length, and nothing masked."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def encode(tokenizer: Any, encoder: Any, prompts: Sequence[str], length: int) -> Tensor:
    """B prompts -> the last hidden states (B, length, width)."""
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    states: Tensor = encoder(tokens.input_ids.to(encoder.device))[0]
    return states
