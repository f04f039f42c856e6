"""A folder with chosen/ and rejected/: images of one name form a pair, captions stand beside them."""

from collections.abc import Iterator
from pathlib import Path

from t2ialign.data.files.tables import Row, first_of, read_table
from t2ialign.data.files.walk import ending, stem
from t2ialign.data.image_folder import (
    CAPTIONS,
    ImageFolder,
    caption_tables,
    image_folder,
    read_caption,
    table_key,
)
from t2ialign.data.prompts import PROMPT_COLUMNS, prompt_or_none
from t2ialign.data.skipped import Fault

SIDES = ("chosen", "rejected")


def is_pair_folder(root: Path) -> bool:
    """Whether `root` has the two sub-folders of a preference set, in any letter case."""
    return all(_sides(root, side) for side in SIDES)


def folder_rows(root: Path) -> Iterator[Row]:
    """Rows (prompt, chosen, rejected) of root/chosen/NAME.* and root/rejected/NAME.*, in order of name.

    The prompt comes from captions.jsonl or metadata.jsonl (or .json, .csv, .tsv; columns file_name and one of
    prompt, caption, text) in `root` or in either side, else from NAME.txt or NAME.caption beside the image.
    What `image_folder` skips is noted. Names with something wrong come first, with a ValueError that
    `image_of` raises: two images of one name, an image without a partner, a pair without a prompt. Raises
    ValueError for no images at all.
    """
    sides = [image_folder(_side(root, side)) for side in SIDES]
    captions, tables = table_captions([root, *(side.root for side in sides)])
    for side in sides:
        side.note(tables)
    wrong: dict[str, Fault] = {}
    images = [_by_name(side, wrong) for side in sides]
    if not any(images):
        raise ValueError(
            f"got no images in {sides[0].root} and {sides[1].root}; expected files such as 0001.png in both; "
            "check the folders"
        )
    wrong |= _alone(root, images)
    beside, prompts = _Beside(root, sides), dict[str, str]()
    for name in sorted(images[0].keys() & images[1].keys()):
        try:
            prompts[name] = _listed(name, images, sides, captions) or beside.text(name)
        except ValueError as error:
            wrong[name] = Fault("with a caption that cannot be read", str(error))
    wrong = _silent(root, prompts) | wrong
    for name in sorted(wrong):
        yield f"{root} pair {name}", {"prompt": name, **dict.fromkeys(SIDES, wrong[name])}
    for name in sorted(prompts.keys() - wrong.keys()):
        row = {"prompt": prompts[name], "chosen": images[0][name], "rejected": images[1][name]}
        yield f"{root} pair {name}", row


def _alone(root: Path, images: list[dict[str, Path]]) -> dict[str, Fault]:
    """Name of each image without a partner -> the fault to report."""
    alone = sorted(images[0].keys() ^ images[1].keys())
    message = (
        f"got {len(alone)} images without a partner in {root}, such as {_few(alone)}; "
        "expected the same names in chosen/ and rejected/; add or remove them"
    )
    return dict.fromkeys(alone, Fault("without a partner", message))


def _silent(root: Path, prompts: dict[str, str]) -> dict[str, Fault]:
    """Name of each pair without a prompt -> the fault to report."""
    silent = sorted(name for name, prompt in prompts.items() if not prompt)
    message = (
        f"got {len(silent)} pairs without a caption, or with an empty one, in {root}, such as "
        f'{_few(silent)}; expected captions.jsonl with {{"file_name": ..., "prompt": ...}} lines, '
        "or NAME.txt beside each image"
    )
    return dict.fromkeys(silent, Fault("without a prompt", message))


def _sides(root: Path, side: str) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.name.lower() == side and path.is_dir())


def _side(root: Path, side: str) -> Path:
    first, *more = _sides(root, side)
    if more:
        raise ValueError(f"got both {first} and {more[0]}; expected one folder {side}/; move them together")
    return first


def _by_name(side: ImageFolder, wrong: dict[str, Fault]) -> dict[str, Path]:
    """Name below the side, without its ending -> image; names of two images go into `wrong`."""
    images: dict[str, Path] = {}
    for path in side.images:
        name = side.name(path)
        if name in images:
            wrong[name] = Fault(
                "with two images of one name",
                f"got both {images[name]} and {path}; expected one image of each name, whatever its ending; "
                "rename or remove one",
            )
        images[name] = path
    return images


def table_captions(folders: list[Path]) -> tuple[dict[str, str], tuple[Path, ...]]:
    """(`table_key` of a file -> caption, the tables) of every caption table in the folders."""
    captions: dict[str, str] = {}
    tables = tuple(table for folder in folders for table in caption_tables(folder))
    for table in tables:
        for where, row in read_table(table):
            file, text = first_of(row, ("file_name", "filename", "file")), first_of(row, PROMPT_COLUMNS)
            if file is None or text is None:
                raise ValueError(
                    f"{where}: got columns {', '.join(row)}; expected file_name and one of "
                    f"{', '.join(PROMPT_COLUMNS)}; rename the columns"
                )
            captions[table_key(str(row[file]))] = (prompt_or_none(where, row[text]) or "").strip()
    return captions, tables


def _listed(
    name: str, images: list[dict[str, Path]], sides: list[ImageFolder], captions: dict[str, str]
) -> str:
    """The caption that a table has for either image, by its place in the folder, in its side or its name."""
    files = [side[name].relative_to(folder.root) for side, folder in zip(images, sides, strict=True)]
    keys = [f"{side}/{file.as_posix()}" for side, file in zip(SIDES, files, strict=True)]
    keys += [f"{folder.root.name}/{file.as_posix()}" for folder, file in zip(sides, files, strict=True)]
    keys += [file.as_posix() for file in files]
    return next((captions[key] for key in map(table_key, (*keys, name)) if captions.get(key)), "")


class _Beside:
    """Captions in files of their own: beside the winner, beside the loser, or at the same place in `root`."""

    def __init__(self, root: Path, sides: list[ImageFolder]) -> None:
        self.root, self.sides = root, sides
        self.above: dict[Path, dict[str, Path]] = {}

    def text(self, name: str) -> str:
        """The caption of a pair, "" if it has none."""
        files = [side.captions[name] for side in self.sides if name in side.captions]
        for file in (*files, self._above(name)):
            if file is not None:
                return read_caption(file)
        return ""

    def _above(self, name: str) -> Path | None:
        folder = (self.root / name).parent
        if folder not in self.above:
            files = [file for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []
            texts = [file for kind in CAPTIONS for file in sorted(files) if ending(file) == kind]
            self.above[folder] = {stem(file.name): file for file in reversed(texts)}
        return self.above[folder].get(stem(Path(name).name + ".txt"))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3])
