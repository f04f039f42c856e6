"""Limits the pixels in a batch of images at full size: the setting of every verb that holds them."""

import argparse

from t2ialign.io import naming

MAX_BATCH_PIXELS = 1 << 26
"""64 images of 1024x1024."""


def add_max_batch_pixels(parser: argparse.ArgumentParser) -> None:
    """The argument of every verb that holds images at full size."""
    parser.add_argument(
        "--max-batch-pixels",
        type=int,
        default=MAX_BATCH_PIXELS,
        metavar="N",
        help="The maximum number of pixels in a batch of images that are read at full size. A batch ends "
        "before it is exceeded, and a larger image is a batch of its own. A pixel takes 3 bytes while it "
        f"waits and 12 while it is scored (default: {MAX_BATCH_PIXELS}, which is 64 images of 1024x1024).",
    )


def check_max_batch_pixels(pixels: int) -> None:
    """Raises ValueError for a number below 1."""
    if pixels < 1:
        raise ValueError(f"got {naming.given('max_batch_pixels', pixels)}; expected at least 1; raise it")
