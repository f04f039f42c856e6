"""The interfaces every reward implements, and the checks at their boundary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from rewards.length import too_long
from rewards.preprocess import Geometry

if TYPE_CHECKING:
    from PIL.Image import Image

    from rewards.inputs import Images

SLACK = 1e-3
"""How far outside [0, 1] rounding may carry a pixel; a [-1, 1] image is far beyond it."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What scores may be; other kinds of floats add no numbers up."""

CHUNK = 64
"""Rows that a table repeats at a time."""

SHOWN, LETTERS, REASON = 3, 60, 300
"""Prompts that a message quotes, characters of each, and of what an error of the user's code says."""


class UnfitImage(ValueError):
    """An image that a reward does not score, whatever is asked of it."""


class FailedRows(ValueError):
    """Scores that could not be had of some rows, whose prompts are `prompts`."""

    def __init__(self, message: str, prompts: Sequence[str]) -> None:
        super().__init__(message)
        self.prompts = list(prompts)


class Reward(nn.Module, ABC):
    """Scores images against prompts: higher is better, finite, one number an image."""

    differentiable: ClassVar[bool] = True
    """Whether gradients of the score reach the images; rules and oracles say False."""

    needs_text: ClassVar[bool] = True
    """Whether the score depends on the prompt. Scorers of the image alone say False: any prompt will do, such
    as "", and `t2ialign score` gives them pictures that have none."""

    @abstractmethod
    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,); called through the module, which checks both."""

    def forward(self, images: Images, prompts: str | Sequence[str]) -> Tensor:
        """Images, a prompt for each or one for all -> (B,).

        A tensor (B, 3, H, W) or (3, H, W) in [0, 1] keeps its gradient. Whatever else `inputs.Images` names,
        of any size, is read upright and on white, and scored by the authors' own preprocessing. Raises
        ValueError, naming the image, for what cannot be read and for other shapes, ranges or counts.
        """
        if isinstance(images, Tensor):
            images = images[None] if images.ndim == 3 else images
            check_images(images)
            prompts = [prompts] * len(images) if isinstance(prompts, str) else list(prompts)
            check_prompts(prompts, len(images))
            return _scored(self, images, prompts)
        from rewards import inputs, together

        given = inputs.listed(images)
        texts = inputs.matched(prompts, len(given))
        return together.score_items({"": self}, inputs.read(given), texts)[""]

    @torch.no_grad()
    def reference(self, images: Images, prompts: str | Sequence[str]) -> Tensor:
        """PIL images or paths, of any size and mode, a prompt for each or one for all -> (B,); no gradient.

        Everything is as in the authors' code: nothing is turned or laid on white, see `Geometry.rgb`. Raises
        ValueError, naming the image, for what cannot be read, and for tensors.
        """
        from rewards import inputs

        opened = inputs.opened(images)
        texts = inputs.matched(prompts, len(opened))
        return check_scores(self, self.score_pil(opened, texts), len(texts))

    def score_pil(self, images: list[Image], prompts: list[str]) -> Tensor:
        """B images of any size and mode, B prompts -> (B,): by the authors' own preprocessing.

        Here that is 8-bit RGB of its own size, and images of one size are scored at once.
        """
        from rewards import inputs, together

        return together.by_size(self, [inputs.tensor(image) for image in images], prompts)

    def table_pil(self, images: list[Image], candidates: list[list[str]]) -> Tensor:
        """B images of any size and mode, B lists of n_i prompts -> (sum n_i,), in order, as `score_pil`."""
        return _repeated(lambda rows, some: self.score_pil([images[row] for row in rows], some), candidates)

    def table(self, images: Tensor, candidates: Sequence[Sequence[str]]) -> list[Tensor]:
        """images (B, 3, H, W) in [0, 1], for each its own n_i prompts -> B tensors (n_i,); n_i may be 0.

        Every prompt is scored on that image. Raises ValueError like a call of the reward does.
        """
        check_images(images)
        if len(candidates) != len(images) or any(isinstance(c, str) for c in candidates):
            kind = "one string" if isinstance(candidates, str) else f"{len(candidates)} lists of prompts"
            raise ValueError(
                f"got {kind} for {len(images)} images; expected a list of prompts for each; pass [[prompt]]"
            )
        sizes = [len(prompts) for prompts in candidates]
        if not any(sizes):
            return [images.new_zeros(0) for _ in sizes]
        scores = self.score_table(images, [list(prompts) for prompts in candidates])
        return list(torch.split(check_scores(self, scores, sum(sizes)), sizes))

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,), in order.

        Images are repeated, `CHUNK` rows at a time; scorers that can encode an image once do better.
        """
        return _repeated(lambda rows, some: self.score(images[rows], some), candidates)

    def category(self, prompt: str) -> str | None:
        """The name under which results for this prompt are grouped in tables; None when there is none."""
        return None


