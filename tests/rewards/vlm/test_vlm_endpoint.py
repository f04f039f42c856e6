"""The endpoint judge against a server that is really there, behaving and misbehaving."""

import math
import threading
import time
import traceback

import pytest
import torch

import rewards
from rewards.llm import chat_client
from rewards.llm.chat_client import ChatClient
from rewards.scorers.vqa import VQAScore
from rewards.vlm.base import NeitherWord
from rewards.vlm.endpoint import Endpoint
from t2ialign.scoring.engine import Engine
from t2ialign.scoring.items import Item
from tests.rewards.chat_server import ChatServer, listing, question, says, sent_image
from tests.scoring.images import plain, png

LOG = math.log
GOOD = listing(Yes=LOG(0.6), No=LOG(0.2), yes=LOG(0.1), _no=LOG(0.05), Maybe=LOG(0.01))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def judge(server: ChatServer, **options) -> Endpoint:
    return Endpoint(server.url, "tiny", **{"wait": 0.01, "tries": 3, "timeout": 5.0, **options})


def images(count: int = 1) -> torch.Tensor:
    return torch.linspace(0, 1, count).reshape(count, 1, 1, 1).expand(count, 3, 5, 4)


def replies(*script):
    """One reply after the other, the last for ever."""
    left, lock = list(script), threading.Lock()

    def answer(_):
        with lock:
            reply = left.pop(0) if len(left) > 1 else left[0]
        return reply if isinstance(reply, tuple) else (200, reply, {})

    return answer


def test_variants_are_summed():
    with ChatServer(replies(GOOD)) as server:
        (answer,) = judge(server).answer(images(), ["a cat?"])
    assert answer.exp().tolist() == pytest.approx([0.7, 0.25], rel=1e-5)


def test_what_is_asked():
    with ChatServer(replies(GOOD)) as server:
        judge(server, extra={"seed": 7}).answer(torch.full((1, 3, 2, 3), 0.7), ['is it "red"?'])
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    wanted = {
        "model": "tiny",
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
        "seed": 7,
    }
    assert {name: request[name] for name in wanted} == wanted
    assert question(request) == 'is it "red"?'
    assert sent_image(request).size == (3, 2)
    assert sent_image(request).getpixel((0, 0)) == (178, 178, 178)  # .7 * 255 = 178.5, halves to even
    assert "Authorization" not in server.headers[0]


def test_answers_stay_with_their_questions():
    """Replies overtake each other; the brightness of the image and the question say whose is whose."""

    def answer(request):
        bright, number = sent_image(request).getpixel((0, 0))[0] / 255, int(question(request))
        time.sleep(0.03 * (number % 3))
        return 200, listing(yes=-1 - bright, no=-1.0 - number), {}

    rows = [2, 0, 1, 2, 1, 0, 0, 2]
    with ChatServer(answer) as server:
        answers = judge(server, workers=4).answer(images(3), [str(j) for j in range(8)], rows)
    wanted = [[-1 - round(row * 127.5) / 255, -1.0 - j] for j, row in enumerate(rows)]
    torch.testing.assert_close(answers, torch.tensor(wanted), atol=1e-5, rtol=0)
    assert 1 < server.most <= 4


def test_a_word_that_is_not_listed_gets_the_least_that_is():
    with ChatServer(replies(listing(Yes=LOG(0.9), Sure=LOG(0.05), Of=LOG(0.001)))) as server:
        (answer,) = judge(server).answer(images(), ["a"])
    assert answer.exp().tolist() == pytest.approx([0.9, 0.001], rel=1e-4)
    with ChatServer(replies(listing(No=LOG(0.9998), Maybe=LOG(0.0001)))) as server:
        (answer,) = judge(server).answer(images(), ["a"])  # the rest holds as much as the last
    assert answer.exp().tolist() == pytest.approx([0.0001, 0.9998], rel=1e-2)
    with ChatServer(replies(listing(No=0.0, Yes=-9999.0))) as server:  # vLLM's minus infinity
        (answer,) = judge(server).answer(images(), ["a"])
    assert torch.isfinite(answer).all()
    assert answer.exp()[0] < 1e-9


