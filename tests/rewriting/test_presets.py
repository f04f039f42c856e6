"""Every preset through the real classes: template, tokenizer, generate, decode, parse and checks.

The networks are tiny and overfitted to one output each, so what is tried is everything but the writing.
"""

import json

import pytest

from rewards.llm.local import LocalWriter
from t2ialign.rewriting import parse as p
from t2ialign.rewriting.job import Job
from t2ialign.rewriting.language import Language
from t2ialign.rewriting.load import choose
from t2ialign.rewriting.rewriter import Rewritten, rewrite
from tests.conftest import tiny_tokenizer
from tests.rewriting.taught import build

PROMPT = "three cats"
BIG, SEVEN = "Qwen2_5_VLForConditionalGeneration", "HunYuanDenseV1ForCausalLM"
SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n{% endif %}"


def run(folder: str, preset: str, **settings) -> Rewritten:
    choice = choose(folder, preset=preset)
    (result,) = rewrite(choice.load(), [PROMPT], **{**Job(choice, tries=1).settings(), **settings})
    return result


@pytest.mark.parametrize(
    ("preset", "kind", "opened", "output", "thought", "answer", "fallback"),
    [
        (
            "promptenhancer-32b",
            BIG,
            "",
            "<think>many</think>\nthree grey cats",
            "many",
            "three grey cats",
            None,
        ),
        # A template that opened the thought itself would leave one mark, which the released code refuses.
        ("promptenhancer-32b", BIG, "<think>\n", "many</think>three grey cats", "", "", p.MARKS),
        (
            "promptenhancer-7b",
            SEVEN,
            SWITCH,
            "<think>many</think><answer>three grey cats</answer>",
            "many",
            "three grey cats",
            None,
        ),
        ("promptenhancer-7b", SEVEN, SWITCH, "three grey cats", "", "three grey cats", p.NO_TAGS),
        (
            "general",
            "Qwen3ForCausalLM",
            "",
            "<think>many</think>\n\n<answer>three grey cats</answer>",
            "many",
            "three grey cats",
            None,
        ),
        (
            "general",
            "Qwen3ForCausalLM",
            "<think>\n",
            "many</think>\n\n<answer>three grey cats</answer>",
            "many",
            "three grey cats",
            None,
        ),
        ("trained", "Qwen2ForCausalLM", "", "<answer>some cats</answer>", "", "some cats", None),
    ],
)
def test_instruction_models(tmp_path, preset, kind, opened, output, thought, answer, fallback):
    folder = build(tmp_path, kind, preset, {PROMPT: output}, opened=opened)
    result = run(folder, preset)
    assert (result.thought if result.fallback != p.MARKS else "", result.rewrite) == (thought, answer)
    assert result.fallback == fallback
    assert result.used == ("rewrite" if "three" in answer else "original")


GPT = "GPT2LMHeadModel"
ADDED = " in fog, highly detailed, 4 k"


@pytest.fixture(scope="module")
def magic(tmp_path_factory):
    """Two prompts of different lengths: a batch is padded, by a tokenizer that has no token for it."""
    pairs = {PROMPT: ADDED, "a very tall red house": ", matte painting"}
    return build(tmp_path_factory.mktemp("magic"), GPT, "magicprompt", pairs, opened=None)


def test_a_prompt_expansion_model_continues_the_prompt(magic):
    choice = choose(magic, preset="magicprompt")
    assert choice.label == f"{magic} preset=magicprompt"
    language = choice.load()
    assert isinstance(language, Language) and isinstance(language.writer, LocalWriter)
    assert language.writer.tokenizer.chat_template is None and language.writer.top_k == 50
    results = rewrite(language, [f" {PROMPT} ", "a very tall red house"], **Job(choice, tries=1).settings())
    assert [result.text for result in results] == [PROMPT + ADDED, "a very tall red house, matte painting"]
    assert not any(result.fallback or result.lost for result in results)


def test_a_continuation_that_the_limit_breaks_off_ends_at_a_comma(magic):
    choice = choose(magic, preset="magicprompt", tokens=3)
    (result,) = rewrite(choice.load(), [PROMPT], **Job(choice, tries=1).settings())
    assert (result.used, result.text, result.fallback) == ("rewrite", f"{PROMPT} in fog", None)


@pytest.mark.parametrize(
    ("prompt", "limit", "text", "dropped"),
    [
        (PROMPT, 60, "three cats in fog, highly detailed, 4 k", ()),
        (PROMPT, 33, "three cats in fog, highly detailed.", ("4 k",)),
        (PROMPT, 22, "three cats in fog.", ("highly detailed,", "4 k")),
        (PROMPT, 16, PROMPT, ("highly detailed,", "4 k")),  # not even " in fog" fits
        ("A dog. A cat", 22, "A dog. A cat in fog.", ("highly detailed,", "4 k")),
        ("a cat, a dog", 22, "a cat, a dog in fog.", ("highly detailed,", "4 k")),
    ],
)
def test_the_token_budget_is_met_by_what_was_added(prompt, limit, text, dropped):
    """The tokenizer has a token a letter, none for a blank, and two marks: 'three cats in fog.' are 17."""

    class Continues:
        def write(self, prompts, *, attempt):
            return [ADDED] * len(prompts)

    tokenizer = tiny_tokenizer()
    (result,) = rewrite(Continues(), [prompt], convention="continuation", tokenizer=tokenizer, limit=limit)
    assert (result.text, result.dropped) == (text, dropped)
    assert (result.reason == "over the token budget") is (text == prompt)


def test_promptist_rephrases_by_beam_search(tmp_path):
    """From the files that its repository has: a tokenizer without a configuration."""
    answer = " three grey cats, intricate"
    folder = build(tmp_path, GPT, "promptist", {PROMPT: answer}, opened=None)
    words = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "vocab.json").write_text(json.dumps(words["model"]["vocab"]), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").unlink()
    heard: list[tuple[int, str]] = []
    choice = choose(folder, preset="promptist")
    language = choice.load(lambda row, piece: heard.append((row, piece)))
    (result,) = rewrite(language, [PROMPT], **Job(choice, tries=1).settings())
    assert (result.used, result.text) == ("rewrite", answer.strip())
    assert heard == [(0, answer)]  # whole: no beam is known to be the best before the end
    assert language.write([PROMPT], attempt=1) == [answer]  # a second try is sampled


def test_a_model_without_a_chat_template_is_not_given_instructions(magic):
    for preset in ("general", "promptenhancer-7b", "promptenhancer-32b"):
        with pytest.raises(
            ValueError, match=f"without a chat template, and preset {preset}, which instructs"
        ):
            choose(magic, preset=preset).load()
    assert isinstance(choose(magic, preset="trained").load(), Language)


@pytest.mark.parametrize("preset", ["magicprompt", "promptist"])
def test_what_a_continuing_model_cannot_be_asked(preset):
    for given in ({"url": "http://127.0.0.1:1/v1"}, {"chat": {"a": 1}}, {"strength": "full"}):
        with pytest.raises(ValueError, match=rf"for preset {preset}, which has no such setting; drop it"):
            choose("a/b", preset=preset, **given)
