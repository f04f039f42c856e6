"""Latent reward models: a diffusion model's own blocks judge its noisy latents at any timestep, undecoded.

Zhang et al., NeurIPS 2025, arXiv 2502.01051 (LRM): pooled features of a UNet's down and middle blocks, or
of one block of Stable Diffusion 3's transformer, one bias-free projection, a learnable temperature,
S = exp(tau) cos(image, text). Visual Feature Enhancement is classifier-free guidance on the middle features
only; it costs a second pass with the empty prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rewards import assets, tensor_files
from rewards.base import LatentReward
from rewards.checks import check_scores
from rewards.foreign import is_short_of_memory, mapping, reading, refuse_code
from rewards.hub import check_repository
from rewards.latent.mmdit import MMDiTBackbone
from rewards.latent.unet import Text, UNetBackbone
from rewards.permissions import share
from rewards.weights import align_weights

Backbone = UNetBackbone | MMDiTBackbone
"""The layouts there are: one interface, of Stable Diffusion 1, 2 and SDXL, and of Stable Diffusion 3."""

NAMES: dict[str, dict[str, Any]] = {"latent": {}}

WEIGHTS, ABOUT = "latent_reward.safetensors", "latent_reward.json"
FORMAT = 1
LOG_SCALE = 2.6592
"""CLIP's start of the temperature: exp of it is 14.28."""
GUIDANCE = 7.5
STD = 0.02


class LRM(LatentReward):
    """S(prompt, x_t, t) = exp(log_scale) cos(visual, text): what `score` gives; differentiable in x_t.

    dim: of both embeddings; the width of the pooled text if None. guidance: of Visual Feature Enhancement; 1
    is without, and half the cost.
    """

    def __init__(
        self, backbone: Backbone, *, dim: int | None = None, guidance: float = GUIDANCE, seed: int = 0
    ) -> None:
        super().__init__()
        if guidance < 1:
            raise ValueError(f"got guidance {guidance}; expected 1, which is none, or more")
        self.backbone, self.guidance, self.dim = backbone, guidance, dim or backbone.text_width
        self.visual_projection = nn.Linear(backbone.down_width + backbone.mid_width, self.dim, bias=False)
        draw = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.visual_projection.weight, std=STD, generator=draw)
        self.text_projection: nn.Linear | None = None
        if not backbone.text_is_projected:
            self.text_projection = nn.Linear(backbone.text_width, self.dim, bias=False)
            nn.init.eye_(self.text_projection.weight)
        elif self.dim != backbone.text_width:
            raise ValueError(
                f"got dim {dim}; expected {backbone.text_width}, as the text embeddings have; leave it out"
            )
        self.log_scale = nn.Parameter(torch.tensor(LOG_SCALE))

    def encode_prompts(self, prompts: list[str]) -> Text:
        """B prompts -> all that scoring needs of them, batch-first; with the empty prompt's for guidance."""
        text = self.backbone.encode_prompts(prompts)
        embedded = text["pooled"] if self.text_projection is None else self.text_projection(text["pooled"])
        text["embedding"] = normalize(embedded, dim=1)
        if self.guidance != 1:
            empty = self.backbone.encode_prompts([""])
            text |= {
                f"empty_{key}": value.expand(len(prompts), *value.shape[1:]) for key, value in empty.items()
            }
        return text

    def embed(self, latents: Tensor, t: Tensor, text: Text) -> Tensor:
        """latents (B, C, h, w), t (B,) -> unit embeddings (B, dim); one pass of B, or of 2B with guidance."""
        if self.guidance == 1:
            down, middle = self.backbone.features(latents, t, text)
        else:
            both = {
                key: torch.cat([text[f"empty_{key}"], text[key]]) for key in text if f"empty_{key}" in text
            }
            downs, middles = self.backbone.features(latents.repeat(2, 1, 1, 1), t.repeat(2), both)
            down, (empty, full) = downs.chunk(2)[1], middles.chunk(2)
            middle = empty + self.guidance * (full - empty)
        return normalize(self.visual_projection(torch.cat([down, middle], 1)), dim=1)

    def score_encoded(self, latents: Tensor, t: Tensor, text: Text) -> Tensor:
        """latents (B, C, h, w), t (B,), B encoded prompts -> (B,); no text encoder runs.

        K siblings of B latents are one call: repeat the rows of `text`.
        """
        scores = self.log_scale.exp() * (self.embed(latents, t, text) * text["embedding"]).sum(1)
        return check_scores(self, scores, len(latents))

    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """latents (B, C, h, w) at timesteps t (B,) long, B prompts -> (B,)"""
        return self.score_encoded(latents, t, self.encode_prompts(prompts))


