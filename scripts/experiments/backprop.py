"""What reward back-propagation claims: gradients, memory, over-optimisation and what presets cost."""

from __future__ import annotations

from scripts.experiments.claim import Claim
from scripts.experiments.gradient import GradientClaim
from scripts.experiments.lora_mixing import MixingClaim
from scripts.experiments.memory import MemoryClaim
from scripts.experiments.over_optimisation import OverOptimisationClaim
from scripts.experiments.presets_compared import PRESETS, PresetClaim
from scripts.experiments.textnorm_reward import TextNormRewardClaim

CLAIMS: tuple[Claim, ...] = (
    GradientClaim(),
    MemoryClaim(),
    OverOptimisationClaim(),
    TextNormRewardClaim(),
    MixingClaim(),
    *(PresetClaim(preset) for preset in PRESETS),
)
