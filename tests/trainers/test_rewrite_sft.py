"""Supervised fine-tuning of a rewriter: what is learnt, what is held out, resume, and the errors."""

import pytest
import torch
from safetensors.torch import load_file

from rewards.llm import writer
from t2ialign.trainers.rewrite_sft import Config, Trainer, split
from tests.trainers.helpers import numbers
from tests.trainers.rewriters import PHRASINGS, new_rewriter, write_rows

pytest.importorskip("trl")


@pytest.fixture
def config(tmp_path):
    model, data = new_rewriter(tmp_path / "raw"), write_rows(tmp_path / "rows.jsonl", PHRASINGS)

    def make(**changes):
        values = {"model": str(model), "data": str(data), "output": tmp_path / "run", "lora_rank": 0}
        values |= {"max_steps": 4, "batch_size": 8, "lr": 2e-3, "checkpoint_every": 2, "trackers": ()}
        return Config(**{**values, **changes})

    return make


def test_it_learns_to_write_thought_and_rewrite(config):
    cfg = config(max_steps=40, evaluate_every=20, checkpoint_every=40, trackers=("tensorboard",))
    Trainer(cfg).fit()
    rows = numbers(cfg.output)
    held = [row["eval_loss"] for row in rows if "eval_loss" in row]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 41))
    assert held[-1] < held[0]
    assert list((cfg.output / "logs").glob("events.*"))
    chat = [[{"role": "user", "content": PHRASINGS[0].prompt}]]
    (text,) = writer(str(cfg.output)).write(chat, tokens=24)
    assert text.startswith("<think>")
    assert f"{len(PHRASINGS) - 3} rows" in (cfg.output / "README.md").read_text()


def test_the_loss_is_over_what_is_written_and_not_over_the_user(config):
    trainer = Trainer(config()).trainer
    batch = next(iter(trainer.get_train_dataloader()))
    learnt = trainer.processing_class.batch_decode([ids[ids >= 0] for ids in batch["labels"]])
    for text, ids in zip(learnt, batch["input_ids"], strict=True):
        whole = trainer.processing_class.decode(ids)
        (mine,) = [p for p in PHRASINGS if f"<|user|>{p.prompt}<think>" in whole]
        assert text == f"<think>{mine.thought}</think><answer>{mine.caption}</answer><|end|>"


def test_without_thought_the_rewrite_alone_is_learnt(config):
    trainer = Trainer(config(thought=False)).trainer
    batch = next(iter(trainer.get_train_dataloader()))
    for ids in batch["labels"]:
        text = trainer.processing_class.decode(ids[ids >= 0])
        assert text.startswith("<answer>") and text.endswith("</answer><|end|>")


def test_a_resumed_run_is_the_run(config, tmp_path):
    whole = config(output=tmp_path / "whole")
    Trainer(whole).fit()
    part = config(output=tmp_path / "part")
    Trainer(part.model_copy(update={"max_steps": 2})).fit()
    Trainer(part.model_copy(update={"resume": "latest"})).fit()
    one, two = (load_file(cfg.output / "model.safetensors") for cfg in (whole, part))
    assert all(torch.equal(one[name], two[name]) for name in one)
    steps = [row["step"] for row in numbers(part.output) if "loss" in row]
    assert steps == [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"got lr=0.1 on resume; expected 0.002"):
        Trainer(part.model_copy(update={"resume": "latest", "lr": 0.1}))


def test_a_lora_is_saved_alone_and_written_with(config):
    cfg = config(lora_rank=4, max_steps=2)
    Trainer(cfg).fit()
    assert (cfg.output / "adapter_model.safetensors").is_file()
    assert not (cfg.output / "model.safetensors").exists()
    assert writer(str(cfg.output)).write([[{"role": "user", "content": "a ball"}]], tokens=2)


def test_all_rows_of_a_prompt_are_held_out_together():
    from t2ialign.data.rewrites import Triple

    rows = [Triple(f"p{i % 10}", "t", f"r{i}") for i in range(40)]
    train, held = split(rows, 0.2, seed=0)
    assert len(train) == 32 and len(held) == 8
    assert not {row.prompt for row in train} & {row.prompt for row in held}


def test_errors_say_what_to_do(config, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "rewrite": "b"}\n')
    with pytest.raises(ValueError, match="rename what stands for thought"):
        Trainer(config(data=str(tmp_path / "bad.jsonl")))
    (tmp_path / "empty.jsonl").write_text('{"prompt": "a", "thought": " ", "rewrite": "b"}\n')
    with pytest.raises(ValueError, match=r"line 1: got ' ' for thought; expected text"):
        Trainer(config(data=str(tmp_path / "empty.jsonl"), output=tmp_path / "other"))
    with pytest.raises(ValueError, match="holds no checkpoint"):
        Trainer(config(output=tmp_path / "third", resume="latest"))
