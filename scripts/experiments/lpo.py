"""What latent rewards and step-level preference optimisation claim."""

from __future__ import annotations

from scripts.experiments.claim import Claim
from scripts.experiments.latent_reward import LatentRewardClaim
from scripts.experiments.lpo_ablations import ABLATIONS, AblationClaim
from scripts.experiments.stepwise_gain import StepwiseClaim

CLAIMS: tuple[Claim, ...] = (
    LatentRewardClaim(),
    StepwiseClaim(),
    *(AblationClaim(name) for name in ABLATIONS),
)
