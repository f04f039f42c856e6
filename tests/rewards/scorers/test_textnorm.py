"""TextNorm: the paper's numbers, what it is invariant to, one encoding an image, and the fit of its scale."""

import json
import math

import numpy as np
import pytest
import torch

import rewards
from rewards.base import Reward
from rewards.scorers.textnorm import (
    TextNorm,
    TextNormEnsemble,
    fit_scale,
    normalised,
    pooled,
    toy_near_misses,
)
from rewards.toy.captions import parse
from t2ialign.evaluation.ranking import auroc
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.render import render


class Said(Reward):
    """Mean brightness times a number of the prompt plus another: everything about it is known."""

    def __init__(self, values, slopes=None):
        super().__init__()
        self.values, self.slopes, self.rows = values, slopes or {}, 0

    def score(self, images, prompts):
        self.rows += len(images)
        value = torch.tensor([self.values[p] for p in prompts], dtype=images.dtype)
        slope = torch.tensor([self.slopes.get(p, 0.0) for p in prompts], dtype=images.dtype)
        return value + slope * images.mean((1, 2, 3))


class Opaque(Said):
    differentiable = False


PAPER = {"y": 2.0, "c1": 1.5, "c2": 1.9}
IMAGE = torch.full((1, 3, 2, 2), 0.5)


@pytest.mark.parametrize(
    ("scale", "expected"), [(0.1, 0.340), (1, 0.398), (3, 0.509), (5, 0.592), (10, 0.727)]
)
def test_golden_numbers(scale, expected):
    reward = TextNorm(Said(PAPER), {"y": ["c1", "c2"]}, scale=scale)
    assert reward(IMAGE, ["y"]).item() == pytest.approx(expected, abs=5e-4)


def test_a_contrast_equal_to_the_prompt_takes_one_unit_of_the_odds():
    assert TextNorm(Said(PAPER), {"y": ["y"]}, scale=7.0)(IMAGE, ["y"]).item() == 0.5
    before = TextNorm(Said(PAPER), {"y": ["c1", "c2"]}, scale=3.0)(IMAGE, ["y"])
    after = TextNorm(Said(PAPER), {"y": ["c1", "c2", "y"]}, scale=3.0)(IMAGE, ["y"])
    assert (1 / after - 1 / before).item() == pytest.approx(1.0, abs=1e-5)


def test_invariances():
    rows = [torch.randn(n, dtype=torch.float64) for n in (2, 5, 33)]
    plain = normalised(rows, scale=2.0)
    assert torch.allclose(normalised([row + 1e3 for row in rows], scale=2.0), plain)
    assert torch.allclose(normalised([row / 4 - 9 for row in rows], scale=8.0), plain)
    shuffled = [torch.cat([row[:1], row[1:].flip(0)]) for row in rows]
    assert torch.allclose(normalised(shuffled, scale=2.0), plain)
    assert torch.allclose(normalised([torch.ones(4)], scale=5.0), torch.tensor([0.25]))
    whole = sum(normalised([row.roll(i) for row in rows[1:2]], scale=2.0) for i in range(5))
    assert whole.item() == pytest.approx(1.0), "over all prompts it is a distribution"


def test_forms_are_one_number_said_three_ways():
    rows = [torch.tensor([2.0, 1.5, 1.9]), torch.tensor([0.0, 1.0])]
    p = normalised(rows, scale=3.0)
    assert torch.allclose(normalised(rows, scale=3.0, form="log").exp(), p)
    assert torch.allclose(normalised(rows, scale=3.0, form="logit").sigmoid(), p)
    far = normalised([torch.tensor([0.0, 500.0])], scale=1.0, form="log")
    assert far.item() == -500.0, "no underflow"


def test_log_form_keeps_a_gradient_where_the_probability_has_none():
    contrasts = {"y": ["c"]}
    base = Said({"y": 0.0, "c": 100.0}, {"y": 1.0})
    grads = {}
    for form in ("probability", "log", "logit"):
        image = IMAGE.clone().requires_grad_()
        TextNorm(base, contrasts, scale=2.0, form=form)(image, ["y"]).sum().backward()
        grads[form] = image.grad.sum().item()
    assert grads["probability"] == 0.0
    # d log TN / d r = scale (1 - TN), and r is the mean of the pixels
    assert grads["log"] == pytest.approx(2.0)
    assert grads["logit"] == pytest.approx(2.0)


