"""What latent rewards and step-level preference optimisation claim."""

from __future__ import annotations

from t2ialign.proofs.claim import Claim
from t2ialign.proofs.latent_reward import LatentRewardClaim
from t2ialign.proofs.lpo_ablations import ABLATIONS, AblationClaim
from t2ialign.proofs.stepwise_gain import StepwiseClaim

CLAIMS: tuple[Claim, ...] = (
    LatentRewardClaim(),
    StepwiseClaim(),
    *(AblationClaim(name) for name in ABLATIONS),
)
