"""Weights of a diffusers pipeline under the names of the released single files (CompVis and Stability)."""

import re
from typing import Any

import torch
from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP_1, CLIP_2 = "cond_stage_model.transformer.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def to_original(pipe: Any) -> dict[str, Tensor]:
    """The weights of a StableDiffusionPipeline or StableDiffusionXLPipeline in the released layout.

    The encoder of Stable Diffusion 2 has lost its unused last layer in diffusers, so the file lacks it as
    well. Raises ValueError for a network with parts that the layout cannot name.
    """
    weights = {UNET + name: value for name, value in unet_to_original(pipe.unet).items()}
    weights |= {VAE + name: value for name, value in vae_to_original(pipe.vae).items()}
    family = family_of(pipe)
    if family == "sdxl":
        weights |= _clip(pipe.text_encoder, CLIP_XL) | _open_clip(pipe.text_encoder_2, OPEN_CLIP_XL)
    elif family == "sd2":
        weights |= _open_clip(pipe.text_encoder, CLIP_2)
    else:
        weights |= _clip(pipe.text_encoder, CLIP_1)
    return {name: value.detach().contiguous() for name, value in weights.items()}


def family_of(pipe: Any) -> str:
    """ "sd1", "sd2" or "sdxl"."""
    return "sdxl" if hasattr(pipe, "text_encoder_2") else version_of(pipe.text_encoder.config)


def version_of(text_encoder: Any) -> str:
    """ "sd1" or "sd2" by the text encoder's configuration: open_clip's computes gelu, OpenAI's quick_gelu."""
    return "sd2" if text_encoder.hidden_act == "gelu" else "sd1"


def unet_to_original(unet: Any) -> dict[str, Tensor]:
    """The state dict of a UNet2DConditionModel under SGM names. Raises ValueError for a part without one."""
    return {unet_name(name, unet.config): value for name, value in unet.state_dict().items()}


def unet_name(name: str, config: Any) -> str:
    """The SGM name of a parameter or module of a UNet2DConditionModel with this config.

    Raises ValueError for a part that has none.
    """
    if not isinstance(config.layers_per_block, int):
        raise ValueError(
            f"got layers_per_block={config.layers_per_block}; expected one number, as in released files"
        )
    if ".lora_" in name or ".base_layer." in name:
        raise ValueError(f"got a UNet with {name!r}, an adapter; expected plain weights; fold it in first")
    if match := re.fullmatch(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)", name):
        side, block, part, index, rest = match.groups()
        names = {"resnets": _RESNET, "downsamplers": {"conv": "op"}}.get(part)
        return f"{_place(side, int(block or 0), part, int(index), config)}.{_replaced(rest, names)}"
    for ours, theirs in _UNET_ENDS.items():
        if name == ours or name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    raise ValueError(f"got a UNet with {name!r}; expected a plain Stable Diffusion network")


def _place(side: str, block: int, part: str, index: int, config: Any) -> str:
    """Where a ResNet, transformer or resampler of a block stands in the numbered lists of the SGM network."""
    layers = config.layers_per_block
    if side == "mid":
        return f"middle_block.{2 * index + (part == 'attentions')}"
    row = block * (layers + 1)
    if part == "downsamplers":
        return f"input_blocks.{row + layers + 1}.0"
    if part == "upsamplers":
        return f"output_blocks.{row + layers}.{2 if 'Attn' in config.up_block_types[block] else 1}"
    column = ("resnets", "attentions").index(part)
    if side == "down":  # conv_in is input block 0
        return f"input_blocks.{row + index + 1}.{column}"
    return f"output_blocks.{row + index}.{column}"


def vae_to_original(vae: Any) -> dict[str, Tensor]:
    """The state dict of an AutoencoderKL under the names of the released files."""
    weights = {}
    for name, value in vae.state_dict().items():
        if ".attentions." in name and name.endswith("weight") and value.ndim == 2:
            value = value[:, :, None, None]  # the released files project with 1x1 convolutions
        weights[_vae_name(name, len(vae.config.block_out_channels))] = value
    return weights


def _vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if match := re.fullmatch(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        half, part, index, rest = match.groups()
        if part == "attentions":
            return f"{half}.mid.attn_1.{_replaced(rest, _VAE_ATTENTION)}"
        return f"{half}.mid.block_{int(index) + 1}.{rest}"
    if match := re.fullmatch(r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name):
        half, side, block, part, index, rest = match.groups()
        level = int(block) if side == "down" else blocks - 1 - int(block)
        return f"{half}.{side}.{level}." + (
            f"block.{index}.{rest}" if part == "resnets" else f"{side}sample.{rest}"
        )
    return name


def _clip(encoder: Any, prefix: str) -> dict[str, Tensor]:
    """The released files keep OpenAI's encoder under the names transformers gave it before version 5.6."""
    return {f"{prefix}text_model.{name}": value for name, value in _text_model(encoder).items()}


def _open_clip(encoder: Any, prefix: str) -> dict[str, Tensor]:
    """open_clip's names: queries, keys and values in one matrix, the projection transposed."""
    state, weights = _text_model(encoder), {}
    for name, value in state.items():
        if match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name):
            layer, rest = f"transformer.resblocks.{match[1]}.", match[2]
            if fused := re.fullmatch(r"self_attn\.[qkv]_proj\.(weight|bias)", rest):
                stem = f"encoder.layers.{match[1]}.self_attn."
                parts = [state[f"{stem}{part}_proj.{fused[1]}"] for part in "qkv"]
                weights[f"{layer}attn.in_proj_{fused[1]}"] = torch.cat(parts)
            else:
                weights[layer + _replaced(rest, _OPEN_CLIP_LAYER)] = value
        else:
            weights[_OPEN_CLIP_ENDS[name]] = value
    if hasattr(encoder, "text_projection"):
        weights["text_projection"] = encoder.text_projection.weight.T
    return {prefix + name: value for name, value in weights.items()}


def _text_model(encoder: Any) -> dict[str, Tensor]:
    """The state dict of a CLIP text tower alone, named alike by every version of transformers."""
    tower = getattr(encoder, "text_model", encoder)
    return {name: value for name, value in tower.state_dict().items() if not name.endswith("position_ids")}


def _replaced(name: str, names: dict[str, str] | None) -> str:
    """`name` with its leading part exchanged, or as it is. Raises ValueError for a part without a name."""
    for ours, theirs in (names or {}).items():
        if name == ours or name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    if names:
        raise ValueError(f"got a part {name!r}; expected one of {', '.join(names)}")
    return name
