"""Kills, signals and resumes: what an interrupted run leaves is what the uninterrupted one would have had."""

import json
import math
import os
import resource
import signal
import sys
import types

import pytest
import torch
from safetensors.torch import load_file

from t2ialign.io.hashes import digest, sealed
from t2ialign.training import checkpoint, loop, optim
from t2ialign.training.log import METRICS
from t2ialign.training.stop import StopRequest
from tests.test_alignment import addresses, shifted
from tests.training import toy
from tests.training.helpers import Nested, assert_same_checkpoint, numbers, run

SETTINGS = {"max_steps": 6, "checkpoint_every": 2, "ema": 0.9, "lr_schedule": "cosine", "evaluate_every": 3}


def arguments(cfg: toy.Config, *more: str) -> list[str]:
    """The same settings for a run in its own process."""
    keys = ["max_steps", "checkpoint_every", "ema", "lr_schedule", "evaluate_every"]
    keys += ["output", "batch_size", "accumulate", "lora_rank", "lr"]
    pairs = [f"{key}={getattr(cfg, key)}" for key in keys]
    return ["-m", "tests.training.toy", cfg.model, *pairs, "trackers=[]", *more]


pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.rest]


@pytest.fixture(scope="module")
def uninterrupted(tiny_sd, tmp_path_factory) -> toy.Config:
    """A finished run of SETTINGS."""
    output = tmp_path_factory.mktemp("whole") / "run"
    small = {"batch_size": 2, "accumulate": 2, "lora_rank": 2, "lr": 1e-2, "trackers": ()}
    cfg = toy.Config.model_validate({"model": str(tiny_sd), "output": output, **SETTINGS, **small})
    toy.Trainer(cfg).fit()
    return cfg


def finish(cfg: toy.Config, whole: toy.Config) -> None:
    """Resume to the end, and compare everything with the run that was never interrupted."""
    toy.Trainer(cfg.model_copy(update={"resume": "latest"})).fit()
    assert numbers(cfg.output) == numbers(whole.output)
    common = set(steps(cfg)) & set(steps(whole))
    assert 6 in common
    for step in common:
        assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", step) for c in (cfg, whole)))
    assert_same_checkpoint(cfg.output, whole.output)  # the LoRA file
    assert not list((cfg.output / "checkpoints").glob(".*"))


def steps(cfg: toy.Config) -> list[int]:
    return [checkpoint.step_of(p) for p in checkpoint.whole(cfg.output / "checkpoints")]


def test_kill_9_at_any_moment_then_resume_is_bit_for_bit_the_uninterrupted_run(uninterrupted, tmp_path):
    cfg = uninterrupted.model_copy(update={"output": tmp_path / "run"})
    first = run(*arguments(cfg), KILL_AT=f"1,1,{signal.SIGKILL}")  # before the first due checkpoint
    assert (first.returncode, steps(cfg)) == (-signal.SIGKILL, [0])
    second = run(*arguments(cfg, "resume=latest"), KILL_IN_SAVE="1")  # in the middle of writing one
    assert (second.returncode, steps(cfg)) == (-signal.SIGKILL, [0])
    (half,) = (cfg.output / "checkpoints").glob(".*")
    assert half.name.startswith(".writing-000002") and (half / "weights.safetensors").exists()
    third = run(*arguments(cfg, "resume=latest"), KILL_AT=f"5,1,{signal.SIGKILL}")  # between two micro-steps
    assert (third.returncode, steps(cfg)) == (-signal.SIGKILL, [2, 4])
    assert [row["step"] for row in numbers(cfg.output)] == [0, 1, 2, 3, 4, 5]
    finish(cfg, uninterrupted)


def test_a_signal_saves_says_how_to_go_on_and_exits(uninterrupted, tmp_path):
    cfg, more = uninterrupted.model_copy(update={"output": tmp_path / "run"}), []
    for number, step in ((signal.SIGTERM, 3), (signal.SIGINT, 5)):
        stopped = run(*arguments(cfg, *more), KILL_AT=f"{step},0,{number}")  # in the first of two micro-steps
        assert stopped.returncode == 128 + number
        assert f"stopped by {number.name} after step {step}; add resume=latest" in stopped.stderr
        assert "Traceback" not in stopped.stderr
        assert steps(cfg)[-1] == step  # which was not due
        more = ["resume=latest"]
    finish(cfg, uninterrupted)


