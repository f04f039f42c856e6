"""Options that take many lines: how sample renders images, and what score reads and at what pace."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from t2ialign.scoring.budget import add_max_batch_pixels


def add_rendering(parser: argparse.ArgumentParser) -> None:
    """How images are rendered."""
    parser.add_argument(
        "--num-inference-steps",
        type=int,
        default=20,
        help="The number of denoising steps per image (default: 20).",
    )
    parser.add_argument(
        "--guidance-scale",
        type=float,
        default=5.0,
        help="The scale of classifier-free guidance; 1 is off (default: 5).",
    )
    parser.add_argument(
        "--eta",
        type=float,
        default=0.0,
        help="The share of noise that is added in each step: 0 is DDIM, which is deterministic, and 1 is "
        "DDPM (default: 0).",
    )
    parser.add_argument(
        "--height", type=int, help="The height of the images in pixels (default: that of the model)."
    )
    parser.add_argument(
        "--width", type=int, help="The width of the images in pixels (default: that of the model)."
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="B",
        help="The number of images that are rendered at a time (default: 16).",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "bf16", "fp16"),
        help="The number format in which the network computes (default: fp32).",
    )
    parser.add_argument(
        "--attention",
        default="sdpa",
        choices=("sdpa", "xformers"),
        help="The implementation of attention: PyTorch's sdpa, or xformers, which has to be installed "
        "(default: sdpa).",
    )


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Where a table or a dataset holds images and prompts."""
    parser.add_argument(
        "--image-column",
        metavar="NAME",
        help="The column of a table or dataset that holds the images (default: the first of image, jpg, file "
        "and others that exists).",
    )
    parser.add_argument(
        "--prompt-column",
        metavar="NAME",
        help="The column of a table or dataset that holds the prompts (default: prompt, caption or text).",
    )
    parser.add_argument(
        "--split", default="train", help="The split to read of a dataset on the Hub (default: train)."
    )


def add_pace(parser: argparse.ArgumentParser) -> None:
    """How many images are scored at a time, and on which device."""
    parser.add_argument(
        "--batch-size",
        type=int,
        default=64,
        metavar="B",
        help="The number of images that are scored at a time (default: 64).",
    )
    add_max_batch_pixels(parser)
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="The number of processes that decode images; 0 decodes in the main process (default: up to 8).",
    )
    parser.add_argument(
        "--device",
        help="The device on which the rewards run: cpu, cuda, cuda:1 or mps (default: a GPU if there is "
        "one).",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "bf16"),
        help="The number format in which the rewards compute (default: fp32).",
    )


def reward_options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """ "pickscore:weights=x" -> {"pickscore": {"weights": "x"}}; values are read as YAML.

    Raises ValueError for another form.
    """
    from t2ialign.io import plain_yaml

    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name, colon, key = key.rpartition(":")
        if not (name and key and equals and colon):
            raise ValueError(f"got --option {text!r}; expected REWARD:KEY=VALUE; write it so")
        try:
            options.setdefault(name, {})[key] = plain_yaml.read(value)
        except ValueError as error:
            raise ValueError(
                f"got --option {name}:{key} with a value that is not YAML ({error}); expected "
                "REWARD:KEY=VALUE; quote the value"
            ) from error
    return options
