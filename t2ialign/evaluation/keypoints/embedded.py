"""Annotated key points as embeddings of a frozen two-tower scorer, stored so that each is computed once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from rewards import TwoTower, tensor_files
from rewards.device import default_device
from rewards.keypoints.evaluator_head import Features, paired
from rewards.renamed import same
from t2ialign.data.cache.shards import whole_file
from t2ialign.data.images import open_rgb
from t2ialign.data.room import Room
from t2ialign.evaluation.keypoints.annotated import Annotated
from t2ialign.io import atomic
from t2ialign.io.hashes import HASHES, digest, fault, note, noted
from t2ialign.io.locks import hold_folder
from t2ialign.progress import Progress

MADE_OF = "made_of.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """N key points on images: embeddings, whether each matches (N,) of 0 and 1, and each one's prompt."""

    features: Features
    labels: Tensor
    numbers: np.ndarray
    """(N,) the place of the prompt in `prompts`."""
    prompts: list[str]

    def part(self, chosen: np.ndarray) -> tuple[Features, Tensor, list[str]]:
        """(features, labels, prompts) of the rows where `chosen` (N,) is true."""
        rows = torch.from_numpy(np.flatnonzero(chosen)).to(self.labels.device)
        names = [self.prompts[number] for number in self.numbers[chosen]]
        return self.features[rows], self.labels[rows], names


def embed(
    records: Iterator[Annotated],
    folder: Path,
    base: Callable[[], TwoTower],
    *,
    images: int,
    made_of: Mapping[str, Any],
) -> Embedded:
    """Embed what the folder lacks, a file for so many `images`, and give all of it.

    `base` loads the scorer, if there is anything to embed. `made_of` (plain JSON) says what records and
    scorer these are. Raises ValueError for a folder of others, no records, and an image that cannot be read.
    """
    with hold_folder(folder, "cache "):
        _claim(folder, {**made_of, "pictures": images})
        return _embedded(records, folder, base, images)


def _embedded(
    records: Iterator[Annotated], folder: Path, base: Callable[[], TwoTower], images: int
) -> Embedded:
    known = noted(folder)
    prompts: dict[str, int] = {}
    numbers: list[int] = []
    files: list[Path] = []
    scorer: TwoTower | None = None
    with Progress(desc="embed", unit="image", delay=3) as bar:
        while batch := list(islice(records, images)):
            files.append(folder / f"features-{len(files):06d}.safetensors")
            if not _is_whole(files[-1], known):
                scorer = scorer or base()
                with whole_file(files[-1]) as partial:
                    tensor_files.write(_tensors(scorer, batch), partial)
                    note(folder, files[-1].name, digest(partial))
            for record in batch:
                numbers += [prompts.setdefault(record.prompt, len(prompts))] * len(record.points)
            bar.update(len(batch))
    if not files:
        raise ValueError("got no annotated images; expected some rows; check the data")
    return _stored(files, np.array(numbers), list(prompts))


@torch.no_grad()
def _tensors(scorer: TwoTower, batch: Sequence[Annotated]) -> dict[str, Tensor]:
    """The content of a file: an image embedding per image, the rest per key point."""
    room = Room()

    def square(one: Annotated) -> Tensor:
        with torch.no_grad(), room.taken() as admit:  # of this thread: what is off in another is on here
            return _square(scorer, open_rgb(one.image, name=one.name, admit=admit))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        squares = list(pool.map(square, batch))
    image = scorer.encode_image(torch.cat(squares))
    features = paired(scorer, image, [record.points for record in batch])
    rows = [row for row, record in enumerate(batch) for _ in record.points]
    labels = [float(match) for record in batch for match in record.matches]
    tensors = {"image": image, "row": torch.tensor(rows), "text": features.text, "kind": features.kind}
    tensors["label"] = torch.tensor(labels)
    return tensors


def _square(scorer: TwoTower, image: Image.Image) -> Tensor:
    """The image as the fitted head will see it: (1, 3, S, S), by the scorer's path for tensors."""
    device = next(scorer.parameters()).device
    pixels = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None]
    return scorer.preprocess(pixels.float().div_(255))


def _stored(files: Sequence[Path], numbers: np.ndarray, prompts: list[str]) -> Embedded:
    device = default_device()
    shards = [load_file(file, device=str(device)) for file in files]
    image = torch.cat([shard["image"][shard["row"]] for shard in shards])
    text, kind, label = (torch.cat([shard[name] for shard in shards]) for name in ("text", "kind", "label"))
    return Embedded(Features(image, text, kind), label, numbers, prompts)


def _is_whole(file: Path, known: Mapping[str, str] | None) -> bool:
    """Whether a file is there as it was written; of an older version, without hashes, whether it is read."""
    if not file.is_file():
        return False
    if wrong := fault(file, None if known is None else known.get(file.name, "")):
        log.warning("cache %s is damaged (%s): the damaged part is built anew", file.parent, wrong)
    return wrong is None


def _claim(folder: Path, made_of: dict[str, Any]) -> None:
    """Claim the folder for this run. Raises ValueError for other embeddings in it."""
    file = folder / MADE_OF
    try:
        earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else made_of
    except ValueError:
        earlier = None
    if not isinstance(earlier, dict):
        log.warning("cache %s is damaged (%s is no JSON object): all of it is built anew", folder, MADE_OF)
        for path in [folder / HASHES, *folder.glob("features-*.safetensors")]:
            path.unlink(missing_ok=True)
        earlier = made_of
    if keys := [key for key in made_of if not same(earlier.get(key), made_of[key])]:
        raise ValueError(
            f"got cache {folder} made with another {' and another '.join(keys)}; expected the same; delete "
            "it or choose another cache="
        )
    atomic.write_json(file, made_of)
    if noted(folder) is None:
        for features in sorted(folder.glob("features-*.safetensors")):  # of an older version
            if fault(features, None) is None:
                note(folder, features.name, digest(features))
