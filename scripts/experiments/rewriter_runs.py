"""The toy rewriter trained for a claim, and what its texts give: images that the oracle judges.

Rows, the untrained model, SFT with and without thought and GRPO are made once for each seed, in a folder that
claims share; a second call goes on with what a kill left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import rewards
from rewards.keypoints.evaluator import AlignEvaluator
from rewards.keypoints.oracle import toy_points
from rewards.keypoints.taxonomy import to_json
from rewards.tensor_files import save_pretrained
from scripts.experiments.training import finish_rewriter
from t2ialign.io import jsonl
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.toy.phrasings import Phrasing, draw_phrasings
from t2ialign.toy.rewriter import build_model, build_tokenizer, output_of
from t2ialign.toy.suite import GUIDANCE, STEPS

ROWS, PROMPTS = "rows.jsonl", "prompts.jsonl"
RAW, SFT, PLAIN, GRPO = "raw", "sft", "sft-without-thought", "grpo"
TOKENS, BATCH = 72, 128
"""Most tokens of an output; outputs or images at once."""
SAMPLER: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "batch_size": BATCH}
COMMON: dict[str, Any] = {"lora_rank": 0, "checkpoint_every": 100, "trackers": ()}
SFT_SETTINGS: dict[str, Any] = COMMON | {
    **{"max_steps": 1200, "batch_size": 32, "evaluate_every": 600},
    **{"lr": 3e-3, "lr_schedule": "cosine", "lr_warmup": 20},
}
GRPO_SETTINGS: dict[str, Any] = COMMON | {
    **{"max_steps": 60, "batch_size": 128, "group": 8, "lr": 3e-4, "tokens": TOKENS, "checkpoint_every": 10},
    **{"preset": "toy", "generator": "toy", "num_inference_steps": STEPS, "guidance_scale": GUIDANCE},
    **{"image_batch": BATCH, "reward_options": {"backend": "oracle"}},
}


@dataclass(frozen=True)
class Sizes:
    """rows: of SFT, by a teacher with habits (`phrasings`). prompts: of GRPO, without answers."""

    rows: int = 6000
    misread: float = 0.65
    prompts: int = 1000


def make(
    folder: Path, seed: int, sizes: Sizes, sft: dict[str, Any], grpo: dict[str, Any], *, plain: bool = True
) -> None:
    """All four rewriters of one seed, each a transformers folder; `plain`: SFT without thought too."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = draw_phrasings(sizes.rows, 1000 + seed, held_out=False, misread=sizes.misread)
    write_rows(folder, rows, draw_phrasings(sizes.prompts, 2000 + seed, held_out=False))
    if not (folder / RAW / "model.safetensors").exists():
        tokenizer = build_tokenizer([text for p in rows for text in (p.prompt, output_of(p))])
        save_pretrained(tokenizer, folder / RAW)
        save_pretrained(build_model(tokenizer, seed), folder / RAW)
    data = {"data": str(folder / ROWS), "model": str(folder / RAW)}
    finish_rewriter("rewrite_sft", {**sft, **data}, folder / SFT, seed)
    if plain:
        finish_rewriter("rewrite_sft", {**sft, **data, "thought": False}, folder / PLAIN, seed)
    data = {"prompts": str(folder / PROMPTS), "model": str(folder / SFT)}
    finish_rewriter("rewrite_grpo", {**grpo, **data}, folder / GRPO, seed)


def write_rows(folder: Path, rows: Sequence[Phrasing], prompts: Sequence[Phrasing]) -> None:
    """The data of SFT and GRPO: answers for the first, key points of what is meant for the second."""
    answers = [{"prompt": p.prompt, "thought": p.thought, "rewrite": p.caption} for p in rows]
    jsonl.rewrite(folder / ROWS, answers)
    points = [{"prompt": p.prompt, "points": to_json(toy_points(p.caption))} for p in prompts]
    jsonl.rewrite(folder / PROMPTS, points)


def written(rewriter: Path, prompts: Sequence[str], *, temperature: float = 0.0, seed: int = 0) -> list[str]:
    """Raw outputs of a rewriter."""
    from rewards.llm.choose import writer

    language_model = writer(str(rewriter), batch=BATCH)
    outputs: list[str] = language_model.write(
        _chats(prompts), tokens=TOKENS, temperature=temperature, seed=seed
    )
    return outputs


def with_thoughts(rewriter: Path, prompts: Sequence[str], thoughts: Sequence[str]) -> list[str]:
    """Raw outputs that go on from given thoughts."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(rewriter, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(rewriter, trust_remote_code=False).eval()
    chats = tokenizer.apply_chat_template(_chats(prompts), add_generation_prompt=True, tokenize=False)
    begun = [f"<think>{thought}</think>" for thought in thoughts]
    whole = [chat + thought for chat, thought in zip(chats, begun, strict=True)]
    layout = {"padding": True, "padding_side": "left", "add_special_tokens": False}
    inputs = tokenizer(whole, return_tensors="pt", **layout)
    with torch.no_grad():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=TOKENS)
    ends = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [thought + end for thought, end in zip(begun, ends, strict=True)]


def _chats(prompts: Sequence[str]) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": prompt}] for prompt in prompts]


class JudgedImages:
    """N captions, each with a seed of its own: whatever text is rendered for one starts from its noise.

    An image of a text and seed is rendered and judged once, by the oracle, for the caption that is meant.
    """

    def __init__(self, captions: Sequence[str], *, first_seed: int) -> None:
        self.captions, self.first_seed = list(captions), first_seed
        self.policy = load_policy("toy")
        evaluator = rewards.load("evaluator", backend="oracle")
        assert isinstance(evaluator, AlignEvaluator), "the oracle is a backend of it"
        self.evaluator = evaluator
        self.judged: dict[tuple[int, str, int], list[float]] = {}

    @torch.no_grad()
    def matches(self, texts: Sequence[str], *, draw: int = 0) -> list[list[float]]:
        """A text for each caption -> whether its image, of its seed number `draw`, shows each key point."""
        keys = [(place, text, draw) for place, text in enumerate(texts)]
        new = [key for key in dict.fromkeys(keys) if key not in self.judged]
        if new:
            first_seed = self.first_seed + draw * len(self.captions)
            seeds = [first_seed + place for place, _, _ in new]
            images = generate(self.policy, [text for _, text, _ in new], seeds, **SAMPLER)
            captions = [self.captions[place] for place, _, _ in new]
            results = self.evaluator.judge(images, captions, [toy_points(text) for text in captions])
            for key, result in zip(new, results, strict=True):
                self.judged[key] = [float(verdict.match or 0.0) for verdict in result.verdicts]
        return [self.judged[key] for key in keys]
