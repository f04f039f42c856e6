"""Pictures to score, wherever they lie: folders, manifests, tables, webdataset shards, the Hub."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from t2ialign.data.folder import CAPTION_FILES
from t2ialign.data.sources import FILES
from t2ialign.data.tables import read_lines
from t2ialign.evaluation import manifest
from t2ialign.scoring import rows, tars
from t2ialign.scoring.items import Item, Source, stamp
from t2ialign.scoring.prompts import Prompts, lookup, read_prompt_table
from t2ialign.scoring.rows import Columns
from t2ialign.scoring.tars import PICTURES

TEXT = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".md", ".html", ".parquet")
"""Endings that are expected beside pictures; others are counted in a note."""

log = logging.getLogger(__name__)


def open_source(text: str, prompts: Prompts, columns: Columns) -> Source:
    """A folder, a manifest or other table, a .tar shard or a pattern of them, or a name on the Hub.

    A folder is scored by its manifest.jsonl if it has one and `prompts` says nothing, by its .tar shards or
    parquet files if it has no pictures, else picture by picture. Patterns: "a-*.tar", "a-{000..127}.tar".
    Raises ValueError for what does not exist and for a folder without pictures.
    """
    path = Path(text).expanduser()
    if shards := tars.expand(text):
        return tars.source(text, shards, prompts)
    if path.is_file():
        return _file(path, prompts, columns)
    if not path.is_dir():
        return rows.hub(text, prompts, columns)
    if (path / manifest.NAME).is_file() and not prompts.given:
        return _table(path / manifest.NAME, prompts, columns)
    pictures, others = _walk(path)
    if not pictures:
        if shards := [file for file in others if tars.is_tar(file)]:
            return tars.source(text, shards, prompts)
        if any(file.suffix == ".parquet" for file in others) or (path / "state.json").is_file():
            return rows.folder(path, prompts, columns)
        raise ValueError(
            f"got no pictures in {path}; expected {', '.join(PICTURES[:5])}, ... or .tar or .parquet shards; "
            "check the folder"
        )
    if odd := Counter(file.suffix for file in others if file.suffix.lower() not in TEXT):
        log.info("%s: %d files are no pictures (%s)", path, odd.total(), ", ".join(sorted(odd)))
    return _folder(path, pictures, prompts)


def _file(path: Path, prompts: Prompts, columns: Columns) -> Source:
    if path.suffix.lower() in FILES:
        return _table(path, prompts, columns)
    if path.suffix.lower() in PICTURES:
        return _picture(path, prompts)
    raise ValueError(
        f"got {path}; expected a picture, a .tar shard or a table ({', '.join(FILES)}); convert the file"
    )


def _table(path: Path, prompts: Prompts, columns: Columns) -> Source:
    return rows.files(str(path), [path], prompts, columns)


def _walk(root: Path) -> tuple[list[Path], list[Path]]:
    """(pictures, other files) below a folder in order of name; hidden ones are left out."""
    found = sorted(
        file
        for file in root.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
    pictures = [file for file in found if file.suffix.lower() in PICTURES]
    return pictures, [file for file in found if file.suffix.lower() not in PICTURES]


def _folder(root: Path, pictures: Sequence[Path], prompts: Prompts) -> Source:
    """Pictures one by one, or the rows of a table of prompts, which may name a picture more than once."""
    prompts = _with_captions(root, prompts)
    if prompts.table is None:
        return Source(str(root), [root.name], lambda _: _pictures(root, pictures, prompts), len(pictures))
    listed = _listed(root, pictures, prompts.table)
    return Source(str(root), [root.name], lambda _: iter(_items(listed)), len(listed))


def _picture(path: Path, prompts: Prompts) -> Source:
    """One picture, once for each prompt that a table has for it; what else the table lists is left alone."""
    root = path.parent
    table = _with_captions(root, prompts).table or {}
    alike = [file for file in table if PurePosixPath(file).name in (path.name, path.stem)]
    known = {path.name: [path], path.stem: [path]}
    own = [file for file in alike if _same(_find(root.resolve(), file, known), path)]
    listed = [(path.name, text, path) for file in own for text in table[file]]
    if not listed and prompts.table is None:
        return Source(str(path), [path.name], lambda _: _pictures(root, [path], prompts), 1)
    listed = listed or [(path.name, "", path)]
    return Source(str(path), [path.name], lambda _: iter(_items(listed)), len(listed))


def _same(found: Path | str, path: Path) -> bool:
    return isinstance(found, Path) and found.resolve() == path.resolve()


def _with_captions(root: Path, prompts: Prompts) -> Prompts:
    """The rule as given, or else the tables of captions that lie in the folder, if any."""
    if prompts.given:
        return prompts
    captions = [root / name for name in CAPTION_FILES if (root / name).is_file()]
    table = {file: texts for path in captions for file, texts in read_prompt_table(path).items()}
    return Prompts(table=table) if table else prompts


def _pictures(root: Path, pictures: Sequence[Path], prompts: Prompts) -> Iterator[Item]:
    beside = not prompts.given
    for row, path in enumerate(pictures):
        file = path.relative_to(root).as_posix()
        try:
            text = _sidecar(path) if beside else None
        except ValueError as error:
            yield Item(0, row, file, None, None, stamp(path), error=str(error))
            continue
        (prompt,) = prompts.of(file, text)
        yield Item(0, row, file, prompt, path, stamp(path))


def _sidecar(path: Path) -> str | None:
    text = path.with_suffix(".txt")
    if not text.is_file():
        return None
    return " ".join(line.strip() for _, line in read_lines(text)).strip() or None


def _listed(
    root: Path, pictures: Sequence[Path], table: Mapping[str, Sequence[str]]
) -> list[tuple[str, str, Path | str]]:
    """(file, prompt, picture or what is wrong) of each row of a table of prompts; unlisted ones are noted."""
    known: dict[str, list[Path]] = {}
    for path in pictures:
        inside = path.relative_to(root)
        for name in dict.fromkeys((inside.as_posix(), inside.with_suffix("").as_posix())):
            known.setdefault(name, []).append(path)
    found: list[tuple[str, str, Path | str]] = []
    used: set[Path] = set()
    for file, texts in table.items():
        picture = _find(root, file, known)
        used |= {picture} if isinstance(picture, Path) else set()
        found += [(file, text, picture) for text in texts]
    if left := len(set(pictures) - used):
        log.warning("%s: %d pictures have no row in the table of prompts and are not scored", root, left)
    return found


def _find(root: Path, file: str, known: dict[str, list[Path]]) -> Path | str:
    paths = known.get(file) or lookup(known, file) or []
    if not paths:  # an absolute name, or one that starts with the folder's own, or one that is not there
        name, under = Path(file), root / file
        above = not under.is_file() and not name.is_absolute() and root.name == name.parts[0]
        return root.parent / name if above else under
    if len(paths) > 1:
        both = " and ".join(str(path.relative_to(root)) for path in paths[:2])
        return (
            f"{file}: got {both}; expected one picture of that name; add the ending to the table of prompts"
        )
    return paths[0]


def _items(listed: Sequence[tuple[str, str, Path | str]]) -> Iterator[Item]:
    seen: Counter[tuple[str, str]] = Counter()
    for row, (file, prompt, picture) in enumerate(listed):
        repeat, seen[file, prompt] = seen[file, prompt], seen[file, prompt] + 1
        if isinstance(picture, Path):
            yield Item(0, row, file, prompt or None, picture, stamp(picture), repeat)
        else:
            yield Item(0, row, file, prompt or None, None, "", repeat, error=picture)
