"""Combinations: golden numbers, slopes, nesting, gradients, thresholds."""

import json
import math

import pytest
import torch

import rewards
from rewards.base import Reward
from rewards.combine import LSC, AllAbove, WeightedSum, leave_one_out_quantile, reference_quantiles


class Channel(Reward):
    """Mean of one colour channel."""

    def __init__(self, index):
        super().__init__()
        self.index = index

    def score(self, images, prompts):
        return images[:, self.index].mean((1, 2))

    def category(self, prompt):
        return "grey" if self.index == 2 else None


class Rule(Channel):
    differentiable = False


def make_image(*channels):
    return torch.tensor(channels, dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 2, 2).clone()


MEMBERS = {"red.1": Channel(0), "green": Channel(1)}  # a dot, as in hpsv2.1
PROMPTS = ["p"]


def test_weighted_sum_by_hand():
    reward = WeightedSum(MEMBERS, {"red.1": 2.0, "green": -0.5})
    assert reward(make_image(0.5, 0.2, 0.9), PROMPTS).item() == pytest.approx(0.9)


def lsc(**options):
    given = {"references": {"red.1": 0.5, "green": {"p": 0.25}}, "scales": {"red.1": 1.0, "green": 1.0}}
    return LSC(MEMBERS, **{**given, **options})


def test_lsc_at_the_reference_is_half_for_each_property():
    assert lsc()(make_image(0.5, 0.25, 0.0), PROMPTS).item() == pytest.approx(2 * math.log(0.5))


def test_lsc_is_the_logarithm_of_a_product_of_sigmoids():
    scores = lsc(scales={"red.1": 0.1, "green": 2.0})(make_image(0.6, 0.0, 0.0), PROMPTS).item()
    product = 1 / (1 + math.exp(-1.0)) * 1 / (1 + math.exp(0.125))
    assert scores == pytest.approx(math.log(product))


def test_lsc_slope_is_sigmoid_of_what_is_missing():
    """d/dr log sigmoid((r - q) / tau) = sigmoid((q - r) / tau) / tau; at r = q with tau = 1, one half."""
    for red, tau in ((0.5, 1.0), (0.9, 0.1), (0.1, 0.1)):
        image = make_image(red, 0.25, 0.0).requires_grad_()
        lsc(scales={"red.1": tau, "green": 1.0})(image, PROMPTS).sum().backward()
        slope = image.grad[0, 0].sum().item()
        assert slope == pytest.approx(1 / (1 + math.exp((red - 0.5) / tau)) / tau)
    assert not image.grad[0, 2].any()


def test_lsc_weights():
    weighted = lsc(weights={"red.1": 3.0, "green": 0.0})
    assert weighted(make_image(0.5, 0.9, 0.0), PROMPTS).item() == pytest.approx(3 * math.log(0.5))


def test_lsc_needs_a_reference_of_each_prompt():
    with pytest.raises(ValueError, match="got prompt 'q', which has no reference of green"):
        lsc()(make_image(0.5, 0.5, 0.5), ["q"])


def test_thresholds_are_an_and():
    reward = AllAbove(MEMBERS, {"red.1": 0.5, "green": 0.25})
    images = torch.cat(
        [make_image(0.5, 0.25, 0), make_image(0.9, 0.2, 0), make_image(0.4, 0.9, 0), make_image(1, 1, 0)]
    )
    assert reward(images, PROMPTS * 4).tolist() == [1.0, 0.0, 0.0, 1.0]
    assert not reward.differentiable


def test_combinations_nest_and_gradients_flow():
    inner = WeightedSum(MEMBERS, {"red.1": 1.0, "green": 1.0})
    outer = LSC(
        {"sum": inner, "blue": Channel(2)}, {"sum": 1.0, "blue": 0.5}, scales={"sum": 1.0, "blue": 1.0}
    )
    images = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: outer.score(x, ["p", "p"]), images)
    assert outer.differentiable
    assert outer.category("p") == "grey"
    assert inner.category("p") is None


def test_differentiable_is_derived_from_the_members():
    rule = WeightedSum({"a": Channel(0), "b": Rule(1)}, {"a": 1.0, "b": 1.0})
    assert not rule.differentiable
    assert not WeightedSum({"rule": rule}, {"rule": 1.0}).differentiable
    assert WeightedSum(MEMBERS, {"red.1": 1.0, "green": 1.0}).differentiable


