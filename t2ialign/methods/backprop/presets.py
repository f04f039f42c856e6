"""The published recipes of reward back-propagation as named defaults: what the user sets still wins.

Sources are named beside each; batch sizes are of one process. A number without a source in the comment is the
trainer's own default.
"""

from __future__ import annotations

from typing import Any

# Prabhudesai et al. 2023, the released code for SD1.5 and its aesthetic reward: 4 GPUs x 4 x 8 = 128 rows an
# update, 14 updates in all (early stop). Its losses are 0.01 |R - 10| (aesthetic) and 0.01 (1 - R) (HPSv2).
ALIGNPROP: dict[str, Any] = {
    "record": "mask",
    "num_inference_steps": 50,
    "guidance_scale": 7.5,
    "eta": 0.0,
    "lora_rank": 4,
    "lr": 1e-3,
    "weight_decay": 0.1,
    "max_grad_norm": 5.0,
    "batch_size": 4,
    "accumulate": 8,
    "max_steps": 14,
    "loss_scale": 0.01,
}

# Clark et al. 2024, the small setting (the large one: lr=2e-4 lora_rank=32 batch_size=16 max_steps=10000).
DRAFT: dict[str, Any] = {
    "record": "all",
    "num_inference_steps": 50,
    "guidance_scale": 7.5,
    "eta": 0.0,
    "lora_rank": 8,
    "lr": 4e-4,
    "weight_decay": 0.1,
    "batch_size": 4,
    "max_steps": 2000,
}

PRESETS: dict[str, dict[str, Any]] = {
    "alignprop": ALIGNPROP,
    # The paper's text: one cut a path, K ~ U(0, 50); K = 0 records nothing and is left out here. The cut of
    # the rewritten repository is one of 1 .. 49: there the first step never records.
    "alignprop-uniform": {**ALIGNPROP, "record": "uniform"},
    # The rewritten repository: one cut a path, int of a draw of N(42, 5), drawn again outside 1 .. 49;
    # stochastic sampling, weaker guidance.
    "alignprop-normal": {
        **ALIGNPROP,
        "record": "normal",
        "guidance_scale": 5.0,
        "eta": 1.0,
        "weight_decay": 1e-4,
        "max_grad_norm": 1.0,
        "batch_size": 8,
        "accumulate": 4,
        "max_steps": 25,
    },
    "alignprop-k": {**ALIGNPROP, "record": "last", "k": 1},
    "draft": DRAFT,
    "draft-k": {**DRAFT, "record": "last", "k": 1},
    "draft-lv": {**DRAFT, "record": "last", "k": 1, "lv_samples": 2},
    # Xu et al. 2023, the released trainer: all weights, no guidance, diffusers' DDPM scheduler (eta 1),
    # mid = randint(30, 39) of 40 steps, 1e-3 relu(2 - ImageReward), 2 rows a GPU x 4.
    "refl": {
        "record": "last",
        "k": 1,
        "early_stop": 10,
        "num_inference_steps": 40,
        "guidance_scale": 1.0,
        "eta": 1.0,
        "lora_rank": 0,
        "lr": 1e-5,
        "weight_decay": 1e-2,
        "batch_size": 2,
        "accumulate": 4,
        "max_steps": 100,
        "loss": "hinge",
        "target": 2.0,
        "loss_scale": 1e-3,
    },
    # Wu et al. 2024 in FlowBP's settings, the only implementation at hand: K = 3 of 25 steps, the end drawn
    # from the last 0.4 x 25, relu(0.55 - HPSv2.1), 64 rows an update, 300 updates.
    "drtune": {
        "record": "spaced",
        "k": 3,
        "detach_input": True,
        "early_stop": 10,
        "num_inference_steps": 25,
        "lr": 1e-5,
        "batch_size": 4,
        "accumulate": 16,
        "max_steps": 300,
        "loss": "hinge",
        "target": 0.55,
    },
}
"""Preset -> what it sets in place of the trainer's defaults."""
