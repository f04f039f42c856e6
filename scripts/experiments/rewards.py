"""Claims on the package `rewards`: TextNorm, PAL, and scorers that were trained."""

from __future__ import annotations

from scripts.experiments.claim import Claim
from scripts.experiments.pal import PalClaim
from scripts.experiments.textnorm import TextNormClaim
from scripts.experiments.trained import TrainedClaim

CLAIMS: tuple[Claim, ...] = (TextNormClaim(), PalClaim(), TrainedClaim())
