"""From names to rewriters, and what a user is told who names what does not fit."""

import shutil

import pytest

from rewards import assets
from t2ialign.rewriting.fit import budget_of
from t2ialign.rewriting.language import Language
from t2ialign.rewriting.load import choose
from t2ialign.rewriting.rules import Rules
from t2ialign.toy.rewriter import build_model, build_tokenizer
from tests.conftest import POSITIONS
from tests.rewards.tiny_llm import build_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(build_llama(tmp_path_factory.mktemp("llama")))


def test_rules_need_no_model():
    choice = choose("rules", strength="light")
    rewriter = choice.load()
    assert isinstance(rewriter, Rules) and rewriter.strength == "light"
    assert choice.asks == {"convention": "tags", "survival": True}
    assert choice.label == "rules intensity=light"
    assert choose("rules").label == "rules intensity=medium"


def test_a_folder_is_a_language_model_under_a_preset(folder):
    choice = choose(folder, preset="promptenhancer-32b", strength="full", seed=4, tokens=6, batch=3)
    assert choice.asks == {"convention": "last_think", "survival": True}
    assert choice.label == f"{folder} preset=promptenhancer-32b intensity=full tokens=6"
    rewriter = choice.load()
    assert isinstance(rewriter, Language)
    assert (rewriter.preset.tokens, rewriter.seed, rewriter.strength) == (6, 4, "full")
    assert rewriter.writer.batch == 3 and rewriter.writer.chat == {}
    (text,) = rewriter.write(["a red circle"], attempt=0)
    assert text and text == choice.load().write(["a red circle"], attempt=0)[0]


def test_the_template_is_told_what_the_preset_says(folder):
    told = choose(folder, preset="promptenhancer-7b", chat={"more": 1}).load()
    assert isinstance(told, Language) and told.writer.chat == {"enable_thinking": False, "more": 1}
    served = choose("hunyuan", url="http://127.0.0.1:1/v1", preset="promptenhancer-7b", timeout=3).load()
    assert isinstance(served, Language)
    assert served.writer.client.extra == {"chat_template_kwargs": {"enable_thinking": False}}
    assert (served.writer.client.model, served.writer.client.timeout) == ("hunyuan", 3)
    plain = choose("any", url="http://127.0.0.1:1/v1").load()
    assert isinstance(plain, Language) and plain.writer.client.extra == {}  # some servers refuse the unknown


def test_the_embedded_rewriter_gets_the_prompt_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "root", lambda: tmp_path)
    with pytest.raises(ValueError, match="got asset 'toy-rewriter'; expected one of nothing"):
        choose("toy")
    tokenizer = build_tokenizer(["a red circle"])
    build_model(tokenizer).save_pretrained(tmp_path / "toy-rewriter")
    tokenizer.save_pretrained(tmp_path / "toy-rewriter")
    choice = choose("toy")
    assert choice.asks == {"convention": "tags", "survival": False} and choice.label == "toy"
    rewriter = choice.load()
    assert isinstance(rewriter, Language)
    talk = rewriter.preset.messages("a crimson ball", "medium")
    assert talk == [{"role": "user", "content": "a crimson ball"}]
    assert rewriter.writer._text(talk) == "<|user|>a crimson ball"
    with pytest.raises(ValueError, match="got intensity for toy"):
        choose("toy", strength="light")
    with pytest.raises(ValueError, match="got preset for toy"):
        choose("toy", preset="general")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rulse", {}, r"got rewriter 'rulse'; expected rules, toy, a folder of .* or a Hub id"),
        ("rules", {"preset": "general"}, "got preset for rules, which has no such setting; drop it"),
        ("rules", {"url": "http://h/v1", "temperature": 1.0}, "got url, temperature for rules"),
        ("rules", {"tokens": 3}, "got tokens for rules"),
        ("rules", {"strength": "huge"}, "got intensity 'huge'; expected one of light, medium, full"),
        ("toy", {"url": "http://h/v1"}, "got url for toy"),
        ("a/b", {"preset": "none"}, "got preset 'none'; expected one of general"),
        ("a/b", {"preset": "trained", "strength": "full"}, "got intensity for preset trained"),
        ("a/b", {"strength": "huge"}, "got intensity 'huge'"),
        ("a/b", {"tokens": 0}, "got tokens=0; expected a whole number from 1"),
        ("a/b", {"tokens": "many"}, "got tokens='many'"),
        ("a/b", {"chat": "abc"}, r"got chat='abc'; expected names and values; write chat=\{NAME: VALUE\}"),
        ("a/b", {"chat": None}, "got chat=None"),
        ("a/b", {"chat": {1: 2}}, r"got chat=\{1: 2\}"),
        ("a/b", {"url": "http://h/v1", "extra": 5}, "got extra=5; expected names and values"),
    ],
)
def test_what_does_not_fit_is_one_line(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        choose(name, **options)
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_had(folder):
    with pytest.raises(ValueError, match="got 'no-such/model', which does not load"):
        choose("no-such/model").load()
    with pytest.raises(ValueError, match=r"do not fit: .*'top'"):
        choose(folder, top=3).load()


def test_budgets_are_those_of_the_pipelines(tiny_sd, tmp_path):
    tokenizer, limit = budget_of("toy")
    assert limit == tokenizer.model_max_length == 32
    tokenizer, limit = budget_of(str(tiny_sd))
    assert limit == POSITIONS and len(tokenizer("abc").input_ids) == 5
    for part in ("tokenizer", "text_encoder/config.json"):  # no weights are needed
        source, target = tiny_sd / part, tmp_path / "model" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    assert budget_of(str(tmp_path / "model"))[1] == POSITIONS
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"model: {tiny_sd}\n")
    assert budget_of(str(tmp_path / "run"))[1] == POSITIONS
    with pytest.raises(ValueError, match="got model 'no-such/model' without a tokenizer that loads"):
        budget_of("no-such/model")
