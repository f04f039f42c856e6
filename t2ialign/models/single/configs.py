"""Configurations of a released single file, which has none: sizes from shapes, the rest from its family."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rewards.tensor_files import save_pretrained
from rewards.towers.clip_tokenizer import SIZE, clip_tokenizer
from t2ialign.models.single.facts import FileFacts, Shapes
from t2ialign.models.single.layout import CLIP_1, CLIP_2, CLIP_XL, OPEN_CLIP_XL, UNET, VAE

HEAD = 64
"""Channels of an attention head, but for Stable Diffusion 1's U-Net, which has 8 heads of any width."""


def write_configs(facts: FileFacts, prediction_type: str, zero_snr: bool, folder: Path) -> None:
    """Write the configurations of a diffusers pipeline, without weights and tokenizers, into `folder`.

    Raises ValueError if tensors are missing that the layout has.
    """
    from diffusers import DDIMScheduler
    from transformers import CLIPTextConfig

    with _whole(facts):
        unet, vae = unet_config(facts, prediction_type), vae_config(facts)
        texts = text_configs(facts)
    _write(folder / "unet" / "config.json", {"_class_name": "UNet2DConditionModel", **unet})
    _write(folder / "vae" / "config.json", {"_class_name": "AutoencoderKL", **vae})
    for name, config in texts.items():
        save_pretrained(CLIPTextConfig(**config), folder / name)
    scheduler = DDIMScheduler(**scheduler_config(prediction_type, zero_snr))
    save_pretrained(scheduler, folder / "scheduler")
    _write(folder / "model_index.json", _index(facts.family))


def network_configs(facts: FileFacts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of VAE and U-Net. Raises ValueError if tensors are missing that the layout has."""
    with _whole(facts):
        return vae_config(facts), unet_config(facts, facts.prediction_type or "epsilon")


@contextmanager
def _whole(facts: FileFacts) -> Iterator[None]:
    """Within this block a tensor that the file lacks is an error about the file."""
    try:
        yield
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"got {facts.path}, which lacks {error} of the released layout; expected a whole model; download "
            "it again, or name its diffusers folder"
        ) from error


def scheduler_config(prediction_type: str, zero_snr: bool) -> dict[str, Any]:
    """The noise schedule of all three families; zero terminal SNR is sampled from its last step on."""
    return {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": prediction_type,
        "rescale_betas_zero_snr": zero_snr,
        "timestep_spacing": "trailing" if zero_snr else "leading",
    }


def unet_config(facts: FileFacts, prediction_type: str) -> dict[str, Any]:
    """The configuration of UNet2DConditionModel. Raises KeyError for a tensor that the file lacks."""
    shapes, family = _under(facts.shapes, UNET), facts.family
    inputs = 1 + max(int(match[1]) for name in shapes if (match := re.match(r"input_blocks\.(\d+)\.", name)))
    resampled = [row for row in range(inputs) if f"input_blocks.{row}.0.op.weight" in shapes]
    layers = (resampled[0] if resampled else inputs) - 1
    rows = [1 + block * (layers + 1) for block in range(len(resampled) + 1)]
    channels = [shapes[f"input_blocks.{row}.0.in_layers.2.weight"][0] for row in rows]
    middle = _depth(shapes, "middle_block.1.")
    # diffusers gives the middle block the depth of the last one, which may have no transformer of its own.
    depths = [_depth(shapes, f"input_blocks.{row}.1.") for row in rows]
    attends = [bool(depth) for depth in depths]
    depths = [depth or 1 for depth in depths[:-1]] + [middle]
    sizes = {"sd1": 64, "sd2": 96 if prediction_type == "v_prediction" else 64, "sdxl": 128}
    config: dict[str, Any] = {
        "sample_size": sizes[family],
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(attends)],
        "transformer_layers_per_block": depths,
        "cross_attention_dim": shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes["middle_block.1.proj_in.weight"]) == 2,
        "attention_head_dim": 8 if family == "sd1" else [width // HEAD for width in channels],
    }
    if family == "sdxl":
        added, pooled = shapes["label_emb.0.0.weight"][1], facts.shapes[OPEN_CLIP_XL + "text_projection"][1]
        config |= {
            "addition_embed_type": "text_time",
            "projection_class_embeddings_input_dim": added,
            "addition_time_embed_dim": (added - pooled) // 6,  # three sizes of two sides each
        }
    return config


def vae_config(facts: FileFacts) -> dict[str, Any]:
    """The configuration of AutoencoderKL. Raises KeyError for a tensor that the file lacks."""
    shapes, xl = _under(facts.shapes, VAE), facts.family == "sdxl"
    levels = _count(shapes, r"encoder\.down\.(\d+)\.")
    return {
        "block_out_channels": [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)],
        "layers_per_block": _count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "scaling_factor": 0.13025 if xl else 0.18215,
        "force_upcast": xl,
        "sample_size": 1024 if xl else 512,
    }


def text_configs(facts: FileFacts) -> dict[str, dict[str, Any]]:
    """The configurations of CLIP text encoders, by name in a pipeline. Raises KeyError like `vae_config`."""
    shapes = facts.shapes
    if facts.family == "sd1":
        return {"text_encoder": _clip(_under(shapes, CLIP_1 + "text_model."))}
    if facts.family == "sd2":
        return {"text_encoder": _open_clip(_under(shapes, CLIP_2), drop_last=True)}
    return {
        "text_encoder": _clip(_under(shapes, CLIP_XL + "text_model.")),
        "text_encoder_2": _open_clip(_under(shapes, OPEN_CLIP_XL)),
    }


def tokenizers(family: str) -> dict[str, Any]:
    """The tokenizers of a pipeline, by their names in it."""
    if family == "sdxl":
        return {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer(open_clip=True)}
    return {"tokenizer": clip_tokenizer(open_clip=family == "sd2")}


def _clip(shapes: Shapes) -> dict[str, Any]:
    """The configuration of OpenAI's encoder."""
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    return {
        **_text(vocabulary, width, shapes["embeddings.position_embedding.weight"][0]),
        "hidden_act": "quick_gelu",
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, r"encoder\.layers\.(\d+)\."),
        "projection_dim": width,
        "pad_token_id": SIZE - 1,
    }