def test_a_disk_that_fills_up_costs_nothing_but_the_steps_since_the_last_checkpoint(toy_config, tmp_path):
    """The limit on file size makes the kernel refuse the write of checkpoint 4, as a full disk does."""
    whole, cfg = (toy_config(output=tmp_path / name, checkpoint_every=2, max_steps=6) for name in "ab")
    toy.Trainer(whole).fit()
    trainer, limits = toy.Trainer(cfg), resource.getrlimit(resource.RLIMIT_FSIZE)
    batch = trainer.batch

    def fill(step: int, micro: int):
        if step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        return batch(step, micro)

    trainer.batch = fill
    try:
        with pytest.raises(OSError, match=r"saving step 4; .*checkpoint-000002 is whole"):
            trainer.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert steps(cfg) == [0, 2]
    toy.Trainer(cfg.model_copy(update={"resume": "latest"})).fit()
    assert numbers(cfg.output) == numbers(whole.output)


def test_a_second_signal_interrupts():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop and stop.name == "SIGTERM"
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_resume_of_a_finished_run_writes_the_same_result_again(toy_config):
    cfg = toy_config(max_steps=2, ema=0.5)
    toy.Trainer(cfg).fit()
    lora = cfg.output / "pytorch_lora_weights.safetensors"
    before, rows = load_file(lora), numbers(cfg.output)
    card = (cfg.output / "README.md").read_text()
    assert f"| loss | {rows[-1]['loss']:.5g} |" in card
    lora.unlink()
    toy.Trainer(toy_config(max_steps=2, ema=0.5, resume="latest")).fit()
    assert numbers(cfg.output) == rows
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_file(lora).items())
    assert (cfg.output / "README.md").read_text() == card


def test_a_run_can_be_made_longer_and_split_differently(toy_config):
    cfg = toy_config(max_steps=2)
    toy.Trainer(cfg).fit()
    longer = toy_config(max_steps=4, resume="latest", batch_size=4, accumulate=1)
    toy.Trainer(longer).fit()
    assert [row["step"] for row in numbers(cfg.output)] == [0, 1, 2, 3, 4]


def test_a_branch_from_a_checkpoint_leaves_the_old_run_alone(toy_config, tmp_path):
    old = toy_config(checkpoint_every=2)
    toy.Trainer(old).fit()
    before = sorted((p, p.stat().st_mtime_ns) for p in old.output.rglob("*"))
    start = checkpoint.path(old.output / "checkpoints", 2)
    new = toy_config(output=tmp_path / "branch", resume=str(start), checkpoint_every=2)
    trainer = toy.Trainer(new)
    saved = checkpoint.load(start).tensors["weights"]
    assert all(torch.equal(p, saved[n]) for n, p in trainer.state.trained.items())
    trainer.fit()
    assert sorted((p, p.stat().st_mtime_ns) for p in old.output.rglob("*")) == before
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 4) for c in (old, new)))


@pytest.mark.parametrize("count", [8, 24, 40])
def test_where_a_checkpoint_has_its_tensors_changes_nothing(uninterrupted, tmp_path, count):
    """A longer header shifts every tensor: weights, moving average and moments are copied out of the file."""
    start = checkpoint.path(uninterrupted.output / "checkpoints", 4)
    moved = shifted(start, tmp_path / start.name, count)
    state = json.loads((moved / "state.json").read_text())
    state["files"] = {name: (moved / name).stat().st_size for name in state["files"]}
    hashes = {name: digest(moved / name) for name in state["files"]}
    del state["sha256"]
    (moved / "state.json").write_text(json.dumps(sealed(state, "state.json", hashes)))
    cfg = uninterrupted.model_copy(update={"output": tmp_path / "run", "resume": str(moved)})
    trainer = toy.Trainer(cfg)
    assert addresses([trainer.policy.unet]) == {0}
    moments = trainer.state.bare_optimizer.state_dict()["state"].values()
    assert {t.data_ptr() % 64 for entry in moments for t in entry.values()} == {0}
    trainer.fit()
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 6) for c in (cfg, uninterrupted)))
    assert_same_checkpoint(cfg.output, uninterrupted.output)


