"""TextNorm: how much better an image fits its prompt than prompts that ask for something else.

Kim et al., "Confidence-aware Reward Optimization for Fine-tuning Text-to-Image Models", ICLR 2024,
https://arxiv.org/abs/2404.01863. One scale for a scorer, fitted on labelled images by `fit_scale`; the
published scores chose one for each prompt, which no user can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

from rewards.base import Reward
from rewards.renamed import current
from rewards.text.contrast import LIMIT, near_misses, read_sets
from rewards.text.contrast_words import TOY_WORLD
from rewards.toy.captions import parse

NAMES: dict[str, dict[str, str | float]] = {
    "toy-textnorm": {"base": "toy-clip", "contrast": "toy", "scale": 48.5}
}
TABLE = {
    "toy-textnorm": (
        "in the package | as `toy-clip` | and its near misses | probability, (0, 1) | yes | Apache-2.0"
    ),
}
# The scale is what fit_scale gives on 720 renders of 90 training captions, half of them of a near miss.

KEEP = 65536
"""Prompts whose contrasts are kept."""

Form = Literal["probability", "log", "logit"]
Contrast = Mapping[str, Sequence[str]] | Callable[[str], Sequence[str]]


class TextNorm(Reward):
    """Probability of the prompt among its contrasts, softmax over scale * base: in (0, 1).

    `form` "log" is its logarithm, for back-propagation: the probability saturates. "logit" is its log-odds,
    for sums and `LSC`. Chance, 1 / (1 + n), depends on the number n of contrasts: compare images of one
    prompt, or prompts of equal n.
    """

    def __init__(self, base: Reward, contrast: Contrast, *, scale: float, form: Form = "probability") -> None:
        super().__init__()
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"got scale {scale}; expected a positive number; fit one with fit_scale")
        if not base.needs_text:
            raise ValueError(
                f"got base {type(base).__name__}, which does not read the prompt; expected a reward that "
                "does, since all prompts would score alike; choose another base"
            )
        if form not in get_args(Form):
            raise ValueError(f"got form {form!r}; expected one of {', '.join(get_args(Form))}; choose one")
        self.base, self.contrast, self.scale, self.form = base, contrast, scale, form
        self._known: dict[str, tuple[str, ...]] = {}

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """Whether the base is."""
        return self.base.differentiable

    def rivals(self, prompt: str) -> tuple[str, ...]:
        """The contrasts of a prompt, looked up or made once. Raises ValueError if there are none."""
        if prompt not in self._known:
            if len(self._known) >= KEEP:
                self._known.clear()
            self._known[prompt] = self._look_up(prompt)
        return self._known[prompt]

    def _look_up(self, prompt: str) -> tuple[str, ...]:
        if isinstance(self.contrast, Mapping):
            if prompt not in self.contrast:
                raise ValueError(f"got prompt {prompt!r}; expected one with contrasts; add some for it")
            contrasts = self.contrast[prompt]
        else:
            contrasts = self.contrast(prompt)
        if isinstance(contrasts, str) or not contrasts:
            raise ValueError(f"got no list of contrasts for {prompt!r}; expected at least one; add some")
        return tuple(contrasts)

    def raw(self, images: Tensor, prompts: list[str]) -> list[Tensor]:
        """images (B, 3, H, W) in [0, 1], B prompts -> B tensors (1 + n_i,) of the base: prompt, contrasts.

        What `fit_scale` takes. An image is encoded once for all its prompts if the base can.
        """
        return self.base.table(images, [[prompt, *self.rivals(prompt)] for prompt in prompts])

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,). Raises ValueError for one without contrasts."""
        return normalised(self.raw(images, prompts), scale=self.scale, form=self.form)

    def score_pil(self, images: list[Image], prompts: list[str]) -> Tensor:
        """B images of any size and mode, B prompts -> (B,), by the base's own preprocessing."""
        return normalised(self.raw_pil(images, prompts), scale=self.scale, form=self.form)

    def raw_pil(self, images: list[Image], prompts: list[str]) -> list[Tensor]:
        """Score B images of any size and mode as `raw` does, with the preprocessing of the base."""
        prompts_of_image = [[prompt, *self.rivals(prompt)] for prompt in prompts]
        return list(
            torch.split(
                self.base.table_pil(images, prompts_of_image), [len(some) for some in prompts_of_image]
            )
        )

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,), each image encoded once."""
        groups = [[[prompt, *self.rivals(prompt)] for prompt in prompts] for prompts in candidates]
        rows = self.base.table(images, [list(chain.from_iterable(group)) for group in groups])
        parts = [
            part
            for row, group in zip(rows, groups, strict=True)
            for part in torch.split(row, [len(prompts) for prompts in group])
        ]
        return normalised(parts, scale=self.scale, form=self.form)

    def category(self, prompt: str) -> str | None:
        """The category that the base gives to the prompt."""
        return self.base.category(prompt)


class TextNormEnsemble(Reward):
    """Mean of several TextNorms' probabilities minus `penalty` times their variance (of the M members).

    With a penalty in [0, 1] it stays in (0, 1), and `log=True` gives its logarithm, for back-propagation.
    Members have scales of their own; their `form` is not used. Source: eq. 4 and "UR" of the paper; that the
    variance divides by M is our reading.
    """

    def __init__(self, members: Sequence[TextNorm], *, penalty: float = 0.0, log: bool = False) -> None:
        super().__init__()
        if not members or penalty < 0 or (log and penalty > 1):
            raise ValueError(
                f"got {len(members)} members and penalty {penalty}; expected some, and a penalty >= 0, or "
                "in [0, 1] for the logarithm; change it"
            )
        self.members, self.penalty, self.log = nn.ModuleList(members), penalty, log

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """Whether every member is."""
        return all(isinstance(member, TextNorm) and member.differentiable for member in self.members)

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,)"""
        return self._pooled(lambda member: member.raw(images, prompts))

    def score_pil(self, images: list[Image], prompts: list[str]) -> Tensor:
        """B images of any size and mode, B prompts -> (B,), by the members' own preprocessing."""
        return self._pooled(lambda member: member.raw_pil(images, prompts))

    def _pooled(self, raw: Callable[[TextNorm], list[Tensor]]) -> Tensor:
        logs = []
        for member in self.members:
            assert isinstance(member, TextNorm), "members are checked by their type"
            logs.append(normalised(raw(member), scale=member.scale, form="log"))
        return pooled(torch.stack(logs), penalty=self.penalty, log=self.log)