def from_pipeline(
    model: str | Path,
    *,
    dim: int | None = None,
    guidance: float = GUIDANCE,
    text_projection: str | Path | None = None,
    seed: int = 0,
) -> LRM:
    """An untrained LRM of a diffusion model: "shapes", a diffusers folder or a Hub id.

    text_projection: a CLIP whose projection the pooled text starts from, as the released LRM-1.5 does with
    openai/clip-vit-large-patch14; the identity if None. Weights are fp32, whatever they are stored as. Raises
    ValueError for a model that is none of Stable Diffusion 1, 2, 3 and SDXL, and for a projection of another
    size, or of text that is projected already.
    """
    source = str(assets.folder("shapes")) if model == "shapes" else str(model)
    try:
        backbone = _read_backbone(source)
    except Exception as error:  # a model's files lead libraries to errors of any kind
        if isinstance(error, MemoryError) or is_short_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"got model {str(model)!r}; expected Stable Diffusion 1, 2 or SDXL for diffusers, or Stable "
            f"Diffusion 3 ({reason})"
        ) from error
    return _untrained(backbone, dim, guidance, text_projection, seed)


def from_networks(
    pipe: Any,
    *,
    dim: int | None = None,
    guidance: float = GUIDANCE,
    text_projection: str | Path | None = None,
    seed: int = 0,
) -> LRM:
    """The same of a loaded pipeline of Stable Diffusion 1, 2 or XL, whose networks it takes over."""
    second = getattr(pipe, "text_encoder_2", None)
    words = [pipe.tokenizer] if second is None else [pipe.tokenizer, pipe.tokenizer_2]
    backbone = UNetBackbone(pipe.unet, words, pipe.text_encoder, second)
    return _untrained(backbone, dim, guidance, text_projection, seed)


def _untrained(
    backbone: Backbone, dim: int | None, guidance: float, text_projection: str | Path | None, seed: int
) -> LRM:
    reward = LRM(backbone, dim=dim, guidance=guidance, seed=seed).float()
    if text_projection is not None:
        _start_projection(reward, text_projection)
    return reward.eval()


