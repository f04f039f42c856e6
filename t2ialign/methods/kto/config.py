"""Settings of train kto."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from t2ialign.methods.offline.settings import OfflineConfig


class Config(OfflineConfig):
    """Settings of train kto."""

    EXAMPLES: ClassVar[str] = r"""
  Align Stable Diffusion 1.5 with a table of the columns prompt, image and liked:
    t2ialign train kto -c kto_sd15 data=votes.csv output=runs/votes
  Learn from two folders of images with captions beside them, my_images/liked and my_images/disliked:
    t2ialign train kto -c kto_sd15 data=my_images/
  Train the classifier of liked images that BCO has, on the images of preference pairs:
    t2ialign train kto loss=bco data=my_pairs/ model=my_model.safetensors
"""

    data: str
    """The images: a table with the columns prompt, image and liked, a folder with the sub-folders liked/ and
    disliked/ and captions beside the images, preference pairs in any form that train dpo reads, whose winners
    are liked and whose losers are not, or a dataset on the Hugging Face Hub."""
    loss: Literal["kto", "bco"] = "kto"
    """The loss. kto: the utility of an image's gain over a reference point (Diffusion-KTO). bco: the
    cross-entropy of a classifier of liked images, whose logit is the gain less its mean at that noise
    level."""
    beta: float = Field(default=5000.0, gt=0)
    """The strength of the tie to the reference model, of which Diffusion-KTO has 5000."""
    utility: Literal["kahneman_tversky", "loss_averse", "risk_seeking"] = "kahneman_tversky"
    """The utility of a gain (kto): kahneman_tversky is a sigmoid and saturates on both sides, loss_averse
    only for gains, risk_seeking only for losses."""
    reference_point: Literal["batch", "balanced", "mismatched"] = "batch"
    """The gain that counts as none (kto). batch: the mean of the micro-step's gains, if it is above 0.
    balanced: the mean of the liked ones' and of the disliked ones' mean. mismatched: the mean of the images
    with each other's prompts, which takes another forward of the policy and of the reference."""
    reference_decay: float = Field(default=0.0, ge=0, lt=1)
    """The decay of a moving average, over images, of the reference point (kto); with 0 it is that of the
    micro-step alone, which is noisy where micro-steps are small."""
    shift_decay: float = Field(default=0.99, ge=0, lt=1)
    """The decay of the moving average, over images, of the mean gain of each of shift_bins noise levels
    (bco)."""
    shift_bins: int = Field(default=10, ge=1)
    """The number of equal parts of the training times that each have a mean gain of their own (bco)."""
    liked_weight: float | None = Field(default=None, gt=0)
    """The weight of a liked image beside 1 for a disliked one; none gives both kinds the same
    weight in sum."""
    caption_dropout_rate: float = Field(default=0.0, ge=0, lt=1)
    """The share of images that are trained with the empty prompt instead of their own, drawn anew at every
    step. Diffusion-KTO has 0.2."""
    batch_size: int = Field(default=8, ge=1)
    """The number of images per process and micro-step, over which the reference point is a mean."""
    accumulate: int = Field(default=16, ge=1)
    """The number of micro-steps whose gradients are averaged into one optimiser step."""
    lr: float = Field(default=2e-5, gt=0)
    """The peak learning rate."""

    @model_validator(mode="after")
    def _has_others_to_compare_with(self) -> Self:
        if self.loss == "kto" and self.reference_point == "mismatched" and self.batch_size < 2:
            raise ValueError(
                "got batch_size=1 with reference_point=mismatched, which exchanges the prompts of a "
                "micro-step; expected at least 2; raise it"
            )
        return self
