"""Resolves the name of a model: a folder, one file, the output of a run, or a repository on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rewards import assets
from rewards.renamed import current
from t2ialign.io import plain_yaml
from t2ialign.models.options import AS_IT_IS, NAMES, ModelOptions

WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
READABLE = (".safetensors", ".ckpt")
COMPONENTS = ("unet", "transformer")
"""Names in diffusers of the network that is trained."""
EXPECTED = '"toy", "toy-flow", a diffusers folder, a .safetensors or .ckpt file, or a Hub id org/name'


@dataclass(frozen=True)
class Source:
    """The place of a model's weights."""

    place: str
    """A folder, a file, or a Hub id."""
    network: Path | None = None
    """A folder of weights that a run trained, in place of the model's own network of that name."""
    options: ModelOptions = AS_IT_IS
    """The options with which that run read the model."""

    @property
    def file(self) -> Path | None:
        """The one file of weights, or None for a folder and a Hub id."""
        path = Path(self.place)
        return path if path.suffix in READABLE and path.is_file() else None

    @property
    def folder(self) -> Path | None:
        """The folder of a pipeline, or None for a file and a Hub id."""
        path = Path(self.place)
        return path if path.is_dir() else None


def locate(model: str) -> Source:
    """Find what `model` names; only a Hub id may be elsewhere. Raises ValueError for what is not there."""
    if current(model) in assets.TOYS:
        return Source(str(assets.folder(model)))
    path = Path(model).expanduser()
    if path.is_dir():
        return Source(str(path)) if (path / "model_index.json").is_file() else _run_folder(model, path)
    if path.suffix in WEIGHT_FILES:
        return _weight_file(model, path)
    if path.is_file():
        raise ValueError(f"got model {model!r}, a file of another kind; expected {EXPECTED}")
    if is_path(model):
        raise ValueError(f"got model {model!r}: no such folder or file; expected {EXPECTED}; check the path")
    if model.count("/") != 1:
        raise ValueError(f"got model {model!r}, which is no folder or file here; expected {EXPECTED}")
    return Source(model)


def check_model(model: str, what: str) -> None:
    """Raises ValueError, naming `what`, for a model on this machine that is not there."""
    if current(model) not in assets.TOYS and is_path(model) and not Path(model).expanduser().exists():
        raise ValueError(f"got {what} {model}: no such folder or file; expected {EXPECTED}; check the path")


def is_path(name: str) -> bool:
    """Whether a name means a place on this machine, so that no hub need be asked for it.

    So does one that begins with ".", "/", "~" or a drive letter, has a backslash or more than one slash, ends
    with a slash or like a file of weights, or begins with a folder that is here.
    """
    first, _, rest = name.partition("/")
    return (
        name.startswith((".", "/", "~"))
        or name.endswith("/")
        or "\\" in name
        or re.match(r"[A-Za-z]:", name) is not None
        or "/" in rest
        or name.lower().endswith(WEIGHT_FILES)
        or (bool(rest) and Path(first).is_dir())
    )


def _weight_file(model: str, path: Path) -> Source:
    if not path.is_file():
        raise ValueError(f"got model {model!r}: no such file; expected {EXPECTED}; check the path")
    if path.suffix not in READABLE:
        raise ValueError(
            f"got model {model!r}, a part of a model; expected {EXPECTED}; name the folder that holds "
            "model_index.json"
        )
    return Source(str(path))


def _run_folder(model: str, path: Path) -> Source:
    """The base model of a run that trained all weights, with those. Raises ValueError for another folder."""
    settings = path / "config.yaml"
    trained = [path / name for name in COMPONENTS if (path / name / "config.json").is_file()]
    if (path / "pytorch_lora_weights.safetensors").is_file():
        raise ValueError(
            f"got folder {model!r}, which holds a LoRA; expected a model; name its base model, and "
            f"beside it --lora {model}"
        )
    if not trained or not settings.is_file():
        raise ValueError(
            f"got folder {model!r} without model_index.json; expected a diffusers pipeline folder, or the "
            "output of a finished run with lora_rank=0"
        )
    values = _settings(settings)
    base = values.get("model")
    if not isinstance(base, str) or Path(base).expanduser().resolve() == path.resolve():
        raise ValueError(f"got model={base!r} in {settings}; expected the base model of that run; restore it")
    try:
        options = ModelOptions(**{name: values.get(name) for name in NAMES})
        below = locate(base)
    except ValueError as error:
        raise ValueError(f"{settings}: {error}") from error
    return replace(below, network=trained[0], options=options.over(below.options))


def _settings(file: Path) -> dict[str, Any]:
    try:
        values = plain_yaml.read(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"got {file}, which is not YAML ({error}); expected a run's own") from error
    return values if isinstance(values, dict) else {}
