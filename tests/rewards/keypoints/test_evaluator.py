"""The evaluator: aggregates by hand, judges that are really asked, and no unreadable verdict is a number."""

import json
import math
import threading

import pytest
import torch

import rewards
from rewards.keypoints import evaluator_questions as questions
from rewards.keypoints.evaluator import AlignEvaluator, read_points
from rewards.keypoints.evaluator_written import Written, read
from rewards.keypoints.evaluator_yes_no import REMINDER, YesNo
from rewards.keypoints.taxonomy import KeyPoint, kinds, to_json
from rewards.keypoints.verdicts import Verdict, aggregate, rarity
from rewards.vlm.base import UnreadableAnswer
from rewards.vlm.endpoint import Endpoint
from rewards.vlm.local import local_judge
from tests.rewards.chat_server import ChatServer, listing, question, says, sent_image
from tests.rewards.tiny_vlm import build_llava

STYLE = KeyPoint("artistic_style", "it is a {pencil} drawing")
LAYOUT = KeyPoint("entity_layout", "the cat is left of the dog")
COUNT = KeyPoint("counting", "there are exactly three dogs")
HAND = KeyPoint("hand_action", "a hand holds a cup")
POINTS = {"a cat": [STYLE, LAYOUT], "three dogs": [COUNT], "a {cup}": [HAND], "nothing": []}


def images(count: int = 1) -> torch.Tensor:
    return torch.linspace(0, 1, count).reshape(count, 1, 1, 1).expand(count, 3, 5, 4)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def endpoint(server: ChatServer, **options) -> Endpoint:
    return Endpoint(server.url, "tiny", **{"wait": 0.01, "tries": 3, "timeout": 5.0, **options})


def asked_with_yes(server: ChatServer, **options) -> AlignEvaluator:
    return AlignEvaluator(YesNo(endpoint(server)), points=POINTS.__getitem__, **options)


def asked_in_writing(server: ChatServer, **options) -> AlignEvaluator:
    return AlignEvaluator(Written(endpoint(server, **options), tokens=9), points=POINTS.__getitem__)


def odds(yes: float, no: float):
    return 200, listing(yes=math.log(yes), no=math.log(no)), {}


@pytest.mark.parametrize(
    ("matches", "how", "score"),
    [
        ((0.8, 0.2), "plain", 0.5),
        ((0.8, 0.2), "balanced", (2 * 0.8 + 50 * 0.2) / 52),  # shares of 1/2 and of 1/50
        ((0.2, 0.8), "balanced", (2 * 0.2 + 50 * 0.8) / 52),
        ((0.8, 0.6), "all", 1.0),
        ((0.8, 0.5), "all", 0.0),
        ((1.0, 1.0), "balanced", 1.0),
        ((0.8, None), "plain", None),
        ((None, 0.0), "all", None),
    ],
)
def test_aggregates_by_hand(matches, how, score):
    verdicts = [Verdict(point, match) for point, match in zip((STYLE, LAYOUT), matches, strict=True)]
    total = aggregate(verdicts, how, rarity())
    assert total is None if score is None else total == pytest.approx(score)


def test_counts_of_a_corpus_replace_the_shares():
    weight = rarity({"artistic_style": 3, "entity_layout": 1})
    assert weight["artistic_style"] / weight["entity_layout"] == pytest.approx(1 / 3)
    assert weight["counting"] == weight["entity_layout"]  # never met: as if met once
    verdicts = [Verdict(STYLE, 0.8), Verdict(LAYOUT, 0.2)]
    assert aggregate(verdicts, "balanced", weight) == pytest.approx((0.8 + 3 * 0.2) / 4)
    with pytest.raises(ValueError, match="got counts of 'weather'"):
        rarity({"weather": 3})
    with pytest.raises(ValueError, match="expected whole numbers"):
        rarity({"counting": -1})
    with pytest.raises(ValueError, match="got no verdicts"):
        aggregate([], "plain", weight)


