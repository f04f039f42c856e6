"""Facts about a single file of weights, told from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from t2ialign.models.single.layout import CLIP_1, CLIP_2, CLIP_XL, OPEN_CLIP_XL, UNET, VAE

FAMILIES = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL"}
Shapes = Mapping[str, tuple[int, ...]]

_CONV_IN = UNET + "input_blocks.0.0.weight"
_LORA = re.compile(r"^lora_(unet|te\d?)_|\.lora_(A|B|up|down)\b|[._]lora\.(up|down)\.|\.(hada|lokr)_w")
_OTHERS = {
    "joint_blocks.0.": "Stable Diffusion 3",
    "double_blocks.0.": "FLUX",
    "control_model.": "ControlNet",
    "conditioner.embedders.0.model.": "the refiner of Stable Diffusion XL",
    "edm_mean": "Playground 2.5, which is trained on another noise schedule",
    "edm_vpred.sigma_max": "a model of another noise schedule (EDM)",
}
_INPUTS = {5: "a depth model", 7: "an upscaler", 8: "InstructPix2Pix", 9: "an inpainting model"}


@dataclass(frozen=True)
class FileFacts:
    """A file that can be loaded: its family, the shapes of its tensors, and what it says it predicts."""

    path: Path
    family: str
    """One of FAMILIES."""
    shapes: Shapes
    prediction_type: str | None
    """The prediction type, None where the file does not tell it."""
    zero_snr: bool
    """Whether it says that its last training step is pure noise."""


def read_facts(path: Path) -> FileFacts:
    """Look into a .safetensors or .ckpt file without loading weights.

    Raises ValueError, naming what it holds, for one that is none of FAMILIES; and for one that is cut off or
    needs code to open, of which nothing is run.
    """
    shapes, header = _safetensors(path) if path.suffix == ".safetensors" else (_ckpt(path), {})
    family = _family(shapes, path)
    return FileFacts(path, family, shapes, _prediction_type(shapes, header, path), "ztsnr" in shapes)


def _safetensors(path: Path) -> tuple[Shapes, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"got {path}, which is no whole safetensors file ({error}); expected one; download it again"
        ) from error


def _ckpt(path: Path) -> Shapes:
    try:
        loaded: Any = torch.load(path, map_location="meta", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120].rstrip(".")
        raise ValueError(
            f"got {path}, which does not open as plain tensors ({reason}); expected a checkpoint that opens "
            "without code; take its .safetensors edition, or convert it where you trust it (docs/models.md)"
        ) from error
    while isinstance(loaded, Mapping) and "state_dict" in loaded:
        loaded = loaded["state_dict"]
    tensors = loaded.items() if isinstance(loaded, Mapping) else ()
    return {str(name): tuple(value.shape) for name, value in tensors if isinstance(value, torch.Tensor)}


def _family(shapes: Shapes, path: Path) -> str:
    """One of FAMILIES. Raises ValueError, naming what else the file holds."""
    if (kind := _other_kind(shapes)) is not None:
        raise ValueError(f"got {path}, {kind}; expected a whole model of {', '.join(FAMILIES.values())}")

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in shapes)

    families = {"sdxl": has(CLIP_XL + "text_model.") and has(OPEN_CLIP_XL), "sd2": has(CLIP_2)}
    families["sd1"] = has(CLIP_1 + "text_model.")
    family = next((name for name, there in families.items() if there), None)
    if family is None or not has(VAE):
        lacking = " and ".join(["a text encoder"] * (family is None) + ["a VAE"] * (not has(VAE)))
        raise ValueError(
            f"got {path}, a U-Net without {lacking} under the released names; expected a whole model; save "
            "them together, or name a diffusers folder"
        )
    if (UNET + "label_emb.0.0.weight" in shapes) != (family == "sdxl"):
        raise ValueError(
            f"got {path}, {FAMILIES[family]} with another conditioning (unCLIP); expected a plain model"
        )
    return family


def _other_kind(shapes: Shapes) -> str | None:
    """A description of a file that is no whole Stable Diffusion 1, 2 or XL; None if it seems to be one."""
    if any(_LORA.search(name) for name in shapes):
        return "a LoRA (name its base model as the model, and this file beside it with --lora)"
    for mark, kind in _OTHERS.items():
        if any(name.removeprefix(UNET).startswith(mark) for name in shapes):
            return kind
    if _CONV_IN in shapes:
        return _INPUTS.get(shapes[_CONV_IN][1])
    if any(name in shapes for name in ("conv_in.weight", "input_blocks.0.0.weight")):
        return "a U-Net alone"
    if any(name.endswith("decoder.conv_in.weight") for name in shapes):
        return "a VAE alone"
    return f"weights of no known layout (the first is {next(iter(shapes), 'missing')!r})"


def _prediction_type(shapes: Shapes, header: Mapping[str, str], path: Path) -> str | None:
    """The prediction type by the key that v-prediction checkpoints carry, else by the modelspec header."""
    if "v_pred" in shapes:
        return "v_prediction"
    spec = header.get("modelspec.prediction_type")
    known = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
    if spec is not None and spec.lower() not in known:
        raise ValueError(
            f"got {path} with modelspec.prediction_type={spec!r}; expected one of {', '.join(known)}"
        )
    return None if spec is None else known[spec.lower()]
