"""Weights: where they are looked for, what is refused, and that opening a file never runs code."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewards.weights import align_weights, digest, find, load_state

TENSORS = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


class Bomb:
    """Pickled, it makes a file on being opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_runs_code_is_refused_and_runs_none(tmp_path):
    proof = tmp_path / "code_ran"
    torch.save({"a": torch.ones(1), "evil": Bomb(proof)}, tmp_path / "evil.pt")
    with pytest.raises(
        ValueError, match=r"got .*evil.pt, which does not open as plain tensors .*safetensors"
    ):
        load_state(tmp_path / "evil.pt")
    assert not proof.exists()
    torch.save(
        {"a": torch.ones(1), "evil": Bomb(proof)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False
    )
    with pytest.raises(ValueError, match="does not open as plain tensors"):
        load_state(tmp_path / "old.pth")
    assert not proof.exists()


@pytest.mark.filterwarnings("ignore:.*TorchScript archive")
def test_whole_modules_and_torchscript_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"module.pt, which does not open as plain tensors"):
        load_state(tmp_path / "module.pt")
    archive = tmp_path / "script.pt"  # laid out like the archives of torch.jit, which OpenAI's CLIP files are
    stream = io.BytesIO()
    torch.save(TENSORS, stream)
    with zipfile.ZipFile(stream) as before, zipfile.ZipFile(archive, "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name))
        after.writestr(name.split("/")[0] + "/constants.pkl", b"\x80\x02).")
    with pytest.raises(ValueError, match=r"script.pt, which does not open as plain tensors"):
        load_state(archive)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_tensors_come_back(tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    save_file(TENSORS, file) if suffix == ".safetensors" else torch.save(TENSORS, file)
    loaded = load_state(file)
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)


def test_wrappers_of_training_runs_are_taken_off(tmp_path):
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in TENSORS.items()}}
    torch.save(wrapped, tmp_path / "run.pt")
    assert load_state(tmp_path / "run.pt").keys() == TENSORS.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(1), "step": 3}, "entries that are no tensors in .*: step"),
        (torch.ones(3), "got Tensor in .*; expected a state dict"),
        ({}, "got dict in .*; expected a state dict"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=message):
        load_state(tmp_path / "odd.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_truncated_file_is_an_error(tmp_path, suffix):
    file = tmp_path / f"cut{suffix}"
    save_file(TENSORS, file) if suffix == ".safetensors" else torch.save(TENSORS, file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"got .*cut"):
        load_state(file)


def test_a_hash_is_pinned(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save(TENSORS, file)
    assert find(file, sha256=digest(file).upper()) == file
    with pytest.raises(ValueError, match=rf"with SHA-256 {digest(file)}; expected {'0' * 64}"):
        find(file, sha256="0" * 64)


def test_folders_and_the_weights_home(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    file = tmp_path / "org" / "name" / "two.pt"
    file.write_bytes(b"x")
    assert find(tmp_path / "org" / "name", ("one.pt", "two.pt")) == file
    with pytest.raises(ValueError, match=r"got folder .*, which holds two.pt; expected one.pt; put it there"):
        find(tmp_path / "org" / "name", "one.pt")
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(tmp_path))
    assert find("org/name", "two.pt") == file
    assert find("org/name@main", "two.pt") == file
    (tmp_path / "three.pt").write_bytes(b"y")
    assert find("three.pt") == tmp_path / "three.pt"


@pytest.mark.parametrize(
    "source", ["no_such_file.pt", "/no/such/place/weights.pt", "https://host/weights.pt"]
)
def test_neither_path_nor_hub_id(source):
    with pytest.raises(ValueError, match=r"which is neither a file nor a folder; expected one, or a Hub id"):
        find(source, "model.safetensors")


def test_without_network_the_cache_is_tried_for_every_name(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    downloads = []

    def download(repository, name, *, revision, local_files_only):
        downloads.append((repository, name, revision, local_files_only))
        if name == "three.pt":
            return "/cache/three.pt"
        raise (EntryNotFoundError if name == "one.pt" else LocalEntryNotFoundError)(name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("rewards.weights.check_repository", lambda *_: None)  # a cached repository
    assert find("org/name@v2", ("one.pt", "two.pt", "three.pt")) == Path("/cache/three.pt")
    assert downloads == [
        ("org/name", "one.pt", "v2", False),
        ("org/name", "two.pt", "v2", False),
        ("org/name", "three.pt", "v2", True),
    ]


def test_no_network_names_the_file_and_where_to_put_it(tmp_path):
    code = "import rewards; rewards.load('pickscore')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "XDG_CACHE_HOME": "/c"}
    environment.pop("T2IALIGN_WEIGHTS", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "ValueError: got no model.safetensors or pytorch_model.bin or open_clip_model.safetensors or "
        "open_clip_pytorch_model.bin of yuvalkirstain/PickScore_v1 (LocalEntryNotFoundError); "
        "expected a network or the file; put it at "
        "/c/t2ialign/weights/yuvalkirstain/PickScore_v1/model.safetensors, or pass weights=FILE_OR_FOLDER"
    )


def test_weights_are_aligned_by_copies_where_they_are_not():
    """A view that starts 4 bytes late stands for a mapped file; what is tied stays tied, meta stays meta."""
    raw = torch.arange(5.0)
    late, tied, empty = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta")
    late.weight = tied.weight = torch.nn.Parameter(raw[1:].view(2, 2))
    weight, bias = late.weight, late.bias.data_ptr()
    align_weights(torch.nn.ModuleList([late, tied, empty]), None, "no module")
    assert late.weight is tied.weight is weight and weight.data_ptr() % 64 == 0
    assert weight.tolist() == [[1, 2], [3, 4]] and weight.requires_grad
    assert late.bias.data_ptr() == bias, "it was aligned"
    raw.zero_()
    assert weight.tolist() == [[1, 2], [3, 4]] and empty.weight.is_meta
