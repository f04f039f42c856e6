"""The light head: it learns what CLIP's embeddings hold of a key point, and nothing from shuffled labels."""

import json

import numpy as np
import pytest
import torch

import rewards
from rewards.keypoints import evaluator_head
from rewards.keypoints.evaluator_head import Features, HeadChecker, MatchHead, features
from rewards.keypoints.oracle import shown, toy_points
from rewards.keypoints.taxonomy import KeyPoint
from rewards.scorers.textnorm import toy_near_misses
from rewards.toy.vision import read_things
from t2ialign.methods.evaluator import fit as evaluator_fit
from t2ialign.methods.evaluator.fit import Schedule, balanced_accuracy, fit
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.render import render

pytestmark = pytest.mark.rest

POINT = KeyPoint("counting", "two red circles")


@pytest.fixture(scope="module")
def base():
    return rewards.load("toy-clip")


@pytest.fixture(scope="module")
def pairs(base) -> tuple[Features, torch.Tensor, list[str]]:
    """Captions judged on renders of themselves and of near misses, labelled by the oracle."""
    captions = list(dict.fromkeys(draw_captions(300, 0, held_out=False)))
    drawn, user_prompts = [], []
    for row, caption in enumerate(captions):
        misses = np.random.default_rng(row).permutation(toy_near_misses(caption))[:3].tolist()
        drawn += [caption, *misses]
        user_prompts += [caption] * (1 + len(misses))
    pixels = render(drawn, 0) / 255
    points = [toy_points(caption) for caption in user_prompts]
    labels = []
    for image, points_here in zip(pixels, points, strict=True):
        things = read_things(image)
        labels += [float(shown(point, things)) for point in points_here]
    embedded = features(base, torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), points)
    prompts = [
        caption for caption, points_here in zip(user_prompts, points, strict=True) for _ in points_here
    ]
    return embedded, torch.tensor(labels), prompts


def test_a_fitted_head_beats_chance_on_new_prompts_and_shuffled_labels_do_not(pairs):
    embedded, labels, prompts = pairs
    fitted = fit(embedded, labels, prompts)
    assert fitted.accuracy > 0.65
    assert 1 < len(fitted.losses) < Schedule().epochs  # it stopped early
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    by_chance = fit(embedded, shuffled, prompts)
    assert abs(by_chance.accuracy - 0.5) < 0.08
    again = fit(embedded, labels, prompts)
    assert again.accuracy == fitted.accuracy and again.losses == fitted.losses


def test_a_rule_that_the_embeddings_hold_is_learned_and_the_base_rate_is_not():
    """Whether image and text agree in the sign of their first axis; matches are nine in ten of one kind."""
    made = torch.Generator().manual_seed(0)
    image, text = (
        torch.nn.functional.normalize(torch.randn(2000, 8, generator=made), dim=-1) for _ in range(2)
    )
    labels = (image[:, 0] * text[:, 0] > 0).float()
    kind = torch.arange(2000) % 2
    keep = (kind == 0) | (labels == 1) | (torch.rand(2000, generator=made) < 0.1)
    known = Features(image, text, kind)[keep.nonzero().squeeze()]
    prompts = list(range(len(known)))
    fitted = fit(known, labels[keep], prompts, Schedule(epochs=40))
    assert fitted.accuracy > 0.9
    held = torch.tensor(evaluator_fit._held_out(prompts, Schedule()))
    rare = held & (known.kind == 1)
    assert labels[keep][rare].mean() > 0.85
    odds = fitted.head(known[rare.nonzero().squeeze()])
    assert balanced_accuracy(odds, labels[keep][rare], known.kind[rare]) > 0.75
    assert fitted.losses[-1] > min(fitted.losses) or len(fitted.losses) == 40


def test_what_a_head_weighs_and_counts_by_hand():
    kind, labels = torch.tensor([0, 0, 0, 0, 2, 2]), torch.tensor([1.0, 1, 1, 0, 0, 1])
    torch.testing.assert_close(
        evaluator_fit._weights(kind, labels), torch.tensor([2 / 3, 2 / 3, 2 / 3, 2, 1, 1])
    )
    odds = torch.tensor([1.0, 2, -1, -3, 4, 1])  # 2/3 and 1/1 of the first kind, 0 and 1 of the other
    assert balanced_accuracy(odds, labels, kind) == pytest.approx((4 * 5 / 6 + 2 * 1 / 2) / 6)
    lone = torch.tensor([0, 0, 0, 0, 2, 3])  # kinds of one label say nothing
    assert balanced_accuracy(odds, labels, lone) == pytest.approx(5 / 6)
    assert balanced_accuracy(odds, torch.ones(6), kind) is None


