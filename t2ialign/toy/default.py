"""The default model is a toy: a command that names no model says so once, and goes on with it."""

from __future__ import annotations

import logging
import os

NAME = "toy"
log = logging.getLogger(__name__)


def announce(key: str) -> None:
    """Print one line: the toy is used, and another model is named by `key`, "model=" or "--model "."""
    if os.environ.get("RANK", "0") != "0":  # of several processes only the first one says it
        return
    log.warning(
        "WARNING: NO MODEL WAS NAMED, so this uses the TOY MODEL, which draws coloured shapes of 32 "
        f"pixels and nothing else; name your own with {key}PATH_OR_HUB_ID, for example "
        f"{key}stable-diffusion-v1-5/stable-diffusion-v1-5 ({key}{NAME} hides this line)"
    )
