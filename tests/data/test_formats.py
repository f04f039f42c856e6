"""Pillow opens the raster formats that are named, and nothing that would start a program."""

import ast
import subprocess
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from rewards import inputs
from t2ialign.data import images
from t2ialign.data.images import open_rgb
from t2ialign.evaluation.manifest_scores import read_image

ROOT = Path(__file__).parents[2]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(%pipe%touch ran) (w) file\n%%EOF\n"


@pytest.mark.parametrize("read", [open_rgb, read_image, lambda file: inputs._opened(file, "image 0")])
def test_postscript_under_the_name_of_a_png_is_refused(read, tmp_path: Path, monkeypatch) -> None:
    def no_program(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", no_program)
    monkeypatch.setattr(subprocess, "Popen", no_program)
    file = tmp_path / "a.png"
    file.write_bytes(EPS)
    with Image.open(file) as opened:
        assert opened.format == "EPS", "Pillow alone would take it"
    with pytest.raises(ValueError, match="expected"):
        read(file)


def test_both_packages_open_the_same_formats() -> None:
    assert set(inputs.FORMATS) == set(images.FORMATS)


def test_no_file_is_opened_without_a_list_of_formats() -> None:
    files = [file for part in ("t2ialign", "rewards", "scripts") for file in (ROOT / part).rglob("*.py")]
    calls = [
        (file.name, {word.arg for word in node.keywords})
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
    ]
    assert len(calls) >= 4
    assert [name for name, given in calls if "formats" not in given] == []
