"""Does the image say what the prompt quotes? An OCR reward over an interface of text readers.

The reward of Flow-GRPO (Liu et al. 2025), with two of its habits changed: a prompt without quotes is an error
instead of a crash, and a reader that fails raises instead of scoring 0. The reader that comes with the extra
`t2ialign[ocr]` is RapidOCR on onnxruntime, whose wheel carries its weights (PP-OCR, Apache-2.0).
"""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewards.base import Reward
from rewards.pixels import arrays

NAMES: dict[str, dict[str, str]] = {
    "ocr": {"form": "contains"},
    "ocr-exact": {"form": "exact"},
    "text-area": {"form": "area"},
}
TABLE = {
    "ocr, ocr-exact": (
        "RapidOCR's, in its wheel | 8 bits | the text in double quotes | [0, 1] | no | Apache-2.0"
    ),
    "text-area": "likewise | 8 bits | nothing | share of the image, [0, 1] | no | Apache-2.0",
}

_QUOTED = re.compile('"([^"]*)"|\u201c([^\u201d]*)\u201d')


@dataclass(frozen=True)
class Line:
    """One line of text as read, its confidence in [0, 1], its corners ((x, y), ...) in pixels, in turn."""

    text: str
    score: float
    corners: tuple[tuple[float, float], ...]

    @property
    def area(self) -> float:
        """Square pixels inside the corners, by the shoelace formula."""
        turned = zip(self.corners, self.corners[1:] + self.corners[:1], strict=True)
        return abs(math.fsum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in turned)) / 2


class TextReader(ABC):
    """An OCR engine."""

    @abstractmethod
    def read(self, images: Tensor) -> list[list[Line]]:
        """images (B, 3, H, W) in [0, 1] -> for each image its lines, in reading order."""


class RapidReader(TextReader):
    """RapidOCR (`pip install 't2ialign[ocr]'`) on the CPU: Latin and Chinese print, no network and no GPU."""

    def __init__(self, **params: Any) -> None:
        """`params` are RapidOCR's own, such as {"Global.text_score": 0.5}. Raises ValueError if absent."""
        try:
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ValueError(
                f"got no OCR engine ({error}); expected rapidocr and onnxruntime; pip install "
                "'t2ialign[ocr]', or pass a TextReader of your own"
            ) from error
        self.engine = RapidOCR(params={"Global.log_level": "error", **params})

    def read(self, images: Tensor) -> list[list[Line]]:
        """images (B, 3, H, W) in [0, 1] -> for each image its lines, from the top down."""
        return [
            self._lines(self.engine(array[:, :, ::-1].copy())) for array in arrays(images)
        ]  # it wants BGR

    def _lines(self, result: Any) -> list[Line]:
        if not result.txts:
            return []
        rows = zip(result.txts, result.scores, result.boxes.tolist(), strict=True)
        return [Line(text, float(score), tuple((x, y) for x, y in box)) for text, score, box in rows]


def quoted(prompt: str) -> str:
    """The text inside the first pair of double quotes, straight or curly.

    Raises ValueError when there is no pair, or nothing inside it.
    """
    match = _QUOTED.search(prompt)
    text = (match[1] or match[2] or "") if match else ""
    if not squeezed(text):
        raise ValueError(
            f"got prompt {prompt!r}; expected the text to draw in double quotes, as in: a sign that says "
            '"open"; quote it'
        )
    return text


def squeezed(text: str) -> str:
    """Lower case without blanks: how target and reading are compared."""
    return "".join(text.lower().split())


def edit_distance(a: str, b: str) -> int:
    """Levenshtein: the fewest letters inserted, deleted or replaced that turn a into b."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]


def contains(target: str, reading: str) -> float:
    """1 where the reading contains the target, else 1 - distance / len(target), never below 0; both squeezed.

    Once contained, all else that is written is forgiven: a text drawn many times over scores 1, which is
    how it is hacked; see `exact`. Until then all else counts as errors.
    """
    target, reading = squeezed(target), squeezed(reading)
    if target in reading:
        return 1.0
    return 1 - min(edit_distance(target, reading), len(target)) / len(target)


def exact(target: str, reading: str) -> float:
    """1 - distance / length of the longer one, in [0, 1]: text beside the target costs, repeats included."""
    target, reading = squeezed(target), squeezed(reading)
    return 1 - edit_distance(target, reading) / max(len(target), len(reading))


FORMS = {"contains": contains, "exact": exact}


class Ocr(Reward):
    """How well the text in the image matches what the prompt quotes, in [0, 1]; not differentiable."""

    differentiable = False

    def __init__(self, reader: TextReader, form: str = "contains") -> None:
        """Raises ValueError for an unknown form."""
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"got form {form!r}; expected one of {', '.join(FORMS)}; choose one")
        self.reader, self.match = reader, FORMS[form]

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts with a quoted text -> (B,) in [0, 1].

        The lines of an image are joined without blanks. Raises ValueError for a prompt that quotes nothing.
        """
        return self.score_table(images, [[prompt] for prompt in prompts])

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,): each image is read once."""
        targets = [[quoted(prompt) for prompt in prompts] for prompts in candidates]  # before any is read
        readings = ["".join(line.text for line in lines) for lines in self.reader.read(images)]
        rows = zip(readings, targets, strict=True)
        scores = [self.match(target, reading) for reading, wanted in rows for target in wanted]
        return torch.tensor(scores, device=images.device)


class TextArea(Reward):
    """Share of the image that text covers, in [0, 1]: for prompts that ask for none; not differentiable."""

    differentiable = False
    needs_text = False

    def __init__(self, reader: TextReader) -> None:
        super().__init__()
        self.reader = reader

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts, which are not read -> (B,) in [0, 1]"""
        whole = images.shape[-1] * images.shape[-2]
        areas = [math.fsum(line.area for line in lines) for lines in self.reader.read(images)]
        return torch.tensor([min(area / whole, 1.0) for area in areas], device=images.device)


def build(form: str = "contains", reader: TextReader | None = None) -> Reward:
    """The OCR reward, or the area of text; with RapidOCR unless given a reader."""
    reader = reader or RapidReader()
    return TextArea(reader) if form == "area" else Ocr(reader, form)
