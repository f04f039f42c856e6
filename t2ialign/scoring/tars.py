"""webdataset shards: .tar files whose members of one key, "0001.jpg" and "0001.txt", are one sample."""

from __future__ import annotations

import json
import logging
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from t2ialign.data.files.tables import first_of
from t2ialign.data.files.walk import HIDDEN, SkippedFiles, composed, ending, is_clutter
from t2ialign.data.images import ENDINGS
from t2ialign.data.prompts import PROMPT_COLUMNS, prompt_or_none
from t2ialign.io.messages import one_line
from t2ialign.scoring.items import Item, Source, stamp
from t2ialign.scoring.prompts import Prompts
from t2ialign.scoring.tar_headers import BLOCK, Header

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TEXTS = ("txt", "caption", "prompt", "text")
"""Endings of members that hold a prompt; "json" holds one under prompt, caption or text."""
NAMED = 2
"""Members that a warning names."""
BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error)

log = logging.getLogger(__name__)

Sample = dict[str, bytes]
"""Member ending, from the first dot of the file's name on -> content, of one key."""


class Left:
    """Members of a shard beside samples of an image and its caption, as a damaged name leaves them."""

    def __init__(self) -> None:
        self.skipped, self.whole = SkippedFiles(), 0
        self.images, self.texts = list[str](), list[str]()
        self.lost = dict[str, str]()

    def add(self, key: str, sample: Sample, *, has_prompt: bool) -> None:
        """Look at one more sample."""
        images = [f"{key}.{kind}" for kind in sample if ending(f"x.{kind}") in ENDINGS]
        others = [f".{kind}" for kind in sample if kind.lower() not in (*TEXTS, "json")]
        if images:
            self.whole += has_prompt
            self.images += [] if has_prompt else images
        elif not _has_text(sample):
            for kind in others:
                self.skipped.add(ending(kind), f"{key}{kind}")
        elif others:
            self.lost[key] = ", ".join(others)
        else:
            self.texts.append(key)

    def note(self, path: Path) -> Iterator[tuple[str, str]]:
        """Log what is no sample -> (name, what is wrong) where a caption has no image but another file.

        All but a sample without image and caption is told only if most samples have both.
        """
        self.skipped.note(path)
        for what, names in (
            ("images without a caption", self.images),
            ("captions without an image", self.texts),
        ):
            if 0 < len(names) < self.whole:
                shown = ", ".join([*names[:NAMED], *(["..."] if len(names) > NAMED else [])])
                told = f"{path}: {len(names)} {what}, where {self.whole} have both: {shown}"
                log.warning("%s", one_line(told))
        for key, others in self.lost.items() if len(self.lost) < self.whole else ():
            yield (
                key,
                f"{key}: got {others} and no image; expected one, as others have; correct the shard",
            )


def is_tar(path: Path) -> bool:
    """Whether a file is a shard by its name."""
    return path.name.lower().endswith(ARCHIVES)


def expand(text: str) -> list[Path]:
    """The shards that a path or pattern names: "a.tar", "a-*.tar", "a-{000..127}.tar"; [] for anything else.

    Raises ValueError for a pattern that no file fits, or a shard of a range that is absent.
    """
    if not text.lower().endswith(ARCHIVES):
        return []
    shards: list[Path] = []
    for name in _ranges(text):
        path = Path(name).expanduser()
        paths = sorted(path.parent.glob(path.name)) if "*" in path.name or "?" in path.name else [path]
        if not paths or not all(path.is_file() for path in paths):
            raise ValueError(f"got {name}, which does not exist; expected .tar shards; check the path")
        shards += paths
    return shards


def source(name: str, shards: Sequence[Path], prompts: Prompts) -> Source:
    """Images of .tar files, compressed or not, streamed; one that breaks off is a row with an error."""
    labels = _labels(shards)

    def read(shard: int) -> Iterator[Item]:
        return _items(shards[shard], shard, labels[shard], prompts)

    return Source(name, labels, read)


def _ranges(text: str) -> list[str]:
    match = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if match is None:
        return [text]
    low, high = match[1], match[2]
    numbers = range(int(low), int(high) + 1)
    return [
        name
        for number in numbers
        for name in _ranges(f"{text[: match.start()]}{number:0{len(low)}d}{text[match.end() :]}")
    ]


