"""Scorers of two towers: an image and a prompt are embedded apart, and a head compares the two.

So an image is encoded once whatever asks, each unique prompt once, and equal towers are shared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from rewards.base import Prepared
from rewards.failures import Part
from rewards.preprocess import Geometry

KEEP_TEXTS = 4096
"""Prompts whose embedding a tower keeps; 16 MB at 1024 dimensions."""

TEXT_BATCH = 256
"""Prompts encoded in one forward."""


class Tower(Part, ABC):
    """Encoders of image and text into one space; `key` says which weights, so that equal towers meet."""

    def __init__(self, key: str = "") -> None:
        super().__init__()
        self.key = key
        self._texts: OrderedDict[str, Tensor] = OrderedDict()
        self._texts_of: tuple[object, ...] = ()
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, S, S), prepared -> unit embeddings (B, D), fp32 or better."""

    @abstractmethod
    def encode_text(self, prompts: list[str]) -> Tensor:
        """P prompts -> unit embeddings (P, D), fp32 or better; called through `texts`, which keeps them."""

    @abstractmethod
    def text_parameters(self) -> Iterable[nn.Parameter]:
        """The weights that `encode_text` depends on."""

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> unit embeddings (B, D): each unique prompt is encoded once.

        While no text weight is trainable the last `KEEP_TEXTS` embeddings are kept, without gradient.
        """
        unique = list(dict.fromkeys(prompts))
        row = {prompt: index for index, prompt in enumerate(unique)}
        rows = [row[prompt] for prompt in prompts]
        if any(weight.requires_grad for weight in self.text_parameters()):
            self.forget()
            embeddings = self._encoded(unique)
        else:
            embeddings = self._remembered(unique)
        return embeddings if rows == list(range(len(unique))) else embeddings[rows]

    def forget(self) -> None:
        """Drop the kept embeddings; needed only after changing frozen text weights in place."""
        self._texts.clear()

    def _remembered(self, unique: list[str]) -> Tensor:
        where = next(iter(self.text_parameters()))
        kind = where.device.type
        state = (where.device, where.dtype, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        if state != self._texts_of:
            self.forget()
            self._texts_of = state
        missing = [prompt for prompt in unique if prompt not in self._texts]
        new: dict[str, Tensor] = {}
        if missing:
            # Tensors made under inference_mode could never take part in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                new = dict(zip(missing, self._encoded(missing).clone().unbind(), strict=True))
        embeddings = [self._texts[prompt] if prompt in self._texts else new[prompt] for prompt in unique]
        for prompt, embedding in zip(unique, embeddings, strict=True):
            self._texts[prompt] = embedding
            self._texts.move_to_end(prompt)
        while len(self._texts) > KEEP_TEXTS:
            self._texts.popitem(last=False)
        return torch.stack(embeddings)

    def _encoded(self, prompts: list[str]) -> Tensor:
        spans = range(0, len(prompts), TEXT_BATCH)
        return torch.cat([self.encode_text(prompts[start : start + TEXT_BATCH]) for start in spans])


def _forget(tower: Tower, _keys: object) -> None:
    tower.forget()


class TwoTower(Prepared):
    """A head on a tower's embeddings; subclasses write `head`. Without `needs_text` no prompt is encoded."""

    def __init__(self, tower: Tower, geometry: Geometry) -> None:
        super().__init__()
        self.tower, self.geometry = tower, geometry

    @abstractmethod
    def head(self, image: Tensor, text: Tensor | None) -> Tensor:
        """Unit embeddings of B images (B, D) and B prompts (B, D), None without `needs_text` -> (B,)"""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them -> unit embeddings (B, D)."""
        return self.tower.encode_image(pixels)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> unit embeddings (B, D); each unique prompt is encoded once."""
        return self.tower.texts(prompts)

    def score_embedded(self, image: Tensor, prompts: list[str]) -> Tensor:
        """Unit embeddings (B, D) of this tower, B prompts -> (B,)"""
        return self.head(image, self.encode_text(prompts) if self.needs_text else None)

    def score_prepared(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them, B prompts -> (B,)"""
        return self.score_embedded(self.encode_image(pixels), prompts)

    def table_prepared(self, pixels: Tensor, candidates: list[list[str]]) -> Tensor:
        """pixels (B, 3, S, S), B lists of n_i prompts -> (sum n_i,): one forward an image, one a prompt."""
        image = self.encode_image(pixels)
        rows = [row for row, prompts in enumerate(candidates) for _ in prompts]
        return self.score_embedded(image[rows], [prompt for prompts in candidates for prompt in prompts])
