"""LoRA files: every spelling is read into the same layers, and written as diffusers' and as kohya's.

A reader of the files written here needs no alpha: alpha / rank is in the weights, and alpha = rank
wherever it is stated.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rewards import tensor_files
from rewards.permissions import share
from t2ialign.models import lora_family
from t2ialign.models.factors import Factors, Layers, filled
from t2ialign.models.lora_names import COMPONENTS, SDXL_LAYOUT, key_of, spelling, to_kohya

FILE, PEFT_FILE, PEFT_SETTINGS = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
)
METADATA = "lora_adapter_metadata"
"""The key of alpha in a file of diffusers; without it a reader assumes alpha = rank."""
FORMATS = "diffusers, old diffusers, PEFT, kohya and ComfyUI"
"""The formats that are read, in words."""

_FACTOR = re.compile(
    r"(?P<layer>.+?)(?:\.lora_(?P<peft>[AB])(?:\.default)?(?:\.weight)?"
    r"|\.lora_(?P<kohya>down|up)\.weight"
    r"|(?:_lora|\.lora|\.lora_linear_layer)\.(?P<old>down|up)\.weight)"
)
_OTHER_METHODS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "a LoCon with three factors",
    "oft_": "OFT",
    ".bias": "a LoRA with biases",
}


class Lora(NamedTuple):
    """A LoRA as it was read."""

    file: Path
    format: str
    """One of `FORMATS`."""
    layers: Layers
    header: dict[str, str]
    """The header of the file."""


def read_lora(path: Path | str, *, layout: Any = SDXL_LAYOUT) -> Lora:
    """A saved LoRA (a file, or a folder with one) of a U-Net and its text encoders, in any known format.

    layout: the config of the U-Net it is for, which SGM's names depend on. Raises ValueError for a missing
    file, one that is not safetensors, another kind of adapter, and keys that no known format has.
    """
    file = lora_file(path)
    tensors, header = _open(file)
    count = getattr(layout, "layers_per_block", 2)  # of ResNets; SGM's names have one number for all blocks
    names, alphas = _sorted(file, tensors, count if isinstance(count, int) else 2)
    settings = _settings(file, header)
    if not names:
        raise ValueError(f"got LoRA {str(file)!r} without factors; expected two of each layer; restore it")
    layers = {}
    for key, pair in names.items():
        down, up = pair.get("down"), pair.get("up")
        if down is None or up is None or down.ndim != up.ndim or down.shape[:1] != up.shape[1:2]:
            raise ValueError(
                f"got LoRA {str(file)!r} with half of {key}; expected two factors of one rank; restore it"
            )
        component, _, path_ = key.partition(".")
        scale = _scale(alphas.get(key), settings.get(component, {}), path_, len(down))
        layers[key] = Factors(down.float(), scale * up.float())
    return Lora(file, spelling(next(iter(tensors))), layers, header)


def lora_file(path: Path | str) -> Path:
    """The file of a LoRA. Raises ValueError if it is missing."""
    path = Path(path).expanduser()
    inside = (path / name for name in (FILE, PEFT_FILE))
    file = next((f for f in inside if f.is_file()), path / FILE) if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"got LoRA {str(path)!r}; expected a .safetensors file, or a folder with {FILE}")
    return file


def write_diffusers(
    layers: Mapping[str, Factors],
    file: Path,
    header: Mapping[str, str],
    *,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write the file that `pipe.load_lora_weights` loads, whole or not at all -> its path.

    Zeros fill every layer up to the largest rank: one rank and alpha = rank are then true of all layers, for
    readers of the header and for those that ignore it. Raises OSError if it cannot be written.
    """
    rank, state, settings = max(f.rank for f in layers.values()), dict[str, Tensor](), dict[str, Any]()
    for key, factors in layers.items():
        down, up = filled(factors, rank)
        state[f"{key}.lora_A.weight"], state[f"{key}.lora_B.weight"] = down, up
    for component in COMPONENTS:
        paths = [key.removeprefix(f"{component}.") for key in layers if key.startswith(f"{component}.")]
        if paths:
            # Newer CLIPs have no text_model: a name without it is the end of both.
            targets = [path.removeprefix("text_model.") for path in paths]
            about = {"r": rank, "lora_alpha": rank, "target_modules": targets}
            settings |= {f"{component}.{name}": value for name, value in about.items()}
    return _write(state, file, {**header, METADATA: json.dumps(settings, indent=2, sort_keys=True)}, dtype)


