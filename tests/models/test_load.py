"""Loading: every wrong name gets one line that says what to do."""

import json
import shutil
import sys
import types

import pytest
import torch
from huggingface_hub import constants

from t2ialign.models.load import load_policy


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message and message.startswith("got ") and "expected" in message
    return message


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/folder", "no folder here"),
        ("./nowhere", "no folder here"),
        ("nowhere", '"shapes", a folder or a Hub id'),
        ("model.safetensors", "a single file; .*from_single_file"),
        ("model.ckpt", "a single file"),
    ],
)
def test_names_that_cannot_be(model, message):
    with pytest.raises(ValueError, match=message) as error:
        load_policy(model)
    one_line(error)


def test_a_hub_model_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="no folder here and no model the Hub gave") as error:
        load_policy("nobody/no-such-model")
    assert "check the name, the network and your Hub login" in one_line(error)


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(ValueError, match=r"without model_index\.json") as error:
        load_policy(str(tmp_path))
    one_line(error)


def test_another_family(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(
        ValueError, match="of class FluxPipeline; expected one of StableDiffusionPipeline"
    ) as error:
        load_policy(str(tmp_path))
    one_line(error)


@pytest.mark.parametrize("remains", [None, b"not tensors"])
def test_weights_that_are_not_there_or_not_whole(tiny_sd, tmp_path, remains):
    """Without safetensors nothing is loaded: a pickle beside them is never opened."""
    folder = shutil.copytree(tiny_sd, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    if remains is not None:
        weights.write_bytes(remains)
    with pytest.raises(ValueError, match="expected a whole diffusers model in safetensors") as error:
        load_policy(str(folder))
    one_line(error)


def test_precision_and_attention_are_checked(tiny_sd):
    with pytest.raises(ValueError, match="got precision 'fp8'; expected one of fp32, bf16, fp16"):
        load_policy(str(tiny_sd), precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got attention 'flash'; expected sdpa or xformers"):
        load_policy(str(tiny_sd), attention="flash")  # type: ignore[arg-type]


@pytest.mark.parametrize("build", ["absent", "broken"])
def test_xformers_without_a_working_build(tiny_sd, monkeypatch, build):
    """A wheel made for another torch imports and then has no kernel to offer."""

    def memory_efficient_attention(*_):
        raise NotImplementedError("No operator found for memory_efficient_attention_forward\nwith inputs: ..")

    package, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    ops.memory_efficient_attention = memory_efficient_attention  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xformers", package if build == "broken" else None)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops if build == "broken" else None)
    with pytest.raises(ValueError, match="got attention=xformers") as error:
        load_policy(str(tiny_sd), attention="xformers", device="cpu")
    message = one_line(error)
    assert torch.__version__ in message and 'pip install "t2ialign[xformers]"' in message
    assert "attention=sdpa" in message


def test_no_trainable_weights_and_no_safety_checker(tiny_sdxl, tiny_sd):
    for folder in (tiny_sd, tiny_sdxl):
        policy = load_policy(str(folder), device="cpu")
        parts = [policy.unet, policy.vae]
        assert not any(p.requires_grad for part in parts for p in part.parameters())
        assert getattr(policy.pipe, "safety_checker", None) is None
