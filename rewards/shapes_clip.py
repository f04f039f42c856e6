"""The embedded world's CLIP scores: two tiny CLIPs of other seed and depth, one to train on, one to judge.

They have the weaknesses of the real thing (counts and relations barely move them), which is their use here.
"""

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from rewards.assets import folder
from rewards.base import Reward

log = logging.getLogger(__name__)

NAMES: dict[str, dict[str, str]] = {
    "shapes-clip": {"path": "shapes-clip"},
    "shapes-clip-b": {"path": "shapes-clip-b"},
}


class ShapesClip(Reward):
    """Cosine between the embeddings of image and prompt, in [-1, 1]; differentiable in the image."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.model = CLIPModel.from_pretrained(path, dtype=torch.float32).eval().requires_grad_(False)
        self.tokenizer = CLIPTokenizer.from_pretrained(path)
        self.warned: set[str] = set()
        self.size: int = self.model.config.vision_config.image_size

    def encode_image(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] -> unit embeddings (B, 64)."""
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        hidden = self.model.vision_model(pixel_values=2 * images - 1).pooler_output
        return F.normalize(self.model.visual_projection(hidden), dim=-1)

    def encode_text(self, prompts: list[str]) -> Tensor:
        """B prompts -> unit embeddings (B, 64); a prompt over 32 tokens is cut, with a warning."""
        self._warn_if_cut(prompts)
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.model.device)
        return F.normalize(
            self.model.text_projection(self.model.text_model(input_ids=ids).pooler_output), dim=-1
        )

    def _warn_if_cut(self, prompts: list[str]) -> None:
        """Once for each prompt, quoting what is not read."""
        size = self.tokenizer.model_max_length
        for prompt in dict.fromkeys(prompts):
            ids = [] if prompt in self.warned else self.tokenizer(prompt, verbose=False).input_ids
            if len(ids) > size:
                self.warned.add(prompt)
                cut = self.tokenizer.decode(ids[size - 1 : -1], skip_special_tokens=True).strip()
                log.warning(
                    "prompt %r has %d tokens and the reward reads %d; cut: %r",
                    *(prompt, len(ids) - 2, size - 2, cut),
                )

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> cosine (B,); each unique prompt is encoded once."""
        unique = list(dict.fromkeys(prompts))
        row = torch.tensor([unique.index(prompt) for prompt in prompts], device=images.device)
        return (self.encode_image(images) * self.encode_text(unique)[row]).sum(-1)


def build(path: str = "shapes-clip") -> ShapesClip:
    """A tiny CLIP from a folder, or an embedded one by its name."""
    return ShapesClip(Path(path) if Path(path).is_dir() else folder(path))
