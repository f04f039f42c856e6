"""The released transformers at their own sizes, without weights: published parameters, LoRA layers."""

from types import SimpleNamespace
from typing import Any, cast

import diffusers
import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from t2ialign.models.base import Policy
from t2ialign.models.families.flux import FluxPolicy
from t2ialign.models.families.sd3 import SD3Policy
from t2ialign.models.families.z_image import ZImagePolicy
from t2ialign.models.lora_family import of_flow

JOINT: dict[str, Any] = {"sample_size": 128, "joint_attention_dim": 4096, "pooled_projection_dim": 2048}
WIDTH = {"num_attention_heads": 24, "caption_projection_dim": 1536}
NORMED = {"qk_norm": "rms_norm"}
DUAL = {"dual_attention_layers": tuple(range(13)), "pos_embed_max_size": 384}
RELEASED = {
    # name: (policy, settings by diffusers' conversion scripts, published parameters, LoRA layers)
    "SD3-M": (SD3Policy, JOINT | WIDTH | {"num_layers": 24, "pos_embed_max_size": 192}, "2", 191),
    "SD3.5-M": (SD3Policy, JOINT | WIDTH | NORMED | DUAL | {"num_layers": 24}, "2.5", 191),
    "SD3.5-L": (
        SD3Policy,
        JOINT
        | NORMED
        | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432}
        | {"pos_embed_max_size": 192},
        "8.1",
        303,
    ),
    "FLUX.1 dev": (FluxPolicy, {"guidance_embeds": True}, "12", 342),
    "Z-Image": (ZImagePolicy, {}, "6", 136),
}
"""Published: Stability's and Black Forest Labs' announcements and Z-Image's paper, in billions, with the
table of positions, which is a buffer in diffusers. Eight projections of a joint block, seven of SD3's last,
whose text ends there: 8 x 24 - 1 and 8 x 38 - 1. FLUX: (8 + 4) x 19 double blocks and three in each of 38
single ones. Z-Image: four in each of 30 + 2 + 2 blocks."""


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_size(name: str) -> None:
    kind, settings, billions, layers = RELEASED[name]
    with torch.device("meta"):
        network = getattr(diffusers, kind.save_class)(**settings)
        numbers = sum(part.numel() for part in network.state_dict().values())
        network.add_adapter(LoraConfig(r=4, target_modules=list(kind.lora_targets)))
    digits = len(billions.partition(".")[2])
    assert f"{numbers / 1e9:.{digits}f}" == billions
    assert sum(isinstance(part, LoraLayer) for part in network.modules()) == layers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SD3-M", "stable-diffusion-3-m"),
        ("SD3.5-M", "stable-diffusion-3-5-medium"),
        ("SD3.5-L", "stable-diffusion-3-5-large"),
        ("FLUX.1 dev", "flux-1-dev"),
        ("Z-Image", None),
    ],
)
def test_the_header_of_a_lora_names_the_model_as_sd_scripts_does(name: str, expected: str | None) -> None:
    kind, settings, *_ = RELEASED[name]
    with torch.device("meta"):
        network = getattr(diffusers, kind.save_class)(**settings)
    assert of_flow(cast(Policy, SimpleNamespace(family=kind.family, adapted=network))) == expected
