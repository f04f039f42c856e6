"""Training a scorer: what is stored, what a step is, what is written, and that it learns."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import rewards
from rewards import Geometry, Prepared, Reward, trained
from t2ialign.cli.main import main
from t2ialign.data.cache.comparisons import Compared
from t2ialign.methods.reward.scorer import Squares
from t2ialign.methods.reward.trainer import Config, Trainer
from t2ialign.objectives.preference import bradley_terry
from t2ialign.training import checkpoint
from tests.training.helpers import assert_same_checkpoint, numbers
from tests.training.test_processes import launch

FAST = {
    "max_steps": 6,
    "batch_size": 8,
    "accumulate": 1,
    "lr": 1e-3,
    "lr_warmup": 0,
    "weight_decay": 0.0,
    "scale": 30.0,
    "holdout": 0.3,
    "evaluate_every": 3,
    "checkpoint_every": 3,
    "resolution": 32,
    "trackers": (),
}


class Plain(Reward):
    """Reads any size; knows one linear layer, and a weight that no score depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)
        self.idle = nn.Parameter(torch.zeros(2))

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return self.head(images.mean((2, 3))).squeeze(1)


class Strict(Plain):
    """Knows the prompts of its data, "image 0" to "image 19", and stops at any other."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        known = {f"image {i}" for i in range(20)}
        if unknown := set(prompts) - known:
            raise KeyError(f"no such prompt: {unknown}")
        return super().score(images, prompts)


def build() -> Plain:
    torch.manual_seed(0)
    return Plain()


@pytest.fixture(scope="session")
def dark_pairs(pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty prompts with two pairs each: dark images are preferred, against the tiny CLIP's taste."""
    file = tmp_path_factory.mktemp("dark") / "pairs.jsonl"
    dark, bright = (pair_folder / side for side in ("rejected", "chosen"))
    rows = [
        {
            "prompt": f"image {i // 2}",
            "chosen": str(dark / f"{i}.png"),
            "rejected": str(bright / f"{i}.png"),
        }
        for i in range(40)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture
def config(dark_pairs: Path, tmp_path: Path) -> Callable[..., Config]:
    """Makes a config of the tiny CLIP on those pairs."""

    def make(**changes: object) -> Config:
        values = {"reward": "toy-clip", "data": str(dark_pairs), "output": tmp_path / "run", **FAST}
        return Config.model_validate({**values, **changes})

    return make


def scores(reward: Reward) -> Tensor:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return reward(images, ["a red circle", "a blue square", "two green crosses", "a red circle"])


@pytest.mark.rest
@pytest.mark.parametrize("how", ["full", "lora", "head"])
def test_it_learns_and_what_is_written_scores_as_what_was_trained(config, how):
    cfg = config(train=how, max_steps=30, evaluate_every=10, lr=1e-2 if how == "head" else 3e-3)
    base = scores(rewards.load("toy-clip"))
    trainer = Trainer(cfg)
    trainer.fit()
    rows = [row for row in numbers(cfg.output) if "heldout/accuracy" in row]
    assert rows[-1]["heldout/accuracy"] >= max(0.9, rows[0]["heldout/accuracy"] + 0.2)
    assert (
        rows[-1]["heldout/accuracy_low"] <= rows[-1]["heldout/accuracy"] <= rows[-1]["heldout/accuracy_high"]
    )
    about = json.loads((cfg.output / "reward.json").read_text())
    assert about["reward"] == "toy-clip" and about["train"] == how and about["scale"] == 30
    best = max(rows, key=lambda row: (row["heldout/accuracy"], -row["heldout/loss"]))
    assert about["step"] == best["step"] and about["heldout"]["heldout/loss"] == best["heldout/loss"]
    loaded = rewards.load("trained", weights=str(cfg.output))
    assert not torch.allclose(scores(loaded), base, atol=1e-3)
    if best["step"] == cfg.max_steps:
        torch.testing.assert_close(scores(loaded), scores(trainer.reward), rtol=1e-4, atol=1e-5)
    card = (cfg.output / "README.md").read_text()
    assert "40 preference pairs" in card and f'weights="{cfg.output.name}"' in card


def test_the_best_weights_are_kept_not_the_last(config, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.7])
    trainer = Trainer(config(train="head"))
    monkeypatch.setattr(
        trainer, "measure", lambda part: {"heldout/accuracy": next(accuracies), "heldout/loss": 1.0}
    )
    trainer.fit()
    assert trained.read_about(trainer.cfg.output)["step"] == 3
    kept = trained.read_tensors(trainer.cfg.output)
    middle = checkpoint.load(checkpoint.path(trainer.cfg.output / "checkpoints", 3)).tensors["weights"]
    assert kept.keys() == middle.keys() and all(torch.equal(kept[name], middle[name]) for name in kept)


