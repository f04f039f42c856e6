"""Settings of train rewrite_sft."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from t2ialign.methods.rewriter.config import LanguageConfig


class Config(LanguageConfig):
    """Settings of train rewrite_sft."""

    EXAMPLES: ClassVar[str] = r"""
  Fine-tune a language model on rewrites, by a recipe:
    t2ialign train rewrite_sft -c rewrite_sft_llm data=rewrites.jsonl
  Fine-tune all weights of a small model, without thoughts:
    t2ialign train rewrite_sft model=Qwen/Qwen2.5-0.5B-Instruct preset=general data=rewrites.jsonl \
      thought=false lora_rank=0 output=runs/sft
  Continue an interrupted run:
    t2ialign train rewrite_sft -c rewrite_sft_llm data=rewrites.jsonl resume=latest
"""

    data: str
    """The training rows of prompt, thought and rewrite: a .jsonl, .parquet, .csv or .json file, a folder, or
    a Hub id."""
    thought: bool = True
    """Whether the rewriter learns the thought as well as the rewrite."""
    max_length: int = Field(default=1024, ge=8)
    """The maximum number of tokens of prompt and output together. A longer row is left out, because a
    truncated one would have no end."""
    holdout: float = Field(default=0.05, gt=0, lt=1)
    """The share of prompts that are held out of training, to measure the loss on them."""
    evaluate_every: int = Field(default=100, ge=1)
    """The number of optimiser steps between two measurements of the held-out loss, eval_loss."""