@pytest.mark.parametrize("form", ["probability", "log", "logit"])
def test_gradient_by_finite_differences(form):
    base = Said({"y": 0.3, "c1": 0.1, "c2": 0.9, "z": 0.0}, {"y": 2.0, "c1": -1.0, "c2": 0.5, "z": 1.0})
    reward = TextNorm(base, {"y": ["c1", "c2"], "z": ["y"]}, scale=3.0, form=form)
    images = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: reward.score(x, ["y", "z"]), images)


def test_differentiable_is_that_of_the_base():
    assert TextNorm(Said(PAPER), PAPER, scale=1.0).differentiable
    assert not TextNorm(Opaque(PAPER), PAPER, scale=1.0).differentiable
    members = [TextNorm(Said(PAPER), PAPER, scale=1.0), TextNorm(Opaque(PAPER), PAPER, scale=1.0)]
    assert TextNormEnsemble(members[:1]).differentiable
    assert not TextNormEnsemble(members).differentiable


def test_an_image_is_encoded_once_and_a_prompt_once():
    clip, prompts = rewards.load("toy-clip"), ["a red circle left of a blue square"] * 3 + ["a red circle"]
    counts = {"image": 0, "text": 0}
    encode_image, encode_text = clip.tower.encode_image, clip.tower.encode_text

    def image(pixels):
        counts["image"] += len(pixels)
        return encode_image(pixels)

    def text(texts):
        counts["text"] += len(texts)
        return encode_text(texts)

    clip.tower.encode_image, clip.tower.encode_text = image, text
    reward = TextNorm(clip, toy_near_misses, scale=20.0)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        scores = reward(images, prompts)
        unique = {p for prompt in prompts for p in (prompt, *reward.rivals(prompt))}
        assert counts == {"image": 4, "text": len(unique)}
        assert scores.shape == (4,)
        reward(images, prompts)
        assert counts == {"image": 8, "text": len(unique)}, "texts are kept"
        alone = torch.cat([reward(images[i : i + 1], prompts[i : i + 1]) for i in range(4)])
    assert torch.allclose(scores, alone, atol=1e-6)


def test_table_is_that_of_single_calls():
    base = Said({"y": 0.3, "c1": 0.1, "c2": 0.9, "z": 0.0}, {"y": 2.0, "c1": -1.0})
    reward = TextNorm(base, {"y": ["c1", "c2"], "z": ["y"]}, scale=3.0)
    images = torch.rand(2, 3, 2, 2)
    first, second = reward.table(images, [["y", "z"], ["z"]])
    assert torch.allclose(first, reward(images[[0, 0]], ["y", "z"]))
    assert torch.allclose(second, reward(images[1:], ["z"]))


def test_normalising_a_normalised_reward_works():
    inner = TextNorm(Said(PAPER), {"y": ["c1"], "c1": ["y"]}, scale=1.0, form="logit")
    outer = TextNorm(inner, {"y": ["c1"]}, scale=1.0)
    assert outer(IMAGE, ["y"]).item() == pytest.approx(1 / (1 + math.exp(-1.0)), abs=1e-6)  # 2 * (2 - 1.5)


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        ({"x": ["c1"]}, "got prompt 'y'; expected one with contrasts"),
        ({"y": []}, "got no list of contrasts for 'y'"),
        (lambda prompt: "c1", "got no list of contrasts"),
    ],
)
def test_a_prompt_without_contrasts_is_an_error(contrast, message):
    with pytest.raises(ValueError, match=message):
        TextNorm(Said(PAPER), contrast, scale=1.0)(IMAGE, ["y"])


