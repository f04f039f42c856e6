"""What reward back-propagation claims: its gradients, and its memory."""

from __future__ import annotations

from t2ialign.proofs.claim import Claim
from t2ialign.proofs.gradient import GradientClaim
from t2ialign.proofs.memory import MemoryClaim

CLAIMS: tuple[Claim, ...] = (GradientClaim(), MemoryClaim())
