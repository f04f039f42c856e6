"""Rewriting by language models: presets, seeds and cut outputs, on a real tiny model and a real server."""

import pytest
import torch

from rewards.llm.choose import writer
from rewards.llm.local import LocalWriter, local_writer
from t2ialign.rewriting.instructions import PRESETS, STRENGTH, Preset
from t2ialign.rewriting.intensity import INTENSITIES
from t2ialign.rewriting.language import Language, drawn
from t2ialign.rewriting.parse import CONVENTIONS, CUT, LIMIT
from t2ialign.rewriting.rewriter import report, rewrite
from t2ialign.rewriting.rules import Rules
from t2ialign.toy.rewriter import build_model, build_tokenizer
from tests.conftest import tiny_tokenizer
from tests.rewards.chat_server import ChatServer, says
from tests.rewards.tiny_llm import build_llama

PROMPTS = ["a red circle", "three blue squares", "no yellow cross"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights, which never end what they write."""
    return local_writer(str(build_llama(tmp_path_factory.mktemp("llama"))), batch=2)


@pytest.fixture
def short():
    """The preset of a trained model, with outputs short enough for a test."""
    return Preset(tokens=12)


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def taught(pairs: dict[str, str]) -> LocalWriter:
    """The toy rewriter's own class, overfitted to write these outputs."""
    tokenizer = build_tokenizer([*pairs, *pairs.values()])
    model = build_model(tokenizer)
    talks = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": output}]
        for prompt, output in pairs.items()
    ]
    texts = [tokenizer.apply_chat_template(talk, tokenize=False) for talk in talks]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(200):
        loss = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01:
            break
    return LocalWriter(model, tokenizer)


@pytest.mark.rest
def test_a_taught_model_rewrites_and_its_failures_are_named():
    good = "<think>crimson is red</think><answer>a red circle</answer>"
    writer = taught(
        {
            "a crimson ball": good,
            "three cats": "<think>few</think><answer>some cats</answer>",
            "a sign": "<answer>half",
        }
    )
    language = Language(writer, Preset(tokens=40))
    results = rewrite(language, ["a crimson ball", "three cats", "a sign"], tries=1)
    assert [result.text for result in results] == ["a red circle", "three cats", "a sign"]
    assert (results[0].thought, results[1].reason) == ("crimson is red", "lost: number")
    assert report(results)["fallbacks"] == {"answer not closed": pytest.approx(1 / 3)}
    (cut,) = rewrite(Language(writer, Preset(tokens=8)), ["a crimson ball"], tries=1)
    assert (cut.used, cut.fallback) == ("original", LIMIT)
    # The end mark may be the last token that the limit allows.
    last = len(writer.tokenizer(good).input_ids) + 1
    exact = Language(writer, Preset(tokens=last)).write(["a crimson ball"], attempt=0)
    assert exact == [good]


def test_tries_and_draws_differ_and_depend_on_the_prompt_alone(model, short):
    language = Language(model, short, seed=3)
    greedy, again = (language.write(PROMPTS, attempt=0) for _ in range(2))
    assert greedy == again
    assert greedy == Language(model, short, seed=4).write(PROMPTS, attempt=0)  # the first try draws nothing
    second, draw, both = (
        language.write(PROMPTS, attempt=1),
        drawn(language, 1).write(PROMPTS, attempt=0),
        drawn(language, 1).write(PROMPTS, attempt=1),
    )
    texts = [greedy, second, draw, both, Language(model, short, seed=4).write(PROMPTS, attempt=1)]
    assert all(len(set(column)) == len(texts) for column in zip(*texts, strict=True))
    assert language.write(PROMPTS[::-1], attempt=1) == second[::-1]
    assert language.write(PROMPTS[1:2], attempt=1) == second[1:2]
    assert drawn(Rules(seed=3), 2) == Rules(seed=3, draw=2)


def test_what_never_ends_is_cut(model, short):
    outputs = Language(model, short).write(PROMPTS, attempt=0)
    assert all(output.endswith(CUT) and output.count(CUT) == 1 for output in outputs)
    figures = report(rewrite(Language(model, short), PROMPTS))
    assert figures["fallbacks"] == {LIMIT: 1.0} and figures["tried_again"] == 1 and figures["rewritten"] == 0