def _labels(shards: Sequence[Path]) -> list[str]:
    """The shards' bare names, or, where two are alike, their paths."""
    names = [path.name for path in shards]
    return names if len(set(names)) == len(names) else [path.as_posix() for path in shards]


def _items(path: Path, shard: int, label: str, prompts: Prompts) -> Iterator[Item]:
    mark, row = stamp(path), 0
    seen: dict[tuple[str, str | None], int] = {}
    left = Left()
    try:
        for key, sample in _samples(path, left.skipped):
            text, wrong = _text(sample)
            left.add(key, sample, has_prompt=bool(text or wrong))
            for kind in [kind for kind in sample if ending(f"x.{kind}") in ENDINGS]:
                member = f"{key}.{kind}"
                for prompt in prompts.of(member, text):
                    place = (member, prompt)
                    seen[place] = repeat = seen.get(place, -1) + 1
                    error = f"{label}/{member}: {wrong}" if wrong and prompt is None else None
                    yield Item(
                        *(shard, row, f"{label}/{member}", prompt, None if error else sample[kind]),
                        stamp=mark,
                        repeat=repeat,
                        error=error,
                    )
                    row += 1
        if path.suffix == ".tar" and path.stat().st_size % BLOCK:
            raise tarfile.ReadError("cut short")
        for name, error in left.note(path):
            yield Item(shard, row, f"{label}/{name}", None, None, mark, error=f"{label}/{error}")
            row += 1
    except BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"{path}: got {reason} after {row} images; expected a whole archive; fetch it again"
        yield Item(shard, row, label, None, None, mark, error=message)


def _samples(path: Path, skipped: SkippedFiles) -> Iterator[tuple[str, Sample]]:
    """(key, members) of each run of members of one key: the path up to the first dot of the file's name.

    Raises one of `BROKEN` for a damaged archive, after all that could be read before the damage.
    """
    key, sample, texts = "", Sample(), True
    try:
        for name, content in _members(path, skipped):
            folder, _, last = name.rpartition("/")
            stem, _, kind = last.partition(".")
            new = f"{folder}/{stem}" if folder else stem
            if sample and (new != key or kind in sample):
                yield key, sample
                texts, sample = _has_text(sample), Sample()
            key = new
            sample[kind] = content
    except BROKEN:
        if sample and (_has_text(sample) or not texts):  # else the damage may have cost its prompt
            yield key, sample
        raise
    if sample:
        yield key, sample


def _members(path: Path, skipped: SkippedFiles) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file of a shard with an ending; folders, links and clutter are left out."""
    with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=Header) as archive:
        for member in archive:
            name = composed(member.name.removeprefix("./"))
            parts = name.split("/")
            if not member.isfile():
                continue
            if any(map(is_clutter, parts)) or not parts[-1].partition(".")[2]:
                skipped.add(HIDDEN if any(map(is_clutter, parts)) else "without ending", name)
                continue
            content = archive.extractfile(member)
            assert content is not None, f"{path}: {member.name} is a file without content"
            yield name, content.read()


def _has_text(sample: Sample) -> bool:
    return any(kind.lower() in (*TEXTS, "json") for kind in sample)


def _text(sample: Sample) -> tuple[str | None, str | None]:
    """(prompt of a sample, what is wrong with it)."""
    texts = {kind.lower(): content for kind, content in sample.items()}
    try:
        for kind in TEXTS:
            if kind in texts:
                return " ".join(texts[kind].decode("utf-8-sig").split("\n")).strip() or None, None
        if "json" not in texts:
            return None, None
        row = json.loads(texts["json"].decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return None, f"got a prompt that is not UTF-8 ({error.reason}); expected text; correct the shard"
    except (ValueError, RecursionError) as error:
        why = error.msg.lower() if isinstance(error, json.JSONDecodeError) else str(error)
        return None, f"got {why} in its .json; expected an object; correct the shard"
    column = first_of(row, PROMPT_COLUMNS) if isinstance(row, dict) else None
    value = row[column] if column is not None else None
    return (prompt_or_none("", value), None) if isinstance(value, str) else (None, None)
