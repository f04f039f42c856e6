"""The images below a folder, the captions beside them, and what is neither."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from t2ialign.data.files.lines import read_lines
from t2ialign.data.files.walk import SkippedFiles, composed, ending, is_clutter, stem, walk
from t2ialign.data.images import ENDINGS

CAPTIONS = (".txt", ".caption")
"""Endings of a caption beside an image; the first one that is there is read."""
TABLES = tuple(
    f"{name}.{kind}" for name in ("captions", "metadata") for kind in ("jsonl", "json", "csv", "tsv")
)
"""Names of a table of captions, in lower case."""


@dataclass
class ImageFolder:
    """Images and other files below `root`, each list in order of name."""

    root: Path
    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    """The files that are neither an image nor a caption."""
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    captions: dict[str, Path] = field(default_factory=dict)
    """Name of an image below the folder, without its ending and in one Unicode form -> its caption's file."""

    def name(self, image: Path) -> str:
        """An image's name below the folder, as `captions` has it."""
        return stem(image.relative_to(self.root).as_posix())

    def caption(self, image: Path) -> str | None:
        """The text beside an image, on one line; None without one. Raises ValueError if it is not UTF-8."""
        file = self.captions.get(self.name(image))
        return None if file is None else read_caption(file)

    def note(self, used: tuple[Path, ...] = ()) -> None:
        """Log what was skipped, on one line: all `others` but those that were `used`."""
        for path in self.others:
            if path not in used:
                self.skipped.add(ending(path) or "without an ending", path.relative_to(self.root).as_posix())
        self.skipped.note(self.root)


def image_folder(root: Path, *, deep: bool = True) -> ImageFolder:
    """What lies below a folder, by `walk`: images are files whose ending is one of `images.ENDINGS`.

    A caption is NAME.txt or NAME.caption beside NAME.png; letter case of endings and the Unicode form of
    names do not matter. Where an image has both, the .txt is read and the other one counts as skipped.
    Raises OSError if the folder cannot be listed.
    """
    files, skipped = walk(root, deep=deep)
    folder = ImageFolder(root, [file for file in files if ending(file) in ENDINGS], skipped=skipped)
    folder.others = [file for file in files if ending(file) not in (*ENDINGS, *CAPTIONS)]
    names = {folder.name(image) for image in folder.images}
    for name, captions in _by_name(folder, [file for file in files if ending(file) in CAPTIONS]).items():
        if name not in names:
            folder.others += captions
            continue
        folder.captions[name], *rest = captions
        for other in rest:
            kind = f"{ending(other)} beside another caption"
            skipped.add(kind, other.relative_to(root).as_posix())
    return folder


def caption_tables(folder: Path) -> list[Path]:
    """The tables of captions right in a folder, in order of `TABLES`."""
    names = sorted(entry.name for entry in os.scandir(folder) if not is_clutter(entry.name))
    tables = [folder / name for table in TABLES for name in names if name.lower() == table]
    return [table for table in tables if table.is_file()]


def _by_name(folder: ImageFolder, files: list[Path]) -> dict[str, list[Path]]:
    """Name of an image -> the captions of that name, the one to be read first."""
    captions: dict[str, list[Path]] = {}
    for file in sorted(files, key=lambda file: (CAPTIONS.index(ending(file)), file.suffix != ending(file))):
        captions.setdefault(folder.name(file), []).append(file)
    return captions


def read_caption(file: Path) -> str:
    """The text of a caption's file on one line. Raises ValueError if it is not UTF-8."""
    return " ".join(line.strip() for _, line in read_lines(file)).strip()


def table_key(file: str) -> str:
    """A file as a table writes it -> what `stem` would find: "/" between parts, one Unicode form, its ending.

    The ending is in lower case, so that "a.PNG" and "a.png" are the same file.
    """
    plain = composed(file.replace("\\", "/").removeprefix("./"))
    head, tail = os.path.splitext(plain)
    return head + tail.lower()
