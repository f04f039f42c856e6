"""clip_skip counts as diffusers does: its own encode_prompt gives the same numbers."""

import pytest
import torch
from diffusers import DiffusionPipeline
from transformers import CLIPTextModel

from t2ialign.models.load import load_policy
from t2ialign.models.options import ModelOptions
from tests.models.released import pipeline

PROMPTS = ["a red circle", "two blue squares"]


def theirs(pipe, clip_skip):
    """(prompts, empty prompts[, pooled prompts]) by the pipeline itself."""
    given = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    return pipe.encode_prompt(PROMPTS, **given, clip_skip=clip_skip)


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def both(request, tmp_path_factory):
    """(a pipeline, its folder); the empty prompt of SDXL is encoded, not zeroed."""
    pipe, folder = pipeline(request.param), tmp_path_factory.mktemp(request.param)
    if request.param == "sdxl":
        pipe.register_to_config(force_zeros_for_empty_prompt=False)
    pipe.save_pretrained(folder)
    return pipe, folder


@pytest.fixture
def named(monkeypatch):
    """diffusers 0.42 calls the tower by a name that transformers 5.6 took away: its clip_skip fails."""
    if not hasattr(CLIPTextModel, "text_model"):
        monkeypatch.setattr(CLIPTextModel, "text_model", property(lambda self: self), raising=False)


@torch.no_grad()
@pytest.mark.parametrize("clip_skip", [None, 0, 1])
def test_prompts_are_encoded_as_the_pipeline_does(both, named, clip_skip):
    pipe, folder = both
    expected = theirs(pipe, clip_skip)
    policy = load_policy(str(folder), device="cpu", options=ModelOptions(clip_skip=clip_skip))
    cond = policy.encode_prompts(PROMPTS)
    null = policy.null_cond(cond)
    torch.testing.assert_close(cond["prompt_embeds"], expected[0])
    torch.testing.assert_close(null["prompt_embeds"], expected[1])
    if len(expected) > 2:
        torch.testing.assert_close(cond["pooled"], expected[2])
    policy.options = ModelOptions()
    plain = policy.encode_prompts(PROMPTS)["prompt_embeds"]
    assert torch.allclose(plain, cond["prompt_embeds"]) is (not clip_skip)


def test_one_layer_is_what_the_name_says(tiny_sd):
    """By hand: the state before the last layer, through the last normalisation."""
    pipe = DiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    policy = load_policy(str(tiny_sd), device="cpu", options=ModelOptions(clip_skip=1))
    ids = pipe.tokenizer(PROMPTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        out = pipe.text_encoder(ids, output_hidden_states=True)
        expected = pipe.text_encoder.final_layer_norm(out.hidden_states[1])
    torch.testing.assert_close(policy.encode_prompts(PROMPTS)["prompt_embeds"], expected)


def test_out_of_range(tiny_sd):
    with pytest.raises(ValueError, match="got clip_skip=-1; expected 0"):
        ModelOptions(clip_skip=-1)
    policy = load_policy(str(tiny_sd), device="cpu", options=ModelOptions(clip_skip=3))
    with pytest.raises(ValueError, match="leaves out 3 layers of 2; expected fewer"):
        policy.encode_prompts(PROMPTS)


def test_encodings_survive_the_encoders(tiny_sd):
    """Freed encoders leave what was encoded, layers skipped for prompts and not for the empty one."""
    policy = load_policy(str(tiny_sd), device="cpu", options=ModelOptions(clip_skip=1))
    before = policy.encode_prompts(PROMPTS)
    null = policy.null_cond(before)
    policy.free_encoders(keep_prompts=PROMPTS)
    after = policy.encode_prompts(PROMPTS)
    torch.testing.assert_close(after["prompt_embeds"], before["prompt_embeds"])
    torch.testing.assert_close(policy.null_cond(after)["prompt_embeds"], null["prompt_embeds"])


def test_a_tokenizer_of_another_model_is_one_line(tiny_sd):
    policy = load_policy(str(tiny_sd), device="cpu")
    policy.pipe.tokenizer.add_tokens(["longer"])
    with pytest.raises(ValueError, match=r"got token \d+ from the model's tokenizer, whose text encoder has"):
        policy.encode_prompts(["a longer word"])