def test_without_held_out_pairs_the_last_weights_are_written(config):
    trainer = Trainer(config(holdout=0, train="head"))
    trainer.fit()
    last = checkpoint.load(checkpoint.path(trainer.cfg.output / "checkpoints", 6)).tensors["weights"]
    assert all(torch.equal(last[n], t) for n, t in trained.read_tensors(trainer.cfg.output).items())
    assert not any("heldout/loss" in row for row in numbers(trainer.cfg.output))


@pytest.mark.rest
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(config, tmp_path):
    whole, cut = config(train="lora", ema=0.5), config(train="lora", ema=0.5, output=tmp_path / "cut")
    Trainer(whole).fit()
    Trainer(cut.model_copy(update={"max_steps": 3})).fit()
    Trainer(cut.model_copy(update={"resume": "latest"})).fit()
    assert numbers(cut.output) == numbers(whole.output)
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 6) for c in (cut, whole)))
    assert_same_checkpoint(cut.output, whole.output)
    assert trained.read_about(cut.output) == trained.read_about(whole.output)


def test_a_killed_run_goes_on_and_remembers_its_best(config, tmp_path):
    whole, cut = config(train="head"), config(train="head", output=tmp_path / "cut")
    Trainer(whole).fit()
    trainer = Trainer(cut)
    batch = trainer.batch

    def die(step: int, micro: int) -> Compared:
        if step == 5:
            raise KeyboardInterrupt
        return batch(step, micro)

    trainer.batch = die
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    again = Trainer(cut.model_copy(update={"resume": "latest"}))
    assert again.state.step == 3 and again.best > (0, -math.inf)
    again.fit()
    assert numbers(cut.output) == numbers(whole.output)
    assert_same_checkpoint(cut.output, whole.output)


def test_a_second_training_goes_on_from_the_first_and_lies_over_the_same_base(config, tmp_path):
    first, second = config(train="lora"), config(train="head", output=tmp_path / "second")
    Trainer(first).fit()
    trainer = Trainer(second.model_copy(update={"weights": str(first.output), "max_steps": 1}))
    one, two = (scores(r) for r in (rewards.load("trained", weights=str(first.output)), trainer.reward))
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    trainer.fit()
    about = trained.read_about(second.output)
    assert about["reward"] == "toy-clip" and about["options"] == {}
    before, after = trained.read_tensors(first.output), trained.read_tensors(second.output)
    assert before.keys() < after.keys()
    assert torch.isfinite(scores(rewards.load("trained", weights=str(second.output)))).all()


def test_any_differentiable_reward_of_ones_own_is_trained_and_idle_weights_are_left(config):
    cfg = config(reward="tests.methods.test_reward", lr=0.05, max_steps=30, evaluate_every=30)
    trainer = Trainer(cfg)
    assert set(trainer.trained) == {"head.weight", "head.bias"}
    assert trainer.fit()["heldout/accuracy"] == 1  # brightness is linear
    assert set(trained.read_tensors(cfg.output)) == {"head.weight", "head.bias"}
    with pytest.raises(ValueError, match=r"got reward 'tests\.methods\.test_reward' in .*reward\.json"):
        rewards.load("trained", weights=str(cfg.output))
    assert rewards.load(cfg.reward, weights=str(cfg.output)).head.weight.sum() < 0
    card = (cfg.output / "README.md").read_text(encoding="utf-8")
    assert f'rewards.load("tests.methods.test_reward", weights="{cfg.output.name}")' in card
    again = config(reward=cfg.reward, lr=0.05, max_steps=31, evaluate_every=30, resume="latest")
    assert Trainer(again).state.step == 30, "its name comes from the settings of the resumed run"


@pytest.mark.parametrize("limit", [None, 1])
def test_a_scorer_is_asked_about_prompts_of_the_data_alone(config, limit):
    cfg = config(reward="tests.methods.test_reward:Strict", limit=limit, holdout=0 if limit else 0.3)
    trainer = Trainer(cfg)
    assert set(trainer.trained) == {"head.weight", "head.bias"}
    trainer.fit()
    assert set(trained.read_tensors(cfg.output)) == {"head.weight", "head.bias"}


