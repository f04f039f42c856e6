"""Damaged checkpoints: named, passed over for the whole one before, never taken for good."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from t2ialign.cli import main as cli
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.methods.lpo.rounds import Round, Rounds
from t2ialign.training import checkpoint, output
from t2ialign.training.log import METRICS, keep_rows, read_rows
from t2ialign.training.watch import finite
from tests.training import toy
from tests.training.helpers import assert_same_checkpoint, numbers, run

WEIGHTS = {"weights": {"a": torch.arange(6.0)}, "optimizer": {"m/a": torch.ones(6)}}
NEEDED = {"config": {}, "global_batch": 4, "optimizer": {}}


def write(root: Path, step: int) -> Path:
    return checkpoint.save(root, step, WEIGHTS, NEEDED)


def zeros(folder: Path) -> None:
    """The right size and nothing in it, as a power cut may leave a file."""
    file = folder / "weights.safetensors"
    file.write_bytes(bytes(file.stat().st_size))


def flip(name: str) -> Callable[[Path], None]:
    """One bit of the last byte but two."""

    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-3] ^= 1
        (folder / name).write_bytes(data)

    return damage


def change(**values: object) -> Callable[[Path], None]:
    """Other values in state.json, which stays JSON; None takes a key out."""

    def damage(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text()) | values
        state = {key: value for key, value in state.items() if value is not None}
        (folder / "state.json").write_text(json.dumps(state))

    return damage


def text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "state.json").write_text(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "zeros": (zeros, "weights.safetensors has another content"),
    "bit of weights": (flip("weights.safetensors"), "weights.safetensors has another content"),
    "bit of moments": (flip("optimizer.safetensors"), "optimizer.safetensors has another content"),
    "step": (change(step=7), "state.json is not what was written"),
    "no config": (change(config=None), "state.json is not what was written"),
    "no optimizer": (change(optimizer=None), "state.json is not what was written"),
    "no hashes": (change(sha256={}), "state.json is not what was written"),
    "odd hashes": (change(sha256=3), "state.json is not what was written"),
    "no keys": (text("{}"), "state.json cannot be read"),
    "not JSON": (text("checkpoint"), "state.json cannot be read"),
    "a list": (text("[1]"), "state.json cannot be read"),
    "empty": (text(""), "state.json cannot be read"),
    "deep": (text("[" * 100_000), "state.json cannot be read"),
    "long name": (text(json.dumps({"files": {"a" * 300: 1}})), "state.json cannot be read"),
    "binary": (lambda folder: (folder / "state.json").write_bytes(b"\xff\x00"), "state.json cannot be read"),
    "missing": (
        lambda folder: (folder / "weights.safetensors").unlink(),
        "weights.safetensors is missing or cut",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_found_and_said(tmp_path, name):
    damage, words = DAMAGES[name]
    folder = write(tmp_path, 2)
    assert checkpoint.damage(folder) is None
    damage(folder)
    assert words in str(checkpoint.damage(folder))


@pytest.mark.parametrize("name", DAMAGES)
def test_the_newest_whole_checkpoint_is_resumed_and_the_damaged_ones_are_named(tmp_path, name, caplog):
    root = tmp_path / "run" / "checkpoints"
    good = [write(root, step) for step in (2, 4)]
    for step in (6, 8):
        DAMAGES[name][0](write(root, step))
    cfg = toy.Config(model="none", output=tmp_path / "run", resume="latest")
    assert output.resume_point(cfg) == good[-1]
    for step in (6, 8):
        assert f"checkpoint-{step:06d} is damaged ({DAMAGES[name][1][:10]}" in caplog.text
    assert "goes on from checkpoint-000004" in caplog.text
    for folder in good:
        DAMAGES[name][0](folder)
    with pytest.raises(
        ValueError, match=r"no checkpoint in .* is whole \(checkpoint-000008: .*restore"
    ) as error:
        output.resume_point(cfg)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"expected latest or a whole .*use resume=latest"):
        output.resume_point(cfg.model_copy(update={"resume": str(good[-1])}))


def test_a_checkpoint_of_an_older_version_has_no_hashes_and_is_resumed(tmp_path):
    folder = write(tmp_path / "checkpoints", 2)
    state = json.loads((folder / "state.json").read_text())
    assert state["sha256"].keys() == {"weights.safetensors", "optimizer.safetensors", "state.json"}
    change(sha256=None)(folder)
    assert checkpoint.damage(folder) is None
    flip("weights.safetensors")(folder)
    assert checkpoint.damage(folder) is None, "nobody can know"
    zeros(folder)
    assert "weights.safetensors cannot be read" in str(checkpoint.damage(folder))
    change(sha256=None, config=None)(write(tmp_path / "checkpoints", 2))
    assert "state.json is not what" in str(checkpoint.damage(folder))


def test_an_older_checkpoint_may_be_named_where_all_newer_ones_are_damaged(tmp_path):
    root = tmp_path / "run" / "checkpoints"
    good, newer = write(root, 2), write(root, 4)
    cfg = toy.Config(model="none", output=tmp_path / "run", resume=str(good))
    with pytest.raises(ValueError, match="checkpoint-000004 is newer"):
        output.resume_point(cfg)
    zeros(newer)
    assert output.resume_point(cfg) == good


@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: file.write_bytes(b"x")])
def test_a_damaged_round_of_sampled_states_is_one_line(tmp_path, harm):
    rounds = Rounds(tmp_path)
    rounds.write_part(0, 0, {"order": torch.arange(3)})
    rounds.finish(Round(0, 0, 1, 1), oldest=0)
    assert rounds.read(0)["order"].tolist() == [0, 1, 2]
    harm(tmp_path / "round-000000-000.safetensors")
    with pytest.raises(
        ValueError, match=r"round-000000-000\.safetensors (is missing|has another).*restore it"
    ):
        rounds.read(0)


@pytest.mark.parametrize("row", [{}, {"number": 0}, {"number": "0", "start": 0, "updates": 1, "parts": 1}])
def test_a_damaged_index_of_rounds_is_one_line(tmp_path, row):
    (tmp_path / "rounds.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"rounds\.jsonl, which is damaged; .*start anew"):
        Rounds(tmp_path).cut(3)


NO_ROWS = {
    "text": '{"step": "2", "loss": 1}',
    "list": '{"step": 2, "loss": [1]}',
    "none": '{"step": 2, "loss": null}',
    "large": f'{{"step": 2, "loss": 1{"0" * 400}}}',
    "truth": '{"step": true, "loss": 1}',
    "not an object": "[2]",
    "deep": "[" * 100_000,
    "zeros": "\0" * 20,
}


@pytest.mark.parametrize("name", NO_ROWS)
def test_metrics_that_were_not_written_so_are_left_out_and_it_is_said(tmp_path, name, caplog):
    file = tmp_path / METRICS
    good = [json.dumps({"step": step, "loss": 0.5}) for step in (1, 3, 4)]
    file.write_text("\n".join([good[0], NO_ROWS[name], *good[1:]]) + '\n{"step": 5, "lo')
    assert [row["step"] for row in read_rows(file)] == [1, 3, 4]
    assert finite.last_good(tmp_path) is None  # and no traceback
    keep_rows(file, 3)
    assert [row["step"] for row in read_rows(file)] == [1, 3]
    assert "metrics.jsonl is damaged: the metrics of 1 steps are lost" in caplog.text


def test_a_torn_last_row_and_the_rows_of_another_run_are_no_damage(tmp_path, caplog):
    file = tmp_path / METRICS
    keep_rows(file, 3)  # a branch of a run
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    keep_rows(file, 2)
    assert not caplog.text
    file.unlink()
    write(tmp_path / "checkpoints", 2)
    keep_rows(file, 2)
    assert "the metrics of 2 steps are lost" in caplog.text


def run_of(output: Path, losses: list[float], steps: tuple[int, ...]) -> list[Path]:
    """Checkpoints at some steps, and the metrics of an update each."""
    rows = [{"step": 0}, *({"step": step, "loss": loss} for step, loss in enumerate(losses, 1))]
    output.mkdir()
    (output / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [write(output / "checkpoints", step) for step in steps]


def test_a_checkpoint_whose_loss_had_exploded_is_not_good(tmp_path, caplog):
    there = run_of(tmp_path / "run", [0.7, 0.6, 0.7, 0.6, 80.0, 1e9], (0, 2, 4, 5, 6))
    assert finite.last_good(tmp_path / "run") == there[2]
    root = tmp_path / "run" / "checkpoints"
    assert checkpoint.whole(root) == there[:3]
    aside = {"damaged-checkpoint-000005", "damaged-checkpoint-000006"}
    assert {path.name for path in root.glob("damaged*")} == aside
    assert "kept as damaged-checkpoint-000006" in caplog.text


def test_a_loss_that_is_no_number_is_no_example_of_a_sound_one(tmp_path):
    (first,) = run_of(tmp_path / "first", [], (0,))
    assert finite.last_good(tmp_path / "first", {1: math.inf}) is None
    assert not first.exists()


def test_gradients_that_overflow_in_fp16_are_no_divergence(tmp_path):
    """The loss scale falls and the update is skipped, by design; a loss that is no number ends the run."""
    cfg = toy.Config(model="none", output=tmp_path / "run", precision="fp16")
    (good,) = run_of(cfg.output, [0.7], (0,))
    finite.check_finite({"loss": 0.7, "grad_norm": math.inf}, cfg, 2, main=True)
    with pytest.raises(FloatingPointError, match=r"got loss nan at step 2; .*000000 is good"):
        finite.check_finite({"loss": math.nan, "grad_norm": 1.0}, cfg, 2, main=True)
    exact = cfg.model_copy(update={"precision": "bf16"})
    with pytest.raises(FloatingPointError, match=r"got grad_norm inf at step 2; .*000000 is good"):
        finite.check_finite({"loss": 0.7, "grad_norm": math.inf}, exact, 2, main=True)
    assert good.is_dir()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30, 2e3])
@pytest.mark.parametrize("stem", ["weights", "ema"])
def test_a_checkpoint_whose_weights_are_not_finite_is_not_good(tmp_path, value, stem):
    (tmp_path / "run").mkdir()
    good = write(tmp_path / "run" / "checkpoints", 2)
    tensors = {**WEIGHTS, stem: {"a": torch.tensor([1.0, value])}}
    checkpoint.save(tmp_path / "run" / "checkpoints", 4, tensors, NEEDED)
    assert finite.last_good(tmp_path / "run") == good
    shutil.rmtree(good)
    assert finite.last_good(tmp_path / "run") is None


def test_losses_that_start_at_0_or_are_large_by_nature_have_not_exploded(tmp_path):
    for name, losses in (("zero", [0.0, 0.0, 3.0, -50.0]), ("large", [900.0, 1e3, 5e3, 2e4])):
        there = run_of(tmp_path / name, losses, (0, 2, 4))
        assert finite.last_good(tmp_path / name) == there[-1]


def test_pruning_spares_the_newest_good_one_where_the_latest_are_not(tmp_path):
    folders = [write(tmp_path, step) for step in range(5)]
    checkpoint.prune(tmp_path, 2, lambda folder: folder in folders[:2])
    assert checkpoint.whole(tmp_path) == [folders[1], *folders[3:]]
    checkpoint.prune(tmp_path, 2)
    assert checkpoint.whole(tmp_path) == folders[3:]


@pytest.mark.rest
@pytest.mark.usefixtures("one_thread")
class TestRuns:
    @pytest.mark.parametrize("name", ["zeros", "bit of moments", "no keys", "no config"])
    def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(self, toy_config, name, caplog):
        cfg = toy_config(max_steps=6, checkpoint_every=2, checkpoint_limit=0)
        toy.Trainer(cfg).fit()
        rows = numbers(cfg.output)
        root, copy = cfg.output / "checkpoints", cfg.output.with_name("copy")
        shutil.copytree(checkpoint.path(root, 6), copy)
        for step in (4, 6):
            DAMAGES[name][0](checkpoint.path(root, step))
        toy.Trainer(cfg.model_copy(update={"resume": "latest"})).fit()
        assert "checkpoint-000006 is damaged" in caplog.text and "from checkpoint-000002" in caplog.text
        assert numbers(cfg.output) == rows
        assert_same_checkpoint(checkpoint.path(root, 6), copy)
        assert [checkpoint.damage(path) for path in checkpoint.named(root)] == [None] * 4
        assert (root / "damaged-checkpoint-000004").is_dir()

    def test_a_finished_run_without_its_metrics_writes_its_result_again(self, toy_config, caplog):
        for harm in (Path.unlink, lambda file: file.write_bytes(b"\xff\x00{]\n{}\n")):
            cfg = toy_config(max_steps=2, resume="latest")
            toy.Trainer(cfg).fit()
            result = cfg.output / "pytorch_lora_weights.safetensors"
            before = load_file(result)
            harm(cfg.output / METRICS)
            result.unlink()
            toy.Trainer(cfg).fit()
            assert all(torch.equal(value, before[name]) for name, value in load_file(result).items())
        assert "metrics.jsonl is damaged: the metrics of 2 steps are lost" in caplog.text

    @pytest.mark.parametrize("every", [1, 2])
    @pytest.mark.parametrize("lr", [1e30, 1e4])
    def test_after_an_explosion_the_named_checkpoint_and_latest_go_on_with_a_lower_lr(
        self, toy_config, lr, every
    ):
        """Even if checkpoints were written, and older ones pruned, while the loss was exploding."""
        changes = {"checkpoint_every": every, "max_steps": 12, "max_grad_norm": 0, "lr": lr}
        cfg = toy_config(**changes)
        with pytest.raises(FloatingPointError, match="is good") as caught:
            toy.Trainer(cfg).fit()
        (good,) = (Path(word) for word in str(caught.value).split() if "checkpoint-" in word)
        assert checkpoint.named(cfg.output / "checkpoints")[-1] == good
        mended = toy.Trainer(toy_config(**changes | {"resume": "latest", "lr": 1e-4, "max_steps": 4}))
        assert math.isfinite(mended.fit()["loss"])

    def test_weights_that_are_not_finite_are_never_saved(self, toy_config):
        cfg = toy_config(max_steps=2, checkpoint_every=2)
        trainer = toy.Trainer(cfg)
        update = trainer.state.update

        def spoil() -> torch.Tensor:
            norm = update()
            if trainer.state.step == 1:
                trainer.state.parameters[0].data.fill_(torch.nan)
            return norm

        trainer.state.update = spoil
        with pytest.raises(
            FloatingPointError, match=r"weights that are not finite .* step 2 .*000000 is good"
        ):
            trainer.fit()
        assert [checkpoint.step_of(p) for p in checkpoint.whole(cfg.output / "checkpoints")] == [0]
        assert not (cfg.output / "pytorch_lora_weights.safetensors").exists()


KILLED = """
import os, signal, sys
from t2ialign.cli import main as cli
replace, rename, left = os.replace, os.rename, [int(sys.argv[1])]
def at(done):
    def completing(*arguments, **options):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return done(*arguments, **options)
    return completing
