"""GRPO: ratios of 1 at the start of a round, equal roll-outs of equal seeds, resume, and bad rewards."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards import Reward
from t2ialign.methods.grpo import rollouts
from t2ialign.methods.grpo import trainer as grpo
from t2ialign.training import checkpoint
from t2ialign.training.log import METRICS, read_rows
from t2ialign.training.output import CHECKPOINTS
from tests.models.flows.tiny_flows import FLOWS, tiny_flow
from tests.training.brightness import Brightness
from tests.training.helpers import assert_same_checkpoint, moved, numbers

T = 4
PRESETS = ("ddpo", "flow-grpo", "fast", "nft", "awm")
RATIOS = {"ddpo": 1e-5, "flow-grpo": 1e-5, "fast": 1e-6, "awm": 1e-5}
"""A tenth of the clip range; `fast` to the last digits of fp32."""
Make = Callable[..., grpo.Config]


@pytest.fixture
def config(tmp_path: Path) -> Make:
    """Makes a small config: rounds of 2 groups of 4 images in 2 updates."""

    def make(preset: str, **changes: object) -> grpo.Config:
        values: dict[str, Any] = {
            **{"preset": preset, "prompts": "a red circle", "output": tmp_path / "run", "trackers": ()},
            **{"groups": 2, "group_size": 4, "updates": 2, "rollout_batch": 3, "num_inference_steps": T},
            **{"max_steps": 4, "batch_size": 2, "lora_rank": 2, "lr": 1e-3, "train_timesteps": 2},
            **{"window": 2 if preset == "fast" else 0, "guidance_scale": 2.0, "ema": 0.5, "spread": "group"},
        }
        return grpo.Config(**{**values, **changes})

    return make


def started(cfg: grpo.Config, policy: Any, reward: Any = None) -> grpo.Trainer:
    """A trainer with its first round sampled."""
    trainer = grpo.Trainer(cfg, policy=policy, reward=reward or Brightness())
    trainer._start()
    trainer.before_step()
    return trainer


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("preset", RATIOS)
def test_ratios_are_1_before_anything_moved(preset: str, rows: int, config: Make) -> None:
    """Of every update, at any shape of a micro-step, with the log-probabilities of the round's start."""
    trainer = started(config(preset, batch_size=rows if preset != "ddpo" else 1), tiny_flow("sd3"))
    known = trainer.losses.log_probs
    assert known is not None
    for micro in range(trainer.cfg.accumulate):
        batch = trainer.batch(1, micro)
        _, seen = trainer.losses(batch, first=False)
        assert seen["ratio_size"].max() <= RATIOS[preset]
        assert torch.isfinite(known[batch.places]).all() and known[batch.places].abs().min() > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_distances_are_0_at_the_start_and_then_not(preset: str, config: Make) -> None:
    space = (
        {"kl_space": "x", "kl_weight": 0.1} if preset in ("ddpo", "flow-grpo", "fast") else {"kl_weight": 0.1}
    )
    trainer = started(config(preset, batch_size=1, ema_kl_weight=0.1, **space), tiny_flow("sd3"))
    batch = trainer.batch(0, 0)
    _, seen = trainer.loss(batch)
    assert seen["kl"].abs().max() == 0 and seen["ema_kl"].abs().max() == 0
    _, seen = moved(trainer).loss(batch)
    assert seen["kl"].min() > 0 and seen["ema_kl"].min() > 0


