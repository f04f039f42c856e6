"""What prompt rewriting claims: the trained rewriter, the best of several, key points by rules, survival."""

from __future__ import annotations

from t2ialign.proofs.claim import Claim
from t2ialign.proofs.keypoint_rules import KeypointRulesClaim
from t2ialign.proofs.rewriting_best_of import BestOfClaim
from t2ialign.proofs.rewriting_gain import RewritingClaim
from t2ialign.proofs.survival import SurvivalClaim

CLAIMS: tuple[Claim, ...] = (RewritingClaim(), BestOfClaim(), KeypointRulesClaim(), SurvivalClaim())
