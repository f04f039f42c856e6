"""Settings of the demo, all of them; its folder holds one run of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from t2ialign.evaluation.provenance import source_hash
from t2ialign.io import atomic, locks
from t2ialign.models.lora_targets import JOINT_AND_MLP

TRAINING: Mapping[str, Any] = {
    "gamma": 0.6,
    "discount": "sample",
    "num_inference_steps": 10,
    "beta": 500.0,
    "safeguard": 0.9,
    "caption_dropout_rate": 0.2,
    "lora_rank": 16,
    "lora_targets": (
        *("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
        *("conv1", "conv2", "time_emb_proj"),
    ),
    "lr": 1.25e-3,
    "lr_schedule": "cosine",
    "lr_warmup": 20,
    "ema": 0.99,
    "max_steps": 120,
    "batch_size": 32,
    "accumulate": 1,
    "evaluate_every": 40,
    "checkpoint_every": 60,
}
"""Settings of `train dpo` in each round."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a demo does: rounds of sampling, judging and training, then the measurement."""

    model: str = "toy"
    """The model that is aligned, one of the toy models."""
    rounds: int = 5
    prompts_per_round: int = 240
    images_per_prompt: int = 4
    guidance_scale: float = 4.0
    """The scale of classifier-free guidance at which images to train on are sampled."""
    num_inference_steps: int = 10
    """The number of denoising steps of every image of the demo."""
    batch_size: int = 128
    """The number of images that are sampled at a time."""
    training: Mapping[str, Any] = field(default_factory=lambda: dict(TRAINING))
    """Settings of `train dpo`, the same in each round."""
    guidance_scales: tuple[float, ...] = (1, 2, 3, 4, 6, 8)
    """The scales among which each model's best one is chosen, and at which the curve is measured."""
    choosing_prompts: int = 120
    """The number of captions on which the best scale is chosen; they are neither trained on nor measured."""
    curve_prompts: int = 120
    """The number of held-out captions, the first ones, that are measured at every scale."""
    heldout_prompts: int = 480
    """The number of held-out captions that each model is measured on at its best scale."""


DEFAULT = Settings()
FLOW_TRAINING: Mapping[str, Any] = {
    **TRAINING,
    "lora_targets": JOINT_AND_MLP,
    "beta": 100.0,
    "lr": 4e-3,
    "max_steps": 240,
}
"""Settings of `train dpo` for the flow model, in its one round."""
FLOW = Settings(model="toy-flow", rounds=1, prompts_per_round=480, guidance_scale=3.0, training=FLOW_TRAINING)
BY_MODEL: Mapping[str, Settings] = {settings.model: settings for settings in (DEFAULT, FLOW)}
"""Settings of the demo of each toy model."""
FILE = "settings.json"


def claim(output: Path, seed: int, settings: Settings) -> None:
    """Take the folder, or go on in it. Raises ValueError if it holds something else or another demo."""
    file = output / FILE
    wanted = json.loads(json.dumps({"seed": seed, **asdict(settings)}))
    if not file.exists():
        locks.check_free(output)
        output.mkdir(parents=True, exist_ok=True)
        atomic.write_json(file, {**wanted, "tree": source_hash()})
        return
    earlier = {"model": DEFAULT.model, **atomic.read_json(file)}  # once there was one model
    if changed := ", ".join(key for key in wanted if earlier.get(key) != wanted[key]):
        raise ValueError(
            f"got {output}, which holds a demo with another {changed}; expected the same; choose another "
            "--output"
        )
