"""ImageReward: BLIP's image encoder, its text encoder looking at the image, and a linear head.

Xu et al. 2023, "ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation". The
checkpoint is `ImageReward.pt` of THUDM/ImageReward (Apache-2.0), the text is BERT's lower-case vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.base import CHUNK, Prepared
from rewards.keys import load_exactly, on_meta, precision, renamed
from rewards.preprocess import CLIP_224, Geometry
from rewards.towers.tokens import Tokens
from rewards.weights import find, load_state

NAMES: dict[str, dict[str, Any]] = {"imagereward": {}}
TABLE = {
    "imagereward": (
        "THUDM/ImageReward; google-bert/bert-base-uncased (vocab.txt) | crop 224 | 35 tokens | "
        "(head - 0.167) / 1.033, mostly -2 to 2 | yes | Apache-2.0"
    ),
}

HUB, FILE = "THUDM/ImageReward", "ImageReward.pt"
VOCABULARY, VOCABULARY_FILE = "google-bert/bert-base-uncased", "vocab.txt"
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""The authors' affine map of the head's output, by which scores are centred on their data."""
LENGTH = 35
"""Tokens of a prompt that are read, [CLS] and [SEP] among them."""

RULES = (
    (r"blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision.encoder.layers.\1.self_attn.qkv."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"blip\.visual_encoder\.blocks\.", "vision.encoder.layers."),
    (r"blip\.text_encoder\.", "text."),
    (r"mlp\.layers\.", "mlp."),
)
UNUSED = (r"blip\.(vision|text)_proj\.", r"blip\.text_encoder\.embeddings\.position_ids$")
"""BLIP's projections for contrastive learning, which the score does not use, and a table of 0, 1, 2, ..."""


class ImageReward(Prepared):
    """(head(CLS) - mean) / std, unbounded: about 98 % of Stable Diffusion 1.4's images are in [-2, 2].

    `vision` and `text` are configurations of transformers' BLIP. The text starts with [CLS], as the authors
    leave it: BLIP's own [ENC] token is in the vocabulary and is not put there.
    """

    def __init__(self, vision: Any, text: Any, tokens: Tokens, geometry: Geometry = CLIP_224) -> None:
        super().__init__()
        from transformers import BlipTextModel, BlipVisionModel

        self.vision: nn.Module = BlipVisionModel(vision)
        self.text: nn.Module = BlipTextModel(text, add_pooling_layer=False)
        self.mlp = _head(text.hidden_size)
        self.tokens, self.geometry = tokens, geometry

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them -> states of its patches (B, N, D), CLS first."""
        pixels = pixels.to(next(self.vision.parameters()).dtype)
        states: Tensor = self.vision(pixel_values=pixels).last_hidden_state
        return states

    def compare(self, states: Tensor, prompts: Sequence[str]) -> Tensor:
        """States of B images (B, N, D), B prompts -> (B,)"""
        ids, read = self._ids(prompts)
        hidden = self.text(
            input_ids=ids.to(states.device),
            attention_mask=read.to(states.device),
            encoder_hidden_states=states,
            is_decoder=False,  # every token of the prompt sees every other
        ).last_hidden_state[:, 0]
        raw: Tensor = self.mlp(hidden.to(self.mlp[0].weight.dtype)).squeeze(-1)
        return (raw - MEAN) / STD

    def score_prepared(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them, B prompts -> (B,)"""
        return self.compare(self.encode_image(pixels), prompts)

    def table_prepared(self, pixels: Tensor, candidates: list[list[str]]) -> Tensor:
        """pixels (B, 3, S, S), B lists of n_i prompts -> (sum n_i,): each image is encoded once."""
        states = self.encode_image(pixels)
        rows = [row for row, prompts in enumerate(candidates) for _ in prompts]
        flat = [prompt for prompts in candidates for prompt in prompts]
        spans = [slice(start, start + CHUNK) for start in range(0, len(flat), CHUNK)]
        return torch.cat([self.compare(states[rows[span]], flat[span]) for span in spans])

    def _ids(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B prompts -> ids (B, L) and which of them are text rather than padding (B, L).

        The authors pad to 35; the padding is masked everywhere, so as little of it as fits gives the same.
        """
        unique = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
        ids = self.tokens(list(unique))[[unique[prompt] for prompt in prompts]]
        length = ids.shape[1] - (ids == self.tokens.end).flip(1).int().argmax(1)
        return ids, (torch.arange(ids.shape[1]) < length[:, None]).long()


def bert_tokens(vocabulary: str | Path, length: int = LENGTH) -> Tokens:
    """The tokens of a BERT vocabulary file, one word piece a line, and BLIP's [DEC] and [ENC] after them."""
    from transformers import BertTokenizer

    words = Path(vocabulary).read_text(encoding="utf-8").split("\n")
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words) if word})
    tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)

    def encode(prompt: str) -> list[int]:
        return list(tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids)

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids))

    return Tokens(encode, decode, start=tokenizer.cls_token_id, end=tokenizer.sep_token_id, length=length)


def configurations() -> tuple[Any, Any]:
    """The released architecture as transformers' BLIP states it: ViT-L/16 at 224 pixels, BERT-base.

    Two of its defaults would be wrong: the image norms have epsilon 1e-6, the text encoder has 12 heads.
    """
    from transformers import BlipTextConfig, BlipVisionConfig

    vision = BlipVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=16,
        layer_norm_eps=1e-6,
    )
    text = BlipTextConfig(
        vocab_size=30524,
        hidden_size=768,
        encoder_hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=512,
        layer_norm_eps=1e-12,
        is_decoder=True,  # this is what gives it cross-attention
    )
    return vision, text


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the authors' names -> under those of `ImageReward`; both are accepted."""
    return renamed(state, RULES, UNUSED)


def build(
    weights: str | None = None,
    *,
    sha256: str | None = None,
    vocabulary: str = VOCABULARY,
    dtype: str = "float32",
) -> ImageReward:
    """The released scorer, frozen; `weights` and `vocabulary` are each a file, a folder or a Hub id.

    `dtype` is the precision of the two encoders; the head stays at float32. Raises ValueError for files that
    are missing, need code to open, or are not of this architecture.
    """
    kind = precision(dtype)
    path = find(weights or HUB, FILE, sha256=sha256)
    tokens = bert_tokens(find(vocabulary, VOCABULARY_FILE))
    vision, text = configurations()
    reward = on_meta(lambda: ImageReward(vision, text, tokens))
    load_exactly(reward, {key: value.float() for key, value in translate(load_state(path)).items()}, path)
    reward.vision.to(kind)
    reward.text.to(kind)
    return reward.eval().requires_grad_(False)


def _head(width: int) -> nn.Sequential:
    """Five linear layers and nothing but dropout between them, at the places the checkpoint counts."""
    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.Dropout(0.2),
        nn.Linear(1024, 128),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.Dropout(0.1),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
