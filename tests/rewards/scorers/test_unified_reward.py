"""Point scores: what is read as one, what is asked again, and that nothing unreadable becomes a number."""

import math

import pytest
import torch

import rewards
from rewards.scorers.unified_reward import REMINDER, PointScore, parse
from rewards.vlm.base import Judge, UnreadableAnswer
from tests.rewards.chat_server import ChatServer, question, says


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("cat (animal): 1\nFinal Score: 4", 4.0),
        ("Final Score: 3.5", 3.5),
        ("**Final Score:** 4.25/5", 4.25),
        ("final  score:2.", 2.0),
        ("FINAL SCORE: [5]", 5.0),
        ("Final Score = **1**", 1.0),
        ("Final Score: 4 out of 5. It is good.", 4.0),
        ("I will write Final Score: 2 here.\nFinal Score: 3", 3.0),
        ("Final Score: 5\u3002", 5.0),
    ],
)
def test_scores_that_can_be_read(answer, score):
    assert parse(answer) == score


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "4",
        "The image is a 4.",
        "Final Score:",
        "Final Score: four",
        "Final Score: x",
        "Final Score: 0",
        "Final Score: 0.99",
        "Final Score: 5.5",
        "Final Score: 45",
        "Final Score: -3",
        "Final Score: 1-5",
        "Final Score: 1 - 5",
        "Final Score: 4\nFinal Score: 9",
        "Final Score: nan",
    ],
)
def test_answers_that_hold_no_score(answer):
    assert parse(answer) is None


class Scripted(Judge):
    """Answers of a script, one list for each time it is asked."""

    def __init__(self, *script: list[str]):
        self.script = list(script)
        self.calls: list[tuple[list[str], list[int], int]] = []

    def _answer(self, images, questions, rows):
        raise NotImplementedError

    def _write(self, images, questions, rows, tokens, cut):
        self.calls.append((list(questions), list(rows), tokens))
        return self.script.pop(0)


IMAGES = torch.rand(3, 3, 4, 4)
PROMPTS = ["a cat", "two {dogs}", "a hat"]


def test_scores_in_order_and_one_call():
    judge = Scripted(["Final Score: 1", "Final Score: 2.5", "Final Score: 5"])
    reward = PointScore(judge, template="Caption: [{prompt}]", tokens=99)
    assert reward(IMAGES, PROMPTS).tolist() == [1.0, 2.5, 5.0]
    assert judge.calls == [(["Caption: [a cat]", "Caption: [two {dogs}]", "Caption: [a hat]"], [0, 1, 2], 99)]
    assert (reward.retried, reward.unreadable) == (0, 0)
    assert not reward.differentiable


def test_only_what_was_unreadable_is_asked_again():
    judge = Scripted(["?", "Final Score: 2", "nice"], ["Final Score: 3", "Final Score: 4"])
    reward = PointScore(judge, template="{prompt}")
    assert reward(IMAGES, PROMPTS).tolist() == [3.0, 2.0, 4.0]
    assert judge.calls[1][:2] == (["a cat" + REMINDER, "a hat" + REMINDER], [0, 2])
    assert (reward.retried, reward.unreadable) == (2, 0)


def test_twice_unreadable_is_an_error_that_names_the_answer():
    judge = Scripted(
        ["Final Score: 1", "Final Score: 7", "nice"], ["Final Score: 3", "well\n" * 60 + "  a hat."]
    )
    reward = PointScore(judge)
    with pytest.raises(
        UnreadableAnswer, match=r"got '\.\.\. .*well a hat\.' for 1 of 3 images, asked twice"
    ) as caught:
        reward(IMAGES, PROMPTS)
    assert isinstance(caught.value, ValueError)
    assert caught.value.rows == [2] and caught.value.scorer is reward
    assert caught.value.scores.tolist() == pytest.approx([1.0, 3.0, math.nan], nan_ok=True)
    assert caught.value.reasons[2].startswith("got '... ") and "1 of 3" not in caught.value.reasons[2]
    assert "\n" not in str(caught.value)
    assert (reward.retried, reward.unreadable) == (2, 1)


def test_by_name_over_an_endpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "text.txt").write_text("Rate: {prompt}")

    def answer(request):
        return 200, says("Final Score: 4.5" if question(request) == "Rate: a cat" else "Final Score: 2"), {}

    with ChatServer(answer) as server:
        reward = rewards.load("unified-reward", url=server.url, template=str(tmp_path / "text.txt"))
        assert reward(IMAGES, PROMPTS).tolist() == [4.5, 2.0, 2.0]
    assert server.requests[0]["model"] == "CodeGoat24/UnifiedReward-qwen-7b"


def test_the_instruction_asks_for_what_is_read():
    judge = Scripted(["Final Score: 1"])
    PointScore(judge)(IMAGES[:1], ["a {cat}"])
    (asked,) = judge.calls[0][0]
    assert "Text Caption: [a {cat}]" in asked
    assert parse(asked) is None  # an echo of the instruction is no score
    assert parse(asked.replace("x", "4")) == 4.0


def test_a_template_without_the_prompt():
    with pytest.raises(ValueError, match=r"got template 'Rate it'; expected one with \{prompt\}"):
        PointScore(Scripted(), template="Rate it")
