"""Settings of train tpo."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from t2ialign.io.messages import quoted
from t2ialign.methods.offline.settings import OfflineConfig

Principle = Literal["content", "attribute", "spatial", "context"]


class Config(OfflineConfig):
    """Settings of train tpo."""

    EXAMPLES: ClassVar[str] = r"""
  Align Stable Diffusion 1.5 with a folder of images with captions beside them:
    t2ialign train tpo -c tpo_sd15 data=my_images/ output=runs/mine
  Let a language model on a server write the mismatched prompts, and CLIP check them on the images:
    t2ialign train tpo -c tpo_sdxl data=my_images/ llm=my-model llm_url=http://localhost:8000/v1 \
      check=clipscore
  Take mismatched prompts of your own, from a JSON file of the form {caption: [prompt, ...]}:
    t2ialign train tpo data=my_images/ mismatched=others.json model=my_model.safetensors
"""

    READ: ClassVar[tuple[str, ...]] = (
        *OfflineConfig.READ,
        *("mismatched", "llm", "llm_url", "principles", "max_edits", "num_mismatched"),
        *("check", "check_options", "check_margin"),
    )

    data: str
    """The images: a folder of images with captions beside them, a table with the columns prompt and image, or
    a dataset on the Hugging Face Hub. Images that are not liked, and the losers of pairs, are left out."""
    mismatched: Path | None = None
    """A JSON file of mismatched prompts, of the form {caption: [prompt, ...]}. Captions that it lacks are
    left to the language model that llm names, if there is one. None of both makes them by rules."""
    llm: str | None = None
    """The language model that writes mismatched prompts: a folder, a Hub id, or the name of a model that
    llm_url serves."""
    llm_url: str | None = None
    """The address of an OpenAI-compatible server of the language model, such as http://localhost:8000/v1."""
    principles: tuple[Principle, ...] = ("content", "attribute", "spatial", "context")
    """What a mismatched prompt may change: content (things and their number), attribute (colour, material),
    spatial (relations), or context (style, and from a language model place, light and time too)."""
    max_edits: int | None = Field(default=None, ge=1)
    """The maximum number of words in which a mismatched prompt may differ from the caption; none sets no
    limit, and tells a language model 8."""
    num_mismatched: int = Field(default=4, ge=1)
    """The number of mismatched prompts that are kept for an image; each step draws one of them."""
    check: str | None = None
    """The reward that checks every mismatched prompt on its image: it is left out unless it scores lower than
    the caption, by more than check_margin. Any name of rewards.load; none checks nothing."""
    check_options: dict[str, Any] = Field(default={})
    """The options of the reward that checks, such as check_options.weights=scorer.safetensors."""
    check_margin: float = Field(default=0.0, ge=0)
    """How much lower than the caption a mismatched prompt has to score, in the units of the reward."""

    loss: Literal["tdpo", "tkto"] = "tdpo"
    """The loss. tdpo: the caption is preferred to the mismatched prompt (Diffusion-DPO). tkto: the caption is
    liked and the mismatched prompt is not (Diffusion-KTO)."""
    beta: float = Field(default=5000.0, gt=0)
    """The strength of the tie to the reference model, on the scale of Diffusion-DPO's launch script."""
    guard: Literal["none", "clip", "sdpo"] = "sdpo"
    """The safeguard of the mismatched prompt's gradient. sdpo: it may undo at most 1 - mu of the caption's
    descent (Diffusion-SDPO). clip: it ends where the error has risen by clip above the reference's. none:
    nothing limits it."""
    mu: float = Field(default=0.5, ge=0, le=1)
    """The share of the caption's descent that stays, per image (guard=sdpo)."""
    clip: float = Field(default=0.01, gt=0)
    """How far the mean squared error with the mismatched prompt may rise above the reference's before its
    gradient ends (guard=clip)."""
    denoising: float = Field(default=0.2, ge=0)
    """The weight of plain denoising with the caption beside the preference; 1 pulls as hard as the caption's
    side of the preference does at the start. Without it, text-only training is reported to collapse SDXL."""
    caption_dropout_rate: float = Field(default=0.1, ge=0, lt=1)
    """The share of images whose prompts are both replaced by the empty one, drawn anew at every step; these
    rows train plain denoising alone."""
    batch_size: int = Field(default=4, ge=1)
    """The number of images per process and micro-step; each goes through the network with two prompts."""
    accumulate: int = Field(default=32, ge=1)
    """The number of micro-steps whose gradients are averaged into one optimiser step."""
    lr: float = Field(default=2e-5, gt=0)
    """The peak learning rate."""

    @model_validator(mode="after")
    def _names_its_sources(self) -> Self:
        if self.llm_url is not None and self.llm is None:
            raise ValueError(
                f"got llm_url={quoted(self.llm_url)} without llm; expected the name of a model that it "
                "serves; add llm"
            )
        if not self.principles:
            raise ValueError("got no principles; expected at least one, such as content; name one")
        return self
