"""The cross-attention of MPS: image tokens ask a prompt's tokens, then each other.

Zhang et al. 2024, "Learning Multi-Dimensional Human Preference for Text-to-Image Generation", section 4.
All heads of a layer share one key and one value (Shazeer 2019); feed-forward and attention run side by side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASE = 10000.0
"""The base of the wavelengths of the rotary positions (Su et al. 2021)."""


class Asking(nn.Module):
    """x + attention of x over a context + feed-forward of x, both after one norm; the context has none."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(width, 2 * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)
        self.ff = nn.Sequential(nn.Linear(width, 8 * width, bias=False), SwiGLU(), _narrow(width))

    def forward(self, x: Tensor, context: Tensor, visible: Tensor) -> Tensor:
        """x (B, N, D), context (B, L, D), which of its tokens may be seen (B, L) -> (B, N, D)"""
        normed = self.norm(x)
        key, value = self.to_kv(context).chunk(2, dim=-1)
        seen = _attend(self.to_q(normed), key, value, self.heads, mask=visible[:, None, None])
        out: Tensor = x + self.to_out(seen) + self.ff(normed)
        return out


class Mixing(nn.Module):
    """x + self-attention with rotary positions + feed-forward, all read from one projection of one norm."""

    angles: Tensor

    def __init__(self, width: int, heads: int, head_width: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.parts = (heads * head_width, head_width, head_width, 8 * width)
        self.norm = nn.LayerNorm(width)
        self.fused = nn.Linear(width, sum(self.parts), bias=False)
        self.attn_out = nn.Linear(heads * head_width, width, bias=False)
        self.ff_out = nn.Sequential(SwiGLU(), _narrow(width))
        frequencies = BASE ** (-torch.arange(0, head_width, 2) / head_width)
        self.register_buffer("angles", angles(frequencies, length))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)"""
        query, key, value, wide = self.fused(self.norm(x)).split(self.parts, dim=-1)
        turn = self.angles[: x.shape[1]]
        query = _rotate(query.reshape(*x.shape[:2], self.heads, -1), turn[:, None]).flatten(-2)
        out: Tensor = (
            x + self.attn_out(_attend(query, _rotate(key, turn), value, self.heads)) + self.ff_out(wide)
        )
        return out


class CrossAttention(nn.Module):
    """Layers of `Asking` and `Mixing` in turn; N is at most `length`."""

    def __init__(self, width: int, *, layers: int, heads: int, head_width: int = 64, length: int) -> None:
        super().__init__()
        self.length = length
        self.layers = nn.ModuleList(
            nn.ModuleList([Asking(width, heads, head_width), Mixing(width, heads, head_width, length)])
            for _ in range(layers)
        )

    def forward(self, x: Tensor, context: Tensor, visible: Tensor) -> Tensor:
        """x (B, N, D), context (B, L, D), which of its tokens may be seen (B, L) bool -> (B, N, D)"""
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList), "a layer is a pair"
            asking, mixing = layer
            x = mixing(asking(x, context, visible))
        return x


class SwiGLU(nn.Module):
    """The first half times SiLU of the second (Shazeer 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2 D) -> (..., D)"""
        value, gate = x.chunk(2, dim=-1)
        return F.silu(gate) * value


def angles(frequencies: Tensor, length: int) -> Tensor:
    """frequencies (d/2,) -> position times frequency (length, d), twice side by side, at their precision.

    A checkpoint in half precision is evaluated with angles rounded to it: over 257 tokens by up to 0.1.
    """
    table = torch.arange(length, dtype=frequencies.dtype)[:, None] * frequencies
    return torch.cat([table, table], dim=-1)


def _narrow(width: int) -> nn.Linear:
    return nn.Linear(4 * width, width, bias=False)


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + d/2}) by the angle of their position: (B, N, ..., d), (N, ..., d)."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = turn.cos().to(x.dtype), turn.sin().to(x.dtype)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """query (B, N, heads d), one key and one value for all heads (B, L, d) -> (B, N, heads d)"""
    split = query.reshape(*query.shape[:2], heads, -1).transpose(1, 2)
    key, value = (x[:, None].expand(-1, heads, -1, -1) for x in (key, value))
    return F.scaled_dot_product_attention(split, key, value, attn_mask=mask).transpose(1, 2).flatten(-2)
