"""Settings of train rewrite_sft."""

from __future__ import annotations

from pydantic import Field

from t2ialign.methods.rewriter.config import LanguageConfig


class Config(LanguageConfig):
    """Settings of train rewrite_sft."""

    data: str
    """Rows of prompt, thought and rewrite: a file (.jsonl, .parquet, .csv, .json), a folder or a Hub id."""
    thought: bool = True
    """Whether the thought is learnt too; without it the rewrite alone."""
    max_length: int = Field(default=1024, ge=8)
    """Most tokens of prompt and output together; a longer row is left out, since cut it would have no end."""
    holdout: float = Field(default=0.05, gt=0, lt=1)
    """Share of the prompts whose loss is measured and not trained on."""
    evaluate_every: int = Field(default=100, ge=1)
    """Optimiser steps between measurements of it, eval_loss."""
