"""Reward back-propagation: presets, losses by hand, cost by counters, and that a reward goes up."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from t2ialign import config
from t2ialign.cli import main as cli
from t2ialign.diffusion.kernels import ddim
from t2ialign.methods.backprop import trainer as backprop
from t2ialign.methods.backprop.presets import PRESETS
from t2ialign.models.load import load_policy
from t2ialign.training import checkpoint
from tests.training.helpers import assert_same_checkpoint, numbers

T = 4


@pytest.fixture
def backprop_config(tiny_sd, tmp_path):
    """Makes a small config: two rows, four steps."""

    def make(**changes: object) -> backprop.Config:
        base = {
            "model": str(tiny_sd),
            "output": tmp_path / "run",
            "prompts": "a red circle",
            "reward": "tests.training.redness",
            "trackers": (),
            **{
                "num_inference_steps": T,
                "guidance_scale": 2.0,
                "max_steps": 4,
                "batch_size": 2,
                "accumulate": 1,
            },
            **{"lora_rank": 4, "lr": 1e-2, "weight_decay": 0.0},
        }
        return backprop.Config.model_validate({**base, **changes})

    return make


def gradients(trainer: backprop.Trainer) -> dict[str, torch.Tensor]:
    """Of the first micro-step's mean loss."""
    trainer._start()
    losses, _ = trainer.loss(trainer.batch(0, 0))
    losses.mean().backward()
    found = {name: p.grad.clone() for name, p in trainer.state.trained.items() if p.grad is not None}
    for p in trainer.state.parameters:
        p.grad = None
    return found


def moved(trainer: backprop.Trainer) -> None:
    """Give the LoRA weights that matter: it starts as the identity, with half of its gradients zero."""
    with torch.no_grad():
        for i, p in enumerate(trainer.state.parameters):
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))


def test_a_preset_is_a_set_of_defaults_and_what_is_set_wins(tmp_path):
    cfg = backprop.Config(prompts="a", preset="refl")
    assert (cfg.num_inference_steps, cfg.early_stop, cfg.record, cfg.k) == (40, 10, "last", 1)
    assert (cfg.guidance_scale, cfg.eta, cfg.lora_rank, cfg.lr) == (1.0, 1.0, 0, 1e-5)
    assert (cfg.loss, cfg.target, cfg.loss_scale) == ("hinge", 2.0, 1e-3)
    assert backprop.Config(prompts="a", preset="refl", lr=1.0, lora_rank=3).lora_rank == 3
    cfg = backprop.Config(prompts="a", preset="alignprop")
    assert (cfg.record, cfg.lr, cfg.weight_decay, cfg.max_grad_norm) == ("mask", 1e-3, 0.1, 5.0)
    assert (cfg.lora_rank, cfg.num_inference_steps, cfg.guidance_scale, cfg.eta) == (4, 50, 7.5, 0.0)
    assert backprop.Config(prompts="a").record == "last"
    config.save(backprop.Config(prompts="a", preset="drtune", k=2), tmp_path / "config.yaml")
    assert config.load(backprop.Config, tmp_path / "config.yaml").k == 2


def test_the_plan_says_that_refl_samples_with_noise(backprop_config):
    trainer = backprop.Trainer(backprop_config(preset="refl", early_stop=2))
    assert trainer.facts().more["sampling"] == "4 steps, guidance 2, eta 1, 32x32 pixels"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains(backprop_config, preset):
    changes = {"early_stop": 2} if PRESETS[preset].get("early_stop") else {}
    trainer = backprop.Trainer(backprop_config(preset=preset, max_steps=2, target=2.0, **changes))
    before = {name: p.detach().clone() for name, p in trainer.state.trained.items()}
    row = trainer.fit()
    assert row["grad_norm"] > 0 and row["recorded_steps"] >= 1
    assert any(not torch.equal(before[name], p) for name, p in trainer.state.trained.items())


