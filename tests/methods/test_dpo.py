"""Diffusion-DPO: the released expression, what a step costs, and that it learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDPMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor
from torch.nn.functional import logsigmoid

from t2ialign.cli.main import main
from t2ialign.data.cache.build import build_cache
from t2ialign.data.cache.stored import PairCache
from t2ialign.data.pairs import PairRecord, read_pairs
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.methods.offline.draws import Batch
from t2ialign.models.load import load_policy
from t2ialign.objectives.preference import wins
from t2ialign.objectives.safeguard import loser_scale
from t2ialign.training import checkpoint
from tests.training.helpers import assert_same_checkpoint, numbers


def trained(cfg: dpo.Config, pair_cache, steps: int = 3) -> dpo.Trainer:
    """A trainer whose policy has left its reference."""
    trainer = dpo.Trainer(cfg, cache=pair_cache)
    for _ in range(steps):
        trainer.update({})
    return trainer


def released(trainer: dpo.Trainer, batch: Batch, beta: float) -> Tensor:
    """The released Diffusion-DPO loss per pair, written out with diffusers' parts. Wallace et al. 2024."""
    scheduler = DDPMScheduler.from_pretrained(trainer.cfg.model, subfolder="scheduler")
    unet, pairs = trainer.policy.adapted, batch.data
    latents = torch.cat([pairs.win, pairs.lose])
    noise, timesteps = batch.eps.repeat(2, 1, 1, 1), batch.t.repeat(2).long()
    text = pairs.cond["prompt_embeds"].repeat(2, 1, 1)

    def errors() -> tuple[Tensor, Tensor]:
        noisy = scheduler.add_noise(latents, noise, timesteps)
        prediction = unet(noisy, timesteps, text).sample
        return (prediction - noise).pow(2).mean(dim=[1, 2, 3]).chunk(2)

    model_win, model_lose = errors()
    unet.disable_adapters()
    with torch.no_grad():
        ref_win, ref_lose = errors()
    unet.enable_adapters()
    inside = -0.5 * beta * ((model_win - model_lose) - (ref_win - ref_lose))
    return -logsigmoid(inside)


def test_a_step_is_the_released_expression_with_the_safeguard_off(dpo_config, pair_cache):
    trainer = trained(dpo_config(safeguard=0), pair_cache)
    batch = trainer.batch(3, 0)
    losses, metrics = trainer.loss(batch)
    expected = released(trainer, batch, beta=5000.0)
    assert (expected - math.log(2)).abs().min() > 0.01  # away from the trivial point
    torch.testing.assert_close(losses, expected, rtol=2e-3, atol=1e-4)  # beta magnifies fp32 rounding by 5000
    assert metrics["implicit_acc"].mean().item() == (expected < math.log(2)).float().mean().item()
    ours = torch.autograd.grad(losses.mean(), trainer.state.parameters)
    theirs = torch.autograd.grad(expected.mean(), trainer.state.parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3 * float(b.abs().max()))


def test_gamma_1_is_plain_diffusion_dpo_with_either_estimator(dpo_config, pair_cache, tmp_path):
    rows = []
    for discount in ("sample", "weight"):
        cfg = dpo_config(gamma=1.0, discount=discount, output=tmp_path / discount)
        dpo.Trainer(cfg, cache=pair_cache).fit()
        rows.append(numbers(cfg.output))
    assert rows[0] == rows[1]  # to the last bit


def test_the_two_estimators_discount_what_they_say(dpo_config, pair_cache):
    """By weight: t as without a discount, gamma^k inside the sigmoid. By draw: noisier t, no weight."""
    plain = trained(dpo_config(safeguard=0), pair_cache)
    batch, gamma, T = plain.batch(5, 0), 0.9, 50
    reference = plain.loss(batch)[1]["margin"]
    plain.cfg = dpo_config(gamma=gamma, discount="weight", safeguard=0)
    again = plain.batch(5, 0)
    assert torch.equal(again.t, batch.t)
    k = (999 - batch.t) * T // 1000
    levels = gamma ** torch.div((999 - torch.arange(1000)) * T, 1000, rounding_mode="floor").double()
    weight = (gamma ** k.double() / levels.mean()).float()
    torch.testing.assert_close(plain.loss(again)[0], -logsigmoid(weight * reference), rtol=1e-4, atol=1e-5)
    plain.cfg = dpo_config(gamma=gamma, discount="sample", safeguard=0)
    drawn = torch.cat([plain.batch(step, 0).t for step in range(100)])
    mean = float((levels * torch.arange(1000)).sum() / levels.sum())
    assert drawn.double().mean().item() == pytest.approx(
        mean, abs=25
    )  # about 815, against 499.5 undiscounted