def normalised(rows: Sequence[Tensor], *, scale: float, form: Form = "probability") -> Tensor:
    """B tensors (1 + n_i,) of raw scores, the prompt's own first -> TextNorm (B,); eq. 1 of the paper.

    Invariant to a constant added to a row. Computed in log space, in fp32 or better.
    """
    return _normalised(scale * _padded(rows), form)


def _padded(rows: Sequence[Tensor]) -> Tensor:
    """B tensors (1 + n_i,) -> (B, 1 + max n), filled up with what no softmax sees."""
    wide = [row.to(torch.promote_types(row.dtype, torch.float32)) for row in rows]
    return nn.utils.rnn.pad_sequence(wide, batch_first=True, padding_value=-math.inf)


def _normalised(scaled: Tensor, form: Form) -> Tensor:
    if form == "probability":
        return scaled.softmax(1)[:, 0]
    if form == "log":
        return scaled.log_softmax(1)[:, 0]
    return scaled[:, 0] - scaled[:, 1:].logsumexp(1)


def pooled(logs: Tensor, *, penalty: float = 0.0, log: bool = False) -> Tensor:
    """Log-probabilities of M members (M, B) -> their mean minus penalty * variance (B,), or its logarithm."""
    if not log:
        each = logs.exp()
        return each.mean(0) - penalty * each.var(0, correction=0)
    top = logs.amax(0).detach()
    share = (logs - top).exp()  # in (0, 1], so that tiny probabilities do not vanish
    return top + (share.mean(0) - penalty * top.exp() * share.var(0, correction=0)).log()