def test_full_weights_train_beside_a_frozen_reference(backprop_config):
    trainer = backprop.Trainer(
        backprop_config(lora_rank=0, lr=1e-4, penalty="l2", penalty_weight=0.1, max_steps=2)
    )
    row = trainer.fit()
    assert row["penalty"] > 0  # after the first update the two have parted


@pytest.mark.parametrize(
    "form, target, expected",
    [("maximise", None, [-1.0, -3.0]), ("target", 2.0, [1.0, 1.0]), ("hinge", 2.0, [1.0, 0.0])],
)
def test_the_losses_by_hand(form, target, expected):
    found = backprop.reward_loss(torch.tensor([1.0, 3.0]), form, target)
    assert found.tolist() == expected


def test_the_reward_s_gradient_reaches_every_weight_and_recomputing_changes_no_number(
    backprop_config, tmp_path
):
    found = []
    for name, keep in (("a", True), ("b", False)):
        trainer = backprop.Trainer(
            backprop_config(preset="draft", checkpoint_steps=keep, output=tmp_path / name)
        )
        moved(trainer)
        found.append(gradients(trainer))
        assert trainer.policy.vae.decoder.gradient_checkpointing is keep
    assert found[0].keys() == found[1].keys() and len(found[0]) == len(trainer.state.trained)
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-7)


def test_the_kl_penalty_is_that_of_torch_s_normals_and_the_l2_one_a_mean_square(backprop_config, tmp_path):
    kl = backprop.Trainer(backprop_config(penalty="kl", penalty_weight=1.0, eta=0.7, output=tmp_path / "kl"))
    g = torch.Generator().manual_seed(0)
    out, frozen, x_t = torch.randn(3, 2, *kl.shape, generator=g)
    t, s = (kl.times[i].expand(2) for i in (1, 2))
    found = kl.penalty(out, frozen, x_t, t, s)
    now, before = (kl.policy.transition(o, x_t, t, s, kernel=ddim(0.7)) for o in (out, frozen))
    normals = [torch.distributions.Normal(p.mean, p.std.expand_as(p.mean)) for p in (now, before)]
    expected = torch.distributions.kl_divergence(*normals).flatten(1).mean(1)
    torch.testing.assert_close(found, expected)
    l2 = backprop.Trainer(backprop_config(penalty="l2", penalty_weight=1.0, output=tmp_path / "l2"))
    torch.testing.assert_close(l2.penalty(out, frozen, x_t, t, s), (out - frozen).square().flatten(1).mean(1))


@pytest.mark.rest
def test_a_penalty_holds_the_policy_near_the_reference(backprop_config, tmp_path):
    drift = []
    for weight in (0.0, 30.0):
        more = {"penalty": "l2", "penalty_weight": weight} if weight else {}
        trainer = backprop.Trainer(
            backprop_config(max_steps=8, output=tmp_path / f"w{weight}", preset="draft", **more)
        )
        trainer.fit()
        batch = trainer.batch(0, 0)
        x, t = torch.zeros(2, *trainer.shape), torch.full((2,), 500)
        with torch.no_grad():
            now = trainer.policy.guided(x, t, batch.cond, 2.0)
        with trainer.policy.reference():
            drift.append((now - trainer.policy.guided(x, t, batch.cond, 2.0)).square().mean())
    assert drift[1] < 0.5 * drift[0]


