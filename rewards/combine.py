"""Several rewards as one: weighted sum, log-sigmoid combination with references, AND of thresholds.

Members may themselves be combinations. Each image is resized once for each geometry and encoded once for each
tower that the members share.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

from rewards.base import Reward
from rewards.together import score_all, score_items

REFERENCE_QUANTILE = 0.85
"""The quantile of the untrained model's rewards of a prompt that LSC's paper uses as reference."""


class Combined(Reward):
    """A reward made of named members; subclasses write `combine`."""

    def __init__(self, members: Mapping[str, Reward]) -> None:
        super().__init__()
        if not members:
            raise ValueError("got no members; expected at least one reward; name some")
        self.names = tuple(members)
        self.parts = nn.ModuleList(members.values())  # a ModuleDict takes no name with a dot, as hpsv2.1

    @property
    def members(self) -> dict[str, Reward]:
        """Name -> reward."""
        return dict(zip(self.names, self.parts, strict=True))  # type: ignore[arg-type]

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """Whether every member is."""
        return all(member.differentiable for member in self.members.values())

    @property
    def needs_text(self) -> bool:  # type: ignore[override]
        """Whether any member does."""
        return any(member.needs_text for member in self.members.values())

    @abstractmethod
    def combine(self, scores: Mapping[str, Tensor], prompts: list[str]) -> Tensor:
        """The members' scores, (B,) each, and their B prompts -> (B,)"""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,)"""
        return self.combine(score_all(self.members, images, prompts), prompts)

    def score_pil(self, images: list[Image], prompts: list[str]) -> Tensor:
        """B images of any size and mode, B prompts -> (B,), by the members' own preprocessing."""
        return self.combine(score_items(self.members, images, prompts), prompts)

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,), by the members' own tables."""
        scores = {name: member.score_table(images, candidates) for name, member in self.members.items()}
        return self.combine(scores, [prompt for prompts in candidates for prompt in prompts])

    def category(self, prompt: str) -> str | None:
        """The category of the first member that has one."""
        categories = (member.category(prompt) for member in self.members.values())
        return next((category for category in categories if category is not None), None)

    def _matched(self, what: str, given: Mapping[str, object]) -> None:
        if set(given) != set(self.names):
            raise ValueError(
                f"got {what} for {', '.join(given) or 'nobody'}; expected one each for "
                f"{', '.join(self.names)}; match the names"
            )


class WeightedSum(Combined):
    """sum_k w_k r_k; weights of any sign, which have to undo the members' different units too."""

    def __init__(self, members: Mapping[str, Reward], weights: Mapping[str, float]) -> None:
        super().__init__(members)
        self._matched("weights", weights)
        self.weights = dict(weights)

    def combine(self, scores: Mapping[str, Tensor], prompts: list[str]) -> Tensor:
        """The weighted sum of the scores (B,)"""
        return torch.stack([self.weights[name] * scores[name] for name in self.names]).sum(0)


