"""LPO: which states are learnt from, one forward for a pair, and a resumed run is the same bit for bit."""

import math

import pytest
import torch
from torch import Tensor

from rewards.latent.saved import save
from rewards.latent.untrained import from_pipeline
from scripts.experiments.gradient import double
from t2ialign.diffusion.candidates import Step
from t2ialign.diffusion.kernels import ddim
from t2ialign.diffusion.noise import normal_rows
from t2ialign.diffusion.schedule import END
from t2ialign.diffusion.transition import Gaussian
from t2ialign.methods.lpo import trainer as lpo
from t2ialign.methods.lpo.step_sampler import judged_steps, log_probs
from t2ialign.methods.lpo.step_scorers import LatentScorer, PixelScorer
from t2ialign.models.load import load_policy
from t2ialign.training import checkpoint
from tests.training.helpers import assert_same_checkpoint, moved, numbers

T, K, PROMPTS = 4, 3, 4
BRIGHT = "tests.training.brightness"


@pytest.fixture(scope="module")
def judge(tiny_sd, tmp_path_factory):
    """An untrained latent reward with a wide scale, so that untrained candidates differ."""
    reward = from_pipeline(tiny_sd, guidance_scale=1)
    with torch.no_grad():
        reward.log_scale.add_(2.0)
    folder = tmp_path_factory.mktemp("judge")
    save(reward, folder)
    return folder


@pytest.fixture
def lpo_config(tiny_sd, judge, tmp_path):
    """Makes a small config: rounds of 4 prompts of 4 steps, 3 candidates, every pair valid."""

    def make(**changes: object) -> lpo.Config:
        by_image = "reward" in changes
        base = {
            "model": str(tiny_sd),
            "output": tmp_path / "run",
            "prompts": "a red circle",
            "reward_options": {} if by_image else {"path": str(judge)},
            "trackers": (),
            **{"num_inference_steps": T, "collect_prompts": PROMPTS, "candidates": K, "rollout_batch": 2},
            **{"threshold_low": 0.0, "threshold_high": 0.0, "t_max": 999, "guidance_scale": 2.0},
            **{"max_steps": 4, "batch_size": 4, "lora_rank": 4, "lr": 1e-2},
        }
        return lpo.Config.model_validate({**base, **changes})

    return make


def started(cfg: lpo.Config) -> lpo.Trainer:
    """A trainer with its first round sampled."""
    trainer = lpo.Trainer(cfg)
    trainer._start()
    trainer.before_step()
    return trainer


