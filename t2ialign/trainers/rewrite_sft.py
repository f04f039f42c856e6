"""Supervised fine-tuning of a rewriter on (prompt, thought, rewrite). PromptEnhancer, arXiv 2509.04545.

The model learns to write the thought and then the rewrite, marked as `rewriting.parse` reads them; the loss
is the mean over the tokens that it writes, never over the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from t2ialign.data.rewrites import Triple, read_triples
from t2ialign.data.stored import held_out
from t2ialign.rewriting.instructions import PRESETS
from t2ialign.trainers import language
from t2ialign.trainers.language import LanguageConfig


class Config(LanguageConfig):
    """Settings of train rewrite_sft."""

    data: str
    """Rows of prompt, thought and rewrite: a file (.jsonl, .parquet, .csv, .json), a folder or a Hub id."""
    thought: bool = True
    """Whether the thought is learnt too; without it the rewrite alone."""
    max_length: int = Field(default=1024, ge=8)
    """Tokens of a whole text; the end of a longer one is cut."""
    holdout: float = Field(default=0.05, gt=0, lt=1)
    """Share of the prompts whose loss is measured and not trained on."""
    evaluate_every: int = Field(default=100, ge=1)
    """Optimiser steps between measurements of it, eval_loss."""


class Trainer:
    """TRL's SFTTrainer over our settings. Raises ValueError as `language.start` and `read_triples` do."""

    def __init__(self, cfg: Config) -> None:
        self.cfg, self.checkpoint = cfg, language.start(cfg)
        from trl import SFTConfig, SFTTrainer

        model, tokenizer = language.load(cfg)
        train, rest = split(read_triples(cfg.data, thought=cfg.thought), cfg.holdout, cfg.seed)
        self.count = len(train)
        self.trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            args=SFTConfig(
                **language.arguments(cfg),
                max_length=cfg.max_length,
                eval_strategy="steps",
                eval_steps=cfg.evaluate_every,
            ),
            train_dataset=talks(train, cfg),
            eval_dataset=talks(rest, cfg),
            peft_config=language.lora(cfg),
        )

    def fit(self) -> None:
        """Train, and leave the rewriter in the output folder."""
        data = f"{self.cfg.data}, {self.count} rows"
        language.fit(self.trainer, self.cfg, self.checkpoint, method="rewrite_sft", data=data)


def split(rows: Sequence[Triple], fraction: float, seed: int) -> tuple[list[Triple], list[Triple]]:
    """(train, held out): all rows of a prompt are in the same part. Raises ValueError if none is left."""
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
    held = held_out(np.array([numbers[row.prompt] for row in rows]), list(numbers), fraction, seed)
    return [row for row, out in zip(rows, held, strict=True) if not out], [
        row for row, out in zip(rows, held, strict=True) if out
    ]


def talks(rows: Sequence[Triple], cfg: Config) -> Any:
    """A data set of chats: what the user says, and what the rewriter is to write."""
    from datasets import Dataset

    chat = dict(PRESETS[cfg.preset].chat)
    return Dataset.from_list(
        [
            {
                "prompt": language.asked(cfg, row.prompt),
                "completion": [{"role": "assistant", "content": written(row, thought=cfg.thought)}],
                **({"chat_template_kwargs": chat} if chat else {}),
            }
            for row in rows
        ]
    )


def written(row: Triple, *, thought: bool) -> str:
    """Thought and rewrite in the marks of the convention "tags"."""
    answer = f"<answer>{row.rewrite}</answer>"
    return f"<think>{row.thought}</think>{answer}" if thought else answer
