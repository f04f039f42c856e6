"""The table of docs/rewards_in_trainers.md is what the trainers do."""

from pathlib import Path

import pytest

import rewards
from tests.methods.plugged import CASES, DOC, TRAINERS, Case, World, outcome, parse, render
from tests.rewards import released_scorers as released

PAGE = DOC.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World.build(tmp_path_factory.mktemp("world"))


def test_the_page_is_the_rendered_table_of_all_cases():
    documented = parse(PAGE)
    assert documented.keys() == {(case.label, trainer) for case in CASES for trainer in TRAINERS}
    assert render(documented) == PAGE


@pytest.mark.rest
@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_one_step_of_every_trainer_with_every_reward(world: World, case: Case, trainer: str, tmp_path: Path):
    if trainer == "rewrite_grpo":
        pytest.importorskip("trl")
    assert outcome(world, case, trainer, tmp_path / "run") == parse(PAGE)[case.label, trainer]


@pytest.mark.rest
def test_a_trained_scorer_is_loaded_with_the_options_of_its_training(world: World, tmp_path: Path):
    (case,) = (case for case in CASES if case.name == "hpsv3")
    assert outcome(world, case, "reward", tmp_path / "run") == ""
    with pytest.MonkeyPatch.context() as patch:
        released.narrow(patch, world.weights)
        scorer = rewards.load("trained", weights=str(tmp_path / "run"))
    assert scorer.rubric == (world.weights / released.RUBRIC_FILE).read_text(encoding="utf-8")
