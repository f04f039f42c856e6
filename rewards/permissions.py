"""Sets the permissions of files that are written: the system's mask decides, as for any other file."""

import os
from pathlib import Path


def share(path: Path) -> Path:
    """Give a safetensors file, or all below a folder, the permissions of a file written by hand -> the path.

    safetensors leaves its files to their owner alone (0600), so that a program which runs under another
    account could not open them.
    """
    mask = os.umask(0)
    os.umask(mask)
    for file in path.rglob("*.safetensors") if path.is_dir() else [path]:
        file.chmod(0o666 & ~mask)
    return path
