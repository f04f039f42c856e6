"""MPS, the Multi-dimensional Preference Score: CLIP-H, and cross-attention from the image to the prompt.

Zhang et al. 2024, "Learning Multi-Dimensional Human Preference for Text-to-Image Generation" (MIT). The
condition is a list of words that says by what to judge; of a prompt only the tokens near it are looked at.
The authors publish a pickled object: `scripts/convert_weights.py` takes its tensors out, running nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.base import CHUNK, Prepared
from rewards.keys import load_exactly, on_meta, precision, renamed
from rewards.preprocess import CLIP_224_FLOOR, Geometry
from rewards.towers.clip_towers import unit
from rewards.towers.cross_attention import CrossAttention, angles
from rewards.towers.tokens import Tokens, clip_tokens
from rewards.weights import find, load_state

NAMES: dict[str, dict[str, Any]] = {"mps": {}}
TABLE = {
    "mps": (
        "Kwai-Kolors/MPS, converted | crop 224 as PickScore | 77 tokens, and a list of criteria | "
        "exp(scale) cosine | yes | MIT"
    ),
}

HUB, FILES = "Kwai-Kolors/MPS", ("MPS_overall_checkpoint.safetensors", "MPS_overall_checkpoint.pth")
CONDITION = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, "
    "instance, texture, quantity, attributes, position, number, location, word, things."
)
"""The 22 words of overall preference, which the released checkpoint was trained on."""
LAYERS, HEADS = 4, 16
"""The layers and heads of the cross-attention."""
THRESHOLD = 0.3
"""Share of a prompt's best likeness to the condition up to which a token is ignored; 0.01 in training."""


class Text(NamedTuple):
    """Encoded P prompts: all tokens (P, L, D), the end token's (P, D), which are visible (P, L)."""

    tokens: Tensor
    ends: Tensor
    visible: Tensor

    def take(self, rows: list[int]) -> Text:
        """The prompts at `rows`, in that order."""
        return Text(self.tokens[rows], self.ends[rows], self.visible[rows])


class Mps(Prepared):
    """exp(logit_scale) * cosine of the prompt and the image as seen through it, in +-exp(logit_scale).

    `clip` is a transformers.CLIPModel. Likeness is compared with the best of the same prompt, as in the
    authors' evaluation of one image at a time; their batched forward would take the best of the whole batch.
    """

    def __init__(
        self,
        clip: Any,
        cross: CrossAttention,
        tokens: Tokens,
        geometry: Geometry = CLIP_224_FLOOR,
        *,
        condition: str = CONDITION,
        threshold: float = THRESHOLD,
    ) -> None:
        super().__init__()
        self.clip, self.cross, self.tokens, self.geometry = clip, cross, tokens, geometry
        self.condition, self.threshold = condition, threshold

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them -> projected tokens (B, N, D), CLS first.

        They are taken before CLIP's last norm.
        """
        pixels = pixels.to(self.clip.visual_projection.weight.dtype)
        tokens: Tensor = self.clip.visual_projection(
            self.clip.vision_model(pixel_values=pixels).last_hidden_state
        )
        return tokens

    def encode_text(self, prompts: Sequence[str]) -> Text:
        """P prompts -> their projected tokens, padding among them, and which are kept under the condition."""
        texts = [self.condition, *prompts]
        ids = self._padded(texts).to(self.clip.text_projection.weight.device)
        tokens = self.clip.text_projection(self.clip.text_model(input_ids=ids).last_hidden_state)
        condition, tokens = tokens[0], tokens[1:]
        ends = (ids[1:] == self.tokens.end).int().argmax(-1)
        rows = torch.arange(len(prompts), device=ids.device)
        return Text(tokens, tokens[rows, ends], kept_tokens(tokens, condition, self.threshold))

    def compare(self, image: Tensor, text: Text) -> Tensor:
        """Tokens of B images (B, N, D), B prompts -> (B,)"""
        seen = self.cross(image, text.tokens, text.visible)[:, 0]
        cosine = (unit(seen) * unit(text.ends)).sum(-1)
        scale: Tensor = self.clip.logit_scale.to(cosine.dtype).exp()
        return scale * cosine

    def score_prepared(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them, B prompts -> (B,)"""
        return self._scores(self.encode_image(pixels), list(range(len(prompts))), prompts)

    def table_prepared(self, pixels: Tensor, candidates: list[list[str]]) -> Tensor:
        """pixels (B, 3, S, S), B lists of n_i prompts -> (sum n_i,): each of both is encoded once."""
        rows = [row for row, prompts in enumerate(candidates) for _ in prompts]
        flat = [prompt for prompts in candidates for prompt in prompts]
        return self._scores(self.encode_image(pixels), rows, flat)

    def _scores(self, image: Tensor, rows: list[int], prompts: list[str]) -> Tensor:
        """Tokens of images, for each of P prompts the image it is about -> (P,)"""
        unique = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
        text, which = self.encode_text(list(unique)), [unique[prompt] for prompt in prompts]
        spans = [slice(start, start + CHUNK) for start in range(0, len(rows), CHUNK)]
        return torch.cat([self.compare(image[rows[span]], text.take(which[span])) for span in spans])

    def _padded(self, prompts: Sequence[str]) -> Tensor:
        """P prompts -> ids (P, L): what follows the end token is end tokens, and they are looked at too."""
        ids = self.tokens(prompts)
        ids = F.pad(ids, (0, self.tokens.length - ids.shape[1]))
        after = (ids == self.tokens.end).int().cumsum(-1) > 0
        return ids.masked_fill(after, self.tokens.end)


