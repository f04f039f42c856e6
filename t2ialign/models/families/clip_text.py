"""Prompts through CLIP text encoders, with a warning about parts that do not fit."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

QUOTED = 200
"""Letters of a prompt that a warning quotes."""

log = logging.getLogger(__name__)


def window(tokenizer: Any, encoder: Any) -> int:
    """The number of tokens that the encoder reads, begin and end marks included."""
    return min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))


def warn_if_cut(tokenizer: Any, prompts: Sequence[str], size: int) -> None:
    """Log one warning for each prompt over `size` tokens, quoting the part the model will not see."""
    for prompt in prompts:
        ids = tokenizer(prompt, verbose=False).input_ids
        if len(ids) > size:
            cut = tokenizer.decode(ids[size - 1 : -1], skip_special_tokens=True).strip()
            log.warning(
                "prompt %r has %d tokens and the model reads %d; cut: %r",
                *(prompt[:QUOTED], len(ids) - 2, size - 2, cut[:QUOTED]),
            )


def encode(tokenizer: Any, encoder: Any, prompts: Sequence[str]) -> Any:
    """Run B prompts, padded and truncated to the window, through one encoder -> its output with hidden
    states.

    Raises ValueError for a tokenizer that knows tokens which the encoder has no embedding for.
    """
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=window(tokenizer, encoder),
        truncation=True,
        return_tensors="pt",
    )
    known, largest = encoder.get_input_embeddings().num_embeddings, int(tokens.input_ids.max())
    if largest >= known:
        raise ValueError(
            f"got token {largest} from the model's tokenizer, whose text encoder has {known} embeddings; "
            "expected a tokenizer and an encoder of one model; restore their files"
        )
    mask = (
        tokens.attention_mask.to(encoder.device)
        if getattr(encoder.config, "use_attention_mask", False)
        else None
    )
    return encoder(tokens.input_ids.to(encoder.device), attention_mask=mask, output_hidden_states=True)


@torch.no_grad()
def encode_one(tokenizer: Any, encoder: Any, prompts: Sequence[str], clip_skip: int | None = None) -> Tensor:
    """Stable Diffusion 1 and 2: the last hidden state but `clip_skip`, normalised, (B, positions, width)."""
    out = encode(tokenizer, encoder, prompts)
    if not clip_skip:
        return out[0]
    tower = getattr(encoder, "text_model", encoder)  # transformers before 5.6 wraps it
    normalised: Tensor = tower.final_layer_norm(_layer(out, clip_skip))
    return normalised


@torch.no_grad()
def encode_two(
    tokenizers: Sequence[Any],
    encoders: Sequence[Any],
    prompts: Sequence[str],
    clip_skip: int | None = None,
) -> tuple[Tensor, ...]:
    """SDXL and SD3: both encoders' last but one hidden states side by side, and the pooled embedding of each.

    clip_skip: layers before those, as diffusers counts. Returns (B, positions, width_1 + width_2), and
    (B, projection) twice; a first encoder without a projection has its unprojected one there. Podell et al.
    2023, section 2.1.
    """
    outputs = [encode(*pair, prompts) for pair in zip(tokenizers, encoders, strict=True)]
    hidden = [_layer(out, 1 + (clip_skip or 0)) for out in outputs]
    pooled = [out.text_embeds if "text_embeds" in out else out.pooler_output for out in outputs]
    return torch.cat(hidden, dim=-1), *pooled


def _layer(out: Any, skipped: int) -> Tensor:
    """The hidden state before the last `skipped` layers. Raises ValueError if there are not so many."""
    if skipped >= len(out.hidden_states):
        raise ValueError(
            f"got a clip_skip that leaves out {skipped} layers of {len(out.hidden_states) - 1}; expected "
            "fewer; lower clip_skip"
        )
    state: Tensor = out.hidden_states[-1 - skipped]
    return state