@pytest.mark.rest
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("family", FLOWS)
def test_every_preset_trains_every_flow_family(preset: str, family: str, config: Make) -> None:
    cfg = config(preset, batch_size=1, max_steps=2)
    trainer = grpo.Trainer(cfg, policy=tiny_flow(family), reward=Brightness())
    before = {name: value.detach().clone() for name, value in trainer.state.trained.items()}
    trainer.fit()
    assert any(not torch.equal(value, trainer.state.trained[name]) for name, value in before.items())
    assert (cfg.output / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.rest
@pytest.mark.parametrize("preset", PRESETS)
def test_a_resumed_run_equals_the_uninterrupted_one(preset: str, config: Make, tiny_sd: Path) -> None:
    """Cut in the middle of the first round, and at its end; statistics and lagging weights included."""
    changes: dict[str, object] = {
        "model": str(tiny_sd),
        "batch_size": 1,
        "checkpoint_every": 1,
        "max_steps": 6,
    }
    if preset == "ddpo":
        changes["spread"] = "prompt"
    whole = config(preset, **changes, checkpoint_limit=0)
    grpo.Trainer(whole, reward=Brightness()).fit()
    for cut in (1, 2, 3):
        output = whole.output.with_name(f"cut-{cut}")
        part = whole.model_copy(update={"output": output, "max_steps": cut})
        grpo.Trainer(part, reward=Brightness()).fit()
        rest = whole.model_copy(update={"output": output, "resume": "latest"})
        grpo.Trainer(rest, reward=Brightness()).fit()
        ends = [checkpoint.path(folder / CHECKPOINTS, 6) for folder in (whole.output, output)]
        assert_same_checkpoint(*ends)
        assert numbers(whole.output)[-3:] == numbers(output)[-3:]


def test_an_older_checkpoint_samples_its_rounds_again(config: Make, tiny_sd: Path) -> None:
    cfg = config("nft", model=str(tiny_sd), checkpoint_every=1, checkpoint_limit=0, max_steps=6)
    grpo.Trainer(cfg, reward=Brightness()).fit()
    first = numbers(cfg.output)
    for step in (4, 5, 6):
        shutil.rmtree(checkpoint.path(cfg.output / CHECKPOINTS, step))
    grpo.Trainer(cfg.model_copy(update={"resume": "latest"}), reward=Brightness()).fit()
    assert numbers(cfg.output) == first


def test_images_do_not_depend_on_their_batch(config: Make, tmp_path: Path) -> None:
    """Equal seeds give equal roll-outs, however many are sampled at a time and in whatever round order."""
    policy = tiny_flow("sd3")
    one = started(config("fast", output=tmp_path / "one", rollout_batch=8), policy)
    other = started(config("fast", output=tmp_path / "other", rollout_batch=3), tiny_flow("sd3"))
    torch.testing.assert_close(one.data.states, other.data.states, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.data.advantages, other.data.advantages, atol=1e-3, rtol=1e-3)
    again = started(config("fast", output=tmp_path / "again", rollout_batch=3), tiny_flow("sd3"))
    assert torch.equal(again.data.states, other.data.states)


def test_shared_noise_is_a_groups(config: Make, tmp_path: Path) -> None:
    """The states before a window's first step: of one first noise they are alike within a group."""
    cfg = config("ddpo", batch_size=1, shared_noise=True)
    shared = started(cfg, tiny_flow("sd3")).data.states[:, 0].unflatten(0, (2, 4))
    assert torch.equal(shared[:, :1].expand_as(shared), shared)
    assert not torch.equal(shared[0, 0], shared[1, 0])
    apart = started(config("ddpo", batch_size=1, output=tmp_path / "apart"), tiny_flow("sd3")).data.states[
        :, 0
    ]
    assert len({tuple(row.flatten()[:3].tolist()) for row in apart}) == 8


def test_a_window_lies_in_the_first_half_and_has_noise(config: Make) -> None:
    """Outside of it the steps are the ODE's: the last state follows from the window's end without noise."""
    trainer = started(config("fast"), tiny_flow("sd3"))
    windows = [trainer.sampler.steps(number) for number in range(40)]
    assert {window.start for window in windows} == {0, 1} and {len(window) for window in windows} == {2}
    assert trainer.data.states.shape[1] == 3


def test_the_last_step_of_cps_is_never_trained(config: Make) -> None:
    trainer = started(config("fast", window=0, batch_size=1), tiny_flow("sd3"))
    assert trainer.levels == T - 1 and trainer.sampler.steps(0) == range(T - 1)


@pytest.mark.parametrize(
    "preset, fraction, levels",
    [("nft", 0.99, {0, 1, 2}), ("nft", 0.5, {0, 1}), ("awm", 0.9, {1, 2, 3}), ("awm", 0.5, {1, 2})],
)
def test_clean_images_are_noised_to_the_noisier_steps(
    preset: str, fraction: float, levels: set[int], config: Make
) -> None:
    """Never to the last step's start for nft, never to pure noise for awm."""
    cfg = config(preset, timestep_fraction=fraction, groups=8, updates=1)
    trainer = started(cfg, tiny_flow("sd3"))
    t = torch.cat([trainer.data.batch(0, range(first, first + 8)).t for first in range(0, 64, 8)])
    times = trainer.times.tolist()
    assert {times.index(time) for time in t.tolist()} == levels


class Flat(Brightness):
    """The first group's images score alike, and the others their brightness."""

    calls = 0

    @torch.no_grad()
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        scores = super().score(images, prompts)
        first = range(self.calls, self.calls + len(images))
        type(self).calls += len(images)
        return torch.where(torch.tensor([number % 8 < 4 for number in first]), 0.5, scores)


def test_flat_groups_are_counted_and_take_no_forward(config: Make) -> None:
    Flat.calls = 0
    trainer = started(config("fast", updates=1), tiny_flow("sd3"), Flat())
    assert trainer.figures["flat_groups"] == 0.5
    calls = []
    trainer.policy.adapted.register_forward_pre_hook(lambda *_: calls.append(1))
    lives = []
    for micro in range(trainer.cfg.accumulate):
        losses, _ = trainer.loss(batch := trainer.batch(0, micro))
        lives.append(batch.live)
        losses.mean().backward()
        assert batch.live or not losses.any()
    assert lives == [True] * 4 + [False] * 4 and len(calls) == 4


def test_several_rewards_are_logged_and_combined(config: Make) -> None:
    trainer = started(config("fast"), tiny_flow("sd3"), {"bright": Brightness(), "dark": Dark()})
    assert trainer.cfg.reward == "bright,dark"
    figures = trainer.figures
    assert figures["reward"] == pytest.approx(figures["reward/bright"] + figures["reward/dark"], abs=1e-6)
    assert figures["reward/dark"] == pytest.approx(-figures["reward/bright"], abs=1e-6)


class Dark(Brightness):
    @torch.no_grad()
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return -super().score(images, prompts)


FAILS = 6
"""The number of a call: three show where the reward starts, three score the first round."""


class Failing(Brightness):
    """Fails at the last of the three batches of the first round, once or for good."""

    def __init__(self, *, forever: bool, how: str = "raise") -> None:
        super().__init__()
        self.forever, self.how, self.calls, self.done = forever, how, 0, False

    @torch.no_grad()
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        assert isinstance(images, Tensor)
        self.calls += 1
        if self.calls == FAILS or (self.forever and self.calls > FAILS):
            if self.how == "raise":
                raise RuntimeError("no connection")
            if self.how == "hang":
                threading.Event().wait(60)
            return torch.full((len(images),), torch.nan)
        return super().score(images, prompts)


@pytest.mark.parametrize("how", ["raise", "nan"])
def test_a_reward_that_fails_once_is_asked_again(how: str, config: Make) -> None:
    reward = Failing(forever=False, how=how)
    trainer = started(config("fast"), tiny_flow("sd3"), reward)
    assert reward.calls == FAILS + 1 and torch.isfinite(trainer.data.advantages).all()


@pytest.mark.parametrize(
    "how, message, batch",
    [("raise", "no connection", 3), ("nan", "a score of nan", 2), ("hang", "within 1 seconds", 5)],
)
def test_one_that_fails_for_good_stops_the_run_and_loses_nothing(
    how: str, message: str, batch: int, config: Make, tiny_sd: Path
) -> None:
    cfg = config("fast", model=str(tiny_sd), reward_timeout=1.0, max_steps=2)
    with pytest.raises(ValueError, match=message) as error:
        grpo.Trainer(cfg, reward=Failing(forever=True, how=how)).fit()
    assert "\n" not in str(error.value)
    done = sorted(file.name for file in (cfg.output / "rounds" / ".round-000000").glob("images-*"))
    assert done == ["images-000000-000003.safetensors", "images-000003-000006.safetensors"]
    reward = Failing(forever=False, how="never")
    rest = cfg.model_copy(update={"resume": "latest", "rollout_batch": batch})
    grpo.Trainer(rest, reward=reward).fit()
    rows = read_rows(cfg.output / METRICS)
    assert rows[-1]["step"] == 2


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"group_size": 1}, "group_size=1"),
        ({"window": 3}, "window=3"),
        ({"updates": 3}, "updates=3"),
        ({"preset": "nft", "kl_space": "x"}, "kl_space=x"),
        ({"preset": "awm", "ema": 0.0}, "ema=0"),
        ({"reward_weights": (1.0, 2.0)}, "2 reward_weights for 1 rewards"),
        ({"preset": "nft", "train_timesteps": 4}, "train_timesteps=4"),
        ({"preset": "awm", "train_timesteps": 2, "timestep_fraction": 0.3}, "train_timesteps=2"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object], message: str, config: Make) -> None:
    with pytest.raises(ValueError) as error:
        config(**{"preset": "fast", **changes})
    assert "\n" not in str(error.value)
    assert message.split("=")[0] in str(error.value) and "expected" in str(error.value)


