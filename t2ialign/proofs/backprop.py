"""What reward back-propagation claims: gradients, memory, over-optimisation and what presets cost."""

from __future__ import annotations

from t2ialign.proofs.claim import Claim
from t2ialign.proofs.gradient import GradientClaim
from t2ialign.proofs.lora_mixing import MixingClaim
from t2ialign.proofs.memory import MemoryClaim
from t2ialign.proofs.over_optimisation import OverOptimisationClaim
from t2ialign.proofs.presets_compared import PRESETS, PresetClaim
from t2ialign.proofs.textnorm_reward import TextNormRewardClaim

CLAIMS: tuple[Claim, ...] = (
    GradientClaim(),
    MemoryClaim(),
    OverOptimisationClaim(),
    TextNormRewardClaim(),
    MixingClaim(),
    *(PresetClaim(preset) for preset in PRESETS),
)
