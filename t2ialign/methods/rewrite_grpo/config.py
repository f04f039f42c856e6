"""Settings of train rewrite_grpo."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from t2ialign.methods.rewriter.config import LanguageConfig


class Config(LanguageConfig):
    """Settings of train rewrite_grpo."""

    EXAMPLES: ClassVar[str] = r"""
  Train the rewriter of the toy model with its oracle, on a laptop:
    t2ialign train rewrite_grpo prompts=prompts.txt reward_options.backend=oracle output=runs/grpo
  Follow the recipe for Stable Diffusion 1.5:
    t2ialign train rewrite_grpo -c rewrite_grpo_sd15 prompts=prompts.jsonl output=runs/grpo
  Go on from a fine-tuned rewriter, with another reward:
    t2ialign train rewrite_grpo model=runs/sft prompts=prompts.txt preset=general generator=my_model/ \
      reward=imagereward output=runs/grpo
"""

    prompts: str
    """The user prompts: a txt, jsonl, json, csv, tsv or parquet file. Its column points, if there is one,
    holds their key points."""
    generator: str = "toy"
    """The frozen image model: toy (the toy model), a diffusers folder or a Hub id."""
    num_inference_steps: int = Field(default=20, ge=1)
    """The number of denoising steps of the image model."""
    guidance_scale: float = Field(default=5.0, ge=1)
    """The scale of classifier-free guidance of the image model; 1 is off."""
    image_batch: int = Field(default=16, ge=1)
    """The number of images that are rendered at a time."""
    reward: str = "evaluator"
    """The reward that judges the images: evaluator (key points), or any other name of rewards.load."""
    reward_options: dict[str, Any] = Field(default_factory=dict)
    """The options of the reward: reward_options.backend=oracle for the toy model, or
    reward_options.weights=... of a vision-language model."""
    group: int = Field(default=8, ge=2)
    """The number of rewrites that are sampled per user prompt. It must divide batch_size x accumulate x
    number of processes."""
    kl: float = Field(default=1e-3, ge=0)
    """The weight of the KL divergence from the rewriter that training began with."""
    temperature: float = Field(default=1.0, gt=0)
    """The temperature at which rewrites are sampled."""
    tokens: int = Field(default=512, ge=1)
    """The maximum number of tokens of a rewrite with its thought."""
    balance: bool = True
    """Draw a kind of key point first and then a prompt that has it, instead of drawing prompts evenly."""
    lr: float = Field(default=1e-6, gt=0)
    """The peak learning rate."""
