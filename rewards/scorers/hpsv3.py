"""HPSv3: Qwen2-VL reads a rubric, the image and the prompt, and a small head reads one special token.

Ma et al. 2025, "HPSv3: Towards Wide-Spectrum Human Preference Score" (MIT). Two habits of the authors' code
are part of the trained model: positions are counted one by one through the image (not along its rows and
columns, as Qwen2-VL does), and the rotary frequencies are rounded to bfloat16.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.base import Reward
from rewards.foreign import mapping, reading
from rewards.keys import check_fit, load_exactly, precision, renamed
from rewards.preprocess import CLIP_MEAN, CLIP_STD
from rewards.scorers.rubric import RUBRIC, TOKEN, published, read_rubric
from rewards.weights import align_weights, find, load_state

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

NAMES: dict[str, dict[str, Any]] = {"hpsv3": {}}
TABLE = {
    "hpsv3": (
        "MizzenAI/HPSv3; Qwen/Qwen2-VL-7B-Instruct (configuration, tokenizer) | "
        "some 200,704 pixels, sides divisible by 28 | in a rubric | the mean, unbounded | yes | "
        "MIT (code), Apache-2.0 (model card)"
    ),
}

HUB, FILE = "MizzenAI/HPSv3", "HPSv3.safetensors"
BASE, BASE_FILES = "Qwen/Qwen2-VL-7B-Instruct", ("config.json", "tokenizer_config.json", "tokenizer.json")
PIXELS = 256 * 28 * 28
"""The number of pixels to which every image is resized, about: 448 x 448 if it is square."""
MAX_ASPECT = 200
ROWS = 8
"""Prompts that one forward of the language model takes in a table."""

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
"""The beginning of Qwen2-VL's chat, before an image of the user."""


