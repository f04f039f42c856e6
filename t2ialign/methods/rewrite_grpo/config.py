"""Settings of train rewrite_grpo."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from t2ialign.methods.rewriter.config import LanguageConfig


class Config(LanguageConfig):
    """Settings of train rewrite_grpo."""

    prompts: str
    """User prompts: a file (txt, jsonl, json, csv, tsv, parquet); a column points may hold key points."""
    generator: str = "shapes"
    """The frozen image model: shapes (embedded), a diffusers folder or a Hub id."""
    num_steps: int = Field(default=20, ge=1)
    """Its sampling steps."""
    guidance: float = Field(default=5.0, ge=1)
    """Its guidance."""
    image_batch: int = Field(default=16, ge=1)
    """Pictures it makes at a time."""
    reward: str = "evaluator"
    """What judges the pictures: the evaluator, or any other reward by name."""
    reward_options: dict[str, Any] = Field(default_factory=dict)
    """Its options: backend=oracle of the embedded world, or weights= of a vision-language model."""
    group: int = Field(default=8, ge=2)
    """Outputs per user prompt; batch_size x accumulate x processes is a multiple of it."""
    kl: float = Field(default=1e-3, ge=0)
    """Weight of the KL to the rewriter that training began with."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the outputs."""
    tokens: int = Field(default=512, ge=1)
    """Most tokens of an output."""
    balance: bool = True
    """Draw a kind of key point first, then a prompt that has it; else prompts evenly."""
    lr: float = Field(default=1e-6, gt=0)
    """Peak learning rate."""