def test_dropped_captions_are_the_empty_prompt_at_the_rate_and_nothing_else_changes(dpo_config, pair_cache):
    trainer = dpo.Trainer(dpo_config(), cache=pair_cache)
    plain = trainer.batch(0, 0)
    trainer.cfg = dpo_config(caption_dropout_rate=0.3)
    share = []
    for step in range(100):
        batch = trainer.batch(step, 0)
        (text,) = batch.data.cond.values()
        (empty,) = trainer.policy.null_cond(batch.data.cond).values()
        share += (text == empty).flatten(1).all(1).tolist()
    assert sum(share) / len(share) == pytest.approx(0.3, abs=4 * (0.21 / 400) ** 0.5)
    batch = trainer.batch(0, 0)
    for name in ("win", "lose"):
        assert torch.equal(getattr(batch.data, name), getattr(plain.data, name))
    assert torch.equal(batch.t, plain.t) and torch.equal(batch.eps, plain.eps)
    (text,), (before,) = batch.data.cond.values(), plain.data.cond.values()
    assert all(torch.equal(text[i], before[i]) or share[i] for i in range(4))


def test_before_training_every_loss_has_its_known_value(dpo_config, pair_cache):
    expected = {"dpo": math.log(2), "hinge": 1.0, "ipo": (1 / (2 * 5000)) ** 2}
    trainer = dpo.Trainer(dpo_config(), cache=pair_cache)
    batch = trainer.batch(0, 0)
    for loss, value in expected.items():
        trainer.cfg = dpo_config(loss=loss)
        losses, metrics = trainer.loss(batch)
        torch.testing.assert_close(losses, torch.full((4,), value))
        assert metrics["implicit_acc"].tolist() == [0.5] * 4 and metrics["margin"].tolist() == [0.0] * 4


def test_the_safeguard_changes_gradients_not_values_one_lambda_a_pair(dpo_config, pair_cache):
    trainer = trained(dpo_config(), pair_cache)
    batch = trainer.batch(3, 0)
    losses, metrics = trainer.loss(batch)
    win, lose = batch.residuals(trainer.policy)
    torch.testing.assert_close(metrics["loser_scale"], loser_scale(win, lose, mu=0.9))
    assert len(set(metrics["loser_scale"].tolist())) == 4 and metrics["loser_scale"].max() < 1
    guarded = torch.autograd.grad(losses.mean(), trainer.state.parameters)
    trainer.cfg = dpo_config(safeguard=None)
    open_losses, _ = trainer.loss(batch)
    assert torch.equal(losses, open_losses)
    free = torch.autograd.grad(open_losses.mean(), trainer.state.parameters)
    assert any((a - b).abs().max() > 1e-3 * b.abs().max() for a, b in zip(guarded, free, strict=True))


def test_mapo_asks_no_reference(dpo_config, pair_cache, monkeypatch):
    trainer = trained(dpo_config(loss="mapo", safeguard=0), pair_cache)
    batch = trainer.batch(3, 0)
    win, lose = (r.square().flatten(1).mean(1) for r in batch.residuals(trainer.policy))
    monkeypatch.setattr(trainer.policy, "reference", None)
    losses, metrics = trainer.loss(batch)
    s_win, s_lose = (0.5 * e / (torch.exp(0.5 * e) - 1) for e in (win, lose))
    torch.testing.assert_close(losses, win - 0.1 * logsigmoid(1000 * (s_win - s_lose)), rtol=1e-3, atol=1e-3)
    assert torch.equal(metrics["implicit_acc"], (win < lose).float())


def test_pair_weights_scale_the_loss(dpo_config, pair_cache):
    trainer = trained(dpo_config(), pair_cache)
    batch = trainer.batch(3, 0)
    half = replace(batch, data=replace(batch.data, weight=torch.tensor([1.0, 0.5, 0.5, 1.0])))
    torch.testing.assert_close(trainer.loss(half)[0], trainer.loss(batch)[0] * half.data.weight)


