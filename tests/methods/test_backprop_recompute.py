"""Back-propagation with LoRA: recomputing activations of denoiser and decoder changes no gradient."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from t2ialign.methods.backprop import trainer as backprop

STEPS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "nothing": {"checkpoint_steps": False, "gradient_checkpointing": False},
    "steps and decoder": {"checkpoint_steps": True, "gradient_checkpointing": False},
    "blocks": {"checkpoint_steps": False, "gradient_checkpointing": True},
    "all": {"checkpoint_steps": True, "gradient_checkpointing": True},
}
"""What is recomputed."""
RUNS = {
    "nothing": {"denoiser": 1, "block of the denoiser": 1, "block of the decoder": 1},
    "steps and decoder": {"denoiser": 2, "block of the denoiser": 2, "block of the decoder": 2},
    "blocks": {"denoiser": 1, "block of the denoiser": 2, "block of the decoder": 1},
    "all": {"denoiser": 2, "block of the denoiser": 3, "block of the decoder": 2},
}
"""How often each runs for one sampling step, or for one image, forward and backward together."""


def counted(trainer: backprop.Trainer) -> Counter[str]:
    """How often each part begins to run from now on."""
    runs: Counter[str] = Counter()
    policy = trainer.policy
    parts = {
        "denoiser": policy.adapted,
        "block of the denoiser": policy.adapted.mid_block.resnets[-1],  # behind layers with a LoRA
        "block of the decoder": policy.latents.vae.decoder.up_blocks[0].resnets[0],
    }
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
    return runs


def loss_and_gradients(
    model: Path, output: Path, what: str
) -> tuple[Tensor, dict[str, Tensor], Counter[str]]:
    """Of one update's mean loss at a LoRA away from 0, and how often the parts ran for it."""
    values = {
        "model": str(model),
        "output": output,
        "prompts": "a red circle",
        "reward": "tests.training.redness",
        "trackers": (),
        **{
            "preset": "draft",
            "num_inference_steps": STEPS,
            "guidance_scale": 2.0,
            "batch_size": 2,
            "lora_rank": 4,
        },
        **SETTINGS[what],
    }
    trainer = backprop.Trainer(backprop.Config.model_validate(values))
    with torch.no_grad():
        for i, weight in enumerate(trainer.state.parameters):
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i))
    trainer._start()
    runs = counted(trainer)
    losses, _ = trainer.loss(trainer.batch(0, 0))
    losses.mean().backward()
    gradients = {name: w.grad for name, w in trainer.state.trained.items() if w.grad is not None}
    assert gradients.keys() == trainer.state.trained.keys()
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())
    return losses.detach(), gradients, runs


@pytest.mark.parametrize("family", ["tiny_sd", "tiny_sdxl"])
def test_recomputing_gives_the_loss_and_the_gradient_of_the_run_that_keeps_everything(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
):
    model = request.getfixturevalue(family)
    losses, gradients, runs = loss_and_gradients(model, tmp_path / "nothing", "nothing")
    assert runs["denoiser"] % STEPS == 0 and runs["block of the decoder"] == 1
    for what in list(SETTINGS)[1:]:
        same_losses, same_gradients, more = loss_and_gradients(model, tmp_path / what, what)
        assert {name: more[name] / runs[name] for name in runs} == RUNS[what], what
        torch.testing.assert_close(same_losses, losses, rtol=1e-5, atol=1e-6)
        assert same_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                same_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=f"{what}: {name}"
            )
