"""CLIP's tokenizer, built from the merges that open_clip ships, for released weights without one."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files
from typing import Any

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
POSITIONS = 77
SIZE = 49_408
"""Tokens: 256 bytes, the same as ends of words, 48,894 merges and two marks."""


def clip_tokenizer(*, open_clip: bool = False) -> Any:
    """The CLIPTokenizer of Stable Diffusion. Radford et al. 2021, section 2.4.

    open_clip: pad with "!", as the pipelines with open_clip's encoders do, not with the end mark. As in their
    published tokenizers, "!" within a prompt is then the padding token too.
    """
    from transformers import CLIPTokenizer

    letters, merges = _letters(), _merges()
    ends, words = [letter + "</w>" for letter in letters], ["".join(pair) for pair in merges]
    tokens = [*letters, *ends, *words, BOS, EOS]
    assert len(tokens) == SIZE, f"{len(tokens)} tokens"
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=list(merges),
        bos_token=BOS,
        eos_token=EOS,
        unk_token=EOS,
        pad_token="!" if open_clip else EOS,
        model_max_length=POSITIONS,
    )


@cache
def _merges() -> tuple[tuple[str, str], ...]:
    """The merges in their order; the file goes on with others, which CLIP does not use."""
    data = (files("open_clip") / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(data).decode("utf-8").split("\n")[1 : SIZE - 2 * 256 - 2 + 1]
    return tuple((first, second) for first, second in map(str.split, lines))


def _letters() -> list[str]:
    """One visible letter for each byte, printable bytes first, in the order of their tokens (GPT-2's)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place, _ in enumerate(others)]
