"""Checklists by hand: weights, gates, both kinds of answers, the files they are read from."""

import json
import math

import pytest
import torch

import rewards
from rewards.scorers.checklist import Checklist, ChecklistReward, Item, fit_weights, read, read_published
from rewards.vlm.base import Judge
from tests.rewards.chat_server import ChatServer, listing, question


class Told(Judge):
    """P(yes) / (P(yes) + P(no)) of each question, told beforehand for each image."""

    def __init__(self, *told: dict[str, float]):
        self.told, self.answered = told, 0

    def _answer(self, images, questions, rows):
        self.answered += len(questions)
        yes = torch.tensor([self.told[row][text] for row, text in zip(rows, questions, strict=True)])
        return torch.stack([yes, 1 - yes], dim=1).log()

    def _write(self, images, questions, rows, tokens, cut):
        raise NotImplementedError


LIST = Checklist(
    items=(Item("sharp?", 0.5), Item("hands right?", 0.2, "hands"), Item("whole?", 0.125)),
    gates={"hands": "hands?"},
    alignment=2.0,
    intercept=0.25,
)
FIRST = {"hands?": 0.9, "sharp?": 0.8, "hands right?": 0.1, "whole?": 0.6, "show a cat?": 0.7}
SECOND = {"hands?": 0.2, "sharp?": 0.5, "hands right?": 0.1, "whole?": 0.9, "show a dog?": 0.1}
IMAGES, PROMPTS = torch.rand(2, 3, 4, 4), ["a cat", "a dog"]


def reward(checklist: Checklist = LIST, **options) -> ChecklistReward:
    return ChecklistReward(Told(FIRST, SECOND), checklist, template="show {prompt}?", **options)


def test_hard_answers_by_hand():
    """Image 1: .5 - .2 + .125 + 2 * .7 + .25. Image 2, tie = no, shut = 0: -.5 + .125 + 2 * .1 + .25."""
    ours = reward()
    assert ours(IMAGES, PROMPTS).tolist() == pytest.approx([2.075, 0.075], abs=1e-5)
    assert ours.points(IMAGES, PROMPTS).tolist() == [[1.0, -1.0, 1.0], [-1.0, 0.0, 1.0]]
    assert ours(IMAGES[:1], PROMPTS[:1]).tolist() == pytest.approx([2.075], abs=1e-5)


def test_binary_answers_by_hand():
    binary = Checklist(LIST.items, LIST.gates, LIST.alignment, LIST.intercept, signed=False)
    assert reward(binary)(IMAGES, PROMPTS).tolist() == pytest.approx([2.275, 0.575], abs=1e-5)


def test_soft_answers_are_expectations():
    """Image 1: .5*.6 + .2*.9*(-.8) + .125*.2 + 1.4 + .25; image 2: 0 + .2*.2*(-.8) + .125*.8 + .2 + .25."""
    scores = reward(answers="soft")(IMAGES, PROMPTS)
    assert scores.tolist() == pytest.approx([1.831, 0.518], abs=1e-5)
    sure = [{text: round(p) * 0.999998 + 1e-6 for text, p in told.items()} for told in (FIRST, SECOND)]
    hard, soft = (
        ChecklistReward(Told(*sure), LIST, template="show {prompt}?", answers=kind)(IMAGES, PROMPTS)
        for kind in ("hard", "soft")
    )
    torch.testing.assert_close(hard, soft, atol=1e-4, rtol=0)


def test_alignment_is_asked_only_where_it_weighs():
    plain = Checklist(LIST.items, LIST.gates)
    ours = reward(plain)
    assert ours(IMAGES, ["no", "matter"]).tolist() == pytest.approx([0.425, -0.375], abs=1e-6)
    assert ours.judge.answered == 2 * 4
    asking = reward()
    asking(IMAGES, PROMPTS)
    assert asking.judge.answered == 2 * 5
    assert asking.needs_text and not ours.needs_text, "then images without a prompt can be scored"


DATA = {
    "answers": "signed",
    "alignment": 2.0,
    "intercept": 0.25,
    "gates": {"hands": "hands?"},
    "items": [
        {"question": "sharp?", "weight": 0.5},
        {"question": "hands right?", "weight": 0.2, "gate": "hands"},
        {"question": "whole?", "weight": 0.125},
    ],
}