def _open_clip(shapes: Shapes, *, drop_last: bool = False) -> dict[str, Any]:
    """The configuration of open_clip's encoder.

    Stable Diffusion 2 reads its last but one layer, so diffusers drops the last. A file that was written
    from diffusers has lost that layer already, and the projection that follows it.
    """
    vocabulary, width = shapes["token_embedding.weight"]
    layers, projection = _count(shapes, r"transformer\.resblocks\.(\d+)\."), shapes.get("text_projection")
    return {
        **_text(vocabulary, width, shapes["positional_embedding"][0]),
        "hidden_act": "gelu",
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": layers - 1 if drop_last and projection else layers,
        "projection_dim": projection[1] if projection else width,
        "pad_token_id": 0,
    }


def _text(vocabulary: int, width: int, positions: int) -> dict[str, Any]:
    if vocabulary != SIZE:
        raise KeyError(f"the {SIZE} tokens of CLIP (it has {vocabulary})")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_attention_heads": width // HEAD,
        "max_position_embeddings": positions,
        "bos_token_id": SIZE - 2,
        "eos_token_id": SIZE - 1,
    }


def _index(family: str) -> dict[str, Any]:
    text = ["transformers", "CLIPTextModel"]
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": text,
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    if family != "sdxl":
        return {**index, "requires_safety_checker": False}
    return {
        **index,
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": index["tokenizer"],
        "force_zeros_for_empty_prompt": True,
    }


def _under(shapes: Shapes, prefix: str) -> Shapes:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _count(shapes: Shapes, pattern: str) -> int:
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


def _depth(shapes: Shapes, place: str) -> int:
    """Transformer blocks in a row at a place of the U-Net."""
    return _count(shapes, re.escape(place) + r"transformer_blocks\.(\d+)\.")


def _write(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values), encoding="utf-8")
