"""The claims on rewards, whole but small: what is measured, that it goes on after a kill, the verdict."""

import json
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml

import rewards
from rewards.scorers.textnorm import TextNorm
from rewards.toy.captions import parse
from scripts.experiments import textnorm, trained
from scripts.experiments.pal import PalClaim
from scripts.experiments.textnorm import TextNormClaim
from scripts.experiments.trained import TRAINING, TrainedClaim
from t2ialign.data.pairs import read_pairs
from t2ialign.evaluation import calibrate
from t2ialign.io import jsonl, manifest
from t2ialign.toy.captions import is_held_out
from t2ialign.toy.render import render

pytestmark = pytest.mark.rest

ROOT = Path(__file__).resolve().parents[2]


class SmallTextNorm(TextNormClaim):
    seeds, scorers, tested, fitted, images, batch = (0,), ("toy-clip",), 2, 1, 6, 18


class SmallPal(PalClaim):
    seeds, populations, images = (0, 1), 1, 60
    options: ClassVar = {"users": 4, "votes": 10, "width": 8}


class SmallTrained(TrainedClaim):
    seeds, train_prompts, test_prompts = (0,), 12, 12
    train_per_prompt = test_per_prompt = 4
    training: ClassVar = {
        **TRAINING,
        "max_steps": 2,
        "batch_size": 4,
        "holdout": 0.3,
        "evaluate_every": 1,
        "trackers": (),
    }


@pytest.fixture(scope="module")
def textnorm_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("textnorm") / "seed-0"
    SmallTextNorm().measure(folder, 0)
    return folder


def test_textnorm_samples_every_prompt_of_every_set_once(textnorm_run: Path) -> None:
    lines = jsonl.read(textnorm_run / textnorm.JOURNAL)
    assert [line["category"] for line in lines] == ["count"] * 3 + ["pair"] * 3 + ["relation"] * 3
    assert len({line["prompt"] for line in lines}) == 9
    for line in lines:
        assert parse(line["prompt"]).category == line["category"]
        assert len(line["labels"]) == 6 and set(line["labels"]) <= {0.0, 1.0}
        assert {len(row) for row in line["toy-clip"]} == {1 + len(textnorm.contrasts(line["prompt"]))}


def test_textnorm_goes_on_and_is_the_same_whatever_was_there(textnorm_run: Path, tmp_path: Path) -> None:
    shutil.copytree(textnorm_run, tmp_path / "cut")
    file = tmp_path / "cut" / textnorm.JOURNAL
    whole = file.read_text()
    file.write_text("".join(whole.splitlines(keepends=True)[:4]) + '{"category": "pa')
    SmallTextNorm().measure(tmp_path / "cut", 0)
    ours, theirs = jsonl.read(file), jsonl.read(textnorm_run / textnorm.JOURNAL)
    for a, b in zip(ours, theirs, strict=True):
        assert (a["prompt"], a["labels"]) == (b["prompt"], b["labels"])
        np.testing.assert_allclose(a["toy-clip"], b["toy-clip"], atol=1e-5)


def test_textnorm_is_judged_by_hand(tmp_path: Path) -> None:
    """Scores made so that the raw score misleads and the contrast tells: AUROC 0 against 1, on any scale."""
    claim = SmallTextNorm()
    file = tmp_path / textnorm.JOURNAL
    for category, prompt, _ in claim.prompts(0):
        labels = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
        raw = [[0.1 + i / 100 + 0.3 * (1 - y), 0.05 + i / 100 + 0.6 * (1 - y)] for i, y in enumerate(labels)]
        jsonl.append(file, [{"category": category, "prompt": prompt, "labels": labels, "toy-clip": raw}])
    found = claim.rows([tmp_path])
    assert [row.claim.split(" ")[7] for row in found[:3]] == ["counting", "composition", "relation"]
    assert len(found) == 6  # of one scorer, and of the ensemble, which is it alone
    for row in found:
        assert row.measured["auroc_raw"] == 0 and row.measured["auroc_textnorm"] == 1
        assert row.ci95 == (1, 1) and row.holds
    figure, _ = claim.figures([tmp_path])
    assert "counting: raw 0.0%, TextNorm 100.0%" in figure.body


def test_textnorm_never_fits_on_what_it_tests() -> None:
    claim = TextNormClaim()
    for seed in claim.seeds:
        numbered = claim.prompts(seed)
        fitted = {text for _, text, number in numbered if number % 1000 < claim.fitted}
        tested = {text for _, text, number in numbered if number % 1000 >= claim.fitted}
        assert len(fitted) == 3 * claim.fitted and len(tested) == 3 * claim.tested and not fitted & tested
    assert claim.images == 50 and claim.prompts(0) != claim.prompts(1)