def test_prompts_are_encoded_once_and_each_comes_before_any_comes_again(backprop_config, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\na dog\na fox\na cow\na hen\n")
    cfg = backprop_config(prompts=str(file), max_steps=5)
    policy = load_policy(cfg.model)
    calls = []
    policy.pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    trainer = backprop.Trainer(cfg, policy=policy)
    seen = torch.cat([trainer.batch(step, 0).numbers for step in range(5)])
    assert sorted(seen[:5].tolist()) == sorted(seen[5:].tolist()) == [0, 1, 2, 3, 4]
    trainer.fit()
    assert len(calls) == 5  # the prompts in one batch, "" for the guidance, two images of the plan at a time


def test_one_plan_serves_an_update_and_changes_with_it(backprop_config):
    trainer = backprop.Trainer(backprop_config(record="mask", num_inference_steps=12, accumulate=2))
    plans = [trainer.plan(step) for step in range(6)]
    assert trainer.batch(3, 0).plan == trainer.batch(3, 1).plan == plans[3]
    assert len(set(plans)) > 3


@pytest.mark.rest
def test_a_reward_goes_up_on_images_never_trained_on(backprop_config):
    cfg = backprop_config(
        preset="draft", max_steps=25, lr=3e-3, heldout_prompts="a blue square", evaluate_every=25
    )
    backprop.Trainer(cfg).fit()
    rows = {row["step"]: row for row in numbers(cfg.output)}
    assert rows[25]["heldout/reward"] > rows[0]["heldout/reward"] + 0.02
    assert rows[25]["reward"] > rows[1]["reward"] + 0.02


def test_half_the_batch_with_twice_the_accumulation_is_the_same_run(backprop_config, tmp_path):
    cfgs = [
        backprop_config(batch_size=b, accumulate=a, output=tmp_path / str(b), record="uniform")
        for b, a in ((2, 1), (1, 2))
    ]
    for cfg in cfgs:
        backprop.Trainer(cfg).fit()
    for one, two in zip(*(numbers(cfg.output) for cfg in cfgs), strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-6)


@pytest.mark.rest
def test_a_resumed_run_is_bit_for_bit_the_whole_one(backprop_config, tmp_path, one_thread):
    common = {"record": "mask", "eta": 0.5, "checkpoint_every": 2}
    whole = backprop_config(output=tmp_path / "whole", **common)
    backprop.Trainer(whole).fit()
    half = backprop_config(output=tmp_path / "half", max_steps=2, **common)
    backprop.Trainer(half).fit()
    backprop.Trainer(half.model_copy(update={"max_steps": 4, "resume": "latest"})).fit()
    assert numbers(half.output) == numbers(whole.output)
    folders = [checkpoint.path(cfg.output / "checkpoints", 4) for cfg in (half, whole)]
    assert_same_checkpoint(*folders)


@pytest.mark.parametrize("k", [1, 3])
def test_a_step_costs_t_plus_3_k_forwards_and_the_decoder(backprop_config, tiny_sd, k):
    num_inference_steps = 8
    trainer = backprop.Trainer(backprop_config(num_inference_steps=num_inference_steps, k=k))
    trainer._start()
    batch = trainer.batch(0, 0)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        x_T = torch.zeros(2, *trainer.shape)
        trainer.policy.guided(x_T, trainer.times[:1].expand(2), batch.cond, 2.0)
    with FlopCounterMode(display=False) as decode:
        x_0 = torch.zeros(2, *trainer.shape, requires_grad=True)
        trainer.policy.decode(x_0).sum().backward()
    with FlopCounterMode(display=False) as step:
        trainer.loss(batch)[0].mean().backward()
    budget = (num_inference_steps + 3 * k) * forward.get_total_flops() + decode.get_total_flops()
    assert step.get_total_flops() <= 1.02 * budget  # the LoRA's own gradients are the 2 %
    assert step.get_total_flops() >= (num_inference_steps + 1.5 * k) * forward.get_total_flops()


def test_what_cannot_be_is_one_line_and_costs_nothing(backprop_config, tmp_path):
    for changes, words in (
        ({"k": 5}, r"got k=5 recorded steps of num_inference_steps=4 with early_stop=0; expected 1 <= k"),
        ({"preset": "draft-lv", "eta": 0.5}, r"got lv_samples=2 with eta=0.5; expected eta=0"),
        ({"loss": "hinge"}, r"got loss=hinge without target"),
        ({"penalty": "kl", "penalty_weight": 0.1}, r"got penalty=kl with eta=0"),
        ({"penalty": "l2"}, r"got penalty=l2 with penalty_weight=0; expected both"),
        ({"lv_samples": 2, "record": "all"}, r"got lv_samples=2 with record=all"),
        ({"height": 30}, r"got size 30; expected both sides to be multiples of 4"),
        ({"reward": "tests.training.brightness"}, r"no gradient; .* by dense, grpo, lpo, which take any"),
    ):
        with pytest.raises(ValueError, match=words):
            backprop.Trainer(backprop_config(**changes))
        assert not (tmp_path / "run").exists()


def test_a_reward_that_breaks_keeps_the_last_checkpoint(backprop_config, tmp_path):
    cfg = backprop_config(reward="tests.training.redness:NotANumber")
    with pytest.raises(ValueError, match=r"got a score of nan from .*NotANumber for 'a red circle'"):
        backprop.Trainer(cfg).fit()
    assert checkpoint.whole(cfg.output / "checkpoints")
    cfg = backprop_config(reward="tests.training.redness:WrongShape", output=tmp_path / "shape")
    with pytest.raises(
        ValueError, match=r"got float32 \(2, 1\) from WrongShape.score; expected float \(2,\)"
    ):
        backprop.Trainer(cfg).fit()


def test_an_image_outside_0_to_1_is_refused_at_the_boundary(backprop_config):
    """AlignProp's issue 19: an image mapped twice, or not at all, trains towards the wrong optimum."""
    trainer = backprop.Trainer(backprop_config())
    trainer._start()
    decode = trainer.policy.decode
    trainer.policy.decode = lambda latents: 2 * decode(latents) - 1
    with pytest.raises(ValueError, match=r"got pixels in \[-.*expected \[0, 1\]; map \[-1, 1\]"):
        trainer.loss(trainer.batch(0, 0))


def test_the_saturated_share_is_that_of_the_clamp(backprop_config):
    trainer = backprop.Trainer(backprop_config())
    trainer._start()
    images = torch.rand(2, 3, 32, 32).clamp(0.1, 0.9)
    images[0, :, :8], images[1, 0, :8] = 1.0, 0.0
    trainer.policy.decode = lambda latents: images + 0 * latents.sum()
    _, metrics = trainer.loss(trainer.batch(0, 0))
    assert metrics["saturated"].mean().item() == pytest.approx((3 + 1) / 6 * 8 / 32)


def test_a_hinge_that_every_score_has_passed_says_so(backprop_config, caplog):
    trainer = backprop.Trainer(backprop_config(loss="hinge", target=-5.0))
    trainer._start()
    losses, _ = trainer.loss(trainer.batch(0, 0))
    assert losses.tolist() == [0.0, 0.0] and "beyond target=-5" in caplog.text


def test_the_reward_in_bf16_stays_near_fp32(backprop_config, tmp_path):
    found = []
    for precision in ("fp32", "bf16"):
        cfg = backprop_config(
            reward="toy-clip", reward_precision=precision, output=tmp_path / precision, model="toy"
        )
        trainer = backprop.Trainer(cfg)
        moved(trainer)
        found.append(torch.cat([g.flatten() for g in gradients(trainer).values()]))
    assert not torch.equal(*found)
    assert torch.cosine_similarity(*found, dim=0) > 0.95


def test_from_the_command_line(tiny_sd, tmp_path, capsys):
    arguments = ["train", "backprop", "preset=draft-k", f"model={tiny_sd}", f"output={tmp_path / 'run'}"]
    arguments += [
        "prompts=a red circle",
        "reward=tests.training.redness",
        "num_inference_steps=2",
        "batch_size=1",
    ]
    assert cli.main([*arguments, "max_steps=1", "trackers=[]", "lora_rank=2"]) == 0
    assert (tmp_path / "run" / "pytorch_lora_weights.safetensors").exists()
    assert "draft-k" in (tmp_path / "run" / "config.yaml").read_text()
    assert cli.main([*arguments, "preset=drft"]) == 2
    assert "preset: got 'drft'; expected" in capsys.readouterr().err