def test_contrasts_are_made_once_for_a_prompt():
    looked_up = []

    def contrast(prompt):
        looked_up.append(prompt)
        return ["c1"]

    reward = TextNorm(Said(PAPER), contrast, scale=1.0)
    reward(IMAGE.expand(3, -1, -1, -1), ["y", "y", "c2"])
    reward(IMAGE, ["y"])
    assert looked_up == ["y", "c2"]


def test_bad_settings_are_refused():
    for scale in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="fit one with fit_scale"):
            TextNorm(Said(PAPER), PAPER, scale=scale)
    with pytest.raises(ValueError, match="got form 'softmax'"):
        TextNorm(Said(PAPER), PAPER, scale=1.0, form="softmax")
    member = TextNorm(Said(PAPER), PAPER, scale=1.0)
    for members, penalty, log in (([], 0.0, False), ([member], -0.1, False), ([member], 1.5, True)):
        with pytest.raises(ValueError, match="expected some, and a penalty"):
            TextNormEnsemble(members, penalty=penalty, log=log)


def test_ensemble_is_mean_minus_penalty_times_variance():
    sets = {"y": ["c1", "c2"]}
    members = [TextNorm(Said(PAPER), sets, scale=s) for s in (1.0, 10.0)]
    one, two = (m(IMAGE, ["y"]).item() for m in members)
    mean, variance = (one + two) / 2, ((one - two) / 2) ** 2
    assert TextNormEnsemble(members)(IMAGE, ["y"]).item() == pytest.approx(mean)
    regularised = TextNormEnsemble(members, penalty=0.5)(IMAGE, ["y"]).item()
    assert regularised == pytest.approx(mean - 0.5 * variance)
    log = TextNormEnsemble(members, penalty=0.5, log=True)(IMAGE, ["y"]).item()
    assert log == pytest.approx(math.log(mean - 0.5 * variance), abs=1e-6)


def test_pooled_logarithm_survives_tiny_probabilities():
    logs = torch.tensor([[-300.0], [-301.0]], dtype=torch.float32)
    value = pooled(logs, penalty=1.0, log=True).item()
    assert value == pytest.approx(-300.0 + math.log((1 + math.exp(-1)) / 2), abs=1e-3)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: pooled(z.log_softmax(0), penalty=1.0, log=True), x)
    bounded = pooled(torch.rand(5, 1000, dtype=torch.float64).log(), penalty=1.0)
    assert (bounded > 0).all()
    assert (bounded < 1).all(), "a penalty of up to 1 leaves it a probability"


