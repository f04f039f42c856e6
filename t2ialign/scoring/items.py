"""One image and its prompt, wherever they lie, and the shards of a source that hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from t2ialign.data.images import ImageSource


@dataclass(frozen=True)
class Item:
    """One row to score. `shard` and `row` are its place in the source, `file` its name there.

    `prompt` is None where the source has none. `stamp` changes when the file that holds the image does;
    `repeat` counts earlier rows of the same file and prompt. `error` says why there is no image.
    """

    shard: int
    row: int
    file: str
    prompt: str | None
    image: ImageSource | None
    stamp: str = ""
    repeat: int = 0
    error: str | None = None

    @property
    def identity(self) -> str:
        """32 hex digits: the identity to which a score belongs, however the rows around it change."""
        parts = (self.file, "" if self.prompt is None else "=" + self.prompt, self.stamp, str(self.repeat))
        return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Source:
    """A set of images: the names of its shards, how to read one in order, and the total if known.

    `root` is the folder that the source is, which may come from others: a page shows no image from outside
    it. None where the user names the images, by a table or one by one.
    """

    name: str
    shards: Sequence[str]
    read: Callable[[int], Iterator[Item]]
    count: int | None = None
    root: Path | None = None

    def items(self, rank: int = 0, world: int = 1) -> Iterator[Item]:
        """The share of process `rank`: whole shards if there is one for each, else every `world`-th row."""
        whole = len(self.shards) >= world
        for shard in range(rank, len(self.shards), world) if whole else range(len(self.shards)):
            for item in self.read(shard):
                if whole or item.row % world == rank:
                    yield item


def stamp(path: Path) -> str:
    """Size and date of a file, "" if there is none: another image of the same name has another one."""
    try:
        stat = path.stat()
    except (OSError, ValueError):  # reading it will say what is wrong, even with a name that no file can have
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"