def written(folder, data) -> str:
    (folder / "list.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return str(folder / "list.json")


def test_a_list_from_file(tmp_path):
    assert read(written(tmp_path, DATA)) == LIST
    short = read(written(tmp_path, {"answers": "binary", "items": [{"question": "sharp?", "weight": 1}]}))
    assert short == Checklist((Item("sharp?", 1),), signed=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": "yes"}, "got answers 'yes' .*'signed' or 'binary'"),
        ({"answers": None}, "got answers None"),
        ({"items": []}, "without items"),
        ({"items": [{"question": "sharp?"}]}, "expected question, weight and perhaps gate"),
        ({"items": [{"question": "a", "weight": 1, "gates": "hands"}]}, "expected question, weight"),
        (
            {"items": [{"question": "a", "weight": 1, "gate": "feet"}]},
            r"got gate 'feet' .*one of \['hands'\]",
        ),
        ({"items": [{"question": "a", "weight": "1"}]}, "got weight '1'"),
        ({"items": [{"question": " ", "weight": 1}]}, "got question ' '"),
        ({"items": "sharp?"}, "expected items"),
        ({"gates": ["hands"]}, "expected items"),
        ({"weights": [1]}, r"got keys \['alignment', 'answers'"),
        ({"intercept": True}, "got weight True"),
    ],
)
def test_files_that_are_no_list(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(written(tmp_path, {**DATA, **change}))


def test_files_that_are_no_json(tmp_path):
    with pytest.raises(ValueError, match="which is not JSON"):
        read(written(tmp_path, "{"))
    with pytest.raises(ValueError, match=r"got list in .*expected a JSON object"):
        read(written(tmp_path, "[]"))
    with pytest.raises(ValueError, match="which cannot be read"):
        read(tmp_path / "none.json")


def published(folder, count: int = 30, coefficients: int = 28) -> tuple[str, str]:
    """Files in VisionReward's form: question j is "j?", coefficient j + 1 is j, the intercept .5."""
    (folder / "questions.txt").write_text("".join(f"{j}?\n" for j in range(count)) + "\n")
    weights = [2.354, *(float(j) for j in range(coefficients - 1))]
    (folder / "weights.json").write_text(json.dumps({"coef": weights, "intercept": 0.5}))
    return str(folder / "questions.txt"), str(folder / "weights.json")


def test_the_published_form(tmp_path):
    """Lines 0, 1, 2 ask for a body, a face, hands; 22-24 and 28-29, 25-26, 27 count only where there are."""
    gated_list = read_published(*published(tmp_path))
    assert gated_list.questions == [f"{j}?" for j in range(30)]
    assert [item.weight for item in gated_list.items] == [float(j) for j in range(27)]
    gated = {item.question: item.gate for item in gated_list.items if item.gate}
    body, face, hands = list(gated_list.gates)
    assert gated == {
        **dict.fromkeys(["22?", "23?", "24?", "28?", "29?"], body),
        **dict.fromkeys(["25?", "26?"], face),
        "27?": hands,
    }
    told = {f"{j}?": 0.9 for j in range(30)} | {"show a cat?": 0.5, "1?": 0.1, "3?": 0.1, "10?": 0.2}
    score = ChecklistReward(Told(told), gated_list, template="show {prompt}?")(IMAGES[:1], ["a cat"])
    # 27 answers of +1 but "3?" (weight 0) and "10?" (weight 7), which are -1, and the face's (22, 23), 0
    assert score.item() == pytest.approx(2.354 * 0.5 + 0.5 + sum(range(27)) - 2 * 7 - 22 - 23, abs=1e-3)


@pytest.mark.parametrize(("count", "coefficients"), [(30, 27), (29, 28), (3, 1), (59, 28)])
def test_published_files_that_do_not_fit(tmp_path, count, coefficients):
    with pytest.raises(
        ValueError, match=f"got {count} questions and {coefficients} coefficients; expected 30"
    ):
        read_published(*published(tmp_path, count, coefficients))


def test_weights_are_found_from_pairs():
    """2,000 pairs whose winner is drawn by Bradley-Terry on planted weights."""
    generator = torch.Generator().manual_seed(0)
    planted = torch.tensor([1.0, 0.0, -0.5, 0.25])
    left, right = (torch.randint(0, 2, (2000, 4), generator=generator) * 2.0 - 1 for _ in range(2))
    first = torch.rand(2000, generator=generator) < ((left - right) @ planted).sigmoid()
    win, lose = torch.where(first[:, None], left, right), torch.where(first[:, None], right, left)
    assert fit_weights(win, lose, strength=100.0) == pytest.approx(planted.tolist(), abs=0.12)
    with pytest.raises(ValueError, match=r"got points \(2000, 4\) and \(4,\)"):
        fit_weights(win, lose[0])


def test_by_name_over_an_endpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def answer(request):
        share = {**FIRST, "show a cat?": 0.7}[question(request)]
        return 200, listing(Yes=math.log(share), No=math.log(1 - share)), {}

    with ChatServer(answer) as server:
        ours = rewards.load(
            "checklist",
            checklist=written(tmp_path, DATA),
            url=server.url,
            weights="m",
            template="show {prompt}?",
        )
        assert ours(IMAGES[:1], ["a cat"]).tolist() == pytest.approx([2.075], abs=1e-4)
    assert not ours.differentiable


@pytest.mark.parametrize(
    "options", [{}, {"questions": "a"}, {"checklist": "a", "questions": "b", "coefficients": "c"}]
)
def test_one_list_is_needed(options):
    with pytest.raises(ValueError, match="got no list of questions, or two"):
        rewards.load("checklist", **options)


def test_kinds_of_answers():
    with pytest.raises(ValueError, match="got answers='medium'"):
        reward(answers="medium")