class Counted:
    """Counts the calls of a network by their rows."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.rows: list[int] = []
        module.register_forward_hook(
            lambda _, args, kwargs, __: self.rows.append(self._size(args, kwargs)), with_kwargs=True
        )

    @staticmethod
    def _size(args, kwargs) -> int:
        return len(args[0] if args else kwargs["sample"])


def test_a_round_has_the_best_and_the_worst_candidate_of_every_step(lpo_config):
    data = started(lpo_config()).data
    assert data["order"].tolist() == list(
        range(PROMPTS * T)
    )  # every step of Stable Diffusion's grid has noise
    assert data["x_t"].shape[1] == 1 and data["x_s"].shape[1] == 2
    assert (data["scores"][:, 0] > data["scores"][:, 1]).all()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_pairs_kept_are_those_whose_gap_exceeds_the_threshold(lpo_config, scale):
    """With two candidates both are seen, so all gaps are known; p_best - p_worst is that of a softmax."""
    every = started(lpo_config(candidates=2)).data
    p = torch.softmax(scale * every["scores"], 1)
    gaps = p[:, 0] - p[:, 1]
    cut = float(gaps.sort().values[len(gaps) // 2 - 1 :][:2].mean())  # between two of them, not at one
    some = {"threshold_low": cut, "threshold_high": cut, "reward_scale": scale, "batch_size": 1}
    cfg = lpo_config(candidates=2, **some)
    kept = started(cfg.model_copy(update={"output": cfg.output.with_name("some")})).data
    assert kept["order"].tolist() == every["order"][gaps > cut].tolist()
    assert 0 < len(kept["order"]) < len(every["order"])


def test_a_tie_is_no_pair(lpo_config, monkeypatch):
    monkeypatch.setattr(lpo, "BARREN", 2)
    monkeypatch.setattr(
        "tests.training.brightness.Brightness.score", lambda self, x, prompts: x.new_ones(len(x))
    )
    with pytest.raises(ValueError, match="got 2 rounds without 4 valid rows, an update's worth"):
        started(lpo_config(reward=BRIGHT))


def test_one_policy_and_one_reference_forward_serve_a_pair(lpo_config):
    trainer = started(lpo_config())
    batch = trainer.batch(0, 0)
    counted = Counted(trainer.policy.unet)
    trainer.loss(batch)
    assert counted.rows == [2 * 4, 2 * 4]  # guided: twice the rows, once each


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_the_shared_forward_is_the_loss_and_gradient_of_the_two_forward_form(lpo_config, dtype, rtol):
    trainer = moved(started(lpo_config(beta=50.0)))
    batch, cfg, policy = trainer.batch(0, 0), trainer.cfg, trainer.policy
    if dtype == torch.float64:
        double(policy)
        batch = lpo.Batch(**{k: v.double() if _is_float(v) else v for k, v in vars(batch).items()})

    def ratio(x_s: Tensor) -> Tensor:
        p = policy.step(
            batch.x_t[:, 0], batch.t, batch.s, batch.cond, kernel=ddim(1.0), guidance_scale=cfg.guidance_scale
        )
        with policy.reference():
            q = policy.step(
                batch.x_t[:, 0],
                batch.t,
                batch.s,
                batch.cond,
                kernel=ddim(1.0),
                guidance_scale=cfg.guidance_scale,
            )
        low, high = math.log(1 - cfg.clip), math.log(1 + cfg.clip)
        return (p.log_prob(x_s) - q.log_prob(x_s)).clamp(low, high)

    weights = list(trainer.state.trained.values())
    one, _ = trainer.loss(batch)
    win, lose = batch.x_s.unbind(1)
    two = -torch.nn.functional.logsigmoid(cfg.beta * (ratio(win) - ratio(lose)))
    assert one.dtype == dtype
    torch.testing.assert_close(one, two, rtol=rtol, atol=rtol * 1e-2)
    for a, b in zip(*(torch.autograd.grad(loss.mean(), weights) for loss in (one, two)), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * 1e-3)


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def test_candidates_cancel_all_but_the_means_distance_along_their_difference(lpo_config):
    """Unclipped margin = <w - l, mu - mu_ref> / (D std^2), derived by hand from two Gaussians of one std."""
    trainer = moved(started(lpo_config(clip=0.999)))
    batch, policy = trainer.batch(0, 0), trainer.policy
    _, metrics = trainer.loss(batch)
    with torch.no_grad():
        p, q = (
            policy.step(batch.x_t[:, 0], batch.t, batch.s, batch.cond, kernel=ddim(1.0), guidance_scale=2.0)
            for _ in "pq"
        )
        with policy.reference():
            q = policy.step(
                batch.x_t[:, 0], batch.t, batch.s, batch.cond, kernel=ddim(1.0), guidance_scale=2.0
            )
    win, lose = batch.x_s.unbind(1)
    expected = ((win - lose) * (p.mean - q.mean) / p.std.square()).flatten(1).mean(1)
    torch.testing.assert_close(metrics["margin"], expected, rtol=1e-3, atol=1e-5)


def test_a_rollout_runs_no_text_encoder_and_one_forward_a_step(lpo_config):
    trainer = lpo.Trainer(lpo_config())
    scorer = trainer.sampler.scorer
    assert isinstance(scorer, LatentScorer)
    backbone = scorer.reward.backbone
    texts, network, judge = (
        Counted(m) for m in (backbone.text_encoder, trainer.policy.unet, backbone.unet.conv_in)
    )
    trainer.sampler.rows(0, range(2))
    assert texts.rows == []
    assert network.rows == [2 * 2] * T and judge.rows == [2 * K] * T


def test_a_judge_with_guided_features_scores_as_it_does_without_a_cache(lpo_config, tiny_sd):
    reward = from_pipeline(tiny_sd, guidance_scale=7.5)
    texts = ["a red circle", "two blue squares", "a red circle"]
    scorer = LatentScorer(reward, texts, torch.device("cpu"))
    x = normal_rows((4, 8, 8), [(2, i) for i in range(3 * K)]).unflatten(0, (3, K))
    step = Step(
        0, x[:, 0], torch.tensor(501), torch.tensor(251), Gaussian(x[:, 0], torch.ones(1, 1, 1, 1)), x
    )
    found = scorer.judge(torch.tensor([1, 0, 2]), {})(step)
    prompts = [texts[i] for i in (1, 0, 2) for _ in range(K)]
    with torch.no_grad():
        expected = reward(x.flatten(0, 1), torch.full((3 * K,), 501), prompts).view(3, K)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_judge_is_told_the_current_t(lpo_config):
    trainer, seen = lpo.Trainer(lpo_config()), list[int]()
    backbone = trainer.sampler.scorer.reward.backbone
    features = backbone.features
    backbone.features = lambda x, t, text: (seen.append(int(t[0])), features(x, t, text))[1]
    trainer.sampler.rows(0, range(1))
    assert seen == trainer.sampler.times[:-1].tolist()


def test_only_steps_in_range_are_learnt_from(lpo_config):
    trainer = started(lpo_config(t_min=300, t_max=800))
    times = trainer.sampler.times.tolist()
    assert set(trainer.data["t"].tolist()) == {t for t in times if 300 <= t <= 800}
    with pytest.raises(
        ValueError, match=r"got t_min=2, t_max=9, which no noisy step of num_inference_steps=4 falls into"
    ):
        lpo.Trainer(lpo_config(t_min=2, t_max=9, output=trainer.cfg.output.with_name("other")))


def test_the_step_that_ends_in_x_0_is_left_out_and_stable_diffusion_s_last_is_not(lpo_config):
    policy = load_policy(lpo_config().model)
    assert list(judged_steps(policy, policy.timesteps(T), ddim(1.0), 0, 999)) == list(range(T))
    policy.latents.table[END] = 1.0  # a path that ends in x_0, as a flow does, or set_alpha_to_one=true
    assert list(judged_steps(policy, policy.timesteps(T), ddim(1.0), 0, 999)) == list(range(T - 1))


@pytest.mark.rest
@pytest.mark.parametrize("preset", ["lpo", "d3po", "grpo"])
def test_a_resumed_run_is_the_run_that_was_not_cut(lpo_config, tmp_path, preset):
    chosen = {"preset": preset, "reward": BRIGHT, "reward_scale": 100.0, "accumulate": 1}
    whole = lpo_config(**chosen, max_steps=6, checkpoint_every=1, checkpoint_limit=9)
    lpo.Trainer(whole).fit()
    for step in (2, 5):  # within a round, and beside its end
        cut = whole.model_copy(update={"output": tmp_path / f"cut-{step}", "max_steps": step})
        lpo.Trainer(cut).fit()
        again = cut.model_copy(update={"max_steps": 6, "resume": "latest"})
        lpo.Trainer(again).fit()
        assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 6) for c in (whole, again)))


@pytest.mark.rest
def test_a_run_killed_past_its_checkpoint_samples_the_same_rounds_again(lpo_config, tmp_path):
    """The checkpoint of step 2 lies within round 0; round 1 was sampled and is forgotten."""
    whole = lpo_config(max_steps=6, checkpoint_every=2, checkpoint_limit=9)
    lpo.Trainer(whole).fit()
    for step in (4, 6):
        checkpoint.remove(checkpoint.path(whole.output / "checkpoints", step))
    kept = whole.output.with_name("kept")
    whole.output.rename(kept)
    lpo.Trainer(whole.model_copy(update={"max_steps": 6})).fit()
    again = lpo.Trainer(whole.model_copy(update={"output": kept, "resume": "latest"}))
    assert [r.start for r in again.rounds.index()] == [0]
    again.fit()
    assert_same_checkpoint(*(checkpoint.path(o / "checkpoints", 6) for o in (whole.output, kept)))


def test_a_latent_reward_shows_where_it_starts_and_training_is_the_same(
    lpo_config, tmp_path, capsys, monkeypatch
):
    trainer = started(lpo_config())
    _, scores = trainer.sampler.rows(lpo.BEFORE, range(4))
    assert (
        f"before training {scores.mean():.4g}, of the states of 4 paths at guidance 2"
        in capsys.readouterr().err
    )
    monkeypatch.setattr(lpo.Trainer, "start_reward", lambda self: "none")
    plain = started(lpo_config(output=tmp_path / "plain"))
    for name, values in trainer.data.items():
        assert torch.equal(values, plain.data[name]), name


def test_groups_are_all_candidates_and_their_first_loss_is_0(lpo_config):
    """At the sampling policy every ratio is 1 and standard scores have mean 0."""
    trainer = started(lpo_config(preset="grpo"))
    batch = trainer.batch(0, 0)
    assert batch.x_s.shape[1] == K
    counted = Counted(trainer.policy.unet)
    losses, metrics = trainer.loss(batch)
    assert counted.rows == [2 * 4], "no reference forward"
    torch.testing.assert_close(losses, torch.zeros_like(losses), rtol=0, atol=1e-4)
    torch.testing.assert_close(metrics["ratio"], torch.zeros_like(batch.scores), rtol=0, atol=1e-4)


def test_images_judge_through_the_next_step_s_x_0(lpo_config):
    trainer = lpo.Trainer(lpo_config(preset="spo", reward=BRIGHT))
    sampler, policy = trainer.sampler, trainer.policy
    scorer = sampler.scorer
    assert isinstance(scorer, PixelScorer)
    x = normal_rows(sampler.shape, [(1, i) for i in range(2 * K)]).unflatten(0, (2, K))
    gaussian, times = Gaussian(x[:, 0], torch.ones(1, 1, 1, 1)), sampler.times
    cond = trainer.prompts.cond(torch.tensor([0, 0]))
    judge = scorer.judge(torch.tensor([0, 0]), cond)
    found = judge(Step(0, x[:, 0], times[0], times[1], gaussian, x))
    one, s = {name: value[:1] for name, value in cond.items()}, times[1].expand(1)
    with torch.no_grad():
        out = policy.guided(x[1, 2][None], s, one, trainer.cfg.guidance_scale)
        image = policy.decode(policy.posterior_mean(out, x[1, 2][None], s))
        torch.testing.assert_close(found[1, 2], scorer.reward(image, ["a red circle"])[0])
        last = judge(Step(T - 1, x[:, 0], times[-2], times[-1], gaussian, x))
        direct = scorer.reward(policy.decode(x[0, 1][None]), ["a red circle"])[0]
        torch.testing.assert_close(last[0, 1], direct)


def test_whole_paths_share_their_first_noise_and_the_better_one_wins_every_step(lpo_config):
    trainer = started(lpo_config(preset="d3po", reward=BRIGHT, reward_scale=100.0, accumulate=1))
    data = trainer.data
    assert data["x_t"].shape[1] == data["x_s"].shape[1] == 2 and len(data["order"]) == PROMPTS * T
    paths = data["x_t"].unflatten(0, (PROMPTS, T))
    assert torch.equal(paths[:, 0, 0], paths[:, 0, 1]) and not torch.equal(paths[:, 1, 0], paths[:, 1, 1])
    following = data["x_s"].unflatten(0, (PROMPTS, T))
    assert torch.equal(following[:, :-1], paths[:, 1:]), "each side is one path"
    with torch.no_grad():
        images = trainer.policy.decode(following[:, -1].flatten(0, 1))
        bright = trainer.reward(images, ["a red circle"] * len(images)).view(PROMPTS, 2)
    assert (bright[:, 0] > bright[:, 1]).all()
    batch = trainer.batch(0, 0)
    counted = Counted(trainer.policy.unet)
    losses, _ = trainer.loss(batch)
    assert counted.rows == [2 * 2 * 4, 2 * 2 * 4], "two states of a pair, guided"
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(2)), rtol=1e-4, atol=0)
    again = trainer._log_probs(batch)
    torch.testing.assert_close(again, batch.log_probs, rtol=1e-3, atol=1e-4)


def test_log_probs_of_several_states_of_one_gaussian_are_those_one_by_one():
    mean, std = torch.randn(3, 2, 4, 4), torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1, 1)
    x = torch.randn(3, 5, 2, 4, 4)
    found = log_probs(Gaussian(mean, std), x)
    for k in range(5):
        torch.testing.assert_close(found[:, k], Gaussian(mean, std).log_prob(x[:, k]))


def test_clipping_really_clips(lpo_config):
    """The published code hands an iterator to the optimiser and then clips what is left of it: nothing."""
    trainer = moved(started(lpo_config(max_grad_norm=1e-3)))
    trainer.accelerator.gradient_accumulation_steps = 1
    seen = []
    optimizer = trainer.state.bare_optimizer
    optimizer.register_step_pre_hook(
        lambda *_: seen.append(
            torch.stack([p.grad.norm() for g in optimizer.param_groups for p in g["params"]]).norm()
        )
    )
    row: dict[str, float] = {}
    trainer.update(row)
    assert row["grad_norm"] > 1e-3 and float(seen[0]) == pytest.approx(1e-3, rel=1e-2)


def test_the_log_has_what_the_paper_watches(lpo_config):
    cfg = lpo_config(max_steps=2)
    lpo.Trainer(cfg).fit()
    first, last = numbers(cfg.output)[-2:]
    assert first["valid"] == PROMPTS * T == sum(first[f"valid_band_{i}"] for i in range(4))
    assert {
        "step_reward",
        "implicit_acc",
        "clipfrac",
        "margin",
        "gap",
        "grad_norm",
    } <= first.keys() | last.keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "grpo", "compare": "trajectories"}, "got loss=grpo with compare=trajectories"),
        ({"threshold_low": 0.6, "threshold_high": 0.5}, "got thresholds 0.6 and 0.5"),
        ({"reward_options": {}}, "got no path for latent"),
    ],
)
def test_settings_that_cannot_be_are_told_in_one_line(lpo_config, changes, words):
    with pytest.raises(ValueError, match=words):
        started(lpo_config(**changes))
