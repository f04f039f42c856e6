"""The claims on online reinforcement learning, small: what is measured, resumed, counted and judged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import t2ialign
from scripts.experiments import grpo, online_cost, stepwise
from scripts.experiments.grpo import CLAIMS, FLOW, U_NET, Distance, Online, TwoRewards
from scripts.experiments.online_cost import CURVES, Cost, Work
from t2ialign.io import atomic, jsonl
from t2ialign.methods.grpo.trainer import Config, Trainer
from t2ialign.models.load import load_policy
from t2ialign.tasks.demo.settings import DEFAULT
from t2ialign.toy import preferences
from tests.experiments import judged_runs

pytestmark = pytest.mark.rest

ROUND = {
    "groups": 1,
    "group_size": 4,
    "updates": 1,
    "train_timesteps": 1,
    "batch_size": 4,
    "rollout_batch": 4,
}
FEW: dict[str, Any] = {
    **ROUND,
    **{"num_inference_steps": 2, "lora_rank": 2, "lr_warmup": 0, "max_steps": 1, "checkpoint_every": 1},
}


@pytest.mark.parametrize("training", [U_NET, FLOW], ids=["toy", "toy-flow"])
def test_online_is_measured_once_and_judged_at_each_models_best_guidance(
    tmp_path: Path, training: dict
) -> None:
    claim, folder = Online(training["model"], training | FEW), tmp_path / "seed-0"
    sizes: dict[str, Any] = {"prompts_per_round": 3, "choosing_prompts": 2, "curve_prompts": 2}
    sizes |= {"heldout_prompts": 4, "guidance_scales": (1, 2), "num_inference_steps": 2}
    claim.settings = replace(claim.settings, **sizes)
    claim.seeds = (0,)
    claim.measure(folder, 0)
    before = (folder / grpo.SECONDS).read_text()
    claim.measure(folder, 0)
    assert (folder / grpo.SECONDS).read_text() == before
    assert 0 < len((folder / grpo.PROMPTS).read_text().splitlines()) <= 3
    row, best = claim.rows([folder])
    assert not (row.holds or best.holds) and row.measured["aligned"]["count"] == 4
    (seed,) = row.measured["by_seed"]
    assert set(seed["guidance_scale"]) == {"base", "aligned"} and seed["seconds"] == row.measured["seconds"]
    assert "svg" in claim.figures([folder])[0].body

    for model, score in (("base", 0.0), ("aligned", 1.0)):
        rows = jsonl.read(folder / model / "scores.jsonl")
        jsonl.rewrite(folder / model / "scores.jsonl", [{**one, "score": score} for one in rows])
    assert [row.holds for row in claim.rows([folder])] == [True, True]
    seconds = json.loads((folder / grpo.SECONDS).read_text())
    atomic.write_json(folder / grpo.SECONDS, {**seconds, "training": 700})
    assert [row.holds for row in claim.rows([folder])] == [True, False], "it took longer than ten minutes"


def test_work_counts_what_a_round_takes(tmp_path: Path) -> None:
    """Eight images are judged before training, four in the round; each of its rows takes two forwards."""
    values = {**U_NET, **FEW, "prompts": "a red circle", "guidance_scale": 1, "kl_weight": 0.0}
    with Work() as work:
        t2ialign.train("grpo", **values, output=tmp_path / "run")
    assert (work.images, work.backwards) == (8 + 4, 4)
    assert work.forwards == 2 * (8 + 4) + 2 * 4, "two steps an image; policy and sampling policy for each row"
    policy = load_policy("toy")
    x_t, cond = torch.zeros(3, *policy.latent_shape(32, 32)), policy.encode_prompts(["a red circle"] * 3)
    policy.guided(x_t, torch.full((3,), 500.0), cond, 1.0)
    assert work.forwards == 2 * (8 + 4) + 2 * 4, "nothing is counted outside of the block"


def test_costs_are_counted_until_the_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepwise, "GUIDANCE", (1.0,))
    monkeypatch.setattr(online_cost, "MOST", {"nft": 2})
    monkeypatch.setattr(online_cost, "EVERY", 1)
    monkeypatch.setattr(preferences, "judge_samples", lambda folder: [True, False] * 2)
    claim, folder = Cost(), tmp_path / "seed-0"
    claim.captions, claim.choosing, claim.heldout = 4, 2, 4
    claim.online = {"nft": {**U_NET, **FEW}}
    few = {key: FEW[key] for key in ("num_inference_steps", "lora_rank", "lr_warmup")}
    claim.others = {
        "backprop": {**online_cost.OTHERS["backprop"], **few, "k": 1, "batch_size": 2, "max_steps": 2}
    }
    training = {**DEFAULT.training, "max_steps": 1, "lora_rank": 2, "lr_warmup": 0, "batch_size": 1}
    claim.rounds = replace(DEFAULT, images_per_prompt=2, num_inference_steps=2, training=training)
    verdicts = iter(
        [[0.0] * 2, [0.0] * 4, [0.0] * 2, [0.0] * 4, [0.0] * 2, [0.0, 1.0, 0.0, 0.0], *[[1.0] * 4] * 9]
    )
    monkeypatch.setattr(stepwise, "oracle_on", lambda lora, prompts, seed, sampler: next(verdicts))
    claim.measure(folder, 0)
    lines = {line["method"]: line for line in jsonl.read(folder / CURVES)}
    assert list(lines) == ["base", "nft", "dpo", "backprop"]
    assert [point["step"] for point in lines["nft"]["curve"]] == [0, 1, 2]
    assert [point["step"] for point in lines["dpo"]["curve"]] == [0, 1], "the first round was enough"
    assert lines["dpo"]["curve"][1]["images"] == 2 * 2
    assert 0 < lines["nft"]["curve"][1]["forwards"] < lines["nft"]["curve"][2]["forwards"]
    (row,) = claim.rows([folder])
    assert row.holds and row.measured["methods"]["nft"]["gain"]["mean"] == 0.25
    assert row.measured["base"]["mean"] == 0
    assert [figure.title.split()[-1] for figure in claim.figures([folder])] == ["forwards", "images"]
    before = (folder / CURVES).read_text()
    claim.measure(folder, 0)
    assert (folder / CURVES).read_text() == before


@pytest.mark.parametrize("method", online_cost.ONLINE)
def test_every_preset_has_settings_that_fit(method: str, tmp_path: Path) -> None:
    values = {**online_cost.ONLINE[method], "prompts": "a red circle", "output": tmp_path / "run"}
    trainer = Trainer(Config(**values))
    assert trainer.cfg.preset == method
    assert (
        trainer.cfg.accumulate * trainer.cfg.batch_size * trainer.cfg.updates
        == trainer.cfg.images * trainer.levels
    )


@pytest.mark.parametrize("kind", [Distance, TwoRewards])
def test_two_watched_runs_are_measured_and_judged(tmp_path: Path, kind: type) -> None:
    claim, folder = kind(), tmp_path / "seed-0"
    claim.training = {**claim.training, **FEW, "evaluate_every": 1, "monitor_steps": 2}
    claim.train_prompts, claim.heldout_prompts, claim.seeds = 3, 3, (0,)
    claim.measure(folder, 0)
    rows = claim.rows([folder])
    assert not rows[0].holds, "one update changes nothing"
    assert set(rows[0].measured["changes"]) >= (
        {"accuracy"} if kind is Distance else {"oracle", "saturation"}
    )
    assert len(claim.figures([folder])) == 2


def watched(folder: Path, accuracy: list[float], scores: dict[str, list[float]], statistics: dict) -> None:
    """A judged run of means by step, with the same spread over captions at each."""

    def at(table: dict[str, list[float]]) -> judged_runs.Numbers:
        return lambda step, number: {name: means[step] + number / 1000 for name, means in table.items()}

    passed = {step: [float(number < 40 * one) for number in range(40)] for step, one in enumerate(accuracy)}
    judged_runs.write(folder, passed, at(scores), at(statistics))


@pytest.mark.parametrize(
    "trained, held, lost_and_held, in_time",
    [
        ([0.0, 1.0, 2.0], 0.5, True, True),
        ([0.0, 2.0, 2.0], 0.5, True, False),
        ([0.0, 1.0, 2.0], 0.1, False, False),
    ],
)
def test_a_distance_has_to_hold_and_the_monitor_to_fire(
    tmp_path: Path, trained: list[float], held: float, lost_and_held: bool, in_time: bool
) -> None:
    """Without it accuracy and held-out numbers fall at step 2; nothing fires if the reward rises no more."""
    claim = Distance()
    claim.seeds = (0,)
    watched(
        tmp_path / "without",
        [0.5, 0.5, 0.1],
        {"trained": trained, "toy-clip-b": [0.6, 0.6, 0.3]},
        {"diversity": [0.3, 0.3, 0.1]},
    )
    watched(
        tmp_path / "with",
        [0.5, 0.5, held],
        {"trained": trained, "toy-clip-b": [0.6] * 3},
        {"diversity": [0.3] * 3},
    )
    lost, noticed = claim.rows([tmp_path])
    assert (lost.holds, noticed.holds) == (lost_and_held, in_time)
    assert noticed.measured["without"][0]["first_significantly_below"] == 2


@pytest.mark.parametrize("easy, holds", [(0.3, True), (0.1, False)])
def test_gdpo_has_to_raise_both(tmp_path: Path, easy: float, holds: bool) -> None:
    claim = TwoRewards()
    claim.seeds = (0,)
    scores = {"trained": [0.0, 1.0, 2.0]}
    watched(tmp_path / "gdpo", [0.5, 0.5, 0.7], scores, {"saturation": [0.1, 0.1, easy]})
    watched(tmp_path / "scores", [0.5, 0.5, 0.8], scores, {"saturation": [0.1] * 3})
    (row,) = claim.rows([tmp_path])
    assert row.holds is holds


def test_the_claims_have_texts_of_their_own() -> None:
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)
    assert json.dumps([U_NET, FLOW])