def test_structure_has_a_question_of_its_own():
    for kind in kinds().values():
        texts = questions.yes_no(KeyPoint(kind.id, "it is {so}"))
        assert len(texts) == (2 if "structure" in kind.criteria else 1)
        assert kind.definition in texts[0] and all('"it is {so}"' in text for text in texts)
        text = questions.written("a {cup}", KeyPoint(kind.id, "it is {so}"))
        assert "a {cup}\n" in text and "Key point: it is {so}\n" in text
        assert (questions.STRUCTURE in text) is ("structure" in kind.criteria)


def test_probabilities_of_yes_and_the_least_of_both_questions():
    def answer(request):
        text = question(request)
        if "pencil" in text:
            return odds(0.6, 0.2)  # .75
        if "left of" in text:
            return odds(0.1, 0.4)  # .2
        return odds(0.1, 0.9) if "structure plausible" in text else odds(0.9, 0.1)

    with ChatServer(answer) as server:
        ours = asked_with_yes(server)
        (cat, cup) = ours.judge(images(2), ["a cat", "a {cup}"])
        assert [verdict.match for verdict in cat.verdicts] == pytest.approx([0.75, 0.2])
        assert [verdict.point for verdict in cat.verdicts] == [STYLE, LAYOUT]
        assert cat.score == pytest.approx(0.475) and cat.prompt == "a cat"
        assert cup.verdicts[0].match == pytest.approx(0.1) == cup.score
        assert cup.verdicts[0].reason == "shown 0.90, plausible 0.10"
        scores = ours(images(2), ["a cat", "a {cup}"])
        assert scores.tolist() == pytest.approx([0.475, 0.1]) and not ours.differentiable
        strict = asked_with_yes(server, how="all")
        assert strict(images(1), ["a cat"]).tolist() == [0.0]
        rare = asked_with_yes(server, how="balanced")
        assert rare(images(1), ["a cat"]).tolist() == pytest.approx([(2 * 0.75 + 50 * 0.2) / 52])


def test_each_question_is_about_its_own_image():
    def answer(request):
        return odds(0.9 if sent_image(request).getpixel((0, 0))[0] > 127 else 0.1, 0.1)

    with ChatServer(answer) as server:
        ours = asked_with_yes(server)
        first = ours(images(2), ["a cat", "three dogs"]).tolist()
        table = ours.table(images(2), [["three dogs", "a cat"], ["a {cup}"]])
        evaluations = ours.judge(images(2), ["a cat", "a cat"], [[COUNT], [COUNT, STYLE]])
    assert first == pytest.approx([0.5, 0.9])
    assert [row.tolist() for row in table] == [pytest.approx([0.5, 0.5]), pytest.approx([0.9])]
    assert [[verdict.point for verdict in one.verdicts] for one in evaluations] == [[COUNT], [COUNT, STYLE]]
    assert len(server.requests) == 3 + 5 + 3


