"""What the package `rewards` claims: TextNorm, PAL, and scorers that were trained."""

from __future__ import annotations

from t2ialign.proofs.claim import Claim
from t2ialign.proofs.pal import PalClaim
from t2ialign.proofs.textnorm import TextNormClaim
from t2ialign.proofs.trained import TrainedClaim

CLAIMS: tuple[Claim, ...] = (TextNormClaim(), PalClaim(), TrainedClaim())
