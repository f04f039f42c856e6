"""LPO: which siblings are learnt from, one forward for a pair, and a resumed run is the same bit for bit."""

import math

import pytest
import torch
from torch import Tensor

from rewards.base import LatentReward
from rewards.latent import from_pipeline, save
from t2ialign.diffusion.noise import normal_rows
from t2ialign.diffusion.siblings import Step
from t2ialign.diffusion.transition import Gaussian
from t2ialign.trainers import lpo
from t2ialign.trainers.step_scorers import LatentScorer, PixelScorer
from tests.trainers.helpers import assert_same_checkpoint

T, K, PROMPTS = 4, 3, 4


@pytest.fixture(scope="module")
def judge(tiny_sd, tmp_path_factory):
    """An untrained latent reward with a wide scale, so that untrained siblings differ."""
    reward = from_pipeline(tiny_sd, guidance=1)
    with torch.no_grad():
        reward.log_scale.add_(2.0)
    folder = tmp_path_factory.mktemp("judge")
    save(reward, folder)
    return folder


@pytest.fixture
def lpo_config(tiny_sd, judge, tmp_path):
    """Makes a small config: rounds of 4 prompts of 4 steps, 3 siblings, every pair valid."""

    def make(**changes: object) -> lpo.Config:
        base = {
            "model": str(tiny_sd),
            "output": tmp_path / "run",
            "prompts": "a red circle",
            "reward_options": {"path": str(judge)},
            "trackers": (),
            **{"num_steps": T, "collect_prompts": PROMPTS, "siblings": K, "rollout_batch": 2},
            **{"threshold_low": 0.0, "threshold_high": 0.0, "t_max": 999, "guidance": 2.0},
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
    """Counts the calls of a network and their rows."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.rows: list[int] = []
        module.register_forward_hook(
            lambda _, args, kwargs, __: self.rows.append(self._size(args, kwargs)), with_kwargs=True
        )

    @staticmethod
    def _size(args, kwargs) -> int:
        return len(args[0] if args else kwargs["sample"])


def test_a_round_has_the_best_and_the_worst_sibling_of_every_step(lpo_config):
    trainer = started(lpo_config())
    data = trainer.data
    assert len(data["order"]) == PROMPTS * T  # every step of Stable Diffusion's grid has noise
    assert data["x_s"].shape[1] == 2 and (data["scores"][:, 0] > data["scores"][:, 1]).all()
    assert data["order"].tolist() == list(range(PROMPTS * T))


def test_a_pair_below_its_threshold_is_left_out(lpo_config):
    trainer = started(lpo_config(siblings=2))
    scores = torch.tensor([[3.0, 0.0], [0.5, 0.6], [1.0, 1.0]])
    gaussian = Gaussian(torch.zeros(3, *trainer.shape), torch.full((1, 1, 1, 1), 0.3))
    siblings = torch.randn(3, 2, *trainer.shape)
    step = Step(1, torch.zeros(3, *trainer.shape), torch.tensor(501), torch.tensor(251), gaussian, siblings)
    trainer.cfg = lpo_config(siblings=2, threshold_low=0.5, threshold_high=0.5)
    rows = trainer._learnable(step, scores, torch.tensor([0, 0, 0]), [5, 6, 7])
    assert rows["order"].tolist() == [5 * T + 1]
    assert torch.equal(rows["x_s"][0], siblings[0])
    trainer.cfg = lpo_config(siblings=2, threshold_low=0.0, threshold_high=0.0)
    rows = trainer._learnable(step, scores, torch.tensor([0, 0, 0]), [5, 6, 7])
    assert len(rows["order"]) == 2  # a tie is no preference
    assert torch.equal(rows["x_s"][1], siblings[1].flip(0))


def test_one_policy_and_one_reference_forward_serve_a_pair(lpo_config):
    trainer = started(lpo_config())
    batch = trainer.batch(0, 0)
    counted = Counted(trainer.policy.unet)
    trainer.loss(batch)
    assert counted.rows == [2 * 4, 2 * 4]  # guided: twice the rows, once each


def test_the_shared_forward_is_the_loss_and_gradient_of_the_two_forward_form(lpo_config):
    trainer = started(lpo_config(beta=50.0))
    with torch.no_grad():
        for name, weight in trainer.state.trained.items():
            if "lora_B" in name:
                weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    batch, cfg = trainer.batch(0, 0), trainer.cfg

    def ratio(x_s: Tensor) -> Tensor:
        p = trainer.policy.step(batch.x_t, batch.t, batch.s, batch.cond, eta=1.0, guidance=cfg.guidance)
        with trainer.policy.reference():
            q = trainer.policy.step(batch.x_t, batch.t, batch.s, batch.cond, eta=1.0, guidance=cfg.guidance)
        low, high = math.log(1 - cfg.clip), math.log(1 + cfg.clip)
        return (p.log_prob(x_s) - q.log_prob(x_s)).clamp(low, high)

    weights = list(trainer.state.trained.values())
    one, _ = trainer.loss(batch)
    win, lose = batch.x_s.unbind(1)
    two = -torch.nn.functional.logsigmoid(cfg.beta * (ratio(win) - ratio(lose)))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    for a, b in zip(*(torch.autograd.grad(loss.mean(), weights) for loss in (one, two)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_a_rollout_runs_no_text_encoder_and_one_forward_a_step(lpo_config):
    trainer = lpo.Trainer(lpo_config())
    trainer._start()
    scorer = trainer.scorer
    assert isinstance(scorer, LatentScorer)
    texts = Counted(
        scorer.reward.backbone.text_encoder.text_model
        if hasattr(scorer.reward.backbone.text_encoder, "text_model")
        else scorer.reward.backbone.text_encoder
    )
    network, judge = Counted(trainer.policy.unet), Counted(scorer.reward.backbone.unet.conv_in)
    trainer._paths(0, [0, 1])
    assert texts.rows == []
    assert network.rows == [2 * 2] * T and judge.rows == [2 * K] * T


def test_the_judge_is_told_the_current_t(lpo_config):
    trainer = started(lpo_config())
    seen: list[int] = []

    class Judge(LatentReward):
        def score(self, latents, t, prompts):
            raise AssertionError

    scorer = trainer.scorer
    features = scorer.reward.backbone.features
    scorer.reward.backbone.features = lambda x, t, text: (seen.append(int(t[0])), features(x, t, text))[1]
    trainer._paths(0, [0])
    assert seen == trainer.times[:-1].tolist()


def test_only_steps_in_range_are_learnt_from(lpo_config):
    trainer = started(lpo_config(t_min=300, t_max=800))
    times = trainer.times.tolist()
    assert sorted(set(trainer.data["t"].tolist())) == sorted(t for t in times if 300 <= t <= 800)
    with pytest.raises(ValueError, match=r"got t_min=2, t_max=9, which no step of num_steps=4 falls into"):
        lpo.Trainer(lpo_config(t_min=2, t_max=9, output=trainer.cfg.output.with_name("other")))


def test_a_resumed_run_is_the_run_that_was_not_cut(lpo_config, tmp_path):
    whole = lpo_config(max_steps=6, checkpoint_every=1, checkpoint_limit=9)
    lpo.Trainer(whole).fit()
    for step in (2, 5):  # within a round, and beside its end
        cut = whole.model_copy(update={"output": tmp_path / f"cut-{step}", "max_steps": step})
        lpo.Trainer(cut).fit()
        again = cut.model_copy(update={"max_steps": 6, "resume": "latest"})
        lpo.Trainer(again).fit()
        assert_same_checkpoint(whole.output / "checkpoints", again.output / "checkpoints", 6)


def test_rounds_without_valid_rows_end_the_run_in_one_line(lpo_config, monkeypatch):
    monkeypatch.setattr(lpo, "BARREN", 2)
    trainer = lpo.Trainer(lpo_config(threshold_low=0.999999, threshold_high=0.999999))
    trainer._start()
    with pytest.raises(ValueError, match="got 2 rounds without 4 valid rows, an update's worth"):
        trainer.before_step()


def test_groups_are_all_siblings_and_their_first_loss_is_0(lpo_config):
    """At the sampling policy every ratio is 1 and standard scores have mean 0."""
    trainer = started(lpo_config(preset="grpo", siblings=K))
    batch = trainer.batch(0, 0)
    assert batch.x_s.shape[1] == K
    losses, metrics = trainer.loss(batch)
    torch.testing.assert_close(losses, torch.zeros_like(losses), rtol=0, atol=1e-4)
    torch.testing.assert_close(metrics["ratio"], torch.zeros_like(batch.scores), rtol=0, atol=1e-4)


def test_images_judge_through_the_next_step_s_x_0(lpo_config):
    trainer = started(
        lpo_config(
            preset="spo",
            reward="tests.trainers.brightness",
            reward_options={},
            threshold_low=0.0,
            threshold_high=0.0,
            t_max=999,
        )
    )
    scorer = trainer.scorer
    assert isinstance(scorer, PixelScorer)
    x = normal_rows(trainer.shape, [(1, i) for i in range(2 * K)]).unflatten(0, (2, K))
    gaussian = Gaussian(x[:, 0], torch.ones(1, 1, 1, 1))
    cond = trainer.prompts.cond(torch.tensor([0, 0]))
    step = Step(0, x[:, 0], trainer.times[0], trainer.times[1], gaussian, x)
    found = scorer.score(step, torch.tensor([0, 0]), cond)
    s = trainer.times[1].expand(1)
    one = {name: value[:1] for name, value in cond.items()}
    with torch.no_grad():
        out = trainer.policy.guided(x[1, 2][None], s, one, trainer.cfg.guidance)
        image = trainer.policy.decode(trainer.policy.posterior_mean(out, x[1, 2][None], s))
        torch.testing.assert_close(found[1, 2], scorer.reward(image, ["a red circle"])[0])
        last = Step(T - 1, x[:, 0], trainer.times[-2], trainer.times[-1], gaussian, x)
        decoded = scorer.score(last, torch.tensor([0, 0]), cond)
        torch.testing.assert_close(
            decoded[0, 1], scorer.reward(trainer.policy.decode(x[0, 1][None]), ["a red circle"])[0]
        )
