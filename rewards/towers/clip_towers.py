"""CLIP as a tower: models of transformers and of open_clip, from a file, a folder or the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.foreign import mapping, reading
from rewards.keys import load_exactly, on_meta, precision
from rewards.towers.tokens import Style, Tokens, clip_tokens, from_transformers
from rewards.towers.two_tower import Tower
from rewards.weights import find, load_state

FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
CLIP_VOCABULARY = 49408
NOT_WEIGHTS = ("position_ids", "input_resolution", "context_length", "vocab_size", "attn_mask")
"""Endings of keys that old checkpoints carry and that a model computes by itself."""


class ClipTower(Tower):
    """Either kind of CLIP; `size` is the side of its input in pixels, `model` the library's own module."""

    def __init__(self, model: Any, tokens: Tokens, *, size: int, key: str = "") -> None:
        super().__init__(key)
        self.model, self.tokens, self.size = model, tokens, size

    @property
    def logit_scale(self) -> Tensor:
        """ln of the factor on cosines, a scalar."""
        scale: Tensor = self.model.logit_scale
        return scale


class TransformersClip(ClipTower):
    """A `transformers.CLIPModel`; its activation is the configuration's `hidden_act`."""

    def __init__(self, model: Any, tokens: Tokens, key: str = "") -> None:
        super().__init__(model, tokens, size=model.config.vision_config.image_size, key=key)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, S, S), prepared -> unit embeddings (B, D), fp32 or better."""
        pixels = pixels.to(self.model.visual_projection.weight.dtype)
        hidden = self.model.vision_model(pixel_values=pixels).pooler_output
        return unit(self.model.visual_projection(hidden))

    def encode_text(self, prompts: list[str]) -> Tensor:
        """P prompts -> unit embeddings (P, D), fp32 or better."""
        ids = self.tokens(prompts).to(self.model.text_projection.weight.device)
        return unit(self.model.text_projection(self.model.text_model(input_ids=ids).pooler_output))

    def text_parameters(self) -> Iterable[nn.Parameter]:
        """The weights that `encode_text` depends on."""
        yield from self.model.text_projection.parameters()
        yield from self.model.text_model.parameters()


class OpenClip(ClipTower):
    """An `open_clip.CLIP`; OpenAI's weights need an architecture that ends in -quickgelu."""

    def __init__(self, model: Any, tokens: Tokens, key: str = "") -> None:
        size = model.visual.image_size
        super().__init__(model, tokens, size=size[0] if isinstance(size, tuple) else size, key=key)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, S, S), prepared -> unit embeddings (B, D), fp32 or better."""
        return unit(self.model.encode_image(pixels.to(self.model.positional_embedding.dtype)))

    def encode_text(self, prompts: list[str]) -> Tensor:
        """P prompts -> unit embeddings (P, D), fp32 or better.

        `open_clip.CLIP.encode_text` on as many positions as the longest prompt has, not on all 77.
        """
        model = self.model
        ids = self.tokens(prompts).to(model.positional_embedding.device)
        length = ids.shape[1]
        hidden = model.token_embedding(ids) + model.positional_embedding[:length]
        hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
        rows = torch.arange(len(ids), device=ids.device)
        ends = (ids == self.tokens.end).int().argmax(-1)
        return unit(model.ln_final(hidden[rows, ends]) @ model.text_projection)

    def text_parameters(self) -> Iterable[nn.Parameter]:
        """The weights that `encode_text` depends on."""
        yield self.model.text_projection
        yield self.model.positional_embedding
        for part in (self.model.token_embedding, self.model.transformer, self.model.ln_final):
            yield from part.parameters()


def unit(embedding: Tensor) -> Tensor:
    """(B, D) of any precision -> L2-normalised, fp32 or better: half precision would cost three digits."""
    return F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=-1)


def load_tower(
    source: str | None,
    *,
    architecture: str | None = None,
    filename: str | None = None,
    sha256: str | None = None,
    tokenizer: Style = "openai",
    dtype: str = "float32",
    towers: dict[str, Tower] | None = None,
) -> ClipTower:
    """A frozen CLIP from a file, a folder or a Hub id, or the equal one among `towers`, where it is then put.

    transformers checkpoints have their config.json beside them; those of open_clip need `architecture` (such
    as "ViT-L-14-quickgelu"), or open_clip_config.json beside. `dtype` is the precision of the encoders.
    Raises ValueError for weights that are not named, are missing, need code to open, or do not fit.
    """
    if source is None:
        raise ValueError("got no weights; expected a CLIP in a file, a folder or on the Hub; pass weights=")
    path = find(source, filename or FILES, sha256=sha256)
    key = "|".join([str(path.resolve()), architecture or "", tokenizer, dtype])
    if towers is not None and key in towers:
        known = towers[key]
        assert isinstance(known, ClipTower), f"{key} is no CLIP"
        return known
    state = {name: value for name, value in load_state(path).items() if not name.endswith(NOT_WEIGHTS)}
    tower: ClipTower
    if "text_model.embeddings.token_embedding.weight" in state:
        tower = _transformers(path, _config(source, path), state, tokenizer, key)
    elif "visual.positional_embedding" in state or "visual.conv1.weight" in state:
        tower = _open_clip(path, architecture, state, tokenizer, key)
    else:
        raise ValueError(
            f"got {path} with keys such as {', '.join(sorted(state)[:3])}; expected a CLIP of "
            "transformers or open_clip; check the file"
        )
    scale = tower.logit_scale.detach().clone()
    tower.model.to(precision(dtype)).logit_scale = nn.Parameter(scale)  # ln(100) in bfloat16 is ln(99)
    tower.eval().requires_grad_(False)
    if towers is not None:
        towers[key] = tower
    return tower


def _config(source: str, path: Path) -> Path:
    beside = path.parent / "config.json"
    return beside if beside.is_file() or Path(source).exists() else find(source, "config.json")


def _transformers(
    path: Path, config_file: Path, state: dict[str, Tensor], style: Style, key: str
) -> TransformersClip:
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    if not config_file.is_file():
        raise ValueError(
            f"got {path} without config.json beside it; expected both; put it into {path.parent}"
        )
    with reading(config_file.parent, "a CLIP of transformers"):
        config = CLIPConfig.from_dict(mapping(config_file))
        model = on_meta(lambda: CLIPModel(config))
    load_exactly(model, _whole(state), path)
    if config.text_config.vocab_size == CLIP_VOCABULARY:
        tokens = clip_tokens(style, config.text_config.max_position_embeddings)
    else:
        with reading(path.parent, "a CLIP with its tokenizer"):
            tokens = from_transformers(
                AutoTokenizer.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
            )
    return TransformersClip(model, tokens, key)


def _open_clip(
    path: Path, architecture: str | None, state: dict[str, Tensor], style: Style, key: str
) -> OpenClip:
    import open_clip

    beside = path.parent / "open_clip_config.json"
    if architecture is not None:
        config: Mapping[str, Any] | None = open_clip.get_model_config(architecture)
    elif beside.is_file():
        config = mapping(beside).get("model_cfg")
    else:
        config = None
    if config is None:
        raise ValueError(
            f"got architecture {architecture} for {path}; expected a name of open_clip.list_models(), "
            "such as ViT-L-14-quickgelu for OpenAI's weights; pass architecture="
        )
    _refuse_others(config, path)
    with reading(path, "a CLIP of open_clip"):
        model = on_meta(lambda: open_clip.CLIP(**config))
    length = model.context_length
    model.attn_mask = torch.full((length, length), float("-inf")).triu(1)
    load_exactly(model, _whole(state), path)
    return OpenClip(model, clip_tokens(style, length), key)


def _refuse_others(config: Any, path: Path) -> None:
    """Raises ValueError for towers of other libraries, which would look for their own files and code."""
    values = config.values() if isinstance(config, Mapping) else ()
    parts = [part for part in values if isinstance(part, Mapping)]
    odd = [key for part in parts for key, value in part.items() if key.startswith(("hf_", "timm_")) and value]
    if odd or not parts:
        what = f"with {odd[0]}" if odd else "without towers"
        raise ValueError(
            f"got a configuration {what} for {path}; expected a plain CLIP of open_clip; check architecture= "
            "or open_clip_config.json"
        )


def _whole(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert to fp32, whatever the file has: `dtype` decides the precision."""
    return {name: value.float() for name, value in state.items()}
