"""GRPO of a rewriter: who is judged for what, what is rendered, and a run end to end."""

import math
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM

import rewards
from rewards.keypoints.oracle import toy_points
from rewards.keypoints.taxonomy import KeyPoint
from t2ialign.data.rewrites import Wish
from t2ialign.methods.rewrite_grpo.reward import ImageReward, without_gaps
from t2ialign.methods.rewrite_grpo.trainer import Config, Trainer, draw, with_points
from t2ialign.methods.rewrite_sft import trainer as rewrite_sft
from t2ialign.models.load import load_policy
from tests.training.helpers import numbers
from tests.training.rewriters import PHRASINGS, new_rewriter, write_rows

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def judge():
    return ImageReward(
        load_policy("toy"),
        rewards.load("evaluator", backend="oracle"),
        convention="tags",
        survival=False,
        num_inference_steps=8,
        guidance_scale=4.0,
        batch_size=64,
    )


def paid(judge, outputs, wish, *, seeds=None, ended=True, log=None):
    points = toy_points("a purple circle")
    return judge(
        completions=[[{"role": "assistant", "content": text}] for text in outputs],
        ended=[ended] * len(outputs),
        wish=[wish] * len(outputs),
        points=[points] * len(outputs),
        image_seed=seeds or [0] * len(outputs),
        log_metric=log,
    )


def answer(text):
    return f"<think>so</think><answer>{text}</answer>"


def test_what_the_user_meant_is_paid_and_not_what_the_rewrite_says(judge):
    seeds = [seed for seed in range(12) for _ in range(2)]
    outputs = [answer("a purple circle"), answer("a yellow square")] * 12
    scores = paid(judge, outputs, "a plum ball", seeds=seeds)
    right, wrong = sum(scores[::2]) / 12, sum(scores[1::2]) / 12
    assert right > wrong + 0.4  # the image of a yellow square may be perfect


def test_one_text_and_seed_is_rendered_once(judge, monkeypatch):
    rendered = []
    whole = ImageReward.render
    monkeypatch.setattr(
        ImageReward, "render", lambda self, asked: rendered.append(list(asked)) or whole(self, asked)
    )
    seen = {}
    outputs = [answer("a red circle")] * 3 + [answer("a blue circle")]
    scores = paid(judge, outputs, "a ball", log=seen.__setitem__)
    assert rendered == [[("a red circle", 0), ("a blue circle", 0)]]
    assert scores[0] == scores[1] == scores[2]
    assert seen["rewrite/rendered"] == 0.5 and seen["rewrite/used"] == 1.0
    assert seen["rewrite/words"] == 3 and seen["rewrite/thought_words"] == 1


def test_what_cannot_be_used_is_judged_as_the_user_s_prompt(judge, monkeypatch):
    rendered = []
    whole = ImageReward.render
    monkeypatch.setattr(
        ImageReward, "render", lambda self, asked: rendered.extend(asked) or whole(self, asked)
    )
    seen = {}
    paid(
        judge, ["<think>a purple circle", "<answer>a</answer><answer>b</answer>"], "hm", log=seen.__setitem__
    )
    assert rendered == [("hm", 0)] and seen["rewrite/fallback"] == 1.0
    rendered.clear()
    paid(judge, ["a purple circle"], "hm", ended=False)  # no marks, and the token limit was met
    assert rendered == [("hm", 0)]
    rendered.clear()
    strict = ImageReward(judge.policy, judge.reward, convention="tags", survival=True, **judge.options)
    paid(strict, [answer("a circle"), answer("two circles")], "two balls", log=seen.__setitem__)
    assert rendered == [("two balls", 0), ("two circles", 0)]
    assert seen["rewrite/lost_number"] == 0.5


def test_a_verdict_that_could_not_be_read_teaches_nothing():
    nan = math.nan
    assert without_gaps([1.0, nan, 0.5, nan, nan], [7, 7, 7, 8, 8]) == [1.0, 0.75, 0.5, 0.0, 0.0]


def test_points_are_those_of_the_row_or_found_and_errors_name_the_row(judge):
    mine = [{"kind": "counting", "description": "there are two"}]
    wishes = [Wish("two balls", mine, "a.jsonl line 1"), Wish("a red circle", None, "a.jsonl line 2")]
    (_, given), (_, found) = with_points(wishes, judge.reward)
    assert given == [KeyPoint("counting", "there are two")] and found == toy_points("a red circle")
    with pytest.raises(ValueError, match=r"a.jsonl line 3, points: got key point 'number'; expected one of"):
        with_points([Wish("a", [{**mine[0], "kind": "number"}], "a.jsonl line 3")], judge.reward)
    with pytest.raises(ValueError, match=r"a.jsonl line 4: got 'a' without key points"):
        with_points([Wish("a", [], "a.jsonl line 4")], judge.reward)


