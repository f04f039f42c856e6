"""Images as people have them, in one call: what is read how, what is refused, and the table of scores."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import rewards
from rewards import Prepared, Reward, Scores, inputs
from rewards.preprocess import Geometry
from t2ialign.data.images import open_rgb
from tests.rewards.test_preprocess import MODES
from tests.scoring.images import Channels, Match

CLIP = "toy-clip"


class Redness(Reward):
    """Mean red; counts its calls."""

    needs_text = False
    shapes: list[torch.Size]

    def __init__(self) -> None:
        super().__init__()
        self.shapes = []

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        self.shapes.append(images.shape)
        return images[:, 0].mean((1, 2))


def plain(level: int, width: int = 8, height: int = 6) -> Image.Image:
    return Image.new("RGB", (width, height), (level, 0, 0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png, b.jpg of another size, c.png transparent, d.jpg upright by its EXIF only, and broken ones."""
    plain(255).save(tmp_path / "a.png")
    plain(51, 20, 10).save(tmp_path / "b.jpg", quality=100, subsampling=0)
    Image.new("RGBA", (4, 4), (0, 0, 0, 51)).save(tmp_path / "c.png")
    turned = Image.new("RGB", (16, 8))
    exif = Image.Exif()
    exif[274] = 6
    turned.save(tmp_path / "d.jpg", exif=exif)
    (tmp_path / "torn.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    return tmp_path


def test_files_are_upright_and_on_white(folder):
    reward = Redness()
    files = [folder / name for name in ("a.png", "b.jpg", "c.png", "d.jpg")]
    assert reward(files, "").tolist() == pytest.approx([1.0, 0.2, 0.8, 0.0], abs=0.005)
    assert torch.Size([1, 3, 16, 8]) in reward.shapes
    assert reward.reference(files[2:], "").tolist() == pytest.approx([0.0, 0.0])
    assert reward.shapes[-1] == (1, 3, 8, 16)  # as it is stored, which is what authors' code opens


@pytest.mark.parametrize("mode", MODES)
def test_images_are_read_as_the_rest_of_the_project_reads_them(mode):
    image = MODES[mode]
    ours, theirs = (np.asarray(read) for read in (inputs.read([image])[0], open_rgb(image)))
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("levels", [np.uint16, np.float32])
def test_deep_grey_levels_are_scaled_too(levels):
    top = 65535 if levels is np.uint16 else 1.0
    image = Image.fromarray((np.linspace(0, 1, 48).reshape(6, 8) * top).astype(levels))
    assert np.array_equal(np.asarray(inputs.read([image])[0]), np.asarray(open_rgb(image)))


def test_a_tensor_in_a_list_keeps_its_gradient():
    images = [torch.rand(3, 4, 5, requires_grad=True), torch.rand(3, 7, 5, requires_grad=True), plain(255)]
    scores = rewards.load(CLIP)(images, ["a red circle", "a blue square", "a red circle"])
    assert scores.shape == (3,)
    scores.sum().backward()
    assert all(image.grad.abs().sum() > 0 for image in images[:2])


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (
            ["{f}/a.png", "{f}/no.png"],
            r"image 1 \(.*no.png\): got no such file; expected an image file",
        ),
        ("{f}", "got a folder; expected an image file"),
        (
            ["{f}/a.png", "{f}/torn.png"],
            r"image 1 \(.*torn.png\): got .*; expected a whole image .*; re",
        ),
        ("{f}/text.png", r"text.png: got bytes of no known image format; expected a whole image"),
        (
            np.zeros((3, 4, 4), np.uint8),
            r"uint8 \(3, 4, 4\); expected \(H, W, 3\).*transpose\(1, 2, 0\)",
        ),
        (np.zeros((4, 4), np.uint8), r"got array uint8 \(4, 4\); expected a path"),
        (np.zeros((4, 4, 4), np.uint8), r"image: got array uint8 \(4, 4, 4\); expected \(H, W, 3\)"),
        (np.full((4, 4, 3), 255.0), r"array of floats in \[255, 255\]; expected \[0, 1\]; scale it"),
        (np.full((4, 4, 3), np.nan), r"floats in \[nan, nan\]"),
        (np.zeros((4, 4, 3), np.int64), r"got array int64 \(4, 4, 3\); expected \(H, W, 3\) of uint8 or of"),
        (
            [torch.zeros(3, 4, 4), torch.full((3, 4, 4), 2.0)],
            r"image 1: got pixels in \[2, 2\]; expected",
        ),
        ([torch.zeros(1, 3, 4, 4)], r"image: got tensor float32 \(1, 3, 4, 4\); expected float \(3, H, W\)"),
        ([torch.zeros(3, 4, 4, dtype=torch.uint8)], "divide uint8 by 255"),
        ([None], "image: got NoneType None; expected a path, a PIL image, an array"),
        (b"PNG", "got bytes b'PNG' as images; expected a path"),
        ({"a": 1}, "got dict .* as images"),
        (3, "got int 3 as images"),
        ([], "got no images; expected at least one"),
    ],
)
def test_what_is_no_image_is_one_line_that_names_it(folder, images, words):
    if isinstance(images, str):
        images = images.format(f=folder)
    elif isinstance(images, list):
        images = [image.format(f=folder) if isinstance(image, str) else image for image in images]
    for call in (Redness(), lambda x, y: rewards.score({"red": Redness()}, x, y)):
        with pytest.raises(ValueError, match=words) as caught:
            call(images, "a cat")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 420