def planted(scale, count, seed, contrasts=(2, 6)):
    """Rows of random scores and labels drawn from TextNorm's own odds at a known scale."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(*contrasts, (count,), generator=generator)
    rows = [torch.randn(1 + int(n), generator=generator, dtype=torch.float64) for n in sizes]
    p = (normalised(rows, scale=scale, form="logit") + 1.0).sigmoid()
    return rows, (torch.rand(count, generator=generator, dtype=torch.float64) < p).double()


@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0])
def test_fit_finds_a_planted_scale(scale):
    rows, labels = planted(scale, 4000, seed=0)
    fit = fit_scale(rows, labels)
    assert fit.scale == pytest.approx(scale, rel=0.15)
    assert fit.offset == pytest.approx(1.0, abs=0.3)


def test_fit_is_in_the_units_of_the_scorer():
    rows, labels = planted(2.0, 500, seed=1)
    fit, small = fit_scale(rows, labels), fit_scale([row / 50 + 3 for row in rows], labels)
    assert small.scale == pytest.approx(50 * fit.scale, rel=1e-3)
    assert small.loss == pytest.approx(fit.loss, abs=1e-6)


def test_fitted_loss_is_the_least():
    rows, labels = planted(3.0, 800, seed=2)
    fit = fit_scale(rows, labels)
    for scale in (0.3, 1.0, 2.0, 4.5, 9.0):
        logit = normalised(rows, scale=scale, form="logit")
        for offset in (fit.offset - 0.5, fit.offset, fit.offset + 0.5):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logit + offset, labels)
            assert loss.item() >= fit.loss


@pytest.mark.parametrize(
    ("scale", "count", "seed", "expected"),
    [
        (0.5, 4000, 0, (0.543828, 1.032634, 0.63451780)),
        (2.0, 4000, 0, (2.078655, 1.014054, 0.36508390)),
        (8.0, 4000, 0, (7.780658, 1.040345, 0.10494752)),
        (3.0, 800, 2, (3.013800, 0.937147, 0.27883499)),
    ],
)
def test_fit_gives_the_figures_of_a_search_by_golden_section_and_bisection(scale, count, seed, expected):
    """Scale and offset to 1e-4, since the loss is flat at its minimum, which is the same to 1e-8."""
    fit = fit_scale(*planted(scale, count, seed))
    assert (fit.scale, fit.offset) == pytest.approx(expected[:2], rel=1e-4)
    assert fit.loss == pytest.approx(expected[2], abs=1e-8)


def test_fit_takes_labels_of_almost_one_kind_and_scores_that_separate_them():
    rows, _ = planted(1.0, 50, seed=0)
    rare = torch.zeros(50, dtype=torch.float64)
    rare[0] = 1e-19
    assert math.isfinite(fit_scale(rows, rare).offset)
    best = torch.tensor([float(row[0] > row[1:].max()) for row in rows])
    assert fit_scale(rows, best).loss < 1e-6


def test_fit_says_what_it_cannot_use():
    rows = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    for labels, message in (
        (torch.ones(2), "labels all equal"),
        (torch.tensor([0.0, 2.0]), r"outside \[0, 1\]"),
        (torch.ones(3), "got 2 rows and 3 labels"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_scale(rows, labels)
    with pytest.raises(ValueError, match="tells prompts apart"):
        fit_scale([torch.zeros(2), torch.zeros(3)], torch.tensor([0.0, 1.0]))


def test_contrasts_of_the_toy_world_stay_in_its_grammar():
    for prompt in ("a red circle left of a blue square", "three red circles", "a red square and no circle"):
        contrasts = toy_near_misses(prompt)
        assert len(contrasts) > 5
        assert all(parse(text) for text in contrasts)


@pytest.mark.rest
def test_one_threshold_suits_all_prompts_better_than_on_its_base():
    """Renders of 60 captions and of their near misses in one ranking: raw scores differ by prompt."""
    reward, rng = rewards.load("toy-textnorm"), np.random.default_rng(0)
    texts, prompts = [], []
    for caption in draw_captions(60, 77, held_out=False, unique=True):
        rivals = [text for text in reward.rivals(caption) if parse(text) is not None]
        texts += [caption] * 6 + [rivals[i] for i in rng.integers(len(rivals), size=9)]
        prompts += [caption] * 15
    images = torch.from_numpy(render(texts, seed=3)).permute(0, 3, 1, 2).float() / 255
    labels = rewards.load("toy-oracle")(images, prompts)
    with torch.no_grad():
        base, better = (auroc(labels, scorer(images, prompts)) for scorer in (reward.base, reward))
    assert better > base + 0.01, (base, better)


def test_it_loads_by_name_and_from_published_sets(tmp_path):
    images = torch.rand(1, 3, 32, 32)
    ours = rewards.load("toy-textnorm")
    assert 0 < ours(images, ["a red circle"]).item() < 1
    assert ours.category("a red circle") == ours.base.category("a red circle")
    file = tmp_path / "sets.json"
    file.write_text(json.dumps({"a red circle": ["a blue circle"]}))
    read = rewards.load(
        "rewards.scorers.textnorm", base="toy-clip", contrast=str(file), scale=5.0, form="log"
    )
    assert read.rivals("a red circle") == ("a blue circle",)
    with torch.no_grad():
        red, blue = (read.base(images, [p]) for p in ("a red circle", "a blue circle"))
        expected = torch.nn.functional.logsigmoid(5 * (red - blue))
        assert torch.allclose(read(images, ["a red circle"]), expected, atol=1e-5)
    with pytest.raises(ValueError, match="got no base"):
        rewards.load("rewards.scorers.textnorm", scale=1.0)
    with pytest.raises(ValueError, match="fit one with fit_scale"):
        rewards.load("rewards.scorers.textnorm", base="toy-clip")