class Calls:
    """Counts forwards of a module, and the rows each had."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.rows: list[int] = []
        module.register_forward_hook(lambda m, args, out: self.rows.append(len(args[0])))


def test_a_step_is_one_policy_and_one_reference_forward_and_no_encoder_forward(dpo_config):
    """From the first step on, and so in every epoch: everything was encoded by the constructor."""
    policy = load_policy(dpo_config().model)
    vae, text = Calls(policy.vae.encoder), Calls(policy.pipe.text_encoder)
    trainer = dpo.Trainer(
        dpo_config(max_steps=16), policy=policy
    )  # 16 steps of 4 are more than two epochs of 28
    assert sum(vae.rows) == 80 and sum(text.rows) == 20  # 40 pairs, 20 distinct prompts
    unet, vae.rows, text.rows = Calls(policy.adapted), [], []
    for _ in range(16):
        trainer.update({})
    assert unet.rows == [8, 8] * 16  # both images of 4 pairs at once, under policy and reference
    assert vae.rows == [] and text.rows == []


def test_an_epoch_draws_every_pair_once_with_fresh_noise_in_the_next(dpo_config, pair_cache):
    trainer = dpo.Trainer(dpo_config(batch_size=2, accumulate=2), cache=pair_cache)
    epochs = [
        torch.cat(
            [trainer.batch(7 * epoch + step, micro).data.win for step in range(7) for micro in range(2)]
        )
        for epoch in range(2)
    ]
    gaps = torch.cdist(
        *(latents.flatten(1) for latents in epochs), compute_mode="donot_use_mm_for_euclid_dist"
    )
    partner = gaps.argmin(1)
    assert sorted(partner.tolist()) == list(range(28)) != partner.tolist()  # all of them, in another order
    nearest = gaps.min(1).values
    # The same images, drawn again from the encoder's narrow posterior: near, never equal, no other so near.
    assert nearest.min() > 0 and nearest.max() < 0.1 < gaps.topk(2, largest=False).values[:, 1].min()


def test_held_out_prompts_are_never_trained_on(dpo_config, pair_cache):
    trainer = dpo.Trainer(dpo_config(), cache=pair_cache)
    train = {trainer.train.prompt(i) for i in range(len(trainer.train))}
    held = {trainer.heldout.cache.prompt(i) for chunk in trainer.heldout.chunks for i in chunk}
    assert len(train) == 14 and len(held) == 6 and not train & held
    assert sum(map(len, trainer.heldout.chunks)) == 12


def test_held_out_accuracy_rises_from_one_half_on_images_never_seen(dpo_config, pair_cache):
    cfg = dpo_config(max_steps=60, batch_size=16, safeguard=0, evaluate_every=60)
    dpo.Trainer(cfg, cache=pair_cache).fit()
    first, last = (numbers(cfg.output)[i] for i in (0, -1))
    assert first["heldout/implicit_acc"] == 0.5
    assert first["heldout/loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert last["heldout/implicit_acc"] >= 0.8


def test_held_out_measures_are_fixed_whatever_was_drawn_in_between(dpo_config, pair_cache):
    trainer = trained(dpo_config(), pair_cache)
    first = trainer.evaluate()
    trainer.batch(11, 0)
    assert trainer.evaluate() == first and first["heldout/loss"] != pytest.approx(math.log(2), abs=1e-3)


def test_a_tie_counts_half():
    assert wins(torch.tensor([2.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.rest
def test_a_crash_in_the_second_epoch_resumes_bit_for_bit(dpo_config, pair_cache, tmp_path, monkeypatch):
    whole = dpo_config(max_steps=10, checkpoint_every=4, accumulate=2, ema=0.9)
    dpo.Trainer(whole, cache=pair_cache).fit()
    cfg = dpo_config(max_steps=10, checkpoint_every=4, accumulate=2, ema=0.9, output=tmp_path / "broken")
    trainer, batch = dpo.Trainer(cfg, cache=pair_cache), dpo.Trainer.batch

    def crash(self: dpo.Trainer, step: int, micro: int) -> Batch:
        if (step, micro) == (6, 1):
            raise RuntimeError("power cut")
        return batch(self, step, micro)

    monkeypatch.setattr(dpo.Trainer, "batch", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.fit()
    monkeypatch.setattr(dpo.Trainer, "batch", batch)
    dpo.Trainer(cfg.model_copy(update={"resume": "latest"}), cache=pair_cache).fit()
    assert numbers(cfg.output) == numbers(whole.output)
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 10) for c in (cfg, whole)))


def test_the_cache_is_used_again_and_changed_data_is_noticed(dpo_config, tmp_path, pair_folder):
    import shutil

    data, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(pair_folder, data)
    dpo.Trainer(dpo_config(data=str(data), cache=cache))
    policy = load_policy(dpo_config().model)
    vae = Calls(policy.vae.encoder)
    dpo.Trainer(dpo_config(data=str(data), cache=cache), policy=policy)
    assert vae.rows == []
    shutil.copy(data / "chosen" / "0.png", data / "chosen" / "more.png")
    with pytest.raises(ValueError, match="contents="):
        dpo.Trainer(dpo_config(data=str(data), cache=cache))
    with torch.no_grad():
        policy.vae.encoder.conv_in.weight.add_(1)
    (data / "chosen" / "more.png").unlink()
    policy.adapted.delete_adapters("default")
    with pytest.raises(ValueError, match="encoders="):
        dpo.Trainer(dpo_config(data=str(data), cache=cache), policy=policy)


def test_bad_data_leaves_no_output_behind(dpo_config, tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        dpo.Trainer(dpo_config(data=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="distinct prompts"):
        one = PairRecord("a", *(sample_image(i) for i in range(2)))
        cache = build_cache(
            PairCache, tmp_path / "one", [one], load_policy(dpo_config().model), resolution=32
        )
        dpo.Trainer(dpo_config(), cache=cache)
    assert not (dpo_config().output / "config.yaml").exists()


def sample_image(seed: int):
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("loss", ["dpo", "ipo", "hinge", "mapo"])
def test_every_loss_trains_from_the_folder_to_a_lora_that_diffusers_loads(dpo_config, sharp_sd, loss):
    cfg = dpo_config(loss=loss, gamma=0.9, discount="weight", max_steps=2, flip=True, precision="bf16")
    row = dpo.Trainer(cfg).fit()
    assert math.isfinite(row["loss"]) and row["grad_norm"] > 0
    assert numbers(cfg.output)[0]["heldout/implicit_acc"] == 0.5  # adapter on is adapter off, in 16 bits too
    StableDiffusionPipeline.from_pretrained(sharp_sd, safety_checker=None).load_lora_weights(cfg.output)
    assert f"40 preference pairs from {cfg.data}" in (cfg.output / "README.md").read_text()


def test_all_weights_from_the_command_line_and_the_run_is_a_model_to_sample_from(
    dpo_config, sharp_sd, tmp_path, capsys
):
    cfg = dpo_config()
    keys = ["model", "data", "output", "batch_size", "accumulate", "holdout"]
    settings = [f"{key}={getattr(cfg, key)}" for key in keys]
    more = ["lora_rank=0", "max_steps=3", "lr=1e-3", "trackers=[]", "limit=8"]
    assert main(["train", "dpo", *settings, *more]) == 0, capsys.readouterr().err
    rows = numbers(cfg.output)
    assert rows[0]["heldout/implicit_acc"] == 0.5 and rows[1]["loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert rows[2]["loss"] != pytest.approx(math.log(2), rel=1e-4)  # the reference did not move along
    images = []
    for name, model in (("aligned", cfg.output), ("base", sharp_sd)):
        out = tmp_path / name
        words = ["sample", "a cat", "--model", str(model), "--num-inference-steps", "2", "--output", str(out)]
        assert main(words) == 0, capsys.readouterr().err
        images.append((out / "00000.png").read_bytes())
    assert images[0] != images[1]


def test_images_are_encoded_as_many_at_once_as_configured(dpo_config):
    policy = load_policy(dpo_config().model)
    vae = Calls(policy.vae.encoder)
    dpo.Trainer(dpo_config(encode_batch=3, limit=6), policy=policy)
    assert sum(vae.rows) == 12 and max(vae.rows) == 6  # both images of 3 pairs


def test_a_hub_data_set_is_named_in_the_card_and_a_local_one_is_not(dpo_config, pair_cache, tmp_path):
    cfg = dpo_config(max_steps=1)
    dpo.Trainer(cfg, cache=pair_cache).fit()
    head = (cfg.output / "README.md").read_text().split("---\n")[1]
    assert "license: other\n" in head and "datasets:" not in head
    hub = dpo_config(data="owner/name:config", output=tmp_path / "hub", max_steps=1)
    dpo.Trainer(hub, cache=pair_cache).fit()
    assert yaml.safe_load((hub.output / "README.md").read_text().split("---\n")[1])["datasets"] == [
        "owner/name"
    ]


def test_sdxl_trains_on_buckets_with_each_image_s_own_size(dpo_config, tiny_sdxl, pair_folder):
    cfg = dpo_config(model=str(tiny_sdxl), resolution=64, buckets=True, max_steps=2)
    trainer = dpo.Trainer(cfg)
    _, cond = trainer.batch(0, 0).data.stacked(trainer.policy)
    assert cond["time_ids"].shape == (8, 6) and cond["time_ids"][0].tolist() == [32, 32, 0, 0, 64, 64]
    row = trainer.fit()
    assert math.isfinite(row["loss"])
    StableDiffusionXLPipeline.from_pretrained(tiny_sdxl).load_lora_weights(cfg.output)


def test_pairs_are_limited_and_read_as_configured(dpo_config, pair_folder):
    cfg = dpo_config(limit=10, holdout=0)
    trainer = dpo.Trainer(cfg)
    assert trainer.count == len(list(read_pairs(str(pair_folder), limit=10))) == 10
    assert trainer.evaluate() == {}