def save(reward: LRM, folder: Path | str, about: Mapping[str, Any] | None = None) -> Path:
    """Write weights, configuration and tokenizers, each file whole or not at all -> the file of weights.

    about: anything else worth knowing, as plain JSON. Raises OSError where the disk refuses.
    """
    folder, backbone = Path(folder), reward.backbone
    folder.mkdir(parents=True, exist_ok=True)
    for name, tokenizer in zip(_TOKENIZERS, backbone.tokenizers, strict=False):
        tensor_files.save_pretrained(tokenizer, folder / name)
    rows = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in reward.state_dict().items()}
    children: list[tuple[str, Any]] = list(backbone.named_children())
    (kind, network), *encoders = children
    facts = {
        "format": FORMAT,
        kind: dict(network.config),
        **{name: encoder.config.to_dict() for name, encoder in encoders},
        "dim": reward.dim,
        "guidance": reward.guidance,
        "about": dict(about or {}),
    }
    if isinstance(backbone, MMDiTBackbone):
        facts["layer"] = backbone.layer
    scratch = folder / f".{WEIGHTS}.part"
    tensor_files.write(rows, scratch, {"format": "pt"})
    share(scratch).replace(folder / WEIGHTS)
    scratch = folder / f".{ABOUT}.part"
    scratch.write_text(json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    scratch.replace(folder / ABOUT)
    return folder / WEIGHTS


def build(path: str | Path | None = None, *, guidance: float | None = None, sha256: str | None = None) -> LRM:
    """The latent reward in the folder `path`, as `save` or `t2ialign train lrm` wrote it, or as released.

    guidance: in place of the one it was trained with. sha256: of `save`'s file of weights. Raises ValueError
    for a folder of another kind, and weights that do not fit its configuration.
    """
    from rewards.latent import released as latent_released  # which imports this file
    from rewards.weights import find, load_state, located

    if path is None:
        raise ValueError(
            "got no path for latent; expected the output of t2ialign train lrm, or a released latent reward; "
            "pass path=FOLDER"
        )
    folder = Path(path) if Path(path).is_dir() else Path(located(str(path))[0])
    if folder.is_dir() and not (folder / WEIGHTS).is_file():
        return latent_released.build(folder, guidance=guidance, sha256=sha256)
    folder = find(path, WEIGHTS, sha256=sha256).parent
    facts = read_about(folder)
    with reading(folder, "the output of t2ialign train lrm"):
        reward = LRM(_new_backbone(facts, folder), dim=facts["dim"], guidance=guidance or facts["guidance"])
    try:
        reward.load_state_dict(load_state(folder / WEIGHTS))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[1:2] or [str(error)]
        raise ValueError(
            f"got {folder / WEIGHTS}, which does not fit {ABOUT} ({reason[0].strip()}); expected both of one "
            "run; restore them"
        ) from error
    return reward.eval()


def read_about(folder: Path | str) -> dict[str, Any]:
    """What the configuration says. Raises ValueError for a folder without it, or of another format."""
    file = Path(folder) / ABOUT
    if not file.is_file():
        raise ValueError(f"got {folder} without {ABOUT}; expected the output of t2ialign train lrm")
    facts = mapping(file)
    if facts.get("format") != FORMAT:
        raise ValueError(
            f"got format {facts.get('format')} in {file}; expected {FORMAT}; use the version that wrote it"
        )
    return facts


def _read_backbone(source: str) -> Backbone:
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
    return backbone(network, _read_tokenizers(source, len(encoders)), *encoders)


def _new_backbone(facts: Mapping[str, Any], folder: Path) -> Backbone:
    """Of random weights and the configuration and tokenizers that `save` wrote."""
    backbone, classes = _layout(facts)
    (name, network), *texts = classes.items()
    encoders = [encoder(encoder.config_class(**facts[text])) for text, encoder in texts]
    layer = {"layer": facts["layer"]} if "layer" in facts else {}
    tokenizers = _read_tokenizers(str(folder), len(encoders))
    return backbone(network.from_config(facts[name]), tokenizers, *encoders, **layer)


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


def _read_tokenizers(source: str, count: int) -> list[Any]:
    from transformers import CLIPTokenizerFast, T5TokenizerFast

    kinds = (CLIPTokenizerFast, CLIPTokenizerFast, T5TokenizerFast)
    return [
        kind.from_pretrained(source, subfolder=name)
        for name, kind in zip(_TOKENIZERS[:count], kinds, strict=False)
    ]


def _start_projection(reward: LRM, source: str | Path) -> None:
    from transformers import CLIPTextModelWithProjection

    if reward.text_projection is None:
        raise ValueError(
            "got text_projection for a model whose text embeddings are projected, as SDXL's and Stable "
            "Diffusion 3's are; expected none; drop it"
        )
    theirs = CLIPTextModelWithProjection.from_pretrained(source, use_safetensors=True).text_projection.weight
    ours = reward.text_projection.weight
    if theirs.shape != ours.shape:
        raise ValueError(
            f"got text_projection {source} of {tuple(theirs.shape)}; expected {tuple(ours.shape)}, dim x "
            "width of the pooled text; choose the CLIP the text encoder came from"
        )
    with torch.no_grad():
        ours.copy_(theirs)


_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
