"""Finding weights in a file, a folder or the Hub, opening them without running anybody's code; alignment."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.fetch import command, fetch
from rewards.hub import check_repository

HOME = "T2IALIGN_WEIGHTS"
"""Environment variable: a folder of weights, those of a Hub id in FOLDER/org/name; see `home`."""

ALIGNMENT = 64
"""Bytes; the addresses of what torch allocates on a CPU are multiples of it."""

HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


def find(
    source: str | Path,
    filename: str | Sequence[str] | None = None,
    *,
    sha256: str | None = None,
    url: str | None = None,
) -> Path:
    """A file, a folder that holds `filename`, or a Hub id "org/name[@revision]" that does -> the local file.

    Of several file names the first that exists is taken. `home` is looked into before the Hub. A file that is
    not on the Hub has the address `url` and is fetched to `home`, once and verified, so it needs `sha256`.
    Raises ValueError if there is no such file, saying how to get it, and for another hash than `sha256`.
    """
    names = [filename] if isinstance(filename, str) else list(filename or ())
    path = next((path for path in _local(Path(source), names) if path.is_file()), None)
    if path is None and url is not None:
        assert sha256 is not None, "what is fetched has a pinned hash"
        return _from_web(url, home() / source / names[0], sha256)
    if path is None:
        path = _from_hub(str(source), names)
    if sha256 is not None:
        _check_hash(path, sha256)
    return path


def home() -> Path:
    """The folder of weights: $T2IALIGN_WEIGHTS, else t2ialign/weights in ~/.cache."""
    if folder := os.environ.get(HOME):
        return Path(folder).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "t2ialign", "weights")


def located(weights: str) -> tuple[str, str | None]:
    """A folder, one in $T2IALIGN_WEIGHTS, or a Hub id "org/name[@revision]" -> (folder or id, revision).

    For models that transformers loads as a whole; that nothing is there is for it to say.
    """
    name, _, revision = weights.partition("@")
    folder = next((folder for folder in (Path(weights), home() / name) if folder.is_dir()), None)
    return (name, revision or None) if folder is None else (str(folder), None)


def check_there(source: str | Path, what: str) -> None:
    """Raises ValueError, naming `what`, if `source` means a place on this machine and nothing is there.

    It does if it has a separator or ends like a file of weights, unless it has the form of a Hub id
    "org/name[@revision]" and no folder `org` is here. A bare word may be a name of another kind.
    """
    text = str(source).replace("\\", "/")
    first, separator, _ = text.partition("/")
    is_file = Path(text).suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
    is_id = HUB_ID.fullmatch(text) and first not in (".", "..", "~") and not Path(first).is_dir()
    if (is_file or (separator and not is_id)) and not any(
        path.exists() for path in _local(Path(source).expanduser(), [])
    ):
        raise ValueError(f"got {what}, which does not exist; expected a file, a folder or a Hub id; check it")


def load_state(path: str | Path) -> dict[str, Tensor]:
    """A .safetensors file, or a .pt, .pth or .bin of tensors -> its state dict, on the CPU.

    A dict under "state_dict", "model" or the like is taken out, and "module." of a parallel run dropped.
    Raises ValueError for a file that needs code to open (nothing of it is run), or that holds no tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"got {path}, which does not open as plain tensors ({reason}); expected a state dict; "
            "convert it to .safetensors where you trust it (scripts/convert_weights.py for MPS)"
        ) from error
    return _tensors(loaded, path)


def align_weights(*parts: object) -> None:
    """Align the weights of every module among `parts` as torch aligns what it allocates, by copying.

    A tensor of a mapped file starts wherever the file has it, and matrix kernels round otherwise at another
    alignment: equal weights in two files would differ in the last bits of what they compute. One tensor at a
    time is copied; parameters stay the same objects. Other devices than the CPU align what is sent to them.
    """
    for part in parts:
        if isinstance(part, nn.Module):
            for tensor in chain(part.parameters(), part.buffers()):
                if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
                    tensor.data = tensor.data.clone()


def digest(path: str | Path) -> str:
    """The SHA-256 of a file, 64 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _local(source: Path, names: list[str]) -> Iterator[Path]:
    yield source
    yield from (source / name for name in names)
    place = home() / str(source).partition("@")[0]
    yield place
    yield from (place / name for name in names)


def _from_web(url: str, path: Path, sha256: str) -> Path:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        if HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        return fetch(url, path, sha256=sha256)
    except OSError as error:
        raise ValueError(
            f"got no {path.name} ({error}); expected a network or the file; pass weights=FILE, or fetch it "
            f"with: {command(url, path)}"
        ) from error


def _from_hub(source: str, names: list[str]) -> Path:
    if Path(source).is_dir():
        there = sorted(path.name for path in Path(source).iterdir())[:8] or ["nothing"]
        raise ValueError(
            f"got folder {source}, which holds {', '.join(there)}; expected {_either(names)}; put it there"
        )
    match = HUB_ID.fullmatch(source)
    if match is None or not names:
        raise ValueError(
            f"got weights {source}, which is neither a file nor a folder; expected one, or a Hub id "
            "org/name; check the path"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    offline = False
    try:
        check_repository(match["id"], names[0], match["revision"])
        for name in names:
            try:
                path = hf_hub_download(
                    match["id"], name, revision=match["revision"], local_files_only=offline
                )
                return Path(path)
            except LocalEntryNotFoundError as error:  # no network: the other names may lie in the cache
                reason: Exception = error
                offline = True
            except EntryNotFoundError as error:
                reason = error
    except (OSError, ValueError) as error:
        reason = error
    raise ValueError(
        f"got no {_either(names)} of {source} ({type(reason).__name__}); expected a network or the file; "
        f"put it at {home() / match['id'] / names[0]}, or pass weights=FILE_OR_FOLDER"
    ) from reason


def _either(names: Sequence[str]) -> str:
    return " or ".join(names) if names else "a weights file"


def _check_hash(path: Path, sha256: str) -> None:
    actual = digest(path)
    if actual != sha256.lower():
        raise ValueError(
            f"got {path} with SHA-256 {actual}; expected {sha256.lower()}; "
            "download it again, or change the pin"
        )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(
            f"got {path}, which is no whole safetensors file ({error}); expected one; download it again"
        ) from error


def _tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(
            f"got {type(loaded).__name__} in {path}; expected a state dict; save the tensors alone"
        )
    odd = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if odd:
        raise ValueError(
            f"got entries that are no tensors in {path}: {', '.join(odd[:3])}; expected a state dict; "
            "save the tensors alone"
        )
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}
