"""What layers are called in LoRA files: diffusers' paths, SGM's (the first implementation's), kohya's names.

A key is a component and a path of diffusers, `unet.down_blocks.0.attentions.0...`; it is what the other
spellings are read into. SGM numbers its blocks through, so its names depend on the network's layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

UNET, TEXT, TEXT_2 = "unet", "text_encoder", "text_encoder_2"
COMPONENTS = (UNET, TEXT, TEXT_2)
"""The parts of a pipeline that can have a LoRA, by their names in it."""

KOHYA = {"lora_unet_": UNET, "lora_te_": TEXT, "lora_te1_": TEXT, "lora_te2_": TEXT_2}
"""How kohya's names start."""

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

_TOKEN = re.compile(rf"(?:^|_)({'|'.join(sorted(WORDS, key=len, reverse=True))}|[a-z0-9]+)(?=_|$)")
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_SGM = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.?(.*)|(middle_block)\.(\d+)\.(.+)")
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE_BACK = {sgm: path for path, sgm in _OUTSIDE.items()}
_RESNET_BACK = {sgm: path for path, sgm in _RESNET.items()}
_UNET_PATH = re.compile(
    r"((down|up)_blocks\.\d+|mid_block)\..+|conv_in|conv_out|(time|add)_embedding\.linear_[12]"
)
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


class Layout(NamedTuple):
    """What SGM's block numbers depend on; the defaults are those of SDXL, and of SD 1 and 2 when reading."""

    layers_per_block: int = 2
    """ResNets of a down block; an up block has one more."""
    plain: frozenset[int] = frozenset()
    """Up blocks without attention, whose upsampler comes right after the ResNet."""


def layout_of(names: Iterable[str]) -> Layout:
    """The layout of a U-Net by the names of its modules or parameters.

    Raises ValueError if its blocks have several numbers of layers.
    """
    names = list(names)
    down = {(m[1], m[2]) for name in names if (m := re.match(r"down_blocks\.(\d+)\.resnets\.(\d+)\.", name))}
    counts = {sum(block == other for other, _ in down) for block, _ in down}
    if len(counts) != 1:
        raise ValueError(
            f"got down blocks of {sorted(counts)} layers; expected one number of them; use --format diffusers"
        )
    up = {int(m[1]) for name in names if (m := re.match(r"up_blocks\.(\d+)\.", name))}
    attends = {int(m[1]) for name in names if (m := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    return Layout(counts.pop(), frozenset(up - attends))


def to_sgm(path: str, layout: Layout) -> str:
    """diffusers' path of a U-Net's layer -> SGM's. Raises ValueError for a layer that SGM does not have."""
    if path in _OUTSIDE:
        return _OUTSIDE[path]
    per_block = layout.layers_per_block + 1
    if match := _MIDDLE.fullmatch(path):
        kind, j, inner = match[1], int(match[2]), match[3]
        number = 2 * j + (kind == "attentions")
        return f"middle_block.{number}.{inner if kind == 'attentions' else _in_resnet(inner, path)}"
    match = _BLOCK.fullmatch(path)
    if match is None:
        raise ValueError(f"got layer {path!r}; expected one of a U-Net's blocks; it has no SGM name")
    side, i, kind, j, inner = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{(i + 1) * per_block}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{i * per_block + layout.layers_per_block}.{1 if i in layout.plain else 2}.conv"
    number = (
        f"input_blocks.{1 + i * per_block + j}" if side == "down" else f"output_blocks.{i * per_block + j}"
    )
    return f"{number}.1.{inner}" if kind == "attentions" else f"{number}.0.{_in_resnet(inner, path)}"


def from_sgm(name: str, layers_per_block: int = 2) -> str | None:
    """SGM's path of a U-Net's layer -> diffusers'; None if it is none."""
    if name in _OUTSIDE_BACK:
        return _OUTSIDE_BACK[name]
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


def to_kohya(key: str, layout: Layout | None) -> str:
    """A key -> kohya's name. layout: SDXL's, whose names are SGM's; None for SD 1 and 2."""
    component, _, path = key.partition(".")
    if component == UNET:
        return "lora_unet_" + (to_sgm(path, layout) if layout else path).replace(".", "_")
    prefix = "lora_te_" if layout is None else "lora_te1_" if component == TEXT else "lora_te2_"
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
        found = path if _UNET_PATH.fullmatch(path) else from_sgm(path, layers_per_block)
        return f"{UNET}.{found}" if found else None
    before, _, last = path.rpartition(".")
    path = f"{before}.{_OLD_TEXT.get(last, last)}" if before else last
    path = f"text_model.{path}" if path.startswith("encoder.") else path  # newer CLIPs have one level less
    return (
        f"{component}.{path}"
        if re.match(r"text_model\.encoder\.layers\.\d+\.|text_projection$", path)
        else None
    )


def _in_resnet(inner: str, path: str) -> str:
    if inner not in _RESNET:
        raise ValueError(f"got layer {path!r}; expected one of a U-Net's blocks; it has no SGM name")
    return _RESNET[inner]


def _inside(block: str, attention: int, inner: str) -> str | None:
    if attention:
        return f"{block}.{inner}"
    return f"{block}.{_RESNET_BACK[inner]}" if inner in _RESNET_BACK else None