class LSC(Combined):
    """sum_k w_k log sigmoid((r_k - q_k(prompt)) / tau_k), a soft AND in (-inf, 0) for weights of 1.

    Each term is the log-probability that the image is better than the reference q_k on property k; its slope
    fades once it is, so that effort goes to what is behind. `scales` tau_k put a reward into units of
    log-odds: 1 for Bradley-Terry logits such as PickScore's, else fitted on preferences. `references` q_k:
    prompt -> value, from `reference_quantiles`, or one value for all prompts. Raises ValueError for a prompt
    that has none. Source: Wang et al., ICML 2024, https://arxiv.org/abs/2402.00742
    """

    def __init__(
        self,
        members: Mapping[str, Reward],
        references: Mapping[str, Mapping[str, float] | float],
        *,
        scales: Mapping[str, float],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(members)
        weights = dict.fromkeys(self.names, 1.0) if weights is None else weights
        for what, given in (("references", references), ("scales", scales), ("weights", weights)):
            self._matched(what, given)
        if wrong := {name: tau for name, tau in scales.items() if not (tau > 0 and math.isfinite(tau))}:
            raise ValueError(f"got scales {wrong}; expected positive numbers; fit them on preferences")
        self.references, self.scales, self.weights = dict(references), dict(scales), dict(weights)

    def reference_of(self, name: str, prompt: str) -> float:
        """q of one reward and prompt. Raises ValueError if there is none."""
        given = self.references[name]
        if not isinstance(given, Mapping):
            return float(given)
        if prompt not in given:
            raise ValueError(
                f"got prompt {prompt!r}, which has no reference of {name}; expected one; "
                "score images of the untrained model and pass them to reference_quantiles"
            )
        return float(given[prompt])

    def combine(self, scores: Mapping[str, Tensor], prompts: list[str]) -> Tensor:
        """The sum of the weighted log-sigmoids (B,)"""
        terms = []
        for name in self.names:
            score = scores[name]
            q = score.new_tensor([self.reference_of(name, prompt) for prompt in prompts])
            terms.append(self.weights[name] * F.logsigmoid((score - q) / self.scales[name]))
        return torch.stack(terms).sum(0)


class AllAbove(Combined):
    """1 where every member reaches its threshold, else 0; no gradient."""

    differentiable = False

    def __init__(self, members: Mapping[str, Reward], thresholds: Mapping[str, float]) -> None:
        super().__init__(members)
        self._matched("thresholds", thresholds)
        self.thresholds = dict(thresholds)

    def combine(self, scores: Mapping[str, Tensor], prompts: list[str]) -> Tensor:
        """1.0 or 0.0 (B,); a score equal to its threshold reaches it."""
        reached = torch.stack([scores[name] >= self.thresholds[name] for name in self.names])
        return reached.all(0).to(scores[self.names[0]].dtype)


def reference_quantiles(
    scores: Tensor, prompts: Sequence[str], *, quantile: float = REFERENCE_QUANTILE
) -> dict[str, float]:
    """Scores (N,) of the untrained model's images and their prompts -> each prompt's quantile.

    Sixteen images a prompt or more give a usable quantile. Raises ValueError if the counts differ.
    """
    if scores.shape != (len(prompts),):
        raise ValueError(f"got scores {tuple(scores.shape)}, {len(prompts)} prompts; expected one each")
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    values = scores.detach().cpu().double()
    return {prompt: float(values[index].quantile(quantile)) for prompt, index in rows.items()}


def leave_one_out_quantile(groups: Tensor, *, quantile: float = REFERENCE_QUANTILE) -> Tensor:
    """Rewards (G, M) of M images a prompt -> (G, M): the quantile of the other M - 1 images of the group.

    The reference of `LSC` when a prompt has no images but the group's. Raises ValueError for M < 2.
    """
    count = groups.shape[1]
    if count < 2:
        raise ValueError(f"got {count} image a group; expected 2 or more; there is no other to compare with")
    others = torch.arange(count - 1).expand(count, -1)
    others = others + (others >= torch.arange(count)[:, None]).long()  # row i holds every index but i
    return groups[:, others.to(groups.device)].quantile(quantile, dim=2)


def build(
    rule: Literal["sum", "lsc", "and"] = "sum",
    members: Mapping[str, float] | None = None,
    references: str | Path | None = None,
    options: Mapping[str, dict[str, object]] | None = None,
    *,
    towers: dict[str, Any] | None = None,
) -> Combined:
    """A combination of rewards loaded by name: `rewards.load("rewards.combine", rule=..., members=...)`.

    members: name -> weight for "sum", tau for "lsc", threshold for "and". references: for "lsc", a JSON file
    of name -> {prompt: value} or name -> value. options: name -> keywords of that reward's build().
    Raises ValueError for any other rule, for no members, and for lsc without references.
    """
    from rewards import load_all

    if rule not in ("sum", "lsc", "and"):
        raise ValueError(f"got rule {rule!r}; expected sum, lsc or and; choose one")
    numbers = dict(members or {})
    loaded = load_all(numbers, options, towers=towers)
    if rule == "sum":
        return WeightedSum(loaded, numbers)
    if rule == "and":
        return AllAbove(loaded, numbers)
    if references is None:
        raise ValueError("got no references; expected a JSON file of them for lsc; pass references=")
    stored = json.loads(Path(references).read_text(encoding="utf-8"))
    return LSC(loaded, stored, scales=numbers)
