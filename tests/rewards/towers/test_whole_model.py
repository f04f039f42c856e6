"""Tensors out of pickled models: nothing in the file is imported or run, and a strange file is refused."""

import builtins
import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPConfig
from transformers.activations import ACT2FN

from rewards.towers.whole_model import Record, read_module
from rewards.weights import load_state

ROOT = Path(__file__).parents[3]


class Block(nn.Module):
    """What MPS's file holds: layers, functions, a configuration, buffers that are and are not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(3)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(2, 2, bias=False), nn.Identity())])
        self.act = ACT2FN["gelu"]
        self.config = CLIPConfig()
        self.scale = nn.Parameter(torch.tensor(4.6))
        self.shared = self.scale
        self.register_buffer("table", torch.arange(4.0))
        self.register_buffer("pos_emb", torch.ones(2, 2), persistent=False)
        self.register_buffer("empty", None)


@pytest.fixture
def stranger(monkeypatch):
    """A module that exists while a model is saved, and is gone (or booby-trapped) when it is read."""
    package, module = types.ModuleType("trainer"), types.ModuleType("trainer.models")
    monkeypatch.setitem(sys.modules, "trainer", package)
    monkeypatch.setitem(sys.modules, "trainer.models", module)
    monkeypatch.setattr(Block, "__module__", "trainer.models")
    module.Block = Block
    return module


def test_all_tensors_come_out_under_their_names(stranger, monkeypatch, tmp_path):
    torch.manual_seed(0)
    model = Block().half()
    torch.save(model, tmp_path / "model.pth")
    monkeypatch.delitem(sys.modules, "trainer.models")
    monkeypatch.delitem(sys.modules, "trainer")
    tensors = read_module(tmp_path / "model.pth")
    expected = dict(model.state_dict()) | {"pos_emb": model.pos_emb}
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    assert tensors["linear.weight"].dtype == torch.float16
    assert not any(value.requires_grad for value in tensors.values())


def test_what_the_file_names_is_not_run(stranger, monkeypatch, tmp_path):
    """Constructors, state setters and reducers of the named classes would each leave a file behind."""
    model, before = Block(), set(torch.serialization.get_safe_globals())
    torch.save(model, tmp_path / "model.pth")
    ran = tmp_path / "ran"

    def trap(*_, **__):
        ran.touch()

    for name in ("__new__", "__init__", "__setstate__", "__setattr__"):
        monkeypatch.setattr(Block, name, trap)
    assert "linear.weight" in read_module(tmp_path / "model.pth")
    assert not ran.exists()
    assert set(torch.serialization.get_safe_globals()) == before, "nothing stays allowed afterwards"


class Bomb:
    """A pickle that calls `function` when it is opened."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def bombs(target: Path):
    code = f"open({str(target)!r}, 'w').close()"
    return {
        "os.mkdir": Bomb(os.mkdir, str(target)),
        "os.system": Bomb(os.system, f"touch {target}"),
        "eval": Bomb(builtins.eval, code),
        "getattr": Bomb(getattr, "", "join"),
        "torch.hub": Bomb(torch.hub.load, "someone/else", "model"),
        "torch.load": Bomb(torch.load, str(target)),
    }


@pytest.mark.parametrize("kind", bombs(Path()))
def test_a_file_that_calls_something_is_refused(tmp_path, kind):
    target, file = tmp_path / "ran", tmp_path / "model.pth"
    model = nn.Linear(1, 1)
    model.extra = bombs(target)[kind]
    torch.save(model, file)
    with pytest.raises(ValueError, match=r"got .*model\.pth"):
        read_module(file)
    assert not target.exists()


def test_a_call_to_a_known_package_is_not_made_either(stranger, monkeypatch, tmp_path):
    """A function of a package that may be named is an empty record: the file reads, and nothing runs."""
    ran = tmp_path / "ran"

    def launch(path):
        Path(path).touch()

    launch.__module__, launch.__qualname__ = "trainer.models", "launch"
    stranger.launch = launch
    model = nn.Linear(1, 1)
    model.extra = Bomb(launch, str(ran))
    torch.save(model, tmp_path / "model.pth")
    assert read_module(tmp_path / "model.pth").keys() == {"weight", "bias"}
    assert not ran.exists()


def test_a_name_outside_of_the_known_packages_is_refused(stranger, monkeypatch, tmp_path):
    torch.save(Block(), tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"names trainer\.models\.Block"):
        read_module(tmp_path / "model.pth", known=("torch.nn.modules", "transformers", "torch._C._nn"))
    known = ("torch.nn.modules", "transformers", "torch._C._nn", "trainer.model")
    with pytest.raises(ValueError, match=r"names trainer\.models\.Block"):  # a beginning is not the package
        read_module(tmp_path / "model.pth", known)


def test_classes_that_others_allow_are_not_made(tmp_path):
    """A library may have told torch to trust a class; here it is an unknown name like any other."""
    model = nn.Linear(1, 1)
    model.extra = Plain()
    torch.save(model, tmp_path / "model.pth")
    with torch.serialization.safe_globals([Plain]):
        with pytest.raises(ValueError, match="Plain"):
            read_module(tmp_path / "model.pth")
        assert Plain in torch.serialization.get_safe_globals(), "what was allowed is so again"
    assert not Plain.made


class Plain:
    made = False

    def __setstate__(self, state):
        Plain.made = True

    def __getstate__(self):
        return {"a": 1}


@pytest.mark.parametrize("what", ["garbage", "state dict", "nothing in it"])
def test_what_is_no_module_is_refused(tmp_path, what):
    file = tmp_path / "model.pth"
    if what == "garbage":
        file.write_bytes(b"not a zip at all")
    if what == "state dict":
        torch.save({"weight": torch.zeros(1)}, file)
    if what == "nothing in it":
        torch.save(nn.Identity(), file)
    with pytest.raises(ValueError, match=r"got .*model\.pth"):
        read_module(file)


def test_no_file_is_a_plain_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_module(tmp_path / "none.pth")


def test_a_record_keeps_only_attributes():
    record = Record("ignored")
    record.__setstate__(["not", "attributes"])
    assert record.held == {}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("convert_weights", ROOT / "scripts/convert_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_writes_safetensors(script, tmp_path, capsys):
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    model.tied = model[0]  # safetensors refuses shared memory: each name gets its own copy
    torch.save(model, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="convert_weights"):
        load_state(tmp_path / "model.pth")
    assert script.main([str(tmp_path / "model.pth"), str(tmp_path / "out.safetensors")]) == 0
    tensors = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(tensors[key], value) for key, value in model.state_dict().items())
    assert "6 tensors" in capsys.readouterr().out
    torch.save(model.state_dict(), tmp_path / "state.pt")
    assert script.main([str(tmp_path / "state.pt"), str(tmp_path / "again.safetensors")]) == 0
    assert load_file(tmp_path / "again.safetensors").keys() == tensors.keys()


def test_the_script_refuses_with_exit_code_1(script, tmp_path, capsys):
    model = nn.Linear(1, 1)
    model.extra = bombs(tmp_path / "ran")["eval"]
    torch.save(model, tmp_path / "model.pth")
    assert script.main([str(tmp_path / "model.pth"), str(tmp_path / "out.safetensors")]) == 1
    assert "eval" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
    assert not (tmp_path / "ran").exists()