def test_kinds_are_drawn_evenly_or_prompts_are():
    style = [("s", [KeyPoint("artistic_style", "oil")])] * 9
    rare = ("l", [KeyPoint("entity_layout", "left"), KeyPoint("entity_layout", "above")])
    even = Counter(prompt for prompt, _ in draw([*style, rare], 2000, seed=1, balance=True))
    assert abs(even["l"] - 1000) < 120  # five standard deviations of a fair coin
    plain = Counter(prompt for prompt, _ in draw([*style, rare], 2000, seed=1, balance=False))
    assert abs(plain["l"] - 200) < 70
    first = draw([*style, rare], 20, seed=1, balance=True)
    assert first == draw([*style, rare], 40, seed=1, balance=True)[:20]  # a longer run begins the same


def test_a_run_end_to_end(tmp_path, capsys):
    cfg = Config(
        model=str(new_rewriter(tmp_path / "raw")),
        prompts=str(write_rows(tmp_path / "rows.jsonl", PHRASINGS)),
        output=tmp_path / "run",
        reward_options={"backend": "oracle"},
        lora_rank=4,
        max_steps=2,
        batch_size=4,
        group=4,
        num_inference_steps=2,
        tokens=8,
        lr=1e-2,
        preset="toy",
        trackers=(),
    )
    trainer = Trainer(cfg)
    seeds = trainer.trainer.train_dataset["image_seed"]
    assert seeds == [0, 1]  # a prompt a step, whose group shares its noise
    trainer.fit()
    plan = capsys.readouterr().err
    assert "run plan: rewrite_grpo" in plan and "toy, 2 steps, guidance 5" in plan
    assert f"{len(PHRASINGS)} prompts, none held out" in plan
    rows = [row for row in numbers(cfg.output) if "reward" in row]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["rewrite/fallback"] == 1.0 for row in rows)  # it has learnt nothing yet
    assert rows[0]["kl"] == 0.0  # the reference is the LoRA switched off
    assert (cfg.output / "adapter_model.safetensors").is_file()


def test_a_preset_without_a_chat_is_refused(tmp_path):
    cfg = Config(
        model="a/b", prompts="rows.jsonl", output=tmp_path / "run", preset="magicprompt", trackers=()
    )
    with pytest.raises(ValueError, match="got preset=magicprompt, of models that continue a prompt"):
        Trainer(cfg)
    assert not (tmp_path / "run").exists()


@pytest.mark.rest
def test_a_lora_is_gone_on_from_as_merged(tmp_path):
    base, rows = new_rewriter(tmp_path / "raw"), write_rows(tmp_path / "rows.jsonl", PHRASINGS)
    common = {"lora_rank": 4, "max_steps": 2, "batch_size": 4, "lr": 1e-2, "trackers": ()}
    first = rewrite_sft.Config(model=str(base), data=str(rows), output=tmp_path / "sft", **common)
    rewrite_sft.Trainer(first).fit()
    asked = {"model": str(first.output), "prompts": str(rows), "reward_options": {"backend": "oracle"}}
    more = {**asked, "group": 2, "num_inference_steps": 2, "tokens": 4, "preset": "toy", **common}
    trainer = Trainer(Config(**more, output=tmp_path / "grpo"))
    ids = {"input_ids": torch.tensor([[5, 6, 7]])}
    with torch.no_grad():
        started = trainer.trainer.model(**ids).logits
        wanted = AutoModelForCausalLM.from_pretrained(first.output)(**ids).logits
        untrained = AutoModelForCausalLM.from_pretrained(base)(**ids).logits
    torch.testing.assert_close(started, wanted)
    assert not torch.allclose(started, untrained)
    trainer.fit()
    assert not (tmp_path / "grpo" / "adapter_config.json").exists()  # it would name the model without SFT
    with pytest.raises(ValueError, match=r"lora_rank=0 for .*, which is a LoRA"):
        Trainer(Config(**{**more, "lora_rank": 0}, output=tmp_path / "other"))


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="got batch_size=4 x accumulate=1; expected a multiple of group=8"):
        Trainer(Config(prompts="x.jsonl", batch_size=4, output=tmp_path / "run"))
