"""Families: what each states of itself is true, and a file with `PIPELINES` is all that one needs."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
from torch import Tensor

from t2ialign.models.base import Policy
from t2ialign.models.families.sd3 import SD3Policy
from t2ialign.models.full import save_all
from t2ialign.models.load import load_policy, policy_of
from t2ialign.models.options import ModelOptions
from tests.models.flows.tiny_flows import FLOWS
from tests.models.flows.tiny_sd3 import tiny_sd3, tiny_sd3_pipeline

PROMPTS = ["a red circle", "two blue squares"]


@torch.no_grad()
def output(policy: Policy) -> Tensor:
    x_t = torch.randn(2, *policy.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
    return policy.guided(x_t, torch.tensor([900.0, 400.0]), policy.encode_prompts(PROMPTS), 2.0)


@pytest.mark.parametrize("model", ["tiny_sd", "tiny_sdxl"])
def test_a_loaded_pipeline_is_the_policy_of_its_folder(model: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    ours, theirs = (
        policy_of(DiffusionPipeline.from_pretrained(folder)),
        load_policy(str(folder), device="cpu"),
    )
    assert torch.equal(output(ours), output(theirs))
    assert (ours.source, theirs.source) == (ours.pipeline_class, str(folder))
    assert ours.fingerprint() == theirs.fingerprint()


def test_a_pipeline_of_no_family_is_one_line() -> None:
    pipe = DDPMPipeline(UNet2DModel(sample_size=8, block_out_channels=(32, 32, 32, 32)), DDPMScheduler())
    with pytest.raises(ValueError, match=r"class DDPMPipeline; expected one of .*StableDiff") as error:
        policy_of(pipe)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["tiny_sd", "tiny_sdxl", *FLOWS])
def test_what_a_family_states_is_true(model: str, request: pytest.FixtureRequest) -> None:
    if model in FLOWS:
        policy = policy_of(FLOWS[model]())
    else:
        policy = load_policy(str(request.getfixturevalue(model)), device="cpu")
    assert policy.components[policy.component] is policy.adapted is policy.net
    assert type(policy.adapted).__name__ == policy.save_class
    names = [name for name, _ in policy.adapted.named_modules()]
    assert all(any(name.endswith(f".{target}") for name in names) for target in policy.lora_targets)
    call = type(policy.pipe).__call__  # type: ignore[attr-defined]
    scale = inspect.signature(call).parameters["guidance_scale"].default + (
        model == "z-image"
    )  # from 0 there
    assert scale == policy.default_guidance_scale
    grid = policy.timesteps(5)
    assert grid.dtype == torch.float32 and (grid.diff() < 0).all() and grid[-1] == policy.end
    drawn = policy.draw_timesteps(torch.linspace(0, 1 - 1e-9, 101, dtype=torch.float64))
    assert (drawn.diff() <= 0).all() and 0 <= drawn[-1] <= drawn[0] <= policy.num_train_timesteps
    assert policy.native_size[0] % policy.size_multiple == 0


def test_a_family_is_loaded_by_name_and_so_is_a_run_of_all_its_weights(tmp_path: Path) -> None:
    tiny_sd3_pipeline().save_pretrained(tmp_path / "model")
    policy = load_policy(str(tmp_path / "model"), device="cpu")
    assert isinstance(policy, SD3Policy) and policy.source == str(tmp_path / "model")
    torch.testing.assert_close(output(policy), output(tiny_sd3()))
    with torch.no_grad():
        policy.adapted.proj_out.bias.add_(1.0)
    save_all(policy, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(json.dumps({"model": str(tmp_path / "model")}))
    trained = load_policy(str(tmp_path / "run"), device="cpu")
    torch.testing.assert_close(output(trained), output(tiny_sd3()) + 1, rtol=1e-4, atol=1e-4)


def test_options_of_ddpms_noise_levels_are_refused_for_a_flow() -> None:
    with pytest.raises(ValueError, match="got prediction_type for the flow model StableDiffusion3Pipeline"):
        policy_of(tiny_sd3_pipeline(), options=ModelOptions(prediction_type="epsilon"))
