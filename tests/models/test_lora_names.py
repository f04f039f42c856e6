"""Names in LoRA files: every layer of the released networks, and what ComfyUI's rule takes of a file."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from t2ialign.models.load import load_policy
from t2ialign.models.lora import add_lora
from t2ialign.models.lora_names import key_of, to_kohya
from t2ialign.models.lora_saved import save_kohya, save_lora
from t2ialign.models.lora_targets import ATTENTION as TARGETS
from tests.loras import MORE_TARGETS, SD15, SD21, SDXL, TEXT_TARGETS, full_size, sgm_names, stated, targeted

SUFFIX = re.compile(
    r"(\.lora_up|\.lora_down|_lora\.up|_lora\.down|\.lora_[AB]|\.lora\.up|\.lora\.down)\.weight$"
)
"""The pairs of ends that ComfyUI looks for after an accepted name, and alpha beside them."""


def accepted(unet) -> set[str]:
    """ComfyUI's names of a U-Net's layers, made from the names of its own parameters.

    Its rule: the path of diffusers or of SGM after lora_unet_, dots as underscores; SGM's after
    diffusion_model.; and diffusers' before peft, whose attention had a processor and a to_out without number.
    """
    sgm = sgm_names(unet)
    paths = [name.removesuffix(".weight") for name, _ in unet.named_parameters() if name.endswith(".weight")]
    old = (f"unet.{path.replace('.to_', '.processor.to_')}" for path in paths)
    return {
        *(f"lora_unet_{path.replace('.', '_')}" for path in paths),
        *(f"lora_unet_{name.replace('.', '_')}" for name in sgm.values()),
        *(f"diffusion_model.{name}" for name in sgm.values()),
        *(name.removesuffix(".0") if name.endswith(".to_out.0") else name for name in old),
    }


def names_in(file: Path) -> set[str]:
    """The layers of a file, by their names without the ends."""
    names = {SUFFIX.sub("", key) for key in load_file(file)}
    return {name.removesuffix(".alpha") for name in names}


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (SD15, 128),  # 6 + 1 + 9 transformers of one block, each with two attentions of 4 layers
        (SD21, 128),
        (SDXL, 560),  # (2 x 2 + 2 x 10) + 10 + (3 x 10 + 3 x 2) = 70 blocks
    ],
    ids=["SD1.5", "SD2.1", "SDXL"],
)
def test_every_layer_that_is_trained_has_a_name_that_is_taken(config, count):
    unet = full_size(config)
    names, paths = accepted(unet), targeted(unet, TARGETS)
    assert len(paths) == count
    for sdxl in (False, True):
        written = {to_kohya(f"unet.{path}", sdxl=sdxl, layout=unet.config) for path in paths}
        assert len(written) == count and written <= names
    assert not {f"unet.{path}" for path in paths} & names  # peft's spelling, which no loader of theirs takes


@pytest.mark.parametrize("config", [SD15, SD21, SDXL], ids=["SD1.5", "SD2.1", "SDXL"])
def test_every_spelling_of_every_layer_is_read_back(config):
    sgm = sgm_names(full_size(config))
    assert len(set(sgm.values())) == len(sgm)
    for path, name in sgm.items():
        spellings = [f"unet.{path}", path, f"base_model.model.{path}", f"base_model.model.unet.{path}"]
        spellings += [f"lora_unet_{path.replace('.', '_')}", f"lora_unet_{path}"]
        spellings += [f"lora_unet_{name.replace('.', '_')}", f"diffusion_model.{name}", name]
        assert {key_of(spelling) for spelling in spellings} == {f"unet.{path}"}, path
    assert sgm["down_blocks.1.attentions.0.proj_in"] == "input_blocks.4.1.proj_in"


def test_sgm_names_worked_out_by_hand():
    """SDXL: 9 input and 9 output blocks, 0 to 8; its first transformer is in input block 4."""
    for path, name in {
        "down_blocks.0.resnets.1.conv1": "input_blocks_2_0_in_layers_2",
        "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
        "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0": (
            "input_blocks_8_1_transformer_blocks_9_attn2_to_out_0"
        ),
        "mid_block.resnets.1.conv2": "middle_block_2_out_layers_3",
        "up_blocks.0.upsamplers.0.conv": "output_blocks_2_2_conv",
        "up_blocks.1.attentions.0.proj_out": "output_blocks_3_1_proj_out",
        "up_blocks.2.resnets.2.conv_shortcut": "output_blocks_8_0_skip_connection",
        "add_embedding.linear_2": "label_emb_0_2",
    }.items():
        assert to_kohya(f"unet.{path}", sdxl=True) == f"lora_unet_{name}"


def test_text_encoders_have_their_own_prefixes():
    with torch.device("meta"):
        encoder = CLIPTextModel(CLIPTextConfig())
    paths = [stated("text_encoder", path) for path in targeted(encoder, TEXT_TARGETS)]
    assert len(paths) == 12 * len(TEXT_TARGETS)
    for path in paths:
        tail = path.replace(".", "_")
        assert tail.startswith("text_model_encoder_layers_")
        assert to_kohya(f"text_encoder.{path}", sdxl=False) == f"lora_te_{tail}"
        for component, prefix in (("text_encoder", "lora_te1_"), ("text_encoder_2", "lora_te2_")):
            assert to_kohya(f"{component}.{path}", sdxl=True) == prefix + tail
            assert key_of(prefix + tail) == key_of(f"{component}.{path}") == f"{component}.{path}"
        assert key_of(f"lora_te_{tail}") == key_of(path) == f"text_encoder.{path}"


@pytest.mark.parametrize(
    "name", ["transformer.x_embedder", "lora_unet_double_blocks_0_img_attn_qkv", "up", "a.b"]
)
def test_other_names_are_none(name):
    assert key_of(name) is None


@pytest.mark.parametrize("model", ["tiny_sd", "tiny_sdxl"])
def test_what_is_written_is_taken_whole(model, request, tmp_path):
    """The files of the project: diffusers' spelling matches nothing, kohya's everything."""
    folder = request.getfixturevalue(model)
    policy = load_policy(str(folder), device="cpu")
    names = accepted(policy.unet)
    add_lora(policy, 4, targets=MORE_TARGETS)
    file = save_lora(policy, tmp_path)
    kohya = names_in(save_kohya(policy, file, tmp_path / "a_kohya.safetensors"))
    total = len(targeted(DiffusionPipeline.from_pretrained(folder).unet, MORE_TARGETS))
    assert len(kohya) == len(kohya & names) == total > 32
    attention = {name for name in names_in(file) if re.search(r"\.attn[12]\.to_", name)}
    assert len(attention) == 32 and not attention & names
