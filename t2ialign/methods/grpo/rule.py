"""How scores of a round become advantages, and the file of all scores, which statistics of prompts need."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rewards.combine import leave_one_out_quantile
from t2ialign.io import jsonl
from t2ialign.objectives.advantages import PromptStatistics, Standardise, combined, over_round
from t2ialign.objectives.stepwise import group_advantages

if TYPE_CHECKING:
    from t2ialign.methods.grpo.config import Config


class Rule:
    """The settings' way from scores to advantages. names: of the rewards."""

    def __init__(self, cfg: Config, names: Sequence[str], file: Path) -> None:
        self.cfg, self.names, self.file = cfg, tuple(names), file
        self.weights = torch.tensor(cfg.reward_weights or [1.0] * len(names))
        self.statistics = [PromptStatistics() for _ in names]
        self.opened = False

    def open(self, number: int, texts: Sequence[str], scores: Tensor, *, main: bool) -> None:
        """Take in the scores (R, G, K) of a round; if resumed, those of earlier rounds from the file."""
        if not self.opened:
            earlier = [row for row in jsonl.read(self.file) if row["round"] < number]
            for row in earlier:
                self._take([row["prompt"]], torch.tensor(row["scores"])[:, None])
            if main:
                jsonl.rewrite(self.file, earlier)
        self.opened = True
        self._take(texts, scores)
        if main:
            rows = [
                {"round": number, "prompt": text, "scores": scores[:, group].tolist()}
                for group, text in enumerate(texts)
            ]
            jsonl.append(self.file, rows)

    def advantages(self, texts: Sequence[str], scores: Tensor) -> Tensor:
        """Scores (R, G, K) of G prompts -> advantages (G, K)."""
        ways: dict[str, list[Standardise]] = {
            "group": [group_advantages] * len(scores),
            "global": [over_round] * len(scores),
            "prompt": [partial(one, texts) for one in self.statistics],
        }
        rule = self.cfg.combine if len(scores) > 1 else "advantages"
        weights = self.weights if len(scores) > 1 else torch.ones(1)
        references = torch.stack([leave_one_out_quantile(one) for one in scores])
        return combined(scores, weights, rule, ways[self.cfg.spread], references)

    def figures(self, scores: Tensor) -> dict[str, float]:
        """Means and deviation of the scores (R, G, K), to log."""
        total = (self.weights[:, None, None] * scores).sum(0)
        each = {f"reward/{name}": float(one.mean()) for name, one in zip(self.names, scores, strict=True)}
        return {
            "reward": float(total.mean()),
            "reward_std": float(total.std(correction=0)),
            **(each if len(each) > 1 else {}),
        }

    def _take(self, texts: Sequence[str], scores: Tensor) -> None:
        for statistics, one in zip(self.statistics, scores, strict=True):
            statistics.add(texts, one)
