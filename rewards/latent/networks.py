"""The networks of a latent reward: the layouts there are, read from a diffusers folder or made from facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.foreign import refuse_code
from rewards.hub import check_repository
from rewards.latent.mmdit import MMDiTBackbone
from rewards.latent.unet import UNetBackbone
from rewards.weights import align_weights

Backbone = UNetBackbone | MMDiTBackbone
"""The layouts there are: one interface, of Stable Diffusion 1, 2 and SDXL, and of Stable Diffusion 3."""

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
"""The folders of tokenizers, in the order of the text encoders."""


def read_backbone(source: str) -> Backbone:
    """Of a diffusers folder or a Hub id. Raises OSError or ValueError for one that lacks a part."""
    from diffusers import DiffusionPipeline

    check_repository(source, "model_index.json")
    refuse_code(source)
    parts = DiffusionPipeline.load_config(source)
    kind = parts.get("transformer", (None, None))[1]
    if kind not in (None, "SD3Transformer2DModel"):
        raise ValueError(f"its transformer is a {kind}")
    backbone, classes = _layout(parts)
    network, *encoders = [
        part.from_pretrained(source, subfolder=name, use_safetensors=True) for name, part in classes.items()
    ]
    align_weights(network, *encoders)
    tokenizers = [name for name in TOKENIZERS if any(parts.get(name) or ())]
    return backbone(network, _read_tokenizers(source, tokenizers), *encoders)


def new_backbone(facts: Mapping[str, Any], folder: Path) -> Backbone:
    """Of random weights and the configuration and tokenizers that `save` wrote."""
    backbone, classes = _layout(facts)
    (name, network), *texts = classes.items()
    encoders = [encoder(encoder.config_class(**facts[text])) for text, encoder in texts]
    layer = {"layer": facts["layer"]} if "layer" in facts else {}
    tokenizers = [name for name in TOKENIZERS if (folder / name).is_dir()]
    return backbone(
        network.from_config(facts[name]), _read_tokenizers(str(folder), tokenizers), *encoders, **layer
    )


def _layout(parts: Mapping[str, Any]) -> tuple[Callable[..., Backbone], dict[str, Any]]:
    """The backbone of a pipeline's or a reward's configuration, and the classes of its networks by name."""
    from diffusers import SD3Transformer2DModel, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

    if "unet" in parts:
        backbone: Callable[..., Backbone] = UNetBackbone
        classes = {
            "unet": UNet2DConditionModel,
            "text_encoder": CLIPTextModel,
            "text_encoder_2": CLIPTextModelWithProjection,
        }
    elif "transformer" in parts:
        backbone = MMDiTBackbone
        classes = {
            "transformer": SD3Transformer2DModel,
            "text_encoder": CLIPTextModelWithProjection,
            "text_encoder_2": CLIPTextModelWithProjection,
            "text_encoder_3": T5EncoderModel,
        }
    else:
        raise ValueError("it has neither a unet nor a transformer")
    *_, last = classes  # the one that may be absent: [None, None] in a pipeline's file, None in ours
    if not any(parts.get(last) or ()):
        del classes[last]
    return backbone, classes


def _read_tokenizers(source: str, names: Sequence[str]) -> list[Any]:
    from transformers import CLIPTokenizerFast, T5TokenizerFast

    kinds = dict(zip(TOKENIZERS, (CLIPTokenizerFast, CLIPTokenizerFast, T5TokenizerFast), strict=True))
    return [kinds[name].from_pretrained(source, subfolder=name) for name in names]