def test_a_batch_is_judged_as_its_rows_alone(tmp_path):
    ours = AlignEvaluator(YesNo(local_judge(str(build_llava(tmp_path)), batch=4)), points=POINTS.__getitem__)
    images = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    prompts = ["a cat", "three dogs", "a cat"]
    together = ours(images, prompts)
    alone = torch.cat([ours(images[row : row + 1], prompts[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (together[0] - together[2]).abs() > 1e-3  # the images count


def test_key_points_of_a_prompt_are_found_once():
    looked_up: list[str] = []

    def source(prompt):
        looked_up.append(prompt)
        return [COUNT]

    with ChatServer(lambda _: odds(0.5, 0.5)) as server:
        ours = AlignEvaluator(YesNo(endpoint(server)), points=source)
        ours(images(3), ["a", "b", "a"])
        ours(images(1), ["a"])
    assert looked_up == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "match", "reason"),
    [
        ("There are three. accept", 1.0, "There are three."),
        ("Two only.\n**Reject**", 0.0, "Two only."),
        ("I could accept it, but no: reject", 0.0, "I could accept it, but no"),
        ("reject? No,\nthere are three: Accepted.", 1.0, "reject? No, there are three"),
        ("This is unacceptable, rejection", None, "This is unacceptable, rejection"),
        ("", None, ""),
    ],
)
def test_the_last_word_decides(answer, match, reason):
    assert read(answer) == (match, reason)


def test_only_what_was_unreadable_is_asked_again():
    def answer(request):
        text = question(request)
        if "pencil" in text:
            return 200, says("It is. accept" if text.endswith(questions.REMINDER) else "It is."), {}
        return 200, says("It is on the right. reject"), {}

    with ChatServer(answer) as server:
        ours = asked_in_writing(server)
        (cat,) = ours.judge(images(), ["a cat"])
    assert cat.verdicts == (Verdict(STYLE, 1.0, "It is."), Verdict(LAYOUT, 0.0, "It is on the right."))
    assert cat.score == 0.5
    assert (ours.checker.retried, ours.checker.unreadable, len(server.requests)) == (1, 0, 3)
    assert server.requests[0]["max_tokens"] == 9


def test_a_verdict_that_was_cut_off_or_is_empty_is_none():
    def answer(request):
        text = question(request)
        if "pencil" in text:  # the word of the reason is not the verdict
            return 200, says("One could reject it, but", "length"), {}
        if "left of" in text:
            again = text.endswith(questions.REMINDER)
            return 200, says("It is. accept" if again else None, "stop" if again else "length"), {}
        return 200, says(None), {}

    with ChatServer(answer) as server:
        ours = asked_in_writing(server)
        cat, dogs = ours.judge(images(2), ["a cat", "three dogs"])
    assert [verdict.match for verdict in cat.verdicts] == [None, 1.0]
    assert cat.verdicts[0].reason == "One could reject it, but (cut off)"
    assert dogs.verdicts == (Verdict(COUNT, None, ""),)
    assert (ours.checker.retried, ours.checker.unreadable, len(server.requests)) == (3, 2, 6)


def test_an_answer_of_neither_yes_nor_no_is_asked_for_again_and_then_none():
    def answer(request):
        text = question(request)
        if "pencil" in text:
            return odds(0.6, 0.2) if text.endswith(REMINDER) else (200, listing(It=-0.1), {})
        if "structure plausible" in text:
            return 200, listing(The=-0.1, hand=-3.0), {}
        return (200, says(None), {}) if "three dogs" in text else odds(0.9, 0.1)

    with ChatServer(answer) as server:
        ours = asked_with_yes(server)
        cat, cup, dogs = ours.judge(images(3), ["a cat", "a {cup}", "three dogs"])
        texts = [question(request) for request in server.requests]
        with pytest.raises(
            UnreadableAnswer, match=r"got .*the likeliest answers of 'tiny'.* for 1 of 2"
        ) as caught:
            ours(images(2), ["a cat", "a {cup}"])
    assert [verdict.match for verdict in cat.verdicts] == pytest.approx([0.75, 0.9])
    assert cup.verdicts == (Verdict(HAND, None, "'The', 'hand' ... as the likeliest answers of 'tiny'"),)
    assert dogs.verdicts == (Verdict(COUNT, None, "no text from 'tiny'"),) and dogs.score is None
    assert len(texts) == 5 + 3 and sum(text.endswith(REMINDER) for text in texts) == 3
    assert caught.value.rows == [1] and caught.value.scores[0] == pytest.approx(0.825)
    assert (ours.checker.retried, ours.checker.unreadable) == (3 + 2, 2 + 1)


def test_an_unreadable_verdict_is_an_error_and_never_zero():
    def answer(request):
        return 200, says("Who knows. " * 20 if "pencil" in question(request) else "accept"), {}

    with ChatServer(answer) as server:
        ours = asked_in_writing(server)
        with pytest.raises(
            UnreadableAnswer,
            match=r"got '\.\.\. .*Who knows\.' on the key point 'it is a .* drawing' for 1 of 3 images",
        ) as caught:
            ours(images(3), ["three dogs", "a cat", "a {cup}"])
        assert (ours.checker.retried, ours.checker.unreadable) == (1, 1)
        (one,) = ours.judge(images(), ["a cat"])
    assert caught.value.rows == [1] and caught.value.scorer is ours
    assert caught.value.scores.tolist() == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    assert one.score is None and [verdict.match for verdict in one.verdicts] == [None, 1.0]


def test_a_server_in_trouble():
    script, lock, waited = (
        [(429, b"", {}), (200, b'{"choices"', {}), (200, says("accept"), {})],
        threading.Lock(),
        threading.Event(),
    )

    def answer(_):
        with lock:
            return script.pop(0) if len(script) > 1 else script[0]

    def late(_):
        waited.wait(2)
        return 200, says("accept"), {}

    with ChatServer(answer) as server:
        assert asked_in_writing(server)(images(), ["three dogs"]).tolist() == [1.0]
        assert len(server.requests) == 3
        with pytest.raises(ValueError, match="got a reply without log-probabilities"):
            asked_with_yes(server)(images(), ["three dogs"])
    with ChatServer(late) as server:
        with pytest.raises(ValueError, match=r"got TimeoutError .* in the last of 2 tries"):
            asked_in_writing(server, timeout=0.2, tries=2)(images(), ["three dogs"])
        waited.set()


def test_prompts_and_points_that_do_not_fit():
    with ChatServer(lambda _: odds(0.5, 0.5)) as server:
        ours = asked_with_yes(server)
        with pytest.raises(ValueError, match="got 'nothing' without key points"):
            ours(images(), ["nothing"])
        with pytest.raises(ValueError, match="got key points of 1 prompts for 2"):
            ours.judge(images(2), ["a cat", "a cat"], [[COUNT]])
        with pytest.raises(ValueError, match="got 1 prompts for 2 rows"):
            ours.judge(images(2), ["a cat"])
        with pytest.raises(ValueError, match="got aggregate 'mean'"):
            asked_with_yes(server, how="mean")
        with pytest.raises(ValueError, match="got counts with aggregate 'plain'"):
            asked_with_yes(server, counts={"counting": 3})
    assert not server.requests


def test_by_name_with_a_file_of_key_points(tmp_path):
    file = tmp_path / "points.json"
    file.write_text(json.dumps({prompt: to_json(points) for prompt, points in POINTS.items()}))
    with ChatServer(
        lambda request: (200, says("accept" if "left" in question(request) else "reject"), {})
    ) as server:
        ours = rewards.load(
            "evaluator",
            backend="written",
            weights="tiny",
            url=server.url,
            points=str(file),
            tokens=7,
            how="balanced",
        )
        assert ours(images(), ["a cat"]).tolist() == pytest.approx([50 / 52])
        with pytest.raises(ValueError, match=r"got 'a dog', which .*points\.json lacks"):
            ours(images(), ["a dog"])
    assert server.requests[0]["max_tokens"] == 7
    file.write_text("[]")
    with pytest.raises(ValueError, match="of another form"):
        read_points(file)
    with pytest.raises(ValueError, match="expected JSON of prompt to key points"):
        read_points(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "guess"}, "got backend 'guess'"),
        ({"backend": "oracle", "weights": "x"}, "expected no weights for oracle"),
        ({"backend": "head"}, "a folder for head"),
        ({"backend": "head", "weights": "x", "batch": 3}, "and batch of head"),
        (
            {"backend": "yes_no", "url": "http://host/v1", "tokens": 3},
            "got options tokens of a judge at url=",
        ),
    ],
)
def test_backends_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        rewards.load("evaluator", **options)
