"""Dense-Reward training: the loss by hand, what is stored, and that a reward goes up."""

import math
import os
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from t2ialign.diffusion.noise import normal_rows
from t2ialign.methods.dense import trainer as dense
from t2ialign.methods.dense import trajectories
from t2ialign.methods.dense.collector import PATH, START, Collector
from t2ialign.models.load import load_policy
from t2ialign.training import checkpoint
from t2ialign.training.prompts import Prompts
from tests.conftest import build_sd
from tests.training import brightness
from tests.training.helpers import assert_same_checkpoint, numbers

T, G, M, N = 4, 6, 4, 3


@pytest.fixture
def dense_config(tiny_sd, tmp_path):
    """Makes a small config: 6 groups of 4 paths of 4 steps, 3 of them stored."""

    def make(**changes: object) -> dense.Config:
        base = {
            "model": str(tiny_sd),
            "output": tmp_path / "run",
            "prompts": "a red circle",
            "reward": "tests.training.brightness",
            "trackers": (),
            **{"num_inference_steps": T, "collect_prompts": G, "rollouts": M, "keep": N, "rollout_batch": 8},
            **{"max_steps": 4, "collect_every": 2, "batch_size": 2, "guidance_scale": 2.0, "timesteps": 2},
            **{"lora_rank": 4, "lr": 1e-2, "clip": 0.03, "temperature": 2.0, "max_grad_norm": 1.0},
        }
        return dense.Config.model_validate({**base, **changes})

    return make


def started(cfg: dense.Config, updates: int = 0) -> dense.Trainer:
    """A trainer with its first round collected, and so many updates made."""
    trainer = dense.Trainer(cfg)
    trainer._start()
    trainer.before_step()
    for _ in range(updates):
        trainer.update({})
    return trainer


def ddim_log_prob(trainer: dense.Trainer, x_t: Tensor, x_s: Tensor, t: int, cond: Tensor) -> Tensor:
    """log p(x_s | x_t), mean over the latent, by diffusers' scheduler and torch's normal distribution."""
    scheduler = DDIMScheduler.from_pretrained(trainer.cfg.model, subfolder="scheduler")
    scheduler.set_timesteps(T)
    null = trainer.policy.encode_prompts([""])["prompt_embeds"]
    unet, w = trainer.policy.adapted, trainer.cfg.guidance_scale
    empty, full = (unet(x_t[None], t, text).sample for text in (null, cond[None]))
    eps = empty + w * (full - empty)
    mean = scheduler.step(eps, t, x_t[None], eta=1.0, variance_noise=torch.zeros_like(eps)).prev_sample
    std = scheduler._get_variance(t, t - 1000 // T).sqrt()
    return torch.distributions.Normal(mean[0], std).log_prob(x_s).mean()


def test_the_loss_is_the_paper_s_by_hand(dense_config):
    trainer = started(dense_config(store="fp32", compare=3), updates=3)
    batch = trainer.batch(3, 0)
    cfg, unet, ratio = trainer.cfg, trainer.policy.adapted, torch.zeros(2, 3, 2)
    for b, k, i in np.ndindex(2, 3, 2):
        step = batch.x_t[b, k, i], batch.x_s[b, k, i], int(batch.t[i]), batch.cond["prompt_embeds"][b]
        with torch.no_grad():
            policy = ddim_log_prob(trainer, *step)
            unet.disable_adapters()
            ratio[b, k, i] = policy - ddim_log_prob(trainer, *step)
            unet.enable_adapters()
    trainer.cfg = cfg = cfg.model_copy(
        update={"clip": ratio.abs().mean().item()}
    )  # bites, and not everywhere
    losses, metrics = trainer.loss(batch)
    clipped = ratio.clamp(-cfg.clip, cfg.clip)
    assert 0 < (clipped != ratio).float().mean() < 1
    logits = cfg.temperature * clipped.mean(-1)
    expected = torch.zeros(2)
    for b in range(2):
        e = logits[b].exp()
        expected[b] = -(e[0] / e.sum()).log() - (e[1] / (e[1] + e[2])).log()  # Plackett-Luce, best first
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics["ratio"], ratio, rtol=1e-2, atol=1e-5)
    assert metrics["clipfrac"].mean() == (clipped != ratio).float().mean()


@pytest.mark.parametrize("compare", [2, 3])
def test_before_training_all_orders_are_equally_likely(dense_config, compare):
    trainer = started(dense_config(compare=compare))
    losses, metrics = trainer.loss(trainer.batch(0, 0))
    torch.testing.assert_close(losses, torch.full((2,), math.log(math.factorial(compare))))
    assert metrics["ratio"].abs().max() == 0 and metrics["implicit_acc"].tolist() == [0.5, 0.5]


