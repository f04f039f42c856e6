"""Every trainer of an image model trains the flow families, which have no U-Net."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rewards.latent.mmdit import MMDiTBackbone
from rewards.latent.untrained import from_networks
from t2ialign.methods.backprop import trainer as backprop
from t2ialign.methods.backprop.presets import PRESETS
from t2ialign.methods.dense import trainer as dense
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.methods.kto import trainer as kto
from t2ialign.methods.lpo import trainer as lpo
from t2ialign.methods.lrm import trainer as lrm
from t2ialign.methods.sft import trainer as sft
from t2ialign.methods.tpo import trainer as tpo
from t2ialign.models.base import Policy
from t2ialign.training.log import METRICS, read_rows
from tests.models.flows.tiny_flows import FLOWS, tiny_flow
from tests.models.flows.tiny_sd3 import tiny_sd3, tiny_sd3_pipeline
from tests.training.stillness import Stillness

SHORT = {
    **{
        "prompts": "a red circle",
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
        "max_steps": 1,
        "batch_size": 2,
    },
    **{"accumulate": 1, "lora_rank": 2, "lr": 1e-2, "trackers": ()},
}
NOISY = [("ddim", 1.0), ("flow_sde", 0.7), ("cps", 0.8)]
every_flow = pytest.mark.parametrize("family", FLOWS)


def ran(trainer, output: Path) -> dict[str, float]:
    """Fit, and check that the weights moved and were written for diffusers -> the step's metrics."""
    before = {name: value.detach().clone() for name, value in trainer.state.trained.items()}
    trainer.fit()
    assert any(not torch.equal(value, trainer.state.trained[name]) for name, value in before.items())
    file = output / "pytorch_lora_weights.safetensors"
    names = load_file(file)
    assert names and all(name.startswith("transformer.") for name in names)
    assert not list(output.glob("*_kohya.safetensors"))  # no program has names for these layers
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "load_lora_weights" in card and "DDIMScheduler" not in card
    return read_rows(output / METRICS)[-1]


