"""Models of others: none brings code, and whatever their files say is loaded or refused on one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewards import assets
from rewards.detection.detectors import load_detector
from rewards.foreign import reading, refuse_code
from rewards.llm.local import local_writer
from rewards.towers.clip_towers import load_tower
from rewards.vlm.local import local_judge
from t2ialign.methods.rewrite_sft.trainer import Config
from t2ialign.methods.rewriter import language

DEEP = "[" * 100_000
WHOLE = [DEEP, "[]", "null", '"a"', "\x00", "{"]
VALUES = [
    {"quantization_config": 3},
    {"attn_implementation": 5},
    {"dtype": "os.system"},
    {"hidden_size": 2**63},
    {"hidden_size": -1},
    {"num_attention_heads": 0},
    {"rope_scaling": {"type": "x"}},
    {"hidden_act": "os.system"},
]
TOKENIZERS = [{"auto_map": "x"}, {"tokenizer_class": ["a"]}, {"added_tokens_decoder": 3}, {"eos_token": 5}]


def train(folder: str) -> object:
    return language.load(Config(model=folder, data="x"))


def changed(folder: Path, name: str, change: str | dict) -> Path:
    """A folder in which a configuration is replaced, or some of its values are."""
    file = folder / name
    if isinstance(change, dict):
        change = json.dumps({**json.loads(file.read_text(encoding="utf-8")), **change})
    file.unlink()
    file.write_text(change, encoding="utf-8")
    return folder


@pytest.fixture
def rewriter(tmp_path: Path) -> Path:
    return Path(shutil.copytree(assets.folder("toy-rewriter"), tmp_path / "rewriter"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return Path(shutil.copytree(assets.folder("toy-clip"), tmp_path / "clip"))


@pytest.mark.parametrize("load", [local_writer, train])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(("config.json", change) for change in (*WHOLE, *VALUES)),
        *(("tokenizer_config.json", change) for change in (*WHOLE[:4], *TOKENIZERS)),
        *(("tokenizer.json", change) for change in (*WHOLE[:3], {"x": 1})),
    ],
)
def test_a_language_model_s_files_never_lead_to_a_traceback(
    load: Callable[[str], object], name: str, change: str | dict, rewriter: Path
) -> None:
    with pytest.raises((ValueError, OSError)):
        load(str(changed(rewriter, name, change)))


@pytest.mark.parametrize("change", [*WHOLE[:4], *VALUES[:3], {"text_config": 3}, {"vision_config": "x"}])
def test_neither_do_those_of_a_clip(change: str | dict, clip: Path) -> None:
    with pytest.raises((ValueError, OSError)):
        load_tower(str(changed(clip, "config.json", change)))


@pytest.mark.parametrize("values", ["[]", "3", "{}", '{"base_model_name_or_path": 3}', DEEP])
def test_neither_does_a_lora_of_a_rewriter(values: str, rewriter: Path) -> None:
    (rewriter / "adapter_config.json").write_text(values, encoding="utf-8")
    with pytest.raises(ValueError, match="expected"):
        local_writer(str(rewriter))


@pytest.mark.parametrize("load", [local_writer, train, local_judge])
@pytest.mark.parametrize(
    ("name", "values", "key"),
    [
        ("config.json", {"attn_implementation": "owner/kernel"}, "attn_implementation"),
        ("config.json", {"text_config": {"experts_implementation": "owner/x"}}, "experts_implementation"),
        ("adapter_config.json", {"auto_mapping": {"parent_library": "code"}}, "auto_mapping"),
        ("adapter_config.json", {"megatron_config": {}, "megatron_core": "code"}, "megatron_core"),
    ],
)
def test_a_configuration_that_names_code_is_refused(load, name, values, key, rewriter: Path) -> None:
    (rewriter / name).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"got {key} in .*{name}, which would run code"):
        load(str(rewriter))


def test_what_peft_writes_of_itself_names_no_code(tmp_path: Path) -> None:
    from peft import LoraConfig

    LoraConfig(target_modules=["q_proj"]).save_pretrained(tmp_path)
    refuse_code(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["megatron_core"], "named, not used"


@pytest.mark.parametrize("part", ["vision_cfg", "text_cfg"])
@pytest.mark.parametrize("key", ["hf_model_name", "timm_model_name"])
def test_towers_of_other_libraries_are_not_looked_for(part, key, tmp_path: Path, monkeypatch) -> None:
    def no_question(*_: object) -> str:
        raise AssertionError("asked at the terminal")

    monkeypatch.setattr("builtins.input", no_question)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "x", "auto_map": {"AutoConfig": "code.X"}})
    )
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    towers: dict = {"vision_cfg": {"width": 64, "layers": 1}, "text_cfg": {"context_length": 7}}
    towers[part][key] = str(tmp_path)
    save_file({"visual.conv1.weight": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    file = tmp_path / "open_clip_config.json"
    configs: list[object] = [{"model_cfg": {"embed_dim": 8, **towers}}, {"model_cfg": 3}, {}, []]
    for config in configs:
        file.write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(ValueError, match="expected"):
            load_tower(str(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("change", WHOLE)
def test_neither_do_those_of_a_detector(change: str, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (tmp_path / name).write_text(change, encoding="utf-8")
    with pytest.raises((ValueError, OSError)):
        load_detector(str(tmp_path))


def test_too_little_memory_stays_what_it_is() -> None:
    for kind in (MemoryError, torch.OutOfMemoryError):
        with pytest.raises(kind), reading("x", "a model"):
            raise kind
    with (
        pytest.raises(ValueError, match="got 'x', which does not load \\(KeyError: 'k'\\); expected a model"),
        reading("x", "a model"),
    ):
        raise KeyError("k")
