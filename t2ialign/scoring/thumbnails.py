"""Images of a source read once more for a page: only those that are shown, and none from outside."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from t2ialign.io.inside import lies_within
from t2ialign.scoring import output
from t2ialign.scoring.decode import read_image
from t2ialign.scoring.items import Item, Source
from t2ialign.web.embedded import Shown, shown

Place = tuple[int, int]
"""Shard and row."""

log = logging.getLogger(__name__)


def thumbnails(source: Source, wanted: Mapping[Place, str]) -> Iterator[tuple[Place, Shown]]:
    """Images of places and file names, embedded; shards are read no further than needed.

    One that is gone since it was scored, or in whose place another file lies now, is left out, and so is one
    that lies outside the folder that is the source, by a link or a table in it: the page may be passed on.
    """
    outside = 0
    for shard in sorted({shard for shard, _ in wanted}):
        left = {place for place in wanted if place[0] == shard}
        for item in source.read(shard):
            place = item.shard, item.row
            if place not in left:
                continue
            left.discard(place)
            if _is_outside(source, item):
                outside += 1
            else:
                with suppress(ValueError):
                    if output.text(item.file) == wanted[place]:
                        yield place, shown(read_image(item), item.prompt or item.file)
            if not left:
                break
    if outside:
        log.warning(
            "%s: %d images lie outside the folder and are not shown on the page; name them by a table to "
            "show them",
            source.name,
            outside,
        )


def _is_outside(source: Source, item: Item) -> bool:
    return (
        source.root is not None and isinstance(item.image, Path) and not lies_within(source.root, item.image)
    )
