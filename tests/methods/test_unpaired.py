"""train sft and train kto: the released expressions, what they learn, and that a resumed run is the same."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from t2ialign.data.cache.build import build_cache
from t2ialign.data.cache.rated import RatedCache
from t2ialign.data.rated import read_rated
from t2ialign.methods.kto import trainer as kto
from t2ialign.methods.offline.draws import Batch
from t2ialign.methods.sft import trainer as sft
from t2ialign.models.load import load_policy
from t2ialign.training import checkpoint
from tests.training.helpers import assert_same_checkpoint, numbers


@pytest.fixture(scope="session")
def rated_cache(sharp_sd, pair_folder, tmp_path_factory) -> RatedCache:
    """Bright images, liked, and dark ones, not: those of `pair_folder`."""
    folder = tmp_path_factory.mktemp("rated") / "cache"
    return build_cache(
        RatedCache, folder, read_rated(str(pair_folder)), load_policy(str(sharp_sd)), resolution=32
    )


@pytest.fixture
def config(sharp_sd: Path, pair_folder: Path, tmp_path: Path) -> Callable[..., object]:
    def make(module, **changes):
        base = {
            "model": str(sharp_sd),
            "data": str(pair_folder),
            "output": tmp_path / "run",
            "max_steps": 4,
            "batch_size": 4,
            "accumulate": 1,
            "lora_rank": 4,
            "lr": 3e-3,
            "holdout": 0.3,
            "trackers": (),
        }
        return module.Config.model_validate({**base, **changes})

    return make


def moved(trainer, steps: int = 3):
    """The trainer, whose policy has left its reference."""
    for _ in range(steps):
        trainer.update({})
    return trainer


def errors(trainer, batch: Batch) -> torch.Tensor:
    """Mean squared errors (B,) written out with diffusers' parts."""
    scheduler = DDPMScheduler.from_pretrained(trainer.cfg.model, subfolder="scheduler")
    noisy = scheduler.add_noise(batch.data.x_0[:, 0], batch.eps, batch.t.long())
    out = trainer.policy.adapted(noisy, batch.t.long(), batch.data.cond["prompt_embeds"]).sample
    return (out - batch.eps).pow(2).mean(dim=[1, 2, 3])


def gains(trainer, batch: Batch) -> torch.Tensor:
    err = errors(trainer, batch)
    trainer.policy.adapted.disable_adapters()
    with torch.no_grad():
        reference = errors(trainer, batch)
    trainer.policy.adapted.enable_adapters()
    return reference - err


def test_sft_minimises_the_denoising_error(config, rated_cache):
    trainer = moved(sft.Trainer(config(sft, caption_dropout_rate=0), cache=rated_cache))
    batch = trainer.batch(3, 0)
    torch.testing.assert_close(trainer.loss(batch)[0], errors(trainer, batch))


def test_sft_reads_liked_images_alone(config, pair_folder):
    trainer = sft.Trainer(config(sft, limit=30))
    assert trainer.count == 30 and (trainer.train.column("liked") == 1).all()
    dark = trainer.train.batch([0], [(0,)]).x_0.mean()
    assert trainer.data_card() == f"30 liked images from {pair_folder}"
    assert dark.isfinite()


def test_sft_lowers_the_error_of_images_never_seen(config):
    cfg = config(sft, max_steps=60, batch_size=16, evaluate_every=60)
    sft.Trainer(cfg).fit()
    first, last = (numbers(cfg.output)[i] for i in (0, -1))
    assert first["heldout/below_reference"] == 0
    assert last["heldout/below_reference"] > 0 and last["heldout/loss"] < first["heldout/loss"]


@pytest.mark.parametrize("point", ["batch", "balanced", "mismatched"])
def test_kto_is_the_released_expression(config, rated_cache, point):
    trainer = moved(kto.Trainer(config(kto, reference_point=point, beta=50), cache=rated_cache))
    batch = trainer.batch(3, 0)
    g, liked = gains(trainer, batch), batch.data.liked
    if point == "batch":
        q = g.mean().clamp(min=0)
    elif point == "balanced":
        q = torch.stack([g[kind].mean() for kind in (liked == 1, liked == 0) if kind.any()]).mean()
    else:
        rolled = {name: value.roll(1, 0) for name, value in batch.data.cond.items()}
        data = type(batch.data)(**{**vars(batch.data), "cond": rolled})
        with torch.no_grad():
            q = gains(trainer, Batch(data, batch.t, batch.eps)).mean()
    expected = 1 - torch.sigmoid((2 * liked - 1) * 50 * (g - q.detach()))
    losses, metrics = trainer.loss(batch)
    torch.testing.assert_close(losses, expected)  # as many are liked as not: the weights are 1
    torch.testing.assert_close(metrics["reference_point"], q.detach())


