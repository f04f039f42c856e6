"""Supervised fine-tuning of a rewriter on (prompt, thought, rewrite). PromptEnhancer, arXiv 2509.04545.

The model learns to write the thought and then the rewrite, marked as `rewriting.parse` reads them; the loss
is the mean over the tokens that it writes, never over the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from t2ialign.data.cache.stored import held_out
from t2ialign.data.rewrites import Triple, read_triples
from t2ialign.io.locks import holding_output
from t2ialign.methods.rewrite_sft.config import Config
from t2ialign.methods.rewriter import language
from t2ialign.rewriting.instructions import PRESETS
from t2ialign.training.facts import Facts
from t2ialign.training.log import Told

TAUGHT = tuple(name for name, preset in PRESETS.items() if preset.convention == "tags")
"""Presets whose outputs are marked as `written` does; those of others are not known well enough to teach."""


class Trainer:
    """TRL's SFTTrainer over our settings.

    Raises ValueError as `language.start`, `read_triples` and `fitting` do, and for a preset not in `TAUGHT`.
    """

    def __init__(self, cfg: Config) -> None:
        if cfg.preset in PRESETS and cfg.preset not in TAUGHT:
            raise ValueError(
                f"got preset={cfg.preset}, whose outputs are marked as {PRESETS[cfg.preset].convention}; "
                f"expected one of {', '.join(TAUGHT)}, marked by tags as SFT writes them; choose one"
            )
        self.cfg, self.checkpoint = cfg, language.start(cfg)
        from trl import SFTConfig, SFTTrainer

        model, tokenizer = language.load(cfg)
        train, rest = split(read_triples(cfg.data, thought=cfg.thought), cfg.holdout, cfg.seed)
        self.trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            args=SFTConfig(
                **language.arguments(cfg),
                max_length=None,  # it would cut
                eval_strategy="steps",
                eval_steps=cfg.evaluate_every,
            ),
            train_dataset=talks(train, cfg),
            eval_dataset=talks(rest, cfg),
            peft_config=language.lora(cfg),
        )
        self.trainer.train_dataset = fitting(self.trainer.train_dataset, cfg.max_length)
        self.trainer.eval_dataset = fitting(self.trainer.eval_dataset, cfg.max_length)
        self.data = f"{cfg.data}, {len(self.trainer.train_dataset)} rows"
        left_out = len(train) + len(rest) - len(self.trainer.train_dataset) - len(self.trainer.eval_dataset)
        if left_out:
            self.data += f", {left_out} left out as longer than {cfg.max_length} tokens"
            if self.trainer.accelerator.is_main_process:
                print(self.data)

    @holding_output
    def fit(self, *, on_step: Told | None = None, on_evaluation: Told | None = None) -> dict[str, float]:
        """Train, and leave the rewriter in the output folder -> the last metrics."""
        rows = len(self.trainer.train_dataset)
        held = len(self.trainer.eval_dataset)
        facts = Facts(self.cfg.model, train=rows, heldout=held, epoch=rows, repeats=True)
        return language.fit(
            self.trainer,
            self.cfg,
            self.checkpoint,
            method="rewrite_sft",
            data=self.data,
            facts=facts,
            on_step=on_step,
            on_evaluation=on_evaluation,
        )


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
                "prompt": language.chat_of(cfg, row.prompt),
                "completion": [{"role": "assistant", "content": written(row, thought=cfg.thought)}],
                **({"chat_template_kwargs": chat} if chat else {}),
            }
            for row in rows
        ]
    )


def fitting(rows: Any, most: int) -> Any:
    """The rows, as TRL tokenised them, of at most `most` tokens. Raises ValueError if none is left."""
    lengths = [len(ids) for ids in rows["input_ids"]]
    if min(lengths) > most:
        raise ValueError(
            f"got max_length={most}; expected at least {min(lengths)}, the tokens of the shortest of "
            f"{len(lengths)} rows to train on or hold out; raise it"
        )
    return rows.select([place for place, length in enumerate(lengths) if length <= most])


def written(row: Triple, *, thought: bool) -> str:
    """Thought and rewrite in the marks of the convention "tags"."""
    answer = f"<answer>{row.rewrite}</answer>"
    return f"<think>{row.thought}</think>{answer}" if thought else answer