def test_prompts_are_one_for_all_or_one_each():
    assert inputs.matched("ab", 2) == ["ab", "ab"]
    with pytest.raises(ValueError, match="got 1 prompts for 2 rows; expected one each, or one string"):
        Redness()([plain(1), plain(2)], ["a"])
    with pytest.raises(ValueError, match=r"got prompt 1: float nan; expected a text; fill it in"):
        Redness()([plain(1), plain(2)], ["a", float("nan")])


def test_reference_takes_no_tensors():
    with pytest.raises(ValueError, match=r"image: got tensor float32 \(3, 4, 4\); expected a path"):
        Redness().reference(torch.rand(3, 4, 4), "a")


class Square(Prepared):
    """Mean of the square; counts how often it is asked."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry, self.seen = geometry, 0

    def score_prepared(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        self.seen += len(pixels)
        return pixels.mean((1, 2, 3))


def test_an_image_is_decoded_and_resized_once_and_encoded_once_a_tower(folder, monkeypatch):
    opened, resized = [], []
    read, reference = inputs._opened, Geometry.reference
    monkeypatch.setattr(inputs, "_opened", lambda *given: opened.append(1) or read(*given))
    monkeypatch.setattr(Geometry, "reference", lambda *given: resized.append(1) or reference(*given))
    tower = Channels()
    loaded = {
        "first": Match(tower, Geometry(4)),
        "second": Match(tower, Geometry(4)),
        "third": Square(Geometry(4)),
        "red": Redness(),
    }
    table = rewards.score(loaded, [folder / "a.png", folder / "b.jpg"], "a red circle")
    assert (len(opened), len(resized), tower.images) == (2, 2, [2])
    assert torch.equal(table["first"], table["second"])
    assert table["red"].tolist() == pytest.approx([1.0, 0.2], abs=0.005)


def test_many_images_are_taken_a_few_at_a_time():
    reward = Square(Geometry(4))
    table = rewards.score({"mean": reward}, [plain(level) for level in range(40)], "x")
    assert reward.seen == 40 and table["mean"].diff().min() > 0


def test_the_table(folder):
    """By names: a column each, a dict each image, a text that people read."""
    files = [folder / "a.png", folder / "b.jpg"]
    table = rewards.score([CLIP, "saturation"], files, ["a red circle", "a blue square " * 9])
    assert isinstance(table, Scores) and list(table) == [CLIP, "saturation"] and len(table) == 2
    loaded = rewards.load_all([CLIP, "saturation"])
    for name, reward in loaded.items():
        assert torch.allclose(table[name], reward(files, ["a red circle", "a blue square " * 9]), atol=1e-6)
    rows = table.rows()
    assert [row["image"] for row in rows] == [str(file) for file in files]
    assert rows[1]["prompt"] == "a blue square " * 9
    assert rows[0]["saturation"] == table["saturation"][0].item()
    lines = repr(table).splitlines()
    assert len(lines) == 3 and lines[0].split() == ["image", "prompt", CLIP, "saturation"]
    assert len({len(line) for line in lines}) == 1 and "..." in lines[2]
    again = rewards.score(loaded, files, "a red circle")
    assert again[CLIP][0] == pytest.approx(table[CLIP][0].item(), abs=1e-6)
    one = rewards.score("saturation", plain(9))
    assert lines[1].startswith("...") and lines[1].split()[0].endswith("a.png")
    assert one.rows() == [{"image": "image 0", "prompt": "", "saturation": pytest.approx(1.0)}]
    assert repr(one).splitlines()[0].split() == ["image", "saturation"]
    assert repr(rewards.score("saturation", [plain(i) for i in range(30)])).endswith("... and 10 more")


def test_pandas_makes_a_frame_of_the_rows():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rewards.score("saturation", [plain(9), plain(90)]).rows())
    assert list(frame.columns) == ["image", "prompt", "saturation"] and len(frame) == 2


@pytest.mark.parametrize(
    ("names", "prompts", "words"),
    [
        (CLIP, None, f"got no prompts for {CLIP}, which reads the prompt; expected a text; pass prompts"),
        (CLIP, ["a", " "], f"got an empty prompt for {CLIP}"),
        ("saturatoin", "a", "did you mean saturation"),
        ([], "a", "got none as rewards; expected names"),
        ([Redness()], "a", "got Redness as rewards; expected names"),
        ({"x": "saturation"}, "a", r"got str as x; expected a rewards.Reward"),
    ],
)
def test_mistakes_are_one_line(names, prompts, words):
    with pytest.raises(ValueError, match=words):
        rewards.score(names, [plain(1), plain(2)], prompts)


def test_the_table_is_what_t2ialign_score_writes(folder, tmp_path):
    """The same numbers on the same files, a transparent one and a turned one among them."""
    import json

    from t2ialign.cli.main import main

    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.jpg", "c.png", "d.jpg"):
        (images / name).write_bytes((folder / name).read_bytes())
    call = ["score", str(images), "--rewards", f"{CLIP},saturation,contrast", "--prompts", "a red circle"]
    assert main([*call, "-o", str(tmp_path / "s.jsonl"), "--workers", "0", "--device", "cpu"]) == 0
    lines = (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()
    written = {row["file"]: row for row in map(json.loads, lines)}
    files = sorted(images.iterdir())
    table = rewards.score([CLIP, "saturation", "contrast"], files, "a red circle")
    for row, file in enumerate(files):
        for name in table:
            assert written[file.name][name] == pytest.approx(table[name][row].item(), abs=1e-5)


def test_score_comes_without_t2ialign(folder):
    code = (
        "import sys; sys.modules['t2ialign'] = None\n"
        f"import rewards; print(rewards.score('saturation', {str(folder / 'a.png')!r})['saturation'].item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1.0", done.stderr


def test_an_open_file_is_an_image_too():
    stream = io.BytesIO()
    plain(255).save(stream, "PNG")
    assert Redness()(Image.open(stream), "").item() == 1.0


def test_a_batch_ends_where_its_pixels_are_too_many_and_order_stays():
    reward = Redness()
    images = [
        plain(level, *size)
        for level, size in zip(
            (0, 51, 102, 153, 204), [(8, 6), (8, 6), (20, 10), (8, 6), (8, 6)], strict=True
        )
    ]
    table = rewards.score({"red": reward}, images, max_batch_pixels=100)
    assert table["red"].tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert [shape[0] for shape in reward.shapes] == [2, 1, 2]
