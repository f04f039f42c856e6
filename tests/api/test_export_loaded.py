"""A LoRA is exported with a base model that is loaded already, which stays as it was."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

import t2ialign
from t2ialign.models.load import load_policy
from t2ialign.models.lora import add_lora, trainable
from t2ialign.models.lora_saved import save_lora


@pytest.fixture(scope="module")
def lora(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy, folder = load_policy(str(tiny_sd)), tmp_path_factory.mktemp("lora")
    add_lora(policy, 2)
    generator = torch.Generator().manual_seed(0)
    for weight in trainable(policy).values():
        weight.data = torch.randn(weight.shape, generator=generator)
    save_lora(policy, folder, title="a")
    return folder


@pytest.mark.parametrize("loaded_as", ["pipeline", "policy"])
def test_it_is_folded_into_a_copy_as_into_the_named_model(
    tiny_sd: Path, lora: Path, tmp_path: Path, loaded_as: str
) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd)
    model = pipe if loaded_as == "pipeline" else load_policy(str(tiny_sd))
    network = pipe.unet if loaded_as == "pipeline" else model.adapted
    before = {name: value.clone() for name, value in network.state_dict().items()}
    files = [tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors" for name in ("named", "loaded")]
    for file, base in zip(files, (tiny_sd, model), strict=True):
        t2ialign.export(lora, file.parents[1], "merged", model=base)
    named, merged = map(load_file, files)
    torch.testing.assert_close(merged, named)
    assert any(not torch.equal(merged[name], value.cpu()) for name, value in before.items())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_model_in_half_precision_is_folded_in_fp32(tiny_sd: Path, lora: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, dtype=torch.bfloat16)
    t2ialign.export(lora, tmp_path / "out", "merged", model=pipe)
    merged = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in merged.values()} == {torch.float32}
    assert pipe.unet.dtype == pipe.vae.dtype == torch.bfloat16


def test_other_formats_read_its_layers_and_adapters_are_in_the_way_of_a_merge_alone(
    tiny_sd: Path, lora: Path, tmp_path: Path
) -> None:
    policy = load_policy(str(tiny_sd))
    add_lora(policy, 2)
    file = t2ialign.export(lora, tmp_path / "a.safetensors", "kohya", model=policy)
    by_name = t2ialign.export(lora, tmp_path / "b.safetensors", "kohya", model=tiny_sd)
    torch.testing.assert_close(load_file(file), load_file(by_name))
    with pytest.raises(
        ValueError, match=r"got a model with the adapters default in it; .*unload_lora_weights"
    ):
        t2ialign.export(lora, tmp_path / "out", "merged", model=policy)
    with pytest.raises(ValueError, match="got precision, attention or model_options for a UNetPolicy loaded"):
        t2ialign.export(lora, tmp_path / "out", "merged", model=policy, model_options={"variant": "fp16"})
    with pytest.raises(ValueError, match="got a model of type int; expected a name, a diffusers pipeline"):
        t2ialign.export(lora, tmp_path / "out", "merged", model=3)
    assert not (tmp_path / "out").exists()
