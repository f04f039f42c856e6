"""What is to be rendered, and how: settings and prompts -> one row of the manifest for each image."""

from __future__ import annotations

import hashlib
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import naming
from t2ialign.io.paths import expand
from t2ialign.models.options import AS_IT_IS, ModelOptions
from t2ialign.tasks.arguments import Model, is_name, name_of

if TYPE_CHECKING:
    from t2ialign.rewriting.job import Job

Row = dict[str, Any]
Scaled = Mapping[str, float] | Mapping[Path, float] | Mapping[str | Path, float]
"""Paths with their scales; the keys of a Mapping are invariant."""
Loras = str | Path | Sequence[str | Path] | Scaled
"""A path, several, each as "PATH" or "PATH:SCALE", or paths with their scales."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How images are rendered. Raises ValueError for a number out of range and for a missing LoRA."""

    model: Model
    num_images_per_prompt: int = 1
    seed: int = 0
    num_inference_steps: int = 20
    guidance_scale: float = 5.0
    eta: float = 0.0
    height: int | None = None
    width: int | None = None
    batch_size: int = 16
    loras: tuple[str, ...] = ()
    precision: str | None = None
    attention: str = "sdpa"
    options: ModelOptions = AS_IT_IS

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _number(name, getattr(self, name), 1, whole=True))
        for name in ("num_images_per_prompt", "seed", "num_inference_steps", "batch_size"):
            low = 0 if name == "seed" else 1
            object.__setattr__(self, name, _number(name, getattr(self, name), low, whole=True))
        for name, low in (("eta", 0), ("guidance_scale", 1)):
            object.__setattr__(self, name, _number(name, getattr(self, name), low, whole=False))
        for text in self.loras:
            if not parse_lora(text)[0].exists():
                raise ValueError(
                    f"got {naming.given('loras', text)}; expected an existing file or folder; check the path"
                )
        if self.loras and self.model is not None and not is_name(self.model):
            raise ValueError(
                f"got loras for {name_of(self.model)}; expected them with a model by name; load the LoRA "
                "into the pipeline and call pipe.fuse_lora(), or name the model"
            )


def _number(name: str, value: Any, low: int, *, whole: bool) -> Any:
    """The number as Python has it, numpy's too. Raises ValueError for one below `low`, and for no number."""
    fits = isinstance(value, numbers.Integral if whole else numbers.Real) and not isinstance(value, bool)
    if not fits or not low <= value < math.inf:
        what = "whole number" if whole and not fits else "number"
        raise ValueError(f"got {naming.given(name, value)}; expected a {what} from {low}; change it")
    return value if isinstance(value, int) else (int if whole else float)(value)


def plan(how: Rendering, prompts: Sequence[str], **kind: Any) -> list[Row]:
    """The manifest rows of the whole run: image i has seed `how.seed + i`, prompts in order, n of each.

    kind: keys that only some runs have, such as rewriter; None leaves one out.
    """
    texts = [prompt for prompt in prompts for _ in range(how.num_images_per_prompt)]
    hashes = " + ".join(_hash(parse_lora(text)[0]) for text in how.loras) or None
    digits = max(5, len(str(len(texts) - 1)))
    return [
        {
            "file": f"{i:0{digits}d}.png",
            "prompt": prompt,
            "seed": how.seed + i,
            "adapter": " + ".join(how.loras) or None,
            "model": name_of(how.model),
            "steps": how.num_inference_steps,
            "guidance": how.guidance_scale,
            "eta": how.eta,
            "height": how.height,
            "width": how.width,
            "precision": how.precision or ("fp32" if is_name(how.model) else None),
            "attention": how.attention,
            "adapter_hash": hashes,
            **how.options.given(),
            **{key: value for key, value in kind.items() if value is not None},
        }
        for i, prompt in enumerate(texts)
    ]


def kind_of(job: Job | None, best_of: int | None = None) -> dict[str, Any]:
    """The keys of a run that rewrites, and of one that keeps the best of several."""
    return {"rewriter": job and job.name, "best_of": best_of}


def lora_texts(loras: Loras) -> tuple[str, ...]:
    """LoRAs in any form -> "PATH" or "PATH:SCALE" each, as manifests name them."""
    if isinstance(loras, str | Path):
        return (expand(str(loras)),)
    if not isinstance(loras, Mapping | Sequence):
        raise ValueError(
            f"got loras of type {type(loras).__name__}; expected a path, several, or a dictionary of paths "
            "and scales; a result of train() has its path in .output, one of mix() in .folder"
        )
    if isinstance(loras, Mapping):
        return tuple(f"{expand(str(path))}:{scale:g}" for path, scale in loras.items())
    return tuple(expand(str(lora)) for lora in loras)


def parse_lora(text: str) -> tuple[Path, float]:
    """ "PATH" or "PATH:SCALE" -> (path, scale). Raises ValueError for a scale that is not a finite number."""
    path, colon, scale = text.rpartition(":")
    drive = re.fullmatch(r"[A-Za-z]:[\\/][^:]*", text)  # of Windows
    if not colon or drive or Path(text).exists():
        return Path(text), 1.0
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(
            f"got LoRA {text!r}; expected PATH or PATH:SCALE; give the scale as a number, such as PATH:0.8"
        )
    return Path(path), value


def _hash(lora: Path) -> str:
    """A hash of the LoRA's weights: a continued training writes other weights to the same path."""
    from t2ialign.models.lora_files import lora_file

    with lora_file(lora).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
