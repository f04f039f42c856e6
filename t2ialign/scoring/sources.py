"""Images to score, wherever they lie: folders, manifests, tables, webdataset shards, the Hub."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from t2ialign.data.files.lines import FOREIGN
from t2ialign.data.files.walk import ending, is_clutter, stem
from t2ialign.data.image_folder import ImageFolder, caption_tables, image_folder, table_key
from t2ialign.data.images import ENDINGS
from t2ialign.data.located import located
from t2ialign.data.sources import FILES
from t2ialign.io import manifest
from t2ialign.scoring import rows, tars
from t2ialign.scoring.items import Item, Source, stamp
from t2ialign.scoring.prompts import Prompts, lookup, normal, read_prompt_table
from t2ialign.scoring.rows import Columns

log = logging.getLogger(__name__)


def open_source(text: str, prompts: Prompts, columns: Columns) -> Source:
    """A folder, a manifest or other table, a .tar shard or a pattern of them, or a name on the Hub.

    A folder is scored by its manifest.jsonl if it has one and `prompts` says nothing, by its .tar shards or
    parquet files if it has no images, else image by image; what `image_folder` skips is noted. Patterns
    are "a-*.tar", "a-{000..127}.tar" and "images/*.png". Raises ValueError for what does not exist and for a
    folder without images.
    """
    path = Path(text).expanduser()
    if shards := tars.expand(text):
        return tars.source(text, shards, prompts)
    if path.is_file():
        return _file(path, prompts, columns)
    if os.path.lexists(path) and not path.is_dir():
        raise ValueError(
            f"got {path}, which is a device, a pipe, a socket or a link that leads nowhere; expected a file "
            "or a folder; check the path"
        )
    if not path.is_dir():
        if path.parent.is_dir() and set(path.name) & set("*?["):
            matching = _folder(image_folder(path.parent, deep=False), _matching(path), prompts)
            return replace(matching, root=path.parent)
        return rows.hub(text, prompts, columns)
    return replace(_in_folder(text, path, prompts, columns), root=path)


def _in_folder(text: str, path: Path, prompts: Prompts, columns: Columns) -> Source:
    if (path / manifest.NAME).is_file() and not prompts.given:
        return _table(path / manifest.NAME, prompts, columns)
    folder = image_folder(path)
    if not folder.images:
        if shards := [file for file in folder.others if tars.is_tar(file)]:
            folder.skipped.note(path)
            return tars.source(text, shards, prompts)
        if any(ending(file) == ".parquet" for file in folder.others) or (path / "state.json").is_file():
            return rows.folder(path, prompts, columns)
        folder.note()
        raise ValueError(
            f"got no images in {path}; expected .png, .jpg, .webp, ..., or .tar or .parquet shards; check "
            "the folder"
        )
    folder.note(() if prompts.given else tuple(caption_tables(path)))
    return _folder(folder, folder.images, prompts)


def _file(path: Path, prompts: Prompts, columns: Columns) -> Source:
    if ending(path) in FILES:
        return _table(path, prompts, columns)
    if ending(path) in ENDINGS:
        return _image(path, prompts)
    how = FOREIGN.get(ending(path), "convert the file")
    raise ValueError(f"got {path}; expected an image, a .tar shard or a table ({', '.join(FILES)}); {how}")


def _matching(pattern: Path) -> list[Path]:
    """Images right in a folder whose names fit a pattern such as "*.png"."""
    fitting = [file for file in pattern.parent.glob(pattern.name) if not is_clutter(file.name)]
    images = sorted(file for file in fitting if ending(file) in ENDINGS)
    if not images:
        raise ValueError(f"got {pattern}, which fits no image; expected a pattern such as *.png; check it")
    return images


def _table(path: Path, prompts: Prompts, columns: Columns) -> Source:
    return rows.files(str(path), [path], prompts, columns)


def _folder(folder: ImageFolder, images: Sequence[Path], prompts: Prompts) -> Source:
    """Images one by one, or the rows of a table of prompts, which may name an image more than once."""
    root, prompts = folder.root, _with_captions(folder.root, prompts)
    if prompts.table is None:
        return Source(str(root), [root.name], lambda _: _images(folder, images, prompts), len(images))
    listed = _listed(root, images, prompts.table)
    return Source(str(root), [root.name], lambda _: iter(_items(listed)), len(listed))


def _image(path: Path, prompts: Prompts) -> Source:
    """One image, once for each prompt that a table has for it; what else the table lists is left alone."""
    root = path.parent
    table = _with_captions(root, prompts).table or {}
    names = table_key(path.name), table_key(stem(path.name))
    alike = [file for file in table if table_key(PurePosixPath(file).name) in names]
    known = _known(root, [path])
    files = [file for file in alike if _same(_find(root.resolve(), file, known), path)]
    listed = [(path.name, text, path) for file in files for text in table[file]]
    if not listed and prompts.table is None:
        folder = image_folder(root, deep=False)
        return Source(str(path), [path.name], lambda _: _images(folder, [path], prompts), 1)
    listed = listed or [(path.name, "", path)]
    return Source(str(path), [path.name], lambda _: iter(_items(listed)), len(listed))


def _same(candidate: Path | str, path: Path) -> bool:
    return isinstance(candidate, Path) and candidate.resolve() == path.resolve()


def _with_captions(root: Path, prompts: Prompts) -> Prompts:
    """The rule as given, or else the tables of captions that lie in the folder, if any."""
    if prompts.given:
        return prompts
    tables = [read_prompt_table(path) for path in caption_tables(root)]
    table = {file: texts for read in tables for file, texts in read.items()}
    return Prompts(table=table) if table else prompts


def _images(folder: ImageFolder, images: Sequence[Path], prompts: Prompts) -> Iterator[Item]:
    beside = not prompts.given
    for row, path in enumerate(images):
        file = path.relative_to(folder.root).as_posix()
        try:
            text = folder.caption(path) if beside else None
        except ValueError as error:
            yield Item(0, row, file, None, None, stamp(path), error=str(error))
            continue
        (prompt,) = prompts.of(file, text)
        yield Item(0, row, file, prompt, path, stamp(path))


def _listed(
    root: Path, images: Sequence[Path], table: Mapping[str, Sequence[str]]
) -> list[tuple[str, str, Path | str]]:
    """(file, prompt, image or what is wrong) of each row of a table of prompts; unlisted ones are noted."""
    known = _known(root, images)
    listing: list[tuple[str, str, Path | str]] = []
    used: set[Path] = set()
    for file, texts in table.items():
        image = _find(root, file, known)
        used |= {image} if isinstance(image, Path) else set()
        listing += [(file, text, image) for text in texts]
    if left := len(set(images) - used):
        log.warning("%s: %d images have no row in the table of prompts and are not scored", root, left)
    return listing


def _known(root: Path, images: Sequence[Path]) -> dict[str, list[Path]]:
    """Name as a table of prompts has it, with and without its ending -> images."""
    known: dict[str, list[Path]] = {}
    for path in images:
        name = normal(path.relative_to(root).as_posix())
        for key in dict.fromkeys((name, stem(name))):
            known.setdefault(key, []).append(path)
    return known


def _find(root: Path, file: str, known: dict[str, list[Path]]) -> Path | str:
    paths = lookup(known, file) or []
    if not paths:  # an absolute name, or one that starts with the folder's own, or one that is not there
        try:
            under = located(str(root), file, root)
        except ValueError as error:
            return str(error)
        above = not under.is_file() and not Path(file).is_absolute() and root.name == Path(file).parts[0]
        return root.parent / file if above else under
    if len(paths) > 1:
        both = " and ".join(str(path.relative_to(root)) for path in paths[:2])
        return f"{file}: got {both}; expected one image of that name; add the ending to the table of prompts"
    return paths[0]


def _items(listed: Sequence[tuple[str, str, Path | str]]) -> Iterator[Item]:
    seen: Counter[tuple[str, str]] = Counter()
    for row, (file, prompt, image) in enumerate(listed):
        repeat, seen[file, prompt] = seen[file, prompt], seen[file, prompt] + 1
        if isinstance(image, Path):
            yield Item(0, row, file, prompt or None, image, stamp(image), repeat)
        else:
            yield Item(0, row, file, prompt or None, None, "", repeat, error=image)