def test_steps_are_drawn_by_gamma_to_the_k_and_0_is_the_noisiest(dense_config):
    cfg = dense_config(gamma=0.5, timesteps=10_000, num_inference_steps=20)
    share = torch.bincount(dense.draw_steps(cfg, 20, step=0), minlength=20) / 10_000
    expected = 0.5 ** torch.arange(20.0) * 0.5 / (1 - 0.5**20)
    assert (share - expected).abs().max() < 0.02 and share[0] == share.max()
    even = torch.bincount(dense.draw_steps(dense_config(gamma=1, timesteps=10_000), 4, step=0)) / 10_000
    assert (even - 0.25).abs().max() < 0.02
    trainer = started(dense_config(gamma=1e-6))  # only step 0 is left
    assert trainer.batch(0, 0).t.tolist() == [751, 751] and trainer.times.tolist() == [751, 501, 251, 1, -1]


@pytest.mark.rest
def test_a_last_step_without_noise_is_left_out(dense_config, tmp_path):
    model = build_sd(tmp_path / "clean_end", set_alpha_to_one=True)
    trainer = started(dense_config(model=str(model), gamma=1, timesteps=200))
    batch = trainer.batch(0, 0)
    assert set(batch.t.tolist()) == {751, 501, 251}
    assert torch.isfinite(trainer.loss(batch)[0]).all()


def test_the_same_steps_serve_the_whole_batch_and_change_with_the_update(dense_config):
    trainer = started(dense_config(accumulate=2, timesteps=3, gamma=1))
    first, second = trainer.batch(0, 0), trainer.batch(0, 1)
    assert torch.equal(first.t, second.t) and not torch.equal(first.x_t, second.x_t)
    assert len({tuple(trainer.batch(step, 0).t.tolist()) for step in range(20)}) > 5


def test_beyond_the_clip_a_step_gets_no_gradient(dense_config):
    trainer = started(dense_config(), updates=3)
    batch = trainer.batch(3, 0)
    smallest = trainer.loss(batch)[1]["ratio_size"].min().item()
    trainer.cfg = dense_config(clip=smallest / 2)
    losses, metrics = trainer.loss(batch)
    assert metrics["clipfrac"].mean() == 1
    assert all(not g.any() for g in torch.autograd.grad(losses.sum(), trainer.state.parameters))
    trainer.cfg = dense_config(clip=1e3)
    grads = torch.autograd.grad(trainer.loss(batch)[0].sum(), trainer.state.parameters)
    assert any(g.any() for g in grads)


def test_one_array_of_states_each_stored_once(dense_config):
    trainer = started(dense_config())
    states = trainer.store.states
    assert states.shape == (G, N, T + 1, 4, 8, 8)
    size = (trainer.root / "round-0000" / "states.npy").stat().st_size
    assert size - 128 == G * N * (T + 1) * 4 * 8 * 8 * 2  # T + 1 states of 16 bits, not 2 T
    batch = started(dense_config(output=trainer.cfg.output / "two", timesteps=200, gamma=1)).batch(0, 0)
    after, before = batch.t.tolist().index(751), batch.t.tolist().index(501)
    assert torch.equal(batch.x_s[:, :, after], batch.x_t[:, :, before])


def test_what_is_stored_is_on_policy_scored_and_spread_over_the_ranks(dense_config):
    trainer = started(dense_config(store="fp32"))
    states, scores = trainer.collector.paths(0, range(2, 4))  # again, from the same weights
    kept = torch.from_numpy(np.array(trainer.store.stored[2:4]))
    assert torch.equal(torch.from_numpy(np.array(trainer.store.all_scores[2:4])), scores)
    stored = torch.from_numpy(np.array(trainer.store.states[2:4]))
    assert torch.equal(stored, states[torch.arange(2)[:, None], kept])
    x_T = normal_rows((4, 8, 8), [(PATH, 0, 0, 2, int(path), START) for path in kept[0]])
    assert torch.equal(stored[0, :, 0], x_T)
    images = trainer.policy.decode(stored[:, :, -1].flatten(0, 1))
    torch.testing.assert_close(images.mean((1, 2, 3)).view(2, N), trainer.scores[2:4], rtol=1e-5, atol=1e-6)
    ranked = scores.sort(dim=1).values
    assert torch.equal(
        trainer.scores[2:4], ranked[:, [0, 2, 3]]
    )  # of 4, 3 at even ranks: ends and a middle one


def test_even_ranks_by_hand():
    scores = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0, 0.0, 6.0, 9.0, 8.0, 7.0]])
    assert scores[0, trajectories.spaced_ranks(scores, 4)[0]].tolist() == [0, 3, 6, 9]
    assert trajectories.spaced_ranks(torch.tensor([[2.0, 1.0]]), 2).tolist() == [[1, 0]]