class HPSv3(Reward):
    """The mean of the preference distribution, unbounded; `distribution` gives its spread too.

    `backbone` is a transformers.Qwen2VLModel, `tokenizer` its tokenizer, to which the reward token is added.
    A head trained on one rubric means nothing under another: see `rubric.RUBRIC` and `build`.
    """

    def __init__(self, backbone: Any, tokenizer: Any, *, rubric: str = RUBRIC, pixels: int = PIXELS) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.rubric, self.pixels = backbone, tokenizer, rubric, pixels
        tokenizer.add_tokens([TOKEN], special_tokens=True)
        self.head = nn.Sequential(
            nn.Linear(backbone.config.text_config.hidden_size, 1024),
            nn.ReLU(),
            nn.Dropout(0.05),
            nn.Linear(1024, 16),
            nn.ReLU(),
            nn.Linear(16, 2),
        )

    def distribution(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B, 2): mean and log of the standard deviation."""
        return self._read(self.encode_image(self._resized(images)), prompts)

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,)"""
        return self.distribution(images, prompts)[:, 0]

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,): each image is encoded once."""
        features = self.encode_image(self._resized(images))
        rows = [row for row, prompts in enumerate(candidates) for _ in prompts]
        flat = [prompt for prompts in candidates for prompt in prompts]
        spans = [slice(start, start + ROWS) for start in range(0, len(flat), ROWS)]
        return torch.cat([self._read(features[rows[span]], flat[span])[:, 0] for span in spans])

    def score_pil(self, images: list[Image], prompts: list[str]) -> Tensor:
        """B images of any size and mode, B prompts -> (B,), by the authors' own preprocessing."""
        scores = [
            self._read(self.encode_image(self._resized_image(image)), [prompt])[:, 0]
            for image, prompt in zip(images, prompts, strict=True)
        ]
        return torch.cat(scores)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, h, w), normalised, of sides the patches fit -> features of image tokens (B, N, D)."""
        vision = self.backbone.config.vision_config
        high, wide = (side // vision.patch_size for side in pixels.shape[-2:])
        grid = torch.tensor([[1, high, wide]] * len(pixels), device=pixels.device)
        flat = patches(pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        kind = next(self.backbone.parameters()).dtype
        features: Tensor = self.backbone.visual(flat.to(kind), grid_thw=grid).pooler_output
        return features.reshape(len(pixels), -1, features.shape[-1])

    def _read(self, features: Tensor, prompts: Sequence[str]) -> Tensor:
        """Features of B images (B, N, D), B prompts -> (B, 2).

        Attention is causal: what the authors write after the reward token cannot change it, nor can padding.
        """
        self._check(prompts)
        texts = [self._text(prompt, features.shape[1]) for prompt in prompts]
        ids = self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").input_ids
        ids = ids.to(features.device)
        embedded = self.backbone.get_input_embeddings()(ids)
        here = (ids == self.backbone.config.image_token_id)[..., None]
        embedded = embedded.masked_scatter(here, features.to(embedded.dtype))
        positions = torch.arange(ids.shape[1], device=ids.device).expand(3, len(ids), -1)
        hidden = self.backbone.language_model(
            inputs_embeds=embedded, position_ids=positions, use_cache=False
        ).last_hidden_state
        at = (ids == self.tokenizer.convert_tokens_to_ids(TOKEN)).int().argmax(-1)
        read = hidden[torch.arange(len(ids), device=ids.device), at]
        out: Tensor = self.head(read.to(self.head[0].weight.dtype))
        return out

    def _text(self, prompt: str, count: int) -> str:
        """The conversation up to the reward token, with as many image tokens as the image has."""
        config = self.backbone.config
        names = (config.vision_start_token_id, config.image_token_id, config.vision_end_token_id)
        start, image, end = self.tokenizer.convert_ids_to_tokens(list(names))
        question = self.rubric.partition(TOKEN)[0].replace("{text_prompt}", prompt)
        return f"{SYSTEM}{start}{image * count}{end}{question}{TOKEN}"

    def _check(self, prompts: Sequence[str]) -> None:
        for prompt in prompts:
            special = next((token for token in self.tokenizer.get_added_vocab() if token in prompt), None)
            if special is not None:
                raise ValueError(
                    f"got prompt {prompt!r} with the special token {special}; expected plain text; remove it"
                )

    def _size(self, height: int, width: int) -> tuple[int, int]:
        vision = self.backbone.config.vision_config
        return fitted(height, width, vision.patch_size * vision.spatial_merge_size, self.pixels)

    def _resized(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, h, w), normalised; differentiable, clipped where PIL clips."""
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        height, width = self._size(*images.shape[-2:])
        for size in ((images.shape[-2], width), (height, width)):  # along rows, then columns
            if images.shape[-2:] != size:
                images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        return _normalised(images)

    def _resized_image(self, image: Image) -> Tensor:
        """An image -> (1, 3, h, w), normalised, resized by PIL on whole numbers."""
        import numpy as np
        from PIL.Image import Resampling

        height, width = self._size(image.height, image.width)
        resized = image.convert("RGB").resize((width, height), Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 255
        return _normalised(pixels.to(next(self.parameters()).device))


def fitted(height: int, width: int, factor: int, pixels: int) -> tuple[int, int]:
    """The sides nearest to this aspect that `factor` divides and whose product is about `pixels`.

    Qwen's rule with one number for least and most. Raises ValueError for an aspect above 200.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"got an image of {height} x {width}; expected an aspect of at most {MAX_ASPECT}; crop it"
        )
    high, wide = (max(factor, round(side / factor) * factor) for side in (height, width))
    if high * wide > pixels:
        shrink = math.sqrt(height * width / pixels)
        high, wide = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif high * wide < pixels:
        grow = math.sqrt(pixels / (height * width))
        high, wide = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return high, wide


def patches(pixels: Tensor, side: int, merge: int, frames: int) -> Tensor:
    """pixels (B, 3, h, w) -> (B N, 3 frames side side): the still image as all frames of a short video.

    Patches that are merged to one token lie next to each other.
    """
    batch, channels, height, width = pixels.shape
    tiles = pixels.reshape(
        *(batch, channels, height // side // merge, merge, side, width // side // merge, merge, side)
    ).permute(0, 2, 5, 3, 6, 1, 4, 7)
    tiles = tiles.unsqueeze(6).expand(*tiles.shape[:6], frames, side, side)
    return tiles.flatten(0, 4).flatten(1)


def _normalised(images: Tensor) -> Tensor:
    mean, std = (images.new_tensor(triple).view(3, 1, 1) for triple in (CLIP_MEAN, CLIP_STD))
    return (images - mean) / std


def build(
    weights: str | None = None,
    *,
    sha256: str | None = None,
    rubric: str | None = None,
    base: str = BASE,
    dtype: str = "bfloat16",
) -> HPSv3:
    """The released scorer, frozen, from a file, folder or Hub id; configuration and tokenizer are of `base`.

    `rubric` is a file with the text that the head was trained on, which the weights do not carry: the
    authors' data_collator_qwen.py as it is (it is read, not run), or a text with {text_prompt} and
    <|Reward|>. Raises ValueError without it, and for files that are missing or not of this architecture.
    """
    from transformers import AutoTokenizer

    kind, text = precision(dtype), read_rubric(rubric)
    if not published(text):
        log.warning("the rubric is not the published one: scores are not those of the released HPSv3")
    path = find(weights or HUB, FILE, sha256=sha256)
    config, *files = [find(base, name) for name in BASE_FILES]
    with reading(files[0].parent, f"the configuration and the tokenizer of {BASE}"):
        words = AutoTokenizer.from_pretrained(files[0].parent, local_files_only=True, trust_remote_code=False)
        reward = from_state(load_state(path), mapping(config), words, path, rubric=text)
    reward.backbone.to(torch.bfloat16)  # the authors' way, which rounds the rotary frequencies for good
    reward.backbone.to(kind)
    return reward.eval().requires_grad_(False)


def from_state(
    state: Mapping[str, Tensor], config: dict[str, Any], tokenizer: Any, source: str | Path, **options: Any
) -> HPSv3:
    """The scorer of a state dict under the authors' names and Qwen2-VL's configuration; options of `HPSv3`.

    Raises ValueError, naming `source`, for weights that are missing, left over, or of another shape.
    """
    from transformers import Qwen2VLConfig, Qwen2VLModel

    weights = {key: value for key, value in translate(state).items() if not key.startswith("head.")}
    settings = Qwen2VLConfig.from_dict(config)
    table = weights.get("language_model.embed_tokens.weight")
    if table is not None:  # the authors cut it to the words of the tokenizer and the reward token
        settings.text_config.vocab_size = len(table)
    backbone, info = Qwen2VLModel.from_pretrained(
        None, config=settings, state_dict=weights, dtype=torch.bfloat16, output_loading_info=True
    )
    check_fit(info["missing_keys"], [*info["unexpected_keys"], *map(str, info["mismatched_keys"])], source)
    align_weights(backbone)
    reward = HPSv3(backbone, tokenizer, **options)
    at = tokenizer.convert_tokens_to_ids(TOKEN)
    if at >= settings.text_config.vocab_size:
        raise ValueError(
            f"got a tokenizer in which {TOKEN} is number {at} for {settings.text_config.vocab_size} words in "
            f"{source}; expected the tokenizer of {BASE}; pass it as base="
        )
    head = {
        key.removeprefix("head."): value.float()
        for key, value in translate(state).items()
        if key not in weights
    }
    load_exactly(reward.head, head, source)
    return reward


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the authors' names, of old transformers or new -> Qwen2VLModel's, and "head."."""
    rules = [
        (r"rm_head\.", "head."),
        (r"model\.visual\.", "visual."),
        (r"model\.language_model\.", "language_model."),
        (r"model\.", "language_model."),
    ]
    return renamed(state, rules, drop=[r"lm_head\.weight$"])
