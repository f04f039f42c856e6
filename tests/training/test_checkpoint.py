"""Checkpoints: whole or not there at all, without pickle, and exact."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from t2ialign.training import checkpoint
from tests.training.helpers import MOMENTS, Nested

WEIGHTS = {"weights": {"a": torch.arange(6.0).view(2, 3), "b": torch.full((4,), 1 / 3, dtype=torch.bfloat16)}}


def write(root: Path, step: int) -> Path:
    return checkpoint.save(root, step, WEIGHTS, {"note": "x"})


def test_what_is_written_is_read_back_exactly_and_holds_no_pickle(tmp_path):
    folder = write(tmp_path, 100)
    assert folder.name == "checkpoint-000100"
    assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".json"}
    read = checkpoint.load(folder)
    assert (read.step, read.meta["note"]) == (100, "x")
    for name, tensor in WEIGHTS["weights"].items():
        assert torch.equal(read.tensors["weights"][name], tensor)
        assert read.tensors["weights"][name].dtype == tensor.dtype


def cut(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def lose(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def unlisted(folder: Path) -> None:
    (folder / "state.json").unlink()


def torn(folder: Path) -> None:
    text = (folder / "state.json").read_text()
    (folder / "state.json").write_text(text[: len(text) // 2])


def renamed(folder: Path) -> None:
    (folder / "state.json").write_text("[]")


@pytest.mark.parametrize("damage", [cut, lose, unlisted, torn, renamed])
def test_a_half_written_checkpoint_is_never_taken_for_a_whole_one(tmp_path, damage):
    first, second = write(tmp_path, 1), write(tmp_path, 2)
    assert checkpoint.whole(tmp_path) == [first, second]
    damage(second)
    assert checkpoint.whole(tmp_path) == [first]
    with pytest.raises(ValueError, match="no whole checkpoint"):
        checkpoint.load(second)


def test_order_is_by_step_not_by_name(tmp_path):
    steps = [999_999, 2, 1_000_000]
    for step in steps:
        write(tmp_path, step)
    assert [checkpoint.step_of(p) for p in checkpoint.whole(tmp_path)] == sorted(steps)


def test_pruning_keeps_the_newest_and_sweeps_leftovers(tmp_path):
    for step in range(4):
        write(tmp_path, step)
    (tmp_path / ".writing-000009-1").mkdir()
    shutil.copytree(tmp_path / "checkpoint-000003", tmp_path / ".removing-x")
    checkpoint.prune(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-000002", "checkpoint-000003"]
    checkpoint.prune(tmp_path, 0)
    assert len(checkpoint.whole(tmp_path)) == 2


def test_a_full_disk_is_one_line_and_the_last_good_checkpoint_stays(tmp_path):
    """The limit on file size makes the kernel refuse the write, as a full disk does."""
    good = write(tmp_path, 1)
    before = {p.name: p.read_bytes() for p in good.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError) as caught:
            checkpoint.save(tmp_path, 2, {"weights": {"a": torch.zeros(1 << 20)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = str(caught.value)
    assert "\n" not in message and "step 2" in message and "4.2 MB" in message and str(good) in message
    assert [p.name for p in tmp_path.iterdir()] == [good.name]
    assert {p.name: p.read_bytes() for p in good.iterdir()} == before


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="saving step 1"):
        write(tmp_path / "file" / "checkpoints", 1)


def test_a_checkpoint_of_another_format_says_who_wrote_it(tmp_path):
    folder = checkpoint.save(tmp_path, 1, WEIGHTS, {"t2ialign": "9.9"})
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(ValueError, match=r"format 99 .* use t2ialign 9\.9"):
        checkpoint.load(folder)


def small_step(parameters: list[Tensor], optimizer: torch.optim.Optimizer, seed: int) -> None:
    for i, p in enumerate(parameters):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * seed + i))
    optimizer.step()


def test_an_optimiser_continues_bit_for_bit():
    def fresh() -> tuple[list[Tensor], torch.optim.Optimizer]:
        parameters: list[Tensor] = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(5))]
        return parameters, torch.optim.AdamW(parameters, lr=0.1, fused=True)

    names = ["layer/a", "layer/b"]  # slashes in a parameter's name survive the packing
    whole, optimizer = fresh()
    for seed in range(3):
        small_step(whole, optimizer, seed)
    tensors, values = checkpoint.pack_optimizer(optimizer, names)
    saved = {name: t.clone() for name, t in tensors.items()}
    resumed, other = fresh()
    with torch.no_grad():
        for new, old in zip(resumed, whole, strict=True):
            new.copy_(old)
    checkpoint.unpack_optimizer(other, names, saved, json.loads(json.dumps(values)))
    for seed in range(3, 6):
        small_step(whole, optimizer, seed)
        small_step(resumed, other, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_state_one_level_deeper_is_packed_too_and_continues_bit_for_bit(tmp_path):
    parameters = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(5))]
    twins = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    first, second, names = Nested(parameters, lr=0.1), Nested(twins, lr=0.1), ["a/x", "b.y"]
    small_step(parameters, first, 0)
    with torch.no_grad():
        for new, old in zip(twins, parameters, strict=True):
            new.copy_(old)
    tensors, values = checkpoint.pack_optimizer(first, names)
    assert {label.split("/", 1)[0] for label in tensors} == {"step", *(f"{Nested.KEY}.{m}" for m in MOMENTS)}
    folder = checkpoint.save(tmp_path, 1, {"optimizer": tensors}, {"optimizer": values})
    saved = checkpoint.load(folder)
    checkpoint.unpack_optimizer(second, names, saved.tensors["optimizer"], saved.meta["optimizer"])
    for seed in range(1, 4):
        small_step(parameters, first, seed)
        small_step(twins, second, seed)
    assert all(torch.equal(a, b) for a, b in zip(parameters, twins, strict=True))


def test_weights_of_another_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"first: b.*lora_rank"):
        checkpoint.copy_tensors({"a": torch.ones(2), "b": torch.ones(2)}, {"a": torch.ones(2)}, tmp_path)
    with pytest.raises(ValueError, match="first: a"):
        checkpoint.copy_tensors({"a": torch.ones(2)}, {"a": torch.ones(3)}, tmp_path)