@pytest.mark.rest
def test_rows_are_ordered_best_first_and_ties_are_shuffled_or_skipped(dense_config):
    trainer = started(dense_config(batch_size=64, compare=3))
    batch = trainer.batch(0, 0)
    assert batch.weight.tolist() == [1.0] * 64
    finals = started(
        dense_config(output=trainer.cfg.output / "b", batch_size=64, compare=3, gamma=1, timesteps=60)
    )
    batch = finals.batch(0, 0)
    last = batch.t.tolist().index(1)
    brightness = finals.policy.decode(batch.x_s[:, :, last].flatten(0, 1)).mean((1, 2, 3)).view(64, 3)
    assert (brightness.diff(dim=1) <= 1e-3).all()  # 16-bit states: rounding may swap near ties
    trainer.scores = torch.zeros(G, N)
    tied = trainer.batch(0, 0)
    assert tied.weight.tolist() == [1.0] * 64
    trainer.cfg = dense_config(batch_size=64, compare=3, ties="skip")
    assert trainer.batch(0, 0).weight.tolist() == [0.0] * 64


def test_one_forward_of_policy_and_reference_with_the_guidance_of_sampling(dense_config):
    trainer, rows = started(dense_config(compare=3)), []
    trainer.policy.adapted.register_forward_hook(lambda m, args, out: rows.append(len(args[0])))
    trainer.update({})
    assert rows == [2 * 2 * 3 * 2] * 2  # 2 groups x 3 paths x 2 steps, conditional and unconditional


@pytest.mark.rest
def test_a_reward_goes_up_that_has_no_gradient(dense_config):
    cfg = dense_config(
        **{
            "max_steps": 24,
            "collect_every": 8,
            "collect_prompts": 16,
            "num_inference_steps": 4,
            "guidance_scale": 1.0,
        },
        **{"lora_rank": 0, "lr": 3e-4, "batch_size": 8, "clip": 0.1, "keep": 4},
        **{"heldout_prompts": "a blue square", "evaluate_every": 24, "rollout_batch": 64},
    )
    dense.Trainer(cfg).fit()
    rows = numbers(cfg.output)
    rewards = [row["reward"] for row in rows if "reward" in row]
    assert len(rewards) == 3 and rewards[-1] > rewards[0] + 3 * rows[1]["reward_std"] / math.sqrt(64)
    assert rows[-1]["heldout/reward"] > rows[0]["heldout/reward"]


@pytest.mark.rest
def test_a_crash_while_collecting_resumes_bit_for_bit_and_keeps_what_was_sampled(
    dense_config, tmp_path, monkeypatch
):
    whole = dense_config(checkpoint_every=3)
    dense.Trainer(whole).fit()
    cfg, paths, calls = dense_config(checkpoint_every=3, output=tmp_path / "broken"), Collector.paths, []

    def crash(self: Collector, number: int, groups: range) -> tuple[Tensor, Tensor]:
        calls.append((number, groups.start))
        if calls.count((1, 2)) == 1 and calls[-1] == (1, 2):
            raise RuntimeError("power cut")
        return paths(self, number, groups)

    monkeypatch.setattr(Collector, "paths", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        dense.Trainer(cfg).fit()
    dense.Trainer(cfg.model_copy(update={"resume": "latest"})).fit()
    assert calls == [(0, 0), (0, 2), (0, 4), (1, 0), (1, 2), (1, 2), (1, 4)]
    assert numbers(cfg.output) == numbers(whole.output)
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 4) for c in (cfg, whole)))
    assert [p.name for p in (cfg.output / "trajectories").iterdir()] == ["round-0001"]


@pytest.mark.rest
def test_a_signal_while_collecting_leaves_at_once_and_resumes_bit_for_bit(
    dense_config, tmp_path, monkeypatch
):
    whole = dense_config()
    dense.Trainer(whole).fit()
    cfg, paths = dense_config(output=tmp_path / "stopped"), Collector.paths

    def told(self: Collector, number: int, groups: range) -> tuple[Tensor, Tensor]:
        if (number, groups.start) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        return paths(self, number, groups)

    monkeypatch.setattr(Collector, "paths", told)
    with pytest.raises(SystemExit) as left:
        dense.Trainer(cfg).fit()
    assert left.value.code == 128 + signal.SIGTERM
    partial = trajectories.open_store(cfg.output / "trajectories" / ".round-0001")
    assert np.isfinite(partial.all_scores).all(axis=1).tolist() == [True] * 4 + [False] * 2
    monkeypatch.setattr(Collector, "paths", paths)
    dense.Trainer(cfg.model_copy(update={"resume": "latest"})).fit()
    assert numbers(cfg.output) == numbers(whole.output)


