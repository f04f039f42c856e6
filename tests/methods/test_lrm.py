"""Training a latent reward: what a step sees, accuracy by timestep, what is kept, and that it learns."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode, Resize
from torchvision.transforms.functional import to_tensor

import rewards
from rewards.latent import saved
from t2ialign.cli.main import main
from t2ialign.methods.lrm.trainer import Config, Trainer
from t2ialign.training import checkpoint
from tests.methods.test_reward import dark_pairs  # noqa: F401, a fixture
from tests.training.helpers import assert_same_checkpoint, numbers
from tests.training.test_processes import launch

FAST = {
    "max_steps": 4,
    "batch_size": 8,
    "accumulate": 1,
    "lr": 1e-3,
    "lr_warmup": 0,
    "lr_schedule": "constant",
    "weight_decay": 0.0,
    "vfe": 1,
    "num_inference_steps": 4,
    "heldout_timesteps": (1, 751),
    "holdout": 0.3,
    "evaluate_every": 2,
    "checkpoint_every": 2,
    "trackers": (),
}


@pytest.fixture
def config(tiny_sd: Path, dark_pairs: Path, tmp_path: Path) -> Callable[..., Config]:  # noqa: F811
    """Makes a config of the tiny Stable Diffusion on dark images that are preferred to bright ones."""

    def make(**changes: object) -> Config:
        values = {"model": str(tiny_sd), "data": str(dark_pairs), "output": tmp_path / "run", **FAST}
        return Config.model_validate({**values, **changes})

    return make


@pytest.mark.rest
def test_it_learns_at_every_noise_and_is_loaded_by_name(config):
    cfg = config(model="toy", max_steps=40, evaluate_every=20, checkpoint_every=40)
    Trainer(cfg).fit()
    rows = [row for row in numbers(cfg.output) if "heldout/accuracy" in row]
    assert rows[-1]["heldout/accuracy"] == rows[-1]["heldout/accuracy_t1"] >= 0.9
    assert rows[-1]["heldout/accuracy_t751"] >= 0.5
    loaded = rewards.load("latent", path=cfg.output)
    about = saved.read_about(cfg.output)["about"]
    assert about["heldout"]["heldout/accuracy"] == max(row["heldout/accuracy"] for row in rows)
    assert "40 preference pairs" in (cfg.output / "README.md").read_text()
    assert loaded.backbone.unet.up_blocks == nn.ModuleList() or not len(loaded.backbone.unet.up_blocks)


def test_both_sides_have_one_timestep_of_the_grid_and_noise_of_their_own(config):
    trainer = Trainer(config(holdout=0))
    batches = [trainer.batch(step, 0) for step in range(8)]
    seen = torch.cat([batch.t for batch in batches])
    assert set(seen.tolist()) == set(trainer.times.tolist()) == {1, 251, 501, 751}
    batch = batches[0]
    alpha, sigma = (v.view(-1, 1, 1, 1) for v in trainer.latents.path(batch.t))
    noises = []
    for x, stored in ((batch.win, batch.compared.win), (batch.lose, batch.compared.lose)):
        mean, std = stored.float().unbind(1)
        noises.append((x - alpha * mean) / (sigma.square() + (alpha * std).square()).sqrt())
    assert all(noise.std() == pytest.approx(1, abs=0.15) for noise in noises)
    assert float((noises[0] * noises[1]).mean().abs()) < 0.1
    again = trainer.batch(0, 0)
    assert torch.equal(again.win, batch.win) and torch.equal(again.t, batch.t)


def test_a_step_is_the_softmax_over_two_scores_and_a_tie_is_worth_nothing(config):
    trainer = Trainer(config(even_prompts=False, holdout=0))
    batch = trainer.batch(0, 0)
    losses, metrics = trainer.loss(batch)
    prompts = batch.compared.prompts
    win, lose = (trainer.reward(side, batch.t.long(), prompts) for side in (batch.win, batch.lose))
    expected = nn.functional.cross_entropy(
        torch.stack([win, lose], 1), torch.zeros(8, dtype=torch.long), reduction="none"
    )
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert metrics["accuracy"].tolist() == (win > lose).float().tolist()


def test_a_step_encodes_each_prompt_once_for_both_sides(config):
    trainer = Trainer(config(holdout=0, vfe=7.5))
    batch, rows = trainer.batch(0, 0), list[int]()
    trainer.reward.backbone.text_encoder.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    trainer.loss(batch)
    assert rows == [8, 1]  # the prompts, and the empty one


def test_the_best_weights_at_the_first_timestep_are_kept(config, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.7])
    trainer = Trainer(config())
    monkeypatch.setattr(
        trainer, "measure", lambda part: {"heldout/accuracy": next(accuracies), "heldout/loss": 1.0}
    )
    trainer.fit()
    kept = saved.build(trainer.cfg.output).state_dict()
    middle = checkpoint.load(checkpoint.path(trainer.cfg.output / "checkpoints", 2)).tensors["weights"]
    assert saved.read_about(trainer.cfg.output)["about"]["step"] == 2
    assert all(torch.equal(kept[name], tensor) for name, tensor in middle.items())


@pytest.mark.rest
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(config, tmp_path):
    whole, cut = config(), config(output=tmp_path / "cut")
    Trainer(whole).fit()
    Trainer(cut.model_copy(update={"max_steps": 2})).fit()
    Trainer(cut.model_copy(update={"resume": "latest"})).fit()
    assert numbers(cut.output) == numbers(whole.output)
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 4) for c in (cut, whole)))


def test_weights_that_no_score_depends_on_are_left_alone(config, tiny_sdxl):
    """SDXL reads its first encoder's last hidden state but one: what follows that has no gradient."""
    trainer = Trainer(config(model=str(tiny_sdxl), holdout=0))
    losses, _ = trainer.loss(trainer.batch(0, 0))
    losses.mean().backward()
    trained = trainer.state.trained
    assert all(parameter.grad is not None for parameter in trained.values())
    assert not any("text_encoder.text_model.final_layer_norm" in name for name in trained)
    assert any("text_encoder_2" in name for name in trained) and any("mid_block" in name for name in trained)


