"""Settings of train dpo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t2ialign import objectives
from t2ialign.methods.offline.settings import OfflineConfig

if TYPE_CHECKING:
    Loss = str
else:
    Loss = Literal[objectives.names()]


class Config(OfflineConfig):
    """Settings of train dpo."""

    EXAMPLES: ClassVar[str] = r"""
  Align Stable Diffusion 1.5 with a folder of a few hundred pairs:
    t2ialign train dpo -c dpo_sd15_small data=my_pairs/ output=runs/mine
  Train on a dataset on the Hub without storing it:
    t2ialign train dpo -c dpo_sd15 data=yuvalkirstain/pickapic_v2 streaming=true limit=50000
  Train without a reference model (MaPO), and continue an interrupted run:
    t2ialign train dpo -c dpo_sdxl data=my_pairs/ loss=mapo output=runs/mapo resume=latest
"""

    READ: ClassVar[tuple[str, ...]] = (*OfflineConfig.READ, "ties")

    data: str
    """The preference pairs: a parquet or JSONL file, a folder with the sub-folders chosen/ and rejected/, or
    a dataset on the Hugging Face Hub."""
    ties: Literal["drop", "half", "soft"] = "drop"
    """What happens to pairs without a winner: drop leaves them out, half trains on both orders with half the
    weight each, and soft keeps each as the tie it is, which loss=ternary needs and takes by default."""
    noise_draws: int = Field(default=0, ge=0)
    """The number of draws of timestep, noise and latents that each pair has, one an epoch in turn. What the
    reference errs on a draw is remembered, so that its forward is saved from the second use on. 0 draws anew
    at every step."""

    loss: Loss = "dpo"
    """The preference loss, by a name that a file of t2ialign/objectives declares. mapo needs no reference
    model, and so half the compute. ternary learns from ties too, and difference from a column margin, which
    says how much better each winner is."""
    beta: float = Field(default=5000.0, gt=0)
    """The strength of the tie to the reference model (all losses but mapo), on the scale of Diffusion-DPO's
    launch script."""
    tie_width: float = Field(default=1.0, gt=0)
    """The half width of the margins at which a tie is likely (ternary), on the scale of beta times the
    log-ratio."""
    margin_scale: float = Field(default=1.0, gt=0)
    """What the margins of the pairs are multiplied by (difference), so that e to their power are the odds
    that the winner is better; 1 is right for the logits of a preference model."""
    mapo_beta: float = Field(default=0.1, gt=0)
    """The weight of MaPO's margin beside its supervised term."""
    safeguard: float | None = Field(default=0.9, ge=0, le=1)
    """The mu of Diffusion-SDPO: the share of the winner's descent, per pair, that the loser's gradient may
    not undo. The paper has 0.9 for SD 1.5 and 0.6 for SDXL; 0 or none switches it off, which is the released
    Diffusion-DPO."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """The temporal discount: below 1 the early, noisy denoising steps count more, and 1 is plain
    Diffusion-DPO."""
    discount: Literal["sample", "weight"] = "sample"
    """How gamma acts: sample draws the timesteps by it, weight draws them uniformly and multiplies the
    argument of the sigmoid."""
    num_inference_steps: int = Field(default=50, ge=1)
    """The number T of denoising steps of a sampling path, of which gamma counts how many are over."""

    batch_size: int = Field(default=4, ge=1)
    """The number of pairs per process and micro-step."""
    accumulate: int = Field(default=32, ge=1)
    """The number of micro-steps whose gradients are averaged into one optimiser step. Each pair sees a single
    timestep, so small batches are noisy."""
    lr: float = Field(default=2e-5, gt=0)
    """The peak learning rate."""

    @model_validator(mode="before")
    @classmethod
    def _ties_of_the_loss(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("loss") in objectives.names(objectives.TIES):
            return {"ties": "soft", **values}
        return values

    @model_validator(mode="after")
    def _ties_as_the_loss_reads_them(self) -> Self:
        if (self.loss in objectives.names(objectives.TIES)) != (self.ties == "soft"):
            raise ValueError(
                f"got ties={self.ties} with loss={self.loss}; expected ties=soft with loss=ternary and with "
                "no other; change one"
            )
        return self
