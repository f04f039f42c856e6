"""The origin of an image, in the PNG file itself: the chunk "parameters" that A1111 and others read.

Its form is A1111's: the prompt, and below it one line of NAME: VALUE pairs. exiftool and PIL show it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

PARAMETERS, CELLS = "parameters", "t2ialign"
"""Names of the chunks: of an image, and of a grid the prompt and seed of every cell, row by row, as JSON."""


def image_text(row: Mapping[str, Any], size: tuple[int, int]) -> PngInfo:
    """The text of one image (width, height), from its row of a manifest."""
    text = str(row.get("rewritten", row["prompt"]))
    original = {"Original prompt": row["prompt"]} if text != row["prompt"] else {}
    return _chunks(text, row, size, original)


def grid_text(rows: Sequence[Mapping[str, Any]], columns: int, size: tuple[int, int]) -> PngInfo:
    """The text of a grid of images (width, height), from a row as for `image_text` for every cell."""
    prompts = list(dict.fromkeys(str(row["prompt"]) for row in rows))
    chunks = _chunks("\n".join(prompts), rows[0], size, {"Grid": f"{columns}x{-(-len(rows) // columns)}"})
    cells = [{"prompt": row["prompt"], "seed": row["seed"]} for row in rows]
    chunks.add_text(CELLS, json.dumps(cells))
    return chunks


def save(image: Image.Image, file: Path, chunks: PngInfo) -> None:
    """Write a PNG file at once: a reader never sees half of it."""
    scratch = file.with_name(f".{file.name}.part")
    image.save(scratch, format="png", pnginfo=chunks)
    scratch.replace(file)


def _chunks(text: str, row: Mapping[str, Any], size: tuple[int, int], more: Mapping[str, object]) -> PngInfo:
    eta, model = row.get("eta", 0.0), Path(str(row["model"]))
    facts: dict[str, object] = {
        "Steps": row["steps"],
        "Sampler": "DDIM",
        "CFG scale": f"{row['guidance']:g}",
        "Seed": row["seed"],
        "Size": f"{size[0]}x{size[1]}",
        "Model": model.stem if model.suffix in (".safetensors", ".ckpt") else model.name,
        **({"Eta DDIM": f"{eta:g}"} if eta else {}),
        **({"LoRA": row["adapter"]} if row.get("adapter") else {}),
        **more,
    }
    chunks = PngInfo()
    line = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in facts.items())
    chunks.add_text(PARAMETERS, f"{text}\n{line}")
    return chunks


def _quoted(value: str) -> str:
    """Put a value in double quotes where a reader would split it."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",:\n") else value
