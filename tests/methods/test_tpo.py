"""train tpo: the expressions written out, the safeguards, what it learns, and a resumed run."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn.functional import logsigmoid

from t2ialign.methods.tpo import trainer as tpo
from t2ialign.methods.tpo.config import Config
from t2ialign.training import checkpoint
from tests.training.helpers import assert_same_checkpoint, numbers


@pytest.fixture(scope="session")
def captioned(pair_folder, tmp_path_factory) -> Path:
    """Images with captions that the rules can change: bright ones are white, dark ones black."""
    table = tmp_path_factory.mktemp("captioned") / "images.csv"
    rows = [
        f"a {colour} square,{image}"
        for colour, side in (("white", "chosen"), ("black", "rejected"))
        for image in sorted((pair_folder / side).glob("*.png"))
    ]
    table.write_text("\n".join(["prompt,image", *rows]))
    return table


@pytest.fixture
def config(sharp_sd: Path, captioned: Path, tmp_path: Path) -> Callable[..., Config]:
    def make(**changes):
        base = {
            "model": str(sharp_sd),
            "data": str(captioned),
            "output": tmp_path / "run",
            "max_steps": 4,
            "batch_size": 4,
            "accumulate": 1,
            "lora_rank": 4,
            "lr": 3e-3,
            "holdout": 0,
            "caption_dropout_rate": 0,
            "resolution": 32,
            "trackers": (),
        }
        return Config.model_validate({**base, **changes})

    return make


@pytest.fixture(scope="session")
def cache(sharp_sd, captioned, tmp_path_factory):
    output = tmp_path_factory.mktemp("tpo")
    cfg = Config(
        model=str(sharp_sd), data=str(captioned), output=output, holdout=0, resolution=32, trackers=()
    )
    return tpo.Trainer(cfg).train


def moved(trainer, steps: int = 3):
    for _ in range(steps):
        trainer.update({})
    return trainer


def errors(trainer, batch, cond) -> torch.Tensor:
    """Mean squared errors (B,) written out with diffusers' parts."""
    scheduler = DDPMScheduler.from_pretrained(trainer.cfg.model, subfolder="scheduler")
    noisy = scheduler.add_noise(batch.data.x_0[:, 0], batch.eps, batch.t.long())
    out = trainer.policy.adapted(noisy, batch.t.long(), cond["prompt_embeds"]).sample
    return (out - batch.eps).pow(2).mean(dim=[1, 2, 3])


def rises(trainer, batch):
    """How far the errors with both prompts are above the reference's."""
    conds = batch.data.cond, batch.data.other
    err = [errors(trainer, batch, cond) for cond in conds]
    trainer.policy.adapted.disable_adapters()
    with torch.no_grad():
        reference = [errors(trainer, batch, cond) for cond in conds]
    trainer.policy.adapted.enable_adapters()
    return err[0] - reference[0], err[1] - reference[1]


def test_the_cache_has_mismatched_prompts_of_which_one_is_drawn(cache):
    drawn = {cache.prompts[cache.column("others")[0][k]] for k in range(cache.column("others").shape[1])}
    assert cache.column("others").shape[1] == 4 and len(drawn) == 4
    assert cache.prompt(0) == "a white square" and "a white square" not in drawn
    some = [cache.batch([0], [(step,)]).other["prompt_embeds"] for step in range(30)]
    assert len({tuple(one.flatten().tolist()) for one in some}) == 4
    again = cache.batch([0], [(3,)])
    assert torch.equal(again.other["prompt_embeds"], some[3])


def test_both_prompts_see_one_noised_image(config, cache):
    trainer, seen = tpo.Trainer(config(), cache=cache), []
    trainer.policy.adapted.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[0], args[1])), with_kwargs=True
    )
    trainer.loss(trainer.batch(0, 0))
    assert len(seen) == 2  # one forward of the policy, one of the reference
    for x, t in seen:
        assert torch.equal(x[:4], x[4:]) and torch.equal(t[:4], t[4:])