def test_a_token_that_is_listed_twice_counts_once():
    twice = listing(Yes=LOG(0.5), No=LOG(0.3))
    top = twice["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    top.append(dict(top[0]))
    with ChatServer(replies(twice)) as server:
        (answer,) = judge(server).answer(images(), ["a"])
    assert answer.exp().tolist() == pytest.approx([0.5, 0.3], rel=1e-5)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_that_passes_is_tried_again(status):
    with ChatServer(replies((status, {"error": "busy"}, {}), (status, b"", {}), GOOD)) as server:
        (answer,) = judge(server).answer(images(), ["a"])
    assert answer.exp().tolist() == pytest.approx([0.7, 0.25], rel=1e-5)
    assert len(server.requests) == 3


def test_the_server_says_how_long_to_wait():
    with ChatServer(replies((429, b"", {"Retry-After": "1"}), GOOD)) as server:
        start = time.monotonic()
        judge(server).answer(images(), ["a"])
    assert time.monotonic() - start >= 1.0


def test_trouble_that_stays_is_one_line():
    with (
        ChatServer(replies((500, b"out\nof   memory", {}))) as server,
        pytest.raises(
            ValueError, match=r"got status 500 \(out of memory\) .* in the last of 3 tries"
        ) as caught,
    ):
        judge(server).answer(images(), ["a"])
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_not_tried_again(status):
    with (
        ChatServer(replies((status, {"error": {"message": "no such model"}}, {}))) as server,
        pytest.raises(ValueError, match=rf"got status {status} .*no such model.*the model's name 'tiny'"),
    ):
        judge(server).answer(images(), ["a"])
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>gateway</html>", b'{"choices": [', b"\xff\xfe"])
def test_a_reply_that_is_not_json(body):
    with ChatServer(replies(body, GOOD)) as server:
        assert judge(server).answer(images(), ["a"]).shape == (1, 2)
    with (
        ChatServer(replies(body)) as server,
        pytest.raises(ValueError, match="got a reply that is not JSON from http://127"),
    ):
        judge(server).answer(images(), ["a"])


@pytest.mark.parametrize(
    "reply",
    [
        says("yes"),
        {"choices": [{"message": {"content": "yes"}, "logprobs": None}]},
        {"choices": [{"logprobs": {"content": []}}]},
        {"choices": [{"logprobs": {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": []}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "yes"}]}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": 5}]}}]},
        {"choices": []},
        ["yes"],
        7,
        None,
    ],
)
def test_a_reply_without_log_probabilities(reply):
    with (
        ChatServer(replies(reply)) as server,
        pytest.raises(ValueError, match=r"got a reply without log-probabilities .*vLLM"),
    ):
        judge(server).answer(images(), ["a"])


def test_a_reply_that_is_neither_yes_nor_no():
    with (
        ChatServer(replies(listing(The=-0.1, Yesterday=-3.0))) as server,
        pytest.raises(ValueError, match=r"got 'The', 'Yesterday' \.\.\. as the likeliest answers of 'tiny'"),
    ):
        judge(server).answer(images(), ["a"])


@pytest.mark.parametrize(
    "silent", [says(None), {"choices": [{"message": {"content": ""}, "logprobs": None}]}]
)
def test_what_was_neither_is_named_and_the_other_answers_are_kept(silent):
    def answer(request):
        if question(request) == "why":
            return 200, silent, {}
        return 200, listing(The=-0.1) if question(request) == "what" else GOOD, {}

    with ChatServer(answer) as server, pytest.raises(NeitherWord) as caught:
        judge(server).answer(images(4), ["a", "what", "b", "why", "what"], [0, 2, 2, 3, 2])
    assert "got 'The' ... as the likeliest answers of 'tiny' to 3 of 5 questions (images 2, 3 " in str(
        caught.value
    )
    assert list(caught.value.reasons) == [1, 3, 4] and caught.value.reasons[3] == "no text from 'tiny'"
    wanted = torch.tensor([0.7, math.nan, 0.7, math.nan, math.nan])
    torch.testing.assert_close(caught.value.answers[:, 0].exp(), wanted, equal_nan=True)
    assert isinstance(caught.value, ValueError) and len(server.requests) == 5