class Prepared(Reward):
    """A scorer that sees every image as one square: it says which, and scorers of equal ones share it."""

    geometry: Geometry

    def preprocess(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] -> the squares the scorer reads (B, 3, S, S), normalised."""
        return self.geometry.tensor(images)

    @abstractmethod
    def score_prepared(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them, B prompts -> (B,)"""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,)"""
        return self.score_prepared(self.preprocess(images), prompts)

    def squares(self, images: Sequence[Image]) -> Tensor:
        """B images of any size and mode -> (B, 3, S, S), normalised, by the authors' own preprocessing."""
        pixels = torch.stack([self.geometry.reference(image) for image in images])
        return pixels.to(device_of(self))

    def score_pil(self, images: list[Image], prompts: list[str]) -> Tensor:
        """B images of any size and mode, B prompts -> (B,)"""
        return self.score_prepared(self.squares(images), prompts)

    def table_prepared(self, pixels: Tensor, candidates: list[list[str]]) -> Tensor:
        """pixels (B, 3, S, S) as `preprocess` gives them, B lists of n_i prompts -> (sum n_i,), in order."""
        return _repeated(lambda rows, some: self.score_prepared(pixels[rows], some), candidates)

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,), in order."""
        return self.table_prepared(self.preprocess(images), candidates)

    def table_pil(self, images: list[Image], candidates: list[list[str]]) -> Tensor:
        """B images of any size and mode, B lists of n_i prompts -> (sum n_i,): each is prepared once."""
        return self.table_prepared(self.squares(images), candidates)


class LatentReward(nn.Module, ABC):
    """Scores noisy latents at timestep t against prompts, without decoding them."""

    @abstractmethod
    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """latents (B, C, h, w) at timesteps t (B,) long, B prompts -> (B,)"""

    def forward(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """latents (B, C, h, w), t (B,) long, B prompts -> (B,). Raises ValueError for any other shape."""
        if latents.ndim != 4 or not latents.is_floating_point():
            raise ValueError(
                f"got latents {_describe(latents)}; expected float (B, C, h, w); pass a 4-d batch"
            )
        if t.shape != (len(latents),) or t.is_floating_point():
            raise ValueError(
                f"got t {_describe(t)}; expected integers ({len(latents)},); pass one timestep a row"
            )
        check_prompts(prompts, len(latents))
        return check_scores(self, self.score(latents, t, prompts), len(prompts))


def _repeated(score: Callable[[list[int], list[str]], Tensor], candidates: list[list[str]]) -> Tensor:
    """Scores of rows of images and as many prompts, asked `CHUNK` at a time -> (sum n_i,), in order."""
    rows = [row for row, prompts in enumerate(candidates) for _ in prompts]
    flat = [prompt for prompts in candidates for prompt in prompts]
    spans = [slice(start, start + CHUNK) for start in range(0, len(flat), CHUNK)]
    return torch.cat([score(rows[span], flat[span]) for span in spans])


def _scored(reward: Reward, images: Tensor, prompts: list[str]) -> Tensor:
    """Checked scores (B,). Of a reward of the user's, raises FailedRows with the rows that fail alone too."""

    def score(rows: slice) -> Tensor:
        with named_failures(reward, prompts[rows]):
            scores = reward.score(images[rows], prompts[rows])
        return check_scores(reward, scores, len(prompts[rows]))

    try:
        return score(slice(None))
    except ValueError as error:
        if type(error) is not ValueError or ships(reward):
            raise
        wrong = dict[str, str]()
        with torch.no_grad():
            for row, prompt in enumerate(prompts):
                try:
                    score(slice(row, row + 1))
                except ValueError as alone:
                    wrong.setdefault(prompt, str(alone))
        if not wrong or wrong.keys() == set(prompts):  # not a matter of rows
            raise FailedRows(str(error), prompts) from error
        more = f" ({len(wrong)} prompts of the batch fail)" if len(wrong) > 1 else ""
        first, message = next(iter(wrong.items()))
        told = message if repr(first[:LETTERS]) in message else f"{first[:LETTERS]!r}: {message}"
        raise FailedRows(told + more, list(wrong)) from error


