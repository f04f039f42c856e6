"""A latent reward in the layout of its authors' release (Zhang et al., NeurIPS 2025; LRM-1.5 and LRM-XL).

A folder of networks as diffusers and transformers save them, `unet/` with its up blocks, `text_encoder/` and
for SDXL `text_encoder_2/`; and `state_dict.pt`, with the projections and the logarithm of the temperature:
{"visual_projection": {"weight": (dim, features)}, "text_projection": {"weight": (dim, width)}, "logit_scale":
number}, of SDXL without "text_projection". There are no tokenizers in it: they are CLIP's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.latent.lrm import GUIDANCE, LRM
from rewards.latent.unet import UNetBackbone
from rewards.towers.clip_tokenizer import clip_tokenizer
from rewards.weights import align_weights

STATE, UNET, TEXTS = "state_dict.pt", "unet", ("text_encoder", "text_encoder_2")
VISUAL, SCALE = "visual_projection.weight", "logit_scale"
LAYOUT = f"the released layout, {UNET}/, {TEXTS[0]}/ (SDXL: {TEXTS[1]}/ too) and {STATE}"
PREFIX = "text_model."
"""The prefix that some versions of transformers put before the names of a text encoder's tensors."""
POSITIONS = "embeddings.position_ids"
"""The numbers 0, 1, 2, ..., which old versions of transformers save with a text encoder."""


def build(folder: Path, *, guidance_scale: float | None = None, sha256: str | None = None) -> LRM:
    """The latent reward in the folder, in fp32. Every tensor of its files has a place in it.

    Raises ValueError for a folder that lacks a part, or holds several such folders; for a sha256, which is of
    one file; for files that need code to open (nothing of it is run); and for tensors that are missing,
    unknown or of another shape.
    """
    _check_parts(folder)
    if sha256 is not None:
        raise ValueError(
            f"got sha256 for {folder}, a released latent reward of several files; expected none; drop it"
        )
    stored, backbone = _projections(folder / STATE), _backbone(folder)
    visual = stored.get(VISUAL, torch.empty(0, 0))
    dim = visual.shape[0] if visual.ndim == 2 and not backbone.text_is_projected else None
    reward = LRM(backbone, dim=dim, guidance_scale=GUIDANCE if guidance_scale is None else guidance_scale)
    places = {SCALE if name == "log_scale" else name: part for name, part in reward.named_parameters()}
    places = {name: part for name, part in places.items() if not name.startswith("backbone.")}
    _compare(folder / STATE, _shapes(stored), _shapes(places))
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(stored[name])
    return reward.float().eval()


def _check_parts(folder: Path) -> None:
    """Raises ValueError unless the folder has the parts that every released latent reward has."""
    if not (folder / STATE).is_file() and not (folder / UNET).is_dir():
        inner = sorted(file.parent.name for file in folder.glob(f"*/{STATE}"))
        if inner:
            raise ValueError(
                f"got {folder}, which holds latent rewards in {', '.join(inner)}; expected one of them; pass "
                f"path={folder / inner[0]}"
            )
        raise ValueError(
            f"got {folder}, which holds no latent reward; expected the output of t2ialign train lrm, or "
            f"{LAYOUT}; check the path"
        )
    for name in (f"{UNET}/config.json", f"{TEXTS[0]}/config.json", STATE):
        if not (folder / name).is_file():
            raise ValueError(f"got {folder} without {name}; expected {LAYOUT}; download the whole folder")


def _backbone(folder: Path) -> UNetBackbone:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    classes = dict(zip(TEXTS, (CLIPTextModel, CLIPTextModelWithProjection), strict=True))
    there = [name for name in TEXTS if (folder / name).is_dir()]
    networks = [_network(folder / UNET, UNet2DConditionModel)]
    networks += [_network(folder / name, classes[name]) for name in there]
    # Those of the base models: the first encoder is OpenAI's, the second open_clip's, which pads otherwise.
    tokenizers = [clip_tokenizer(open_clip=name == TEXTS[1]) for name in there]
    backbone = UNetBackbone(networks[0], tokenizers, *networks[1:])
    align_weights(backbone)
    return backbone


def _network(folder: Path, kind: Any) -> Any:
    """A network of a class of diffusers or transformers, from safetensors. Raises ValueError like `build`."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"got {folder} without .safetensors; expected {LAYOUT}; download the whole folder")
    _compare(folder, _stored(files), _shapes(_empty(folder, kind).state_dict()))
    return kind.from_pretrained(folder, use_safetensors=True, local_files_only=True)


def _empty(folder: Path, kind: Any) -> Any:
    """The network that a configuration describes, without weights."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):
            if hasattr(kind, "config_class"):
                return kind(kind.config_class.from_dict(config))
            return kind.from_config(config)
    except (OSError, ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120].rstrip(".")
        raise ValueError(
            f"got {folder / 'config.json'}, which makes no {kind.__name__} ({reason}); expected {LAYOUT}; "
            "download the file again"
        ) from error


def _stored(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """The shapes in the headers of safetensors files."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"got {path}, which is no whole safetensors file ({error}); expected one; download it again"
            ) from error
    return shapes


def _projections(file: Path) -> dict[str, Tensor]:
    """The tensors of the file; those of a module have its name before their own."""
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120].rstrip(".")
        raise ValueError(
            f"got {file}, which does not open as plain tensors ({reason}); expected {LAYOUT}; download it "
            "again"
        ) from error
    parts: dict[str, Any] = {}
    for key, value in loaded.items() if isinstance(loaded, Mapping) else ():
        if isinstance(value, Mapping):
            parts |= {f"{key}.{name}": part for name, part in value.items()}
        else:
            parts[str(key)] = value
    if isinstance(parts.get(SCALE), float):  # as the LRM code saves it; the LPO code saves a tensor
        parts[SCALE] = torch.tensor(parts[SCALE])
    if others := sorted(name for name, value in parts.items() if not isinstance(value, Tensor)):
        raise ValueError(f"got {file} with {others[0]}, no tensor; expected {LAYOUT}; download it again")
    return parts


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _compare(place: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises ValueError unless both have the same names and shapes."""
    stored, wanted = _plain(stored), _plain(wanted)
    reshaped = {name for name in stored.keys() & wanted.keys() if stored[name] != wanted[name]}
    faults = [
        _listed("no", wanted.keys() - stored.keys()),
        _listed("an unknown", stored.keys() - wanted.keys()),
        _listed("another shape of", reshaped),
    ]
    if any(faults):
        words = " and ".join(filter(None, faults))
        raise ValueError(f"got {place} with {words}; expected {LAYOUT}; download it again")


def _plain(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes under names that do not depend on the version of transformers that saved them."""
    names = {name: name.removeprefix(PREFIX) for name in shapes}
    return {names[name]: shape for name, shape in shapes.items() if names[name] != POSITIONS}


def _listed(what: str, names: Iterable[str]) -> str:
    first, *others = sorted(names) or [""]
    return f"{what} {first}" + (f" and {len(others)} more" if others else "") if first else ""