@every_flow
@pytest.mark.parametrize("changes", [{}, {"loss": "mapo", "gamma": 0.5, "discount": "weight"}], ids=str)
def test_dpo(family: str, pair_folder: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    short = {key: value for key, value in SHORT.items() if key not in ("prompts", "guidance_scale")}
    cfg = dpo.Config.model_validate(
        {"data": str(pair_folder), "output": tmp_path, "limit": 6, **short, "holdout": 0.3, **changes}
    )
    trainer = dpo.Trainer(cfg, policy=tiny_flow(family))
    batch = trainer.batch(0, 0)
    assert batch.t.is_floating_point() and ((batch.t > 0) & (batch.t <= 1000)).all()
    assert (batch.t != batch.t.round()).any()  # continuous, unlike DDPM's
    row = ran(trainer, tmp_path)
    assert row["heldout/implicit_acc"] >= 0


@every_flow
@pytest.mark.parametrize(("kernel", "eta"), NOISY)
def test_dense(family: str, tmp_path: Path, kernel: str, eta: float) -> None:
    sizes = {"collect_prompts": 2, "rollouts": 2, "keep": 2, "rollout_batch": 4, "collect_every": 2}
    changes = {"kernel": kernel, "eta": eta, "clip": 0.5, "reward": "tests.training.brightness"}
    cfg = dense.Config.model_validate({"output": tmp_path, **SHORT, **sizes, **changes})
    trainer = dense.Trainer(cfg, policy=tiny_flow(family))
    assert trainer.likely_steps == 2  # the last one ends in x_0
    assert ran(trainer, tmp_path)["ratio_size"] < 1e-4  # at the reference


@every_flow
@pytest.mark.parametrize("preset", PRESETS)
def test_backprop(family: str, tmp_path: Path, preset: str) -> None:
    steps = {"num_inference_steps": 4, "k": 1, "early_stop": 1 if preset in ("refl", "drtune") else 0}
    shared = {"eta": 0.0, "loss": "maximise", "target": None, **steps}
    values = {"output": tmp_path, "reward": "tests.training.redness", "preset": preset, **SHORT, **shared}
    cfg = backprop.Config.model_validate(values)
    ran(backprop.Trainer(cfg, policy=tiny_flow(family)), tmp_path)


def test_backprop_through_a_noisy_kernel_with_its_penalty(tmp_path: Path) -> None:
    changes = {"kernel": "flow_sde", "eta": 0.7, "penalty": "kl", "penalty_weight": 0.1, "record": "all"}
    cfg = backprop.Config.model_validate(
        {"output": tmp_path, "reward": "tests.training.redness", **SHORT, **changes}
    )
    assert ran(backprop.Trainer(cfg, policy=tiny_sd3()), tmp_path)["penalty"] < 1e-6


def test_backprop_on_latents(tmp_path: Path) -> None:
    """The reward is told the least noisy time of 20 steps, rounded, whatever the steps of training."""
    values = {**SHORT, "reward": "tests.training.stillness:Stillness"}
    trainer = backprop.Trainer(
        backprop.Config.model_validate({"output": tmp_path, **values}), policy=tiny_sd3()
    )
    ran(trainer, tmp_path)
    stillness = trainer.reward.reward
    assert isinstance(stillness, Stillness)
    assert set(stillness.times) == {round(float(trainer.policy.timesteps(20)[-2]))}


def lpo_trainer(tmp_path: Path, policy: Policy, **changes: object) -> lpo.Trainer:
    rounds = {"collect_prompts": 4, "rollout_batch": 2, "threshold_low": 0.0, "threshold_high": 0.0}
    values = {
        **SHORT,
        **rounds,
        "candidates": 2,
        "t_max": 1000,
        "reward": "tests.training.brightness",
        **changes,
    }
    return lpo.Trainer(lpo.Config.model_validate({"output": tmp_path, **values}), policy=policy)


@every_flow
@pytest.mark.parametrize(("kernel", "eta"), NOISY)
def test_lpo_by_images(family: str, tmp_path: Path, kernel: str, eta: float) -> None:
    trainer = lpo_trainer(tmp_path, tiny_flow(family), kernel=kernel, eta=eta)
    assert list(trainer.sampler.judged) == [0, 1]  # the last of 3 ends in x_0
    row = ran(trainer, tmp_path)
    assert (
        trainer.data["t"].is_floating_point()
        and sum(row[f"valid_band_{i}"] for i in range(4)) == row["valid"]
    )


def test_lpo_by_any_latent_reward(tmp_path: Path) -> None:
    """A reward of the user's is called with whole times, those of a flow rounded."""
    trainer = lpo_trainer(tmp_path, tiny_sd3(), reward="tests.training.stillness:Stillness")
    assert isinstance(trainer.reward, Stillness)
    ran(trainer, tmp_path)
    grid = trainer.policy.timesteps(3)[:-1]
    assert set(trainer.reward.times) <= set(grid.round().tolist()) and (grid != grid.round()).any()
    kept = trainer.data["x_s"].square().flatten(2).mean(2)
    assert (kept[:, 0] < kept[:, 1]).all()


def test_lpo_by_the_latent_reward_of_its_own_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = from_networks(tiny_sd3_pipeline(1).components, guidance_scale=1)
    monkeypatch.setattr("rewards.load", lambda name, **options: reward)
    ran(lpo_trainer(tmp_path, tiny_sd3(), reward="latent"), tmp_path)


def test_lrm(pair_folder: Path, tmp_path: Path) -> None:
    cfg = lrm.Config.model_validate(
        {
            **{"model": "toy", "data": str(pair_folder), "output": tmp_path, "trackers": ()},
            **{"max_steps": 1, "batch_size": 2, "accumulate": 1, "lr": 1e-3, "lr_warmup": 0, "vfe": 1},
            **{"num_inference_steps": 3, "heldout_timesteps": (1, 750.5), "holdout": 0.3},
        }
    )
    trainer = lrm.Trainer(cfg, policy=tiny_sd3())
    assert isinstance(trainer.reward.backbone, MMDiTBackbone)
    assert set(trainer.batch(0, 0).t.tolist()) <= set(trainer.times.tolist())
    trainer.fit()
    row = read_rows(tmp_path / METRICS)[-1]
    assert {"heldout/accuracy_t1", "heldout/accuracy_t750.5"} <= row.keys()


def test_a_kernel_that_does_not_fit_is_refused(tiny_sd: Path, tmp_path: Path) -> None:
    """On Stable Diffusion flow_sde is an error before anything is sampled, and so is too much noise."""
    values = {"model": str(tiny_sd), **SHORT, "kernel": "flow_sde"}
    cfg = backprop.Config.model_validate({"output": tmp_path, "reward": "tests.training.redness", **values})
    with pytest.raises(ValueError, match="got kernel=flow_sde for a model that predicts eps"):
        backprop.Trainer(cfg)
    with pytest.raises(ValueError, match=r"got eta=1\.5 with kernel=ddim; expected at most 1"):
        dense.Config(prompts="a", eta=1.5)


def test_a_run_of_all_weights_says_how_they_are_read(pair_folder: Path, tmp_path: Path) -> None:
    short = {key: value for key, value in SHORT.items() if key not in ("prompts", "guidance_scale")}
    values = {"data": str(pair_folder), "output": tmp_path, "limit": 6, "holdout": 0.3}
    cfg = dpo.Config.model_validate({**short, **values, "lora_rank": 0, "lr": 1e-4})
    dpo.Trainer(cfg, policy=tiny_sd3()).fit()
    assert (tmp_path / "transformer" / "config.json").is_file()
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    read = f'transformer = SD3Transformer2DModel.from_pretrained("{tmp_path.name}", subfolder="transformer")'
    assert read in card and "transformer=transformer" in card and "DDIMScheduler" not in card


def descent(trainer, steps: int = 20) -> tuple[float, float]:
    """The loss of the first batch before and after that many steps on it alone, once a run has begun."""
    trainer.fit()
    batch, trained = trainer.batch(0, 0), trainer.state.parameters
    optimizer, losses = torch.optim.AdamW(trained, lr=1e-2), []
    for _ in range(steps + 1):
        loss = trainer.loss(batch)[0].mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


@every_flow
def test_twenty_steps_on_one_batch_lower_its_loss(family: str, pair_folder: Path, tmp_path: Path) -> None:
    offline = {key: value for key, value in SHORT.items() if key not in ("prompts", "guidance_scale")}
    pairs = {"data": str(pair_folder), "limit": 4, "output": tmp_path / "dpo", "beta": 100, **offline}
    paths = {"collect_prompts": 2, "rollouts": 2, "keep": 2, "collect_every": 2, "clip": 0.5}
    judged = {"collect_prompts": 2, "candidates": 2, "threshold_low": 0, "threshold_high": 0, "t_max": 1000}
    brightness = {**SHORT, "reward": "tests.training.brightness", "rollout_batch": 2}
    redness = {**SHORT, "reward": "tests.training.redness", "output": tmp_path / "backprop"}
    others = tmp_path / "others.json"
    others.write_text(json.dumps({f"image {i}": [f"picture {i}"] for i in range(20)}))
    made: dict[str, Any] = {
        "dpo": dpo.Trainer(dpo.Config.model_validate(pairs), policy=tiny_flow(family)),
        "backprop": backprop.Trainer(backprop.Config.model_validate(redness), policy=tiny_flow(family)),
    }
    ours: dict[str, Any] = {"holdout": 0, "caption_dropout_rate": 0}
    images = {
        **{key: value for key, value in pairs.items() if key not in ("beta", "num_inference_steps")},
        **ours,
    }
    cases: list[tuple[str, Any, dict[str, Any]]] = [
        *(("dense", dense, {**brightness, **paths}), ("lpo", lpo, {**brightness, **judged})),
        *(("sft", sft, images), ("kto", kto, {**images, "beta": 100})),
        ("tpo", tpo, {**images, "beta": 100, "mismatched": others}),
    ]
    for name, module, settings in cases:
        values = {**settings, "output": tmp_path / name}
        made[name] = module.Trainer(module.Config.model_validate(values), policy=tiny_flow(family))
    for name, trainer in made.items():
        before, after = descent(trainer)
        assert after < before - 1e-4, (name, before, after)
