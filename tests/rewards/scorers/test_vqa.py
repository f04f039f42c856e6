"""VQAScore by hand, over a tiny local model, over a server, and what it refuses."""

import math

import pytest
import torch

import rewards
from rewards.scorers.vqa import TEMPLATE, VQAGradient, VQAScore, ask
from rewards.vlm.base import Judge
from tests.rewards.chat_server import ChatServer, listing, question
from tests.rewards.tiny_vlm import build_qwen


class Listed(Judge):
    """log P(yes) = minus the brightness, log P(no) = minus the length of the question over 10."""

    def __init__(self):
        self.calls = []

    def _answer(self, images, questions, rows):
        self.calls.append((len(images), list(questions)))
        yes = -images[list(rows)].mean((1, 2, 3))
        return torch.stack([yes, torch.tensor([-len(question) / 10 for question in questions])], dim=1)

    def _write(self, images, questions, rows, tokens, cut):
        raise NotImplementedError


IMAGES = torch.tensor([0.2, 0.8]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)


def by_hand(brightness: float, prompt: str) -> float:
    yes, no = math.exp(-brightness), math.exp(-len(f"{prompt}?") / 10)
    return yes / (yes + no)


def test_scores_by_hand():
    judge = Listed()
    prompts = ["a cat", "a {cat} and 100 %s"]
    scores = VQAScore(judge, template="{prompt}?")(IMAGES, prompts)
    assert scores.tolist() == pytest.approx([by_hand(0.2, prompts[0]), by_hand(0.8, prompts[1])], rel=1e-5)
    assert judge.calls == [(2, ["a cat?", "a {cat} and 100 %s?"])]
    logits = VQAScore(judge, template="{prompt}?", form="logit")(IMAGES, prompts)
    assert logits.tolist() == pytest.approx([math.log(p / (1 - p)) for p in scores.tolist()], rel=1e-4)


def test_the_question_is_the_papers():
    assert ask(TEMPLATE, "a cat") == 'Does this figure show "a cat"? Please answer yes or no.'


def test_a_table_is_one_call():
    judge = Listed()
    prompts = [["a cat", "two cats", "no cats"], ["a dog"]]
    table = VQAScore(judge, template="{prompt}?").table(IMAGES, prompts)
    assert len(judge.calls) == 1
    wanted = [[by_hand(b, p) for p in some] for b, some in zip((0.2, 0.8), prompts, strict=True)]
    assert [row.tolist() for row in table] == [pytest.approx(row, rel=1e-5) for row in wanted]
    assert [len(row) for row in VQAScore(judge).table(IMAGES, [[], ["a"]])] == [0, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(build_qwen(tmp_path_factory.mktemp("qwen")))


def test_a_local_model_by_name(folder):
    images = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
    prompts = ["a red circle", "a blue square", "a red circle"]
    reward = rewards.load("vqascore", weights=folder)
    scores = reward(images, prompts)
    answers = reward.judge.answer(images, [ask(TEMPLATE, prompt) for prompt in prompts]).exp()
    torch.testing.assert_close(scores, answers[:, 0] / answers.sum(1))
    assert reward(images[:1], prompts[:1]).shape == (1,)
    assert not reward.differentiable
    logits = rewards.load("vqascore-logit", weights=folder)(images, prompts)
    torch.testing.assert_close(logits.sigmoid(), scores)


def test_the_differentiable_name_climbs(folder):
    """Gradient ascent on the pixels raises the score that the reference path gives, after rounding."""
    reward = rewards.load("vqascore-grad", weights=folder)
    assert reward.differentiable
    assert isinstance(reward, VQAGradient)
    images, prompts = torch.full((1, 3, 56, 56), 0.5), ["a red circle"]
    leaf = images.clone().requires_grad_()
    before = reward(leaf, prompts)
    before.sum().backward()
    assert leaf.grad is not None
    moved = (images + 0.05 * leaf.grad / leaf.grad.abs().max()).clamp(0, 1)
    reference = rewards.load("vqascore", weights=folder)
    assert reference(moved, prompts).item() > reference(images, prompts).item() + 1e-3


def test_an_endpoint_by_name(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def answer(request):
        return 200, listing(Yes=math.log(0.6 if "cat" in question(request) else 0.3), No=math.log(0.2)), {}

    with ChatServer(answer) as server:
        reward = rewards.load("vqascore", weights="served-name", url=server.url)
        scores = reward(IMAGES, ["a cat", "a dog"])
    assert scores.tolist() == pytest.approx([0.75, 0.6], rel=1e-5)
    assert {request["model"] for request in server.requests} == {"served-name"}
    assert not reward.differentiable


def test_rewards_share_a_judge(folder):
    towers = {}
    first = rewards.load("vqascore", weights=folder, towers=towers)
    second = rewards.load("vqascore-logit", weights=folder, towers=towers)
    assert first.judge is second.judge


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"got template 'Is it\?'; expected one with {prompt} in it"):
        VQAScore(Listed(), template="Is it?")
    with pytest.raises(ValueError, match="got form='sqrt'"):
        VQAScore(Listed(), form="sqrt")
    with pytest.raises(ValueError, match="an endpoint has no gradients"):
        rewards.load("vqascore-grad", url="http://host/v1")
