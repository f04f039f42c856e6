"""Names of files that a run holds, which may lead nowhere but into its folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from t2ialign.io.messages import quoted


def inside(folder: Path, name: object) -> Path:
    """A file that a run names, within its folder, also when links are followed. Raises ValueError for any
    other place.
    """
    if isinstance(name, str) and name and "\0" not in name:
        kinds = PurePosixPath(name), PureWindowsPath(name)
        if not any(path.anchor or ".." in path.parts for path in kinds):
            if lies_within(folder, folder / name):
                return folder / name
            raise ValueError(
                f"got file {quoted(name)} in a run of {folder}, which a link leads out of that folder; "
                "expected a file within it; copy the file there"
            )
    raise ValueError(
        f"got file {quoted(name)} in a run of {folder}; expected a path within that folder; correct the row"
    )


def lies_within(folder: Path, file: Path) -> bool:
    """Whether a file lies in a folder or below it once all links are followed."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))
