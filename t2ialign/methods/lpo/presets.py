"""The published recipes of step-level preference optimisation as named defaults: what you set wins.

Thresholds and betas belong to the scale of a reward: p is the softmax of two scores times `reward_scale`.
The recipes are those of Stable Diffusion 1.5 (and 2.1); what differs for SDXL is in `FOR_SDXL`.
"""

from __future__ import annotations

from typing import Any

# Zhang et al. 2025 (the paper's lr is 5e-5, the released code's 6e-5). A round is 4 GPUs x 5 prompts.
LPO: dict[str, Any] = {
    "compare": "candidates",
    "loss": "preference",
    "candidates": 4,
    "beta": 500.0,
    "clip": 0.1,
    "threshold_low": 0.35,
    "threshold_high": 0.5,
    "t_max": 950,
    "lora_rank": 4,
    "lr": 6e-5,
    "weight_decay": 1e-4,
    "batch_size": 10,
    "collect_prompts": 20,
}

PRESETS: dict[str, dict[str, Any]] = {
    "lpo": LPO,
    # Liang et al. 2024: images of the one-step x_0 are judged, at one threshold, and from t = 750 on only; a
    # round is 4 GPUs x 10 prompts. Its own judge is PickScore fine-tuned with time conditioning; the plain
    # one is at hand here.
    "spo": {
        **LPO,
        "reward": "pickscore",
        "beta": 10.0,
        "threshold_low": 0.3,
        "threshold_high": 0.3,
        "t_max": 750,
        "collect_prompts": 40,
    },
    # Yang et al. 2023: two whole paths from one first noise; the better one's every step is the better step.
    "d3po": {
        **LPO,
        "compare": "trajectories",
        "reward": "pickscore",
        "beta": 0.1,
        "threshold_low": 0.0,
        "threshold_high": 0.0,
        "t_max": 999,
        "lr": 3e-5,
        "accumulate": 2,
    },
    # The comparison of Zhang et al. 2025: LPO's candidates, their standard scores in place of a pair. The
    # clip is PPO's for mean log-ratios (Black et al. 2024; Liu et al. 2025).
    "grpo": {**LPO, "loss": "grpo", "clip": 1e-4, "threshold_low": 0.0, "threshold_high": 0.0},
}

FOR_SDXL: dict[str, dict[str, Any]] = {
    "lpo": {
        "lora_rank": 64,
        "lr": 1e-5,
        "threshold_low": 0.45,
        "threshold_high": 0.6,
        "batch_size": 4,
        "collect_prompts": 16,  # 4 GPUs x 4
        "rollout_batch": 4,
    },
    # The released run lets 2 candidates go on for 3 more steps each before they are judged; here every
    # step is.
    "spo": {
        "lora_rank": 64,
        "lr": 1e-5,
        "threshold_low": 0.4,
        "threshold_high": 0.4,
        "batch_size": 2,
        "accumulate": 2,
        "collect_prompts": 8,  # 4 GPUs x 2
        "rollout_batch": 2,
    },
}
"""Preset -> what its recipe has otherwise for Stable Diffusion XL; the others were published without one."""
