"""A folder of images with captions beside them, which may have the sub-folders liked/ and disliked/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from t2ialign.data.files.tables import Row
from t2ialign.data.files.walk import ending, walk
from t2ialign.data.folder import is_pair_folder, table_captions
from t2ialign.data.image_folder import image_folder, table_key
from t2ialign.data.images import ENDINGS
from t2ialign.data.skipped import Fault

RATED = {"liked": True, "disliked": False}
"""Sub-folders, in any letter case, and whether their images are liked."""


def is_captioned(root: Path) -> bool:
    """Whether `root` is a folder of images, and none of pairs, of parquet files or of a saved data set."""
    if is_pair_folder(root) or any((root / f).is_file() for f in ("state.json", "dataset_dict.json")):
        return False
    endings = {ending(file) for file in walk(root)[0]}
    return ".parquet" not in endings and bool(endings & set(ENDINGS))


def captioned_rows(root: Path) -> Iterator[Row]:
    """Rows (prompt, image, liked) of the images below `root`, in order of name.

    The prompt comes from captions.jsonl or metadata.jsonl (or .json, .csv, .tsv; columns file_name and one of
    prompt, caption, text), else from NAME.txt or NAME.caption beside the image. With a sub-folder liked/ or
    disliked/ only images in these count; without one all are liked. An image without a caption is a row whose
    prompt is missing.
    """
    sides = {path: RATED[path.name.lower()] for path in sorted(root.iterdir()) if _is_side(path)}
    for side, liked in (sides or {root: True}).items():
        folder = image_folder(side)
        captions, tables = table_captions(list(dict.fromkeys((root, side))))
        folder.note(tables)
        for image in folder.images:
            name = image.relative_to(side).as_posix()
            keys = map(table_key, (f"{side.name}/{name}", name, folder.name(image)))
            listed = next((captions[key] for key in keys if captions.get(key)), None)
            try:
                prompt = listed or folder.caption(image)
            except ValueError as error:
                raise Fault("with a caption that cannot be read", str(error)) from error
            yield str(image), {"prompt": prompt, "image": image, "liked": liked}


def _is_side(path: Path) -> bool:
    return path.name.lower() in RATED and path.is_dir()
