"""t2ialign mix: one LoRA that is alpha * A + (1 - alpha) * B of two, exactly, in weight space."""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.io import locks
from t2ialign.io.messages import printable

if TYPE_CHECKING:
    from t2ialign.models.factors import Factors
    from t2ialign.models.lora_files import Lora

log = logging.getLogger(__name__)

EXPLAINED = """
The weight update of every layer is ALPHA times that of A plus (1 - ALPHA) times that of B. One LoRA then has
a share of what two runs with two rewards learned (the LoRA soup of AlignProp, Prabhudesai et al. 2023).
The ranks, alphas, seeds and target layers of the two may differ; their base model must be the same."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.description = f"{parser.description}.{EXPLAINED}"
    parser.add_argument(
        "a",
        type=Path,
        metavar="A",
        help="The first LoRA: the folder of a run, or a .safetensors file in any known format.",
    )
    parser.add_argument(
        "b", type=Path, metavar="B", help="The second LoRA, which must be for the same base model."
    )
    parser.add_argument(
        "--alpha",
        type=float,
        required=True,
        metavar="ALPHA",
        help="The share of A, from 0 to 1. The share of B is 1 - ALPHA.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="The folder to write the mixed LoRA to. It must be new or empty.",
    )


def run(args: argparse.Namespace) -> None:
    """Write the mixture and its card. Raises ValueError for bad arguments, files or pairs of LoRAs."""
    if not 0 <= args.alpha <= 1:  # also catches NaN
        raise ValueError(f"got --alpha {args.alpha}; expected the share of A, from 0 to 1; change it")
    from t2ialign.models.lora_files import FILE, partial_name

    with locks.hold_folder(args.output):
        locks.check_free(args.output, passing=lambda item: item.name == partial_name(FILE))
        _mix(args)


def _mix(args: argparse.Namespace) -> None:
    from t2ialign.models import lora_family
    from t2ialign.models.lora_files import FILE, lora_file, read_lora, write_diffusers

    for path in (args.a, args.b):
        lora_file(path)
    first, second = read_lora(args.a), read_lora(args.b)
    one, other = first.layers, second.layers
    layers, shared = mix(one, other, args.alpha), len(one.keys() & other.keys())
    _say(first, second, shared)
    bases = list(dict.fromkeys(base for path in (args.a, args.b) if (base := _base(path))))
    header = {**lora_family.carried(first.header), "modelspec.title": args.output.resolve().name}
    file = write_diffusers(layers, args.output / FILE, header)
    rank = max(factors.rank for factors in layers.values())
    what = f"{args.alpha:g} x {args.a} + {1 - args.alpha:g} x {args.b}"
    names = [path.resolve().name for path in (args.a, args.b)]
    _write_card(args.output, f"{args.alpha:g} x {names[0]} + {1 - args.alpha:g} x {names[1]}", bases, rank)
    count = f"{len(layers)} layers ({shared} in both)"
    use = ["--lora", str(args.output), *(["--model", bases[0]] if bases and bases[0] != "shapes" else [])]
    line = f'{file}: {what}, rank {rank}, {count}; t2ialign sample "a prompt" {shlex.join(use)}'
    print(printable(line))


def mix(one: dict[str, Factors], other: dict[str, Factors], alpha: float) -> dict[str, Factors]:
    """The layers whose delta W is alpha * one's + (1 - alpha) * other's; a missing one counts as 0.

    The factors are put side by side, [alpha up_A, (1 - alpha) up_B] @ [down_A; down_B], so that the ranks
    add up; a mean of the factors themselves would multiply A's with B's. Raises ValueError for a layer whose
    shape differs.
    """
    import torch

    from t2ialign.models.factors import Factors

    mixed = {}
    for layer in sorted(one.keys() | other.keys()):
        parts = [(w, lora[layer]) for w, lora in ((alpha, one), (1 - alpha, other)) if layer in lora]
        if len({factors.shape for _, factors in parts}) > 1:
            shapes = " and ".join(str(factors.shape) for _, factors in parts)
            raise ValueError(f"got {layer} of shapes {shapes}; expected two LoRAs for the same model")
        mixed[layer] = Factors(
            torch.cat([factors.down for _, factors in parts]),
            torch.cat([w * factors.up for w, factors in parts], dim=1),
        )
    return mixed


def _say(first: Lora, second: Lora, shared: int) -> None:
    """How many layers of each the other has too. Raises ValueError if there are none."""
    for lora in (first, second):
        count = f"LoRA {lora.file} ({lora.format}): {shared} of {len(lora.layers)} layers matched"
        if not shared:
            raise ValueError(f"got {count} by the other LoRA; expected two LoRAs for the same model")
        if shared < len(lora.layers):
            log.warning("WARNING: %s by the other LoRA; the rest is mixed with 0", count)
        else:
            log.info("%s", count)


def _base(path: Path) -> str | None:
    """The model that a run's folder was trained for; None for any other LoRA, which does not say."""
    from t2ialign.io import plain_yaml

    settings = path / "config.yaml"
    if not settings.is_file():
        return None
    try:
        values = plain_yaml.read(settings.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"got {settings}, which is not YAML ({error}); expected a run's own") from error
    base = values.get("model") if isinstance(values, dict) else None
    return base if isinstance(base, str) else None


def _write_card(output: Path, what: str, bases: list[str], rank: int) -> None:
    import yaml

    from t2ialign.io import atomic
    from t2ialign.training import usage
    from t2ialign.version import __version__

    public = [name for base in bases if (name := usage.hub_id(base))]
    head = {
        **({"base_model": public} if public else {}),
        "license": "other",
        "license_name": "as-base-model-and-data",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "lora", "mix", "t2ialign"],
    }
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {output.resolve().name}",
        "",
        f"`{what}` in weight space, by `t2ialign mix` {__version__}.",
        "",
        f"- Base model: {' and '.join(map(usage.shown, bases)) or 'that of the two'}",
        f"- Rank: {rank}, with the scales of both in the weights: load it at weight 1",
        "- Licence: that of the base model and of the data of both",
        "",
        "## Use it",
        "",
        usage.lora(bases[0] if bases else usage.BASE, output, kohya=None),
    ]
    atomic.write_text(output / "README.md", "\n".join(lines) + "\n")
