"""What `datasets` opens: images stay encoded at any depth, so that Pillow's other formats are not tried."""

import io
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import EpsImagePlugin, Image

from t2ialign.data.sources import read_rows

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(%pipe%touch ran) (w) file\n%%EOF\n"


def test_no_program_starts_for_an_image_within_a_list(tmp_path: Path, monkeypatch) -> None:
    def no_program(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", no_program)
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    image, eps = ({"bytes": content, "path": None} for content in (png.getvalue(), EPS))
    kinds = datasets.Features(
        prompt=datasets.Value("string"),
        chosen=datasets.Image(),
        names=datasets.List(datasets.Value("string")),
        more=datasets.List(datasets.Image()),
        parts={"a": {"b": datasets.List(datasets.Image())}},
        sound=datasets.Audio(),
    )
    row: dict[str, Any] = {"prompt": "p", "chosen": image, "names": ["n"], "more": [eps]}
    row |= {"parts": {"a": {"b": [eps]}}, "sound": None}
    data = datasets.Dataset.from_list([row], features=kinds)
    data.save_to_disk(str(tmp_path / "saved"))
    rows, _ = read_rows(
        str(tmp_path / "saved"), select=lambda _, names: names, split="train", streaming=False
    )
    ((_, read),) = rows
    assert read == {"prompt": "p", "chosen": image, "names": ["n"], "sound": None}
    with pytest.raises(AssertionError, match="a program was started"):
        data[0]
