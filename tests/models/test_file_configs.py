"""Configurations told from shapes are those that were published, for models of full size."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from t2ialign.models.single.configs import scheduler_config, text_configs, unet_config, vae_config
from t2ialign.models.single.facts import FileFacts
from t2ialign.models.single.layout import CLIP_2, to_original
from tests.models.test_original_layout import SD1_UNET, SD2_UNET, SDXL_UNET, full_size

TEXT_1 = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"}
TEXT_2 = {"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu"}
TEXT_G = {
    "hidden_size": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
CASES = {
    "sd1": ({"unet": SD1_UNET}, {"text_encoder": TEXT_1}, "epsilon"),
    "sd2": ({"unet": SD2_UNET, "hidden_act": "gelu"}, {"text_encoder": TEXT_2}, "v_prediction"),
    "sdxl": (
        {"unet": SDXL_UNET, "text_2": True},
        {"text_encoder": TEXT_1, "text_encoder_2": TEXT_G},
        "epsilon",
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """(the published networks without memory, the facts of their file, what their text configs say)"""
    options, texts, prediction = CASES[request.param]
    pipe = full_size(**options)
    shapes = {name: tuple(value.shape) for name, value in to_original(pipe).items()}
    if request.param == "sd2":  # as released: a layer and a projection that nobody reads
        last = {
            n.replace("resblocks.22.", "resblocks.23."): s for n, s in shapes.items() if "resblocks.22." in n
        }
        shapes |= {**last, CLIP_2 + "text_projection": (1024, 1024)}
    return pipe, FileFacts(Path("m"), request.param, shapes, None, False), texts, prediction


def test_the_networks_are_the_published_ones(case):
    pipe, facts, _, prediction = case
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config(facts, prediction))
        vae = AutoencoderKL(**vae_config(facts))
    for ours, theirs in ((unet, pipe.unet), (vae, pipe.vae)):
        expected = {name: value.shape for name, value in theirs.state_dict().items()}
        assert {name: value.shape for name, value in ours.state_dict().items()} == expected
    for key in ("sample_size", "cross_attention_dim", "use_linear_projection", "addition_time_embed_dim"):
        assert unet.config[key] == pipe.unet.config[key], key
    heads = pipe.unet.config.attention_head_dim
    assert unet.config.attention_head_dim == (list(heads) if facts.family != "sd1" else heads)


def test_the_encoders_are_the_published_ones(case):
    _, facts, texts, _ = case
    configs = text_configs(facts)
    assert configs.keys() == texts.keys()
    for name, expected in texts.items():
        assert {key: configs[name][key] for key in expected} == expected
        assert (configs[name]["vocab_size"], configs[name]["max_position_embeddings"]) == (49408, 77)


def test_the_schedule_is_that_of_stable_diffusion():
    """The published config: 0.00085 to 0.012, scaled linear, one step off, alpha of t = 0 at the end."""
    config = scheduler_config("epsilon", zero_snr=False)
    assert (config["beta_start"], config["beta_end"], config["beta_schedule"]) == (
        0.00085,
        0.012,
        "scaled_linear",
    )
    assert config["steps_offset"] == 1 and not config["set_alpha_to_one"] and not config["clip_sample"]
    assert config["timestep_spacing"] == "leading"
