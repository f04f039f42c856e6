"""Loading: every wrong name gets one line that says what to do."""

import json
import shutil
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import constants

from rewards.llm.local import local_writer
from t2ialign.models.load import load_policy
from t2ialign.models.options import ModelOptions
from t2ialign.rewriting.fit import budget_of


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message and message.startswith("got ") and "expected" in message
    return message


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/folder", "no such folder or file"),
        ("./nowhere", "no such folder or file"),
        ("a/b/c", "no such folder or file"),
        ("my_model/", "no such folder or file"),
        ("D:nowhere", "no such folder or file"),
        ("models\\nowhere", "no such folder or file"),
        ("nowhere", "no folder or file here; .*or a Hub id"),
        ("model.safetensors", "no such file"),
        ("org/model.ckpt", "no such file"),
        ("pyproject.toml", "a file of another kind"),
    ],
)
def test_names_that_cannot_be(model, message):
    with pytest.raises(ValueError, match=message) as error:
        load_policy(model)
    one_line(error)


def test_a_hub_model_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="no folder or file here and no model the Hub gave") as error:
        load_policy("nobody/no-such-model")
    assert "check the name, the network and your Hub login" in one_line(error)


def test_a_missing_folder_beside_others_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    with pytest.raises(ValueError, match="'runs/mine': no such folder or file"):
        load_policy("runs/mine")


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, tmp_path):
    """huggingface_hub's own retries of a repository that is not cached take 23 s a file."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"no model the Hub gave .*Connect") as error:
        load_policy("nobody/no-such-model")
    one_line(error)
    with pytest.raises(ValueError, match=r"which does not load .*Connect"):
        local_writer("nobody/no-such-model")
    with pytest.raises(ValueError, match=r"without a tokenizer that loads .*Connect"):
        budget_of("nobody/no-such-model")
    assert time.perf_counter() - began < 10


@pytest.fixture
def repository(tiny_sd, monkeypatch, tmp_path):
    """A cached repository without a network: a snapshot by its commit, and names for the commit."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit, home = "0123456789abcdef0123456789abcdef01234567", tmp_path / "models--me--mine"
    shutil.copytree(tiny_sd, home / "snapshots" / commit)
    (home / "refs").mkdir()
    for revision in ("main", "v2"):
        (home / "refs" / revision).write_text(commit)
    return home / "snapshots" / commit


def test_a_cached_repository_is_read_without_a_network(repository):
    assert load_policy("me/mine", device="cpu").family == "sd1"
    assert load_policy("me/mine", device="cpu", options=ModelOptions(revision="v2")).options.revision == "v2"
    with pytest.raises(ValueError, match="no model the Hub gave"):
        load_policy("me/mine", options=ModelOptions(revision="v3"))


def test_a_repository_of_fp16_files_says_which_setting_reads_it(repository):
    for file in repository.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    with pytest.raises(ValueError, match="set variant=fp16 if it has only such files") as error:
        load_policy("me/mine", device="cpu")
    one_line(error)
    assert load_policy("me/mine", device="cpu", options=ModelOptions(variant="fp16")).family == "sd1"


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(ValueError, match=r"without model_index\.json") as error:
        load_policy(str(tmp_path))
    one_line(error)


def run_folder(folder: Path, model: object, unet: Path) -> Path:
    """What a run with lora_rank=0 leaves, as far as loading is concerned."""
    shutil.copytree(unet, folder / "unet")
    (folder / "config.yaml").write_text(json.dumps({"model": str(model), "lr": 1e-5}))
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_trained_all_weights_is_its_base_with_those_weights(tiny_sd, tmp_path, precision):
    trained = UNet2DConditionModel.from_pretrained(tiny_sd / "unet")
    with torch.no_grad():
        trained.conv_out.bias.add_(1.0)
    trained.save_pretrained(tmp_path / "unet")
    first = run_folder(tmp_path / "first", tiny_sd, tmp_path / "unet")
    base = load_policy(str(tiny_sd), precision=precision, device="cpu")
    # A run on top of a run: the last weights count.
    second = run_folder(tmp_path / "second", first, tmp_path / "unet")
    x, t = torch.ones(2, *base.latent_shape(32, 32)), torch.tensor([1, 900])
    with torch.no_grad():
        cond = base.encode_prompts(["a", "b"])
        for folder in (first, second):
            policy = load_policy(str(folder), precision=precision, device="cpu")
            assert policy.unet.dtype == base.unet.dtype and not policy.unet.training
            shift = policy.predict(x, t, cond) - base.predict(x, t, cond)
            torch.testing.assert_close(shift, torch.ones_like(x), rtol=0, atol=0.05)


def test_a_run_folder_that_is_no_model_says_why(tiny_sd, tmp_path):
    def refused(folder: Path) -> str:
        with pytest.raises(ValueError) as caught:
            load_policy(str(folder), device="cpu")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    gone = run_folder(tmp_path / "gone", tmp_path / "nowhere", tiny_sd / "unet")
    assert f"{gone}/config.yaml: got model" in refused(gone) and "no such folder" in refused(gone)
    itself = run_folder(tmp_path / "itself", tmp_path / "itself", tiny_sd / "unet")
    assert "the base model of that run" in refused(itself)
    (itself / "config.yaml").write_text("a: [1")
    assert "not YAML" in refused(itself)
    (itself / "pytorch_lora_weights.safetensors").touch()
    assert f"--lora {itself}" in refused(itself)


def test_large_images_are_encoded_and_decoded_whole(tiny_sd, tiny_sdxl):
    """Tiles and slices change pixels and speed in silence."""
    for folder in (tiny_sd, tiny_sdxl):
        vae = load_policy(str(folder), device="cpu").vae
        assert not vae.use_tiling and not vae.use_slicing


def test_another_family(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "AuraFlowPipeline"}))
    with pytest.raises(ValueError, match="of class AuraFlowPipeline; expected one of FluxPipeline") as error:
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
        load_policy(str(tiny_sd), precision="fp8")
    with pytest.raises(ValueError, match="got attention 'flash'; expected sdpa or xformers"):
        load_policy(str(tiny_sd), attention="flash")


@pytest.mark.parametrize("build", ["absent", "broken"])
def test_xformers_without_a_working_build(tiny_sd, monkeypatch, build):
    """A wheel made for another torch imports and then has no kernel to offer."""

    def memory_efficient_attention(*_):
        raise NotImplementedError("No operator found for memory_efficient_attention_forward\nwith inputs: ..")

    package, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    ops.memory_efficient_attention = memory_efficient_attention
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