def test_a_prompt_is_needed_where_a_member_needs_one():
    class Plain(Channel):
        needs_text = False

    plain = WeightedSum({"a": Plain(0), "b": Plain(1)}, {"a": 1.0, "b": 1.0})
    assert not plain.needs_text and plain(torch.rand(2, 3, 2, 2), ["", ""]).shape == (2,)
    assert WeightedSum({"plain": plain, "c": Channel(2)}, {"plain": 1.0, "c": 1.0}).needs_text


def test_table_is_that_of_single_calls():
    reward = LSC(MEMBERS, {"red.1": {"p": 0.1, "q": 0.9}, "green": 0.5}, scales={"red.1": 1.0, "green": 1.0})
    images = torch.rand(2, 3, 2, 2)
    first, second = reward.table(images, [["p", "q"], ["q"]])
    assert torch.allclose(first, reward(images[[0, 0]], ["p", "q"]))
    assert torch.allclose(second, reward(images[1:], ["q"]))
    assert first[0] > first[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightedSum({}, {}), "got no members"),
        (
            lambda: WeightedSum(MEMBERS, {"red.1": 1.0}),
            "got weights for red.1; expected one each for red.1, green",
        ),
        (lambda: AllAbove(MEMBERS, {}), "got thresholds for nobody"),
        (lambda: lsc(scales={"red.1": 1.0, "green": 0.0}), "got scales {'green': 0.0}; expected positive"),
        (lambda: lsc(references={"green": 0.0}), "got references for green"),
    ],
)
def test_settings_that_do_not_match_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parts_move_with_the_module():
    class Weighted(Channel):
        def __init__(self):
            super().__init__(0)
            self.w = torch.nn.Parameter(torch.ones(1))

    reward = WeightedSum({"a.b": Weighted()}, {"a.b": 1.0})
    assert [name for name, _ in reward.named_parameters()] == ["parts.0.w"]
    assert reward.double().members["a.b"].w.dtype == torch.float64


def test_reference_quantiles_by_hand():
    scores = torch.tensor([0.0, 10.0, 1.0, 2.0, 3.0, 4.0])
    quantiles = reference_quantiles(scores, ["a", "b", "a", "a", "a", "a"])
    assert quantiles == {"a": pytest.approx(3.4), "b": 10.0}  # 0.85 of the way through 0, 1, 2, 3, 4
    with pytest.raises(ValueError, match=r"got scores \(6,\), 1 prompts"):
        reference_quantiles(scores, ["a"])


def test_leave_one_out_quantile_by_hand():
    quantiles = leave_one_out_quantile(torch.tensor([[0.0, 1.0, 5.0], [2.0, 2.0, 2.0]]), quantile=0.5)
    assert quantiles.tolist() == [[3.0, 2.5, 0.5], [2.0, 2.0, 2.0]]
    with pytest.raises(ValueError, match="got 1 image a group"):
        leave_one_out_quantile(torch.ones(3, 1))


def test_combinations_load_by_name(tmp_path):
    images, prompts = torch.rand(2, 3, 32, 32), ["a red circle", "a blue square"]
    clip, other = rewards.load("toy-clip"), rewards.load("toy-clip-b")
    members = {"toy-clip": 2.0, "toy-clip-b": 0.5}
    with torch.no_grad():
        a, b = clip(images, prompts), other(images, prompts)
        scores = rewards.load("rewards.combine", members=members)(images, prompts)
        assert torch.allclose(scores, 2 * a + b / 2, atol=1e-6)
        gate = rewards.load("rewards.combine", rule="and", members={"toy-clip": a.min().item() + 1e-4})
        assert gate(images, prompts).sum().item() == 1.0
        file = tmp_path / "references.json"
        file.write_text(json.dumps({"toy-clip": dict.fromkeys(prompts, 0.1), "toy-clip-b": 0.2}))
        soft = rewards.load("rewards.combine", rule="lsc", members=members, references=str(file))
        terms = torch.nn.functional.logsigmoid(torch.stack([(a - 0.1) / 2, (b - 0.2) / 0.5]))
        assert torch.allclose(soft(images, prompts), terms.sum(0), atol=1e-6)
    for options, message in (
        ({"rule": "or", "members": members}, "got rule 'or'"),
        ({"rule": "lsc", "members": members}, "got no references"),
        ({}, "got no members"),
    ):
        with pytest.raises(ValueError, match=message):
            rewards.load("rewards.combine", **options)
