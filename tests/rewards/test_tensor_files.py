"""Equal weights give equal files: whatever order they come in, and in whatever process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rewards import tensor_files

ROOT = Path(__file__).parents[2]
METADATA = {f"key {i}": f'"quoted", \\ back, \n line, \x01\x7f, \u00fc \u2028 {i}' for i in range(12)}

IN_A_PROCESS = """
import random, sys
import torch
from rewards import tensor_files

def shuffled(entries):
    names = list(entries)
    random.Random(int(sys.argv[1])).shuffle(names)
    return {name: entries[name] for name in names}

tensors = {f"layer.{i}": torch.full((3,), float(i)) for i in range(12)}
tensors |= {"half": torch.ones(5, dtype=torch.float16), "turned": torch.arange(6.0).view(2, 3).T}
metadata = {f"key {i}": f'"quoted", \\\\ back, \\n line, \\x01\\x7f, \\u00fc \\u2028 {i}' for i in range(12)}
tensor_files.write(shuffled(tensors), sys.argv[2], shuffled(metadata))
"""

ADAPTER = """
import sys
import torch
from peft import LoraConfig, get_peft_model
from rewards import tensor_files

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleDict({f"name{i}": torch.nn.Linear(4, 4) for i in range(8)})

names = [f"name{i}" for i in range(8)]
net = get_peft_model(Net(), LoraConfig(r=2, target_modules=names))
for number, (_, parameter) in enumerate(net.named_parameters()):
    torch.nn.init.constant_(parameter, number)
tensor_files.save_pretrained(net, sys.argv[2])
"""


def written(code: str, seed: int, place: Path) -> Path:
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(seed), str(place)], env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return place


def test_two_processes_write_the_same_bytes(tmp_path):
    """Another order of tensors and of metadata, which safetensors itself writes as chance has it."""
    first, second = (written(IN_A_PROCESS, seed, tmp_path / f"{seed}.safetensors") for seed in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    with safe_open(first, "pt") as stream:
        assert stream.metadata() == METADATA
        assert torch.equal(stream.get_tensor("turned"), torch.arange(6.0).view(2, 3).T)


@pytest.mark.rest
def test_two_processes_write_the_same_adapter(tmp_path):
    """peft holds the names of layers in a set, whose order is that of the process."""
    folders = [written(ADAPTER, seed, tmp_path / str(seed)) for seed in (1, 2)]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second, name
    settings = json.loads((folders[0] / "adapter_config.json").read_text())
    assert settings["target_modules"] == [f"name{i}" for i in range(8)]


def test_the_order_of_what_a_library_wrote_is_settled(tmp_path):
    tensors = {"a": torch.arange(5.0), "b": torch.zeros(2, 2)}
    file = tmp_path / "below" / "model.safetensors"
    file.parent.mkdir()
    contents = set()
    for _ in range(8):
        save_file(tensors, file, metadata=METADATA)
        contents.add(file.read_bytes())
    assert len(contents) > 1  # 12 keys come in one order by chance: 1 in 12!
    settled = set()
    for content in contents:
        file.write_bytes(content)
        tensor_files.settle(tmp_path)
        settled.add(file.read_bytes())
        assert torch.equal(load_file(file)["a"], tensors["a"])
    assert len(settled) == 1


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_little_or_no_metadata(tmp_path, metadata):
    tensor_files.write({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata)
    with safe_open(tmp_path / "a.safetensors", "pt") as stream:
        assert (stream.metadata() or {}) == (metadata or {})
        assert torch.equal(stream.get_tensor("a"), torch.ones(2))
