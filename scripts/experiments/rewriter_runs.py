"""The embedded rewriter trained for a claim: rows, the untrained model, SFT with and without thought, GRPO.

Made once for each seed, in a folder that claims share; a second call goes on with what a kill left.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.keypoints.oracle import shapes_points
from rewards.keypoints.taxonomy import to_json
from rewards.tensor_files import save_pretrained
from scripts.experiments import resumed
from t2ialign.io import jsonl
from t2ialign.methods.rewriter.language import whole_checkpoint
from t2ialign.toy.phrasings import Phrasing, draw_phrasings
from t2ialign.toy.rewriter import build_model, build_tokenizer, output_of

ROWS, PROMPTS = "rows.jsonl", "prompts.jsonl"
RAW, SFT, PLAIN, GRPO = "raw", "sft", "sft-without-thought", "grpo"
TOKENS = 72
"""Most tokens of an output."""
COMMON: dict[str, Any] = {"lora_rank": 0, "checkpoint_every": 100, "trackers": ()}
SFT_SETTINGS: dict[str, Any] = {
    **COMMON,
    **{"max_steps": 1200, "batch_size": 32, "lr": 3e-3, "lr_schedule": "cosine", "lr_warmup": 20},
    "evaluate_every": 600,
}
GRPO_SETTINGS: dict[str, Any] = {
    **COMMON,
    **{"max_steps": 60, "batch_size": 128, "group": 8, "lr": 3e-4, "tokens": TOKENS, "checkpoint_every": 10},
    **{"num_steps": 8, "guidance": 4.0, "image_batch": 128, "reward_options": {"backend": "oracle"}},
    "preset": "shapes",
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
    finish("rewrite_sft", {**sft, **data}, folder / SFT, seed)
    if plain:
        finish("rewrite_sft", {**sft, **data, "thought": False}, folder / PLAIN, seed)
    asked = {"prompts": str(folder / PROMPTS), "model": str(folder / SFT)}
    finish("rewrite_grpo", {**grpo, **asked}, folder / GRPO, seed)


def write_rows(folder: Path, rows: Sequence[Phrasing], prompts: Sequence[Phrasing]) -> None:
    """What SFT and GRPO read: answers for the first, key points of what is meant for the second."""
    jsonl.rewrite(
        folder / ROWS, [{"prompt": p.prompt, "thought": p.thought, "rewrite": p.caption} for p in rows]
    )
    jsonl.rewrite(
        folder / PROMPTS,
        [{"prompt": p.prompt, "points": to_json(shapes_points(p.caption))} for p in prompts],
    )


def finish(method: str, values: dict[str, Any], output: Path, seed: int) -> None:
    """Run `train METHOD` into `output`, unless it is finished, from its newest checkpoint or else anew."""
    if resumed.is_finished(output):
        return
    resume = whole_checkpoint(output) is not None
    if not resume:
        shutil.rmtree(output, ignore_errors=True)
    resumed.run(method, values, output, seed, resume=resume)


def written(rewriter: Path, prompts: Sequence[str], *, temperature: float = 0.0, seed: int = 0) -> list[str]:
    """Raw outputs of a rewriter."""
    from rewards.llm.choose import writer

    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    found: list[str] = writer(str(rewriter), batch=128).write(
        chats, tokens=TOKENS, temperature=temperature, seed=seed
    )
    return found


def with_thoughts(rewriter: Path, prompts: Sequence[str], thoughts: Sequence[str]) -> list[str]:
    """Raw outputs that go on from given thoughts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(rewriter, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(rewriter, trust_remote_code=False).eval()
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    asked = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    begun = [f"<think>{thought}</think>" for thought in thoughts]
    inputs = tokenizer(
        [a + b for a, b in zip(asked, begun, strict=True)],
        return_tensors="pt",
        padding=True,
        padding_side="left",
        add_special_tokens=False,
    )
    with torch.no_grad():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=TOKENS)
    ends = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [a + b for a, b in zip(begun, ends, strict=True)]


def read_json(file: Path) -> Any:
    """What lies in a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))
