"""Every preset drives a model of two parameters to the optimum, which is known."""

from pathlib import Path

import pytest
import torch

from t2ialign.diffusion.path import Kind
from t2ialign.methods.grpo import trainer as grpo
from tests.methods.two_numbers import GOAL, Nearness, TwoNumbers

EXACT = {"clip": 0.3}
"""The published 1e-5 of latents of 65,536 numbers for one of two numbers."""
CHANGES: dict[str, dict[str, object]] = {
    "ddpo": {**EXACT, "num_inference_steps": 6, "lr": 0.02},
    "flow-grpo": {**EXACT, "num_inference_steps": 6, "lr": 0.02, "kl_weight": 0.0},
    "fast": {**EXACT, "num_inference_steps": 6, "window": 2, "lr": 0.02},
    "nft": {"num_inference_steps": 6, "train_timesteps": 4, "lr": 0.02},
    "awm": {"num_inference_steps": 6, "train_timesteps": 4, "lr": 0.02},
}


@pytest.mark.rest
@pytest.mark.parametrize("kind", ["flow", "eps"])
@pytest.mark.parametrize("preset", CHANGES)
def test_two_numbers_reach_their_goal(preset: str, kind: Kind, tmp_path: Path) -> None:
    kernel = {"kernel": "ddim", "eta": 1.0} if preset == "flow-grpo" and kind == "eps" else {}
    cfg = grpo.Config.model_validate(
        {
            **{"preset": preset, "prompts": "a number", "output": tmp_path / "run", "lora_rank": 0},
            **{"groups": 8, "group_size": 8, "updates": 1, "rollout_batch": 64, "batch_size": 64},
            **{"max_steps": 100, "weight_decay": 0.0, "guidance_scale": 1.0, "trackers": ()},
            **{"checkpoint_every": 1000, "ema": 0.5 if preset == "awm" else 0.0, "max_grad_norm": 0.0},
            **CHANGES[preset],
            **kernel,
        }
    )
    policy = TwoNumbers(kind)
    trainer = grpo.Trainer(cfg, policy=policy, reward=Nearness())
    trainer.fit()
    assert (policy.mean - torch.tensor(GOAL)).abs().max() < 0.1
