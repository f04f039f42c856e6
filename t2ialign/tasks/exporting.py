"""A LoRA as another program reads it, or folded into its base model."""

from __future__ import annotations

import copy
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import locks, naming
from t2ialign.models.options import ModelOptions
from t2ialign.tasks.arguments import Model, is_name, policy_of
from t2ialign.tasks.plan import parse_lora

if TYPE_CHECKING:
    from torch import Tensor

    from t2ialign.models.base import Policy
    from t2ialign.models.factors import Layers

    Read = tuple[dict[str, str], Layers, str | None, Any]

FORMATS = ("kohya", "diffusers", "merged")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Export:
    """The LoRA, its output and its format."""

    lora: str
    """PATH or PATH:SCALE."""
    output: Path
    format: str
    model: Model
    """The base model by name or loaded, or None where the file alone tells enough."""
    options: ModelOptions
    precision: str

    @property
    def path(self) -> Path:
        """The folder or file of the LoRA."""
        return parse_lora(self.lora)[0]

    @property
    def scale(self) -> float:
        """The factor of its weights."""
        return parse_lora(self.lora)[1]


def run(how: Export) -> Path:
    """Write the LoRA -> the file or folder.

    Raises ValueError for bad settings and LoRAs, and for an output in use.
    """
    from t2ialign.models.load import PRECISIONS
    from t2ialign.models.lora_files import lora_file

    for name, known in (("format", FORMATS), ("precision", tuple(PRECISIONS))):
        if (value := getattr(how, name)) not in known:
            raise ValueError(
                f"got {naming.given(name, value)}; expected one of {', '.join(known)}; choose one"
            )
    lora_file(how.path)
    with locks.hold_file(how.output, naming.prefix("output")):
        _check_free(how.output)
        return _merge(how) if how.format == "merged" else _convert(how)


def _convert(how: Export) -> Path:
    from t2ialign.models import lora_family
    from t2ialign.models.load import PRECISIONS
    from t2ialign.models.lora_files import FILE, write_diffusers, write_kohya

    header, layers, architecture, layout = _alone(how.path) if how.model is None else _of_model(how)
    layers = {key: factors.times(how.scale) for key, factors in layers.items()}
    name = FILE if how.format == "diffusers" else f"{how.path.resolve().stem}_kohya.safetensors"
    file = how.output if _is_file(how.output) else how.output / name
    header = {**lora_family.carried(header), "modelspec.title": file.stem}
    dtype = PRECISIONS[how.precision]
    if how.format == "diffusers":
        return write_diffusers(layers, file, header, dtype=dtype)
    if architecture is None:
        raise ValueError(
            f"got LoRA {str(how.path)!r}, whose layers do not tell which model it is for; expected one of "
            f"Stable Diffusion 1, 2 or XL; name its base model with {naming.name('model')}"
        )
    return write_kohya(layers, file, header, architecture=architecture, layout=layout, dtype=dtype)


def _alone(path: Path) -> Read:
    """The LoRA as its file has it, and what that tells of its base model."""
    from t2ialign.models import lora_family
    from t2ialign.models.lora_files import read_lora
    from t2ialign.models.lora_names import SDXL_LAYOUT

    lora = read_lora(path)
    log.info("LoRA %s (%s): %d layers read", lora.file, lora.format, len(lora.layers))
    shapes = {key: factors.shape for key, factors in lora.layers.items()}
    architecture = lora_family.of_lora(lora.header, shapes)
    header = lora_family.header(architecture, title="") if architecture else {}
    return {**header, **lora.header}, lora.layers, architecture, SDXL_LAYOUT


def _of_model(how: Export) -> Read:
    """The layers of the LoRA that its base model has, and what that model is."""
    from t2ialign.models import lora_family
    from t2ialign.models.lora_apply import read_for
    from t2ialign.models.lora_saved import header_of

    policy = _base(how)
    layers = read_for(policy, how.path)
    return header_of(policy, ""), layers, lora_family.of_policy(policy), policy.adapted.config


def _base(how: Export) -> Policy:
    """The base model: loaded onto the CPU in fp32 where it is named, else as it is."""
    from t2ialign.models.load import load_policy

    if is_name(how.model):
        return load_policy(str(how.model), device="cpu", options=how.options)
    return policy_of(how.model, options=how.options)


def _to_change(how: Export) -> Policy:
    """The base model in fp32 to fold something into; a loaded one is copied, and stays as it is.

    Raises ValueError for a loaded one with adapters, which would be written as layers of their own.
    """
    import torch

    from t2ialign.models.lora import adapters

    policy = _base(how)
    if is_name(how.model):
        return policy
    if adapters(policy):
        raise ValueError(
            f"got a model with the adapters {', '.join(adapters(policy))} in it; expected the base model "
            "alone; call unload_lora_weights() of its pipeline, or name the model"
        )
    policy = copy.deepcopy(policy)
    policy.convert_weights(torch.float32)
    return policy


def _merge(how: Export) -> Path:
    """Fold the LoRA into the model in fp32, then write all of it in the precision that was asked for."""
    from rewards import tensor_files
    from rewards.permissions import share
    from t2ialign.models.load import PRECISIONS
    from t2ialign.models.lora_apply import fold_lora
    from t2ialign.models.lora_saved import header_of

    if how.model is None:
        raise ValueError(
            f"got {naming.given('format', 'merged')} without {naming.name('model')}; expected the base model "
            "to fold it into; name it"
        )
    output = how.output
    policy = _to_change(how)
    fold_lora(policy, how.path, weight=how.scale)
    if how.precision != "fp32":
        policy.convert_weights(PRECISIONS[how.precision])
    partial = output.with_name(f".{output.name}.partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    if _is_file(output):
        header = header_of(policy, output.stem, adapter="")
        tensor_files.write(_one_file(policy), partial, {"format": "pt", **header})
    else:
        shutil.rmtree(partial, ignore_errors=True)
        policy.save_pipeline(partial)
        if output.is_dir():
            output.rmdir()  # it is empty
    share(partial).rename(output)
    return output


def _one_file(policy: Policy) -> dict[str, Tensor]:
    """The released layout, with the keys by which v-prediction files of SD 1 and SDXL are known."""
    from types import SimpleNamespace

    import torch

    from t2ialign.models import lora_family
    from t2ialign.models.single.layout import to_original

    if lora_family.of_policy(policy) is None:
        raise ValueError(
            f"got a {policy.pipeline_class} for one file; expected Stable Diffusion 1, 2 or XL, for which "
            f"there is such a layout; name a folder with {naming.name('output')}"
        )
    weights = to_original(SimpleNamespace(**policy.components))
    if policy.kind == "v" and policy.family != "sd2":
        weights["v_pred"] = torch.zeros(0)
        if policy.schedule.get("rescale_betas_zero_snr"):
            weights["ztsnr"] = torch.zeros(0)
    return weights


def _is_file(output: Path) -> bool:
    return output.suffix == ".safetensors"


def _check_free(output: Path) -> None:
    """Raises ValueError for an output that is there, unless it is an empty folder."""
    if output.is_dir() and not _is_file(output):
        locks.check_free(output, naming.prefix("output"))
    elif output.exists():
        raise ValueError(
            f"got {naming.given('output', output)}, which is there; expected a new file; choose another"
        )
