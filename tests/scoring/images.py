"""Rewards, folders and shards that the tests of scoring share; rewards count what they are asked to do."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from rewards import Geometry, Prepared, Reward, Tower, TwoTower

SQUARE = Geometry(8, "squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PADDED = Geometry(6, "pad", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
COLOURS = ("red", "green", "blue")


class Redness(Reward):
    """Mean red of the whole image; remembers the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[torch.Size] = []

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        self.batches.append(images.shape)
        return images[:, 0].mean((1, 2))


class Counting(Redness):
    """Counts images over all runs, and can be told to stop one."""

    seen = 0
    stop_at: int | None = None

    def score(self, images, prompts):
        if Counting.stop_at is not None and Counting.seen >= Counting.stop_at:
            raise KeyboardInterrupt
        Counting.seen += len(images)
        return super().score(images, prompts)


class Fussy(Redness):
    """A rule that knows some prompts only."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        if unknown := [prompt for prompt in prompts if "?" in prompt]:
            raise ValueError(f"got prompt {unknown[0]!r}; expected none with a question")
        return super().score(images, prompts)


class Channels(Tower):
    """Mean colour as image embedding, colour words as text embedding; counts its forwards."""

    def __init__(self) -> None:
        super().__init__("channels")
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.images: list[int] = []
        self.prompts: list[list[str]] = []

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.images.append(len(pixels))
        return nn.functional.normalize(pixels.float().mean((2, 3)) + 1e-6, dim=-1) * self.scale

    def encode_text(self, prompts: list[str]) -> Tensor:
        self.prompts.append(prompts)
        words = [[float(colour in prompt) for colour in COLOURS] for prompt in prompts]
        return nn.functional.normalize(torch.tensor(words) + 1e-6, dim=-1)

    def text_parameters(self) -> list[nn.Parameter]:
        return [self.scale]


class Match(TwoTower):
    """Cosine of image and prompt."""

    def head(self, image: Tensor, text: Tensor | None) -> Tensor:
        assert text is not None
        return (image * text).sum(-1)


class Brightness(TwoTower):
    """A head on the image embedding alone."""

    needs_text = False

    def head(self, image: Tensor, text: Tensor | None) -> Tensor:
        assert text is None
        return image.sum(-1)


class Corner(Prepared):
    """Red of the first pixel of the padded square."""

    def __init__(self) -> None:
        super().__init__()
        self.geometry = PADDED

    def score_prepared(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        return pixels[:, 0, 0, 0]


def build_match() -> Match:
    """What --rewards tests.scoring.images:build_match loads."""
    return Match(Channels(), SQUARE)


def build_redness() -> Redness:
    """Likewise for a reward of raw images."""
    return Redness()


def plain(red: int, green: int = 0, blue: int = 0, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """An image of one colour."""
    return Image.new("RGB", size, (red, green, blue))


def folder(root: Path, images: Mapping[str, tuple[Image.Image, str | None]]) -> Path:
    """Images by name, each with its prompt beside it, if any."""
    for name, (image, prompt) in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        if prompt is not None:
            path.with_suffix(".txt").write_text(prompt)
    return root


def reds(root: Path, count: int) -> Path:
    """`count` plain images, the i-th with red i and prompt "red i"."""
    return folder(root, {f"{i:03d}.png": (plain(i), f"red {i}") for i in range(count)})


def png(image: Image.Image) -> bytes:
    """The image as a file's content."""
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    """An archive with these members, in order."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