def test_pal_measures_both_heads_and_judges_all_populations(tmp_path: Path) -> None:
    claim, folders = SmallPal(), [tmp_path / "0", tmp_path / "1"]
    for seed, folder in enumerate(folders):
        claim.measure(folder, seed)
    before = (folders[0] / "populations.jsonl").read_text()
    claim.measure(folders[0], 0)
    assert (folders[0] / "populations.jsonl").read_text() == before
    found = claim.rows(folders)
    assert [row.claim.split(" ")[0] for row in found] == ["PAL-A", "PAL-B"]
    lines = [json.loads(line) for folder in folders for line in (folder / "populations.jsonl").open()]
    for row, kind in zip(found, "ab", strict=True):
        mine = [line["pal"] for line in lines if line["kind"] == kind]
        assert row.measured["pal"]["mean"] == pytest.approx(np.mean(mine))
        assert row.ci95 == (min(mine), max(mine)) and row.measured["pal"]["prompts"] == 2
    assert len(claim.figures(folders)) == 2


def test_pal_embeds_unit_vectors_and_opposite_tastes() -> None:
    images, tastes, text = SmallPal().embedded(0)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(60))
    assert tastes.shape == (2, 60) and text.shape[1] == images.shape[1]
    assert np.corrcoef(tastes)[0, 1] < -0.9


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "seed-0"
    SmallTrained().measure(folder, 0)
    return folder


def test_training_and_test_share_no_caption_and_no_seed(trained_run: Path) -> None:
    train, test = (manifest.read(trained_run / name) for name in ("train", "test"))
    assert not any(is_held_out(row.prompt) for row in train) and all(is_held_out(row.prompt) for row in test)
    assert not {row.seed for row in train} & {row.seed for row in test}


def test_margins_are_the_scorers_own_on_the_held_out_pairs(trained_run: Path) -> None:
    found = json.loads((trained_run / trained.SCORES).read_text())
    records = list(read_pairs(str(trained_run / "test.jsonl")))
    assert found["prompts"] == [record.prompt for record in records]
    scorer = rewards.load("trained", weights=str(trained_run / "training"))
    from t2ialign.evaluation.manifest_scores import read_image

    sides = [torch.stack([read_image(getattr(r, side)) for r in records]) for side in ("win", "lose")]
    with torch.no_grad():
        win, lose = (scorer(images, found["prompts"]) for images in sides)
    np.testing.assert_allclose(found["margins"]["trained"], (win - lose).numpy(), atol=1e-5)
    (row,) = SmallTrained().rows([trained_run])
    wanted = calibrate.pairwise_accuracy(found["margins"]["base"], np.ones(len(records)))
    assert row.measured["base"]["mean"] == pytest.approx(wanted)
    assert not row.holds or row.measured["trained"]["ci95"][0] > row.measured["base"]["ci95"][1]
    assert len(SmallTrained().figures([trained_run])) == 2


def test_a_second_call_makes_nothing_again(trained_run: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in trained_run.rglob("*") if file.is_file()}
    SmallTrained().measure(trained_run, 0)
    assert {file: file.stat().st_mtime_ns for file in trained_run.rglob("*") if file.is_file()} == before


def test_the_recipe_trains_as_the_proof_does() -> None:
    recipe = yaml.safe_load((ROOT / "scripts" / "configs" / "reward_toy.yaml").read_text())
    assert {key: value for key, value in recipe.items() if key not in ("data", "output")} == TRAINING


def test_contrasts_are_captions_that_the_prompts_own_images_fail() -> None:
    """Drawn scenes of a caption pass it and fail every contrast, by the oracle."""
    oracle = rewards.load("toy-oracle")
    prompts = ["a red circle and a blue square", "a red circle above a blue circle", "two green crosses"]
    for prompt in prompts:
        image = torch.from_numpy(render([prompt], 0)).permute(0, 3, 1, 2).float() / 255
        rivals = textnorm.contrasts(prompt)
        assert len(rivals) == len(set(rivals)) >= 6 and prompt not in rivals
        passed = oracle.table(image, [[prompt, *rivals]])[0].tolist()
        assert passed == [1.0] + [0.0] * len(rivals), dict(zip(rivals, passed[1:], strict=True))


def test_the_journal_has_what_textnorm_gives(textnorm_run: Path) -> None:
    """The journal's rows are those of TextNorm.raw, the prompt's own score first."""
    line = jsonl.read(textnorm_run / textnorm.JOURNAL)[0]
    scorer = TextNorm(rewards.load("toy-clip"), textnorm.contrasts, scale=1.0)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    raw = scorer.raw(images, [line["prompt"]] * 2)
    plain = rewards.load("toy-clip")(images, [line["prompt"]] * 2)
    torch.testing.assert_close(torch.stack([row[0] for row in raw]), plain, rtol=1e-4, atol=1e-5)
    assert len(raw[0]) == len(line["toy-clip"][0])
