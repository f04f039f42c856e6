"""Prompts through a named rewriter, once or several times: settings, journals and a bar, for the verbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from t2ialign.rewriting.files import Row, rewrite_all
from t2ialign.rewriting.fit import budget_of
from t2ialign.rewriting.intensity import LONG
from t2ialign.rewriting.language import drawn
from t2ialign.rewriting.load import Choice
from t2ialign.rewriting.rewriter import Rewriter

TRIES = 2


@dataclass(frozen=True)
class Job:
    """A rewriter and the demands on its rewrites; `fit` is the pipeline whose token budget holds."""

    choice: Choice
    fit: str | None = None
    tries: int = TRIES
    longest: int = LONG

    @property
    def name(self) -> str:
        """All that makes the rewrites what they are, but for the seed, on one line."""
        fit = f" fit={self.fit}" if self.fit else ""
        return f"{self.choice.label} tries={self.tries} longest={self.longest}{fit}"

    def settings(self) -> dict[str, Any]:
        """The keywords of `rewriter.rewrite`. Raises ValueError for a pipeline without a tokenizer."""
        tokenizer, limit = budget_of(self.fit) if self.fit else (None, None)
        how = {"tries": self.tries, "longest": self.longest, "tokenizer": tokenizer, "limit": limit}
        return {**self.choice.asks, **how}

    def rows(self, prompts: Sequence[str], journals: Sequence[Path]) -> list[list[Row]]:
        """Draw i of all prompts, kept in `journals[i]`, for each journal; the model is loaded if one lacks.

        Raises ValueError as `files.rewrite_all` and the rewriter do.
        """
        from t2ialign.progress import Progress

        settings, opened = self.settings(), cache(self.choice.load)

        def load(draw: int) -> Rewriter:
            return drawn(opened(), draw)

        with Progress(total=len(prompts) * len(journals), desc="rewrite", unit="prompt", delay=3) as bar:
            return [
                rewrite_all(
                    partial(load, draw),
                    prompts,
                    journal,
                    name=self.name,
                    seed=self.choice.seed,
                    progress=bar.update,
                    **settings,
                )
                for draw, journal in enumerate(journals)
            ]
