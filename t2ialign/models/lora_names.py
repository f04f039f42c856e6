"""Names of layers in LoRA files: diffusers' paths, SGM's (the first implementation's), kohya's names.

A key is a component and a path of diffusers, `unet.down_blocks.0.attentions.0...`; it is what the other
spellings are read into. SGM numbers its blocks through, so its names depend on the network's layout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from t2ialign.models.single.layout import unet_name

UNET, TRANSFORMER, TEXT, TEXT_2 = "unet", "transformer", "text_encoder", "text_encoder_2"
COMPONENTS = (UNET, TRANSFORMER, TEXT, TEXT_2)
"""The parts of a pipeline that can have a LoRA, by their names in it."""

KOHYA = {"lora_unet_": UNET, "lora_te_": TEXT, "lora_te1_": TEXT, "lora_te2_": TEXT_2}
"""The beginnings of kohya's names."""

WORDS = (
    *("down_blocks", "mid_block", "up_blocks", "transformer_blocks", "conv_in", "conv_out", "conv_norm_out"),
    *("time_embedding", "add_embedding", "linear_1", "linear_2", "time_emb_proj", "conv_shortcut"),
    *("proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out"),
    *("input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb"),
    *("in_layers", "emb_layers", "out_layers", "skip_connection"),
    *("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection"),
    *("layer_norm1", "layer_norm2", "final_layer_norm", "token_embedding", "position_embedding"),
)
"""Names of single modules that hold an underscore: kohya's spelling has no other dots."""

OUTSIDE = (
    *("conv_in", "conv_norm_out", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"),
    *("add_embedding.linear_1", "add_embedding.linear_2"),
)
"""Layers of a U-Net outside its blocks."""
IN_RESNET = ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut")
"""Layers of a ResNet."""

_TOKEN = re.compile(rf"(?:^|_)({'|'.join(sorted(WORDS, key=len, reverse=True))}|[a-z0-9]+)(?=_|$)")
_SGM = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.?(.*)|(middle_block)\.(\d+)\.(.+)")
_UNET_PATH = re.compile(
    r"((down|up)_blocks\.\d+|mid_block)\..+|conv_in|conv_out|(time|add)_embedding\.linear_[12]"
)
_TRANSFORMER_PATH = re.compile(r"((single_)?transformer_blocks|layers|noise_refiner|context_refiner)\.\d+\.")
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


class Layout(NamedTuple):
    """The settings behind SGM's block numbers, by the names of a UNet2DConditionModel's config; SDXL's."""

    layers_per_block: int = 2
    up_block_types: Sequence[str] = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")


SDXL_LAYOUT = Layout()


def from_sgm(name: str, layers_per_block: int = 2) -> str | None:
    """SGM's path of a U-Net's layer -> diffusers'; None if it is none."""
    for path in OUTSIDE:
        if name == unet_name(path, SDXL_LAYOUT):
            return path
    match = _SGM.fullmatch(name)
    if match is None:
        return None
    if match[5]:
        number, inner = int(match[6]), match[7]
        j, odd = divmod(number, 2)
        return _inside(f"mid_block.{'attentions' if odd else 'resnets'}.{j}", odd, inner)
    number, place, inner = int(match[2]), int(match[3]), match[4]
    if match[1] == "input_blocks":
        i, j = divmod(number - 1, layers_per_block + 1)
        if inner == "op":
            return f"down_blocks.{i}.downsamplers.0.conv"
        block = f"down_blocks.{i}"
    else:
        i, j = divmod(number, layers_per_block + 1)
        if inner == "conv":
            return f"up_blocks.{i}.upsamplers.0.conv"
        block = f"up_blocks.{i}"
    return _inside(f"{block}.{'attentions' if place else 'resnets'}.{j}", place, inner)


def dotted(name: str) -> str:
    """A path whose dots have become underscores -> the path, by the module names of `WORDS`."""
    return ".".join(_TOKEN.findall(name))


def to_kohya(key: str, *, sdxl: bool, layout: Any = SDXL_LAYOUT) -> str:
    """A key -> kohya's name, which for SDXL's U-Net is SGM's. layout: the U-Net's config, or a `Layout`.

    A U-Net whose blocks differ in their numbers of layers has no SGM names, and keeps diffusers'.
    """
    component, _, path = key.partition(".")
    if component == UNET:
        numbered = sdxl and isinstance(layout.layers_per_block, int)
        return "lora_unet_" + (unet_name(path, layout) if numbered else path).replace(".", "_")
    prefix = "lora_te_" if not sdxl else "lora_te1_" if component == TEXT else "lora_te2_"
    return prefix + path.replace(".", "_")


def key_of(name: str, layers_per_block: int = 2) -> str | None:
    """The name of a layer in any known spelling, without its suffix -> its key; None if it is none.

    layers_per_block: of the U-Net, which SGM's names depend on; 2 in every published one.
    """
    name = name.removeprefix("base_model.model.")
    for prefix, component in KOHYA.items():
        if name.startswith(prefix):
            return _key(component, dotted(name.removeprefix(prefix).replace(".", "_")), layers_per_block)
    for prefix, component in {"diffusion_model.": UNET, **{f"{part}.": part for part in COMPONENTS}}.items():
        if name.startswith(prefix):
            return _key(component, name.removeprefix(prefix), layers_per_block)
    return _key(TEXT if name.startswith("text_model.") else UNET, name, layers_per_block)


def spelling(name: str) -> str:
    """The format that a file's key belongs to, in a word for people."""
    if name.startswith(tuple(KOHYA)):
        return "kohya"
    if name.startswith("base_model.model."):
        return "PEFT"
    if name.startswith("diffusion_model."):
        return "ComfyUI"
    return "diffusers" if ".lora_A" in name or ".lora_B" in name else "old diffusers"


def _key(component: str, path: str, layers_per_block: int) -> str | None:
    if component == UNET:
        path = re.sub(r"\.processor\.(to_[qkv]|to_out)$", r".\1", path)
        path = re.sub(r"\.to_out$", ".to_out.0", path)
        known = path if _UNET_PATH.fullmatch(path) else from_sgm(path, layers_per_block)
        return f"{UNET}.{known}" if known else None
    if component == TRANSFORMER:  # diffusers' own names, the only ones there are of it here
        return f"{TRANSFORMER}.{path}" if _TRANSFORMER_PATH.match(path) else None
    before, _, last = path.rpartition(".")
    path = f"{before}.{_OLD_TEXT.get(last, last)}" if before else last
    path = f"text_model.{path}" if path.startswith("encoder.") else path  # newer CLIPs have one level less
    return (
        f"{component}.{path}"
        if re.match(r"text_model\.encoder\.layers\.\d+\.|text_projection$", path)
        else None
    )


def _inside(block: str, attention: int, inner: str) -> str | None:
    if attention:
        return f"{block}.{inner}"
    for part in IN_RESNET:
        if unet_name(f"mid_block.resnets.0.{part}", SDXL_LAYOUT) == f"middle_block.0.{inner}":
            return f"{block}.{part}"
    return None