os.replace, os.rename = at(replace), at(rename)
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.rest
def test_one_command_in_a_loop_recovers_from_kills_at_any_moment(dpo_config, tmp_path):
    """Killed where a file or folder would get its name: in the cache, before and in the first checkpoints."""
    whole = dpo_config(max_steps=2, checkpoint_every=1, output=tmp_path / "whole")
    dpo.Trainer(whole).fit()
    cfg = whole.model_copy(update={"output": tmp_path / "run"})
    words = [f"{key}={getattr(cfg, key)}" for key in ("model", "data", "output", "max_steps", "batch_size")]
    words += ["accumulate=1", "lora_rank=4", "lr=3e-3", "holdout=0.3", "trackers=[]", "checkpoint_every=1"]
    kills = {"cache": 0, "start": 0, "checkpoint": 0}
    for number in (1, 3, 4, 5, 3, 6, 7, 99):
        done = run("-c", KILLED, str(number), "train", "dpo", *words, "resume=latest")
        there = checkpoint.whole(cfg.output / "checkpoints")
        begun = (cfg.output / "cache" / "cache.json").exists()
        if number < 99:
            assert done.returncode == -signal.SIGKILL, done.stderr
            kills["checkpoint" if there else "start" if begun else "cache"] += 1
        assert (cfg.output / ".lock").exists() is (number < 99)
    assert done.returncode == 0, done.stderr
    assert all(kills.values()), kills
    assert numbers(cfg.output) == numbers(whole.output)
    assert_same_checkpoint(*(checkpoint.path(c.output / "checkpoints", 2) for c in (cfg, whole)))


def test_a_shard_that_proves_damaged_in_the_middle_of_a_training_is_built_anew(dpo_config, tmp_path, capsys):
    """The same command goes on by itself from its last checkpoint, and ends as it would have."""
    cfg = dpo_config(max_steps=2, cache=tmp_path / "cache", output=tmp_path / "whole")
    words = [
        "train",
        "dpo",
        *(f"{key}={getattr(cfg, key)}" for key in ("model", "data", "cache", "max_steps")),
    ]
    words += ["batch_size=4", "accumulate=1", "lora_rank=4", "lr=3e-3", "holdout=0.3", "trackers=[]"]
    assert cli.main([*words, f"output={tmp_path / 'whole'}"]) == 0
    assert "damaged" not in capsys.readouterr().err
    (shard,) = cfg.cache.glob("pairs-*")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert cli.main([*words, f"output={tmp_path / 'run'}"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "another content" in line]
    assert len(said) == 1 and said[0].endswith("builds anew what is damaged; this run does so")
    one, two = numbers(tmp_path / "run"), numbers(tmp_path / "whole")
    assert [row["step"] for row in one] == [0, 1, 2]
    assert all(a == pytest.approx(b, rel=1e-3, abs=1e-3) for a, b in zip(one, two, strict=True))
