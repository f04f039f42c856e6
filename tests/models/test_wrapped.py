"""A pipeline that is loaded already becomes the policy of its family, or one line says why not."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from t2ialign.models.families import pipelines
from t2ialign.models.families.sd import UNetPolicy
from t2ialign.models.families.sd3 import SD3Policy
from t2ialign.models.wrapped import is_pipeline, wrap
from tests.models.flows.tiny_sd3 import tiny_sd3_pipeline


class Ours(StableDiffusionPipeline):
    """A pipeline of the user's own, on top of diffusers'."""


def test_a_family_takes_its_pipelines_and_what_inherits_from_them(tiny_sd: Path) -> None:
    pipe = Ours.from_pretrained(tiny_sd)
    policy = wrap(pipe)
    assert is_pipeline(pipe) and isinstance(policy, UNetPolicy) and policy.adapted is pipe.unet
    assert policy.source == policy.pipeline_class == "Ours"


def test_a_new_family_needs_no_word_of_it_here(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_sd3_pipeline()
    with monkeypatch.context() as without:
        without.delitem(pipelines(), "StableDiffusion3Pipeline")
        with pytest.raises(ValueError, match="class StableDiffusion3Pipeline; expected one of FluxP"):
            wrap(pipe)
    assert isinstance(wrap(pipe), SD3Policy)
    pipe.transformer = None
    with pytest.raises(ValueError, match="got a StableDiffusion3Pipeline without transformer; expected"):
        wrap(pipe)


def test_parts_that_are_missing_or_offloaded_are_said(tiny_sd: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, text_encoder=None, vae=None)
    with pytest.raises(ValueError, match="got a StableDiffusionPipeline without vae and text_encoder"):
        wrap(pipe)
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd)
    pipe.text_encoder._hf_hook = object()
    with pytest.raises(ValueError, match=r"whose parts are offloaded.*call pipe\.to\(device\)") as error:
        wrap(pipe)
    assert "\n" not in str(error.value)


def test_a_vae_that_asks_for_fp32_is_copied_and_the_pipeline_stays(tiny_sdxl: Path) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, dtype=torch.bfloat16)
    pipe.vae.register_to_config(force_upcast=True)
    policy = wrap(pipe)
    assert policy.latents.vae.dtype == torch.float32 and policy.dtype == torch.bfloat16
    assert pipe.vae.dtype == torch.bfloat16


def test_a_distilled_model_is_known_by_the_name_it_was_loaded_from(tiny_sd: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd)
    pipe.register_to_config(_name_or_path="someone/sd-turbo")
    assert wrap(pipe).distilled == "its name has 'turbo'"