def test_a_kernel_that_the_family_does_not_have(config: Make, tiny_sd: Path) -> None:
    with pytest.raises(ValueError, match="kernel=flow_sde for a model that predicts eps"):
        grpo.Trainer(config("flow-grpo", kernel="flow_sde", model=str(tiny_sd)), reward=Brightness())


def test_a_damaged_round_is_refused(config: Make) -> None:
    trainer = started(config("fast"), tiny_flow("sd3"))
    folder = rollouts.folder_of(trainer.root, 0)
    file = next(folder.glob("images-*"))
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match="another content than was written"):
        rollouts.read(folder, 8)
    file.unlink()
    with pytest.raises(ValueError, match="images are missing"):
        rollouts.read(folder, 8)
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="nothing is left"):
        rollouts.read(folder, 8)


def test_models_that_predict_noise_keep_guidance_and_a_kernel_of_theirs(tmp_path: Path) -> None:
    cfg = grpo.Config(preset="flow-grpo", prompts="a", output=tmp_path)
    assert (cfg.guidance_scale, cfg.kernel) == (4.5, "flow_sde")
    sd = cfg.for_family("sd1")
    assert (sd.guidance_scale, sd.kernel, sd.eta) == (5.0, "ddim", 1.0)
    assert grpo.Config(preset="nft", prompts="a", guidance_scale=2).for_family("sdxl").guidance_scale == 2
    assert grpo.Config(preset="nft", prompts="a").for_family("sd3").guidance_scale == 1


def test_the_reward_class_may_be_any(config: Make) -> None:
    class Constant(Reward):
        differentiable, needs_text = False, False

        def score(self, images: Tensor, prompts: list[str]) -> Tensor:
            return torch.zeros(len(images))

    trainer = started(config("fast"), tiny_flow("sd3"), Constant())
    assert trainer.figures["flat_groups"] == 1
    trainer.fit()  # nothing to learn from: no step moves a weight of the LoRA's second factor
    assert all(not value.any() for name, value in trainer.state.trained.items() if "lora_B" in name)
