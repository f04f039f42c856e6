"""What prompt rewriting claims: the trained rewriter, the best of several, key points by rules, survival."""

from __future__ import annotations

from scripts.experiments.claim import Claim
from scripts.experiments.keypoint_rules import KeypointRulesClaim
from scripts.experiments.rewriting_best_of import BestOfClaim
from scripts.experiments.rewriting_gain import RewritingClaim
from scripts.experiments.survival import SurvivalClaim

CLAIMS: tuple[Claim, ...] = (RewritingClaim(), BestOfClaim(), KeypointRulesClaim(), SurvivalClaim())