def test_a_step_is_the_softmax_over_two_images(config):
    """PickScore's loss, written out: cross-entropy with (1, 0), the mean over pairs of equal weight."""
    trainer = Trainer(config(even_prompts=False))
    batch = trainer.batch(0, 0)
    losses, metrics = trainer.loss(batch)
    read = trainer.reward.score_prepared if isinstance(trainer.reward, Prepared) else trainer.reward
    win, lose = (read(trainer.squares.pixels(side), batch.prompts) for side in (batch.win, batch.lose))
    expected = nn.functional.cross_entropy(
        30 * torch.stack([win, lose], 1), torch.zeros(8, dtype=torch.long), reduction="none"
    )
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert metrics["accuracy"].tolist() == (win > lose).float().tolist()
    tie = replace(batch, preference=torch.full((8,), 0.5), lose=batch.win)
    assert trainer.loss(tie)[0].abs().max() < 1e-6 and trainer.loss(tie)[1]["accuracy"].eq(0.5).all()


def test_bradley_terry_by_hand():
    margin = torch.tensor([0.0, 0.0, 2.0, -2.0], requires_grad=True)
    preference = torch.tensor([1.0, 0.5, 0.7, 0.3])
    losses = bradley_terry(margin, preference)
    p = 1 / (1 + math.exp(-2))
    soft = 0.7 * math.log(0.7 / p) + 0.3 * math.log(0.3 / (1 - p))  # the divergence of label and prediction
    torch.testing.assert_close(losses, torch.tensor([math.log(2), 0.0, soft, soft]))
    losses.sum().backward()
    torch.testing.assert_close(margin.grad, margin.detach().sigmoid() - preference)


def test_every_prompt_has_one_voice_and_an_epoch_has_every_pair_once(config, tmp_path):
    rows = [("a", 4), ("b", 1), ("c", 2), ("d", 1)]
    images = [Image.new("RGB", (32, 32), (8 * i, 0, 0)) for i in range(17)]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    names = [prompt for prompt, count in rows for _ in range(count)]
    lines = [{"prompt": p, "chosen": f"{i}.png", "rejected": f"{i + 8}.png"} for i, p in enumerate(names)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    cfg = config(data=str(tmp_path / "pairs.jsonl"), holdout=0, batch_size=4)
    trainer = Trainer(cfg)
    seen: dict[str, list[float]] = {}
    for step in range(2):  # two batches of four are one epoch of eight
        batch = trainer.batch(step, 0)
        for prompt, weight in zip(batch.prompts, batch.weight.tolist(), strict=True):
            seen.setdefault(prompt, []).append(weight)
    assert {prompt: len(weights) for prompt, weights in seen.items()} == dict(rows)
    totals = {prompt: sum(weights) for prompt, weights in seen.items()}
    assert list(totals.values()) == pytest.approx([2.0] * 4)  # equal, and 1 a pair on average


def test_ties_are_half_preferences_or_dropped(config, tmp_path):
    for i in range(4):
        Image.new("RGB", (32, 32), (60 * i, 0, 0)).save(tmp_path / f"{i}.png")
    labels = [(1, 0), (0.5, 0.5), (0.2, 0.8)]
    lines = [
        {"caption": f"p{i}", "jpg_0": f"{i}.png", "jpg_1": f"{i + 1}.png", "label_0": a, "label_1": b}
        for i, (a, b) in enumerate(labels)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = {}
    for ties in ("soft", "drop"):
        cfg = config(data=str(tmp_path / "pairs.jsonl"), holdout=0, ties=ties, output=tmp_path / ties)
        cache = Trainer(cfg).train
        batch = cache.batch(range(len(cache)))
        found[ties] = dict(zip(batch.prompts, batch.preference.tolist(), strict=True))
    assert found["soft"] == pytest.approx({"p0": 1.0, "p1": 0.5, "p2": 0.8})
    assert found["drop"] == pytest.approx({"p0": 1.0, "p2": 0.8})


@pytest.mark.parametrize(
    "geometry",
    [Geometry(24), Geometry(24, "pad"), Geometry(24, "pad", source="float"), Geometry(24, "squash"), None],
    ids=["crop", "pad", "float", "squash", "any"],
)
def test_stored_images_are_what_the_reference_path_gives(geometry):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 52, 3), dtype=np.uint8))
    squares = Squares(geometry, 24)
    read = squares.pixels(squares.prepare(image)[None])[0]
    if geometry is None:
        assert read.shape == (3, 24, 24) and read.min() >= 0 and read.max() <= 1
        return
    exact = geometry.reference(image)
    if geometry.source == "uint8":
        torch.testing.assert_close(read, exact, rtol=0, atol=1e-6)
    else:
        assert 0 < (read - exact).abs().max() < 2e-3  # fp16


