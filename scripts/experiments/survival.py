"""How often the check of numbers, negations and quotations alarms on published rewrites, rightly or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.experiments import survival_rates
from scripts.experiments.claim import Claim, Row
from scripts.experiments.keypoint_rules import published
from t2ialign.io import atomic
from t2ialign.rewriting.survival import check

FILE = "survival.json"
PAIRS = {"geneval": 553, "unigenbench": 600}
FIRST, ALL, TODAY = (
    "false alarms of the first check, 30 drawn",
    "false alarms of the first check, all that was read",
    "false alarms of today's check, all that was read",
)


class SurvivalClaim(Claim):
    """A row for the run over all pairs, one for the false alarms. Nothing is drawn anew: seeds must agree."""

    text = (
        "survival checks run over the 553 + 600 published short and long prompts; 30 flagged pairs were read "
        "by hand, and the rate of false alarms is stated"
    )

    def measure(self, folder: Path, seed: int) -> None:
        """Check every pair. Raises ValueError if the published files are absent."""
        data = published("geneval", "bagel-geneval-long", "unigenbench")
        found = survival_rates.figures(data, check)
        record = json.loads(survival_rates.READ.read_text(encoding="utf-8"))
        read = {one.pair for one in survival_rates.read_verdicts() if one.drawn}
        found["drawn pairs that were read"] = len(read & set(survival_rates.drawn(record["flagged"])))
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(folder / FILE, found)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """The run holds if it saw every pair, the rates if all 30 drawn pairs are on record."""
        each = [json.loads((folder / FILE).read_text(encoding="utf-8")) for folder in folders]
        same = all(one == each[0] for one in each)
        return [self._run(each[0], same), self._alarms(each[0], same)]

    def _run(self, found: Mapping[str, Any], same: bool) -> Row:
        flagged = found["flagged"]
        seen = {
            name: sum(part["pairs"] for key, part in flagged.items() if key.startswith(name))
            for name in PAIRS
        }
        text = "the survival check runs over the 553 + 600 published short and long prompts"
        return Row(text, {"pairs": seen, "flagged": flagged}, None, same and seen == PAIRS)

    def _alarms(self, found: Mapping[str, Any], same: bool) -> Row:
        rate = found[FIRST]["all"]
        text = (
            "30 flagged pairs were read by hand: the share of false alarms of the check in its first form, "
            "and of today's on the readings it still reports, with every true loss still reported"
        )
        names = (FIRST, ALL, TODAY, "true losses no longer reported", "drawn pairs that were read")
        whole = found["drawn pairs that were read"] == survival_rates.DRAWN
        kept = found["true losses no longer reported"] == 0
        low, high = rate["ci95"]
        return Row(text, {name: found[name] for name in names}, (low, high), same and whole and kept)
