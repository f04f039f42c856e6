"""Settings of train sft."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from t2ialign.methods.offline.settings import OfflineConfig


class Config(OfflineConfig):
    """Settings of train sft."""

    EXAMPLES: ClassVar[str] = r"""
  Fine-tune Stable Diffusion 1.5 on a folder of images with captions beside them:
    t2ialign train sft -c sft_sd15 data=my_images/ output=runs/mine
  Fine-tune on the winners of preference pairs:
    t2ialign train sft -c sft_sdxl data=my_pairs/ output=runs/winners
  Fine-tune on the liked images of a table with the columns prompt, image and liked:
    t2ialign train sft data=votes.csv model=my_model.safetensors
"""

    data: str
    """The images: a folder of images with captions beside them, a table with the columns prompt, image and
    liked, preference pairs in any form that train dpo reads, or a dataset on the Hugging Face Hub. Images
    that are not liked, and the losers of pairs, are left out."""
    caption_dropout_rate: float = Field(default=0.1, ge=0, lt=1)
    """The share of images that are trained with the empty prompt instead of their own, drawn anew at every
    step, so that the model without a prompt, from which guidance pushes away, is trained along."""
    batch_size: int = Field(default=4, ge=1)
    """The number of images per process and micro-step."""
    accumulate: int = Field(default=4, ge=1)
    """The number of micro-steps whose gradients are averaged into one optimiser step."""
    lr: float = Field(default=1e-4, gt=0)
    """The peak learning rate."""