def test_a_head_is_fitted_where_no_kind_has_both_labels_in_the_held_out_part():
    count = 20
    held = torch.tensor(evaluator_fit._held_out(range(count), Schedule()))
    labels = torch.arange(count) % 2
    labels[held] = torch.tensor([0, 0, 1, 1])
    kind = torch.where(held, labels, 0)  # of the held out, one kind has the mismatches, another the matches
    image, text = torch.rand(2, count, 3, generator=torch.Generator().manual_seed(0))
    fitted = fit(Features(image, text, kind), labels.float(), list(range(count)), Schedule(epochs=2))
    assert fitted.accuracy is None and len(fitted.losses) == 2


def test_all_pairs_of_a_prompt_are_on_one_side():
    prompts = [f"prompt {row % 10}" for row in range(50)]
    held = evaluator_fit._held_out(prompts, Schedule(held_out=0.3))
    assert sum(held) == 15
    assert not {p for p, h in zip(prompts, held, strict=True) if h} & {
        p for p, h in zip(prompts, held, strict=True) if not h
    }


def test_an_image_is_encoded_once_for_all_its_key_points(base):
    seen = []
    handle = base.tower.model.vision_model.register_forward_hook(
        lambda _m, _a, kw, _o: seen.append(len(kw["pixel_values"])), with_kwargs=True
    )
    checker = HeadChecker(base, MatchHead(64))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    questions = [[("a", POINT), ("a", KeyPoint("negation", "no circle"))] * 2, [("b", POINT)]]
    verdicts = checker.check(images, questions)
    handle.remove()
    assert seen == [2]
    assert [[verdict.point for verdict in row] for row in verdicts] == [
        [p for _, p in row] for row in questions
    ]
    (alone,) = checker.check(images[1:], questions[1:])
    assert alone[0].match == pytest.approx(verdicts[1][0].match, abs=1e-6)
    assert verdicts[0][0].match != verdicts[0][1].match and verdicts[0][0].match != verdicts[1][0].match
    assert checker.check(images, [[], []]) == [[], []]


def test_a_saved_head_judges_as_before(base, pairs, tmp_path):
    embedded, labels, prompts = pairs
    head = fit(embedded, labels, prompts, Schedule(epochs=2)).head
    evaluator_head.save(head, tmp_path, reward="toy-clip")
    towers: dict = {}
    loaded = rewards.load(
        "evaluator", backend="head", weights=str(tmp_path), points=toy_points, towers=towers
    )
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (one,) = loaded.judge(images[:1], ["two red circles"])
    (wanted,) = HeadChecker(base, head).check(
        images[:1], [[("", point) for point in toy_points("two red circles")]]
    )
    assert [v.match for v in one.verdicts] == pytest.approx([v.match for v in wanted], abs=1e-6)
    assert len(towers) == 1 and one.score == pytest.approx(sum(v.match for v in wanted) / 2)
    about = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps({**about, "kinds": about["kinds"][::-1]}))
    with pytest.raises(ValueError, match=r"expected 1 and those of keypoints\.json"):
        evaluator_head.load(tmp_path)
    (tmp_path / "head.json").write_text(json.dumps({**about, "reward": "toy-oracle"}))
    with pytest.raises(ValueError, match="got ToyOracle; expected a two-tower"):
        evaluator_head.load(tmp_path)
    module = "rewards.toy.clip"  # code, and so named by the user
    (tmp_path / "head.json").write_text(json.dumps({**about, "reward": module}))
    with pytest.raises(
        ValueError, match=r"got reward 'rewards\.toy\.clip' in .*head\.json; expected one that"
    ):
        rewards.load("evaluator", backend="head", weights=str(tmp_path))
    again = rewards.load("evaluator", backend="head", weights=str(tmp_path), reward=module, points=toy_points)
    assert again.judge(images[:1], ["two red circles"])[0].score == pytest.approx(one.score, abs=1e-6)
    with pytest.raises(ValueError, match=r"without head\.json"):
        evaluator_head.load(tmp_path / "none")


def test_pairs_that_do_not_fit():
    some = Features(torch.rand(4, 3), torch.rand(4, 3), torch.zeros(4, dtype=torch.long))
    labels = torch.tensor([0.0, 1, 0, 1])
    for wrong, prompts, message in (
        (labels[:3], list("abcd"), r"got 4 pairs, labels \(3,\) and 4 prompts"),
        (labels, list("abc"), "and 3 prompts"),
        (labels * 0.5, list("abcd"), "neither 0 nor 1"),
        (torch.ones(4), list("abcd"), "of one label"),
        (labels, list("aaaa"), "got pairs left to fit of one label"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(some, wrong, prompts)
