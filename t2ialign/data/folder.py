"""A folder with chosen/ and rejected/: pictures of one name form a pair, captions stand beside them."""

from collections.abc import Iterator
from pathlib import Path

from t2ialign.data.prompts import PROMPT_COLUMNS
from t2ialign.data.tables import Row, first_of, read_lines, read_table

SIDES = ("chosen", "rejected")
CAPTION_FILES = tuple(f"{s}.{e}" for s in ("captions", "metadata") for e in ("jsonl", "json", "csv", "tsv"))
CLUTTER = (".ini", ".db")
"""What file managers leave behind."""
NOT_PICTURES = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".md", *CLUTTER)


def is_pair_folder(root: Path) -> bool:
    """Whether `root` has the two sub-folders of a preference set."""
    return all((root / side).is_dir() for side in SIDES)


def folder_rows(root: Path) -> Iterator[Row]:
    """Rows (prompt, chosen, rejected) of root/chosen/NAME.* and root/rejected/NAME.*, in order of name.

    The prompt comes from captions.jsonl or metadata.jsonl (or .json, .csv, .tsv; columns file_name and one of
    prompt, caption, text) in `root` or in either side, else from NAME.txt beside the picture. Every file that
    is no caption counts as a picture. Raises ValueError for a picture without a partner or without a prompt.
    """
    pictures = [_pictures(root / side) for side in SIDES]
    alone = sorted(pictures[0].keys() ^ pictures[1].keys())
    if alone:
        raise ValueError(
            f"got {len(alone)} pictures without a partner in {root}, such as {_few(alone)}; "
            "expected the same names in chosen/ and rejected/; add or remove them"
        )
    captions = _captions(root)
    prompts = {name: _prompt(root, name, [side[name] for side in pictures], captions) for name in pictures[0]}
    silent = sorted(name for name, prompt in prompts.items() if not prompt)
    if silent:
        raise ValueError(
            f"got {len(silent)} pairs without a caption in {root}, such as {_few(silent)}; expected "
            'captions.jsonl with {"file_name": ..., "prompt": ...} lines, or NAME.txt beside each picture'
        )
    for name in sorted(prompts):
        row = {"prompt": prompts[name], "chosen": pictures[0][name], "rejected": pictures[1][name]}
        yield f"{root} pair {name}", row


def _pictures(side: Path) -> dict[str, Path]:
    """Name below `side`, without its ending -> file."""
    found: dict[str, Path] = {}
    for path in sorted(side.rglob("*")):
        if not path.is_file() or path.name.startswith(".") or path.suffix.lower() in NOT_PICTURES:
            continue
        name = path.relative_to(side).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"got both {found[name]} and {path}; expected one picture a name; rename one")
        found[name] = path
    return found


def _captions(root: Path) -> dict[str, str]:
    """file_name, as written, -> caption, of every caption table in the folder."""
    captions: dict[str, str] = {}
    for table in [folder / file for folder in (root, *(root / s for s in SIDES)) for file in CAPTION_FILES]:
        for where, row in read_table(table) if table.is_file() else ():
            file, text = first_of(row, ("file_name", "filename", "file")), first_of(row, PROMPT_COLUMNS)
            if file is None or text is None:
                raise ValueError(
                    f"{where}: got columns {', '.join(row)}; expected file_name and one of "
                    f"{', '.join(PROMPT_COLUMNS)}; rename the columns"
                )
            captions[str(row[file]).removeprefix("./")] = str(row[text] or "").strip()
    return captions


def _prompt(root: Path, name: str, pair: list[Path], captions: dict[str, str]) -> str:
    """The caption listed for either picture, else that of a NAME.txt, else nothing."""
    listed = [path.relative_to(root).as_posix() for path in pair]
    listed += [path.relative_to(root / side).as_posix() for path, side in zip(pair, SIDES, strict=True)]
    for key in (*listed, name):
        if captions.get(key):
            return captions[key]
    for text in (*(path.with_suffix(".txt") for path in pair), root / f"{name}.txt"):
        if text.is_file():
            return " ".join(line.strip() for _, line in read_lines(text)).strip()
    return ""


def _few(names: list[str]) -> str:
    return ", ".join(names[:3])
