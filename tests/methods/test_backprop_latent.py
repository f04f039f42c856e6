"""Back-propagation of a latent reward: its gradient, that nothing is decoded, resume, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rewards.base import LatentReward
from rewards.latent.saved import save
from rewards.latent.untrained import from_pipeline
from t2ialign.methods.backprop import trainer as backprop
from t2ialign.methods.lpo import trainer as lpo
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.training import checkpoint
from tests.training.helpers import assert_same_checkpoint, numbers
from tests.training.stillness import Stillness

STILL = "tests.training.stillness:Stillness"
T, LEAST_NOISE = 4, 1


class Narrow(LatentReward):
    """Of latents of 3 channels."""

    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        return (latents * torch.ones(1, 3, 1, 1)).mean((1, 2, 3))


class Cut(LatentReward):
    """Without a gradient."""

    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        return latents.detach().mean((1, 2, 3))


@pytest.fixture
def latent_config(tiny_sd, tmp_path):
    """Makes a small config: two rows, four steps, every one of which records."""

    def make(**changes: object) -> backprop.Config:
        base = {
            **{"model": str(tiny_sd), "output": tmp_path / "run", "prompts": "a red circle", "reward": STILL},
            **{"trackers": (), "preset": "draft", "num_inference_steps": T, "guidance_scale": 2.0},
            **{"max_steps": 4, "batch_size": 2, "lora_rank": 4, "lr": 1e-2, "weight_decay": 0.0},
        }
        return backprop.Config.model_validate({**base, **changes})

    return make


@pytest.fixture(scope="module")
def judges(tiny_sd, tiny_sdxl, tmp_path_factory) -> dict[str, str]:
    """Untrained latent rewards of two families, as train lrm writes them."""
    folders = {}
    for name, model in (("sd", tiny_sd), ("sdxl", tiny_sdxl)):
        folders[name] = str(tmp_path_factory.mktemp(name))
        save(from_pipeline(model, guidance_scale=1), folders[name])
    return folders


def shifted(trainer: backprop.Trainer, by: dict[str, Tensor], scale: float) -> float:
    """The mean loss of the first batch with the weights moved by `scale` times `by`, and moved back."""
    with torch.no_grad():
        for name, weight in trainer.state.trained.items():
            weight += scale * by[name]
        loss = float(trainer.loss(trainer.batch(0, 0))[0].mean())
        for name, weight in trainer.state.trained.items():
            weight -= scale * by[name]
    return loss


def test_the_gradient_is_that_of_finite_differences(latent_config):
    trainer = backprop.Trainer(latent_config())
    with torch.no_grad():
        for i, weight in enumerate(trainer.state.parameters):
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i))
    trainer._start()
    trainer.loss(trainer.batch(0, 0))[0].mean().backward()
    gradient = {name: weight.grad.clone() for name, weight in trainer.state.trained.items()}
    size = torch.stack([value.square().sum() for value in gradient.values()]).sum().sqrt()
    direction = {name: value / size for name, value in gradient.items()}
    slope = (shifted(trainer, direction, 1e-2) - shifted(trainer, direction, -1e-2)) / 2e-2
    assert size > 0 and slope == pytest.approx(float(size), rel=0.02)


def test_the_reward_rises_and_nothing_is_decoded(latent_config, capsys):
    cfg = latent_config(max_steps=8, heldout_prompts="a blue square", evaluate_every=8)
    policy, decoded = load_policy(cfg.model), []
    policy.decode = decoded.append
    trainer = backprop.Trainer(cfg, policy=policy, reward=Stillness())
    trainer.fit()
    rows = {row["step"]: row for row in numbers(cfg.output)}
    assert rows[8]["reward"] > rows[1]["reward"]
    assert rows[8]["heldout/reward"] > rows[0]["heldout/reward"]
    assert not decoded and not any("saturated" in row for row in rows.values())
    assert trainer.trained_reward is None and not policy.latents.vae.decoder.gradient_checkpointing
    assert set(trainer.reward.reward.times) == {LEAST_NOISE}
    (start,) = [line for line in capsys.readouterr().err.splitlines() if "before training" in line]
    assert "of 8 latents of 1 prompts at guidance 2" in start
    assert "1 prompts from a red circle, latents scored by" in (cfg.output / "README.md").read_text()


def test_scores_are_those_of_the_latent_reward_and_the_same_with_every_setting(
    latent_config, judges, tmp_path
):
    """Recomputed steps change no score, DRaFT-LV has rows of its own, and bf16 stays near."""
    options, scores = {"reward": "latent", "reward_options": {"path": judges["sd"]}}, {}
    settings = {
        "fp32": {"checkpoint_steps": False},
        "recomputed": {"checkpoint_steps": True},
        "bf16": {"reward_precision": "bf16"},
        "lv": {"preset": "draft-lv"},
    }
    for name, changes in settings.items():
        trainer = backprop.Trainer(latent_config(**options, **changes, output=tmp_path / name))
        trainer._start()
        losses, metrics = trainer.loss(trainer.batch(0, 0))
        losses.mean().backward()
        assert any(float(weight.grad.abs().max()) > 0 for weight in trainer.state.parameters)
        scores[name] = metrics["reward"].detach()
        if name == "fp32":
            x_0, _ = trainer.sample(trainer.batch(0, 0))
            expected = trainer.reward.reward(x_0, torch.tensor([LEAST_NOISE] * 2), ["a red circle"] * 2)
    torch.testing.assert_close(scores["fp32"], expected.detach())
    torch.testing.assert_close(scores["recomputed"], scores["fp32"])
    torch.testing.assert_close(scores["bf16"], scores["fp32"], rtol=0.05, atol=0.1)
    assert not torch.equal(scores["bf16"], scores["fp32"]) and scores["lv"].shape == (4,)


@pytest.mark.rest
def test_a_resumed_run_is_bit_for_bit_the_whole_one(latent_config, judges, tmp_path, one_thread):
    common = {"reward": "latent", "reward_options": {"path": judges["sd"]}, "checkpoint_every": 2}
    whole = latent_config(output=tmp_path / "whole", **common)
    backprop.Trainer(whole).fit()
    half = latent_config(output=tmp_path / "half", max_steps=2, **common)
    backprop.Trainer(half).fit()
    backprop.Trainer(half.model_copy(update={"max_steps": 4, "resume": "latest"})).fit()
    assert numbers(half.output) == numbers(whole.output)
    assert_same_checkpoint(*(checkpoint.path(cfg.output / "checkpoints", 4) for cfg in (half, whole)))


def test_a_monitor_watches_held_out_rewards_of_images_alone(latent_config):
    watched = {"monitor_prompts": "a blue square", "monitor_rewards": ["toy-clip"], "monitor_steps": 2}
    cfg = latent_config(max_steps=1, evaluate_every=1, monitor_images=2, **watched)
    backprop.Trainer(cfg).fit()
    (row,) = [row for row in numbers(cfg.output) if row["step"] == 1]
    assert "monitor/toy-clip" in row and not any("trained" in key for key in row)


def test_a_reward_that_does_not_fit_is_one_line_and_costs_nothing(latent_config, judges, tmp_path: Path):
    other = {"reward": "latent", "reward_options": {"path": judges["sdxl"]}}
    refused = (
        "got a latent reward of Stable Diffusion XL for Stable Diffusion 1 or 2; expected one of this model"
    )
    for changes, reward, words in (
        (other, None, refused),
        ({}, Narrow(), r"does not score latents of 4x8x8 \(.*; expected one of this model's latents"),
        ({}, Cut(), "whose scores have no gradient; .* or train it by lpo, which takes any latent reward"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            backprop.Trainer(latent_config(**changes), reward=reward)
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    short = {"num_inference_steps": T, "t_max": 999, "trackers": (), "output": tmp_path / "lpo"}
    model = {"model": latent_config().model, "prompts": "a red circle"}
    with pytest.raises(ValueError, match=refused):
        lpo.Trainer(lpo.Config.model_validate({**model, **short, **other}))


def test_latents_are_those_of_the_images(tiny_sd):
    policy, rows = load_policy(str(tiny_sd)), (["a red circle", "a cat"], [3, 4])
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0}
    latents = generate(policy, *rows, **settings, decode=False)
    with torch.no_grad():
        torch.testing.assert_close(policy.decode(latents), generate(policy, *rows, **settings))
