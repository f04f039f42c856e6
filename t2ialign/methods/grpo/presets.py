"""The published recipes of online reinforcement learning as named defaults: what you set wins.

Every value is its source's; what it is for another number of images a round or another reward nobody
published. Models that predict noise take `FOR_DDPM` in place of it: without guidance their samples are too
poor to be told apart (issue 12 of DiffusionNFT), and the flow's SDE is not theirs.
"""

from __future__ import annotations

from typing import Any

# Black et al. 2024, the code's settings for Stable Diffusion 1.4: 256 images a round, 4 updates; the paper
# draws a prompt for each image, here they come in groups of 8.
DDPO: dict[str, Any] = {
    "loss": "ratio",
    "spread": "prompt",
    "kernel": "ddim",
    "eta": 1.0,
    "guidance_scale": 1.0,
    "num_inference_steps": 50,
    "window": 0,
    "groups": 32,
    "group_size": 8,
    "updates": 4,
    "shared_noise": False,
    "clip": 1e-4,
    "kl_weight": 0.0,
    "kl_space": "x",
    "ema_kl_weight": 0.0,
    "train_timesteps": 1,
    "timestep_fraction": 0.99,
    "lora_rank": 4,
    "lora_alpha": 4.0,
    "lr": 3e-4,
    "weight_decay": 1e-4,
    "ema": 0.0,
}

# Liu et al. 2025, the code of July 2025 for Stable Diffusion 3.5 Medium. Its KL of 0.04 leaves out the length
# of a step (issue 22), with which it is some 0.004. The moving average is 0.9 every 8 updates there.
FLOW_GRPO: dict[str, Any] = {
    **DDPO,
    "spread": "global",
    "kernel": "flow_sde",
    "eta": 0.7,
    "num_inference_steps": 10,
    "guidance_scale": 4.5,
    "groups": 48,
    "group_size": 24,
    "updates": 2,
    "kl_weight": 0.004,
    "lora_rank": 32,
    "lora_alpha": 64.0,
    "ema": 0.987,
}

# The later settings of the same code: noise in three steps of the first half alone, no guidance, no KL.
FAST: dict[str, Any] = {
    **FLOW_GRPO,
    "kernel": "cps",
    "eta": 0.8,
    "window": 3,
    "guidance_scale": 1.0,
    "clip": 1e-5,
    "kl_weight": 0.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    "ddpo": DDPO,
    "flow-grpo": FLOW_GRPO,
    "fast": FAST,
    # Zheng et al. 2025: any sampler without noise, each image is trained at 9 of its 10 noise levels.
    "nft": {
        **FLOW_GRPO,
        "loss": "nft",
        "clip": None,
        "guidance_scale": 1.0,
        "train_timesteps": 9,
        "kl_weight": 1e-4,
        "kl_space": "v",
    },
    # Xue et al. 2026: the distance to a moving average, whose decay ends at 0.3, takes the place of the clip.
    "awm": {
        **FLOW_GRPO,
        "loss": "awm",
        "num_inference_steps": 14,
        "guidance_scale": 1.0,
        "groups": 24,
        "train_timesteps": 6,
        "timestep_fraction": 0.9,
        "clip": None,
        "kl_weight": 1e-3,
        "kl_space": "v",
        "ema_kl_weight": 1.0,
        "ema": 0.3,
    },
}

_GUIDED: dict[str, Any] = {"guidance_scale": 5.0}
FOR_DDPM: dict[str, dict[str, Any]] = {
    name: {**_GUIDED, "kernel": "ddim", "eta": 1.0} if preset["kernel"] == "flow_sde" else _GUIDED
    for name, preset in PRESETS.items()
}
"""Preset -> what differs for a model that predicts noise or v (Stable Diffusion 1, 2 and XL)."""
FOR_FLUX: dict[str, Any] = {"guidance_scale": 3.5}
"""The scale that FLUX.1 dev is told of, in one forward, in every published recipe for it."""