def kept_tokens(tokens: Tensor, condition: Tensor, threshold: float) -> Tensor:
    """Prompts (P, L, D), the condition (M, D) -> which tokens are near enough to it (P, L), bool.

    The likeness of a token is its largest product with the condition, relative to that of the prompt's best.
    """
    kind = torch.promote_types(tokens.dtype, torch.float32)
    likeness = (tokens.to(kind) @ condition.to(kind).T).amax(-1)
    return likeness / likeness.amax(-1, keepdim=True) > threshold


def configuration() -> Any:
    """CLIP-H as transformers states it: 32 layers on 257 image tokens, 24 on 77 text tokens, 1024 shared."""
    from transformers import CLIPConfig

    text = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    }
    vision = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "hidden_act": "gelu",
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024)


def make(config: Any, tokens: Tokens, *, layers: int = LAYERS, heads: int = HEADS, **options: Any) -> Mps:
    """The architecture with random weights: a CLIPConfig, cross-attention heads of 64, options of `Mps`."""
    from transformers import CLIPModel

    patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    cross = CrossAttention(config.projection_dim, layers=layers, heads=heads, length=patches + 1)
    return Mps(CLIPModel(config), cross, tokens, **options)


def translate(state: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """A state dict under the authors' names -> under those of `Mps`, for images of `length` tokens.

    Rotary angles come from the table that a converted module carries, else from its frequencies.
    """
    result = renamed(
        state,
        [
            (r"cross_model\.layers\.(\d+)\.([01])\.fn\.fused_attn_ff_proj\.", r"cross.layers.\1.\2.fused."),
            (
                r"cross_model\.layers\.(\d+)\.([01])\.fn\.rotary_emb\.inv_freq$",
                r"cross.layers.\1.\2.inv_freq",
            ),
            (r"cross_model\.layers\.(\d+)\.([01])\.fn\.", r"cross.layers.\1.\2."),
            (r"model\.", "clip."),
        ],
        drop=[r".*\.position_ids$"],
    )
    for key in [key for key in result if key.endswith(".inv_freq")]:
        home = key.removesuffix("inv_freq")
        frequencies, table = result.pop(key), result.pop(home + "pos_emb", None)
        whole = table is not None and len(table) >= length
        result[home + "angles"] = (
            table[:length] if table is not None and whole else angles(frequencies, length)
        )
    return result


def build(
    weights: str | None = None,
    *,
    sha256: str | None = None,
    condition: str = CONDITION,
    threshold: float = THRESHOLD,
    dtype: str = "float32",
) -> Mps:
    """The released scorer, frozen, from the converted checkpoint: a file, or a folder that holds it.

    `dtype` is the precision of everything but the rotary angles; the authors evaluate in float16. Raises
    ValueError for a checkpoint that is missing, not converted, or not of this architecture.
    """
    kind = precision(dtype)
    path = find(weights or HUB, FILES, sha256=sha256)
    config, tokens = configuration(), clip_tokens("transformers")
    options: dict[str, Any] = {"condition": condition, "threshold": threshold}
    reward = on_meta(lambda: make(config, tokens, layers=LAYERS, heads=HEADS, **options))
    state = translate(load_state(path), reward.cross.length)
    state = {key: value.float() for key, value in state.items()}
    load_exactly(reward, state, path)
    for part in (reward.clip.text_model, reward.clip.vision_model, reward.cross):
        part.to(kind)
    for part in (reward.clip.text_projection, reward.clip.visual_projection):
        part.to(kind)
    for key, table in state.items():
        if key.endswith(".angles"):  # these stay as they were read: bfloat16 would blur positions
            reward.get_submodule(key.removesuffix(".angles")).angles = table.clone()
    return reward.eval().requires_grad_(False)
