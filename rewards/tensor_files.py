"""Files of tensors: the one place that writes them, equal bytes for equal content.

safetensors sorts tensors, but writes its metadata in an order that differs in every process, and peft writes
sets as they come: the hash of such a file would not tell whether its tensors are the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

ADAPTER = "adapter_config.json"
"""The file that peft writes beside an adapter."""
LENGTH = 8
"""Bytes at the start of a safetensors file that hold the length of its header, little endian."""


def write(tensors: Mapping[str, Tensor], file: Path | str, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors, which may lie on any device, as a safetensors file; equal content gives equal bytes.

    Raises SafetensorError if the disk is full or refuses, and RuntimeError for tensors that share memory.
    """
    from safetensors.torch import save_file

    rows = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(rows, file, metadata=None if metadata is None else dict(metadata))
    _sort_metadata(Path(file))


def save_pretrained(part: Any, folder: Path | str) -> None:
    """Write a network, pipeline, adapter, tokenizer or configuration as its library does, with equal bytes
    for equal content: as safetensors, never as a pickle.
    """
    part.save_pretrained(folder)
    settle(folder)


def settle(folder: Path | str) -> None:
    """Put into a fixed order what libraries wrote below a folder in an order of chance."""
    for file in sorted(Path(folder).rglob("*.safetensors")):
        _sort_metadata(file)
    for file in sorted(Path(folder).rglob(ADAPTER)):
        _sort_sets(file)


def _sort_metadata(file: Path) -> None:
    """Sort the metadata in the header, which keeps its length."""
    with file.open("r+b") as stream:
        length = int.from_bytes(stream.read(LENGTH), "little")
        text = stream.read(length)
        header = json.loads(text)
        names = header.get("__metadata__", {})
        if list(names) == sorted(names):
            return
        header["__metadata__"] = dict(sorted(names.items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(ordered) <= length, f"{file}: a sorted header of {len(ordered)} bytes in place of {length}"
        stream.seek(LENGTH)
        stream.write(ordered.ljust(length))


def _sort_sets(file: Path) -> None:
    """Sort the names of layers in the settings of an adapter, which peft holds as sets."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    for key, value in settings.items():
        if key.endswith("_modules") and isinstance(value, list):
            settings[key] = sorted(value)
    scratch = file.with_name(f".{file.name}.part")
    scratch.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")
    os.replace(scratch, file)
