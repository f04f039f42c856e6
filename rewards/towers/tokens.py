"""Prompts to token ids for CLIP text encoders, with a word about what of a prompt is not read."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

log = logging.getLogger(__name__)

CLIP_LENGTH = 77
LONGEST_TOKEN = 32
"""Bytes of CLIP's longest token; a word is read up to this many bytes for each token that is read."""
QUOTED = 200
"""Letters of a prompt that a warning quotes."""
Style = Literal["openai", "transformers"]


class Tokens:
    """Prompts -> ids; a prompt over `length` tokens is cut before its end token, with one warning each."""

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        decode: Callable[[list[int]], str],
        *,
        start: int,
        end: int,
        length: int = CLIP_LENGTH,
    ) -> None:
        self.encode, self.decode = encode, decode
        self.start, self.end, self.length = start, end, length
        self.warned: set[str] = set()

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """P prompts -> (P, L) long: start, text, end, then zeros up to the longest of them.

        What follows the end token never reaches a causal encoder's output: the shortest padding will do.
        """
        rows = [[self.start, *self._read(prompt), self.end] for prompt in prompts]
        ids = torch.zeros(len(rows), max(map(len, rows), default=2), dtype=torch.long)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        return ids

    def _read(self, prompt: str) -> list[int]:
        ids, size = self.encode(self._bounded(prompt)), self.length - 2
        if len(ids) > size and prompt not in self.warned:
            self.warned.add(prompt)
            log.warning(
                "prompt %r has %d tokens and the reward reads %d; cut: %r",
                *(prompt[:QUOTED], len(ids), size, self.decode(ids[size:]).strip()[:QUOTED]),
            )
        return ids[:size]

    def _bounded(self, prompt: str) -> str:
        """The prompt with no word longer than can be read: merging takes the square of its length."""
        most = self.length * LONGEST_TOKEN
        return prompt if len(prompt) <= most else re.sub(r"\S+", lambda word: word[0][:most], prompt)


def clip_tokens(style: Style = "openai", length: int = CLIP_LENGTH) -> Tokens:
    """CLIP's vocabulary of 49,408, from the merges that open_clip carries: nothing is downloaded.

    "openai" cleans the text first as OpenAI's and open_clip's code does (mojibake, HTML entities), and
    "transformers" normalises Unicode (NFC) instead; plain prompts come out the same.
    Raises ValueError for another style.
    """
    from open_clip.tokenizer import SimpleTokenizer

    simple = SimpleTokenizer()
    start, end = simple.sot_token_id, simple.eot_token_id
    if style == "openai":
        return Tokens(simple.encode, simple.decode, start=start, end=end, length=length)
    if style != "transformers":
        raise ValueError(f"got tokenizer {style!r}; expected openai or transformers; pass one of them")
    from transformers import CLIPTokenizer

    special = {start: "<|startoftext|>", end: "<|endoftext|>"}
    vocab = {special.get(index, token): index for token, index in simple.encoder.items()}
    return from_transformers(CLIPTokenizer(vocab=vocab, merges=list(simple.bpe_ranks)), length)


def from_transformers(tokenizer: Any, length: int | None = None) -> Tokens:
    """The ids of a transformers CLIPTokenizer, by default up to the length it states itself."""

    def encode(prompt: str) -> list[int]:
        return list(tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids)

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    return Tokens(
        encode,
        decode,
        start=tokenizer.bos_token_id,
        end=tokenizer.eos_token_id,
        length=length or tokenizer.model_max_length,
    )
