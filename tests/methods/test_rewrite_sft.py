"""Supervised fine-tuning of a rewriter: what is learnt, what is held out, resume, and the errors."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from rewards.llm.choose import writer
from t2ialign.data.rewrites import Triple
from t2ialign.methods.rewrite_sft.trainer import TAUGHT, Config, Trainer, split, written
from t2ialign.methods.rewriter.language import whole_checkpoint, writing
from t2ialign.rewriting.instructions import PRESETS
from t2ialign.rewriting.parse import Parsed, parse
from tests.training.helpers import numbers
from tests.training.rewriters import PHRASINGS, new_rewriter, write_rows

pytest.importorskip("trl")


@pytest.fixture
def config(tmp_path):
    model, data = new_rewriter(tmp_path / "raw"), write_rows(tmp_path / "rows.jsonl", PHRASINGS)

    def make(**changes):
        values = {"model": str(model), "data": str(data), "output": tmp_path / "run", "lora_rank": 0}
        values |= {"max_steps": 4, "batch_size": 8, "lr": 2e-3, "checkpoint_every": 2, "trackers": ()}
        return Config(**{**values, **changes})

    return make


@pytest.mark.rest
def test_it_learns_to_write_thought_and_rewrite(config):
    cfg = config(max_steps=40, evaluate_every=20, checkpoint_every=40, trackers=("tensorboard",))
    steps, evaluations = [], []
    Trainer(cfg).fit(
        on_step=lambda step, row: steps.append(step),
        on_evaluation=lambda step, row: evaluations.append(row["eval_loss"]),
    )
    rows = numbers(cfg.output)
    held = [row["eval_loss"] for row in rows if "eval_loss" in row]
    assert steps == list(range(1, 41)) and evaluations == held
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


@pytest.mark.rest
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


@pytest.mark.rest
def test_a_checkpoint_torn_by_a_kill_is_passed_over(config, tmp_path, monkeypatch):
    whole, cfg = config(output=tmp_path / "whole"), config(output=tmp_path / "part")
    Trainer(whole).fit()
    save = TrainerState.save_to_json

    def killed(state, file):
        save(state, file)
        if state.global_step == 4:
            with open(file, "r+", encoding="utf-8") as stream:
                stream.truncate(100)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainerState, "save_to_json", killed)
        with pytest.raises(KeyboardInterrupt):
            Trainer(cfg).fit()
    root = cfg.output / "checkpoints"
    assert (root / "checkpoint-4" / "optimizer.pt").is_file()
    assert whole_checkpoint(cfg.output) == root / "checkpoint-2"
    trainer = Trainer(cfg.model_copy(update={"resume": "latest"}))
    assert not (root / "checkpoint-4").exists() and (root / "checkpoint-2").is_dir()
    trainer.fit()
    assert whole_checkpoint(cfg.output) == root / "checkpoint-4"
    one, two = (load_file(run.output / "model.safetensors") for run in (whole, cfg))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_newest_whole_checkpoint_is_the_one_of_most_steps(tmp_path):
    assert whole_checkpoint(tmp_path) is None
    root = tmp_path / "checkpoints"
    states = {"10": "{}", "9": "{}", "20": None, "30": "", "40": '{"a": ', "last": "{}"}
    for name, state in states.items():
        (root / f"checkpoint-{name}").mkdir(parents=True)
        if state is not None:
            (root / f"checkpoint-{name}" / "trainer_state.json").write_text(state)
    assert whole_checkpoint(tmp_path) == root / "checkpoint-10"


@pytest.mark.parametrize("thought", [True, False])
@pytest.mark.parametrize("preset", TAUGHT)
def test_what_is_taught_is_what_the_preset_reads(preset, thought):
    text = written(Triple("two dogs", "a pair", "two dogs side by side"), thought=thought)
    found = parse(text, "two dogs", convention=PRESETS[preset].convention)
    assert found == Parsed("a pair" if thought else "", "two dogs side by side")


def test_a_preset_that_reads_something_else_is_refused(config):
    assert set(PRESETS) - set(TAUGHT) == {"promptenhancer-32b", "magicprompt", "promptist"}
    cfg = config(preset="promptenhancer-32b")
    with pytest.raises(ValueError, match=r"got preset=promptenhancer-32b, whose .* last_think; expected"):
        Trainer(cfg)
    assert not cfg.output.exists()


def test_a_row_that_is_too_long_is_left_out_and_counted(config, capsys):
    free = Trainer(config()).trainer
    assert "left out" not in capsys.readouterr().out
    parts = [[len(ids) for ids in part["input_ids"]] for part in (free.train_dataset, free.eval_dataset)]
    most = max(map(max, parts)) - 1
    left = sum(length > most for part in parts for length in part)
    cfg = config(max_length=most, max_steps=1)
    trainer = Trainer(cfg)
    rows = trainer.trainer.train_dataset
    end = trainer.trainer.processing_class.eos_token_id
    assert left and len(rows) == sum(length <= most for length in parts[0])
    assert all(ids[-1] == end for ids in rows["input_ids"])
    said = f"{len(rows)} rows, {left} left out as longer than {most} tokens"
    assert said in capsys.readouterr().out
    trainer.fit()
    assert said in (cfg.output / "README.md").read_text()
    plan = capsys.readouterr().err
    assert "run plan: rewrite_sft" in plan and f"{len(rows)} rows, " in plan
    assert f"steps        1, {8 / len(rows):.1f} epochs" in plan and "(100 %)" in plan
    with pytest.raises(ValueError, match=rf"got max_length=8; expected at least {min(parts[0])}, .* raise"):
        Trainer(config(max_length=8, output=cfg.output.with_name("other")))


def test_a_lora_is_saved_alone_and_written_with(config):
    cfg = config(lora_rank=4, max_steps=2)
    Trainer(cfg).fit()
    assert (cfg.output / "adapter_model.safetensors").is_file()
    assert not (cfg.output / "model.safetensors").exists()
    assert writer(str(cfg.output)).write([[{"role": "user", "content": "a ball"}]], tokens=2)


def test_all_rows_of_a_prompt_are_held_out_together():
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
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"in use \(it holds model.*found no whole checkpoint in it"):
        Trainer(config(output=tmp_path / "third", resume="latest"))


@pytest.mark.rest
@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors", "trainer_state.json", "hashes.json"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(config, name, caplog):
    """Every file carries its hash, that of the optimiser too."""
    cfg = config()
    Trainer(cfg).fit()
    root, result = cfg.output / "checkpoints", load_file(cfg.output / "model.safetensors")
    again = cfg.model_copy(update={"resume": "latest"})
    for number in (4, 2):
        data = bytearray((root / f"checkpoint-{number}" / name).read_bytes())
        data[len(data) // 2] ^= 1
        (root / f"checkpoint-{number}" / name).write_bytes(data)
        if number == 4:
            Trainer(again).fit()
            assert "checkpoint-4 is damaged" in caplog.text and "goes on from checkpoint-2" in caplog.text
            assert {path.name for path in root.glob("*-*")} == {
                *("checkpoint-2", "checkpoint-4", "damaged-checkpoint-4")
            }
            mended = load_file(cfg.output / "model.safetensors")
            assert all(torch.equal(value, mended[key]) for key, value in result.items())
            (root / "checkpoint-4" / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole \(checkpoint-4: .*restore one"):
        Trainer(again)


@pytest.mark.parametrize("lr, good", [(1e30, None), (3.0, "checkpoint-1")])
def test_a_run_that_diverged_ends_and_names_a_good_checkpoint_if_there_is_one(config, monkeypatch, lr, good):
    trainer = Trainer(config(lr=lr, checkpoint_every=1))
    if good:  # large, but finite: the next loss is spoilt by hand
        step = trainer.trainer.training_step

        def spoilt(*arguments, **options):
            return step(*arguments, **options) * (torch.nan if trainer.trainer.state.global_step else 1.0)

        monkeypatch.setattr(trainer.trainer, "training_step", spoilt)
        monkeypatch.setattr(trainer.trainer.args, "logging_nan_inf_filter", False)
    with pytest.raises(FloatingPointError, match="start anew in another output with a lower lr") as caught:
        trainer.fit()
    assert (good or "no checkpoint is good") in str(caught.value)


def test_a_run_without_a_whole_checkpoint_starts_from_the_beginning(config, caplog):
    """As a kill leaves it in the middle of its first checkpoint."""
    caplog.set_level("INFO")
    cfg = config(max_steps=1, resume="latest")
    (cfg.output / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    (cfg.output / "checkpoints" / "checkpoint-2" / "optimizer.pt").touch()
    (cfg.output / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"st')
    Trainer(cfg).fit()
    assert "starting from the beginning" in caplog.text
    assert [row["step"] for row in numbers(cfg.output) if "loss" in row] == [1]
    assert [path.name for path in (cfg.output / "checkpoints").glob("*-*")] == ["checkpoint-1"]


@pytest.mark.rest
@pytest.mark.parametrize("content", ["", "lr: [", "lr: 0.1"])
def test_damaged_settings_of_the_output_do_not_block_resume(config, content):
    """Each checkpoint holds those of its run."""
    cfg = config(max_steps=2)
    Trainer(cfg).fit()
    (cfg.output / "config.yaml").write_text(content)
    Trainer(cfg.model_copy(update={"resume": "latest", "max_steps": 3})).fit()
    assert numbers(cfg.output)[-1]["step"] == 3
    with pytest.raises(ValueError, match=r"got lr=0.1 on resume; expected 0.002, as in .*checkpoint-3"):
        Trainer(cfg.model_copy(update={"resume": "latest", "lr": 0.1}))


@pytest.mark.parametrize(
    "text", ["I/O error: No space left on device (os error 28)", "unexpected pos 64 vs 0"]
)
def test_what_cannot_be_written_is_one_line(tmp_path, text):
    with pytest.raises(OSError, match=r"got .* writing to .*add resume=latest"), writing(tmp_path):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="another"), writing(tmp_path):
        raise RuntimeError("another")
