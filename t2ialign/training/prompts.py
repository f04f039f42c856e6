"""The prompts of a trainer that samples: each distinct one is encoded once, before the encoders are freed."""

from __future__ import annotations

import torch
from torch import Tensor

from t2ialign.diffusion.noise import generator
from t2ialign.models.base import Cond, Policy
from t2ialign.progress import Progress


class Prompts:
    """Prompts, each distinct one encoded once, kept on the CPU."""

    def __init__(self, policy: Policy, texts: list[str], *, batch_size: int = 32) -> None:
        self.policy, self.texts = policy, texts
        unique = list(dict.fromkeys(texts))
        row = {text: i for i, text in enumerate(unique)}
        self._rows = torch.tensor([row[text] for text in texts])
        self._conds: Cond = {}
        with Progress(total=len(unique), desc="encoding prompts", unit="prompt", delay=3) as bar:
            for start in range(0, len(unique), batch_size):
                part = policy.encode_prompts(unique[start : start + batch_size])
                for name, rows in part.items():
                    if name not in self._conds:  # filled in place: a cat would need it all twice
                        self._conds[name] = torch.empty(len(unique), *rows.shape[1:], dtype=rows.dtype)
                    self._conds[name][start : start + len(rows)] = rows.cpu()
                bar.update(min(batch_size, len(unique) - start))

    def cond(self, numbers: Tensor, size: tuple[int, int] | None = None) -> Cond:
        """The encodings of those prompts, on the device, for images of (H, W) pixels (the model's own)."""
        rows = self._rows[numbers]
        cond = {name: value[rows].to(self.policy.device) for name, value in self._conds.items()}
        size = size or self.policy.native_size
        return self.policy.with_size(cond, size, (0, 0), size)

    def in_turn(self, count: int, *key: int) -> Tensor:
        """Numbers of `count` prompts in random order, (count,): every prompt once before any comes again."""
        draw, texts = generator(*key), len(self.texts)
        turns = [torch.randperm(texts, generator=draw) for _ in range(0, count, texts)]
        return torch.cat(turns)[:count]