def test_scoring_keeps_the_other_images():
    def answer(request):
        return 200, listing(Well=-0.1) if "dog" in question(request) else GOOD, {}

    items = [
        Item(0, i, f"{i}.png", "a dog" if i == 1 else "a cat", png(plain(i, size=(9, 9)))) for i in range(3)
    ]
    with ChatServer(answer) as server:
        engine = Engine({"vqa": VQAScore(judge(server))}, batch_size=3)
        first, dog, last = (row for rows in engine.score(items) for row in rows)
    assert first["scores"]["vqa"] == last["scores"]["vqa"] == pytest.approx(0.7 / 0.95)
    assert "1.png: vqa: got 'Well' ... as the likeliest answers" in dog["error"] and not dog["scores"]


@pytest.mark.parametrize("key", ["sk-very-secret", "hf_verysecret", "very=secret\0", "\u00e4verysecret", " "])
def test_a_key_in_place_of_its_variable_s_name_is_not_shown(key):
    calls = (
        lambda: ChatClient("http://localhost:9/v1", "m", key_env=key),
        lambda: rewards.load("vqascore", url="http://localhost:9/v1", key_env=key),
        lambda: rewards.load("evaluator", url="http://localhost:9/v1", key_env=key),
    )
    for call in calls:
        with pytest.raises(ValueError, match="got a key_env= that names no environment variable") as caught:
            call()
        assert key.strip() == "" or key.strip() not in str(caught.value)
        assert "secret" not in "".join(traceback.format_exception_only(caught.value))


@pytest.mark.parametrize("status", [200, 400])
def test_a_reply_without_an_end_is_given_up_at_its_limit(status, monkeypatch):
    monkeypatch.setattr(chat_client, "MOST", 1 << 20)
    sent = []

    def pieces():
        for _ in range(64):  # MiB
            sent.append(1)
            yield b"x" * (1 << 20)

    words = "got a reply of more than 1 MiB" if status == 200 else "got status 400"
    with ChatServer(lambda _: (status, pieces(), {})) as server:
        with pytest.raises(ValueError, match=words):
            judge(server, tries=2).answer(images(), ["a"])
        assert len(server.requests) == 1
    assert len(sent) < 32, "what the sockets hold between them, and no more"


def test_a_reply_nested_too_deeply_is_no_json():
    with (
        ChatServer(lambda _: (200, b"[" * 200_000, {})) as server,
        pytest.raises(ValueError, match="got a reply that is not JSON"),
    ):
        judge(server, tries=1).answer(images(), ["a"])


def test_a_server_that_does_not_answer_in_time():
    waited = threading.Event()

    def answer(_):
        waited.wait(2)
        return 200, GOOD, {}

    with ChatServer(answer) as server:
        start = time.monotonic()
        with pytest.raises(ValueError, match=r"got TimeoutError .* in the last of 2 tries; .*raise timeout="):
            judge(server, timeout=0.2, tries=2).answer(images(), ["a"])
        assert time.monotonic() - start < 1.5
        waited.set()


@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_that_drips_is_given_up(status):
    """Each byte comes in time, the reply does not."""

    def answer(_):
        return status, (time.sleep(0.05) or b" " for _ in range(60)), {}

    trouble = "TimeoutError" if status == 200 else r"status 500 \(Internal Server Error\)"
    with ChatServer(answer) as server:
        start = time.monotonic()
        with pytest.raises(ValueError, match=rf"got {trouble}.* in the last of 2 tries"):
            judge(server, timeout=0.3, tries=2).answer(images(), ["a"])
        assert time.monotonic() - start < 1.5  # the whole drip takes 3 seconds


def test_no_server_at_all():
    with ChatServer(replies(GOOD)) as server:
        gone = judge(server, tries=2)
    with pytest.raises(ValueError, match=r"got ConnectError .* in the last of 2 tries; .*server runs"):
        gone.answer(images(), ["a"])


def test_the_first_failure_ends_the_rest():
    def answer(request):
        return (400, b"no", {}) if question(request) == "0" else (200, GOOD, {})

    with ChatServer(answer) as server, pytest.raises(ValueError, match="status 400"):
        judge(server, workers=1).answer(images(), [str(j) for j in range(50)], [0] * 50)
    assert len(server.requests) < 10


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    with ChatServer(replies((401, b"bad key: sk-very-secret", {}))) as server:
        ours = judge(server, key_env="JUDGE_KEY")
        with pytest.raises(ValueError, match=r"bad key: \*\*\*") as caught:
            ours.answer(images(), ["a"])
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert "sk-very" not in str(caught.value) + repr(ours)
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ValueError, match="got a key_env= that names no environment variable with"):
        judge(server, key_env="JUDGE_KEY")


