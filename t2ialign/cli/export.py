"""t2ialign export: a LoRA in the format that another program reads, or folded into its base model."""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import locks
from t2ialign.models import options
from t2ialign.tasks.plan import parse_lora

if TYPE_CHECKING:
    from torch import Tensor

    from t2ialign.models.base import Policy
    from t2ialign.models.factors import Layers

    Read = tuple[dict[str, str], Layers, str | None, Any]

log = logging.getLogger(__name__)

EXPLAINED = """
ComfyUI, A1111, Forge and sd-scripts read the format kohya; pipe.load_lora_weights of diffusers reads the
format diffusers. The format merged adds the LoRA to its base model, which --model names. It writes one file,
as Stable Diffusion 1, 2 and XL were released, if OUT ends in .safetensors, and a diffusers folder otherwise.
LORA is the folder of a run, or a .safetensors file in the format of diffusers, PEFT, kohya or ComfyUI."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.description = f"{parser.description}.{EXPLAINED}"
    parser.add_argument(
        "lora",
        metavar="LORA[:SCALE]",
        help="The LoRA to export: the folder of a run, or a .safetensors file. SCALE multiplies its weights "
        "(default: 1).",
    )
    parser.add_argument(
        "--format",
        required=True,
        choices=("kohya", "diffusers", "merged"),
        help="The format to write: kohya, diffusers or merged, as explained above.",
    )
    parser.add_argument(
        "--model",
        help="The base model of the LoRA, which merged needs: a diffusers folder, a .safetensors or .ckpt "
        "file, a Hub id, or shapes (the embedded toy model).",
    )
    options.add_arguments(parser)
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "bf16", "fp16"),
        help="The number format of the weights that are written (default: fp32).",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="The .safetensors file or the folder to write. It must not exist yet.",
    )


def run(args: argparse.Namespace) -> None:
    """Write the LoRA as asked. Raises ValueError for bad arguments and LoRAs, and an output in use."""
    from t2ialign.models.lora_files import lora_file

    path, scale = parse_lora(args.lora)
    lora_file(path)
    with locks.hold_file(args.output):
        _check_free(args.output)
        write = _merge if args.format == "merged" else _convert
        print(f"wrote {write(args, path, scale)}")


def _convert(args: argparse.Namespace, path: Path, scale: float) -> Path:
    from t2ialign.models import lora_family
    from t2ialign.models.load import PRECISIONS
    from t2ialign.models.lora_files import FILE, write_diffusers, write_kohya

    header, layers, architecture, layout = _of_model(args, path) if args.model else _alone(path)
    layers = {key: factors.times(scale) for key, factors in layers.items()}
    name = FILE if args.format == "diffusers" else f"{path.resolve().stem}_kohya.safetensors"
    file = args.output if _is_file(args.output) else args.output / name
    header = {**lora_family.carried(header), "modelspec.title": file.stem}
    dtype = PRECISIONS[args.precision]
    if args.format == "diffusers":
        return write_diffusers(layers, file, header, dtype=dtype)
    if architecture is None:
        raise ValueError(
            f"got LoRA {str(path)!r}, whose layers do not tell which model it is for; expected one of Stable "
            "Diffusion 1, 2 or XL; name its base model with --model"
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


def _of_model(args: argparse.Namespace, path: Path) -> Read:
    """The layers of the LoRA that its base model has, and what that model is."""
    from t2ialign.models import lora_family
    from t2ialign.models.load import load_policy
    from t2ialign.models.lora_apply import read_for
    from t2ialign.models.lora_saved import header_of

    policy = load_policy(args.model, device="cpu", options=options.options_of(args))
    layers = read_for(policy, path)
    return header_of(policy, ""), layers, lora_family.of_policy(policy), policy.adapted.config


def _merge(args: argparse.Namespace, path: Path, scale: float) -> Path:
    """Fold the LoRA into the model in fp32, then write all of it in the precision that was asked for."""
    from rewards import tensor_files
    from rewards.permissions import share
    from t2ialign.models.load import PRECISIONS, load_policy
    from t2ialign.models.lora_apply import fold, read_for
    from t2ialign.models.lora_saved import header_of

    if args.model is None:
        raise ValueError(
            "got --format merged without --model; expected the base model to fold it into; name it"
        )
    output = args.output
    policy = load_policy(args.model, device="cpu", options=options.options_of(args))
    fold(policy.components, read_for(policy, path), weight=scale)
    if args.precision != "fp32":
        policy.convert_weights(PRECISIONS[args.precision])
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
    from t2ialign.models.original_layout import to_original

    if lora_family.of_policy(policy) is None:
        raise ValueError(
            f"got a {policy.pipeline_class} for one file; expected Stable Diffusion 1, 2 or XL, for which "
            "there is such a layout; name a folder with -o"
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
        locks.check_free(output)
    elif output.exists():
        raise ValueError(f"got --output {output}, which is there; expected a new file; choose another")
