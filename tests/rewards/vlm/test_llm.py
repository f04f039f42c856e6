"""Writers over a real tiny language model and a real local server."""

import threading
import time
from collections import Counter
from typing import Any

import pytest
import torch

from rewards.llm.choose import writer
from rewards.llm.local import LocalWriter, _Draw, _draws, local_writer
from tests.rewards.chat_server import ChatServer, says
from tests.rewards.tiny_llm import build_llama
from tests.rewards.tiny_vlm import FAMILIES


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


TALKS: list[Any] = [
    user("a red circle"),
    [
        {"role": "system", "content": "Please answer"},
        *user("Does this figure show a blue square or no circle?"),
    ],
    user("yes"),
    user("a red circle"),
    user("no or yes or no or yes"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def local(folder) -> LocalWriter:
    return local_writer(str(folder), batch=3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_writes_what_its_rows_write_alone(local, temperature):
    together = local.write(TALKS, tokens=12, temperature=temperature, seed=5)
    alone = [
        local.write([talk], tokens=12, temperature=temperature, seed=5 + row)[0]
        for row, talk in enumerate(TALKS)
    ]
    assert together == alone
    assert len(set(together)) >= 4  # the rows do differ
    assert (together[0] == together[3]) is (temperature == 0)  # equal chats, but a seed of their own each


def test_greedy_is_the_likeliest_token_after_the_whole_template(local):
    (text,) = local.write(TALKS[:1], tokens=1)
    prompt = "<|bos|><|start|>user\na red circle<|end|>\n<|start|>assistant\n"
    ids = local.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    best = int(local.model(ids).logits[0, -1].argmax())
    assert ids[0].tolist().count(3) == 1  # the template has written the first token
    assert text == local.tokenizer.decode([best])


def test_a_base_model_reads_the_contents_below_each_other(tmp_path):
    base = local_writer(str(build_llama(tmp_path, template=None)))
    (text,) = base.write([TALKS[1]], tokens=1)
    ids = base.tokenizer(
        "Please answer\nDoes this figure show a blue square or no circle?\n", return_tensors="pt"
    )
    assert ids["input_ids"][0, 0] == 3
    assert text == base.tokenizer.decode([int(base.model(**ids).logits[0, -1].argmax())])


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits = torch.tensor([[0.0, 2.0, -torch.inf, 1.0]])
    for temperature in (0.5, 2.0):
        draws = _draws(range(4000), 1)
        picked = _Draw(draws, 7, temperature)(torch.zeros(4000, 7), logits.expand(4000, -1)).argmax(-1)
        seen = torch.bincount(picked, minlength=4) / 4000
        torch.testing.assert_close(seen, (logits[0] / temperature).softmax(-1), atol=0.03, rtol=0)
        assert seen[2] == 0
    edges = torch.tensor([[0.0], [0.999999]])
    assert _Draw(edges, 0, 1.0)(torch.zeros(2, 0), torch.tensor([[-torch.inf, 0.0, 0.0]] * 2)).argmax(
        -1
    ).tolist() == [1, 2]


def test_what_is_sampled_may_be_one_of_the_likeliest_tokens():
    logits = torch.tensor([[0.0, 2.0, -torch.inf, 1.0]])
    seen = [
        set(
            _Draw(_draws(range(500), 1), 7, 1.0, k)(torch.zeros(500, 7), logits.expand(500, -1))
            .argmax(-1)
            .tolist()
        )
        for k in (1, 2, 50)
    ]
    assert seen == [{1}, {1, 3}, {0, 1, 3}]


def test_a_raw_text_is_continued_by_the_beam_search_of_a_model_card(folder):
    """As the card of microsoft/Promptist asks: the first of all eight beams."""
    raw = local_writer(str(folder), batch=2, raw=True, beams=8, length_penalty=-1.0)
    texts = ["a red circle Rephrase:", "yes or no Rephrase:"]
    written = raw.write([user(text) for text in texts], tokens=6)
    for text, answer in zip(texts, written, strict=True):
        ids = raw.tokenizer(text, return_tensors="pt").input_ids
        settings = {"num_beams": 8, "num_return_sequences": 8, "length_penalty": -1.0}
        beams = raw.model.generate(ids, do_sample=False, max_new_tokens=6, pad_token_id=2, **settings)
        assert answer == raw.tokenizer.decode(beams[0][ids.shape[1] :], skip_special_tokens=True)
    greedy = local_writer(str(folder), raw=True).write([user(text) for text in texts], tokens=6)
    assert written != greedy
    with pytest.raises(ValueError, match="got batch=8, beams=0; expected at least 1"):
        local_writer(str(folder), beams=0)


def test_a_seed_repeats_and_another_does_not(local):
    one, again, other = (local.write(TALKS, tokens=12, temperature=1.0, seed=seed) for seed in (0, 0, 100))
    assert one == again != other


def test_rows_may_have_seeds_of_their_own(local):
    run = {"tokens": 12, "temperature": 1.0}
    counted = local.write(TALKS, seed=5, **run)
    assert local.write(TALKS, seed=[5, 6, 7, 8, 9], **run) == counted
    assert local.write(TALKS[::-1], seed=[9, 8, 7, 6, 5], **run) == counted[::-1]
    with pytest.raises(ValueError, match="got 2 seeds for 5 chats"):
        local.write(TALKS, seed=[1, 2], **run)


def test_rows_that_the_limit_broke_off_are_told(local, monkeypatch):
    cut: list[int] = []
    local.write(TALKS, tokens=4, cut=cut.append)
    assert cut == list(range(5))  # random weights do not end by themselves
    ids = local.tokenizer(local._text(TALKS[0]), add_special_tokens=False, return_tensors="pt")["input_ids"]
    monkeypatch.setattr(local, "ends", local.model(ids).logits[0, -1:].argmax(-1))
    cut.clear()
    local.write(TALKS, tokens=4, cut=cut.append)
    assert not {0, 3} & set(cut)  # equal chats, whose first token is an end now


def test_the_text_is_heard_as_it_is_written(local):
    pieces: list[tuple[int, str]] = []
    written = local.write(
        TALKS, tokens=12, temperature=1.0, heard=lambda row, text: pieces.append((row, text))
    )
    assert ["".join(text for row, text in pieces if row == place) for place in range(5)] == written
    assert max(Counter(row for row, _ in pieces).values()) > 3  # in pieces, not at the end


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_a_vision_language_model_writes_without_images(tmp_path, family):
    seeing = local_writer(str(FAMILIES[family](tmp_path)), batch=2)
    together = seeing.write(TALKS, tokens=8)
    assert together == [seeing.write([talk], tokens=8)[0] for talk in TALKS]
    assert len(set(together)) == 4
    assert "a red circle" in seeing._text(TALKS[0])


def test_control_tokens_are_refused(local):
    with pytest.raises(ValueError, match=r"got a message with '<\|end\|>', which steers this model"):
        local.write([user("no <|end|> yes\nyes")])


@pytest.mark.parametrize(
    "talks",
    [["a cat"], [[]], user("a"), [[{"role": "king", "content": "a"}]], [[{"role": "user", "content": 3}]]],
)
def test_chats_of_another_form(local, talks):
    with pytest.raises(ValueError, match="as chat 0; expected a list of messages"):
        local.write(talks)


@pytest.mark.parametrize("options", [{"tokens": 0}, {"temperature": -0.1}, {"temperature": float("nan")}])
def test_numbers_out_of_range(local, options):
    with pytest.raises(ValueError, match="expected at least 1 and at least 0"):
        local.write(TALKS[:1], **options)


def test_no_chats_are_no_answers(local):
    assert local.write([]) == []


def test_what_does_not_load(tmp_path):
    with pytest.raises(ValueError, match=r"which does not load .*expected a causal language model"):
        writer(str(tmp_path))
    with pytest.raises(ValueError, match=r"do not fit: .*'top'.*; expected weights, dtype"):
        writer(str(tmp_path), top=3)
    with pytest.raises(ValueError, match=r"do not fit: .*'batch'.*; expected url, model, key_env"):
        writer("tiny", "http://host/v1", batch=3)


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def served(server: ChatServer, **options):
    return writer("tiny", server.url, **{"wait": 0.01, "tries": 3, "timeout": 5.0, **options})


def test_an_endpoint_gets_the_chat_and_keeps_the_order(no_proxy):
    def answer(request):
        text = request["messages"][-1]["content"]
        time.sleep(0.05 if text == "a red circle" else 0)
        return 200, says(f"{text}|{request['temperature']}|{request.get('seed')}|{request['max_tokens']}"), {}

    heard: list[tuple[int, str]] = []
    with ChatServer(answer) as server:
        cold = served(server).write(TALKS, tokens=9, heard=lambda row, text: heard.append((row, text)))
        warm = served(server).write(TALKS, tokens=9, temperature=0.5, seed=10)
    assert cold == [f"{talk[-1]['content']}|0|None|9" for talk in TALKS]
    assert warm == [f"{talk[-1]['content']}|0.5|{10 + row}|9" for row, talk in enumerate(TALKS)]
    assert heard == list(enumerate(cold))
    chats = [request["messages"] for request in server.requests]
    assert TALKS[1] in chats and server.requests[0]["model"] == "tiny"


def test_an_endpoint_is_asked_again_and_given_up(no_proxy):
    script, lock = [(429, b"", {}), (200, b"{", {}), (200, says("done"), {})], threading.Lock()

    def answer(_):
        with lock:
            return script.pop(0) if len(script) > 1 else script[0]

    with ChatServer(answer) as server:
        assert served(server).write(TALKS[:1]) == ["done"]
    assert len(server.requests) == 3
    script[:] = [(200, says(None), {}), (200, {"choices": []}, {})]
    with ChatServer(answer) as server:
        assert served(server).write(TALKS[:1]) == [""]
        with pytest.raises(ValueError, match="got a reply without a message"):
            served(server).write(TALKS[:1])


def test_an_endpoint_says_what_the_limit_broke_off(no_proxy):
    def answer(request):
        text = request["messages"][-1]["content"]
        reply = None if text == "yes" else "half"
        return 200, says(reply, "stop" if text == "a red circle" else "length"), {}

    cut: list[int] = []
    with ChatServer(answer) as server:
        written = served(server).write(TALKS, cut=cut.append)
        assert (written, cut) == (["half", "half", "", "half", "half"], [1, 2, 4])


def test_an_endpoint_that_does_not_answer_in_time(no_proxy):
    waited = threading.Event()

    def answer(_):
        waited.wait(2)
        return 200, says("late"), {}

    with ChatServer(answer) as server:
        with pytest.raises(ValueError, match=r"got TimeoutError .* in the last of 2 tries"):
            served(server, timeout=0.2, tries=2).write(TALKS[:1])
        waited.set()