def check_finite(name: str, scores: Tensor, prompts: Sequence[str]) -> Tensor:
    """The scores (B,). Raises FailedRows, naming reward and prompt, if one is NaN or infinite."""
    broken = (~scores.detach().isfinite()).nonzero().flatten().tolist()
    if broken:
        texts = list(dict.fromkeys(prompts[row] for row in broken))
        more = f" ({len(texts)} prompts of the batch fail)" if len(texts) > 1 else ""
        raise FailedRows(
            f"got a score of {scores[broken[0]].item()} from {name} for {texts[0][:LETTERS]!r}; expected a "
            f"finite number; fix the reward, or drop these rows{more}",
            texts,
        )
    return scores


def ships(reward: nn.Module) -> bool:
    """Whether a reward and all that it is made of are of this package, and not of the user's."""
    from rewards.towers.two_tower import Tower

    parts = [part for part in reward.modules() if isinstance(part, Reward | Tower)]
    return all(type(part).__module__.startswith("rewards.") for part in parts)


@contextmanager
def named_failures(reward: Reward, prompts: Sequence[str]) -> Iterator[None]:
    """Within it an error of code of the user's is a ValueError that names the reward and the prompts.

    Too little memory of a GPU stays what it is: a smaller batch helps.
    """
    try:
        yield
    except (ValueError, OSError, torch.OutOfMemoryError):
        raise
    except BaseException as error:  # exit() in that code is no wish of the user's to stop
        if isinstance(error, KeyboardInterrupt) or ships(reward):
            raise
        more = f" and {len(prompts) - SHOWN} more" if len(prompts) > SHOWN else ""
        texts = ", ".join(repr(prompt[:LETTERS]) for prompt in prompts[:SHOWN])
        reason = " ".join(str(error).split())[:REASON] or "no message"
        raise ValueError(
            f"got {type(error).__name__} ({reason}) from {type(reward).__name__}.score for {texts}{more}; "
            "expected scores; fix that method, or drop these rows"
        ) from error


def device_of(module: nn.Module) -> torch.device:
    """Where its weights are; the CPU without any."""
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def check_images(images: Tensor) -> None:
    """Raises ValueError unless float (B, 3, H, W) in [0, 1], up to `SLACK`, with at least one pixel."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        hint = "divide uint8 by 255" if images.shape[1:2] == (3,) else "stack RGB images to a batch"
        raise ValueError(f"got images {_describe(images)}; expected float (B, 3, H, W) in [0, 1]; {hint}")
    if not images.numel():
        raise ValueError(f"got images {_describe(images)}; expected at least one pixel; skip empty batches")
    low, high = (float(v) for v in images.detach().aminmax())
    if not (low >= -SLACK and high <= 1 + SLACK):  # written so that NaN fails too
        raise ValueError(
            f"got pixels in [{low:.3g}, {high:.3g}]; expected [0, 1]; map [-1, 1] with x / 2 + 0.5"
        )


def check_prompts(prompts: list[str], rows: int) -> None:
    """Raises ValueError unless there is a list of one prompt a row, none longer than `LONGEST_PROMPT`."""
    if isinstance(prompts, str):
        raise ValueError(f"got one string {prompts!r}; expected a list of prompts; pass [prompt]")
    if len(prompts) != rows:
        raise ValueError(
            f"got {len(prompts)} prompts for {rows} rows; expected one each; repeat or drop some"
        )
    if wrong := next(filter(None, map(too_long, prompts)), None):
        raise ValueError(wrong)


def check_scores(module: nn.Module, scores: object, rows: int) -> Tensor:
    """The scores, if float (rows,). Raises ValueError, naming the class that made them, if not."""
    if not isinstance(scores, Tensor):
        raise ValueError(
            f"got a {type(scores).__name__} from {type(module).__name__}.score; expected a float tensor "
            f"({rows},); fix that method"
        )
    usable = scores.dtype in DTYPES and scores.layout == torch.strided and not scores.is_meta
    if scores.is_nested or scores.shape != (rows,) or not usable:
        name = type(module).__name__
        raise ValueError(
            f"got {_describe(scores)} from {name}.score; expected float ({rows},); fix that method"
        )
    return scores


def _describe(x: Tensor) -> str:
    kind = str(x.dtype).removeprefix("torch.")
    if x.is_nested or x.layout != torch.strided or x.is_meta:
        return f"{kind} of layout {x.layout} on {x.device}"
    return f"{kind} {tuple(x.shape)}"
