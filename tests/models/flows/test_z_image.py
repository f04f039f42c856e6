"""What Z-Image has of its own: a conversation around each prompt, and texts of their own length; Turbo."""

import logging

import pytest
import torch

from t2ialign.models.advice import advise_before_training
from t2ialign.models.families.z_image import LENGTH, ZImagePolicy
from t2ialign.models.load import policy_of
from t2ialign.models.options import ModelOptions
from tests.models.flows.tiny_z_image import tiny_z_image_pipeline

PROMPTS = ["a red circle", "two blue squares left of a green cross"]


@pytest.fixture(scope="module")
def policy() -> ZImagePolicy:
    return ZImagePolicy(tiny_z_image_pipeline())


@torch.no_grad()
def test_prompts_are_encoded_as_in_the_pipeline(policy: ZImagePolicy) -> None:
    cond = policy.encode_prompts(PROMPTS)
    theirs, empty = policy.pipe.encode_prompt(PROMPTS.copy())
    null = policy.null_cond(cond)
    assert (
        cond["lengths"].tolist() == [len(row) for row in theirs] and len(set(cond["lengths"].tolist())) == 2
    )
    for place, (with_prompt, without) in enumerate(zip(theirs, empty, strict=True)):
        torch.testing.assert_close(cond["prompt_embeds"][place, : len(with_prompt)], with_prompt)
        torch.testing.assert_close(null["prompt_embeds"][place, : null["lengths"][place]], without)
        assert not cond["prompt_embeds"][place, len(with_prompt) :].any()


def test_a_long_prompt_is_warned_about(policy: ZImagePolicy, caplog: pytest.LogCaptureFixture) -> None:
    policy.encode_prompts(["a red circle " * 400])
    assert f"the model reads {LENGTH - 2}" in caplog.text


def test_turbo_is_warned_about_before_training(caplog: pytest.LogCaptureFixture) -> None:
    pipe = tiny_z_image_pipeline()
    pipe.register_to_config(_name_or_path="Tongyi-MAI/Z-Image-Turbo")
    with caplog.at_level(logging.WARNING):
        advise_before_training(policy_of(pipe))
    assert "distilled to a few steps (its name has 'turbo')" in caplog.text


def test_there_is_no_layer_to_skip() -> None:
    policy = ZImagePolicy(tiny_z_image_pipeline(), options=ModelOptions(clip_skip=1))
    with pytest.raises(ValueError, match="got clip_skip=1 for Z-Image"):
        policy.encode_prompts(PROMPTS)
