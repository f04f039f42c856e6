"""t2ialign export: a LoRA in the format that another program reads, or folded into its base model."""

from __future__ import annotations

import argparse
from pathlib import Path

from t2ialign.models import options

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
        "file, a Hub id, or toy (the toy model).",
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
    from t2ialign import api

    reading = options.options_of(args).given()
    how = {"model": args.model, "model_options": reading, "precision": args.precision}
    print(f"wrote {api.export(args.lora, args.output, args.format, **how)}")