def test_a_first_temperature_samples_the_first_try_too(model, short):
    warm = Language(model, short, temperature=1.5)
    assert warm.write(PROMPTS, attempt=0) != Language(model, short).write(PROMPTS, attempt=0)
    assert warm.write(PROMPTS, attempt=0) != Language(model, short, temperature=1.5, seed=1).write(
        PROMPTS, attempt=0
    )


def test_every_preset_gives_the_prompt_unchanged_and_says_the_intensity():
    prompt = 'a sign "{intensity}" and {braces}'
    for name, preset in PRESETS.items():
        assert preset.convention in CONVENTIONS
        for strength, how in INTENSITIES.items():
            talk = preset.messages(prompt, strength)
            assert talk[-1]["role"] == "user" and talk[-1]["content"].endswith(prompt + preset.suffix)
            told = "".join(message["content"] for message in talk).removesuffix(prompt + preset.suffix)
            assert STRENGTH not in told and (how.instruction in told) is preset.takes_intensity
            plain = ("trained", "toy", "magicprompt", "promptist")
            assert preset.takes_intensity is (name not in plain)
    roles = {name: [m["role"] for m in p.messages("x", "light")] for name, p in PRESETS.items()}
    assert roles["promptenhancer-7b"] == roles["general"] == ["system", "user"]
    assert roles["promptenhancer-32b"] == roles["trained"] == roles["toy"] == ["user"]
    seven, big = PRESETS["promptenhancer-7b"], PRESETS["promptenhancer-32b"]
    assert (seven.tokens, seven.temperature, seven.convention) == (512, 0, "tags")
    assert (big.tokens, big.temperature, big.convention) == (2048, 0, "last_think")


def test_an_endpoint_is_asked_in_the_preset_s_words_and_says_what_it_cut(no_proxy):
    def answer(request):
        text = request["messages"][-1]["content"]
        if text.endswith("silent"):  # its thoughts used up the limit
            return 200, {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}, {}
        reply = says("<think>as asked</think><answer>a grey cat</answer>")
        if text.endswith("cut"):
            reply = says("<think>as ask")
            reply["choices"][0]["finish_reason"] = "length"
        return 200, reply, {}

    with ChatServer(answer) as server:
        rewriter = Language(writer("m", server.url, wait=0.01), PRESETS["general"], "light", seed=7)
        results = rewrite(rewriter, ["a cat", "a cat cut", "a cat silent"])
    assert [result.text for result in results] == ["a grey cat", "a cat cut", "a cat silent"]
    assert [result.fallback for result in results] == [None, LIMIT, LIMIT]
    assert [result.tries for result in results] == [1, 2, 2]
    first, later = server.requests[:3], server.requests[3:]
    assert all(request["temperature"] == 0 and "seed" not in request for request in first)
    assert len(later) == 2 and all(request["temperature"] > 0 for request in later)
    assert len({request["seed"] for request in later}) == 2
    assert all(0 <= request["seed"] < 2**31 for request in later)
    system = first[0]["messages"][0]
    assert system["role"] == "system" and INTENSITIES["light"].instruction in system["content"]


def test_the_embedded_rewriter_must_fit_too_whatever_words_it_replaces():
    class Long:
        def write(self, prompts, *, attempt):
            return ["<answer>a purple cross. It is very big and stands alone.</answer>"] * len(prompts)

    (result,) = rewrite(
        Long(), ["a plum cross without any pyramid"], survival=False, tokenizer=tiny_tokenizer(), limit=20
    )
    assert (result.used, result.text) == ("rewrite", "a purple cross.")
    assert result.dropped == ("It is very big and stands alone.",)
    assert [loss.what for loss in result.lost] == ["negation"]


def test_pieces_are_heard_as_they_are_written(model, short):
    heard: list[str] = []
    (output,) = Language(model, short, heard=lambda row, piece: heard.append(piece)).write(
        PROMPTS[:1], attempt=0
    )
    assert "".join(heard) == output.removesuffix(CUT) and len(heard) > 3
