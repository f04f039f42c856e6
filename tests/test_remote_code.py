"""Code that lies beside weights or data is neither run nor asked about, whatever loads them."""

import ast
import json
from pathlib import Path

import pytest

from rewards.detection.detectors import load_detector
from rewards.llm.local import local_writer
from rewards.vlm.local import local_judge

ROOT = Path(__file__).parents[1]
CODE = """
from pathlib import Path
Path({ran!r}).touch()
from transformers import PretrainedConfig, PreTrainedTokenizerFast
class Config(PretrainedConfig):
    model_type = "harmful"
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


def loaders() -> list[tuple[str, ast.Call]]:
    """Calls that choose a class by what a folder says, and those of data sets; not of one given class."""
    found = []
    for file in (file for part in ("t2ialign", "rewards", "scripts") for file in (ROOT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name, of = node.func.attr, ast.unparse(node.func.value)
            by_folder = name == "from_pretrained" and of.lower().startswith(
                ("auto", "pipeline", "diffusionpipe")
            )
            if (by_folder and of != "AutoencoderKL") or name == "load_dataset":
                found.append((f"{file.relative_to(ROOT)}:{node.lineno}", node))
    return found


def test_every_loader_is_told_not_to_run_code_of_a_folder() -> None:
    calls = loaders()
    assert len(calls) > 12
    for place, call in calls:
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        shared = None in given and given[None] == "common"  # which the next line looks at
        text = (ROOT / place.partition(":")[0]).read_text(encoding="utf-8")
        told = given.get("trust_remote_code") == "False" or ('"trust_remote_code": False' in text and shared)
        assert told, place


@pytest.fixture
def harmful(tmp_path: Path) -> Path:
    """A folder whose configurations name classes of a file beside them."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "code.py").write_text(CODE.format(ran=str(tmp_path / "ran")), encoding="utf-8")
    auto = {
        **dict.fromkeys(("AutoModelForCausalLM", "AutoModelForImageTextToText"), "code.Config"),
        **dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForObjectDetection"), "code.Config"),
        "AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"],
        **dict.fromkeys(("AutoProcessor", "AutoImageProcessor"), "code.Tokenizer"),
    }
    for name in ("config", "preprocessor_config", "processor_config", "tokenizer_config"):
        text = json.dumps({"model_type": "harmful", "auto_map": auto, "tokenizer_class": "Tokenizer"})
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
        (folder / "tokenizer").mkdir(exist_ok=True)
        (folder / "tokenizer" / f"{name}.json").write_text(text, encoding="utf-8")
    (folder / "tokenizer" / "code.py").write_bytes((folder / "code.py").read_bytes())
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


@pytest.mark.parametrize("load", [local_writer, local_judge, load_detector])
def test_code_beside_weights_is_refused_without_a_question(load, harmful: Path, monkeypatch) -> None:
    def no_question(*_: object) -> str:
        raise AssertionError("asked at the terminal")

    monkeypatch.setattr("builtins.input", no_question)
    with pytest.raises(ValueError):
        load(str(harmful))
    assert not (harmful.parent / "ran").exists()