def test_bco_has_a_shift_for_each_noise_level(config, rated_cache):
    trainer = kto.Trainer(config(kto, loss="bco", beta=50, shift_bins=2), cache=rated_cache)
    first = trainer.batch(0, 0)
    losses, _ = trainer.loss(first)
    torch.testing.assert_close(losses, torch.full((4,), math.log(2)))  # nothing has moved
    moved(trainer)
    batch, before = trainer.batch(3, 0), {n: t.clone() for n, t in trainer.means.tensors.items()}
    g = gains(trainer, batch)
    bins, mean, seen = (batch.t * 2 / 1000).long(), before["mean"].clone(), before["seen"]
    for k in range(2):
        some = 50 * g.detach()[bins == k]
        if len(some):
            share = max(len(some) / (float(seen[k]) + len(some)), 1 - 0.99 ** len(some))
            mean[k] += share * (some.mean() - mean[k])
    expected = -torch.nn.functional.logsigmoid((2 * batch.data.liked - 1) * (50 * g - mean[bins]))
    torch.testing.assert_close(trainer.loss(batch)[0], expected)


@pytest.mark.parametrize("loss", ["kto", "bco"])
def test_it_learns_which_images_are_liked(config, rated_cache, loss):
    cfg = config(kto, loss=loss, beta=80, max_steps=60, batch_size=16, evaluate_every=60)
    kto.Trainer(cfg, cache=rated_cache).fit()
    first, last = (numbers(cfg.output)[i] for i in (0, -1))
    assert first["heldout/implicit_acc"] == 0.5
    assert last["heldout/implicit_acc"] >= 0.7


def test_both_kinds_weigh_the_same_in_sum(config, pair_folder, tmp_path):
    liked = [record for record in read_rated(str(pair_folder)) if record.liked][:10]
    others = [record for record in read_rated(str(pair_folder)) if not record.liked]
    rows = [f"{r.prompt},{r.image},{r.liked}" for r in (*liked, *others)]
    table = tmp_path / "votes.csv"
    table.write_text("\n".join(["prompt,image,liked", *rows]))
    trainer = kto.Trainer(config(kto, data=str(table), holdout=0))
    first, second = trainer.weights
    assert first / second == pytest.approx(4) and 10 * first + 40 * second == pytest.approx(50)
    assert trainer.facts().more["likes"] == "10 liked (weight 2.5), 40 disliked (weight 0.625)"
    trainer = kto.Trainer(config(kto, data=str(table), holdout=0, liked_weight=1, cache=trainer.train.folder))
    assert trainer.weights == (1, 1)


def test_likes_all_alike_are_one_line(config, pair_folder, tmp_path):
    table = tmp_path / "votes.csv"
    for liked, kind in ((1, "liked"), (0, "disliked")):
        rows = [f"p{i},{pair_folder}/chosen/{i}.png,{liked}" for i in range(4)]
        table.write_text("\n".join(["prompt,image,liked", *rows]))
        with pytest.raises(ValueError, match=f"all of them {kind}; expected liked and disliked ones"):
            kto.Trainer(config(kto, data=str(table), output=tmp_path / kind))
    with pytest.raises(ValueError, match="got no liked image"):
        sft.Trainer(config(sft, data=str(table), output=tmp_path / "sft"))


@pytest.mark.rest
@pytest.mark.parametrize("loss", ["kto", "bco"])
def test_a_resumed_run_is_the_uninterrupted_one(config, rated_cache, tmp_path, loss):
    changes = {"loss": loss, "max_steps": 6, "checkpoint_every": 3, "reference_decay": 0.9}
    whole = config(kto, **changes, output=tmp_path / "whole")
    kto.Trainer(whole, cache=rated_cache).fit()
    cfg = config(kto, **{**changes, "max_steps": 3}, output=tmp_path / "parts")
    kto.Trainer(cfg, cache=rated_cache).fit()
    cfg = cfg.model_copy(update={"max_steps": 6, "resume": "latest"})
    kto.Trainer(cfg, cache=rated_cache).fit()
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 6) for c in (cfg, whole)))


def test_mismatched_prompts_need_two_images():
    with pytest.raises(ValueError, match="got batch_size=1 with reference_point=mismatched"):
        kto.Config(data="x", reference_point="mismatched", batch_size=1)