@dataclass(frozen=True)
class Fit:
    """A fitted scale, the offset of the log-odds that came with it, and the loss in nats an image."""

    scale: float
    offset: float
    loss: float


def fit_scale(rows: Sequence[Tensor], labels: Tensor, *, steps: int = 60) -> Fit:
    """The one scale of a scorer under which TextNorm's log-odds explain labels (N,) in [0, 1] best.

    rows: N tensors (1 + n_i,) as `TextNorm.raw` gives them, over many prompts, none of them tested on later.
    Minimises the cross-entropy of sigmoid(logit TextNorm + offset); the offset takes up the base rate and the
    number of contrasts, and is not needed to score. Raises ValueError for labels that are all equal.
    """
    from scipy.optimize import minimize_scalar

    if len(rows) != len(labels) or not len(rows):
        raise ValueError(f"got {len(rows)} rows and {len(labels)} labels; expected as many; pair them up")
    target = labels.detach().cpu().double()
    if not (target.min() >= 0 and target.max() <= 1 and target.min() < target.max()):
        raise ValueError("got labels all equal or outside [0, 1]; expected both kinds; add images")
    raw = _padded([row.detach().cpu().double() for row in rows])
    apart = raw - raw[:, :1]
    spread = float(apart[apart.isfinite()].square().mean().sqrt())
    if not (spread > 0 and math.isfinite(spread)):
        raise ValueError(f"got scores that differ by {spread}; expected a scorer that tells prompts apart")

    def fit_at(log_scale: float) -> Fit:
        scale = math.exp(log_scale)
        logit = _normalised(scale * raw, "logit")
        offset = _offset(logit, target)
        value = F.binary_cross_entropy_with_logits(logit + offset, target)
        return Fit(scale, offset, float(value))

    grid = torch.linspace(math.log(1e-2 / spread), math.log(1e3 / spread), steps).tolist()
    fits = [fit_at(point) for point in grid]  # there may be several minima: the grid finds the least one
    best = min(range(steps), key=lambda i: fits[i].loss)
    around = grid[max(best - 1, 0)], grid[min(best + 1, steps - 1)]
    minimum = minimize_scalar(lambda point: fit_at(point).loss, bounds=around, method="bounded")
    return min(fits[best], fit_at(minimum.x), key=lambda fit: fit.loss)


def _offset(logit: Tensor, target: Tensor) -> float:
    """The constant b with mean sigmoid(logit + b) = mean target, where the cross-entropy is least."""
    from scipy.optimize import brentq

    mean = target.mean()
    middle = float(mean.logit())  # b if the logits were 0: adding their least and greatest encloses b
    low, high = middle - float(logit.max()) - 1.0, middle - float(logit.min()) + 1.0
    return float(brentq(lambda b: float((logit + b).sigmoid().mean() - mean), low, high))


def build(
    base: str = "",
    contrast: str = "rules",
    scale: float = 0.0,
    form: Form = "probability",
    *,
    towers: dict[str, Any] | None = None,
    **options: Any,
) -> TextNorm:
    """TextNorm over `rewards.load(base, **options)`, at a scale that you fitted for it.

    contrast: "rules", "toy" for captions of the toy world, or a JSON file of prompt sets. The base
    shares equal towers.
    Raises ValueError without a base, a scale, or such a file.
    """
    from rewards import load_all

    if not base:
        raise ValueError("got no base; expected the name of a reward to normalise; pass base=")
    named: dict[str, Contrast] = {"rules": near_misses, "toy": toy_near_misses}
    contrast = current(contrast)
    source = named[contrast] if contrast in named else read_sets(Path(contrast))
    reward = load_all([base], {base: options}, towers=towers)[base]
    return TextNorm(reward, source, scale=scale, form=form)


def toy_near_misses(prompt: str) -> list[str]:
    """`near_misses` in the words of the toy world, those that its grammar can say."""
    return [text for text in near_misses(prompt, words=TOY_WORLD, limit=None) if _has_form(text)][:LIMIT]


def _has_form(text: str) -> bool:
    try:
        parse(text)
    except ValueError:  # "two red circles and a square": the CLIPs have seen nothing like it
        return False
    return True
