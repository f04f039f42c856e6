"""The published recipes of step-level preference optimisation as named defaults: what you set wins.

Thresholds and betas belong to the scale of a reward: p is the softmax of two scores times `reward_scale`.
"""

from __future__ import annotations

from typing import Any

# Zhang et al. 2025, Stable Diffusion 1.5 (the paper's lr is 5e-5, the released code's 6e-5). SDXL:
# threshold_low=0.45 threshold_high=0.6 lora_rank=64 lr=1e-5 batch_size=4 rollout_batch=4.
LPO: dict[str, Any] = {
    "compare": "siblings",
    "loss": "preference",
    "siblings": 4,
    "beta": 500.0,
    "clip": 0.1,
    "threshold_low": 0.35,
    "threshold_high": 0.5,
    "t_max": 950,
    "lora_rank": 4,
    "lr": 6e-5,
    "weight_decay": 1e-4,
    "batch_size": 10,
}

PRESETS: dict[str, dict[str, Any]] = {
    "lpo": LPO,
    # Liang et al. 2024: images of the one-step x_0 are judged, at one threshold, and from t = 750 on only.
    # Its own judge is PickScore fine-tuned with time conditioning; the plain one is at hand here.
    "spo": {
        **LPO,
        "reward": "pickscore",
        "beta": 10.0,
        "threshold_low": 0.4,
        "threshold_high": 0.4,
        "t_max": 750,
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
    # The comparison of Zhang et al. 2025: LPO's siblings, their standard scores in place of a pair. The clip
    # is PPO's for mean log-ratios (Black et al. 2024; Liu et al. 2025).
    "grpo": {**LPO, "loss": "grpo", "clip": 1e-4, "threshold_low": 0.0, "threshold_high": 0.0},
}