def test_another_number_of_threads_is_said_in_one_line(uninterrupted, tmp_path, monkeypatch, caplog):
    start = checkpoint.path(uninterrupted.output / "checkpoints", 4)
    cfg = uninterrupted.model_copy(update={"output": tmp_path / "run", "resume": str(start)})
    assert json.loads((start / "state.json").read_text())["threads"] == 1
    toy.Trainer(cfg)
    assert "threads" not in caplog.text
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    toy.Trainer(cfg)
    (line,) = (record.getMessage() for record in caplog.records if "threads" in record.getMessage())
    assert line.startswith("got 2 threads on resume, and the checkpoint was written with 1: results may")
    assert "\n" not in line and line.endswith("set OMP_NUM_THREADS=1 to go on bit for bit")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seed": 1}, r"got seed=1 on resume; expected 0, as in the checkpoint"),
        ({"lora_rank": 4}, r"got lora_rank=4"),
        ({"weight_decay": 1.0}, r"got weight_decay=1\.0 on resume"),
        ({"batch_size": 8}, r"global batch of 16 rows on resume; expected 4"),
        ({"resume": "nowhere"}, r"resume=nowhere; expected latest or a whole checkpoint folder"),
    ],
)
def test_a_resume_that_would_be_another_run_is_refused(toy_config, change, words):
    toy.Trainer(toy_config(max_steps=1)).fit()
    with pytest.raises(ValueError, match=words):
        toy.Trainer(toy_config(**{"max_steps": 1, "resume": "latest", **change}))


def test_a_run_that_came_to_nan_goes_on_as_its_message_says(toy_config, tmp_path):
    bad = {"lr": 1e30, "precision": "bf16"}
    with pytest.raises(FloatingPointError, match="expected a finite number") as caught:
        toy.Trainer(toy_config(**bad)).fit()
    words = str(caught.value)
    assert "lower lr" in words and "raise the precision" in words and "resume=latest" in words
    (good,) = (word for word in words.split() if "checkpoint-" in word)
    branch = toy_config(resume=good, output=tmp_path / "branch")
    assert math.isfinite(toy.Trainer(branch).fit()["loss"])
    mended = toy_config(resume="latest", lr=1e-3, max_grad_norm=0.1)
    assert math.isfinite(toy.Trainer(mended).fit()["loss"])
    assert steps(mended)[-1] == 4


@pytest.mark.parametrize("resume", [None, "latest"])
@pytest.mark.parametrize("where", ["config.save", "Log.open", "checkpoint.save"])
def test_a_run_that_died_before_its_first_checkpoint_starts_anew_with_the_same_command(
    toy_config, monkeypatch, caplog, where, resume
):
    caplog.set_level("INFO")
    cfg = toy_config(max_steps=2, trackers=("tensorboard",))
    owner, name = (
        {"config": loop.config, "Log": loop.Log, "checkpoint": checkpoint}[where.split(".")[0]],
        where,
    )

    def die(*arguments: object, **options: object) -> None:
        if where == "checkpoint.save":  # as a kill leaves it
            (cfg.output / "checkpoints" / ".writing-000000-1").mkdir(parents=True)
        else:
            plain(*arguments, **options)
        raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        plain = getattr(owner, name.split(".")[1])
        patched.setattr(owner, name.split(".")[1], die)
        with pytest.raises(RuntimeError, match="power cut"):
            toy.Trainer(cfg).fit()
    assert (cfg.output / "config.yaml").exists()
    toy.Trainer(cfg.model_copy(update={"resume": resume})).fit()
    assert ("holds no checkpoint yet: starting from the beginning" in caplog.text) is (resume is not None)
    assert [row["step"] for row in numbers(cfg.output)] == [0, 1, 2]
    assert steps(cfg) == [0, 2] and not list((cfg.output / "checkpoints").glob(".*"))