@pytest.mark.parametrize("loss", ["tdpo", "tkto"])
def test_it_is_the_expression(config, cache, loss):
    trainer = moved(tpo.Trainer(config(loss=loss, beta=50, denoising=0.3, guard="none"), cache=cache))
    batch = trainer.batch(3, 0)
    rise, other = rises(trainer, batch)
    if loss == "tdpo":
        expected = -logsigmoid(-25 * (rise - other))
    else:
        point = (-torch.cat([rise, other])).detach().mean().clamp(min=0)
        expected = 2 - torch.sigmoid(50 * (-rise - point)) - torch.sigmoid(-50 * (-other - point))
    losses, metrics = trainer.loss(batch)
    torch.testing.assert_close(losses, expected + 0.3 * 50 / 4 * rise, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics["margin"], 25 * (other - rise), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss, start", [("tdpo", math.log(2)), ("tkto", 1.0)])
def test_a_run_starts_where_nothing_has_moved(config, cache, loss, start):
    trainer = tpo.Trainer(config(loss=loss), cache=cache)
    losses, metrics = trainer.loss(trainer.batch(0, 0))
    torch.testing.assert_close(losses, torch.full((4,), start))
    assert metrics["implicit_acc"].tolist() == [0.5] * 4


def gradient(trainer, batch) -> torch.Tensor:
    trainer.policy.adapted.zero_grad()
    trainer.loss(batch)[0].sum().backward()
    grads = [p.grad.flatten() for p in trainer.policy.adapted.parameters() if p.grad is not None]
    return torch.cat(grads).clone()


def test_the_guards_limit_the_gradient_of_the_mismatched_prompt_alone(config, cache):
    def of(**changes):
        trainer = tpo.Trainer(config(denoising=0, beta=50, **changes), cache=cache)
        return trainer, trainer.batch(3, 0)

    free = gradient(*of(guard="none"))
    torch.testing.assert_close(gradient(*of(guard="clip", clip=1e9)), free)
    trainer, batch = of(guard="clip", clip=1e-9)
    moved(trainer)
    _, other = rises(trainer, batch)
    assert (other > 1e-9).any()
    scale = trainer.loss(batch)[1]["loser_scale"]
    assert torch.equal(scale, (other < 1e-9).float())
    trainer, batch = of(guard="sdpo", mu=1.0)
    scale = trainer.loss(batch)[1]["loser_scale"]
    assert (scale == 0).all()  # both residuals agree, and all of the caption's descent stays


def test_dropped_captions_leave_both_prompts_empty(config, cache):
    trainer = tpo.Trainer(config(caption_dropout_rate=0.999), cache=cache)
    batch = trainer.batch(0, 0)
    empty = trainer.policy.null_cond(batch.data.cond)["prompt_embeds"]
    assert torch.equal(batch.data.cond["prompt_embeds"], empty)
    assert torch.equal(batch.data.other["prompt_embeds"], empty)


@pytest.mark.parametrize("loss", ["tdpo", "tkto"])
def test_it_learns_to_tell_the_prompts_apart(config, cache, loss):
    cfg = config(loss=loss, beta=500, guard="none", denoising=0, max_steps=60, batch_size=16)
    trainer = tpo.Trainer(cfg, cache=cache)
    batch = trainer.batch(1000, 0)
    trainer.fit()
    with torch.no_grad():
        rise, other = rises(trainer, batch)
    ahead = other - rise
    assert ahead.mean() > 2 * ahead.std() / len(ahead) ** 0.5


@pytest.mark.rest
def test_a_resumed_run_is_the_uninterrupted_one(config, cache, tmp_path):
    changes = {"max_steps": 6, "checkpoint_every": 3, "guard": "clip"}
    whole = config(**changes, output=tmp_path / "whole")
    tpo.Trainer(whole, cache=cache).fit()
    cfg = config(**{**changes, "max_steps": 3}, output=tmp_path / "parts")
    tpo.Trainer(cfg, cache=cache).fit()
    cfg = cfg.model_copy(update={"max_steps": 6, "resume": "latest"})
    tpo.Trainer(cfg, cache=cache).fit()
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 6) for c in (cfg, whole)))


def test_held_out_images_and_a_scorer_that_checks(config, tmp_path, captioned):
    others = {"a white square": ["a black square"], "a black square": ["a white square", "a grey square"]}
    (tmp_path / "others.json").write_text(json.dumps(others))
    cfg = config(
        mismatched=tmp_path / "others.json",
        check="tests.training.brightness",
        max_steps=1,
        holdout=0.5,
        evaluate_every=1,
    )
    with pytest.raises(ValueError, match="got no mismatched prompt for any of"):
        tpo.Trainer(cfg)  # brightness is the same whatever the prompt: nothing is false by it
    cfg = config(mismatched=tmp_path / "others.json", max_steps=1, holdout=0.5, evaluate_every=1)
    tpo.Trainer(cfg).fit()
    first = numbers(cfg.output)[0]
    assert first["heldout/implicit_acc"] == 0.5 and first["heldout/err_minus_ref"] == 0
    assert (cfg.output / "prompts" / "mismatched.jsonl").is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"llm_url": "http://localhost:1"}, "without llm"),
        ({"principles": ()}, "got no principles"),
    ],
)
def test_settings_that_do_not_go_together(changes, words):
    with pytest.raises(ValueError, match=words):
        Config(data="x", **changes)


def test_a_language_model_writes_what_the_file_lacks(config, tmp_path, monkeypatch):
    (tmp_path / "others.json").write_text(json.dumps({"a white square": ["a black square"]}))
    trainer = tpo.Trainer.__new__(tpo.Trainer)
    trainer.cfg = config(mismatched=tmp_path / "others.json", llm="model")
    monkeypatch.setattr(tpo.Trainer, "_by_model", lambda self, llm: lambda prompt: [f"no {prompt} by {llm}"])
    source = trainer._source()
    assert source("a white square") == ["a black square"]
    assert source("a black square") == ["no a black square by model"]