def test_images_are_prepared_once_and_a_cache_is_shared(config, tmp_path, monkeypatch):
    count = []
    plain = Squares.prepare
    monkeypatch.setattr(Squares, "prepare", lambda self, image: count.append(1) or plain(self, image))
    cfg = config(train="head", cache=tmp_path / "cache")
    Trainer(cfg)
    assert len(count) == 80 + 2  # and two of noise, which find the weights in use
    Trainer(config(train="full", cache=tmp_path / "cache", seed=3))
    assert len(count) == 80 + 4


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"reward": "toy-oracle"}, "no weight of ToyOracle"),
        ({"train": "head", "layers": ("nothing.*",)}, "layers nothing.*, which match no weight"),
        ({"train": "lora", "lora_targets": ("nothing",)}, "LoRA targets nothing; expected names of linear"),
        ({"reward": "tests.methods.test_reward", "train": "head", "layers": ("idle",)}, "on which no score"),
        ({"reward": "tests.methods.test_reward", "resolution": None}, "set resolution"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl, which does not exist"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(config, changes, words):
    with pytest.raises(ValueError, match=words):
        Trainer(config(**changes))


def test_the_command_line_and_its_help(config, capsys):
    cfg = config(max_steps=1, holdout=0)
    settings = ["resolution=32", "max_steps=1", "holdout=0", "trackers=[]", "train=head", "batch_size=4"]
    settings += [f"data={cfg.data}", f"output={cfg.output}", "reward=toy-clip", "accumulate=1"]
    assert main(["train", "reward", *settings]) == 0
    assert (cfg.output / "reward.safetensors").is_file()
    plan = capsys.readouterr().err
    assert "run plan: reward" in plan and "model        toy-clip (" in plan and "none held out" in plan
    assert main(["train", "reward", "--help"]) == 0
    text = capsys.readouterr().out
    assert "even_prompts" in text and "lora_rank" in text and "validation_prompts" not in text


@pytest.mark.rest
@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_run_of_one(config, tmp_path):
    cfg = config(train="lora", max_steps=3)
    Trainer(cfg).fit()
    settings = [f"{key}={value}" for key, value in FAST.items() if key not in ("trackers", "batch_size")]
    two = [*settings, "max_steps=3", "batch_size=4", "train=lora", "trackers=[]", "reward=toy-clip"]
    done = launch("tests.training.recorded", "reward", *two, f"data={cfg.data}", f"output={tmp_path}/two")
    assert done.returncode == 0, done.stderr
    for a, b in zip(numbers(cfg.output), numbers(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=2e-3, abs=2e-4)
    for name, tensor in trained.read_tensors(cfg.output).items():
        other = trained.read_tensors(tmp_path / "two")[name]
        torch.testing.assert_close(tensor, other, rtol=1e-2, atol=1e-3)


@pytest.mark.rest
@pytest.mark.parametrize("content", [b"", None])
def test_damaged_best_weights_are_never_taken_for_the_result(config, content, caplog):
    """None: one bit."""
    cfg = config(train="head", lr=1e-2, max_steps=3)
    Trainer(cfg).fit()
    file = cfg.output / "reward.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    for steps in (3, 6):  # nothing is left to train, and something is
        file.write_bytes(data if content is None else content)
        caplog.clear()
        Trainer(cfg.model_copy(update={"resume": "latest", "max_steps": steps})).fit()
        assert "reward.safetensors is damaged (" in caplog.text
        assert rewards.load("trained", weights=str(cfg.output)) is not None
        assert file.read_bytes() not in (bytes(data), b"")
    caplog.clear()
    Trainer(cfg.model_copy(update={"resume": "latest", "max_steps": 6})).fit()
    assert "damaged" not in caplog.text