@pytest.mark.parametrize("left", ["metrics.jsonl", "checkpoints/checkpoint-000001/state.json", "README.md"])
def test_what_a_run_measured_or_trained_is_never_started_over(toy_config, left):
    cfg = toy_config()
    (cfg.output / left).parent.mkdir(parents=True)
    (cfg.output / left).write_text("{}")  # a torn checkpoint may still hold weights
    with pytest.raises(ValueError, match="in use"):
        toy.Trainer(cfg)


def test_the_8_bit_optimiser_saves_and_resumes(toy_config, tmp_path, monkeypatch):
    """The package is stood in for by one optimiser whose state has its layout."""
    made = []

    class AdamW8bit(Nested):
        def __init__(self, parameters, **options):
            super().__init__(parameters, **options)
            made.append(options)

    package = types.ModuleType("bitsandbytes.optim")
    package.AdamW8bit = AdamW8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", package)
    monkeypatch.setattr(optim, "installed", lambda name: name == "bitsandbytes")
    common = {"optimizer": "adamw8bit", "checkpoint_every": 2, "lr": 3e-3, "weight_decay": 0.1}
    whole, cfg = toy_config(**common), toy_config(**common, output=tmp_path / "stopped")
    toy.Trainer(whole).fit()
    toy.Trainer(cfg).fit()
    checkpoint.remove(checkpoint.path(cfg.output / "checkpoints", 4))  # as if killed before it
    toy.Trainer(cfg.model_copy(update={"resume": "latest"})).fit()
    assert made[0]["lr"] == 3e-3 and made[0]["weight_decay"] == 0.1 and len(made) == 3
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 4) for c in (cfg, whole)))


def test_an_older_checkpoint_is_not_resumed_beside_newer_ones(toy_config):
    cfg = toy_config(checkpoint_every=2)
    toy.Trainer(cfg).fit()
    older = checkpoint.path(cfg.output / "checkpoints", 2)
    with pytest.raises(ValueError, match=r"checkpoint-000004 is newer"):
        toy.Trainer(toy_config(resume=str(older)))


def test_an_output_folder_in_use_is_refused_and_untouched(toy_config):
    cfg = toy_config(max_steps=1)
    cfg.output.mkdir()
    (cfg.output / "cache").mkdir()  # a run that died while encoding leaves this, and can use it again
    toy.Trainer(cfg).fit()
    before = sorted((p, p.stat().st_mtime_ns) for p in cfg.output.rglob("*"))
    with pytest.raises(ValueError, match=r"in use .* add resume=latest"):
        toy.Trainer(cfg)
    assert sorted((p, p.stat().st_mtime_ns) for p in cfg.output.rglob("*")) == before


@pytest.mark.parametrize("resume", [None, "latest"])
def test_a_file_as_output_and_a_folder_of_other_things_are_refused(toy_config, tmp_path, resume):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file"):
        toy.Trainer(toy_config(output=tmp_path / "file", resume=resume))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "main.tex").write_text("precious")
    advice = "found no checkpoint in it to continue, so choose" if resume else "add resume=latest"
    with pytest.raises(ValueError, match=rf"in use \(it holds main\.tex\); .*{advice}"):
        toy.Trainer(toy_config(output=tmp_path / "thesis", resume=resume))


def test_a_torn_row_and_rows_past_the_checkpoint_are_dropped_on_resume(toy_config):
    cfg = toy_config(max_steps=3, checkpoint_every=2)
    toy.Trainer(cfg).fit()
    rows = numbers(cfg.output)
    checkpoint.remove(checkpoint.path(cfg.output / "checkpoints", 3))  # as if killed right after step 3
    with (cfg.output / METRICS).open("a") as file:
        file.write('{"step": 4, "lo')
    toy.Trainer(toy_config(max_steps=3, checkpoint_every=2, resume="latest")).fit()
    assert numbers(cfg.output) == rows
