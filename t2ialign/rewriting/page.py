"""A page of prompts and their rewrites, side by side, and of the images of both where there are any."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from t2ialign.io import atomic, naming
from t2ialign.rewriting.rewriter import Rewritten
from t2ialign.rewriting.survival import check
from t2ialign.web.embedded import Shown, style_of
from t2ialign.web.pages import render

ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class Images:
    """The image of a prompt and that of its rewrite, of one seed; the same file twice if nothing changed."""

    before: Path
    after: Path
    seed: int


def check_page(file: Path) -> None:
    """Raises ValueError for what cannot be a page: another ending, a folder, or a file below a file."""
    if file.suffix.lower() not in ENDINGS or file.is_dir():
        raise ValueError(f"got {naming.given('html', file)}; expected a file that ends in .html; rename it")
    if files := [parent for parent in file.parents if parent.is_file()]:
        raise ValueError(
            f"got {naming.given('html', file)}, but {files[0]} is a file; expected a folder; choose another"
        )


def write(
    file: Path,
    results: Sequence[Rewritten],
    *,
    rewriter: str,
    images: Sequence[Sequence[Images]] | None = None,
) -> None:
    """Write the page at once; images, one sequence a result, are linked relative to its folder.

    rewriter: its name and settings on one line. Nothing of what is shown is taken for HTML, and the page
    needs no network.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    cards = [_card(result) for result in results]
    for card, pairs in zip(cards, images or [()] * len(cards), strict=True):
        card["pairs"] = [_links(pair, card["result"], file.parent) for pair in pairs]
    used = sum(result.used == "rewrite" for result in results)
    title = "Prompts and their rewrites"
    atomic.write_text(file, render("rewrites.html", title=title, cards=cards, used=used, rewriter=rewriter))


def _card(result: Rewritten) -> dict[str, Any]:
    """What the template shows of a result."""
    lost = set(result.lost)
    checked = [*check(result.prompt, ""), *result.lost] if result.rewrite else []
    return {
        "result": result,
        "survival": [(item, item not in lost) for item in dict.fromkeys(checked)],
        "pairs": [],
    }


def _links(pair: Images, result: Rewritten, folder: Path) -> Mapping[str, Any]:
    with Image.open(pair.before, formats=["PNG"]) as image:
        style = style_of(image.size)
    before = Shown(_link(pair.before, folder), f"Image of the prompt: {result.prompt}", style)
    after = Shown(_link(pair.after, folder), f"Image of the rewrite: {result.rewrite}", style)
    return {"before": before, "after": after, "seed": pair.seed, "same": pair.before == pair.after}


def _link(file: Path, folder: Path) -> str:
    try:
        return quote(Path(os.path.relpath(file, folder)).as_posix())
    except ValueError:  # another drive of Windows
        return file.resolve().as_uri()