def write_kohya(
    layers: Mapping[str, Factors],
    file: Path,
    header: Mapping[str, str],
    *,
    architecture: str,
    layout: Any = SDXL_LAYOUT,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write the file that ComfyUI, A1111, Forge and sd-scripts load, whole or not at all -> its path.

    layout: the U-Net's config, for SDXL's names. Ranks are filled up as in `write_diffusers`. Raises OSError
    if it cannot be written.
    """
    rank, state = max(f.rank for f in layers.values()), dict[str, Tensor]()
    for key, factors in layers.items():
        name = to_kohya(key, sdxl=architecture == lora_family.SDXL, layout=layout)
        down, up = filled(factors, rank)
        state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"] = down, up
        state[f"{name}.alpha"] = torch.tensor(float(rank))
    about = lora_family.kohya_header(architecture, rank, header.get(lora_family.PREDICTION))
    return _write(state, file, {**header, **about}, dtype)


def _open(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(str(file), framework="pt") as stream:
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (no iterator)
            header = dict(stream.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"got LoRA {str(file)!r}; expected a safetensors file ({error})") from error
    if not tensors:
        raise ValueError(f"got LoRA {str(file)!r}, which is empty; expected one in a format of {FORMATS}")
    return tensors, header


def _sorted(
    file: Path, tensors: Mapping[str, Tensor], layers_per_block: int
) -> tuple[dict[str, dict[str, Tensor]], dict[str, float]]:
    """Key -> its factors down and up, and key -> its alpha, where the file has one for it."""
    factors: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    for name, tensor in tensors.items():
        match = _FACTOR.fullmatch(name)
        key = key_of(match["layer"] if match else name.removesuffix(".alpha"), layers_per_block)
        method = next((words for part, words in _OTHER_METHODS.items() if part in name), None)
        if method:
            raise ValueError(
                f"got LoRA {str(file)!r} with {name!r}, which is {method}; expected a plain LoRA of two "
                "factors a layer; merge it into its model with the tool that made it"
            )
        if key is None or not (match or name.endswith(".alpha")):
            raise ValueError(
                f"got LoRA {str(file)!r} with the unknown key {name!r}; expected a LoRA of an image model "
                f"in a format of {FORMATS}"
            )
        if match:
            side = {"A": "down", "B": "up"}.get(match["peft"], match["kohya"] or match["old"])
            if side in factors.setdefault(key, {}):
                raise ValueError(
                    f"got LoRA {str(file)!r} with two factors {side} of {key}, one as {name!r}; expected "
                    "one spelling of a layer; drop one"
                )
            factors[key][side] = tensor
        else:
            alphas[key] = float(tensor)
    return factors, alphas


def _settings(file: Path, header: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Component -> the settings of peft for it: from the header, or from the file that peft puts beside."""
    beside = file.parent / PEFT_SETTINGS
    try:
        if METADATA in header:
            flat = json.loads(header[METADATA])
            parts = [(key.partition("."), value) for key, value in flat.items()]
            return {
                component: {name: value for (part, _, name), value in parts if part == component}
                for component in COMPONENTS
            }
        if file.name == PEFT_FILE and beside.is_file():
            return dict.fromkeys(COMPONENTS, json.loads(beside.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(
            f"got LoRA {str(file)!r} with settings that are no JSON ({error}); expected those of peft; "
            "restore it"
        ) from error
    return {}


def _scale(alpha: float | None, settings: Mapping[str, Any], path: str, rank: int) -> float:
    """alpha / rank: of the tensor, else of the settings as peft reads them, else 1.

    Of alpha_pattern the first that fits the end of the name counts; an alpha of 0 is none (sd-scripts).
    """
    if alpha is not None:
        return (alpha or rank) / rank
    patterns = settings.get("alpha_pattern") or {}
    try:
        fitting = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", path))
        alpha = float(next(fitting, settings.get("lora_alpha")) or rank)
    except (re.error, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"got a LoRA with settings that peft could not read ({error}); restore it"
        ) from error
    return alpha / (rank**0.5 if settings.get("use_rslora") else rank)


def _write(state: dict[str, Tensor], file: Path, header: dict[str, str], dtype: torch.dtype) -> Path:
    partial = file.with_name(partial_name(file.name))
    weights = {
        name: tensor.detach().to("cpu", torch.float32 if tensor.ndim == 0 else dtype)
        for name, tensor in state.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        tensor_files.write(weights, partial, {"format": "pt", **header})
        os.replace(share(partial), file)
    except SafetensorError as error:
        raise OSError(f"cannot write {file} ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
    return file


def partial_name(name: str) -> str:
    """The file that a killed writer leaves behind; the next one replaces it."""
    return f".{name}.partial"
