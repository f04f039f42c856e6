"""What fails within a reward: of whose code, for which images and for which prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SHOWN, LETTERS, REASON = 3, 60, 300
"""Prompts that a message quotes, characters of each, and of what an error of the user's code says."""


class UnfitImage(ValueError):
    """An image that a reward does not score, whatever is asked of it."""


class FailedRows(ValueError):
    """Scores that could not be had of some rows, whose prompts are `prompts`."""

    def __init__(self, message: str, prompts: Sequence[str]) -> None:
        super().__init__(message)
        self.prompts = list(prompts)


class Part(nn.Module):
    """What a user may write a subclass of: a reward or a tower. `ships` asks each where it was defined."""


def ships(reward: nn.Module) -> bool:
    """Whether a reward and all that it is made of are of this package, and not of the user's."""
    parts = [part for part in reward.modules() if isinstance(part, Part)]
    return all(type(part).__module__.startswith("rewards.") for part in parts)


@contextmanager
def named_failures(reward: nn.Module, prompts: Sequence[str]) -> Iterator[None]:
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


def scored_apart(reward: nn.Module, score: Callable[[slice], Tensor], prompts: list[str]) -> Tensor:
    """Scores (B,). For a reward of the user's, raises FailedRows with the rows that fail alone too.

    score: rows of the batch -> their scores.
    """
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