@pytest.mark.rest
@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_run_of_one(config, tmp_path):
    cfg = config(max_steps=2)
    Trainer(cfg).fit()
    settings = {**FAST, "model": cfg.model, "data": cfg.data, "output": tmp_path / "two"}
    settings |= {"batch_size": 4, "max_steps": 2, "trackers": "[]", "heldout_timesteps": "[1, 751]"}
    done = launch("tests.training.recorded", "lrm", *(f"{key}={value}" for key, value in settings.items()))
    assert done.returncode == 0, done.stderr
    for a, b in zip(numbers(cfg.output), numbers(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=5e-3, abs=1e-3)


def test_images_become_latents_once(config, tmp_path, monkeypatch):
    trainer = Trainer(config(cache=tmp_path / "cache"))
    mean, std = trainer.latents.encode(torch.zeros(1, 3, *trainer.size))
    stored = trainer.train.batch([0]).win
    assert stored.shape == (1, 2, *trainer.shape) and mean.shape[1:] == std.shape[1:] == trainer.shape
    monkeypatch.setattr(Trainer, "prepare", lambda *_: pytest.fail("encoded again"))
    Trainer(config(cache=tmp_path / "cache", seed=3))


def test_an_image_of_any_shape_becomes_the_latent_of_its_square(config, tmp_path):
    """Those of the released code's square resize, unmirrored, of a 40 x 90 and of a 64 x 30 image."""
    draw = np.random.default_rng(0)
    for name, (height, width) in {"a": (40, 90), "b": (64, 30)}.items():
        Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{name}.png")
    row = {"prompt": "noise", "chosen": str(tmp_path / "a.png"), "rejected": str(tmp_path / "b.png")}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row), encoding="utf-8")
    trainer = Trainer(config(data=str(tmp_path / "pairs.jsonl"), holdout=0, batch_size=1))
    resize = Resize(trainer.size, interpolation=InterpolationMode.BILINEAR)
    stored = trainer.train.batch([0])
    for name, side in (("a", stored.win), ("b", stored.lose)):
        with Image.open(tmp_path / f"{name}.png") as image:
            pixels = to_tensor(resize(image))[None]
        mean, std = trainer.latents.encode(pixels)
        torch.testing.assert_close(side[0].float(), torch.cat([mean, std]), rtol=2e-3, atol=2e-3)


def test_the_command_line(config, tiny_sd, capsys):
    cfg = config()
    settings = [f"{key}={json.dumps(value)}" for key, value in FAST.items()]
    settings += [f"model={tiny_sd}", f"data={cfg.data}", f"output={cfg.output}", "max_steps=1"]
    assert main(["train", "lrm", *settings]) == 0
    assert (cfg.output / saved.WEIGHTS).is_file()
    plan = capsys.readouterr().err
    assert f"latent reward of {tiny_sd} (StableDiffusionPipeline), latent 4x8x8" in plan
    assert " pairs, " in plan and "their accuracy" in plan
    assert main(["train", "lrm", "--help"]) == 0
    assert "heldout_timesteps" in capsys.readouterr().out