@pytest.mark.parametrize("before", [190, 195, 4090])
def test_no_part_of_a_key_is_left_where_the_reply_is_cut(monkeypatch, before):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    body = b"x" * min(before, 190) + b" " * (before - 190) + b"sk-very-secret and more"
    with (
        ChatServer(replies((401, body, {}))) as server,
        pytest.raises(ValueError, match="got status 401") as caught,
    ):
        judge(server, key_env="JUDGE_KEY").answer(images(), ["a"])
    assert "sk-" not in str(caught.value)


def test_a_key_is_stripped_and_checked_when_the_judge_is_made(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", " sk-very-secret\n")
    with ChatServer(replies(GOOD)) as server:
        judge(server, key_env="JUDGE_KEY").answer(images(), ["a"])
        assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
        for wrong in ("sk-very\nsecret", "sk-very secret", "sk-v\u0119ry", "sk-v\u00e9ry", "sk-very\x07"):
            monkeypatch.setenv("JUDGE_KEY", wrong)
            with pytest.raises(
                ValueError, match="got other characters than a key has in the variable"
            ) as caught:
                judge(server, key_env="JUDGE_KEY")
            assert "sk-" not in str(caught.value)
        monkeypatch.setenv("JUDGE_KEY", " \n")
        with pytest.raises(ValueError, match="got a key_env= that names no environment variable with"):
            judge(server, key_env="JUDGE_KEY")
    assert len(server.requests) == 1


def test_a_redirect_does_not_carry_the_key_away(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    with (
        ChatServer(replies(GOOD)) as other,
        ChatServer(replies((307, b"", {"Location": other.url}))) as server,
    ):
        with pytest.raises(ValueError, match="got status 307"):
            judge(server, key_env="JUDGE_KEY").answer(images(), ["a"])
        assert not other.requests


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "file:///etc/passwd",
        "http://",
        "http://user:pass@host/v1",
        "http://host/v1?key=pass@",
        "http://host/v1#pass@",
        "http://host/v1?",
        "http://host:port/v1",
        "http://[::1/v1",
        "http://ho\nst/v1",
        "",
    ],
)
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError, match="no plain address") as caught:
        Endpoint(url, "tiny")
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("options", [{"tries": 0}, {"workers": 0}, {"top": 0}, {"timeout": 0}])
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match="expected at least 1 each and seconds above 0"):
        Endpoint("http://host/v1", "tiny", **options)


def test_writing():
    def answer(request):
        return 200, says(f"{question(request)}! {request['max_tokens']} {'logprobs' in request}"), {}

    with ChatServer(answer) as server:
        assert judge(server).write(images(2), ["b", "a"], tokens=9) == ["b! 9 False", "a! 9 False"]


@pytest.mark.parametrize(
    "reply", [{"choices": []}, {"choices": [{}]}, {"choices": [{"message": "a"}]}, says(7), []]
)
def test_silence_is_an_empty_text_and_no_message_is_an_error(reply):
    with ChatServer(replies(says(None), says(""), {"choices": [{"message": {}}]}, reply)) as server:
        ours = judge(server, workers=1)
        assert ours.write(images(3), ["a", "b", "c"]) == ["", "", ""]
        with pytest.raises(ValueError, match="got a reply without a message from http"):
            ours.write(images(), ["a"])


def test_it_says_what_the_limit_broke_off():
    def answer(request):
        return 200, says("half", "length" if question(request) == "b" else "stop"), {}

    cut: list[int] = []
    with ChatServer(answer) as server:
        judge(server).write(images(), ["a", "b", "a", "b"], [0] * 4, cut=cut.append)
    assert cut == [1, 3]


def test_an_address_may_name_the_whole_path():
    with ChatServer(replies(GOOD)) as server:
        Endpoint(server.url + "/chat/completions", "tiny").answer(images(), ["a"])
    assert server.requests[0]["path"] == "/v1/chat/completions"