@pytest.mark.rest
def test_a_crash_after_a_collection_resumes_from_the_checkpoint_made_for_it(
    dense_config, tmp_path, monkeypatch
):
    settings = {"collect_every": 3, "max_steps": 5, "checkpoint_every": 5}
    whole = dense_config(**settings)
    dense.Trainer(whole).fit()
    cfg, batch = dense_config(**settings, output=tmp_path / "broken"), dense.Trainer.batch

    def crash(self: dense.Trainer, step: int, micro: int) -> dense.Batch:
        if step == 4 and not cfg.output.joinpath("crashed").exists():
            cfg.output.joinpath("crashed").touch()
            raise RuntimeError("power cut")
        return batch(self, step, micro)

    monkeypatch.setattr(dense.Trainer, "batch", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        dense.Trainer(cfg).fit()
    assert checkpoint.step_of(checkpoint.whole(cfg.output / "checkpoints")[-1]) == 3
    dense.Trainer(cfg.model_copy(update={"resume": "latest"})).fit()
    assert numbers(cfg.output) == numbers(whole.output)
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 5) for c in (cfg, whole)))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_resume_without_its_trajectories_is_refused(dense_config, damaged):
    cfg = dense_config(max_steps=1)
    dense.Trainer(cfg).fit()
    if damaged:
        file = cfg.output / "trajectories" / "round-0000" / "states.npy"
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    else:
        shutil.rmtree(cfg.output / "trajectories")
    trainer = dense.Trainer(dense_config(max_steps=2, resume="latest"))
    with pytest.raises(ValueError, match=r"got no whole .*round-0000"):
        trainer.fit()


def test_impossible_sizes_and_a_full_disk_are_one_line(dense_config, tmp_path):
    with pytest.raises(ValueError, match="compare <= keep <= rollouts"):
        dense.Trainer(dense_config(keep=5, rollouts=4))
    with pytest.raises(ValueError, match="expected one of"):
        dense.Trainer(dense_config(reward="nonsense"))
    shape = trajectories.Shape(prompts=100, rollouts=4, keep=4, states=(5, 4, 64, 64), dtype="float16")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match=r"0\.07 GB of trajectories .* resume=latest"):
            trajectories.create(tmp_path / "round", shape)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "round").iterdir())


def test_each_distinct_prompt_is_encoded_once_and_repeats_keep_their_place(tiny_sd):
    policy, rows = load_policy(str(tiny_sd)), []
    policy.pipe.text_encoder.register_forward_hook(lambda m, args, out: rows.append(len(out[0])))
    texts = ["a", "b", "a", "c", "b", "a"]
    prompts = Prompts(policy, texts, batch_size=2)
    assert rows == [2, 1]
    numbers = torch.tensor([5, 0, 3, 1, 4])
    expected = policy.encode_prompts([texts[i] for i in numbers])["prompt_embeds"]
    torch.testing.assert_close(prompts.cond(numbers)["prompt_embeds"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reserves", [True, False])
def test_an_empty_round_is_reserved_and_not_written(tmp_path, monkeypatch, reserves):
    """Only the scores say what is sampled; gigabytes of states would be written twice, where a system can
    reserve them. macOS and Windows cannot, and zeros are written there.
    """
    if not reserves:
        monkeypatch.delattr(os, "posix_fallocate")
        monkeypatch.setattr(trajectories, "CHUNK", 1000)
    shape = trajectories.Shape(prompts=3, rollouts=4, keep=2, states=(5, 4, 8, 8), dtype="float32")
    trajectories.create(tmp_path / "round", shape)
    store = trajectories.open_store(tmp_path / "round")
    assert np.isnan(store.all_scores).all() and not np.asarray(store.states).any()
    status = (tmp_path / "round" / "states.npy").stat()
    assert status.st_blocks * 512 >= status.st_size == store.states.offset + store.states.nbytes


def test_the_reward_is_built_once(dense_config, monkeypatch):
    built, build = [], brightness.build
    monkeypatch.setattr(brightness, "build", lambda: built.append(1) or build())
    cfg = dense_config(heldout_prompts="a blue square", evaluate_every=1)  # two rounds, five evaluations
    dense.Trainer(cfg).fit()
    assert len(built) == 1 and "heldout/reward" in numbers(cfg.output)[-1]


def test_a_reward_that_is_not_finite_stops_the_run(dense_config, monkeypatch):
    trainer = dense.Trainer(dense_config())
    monkeypatch.setattr(trainer.reward, "score", lambda images, prompts: images.mean((1, 2, 3)) * torch.nan)
    with pytest.raises(ValueError, match=r"got a score of nan from .* for 'a red circle'"):
        trainer.fit()
