"""Checklist rewards: a weighted sum of yes/no answers about an image, with presence gates; lists are data.

VisionReward (Xu et al. 2024) scores w . [a, answers] with a = VQAScore of the prompt and answers of +1 or -1;
a question about hands counts 0 where there are none. A list is a JSON file:

    {"answers": "signed",                 1 and -1; "binary": 1 and 0
     "alignment": 2.0, "intercept": 0.0,  weights of a and of 1; 0 where left out, and a is not asked then
     "gates": {"hands": "Are there human hands in the image?"},
     "items": [{"question": "Are the hands drawn correctly?", "weight": 0.1, "gate": "hands"}]}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rewards.base import Reward
from rewards.scorers.vqa import TEMPLATE, ask
from rewards.vlm.base import Judge, log_odds
from rewards.vlm.choose import judge

NAMES: dict[str, dict[str, str]] = {"checklist": {}}
TABLE = {
    "checklist": (
        "any VLM as for `vqascore`, and a list of questions | the VLM's own | where the list asks for it | "
        "weighted sum | no | the VLM's"
    ),
}

PUBLISHED = {0: (22, 23, 24, 28, 29), 1: (25, 26), 2: (27,)}
"""VisionReward-Image's release: line of the gate's question -> lines it gates, counted from 0."""


@dataclass(frozen=True)
class Item:
    """A question that is answered yes or no, what a yes weighs, and the gate that must be open for it."""

    question: str
    weight: float
    gate: str | None = None


@dataclass(frozen=True)
class Checklist:
    """Items, the questions of their gates, weights of alignment and of 1. Raises ValueError if unsound."""

    items: tuple[Item, ...]
    gates: dict[str, str] = field(default_factory=dict)
    alignment: float = 0.0
    intercept: float = 0.0
    signed: bool = True

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("got a checklist without items; expected at least one question; add it")
        for item in self.items:
            if not isinstance(item.question, str) or not item.question.strip():
                raise ValueError(f"got question {item.question!r}; expected a text; correct the checklist")
            if item.gate is not None and item.gate not in self.gates:
                raise ValueError(
                    f"got gate {item.gate!r} of {item.question!r}; expected one of {sorted(self.gates)}; "
                    "add it to gates"
                )
        for number in (*(item.weight for item in self.items), self.alignment, self.intercept):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ValueError(f"got weight {number!r}; expected a number; correct the checklist")

    @property
    def questions(self) -> list[str]:
        """The questions of the gates, then those of the items: the columns of `points` and `score`."""
        return [*self.gates.values(), *(item.question for item in self.items)]

    def points(self, yes: Tensor) -> Tensor:
        """(B, gates + items) how much each answer is a yes, in [0, 1] -> (B, items) answers.

        A yes is 1 and a no is -1 (0 if the list is binary), 0 behind a shut gate; the expectation in between.
        """
        names = list(self.gates)
        answers = yes[:, len(names) :]
        opened = [
            torch.ones_like(yes[:, 0]) if item.gate is None else yes[:, names.index(item.gate)]
            for item in self.items
        ]
        return (2 * answers - 1 if self.signed else answers) * torch.stack(opened, dim=1)

    def score(self, yes: Tensor, alignment: Tensor | float = 0.0) -> Tensor:
        """(B, gates + items) in [0, 1], (B,) alignment -> (B,) weighted sum."""
        points = self.points(yes)
        weights = points.new_tensor([item.weight for item in self.items])
        return points @ weights + self.alignment * alignment + self.intercept


def read(path: str | Path) -> Checklist:
    """The checklist of a JSON file in the form above. Raises ValueError for a file of any other form."""
    data = _json(Path(path))
    known = {"answers", "alignment", "intercept", "gates", "items"}
    items = data.get("items")
    kinds = {"signed": True, "binary": False}
    if set(data) - known or not isinstance(items, list) or not isinstance(data.get("gates", {}), dict):
        raise ValueError(
            f"got keys {sorted(data)} in {path}; expected items (a list) and any of answers, alignment, "
            "intercept, gates (an object); see rewards/scorers/checklist.py"
        )
    if data.get("answers") not in kinds:
        raise ValueError(
            f"got answers {data.get('answers')!r} in {path}; expected 'signed' or 'binary'; say which"
        )
    for item in items:
        if not isinstance(item, dict) or set(item) | {"gate"} != {"question", "weight", "gate"}:
            raise ValueError(
                f"got item {item!r} in {path}; expected question, weight and perhaps gate; correct it"
            )
    return Checklist(
        items=tuple(Item(**item) for item in items),
        gates=dict(data.get("gates", {})),
        alignment=data.get("alignment", 0.0),
        intercept=data.get("intercept", 0.0),
        signed=kinds[data["answers"]],
    )


def read_published(questions: str | Path, coefficients: str | Path) -> Checklist:
    """The two files of VisionReward-Image: a question a line, and JSON with coef and intercept.

    The first coefficient is the alignment's, the others those of all questions but the gates'.
    Raises ValueError where the files do not fit each other.
    """
    lines = [line.strip() for line in _text(Path(questions)).splitlines() if line.strip()]
    data = _json(Path(coefficients))
    weights, intercept = data.get("coef"), data.get("intercept")
    names = {line: f"gate{line}" for line in PUBLISHED}
    gate_of = {line: names[gate] for gate, gated in PUBLISHED.items() for line in gated}
    rest = [line for line in range(len(lines)) if line not in PUBLISHED]
    # scikit-learn's own shapes, (1, N) and (1,), are one list deeper
    weights = weights[0] if isinstance(weights, list) and [type(w) for w in weights] == [list] else weights
    intercept = intercept[0] if isinstance(intercept, list) and len(intercept) == 1 else intercept
    if not isinstance(weights, list) or len(weights) != len(rest) + 1 or len(lines) <= max(gate_of):
        got = len(weights) if isinstance(weights, list) else "no"
        raise ValueError(
            f"got {len(lines)} questions and {got} coefficients; expected 30 and 28 (alignment, then all "
            "questions but the first three); pass the selected files of one release"
        )
    return Checklist(
        items=tuple(Item(lines[q], w, gate_of.get(q)) for q, w in zip(rest, weights[1:], strict=True)),
        gates={name: lines[line] for line, name in names.items()},
        alignment=weights[0],
        intercept=0.0 if intercept is None else intercept,
    )


def fit_weights(win: Tensor, lose: Tensor, strength: float = 1.0) -> list[float]:
    """Points (P, N) of winners and of losers -> N weights, by logistic regression on their differences.

    Without intercept and on both orders of each pair; `strength` is scikit-learn's C. The VisionReward paper,
    section 3.3. Raises ValueError for tensors that do not pair.
    """
    from sklearn.linear_model import LogisticRegression

    if win.shape != lose.shape or win.ndim != 2 or not len(win):
        raise ValueError(
            f"got points {tuple(win.shape)} and {tuple(lose.shape)}; expected two (P, N); pair them"
        )
    difference = (win - lose).cpu().double()
    rows = torch.cat([difference, -difference]).numpy()
    labels = [1] * len(win) + [0] * len(win)
    fitted = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000).fit(rows, labels)
    return [float(weight) for weight in fitted.coef_[0]]


class ChecklistReward(Reward):
    """A checklist asked of a judge; not differentiable.

    answers="hard": yes where P(yes) > P(no), as published. "soft": P(yes) / (P(yes) + P(no)) takes the place
    of 0 and 1, which ranks images that all pass.
    """

    differentiable = False

    def __init__(
        self,
        judge: Judge,
        checklist: Checklist,
        *,
        answers: Literal["hard", "soft"] = "hard",
        template: str = TEMPLATE,
    ) -> None:
        super().__init__()
        if answers not in ("hard", "soft"):
            raise ValueError(f"got answers={answers!r}; expected 'hard' or 'soft'; pass one of them")
        self.judge, self.checklist, self.answers, self.template = judge, checklist, answers, template

    @property
    def needs_text(self) -> bool:  # type: ignore[override]
        """Whether the list weighs the alignment with the prompt."""
        return bool(self.checklist.alignment)

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,). Raises ValueError as `Judge.answer` does."""
        yes, alignment = self._answered(images, prompts)
        return self.checklist.score(yes, alignment)

    def points(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B, items), the answers that `score` sums."""
        return self.checklist.points(self._answered(images, prompts)[0])

    def _answered(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, gates + items) yes, (B,) alignment; all questions of all images go to the judge at once."""
        questions = self.checklist.questions
        wanted = [
            [*questions, ask(self.template, p)] if self.checklist.alignment else questions for p in prompts
        ]
        rows = [row for row, some in enumerate(wanted) for _ in some]
        flat = [question for some in wanted for question in some]
        odds = log_odds(self.judge.answer(images, flat, rows)).reshape(len(prompts), -1)
        alignment = odds[:, -1].sigmoid() if self.checklist.alignment else odds.new_zeros(len(prompts))
        odds_of_list = odds[:, : len(questions)]
        return (odds_of_list > 0).to(odds) if self.answers == "hard" else odds_of_list.sigmoid(), alignment


def build(
    *,
    checklist: str | None = None,
    questions: str | None = None,
    coefficients: str | None = None,
    weights: str | None = None,
    url: str | None = None,
    answers: Literal["hard", "soft"] = "hard",
    template: str = TEMPLATE,
    towers: dict[str, Any] | None = None,
    **options: Any,
) -> ChecklistReward:
    """A checklist in our JSON form, or VisionReward's two files, over a local model or the one served at
    `url`.

    `options` are those of `vlm.local_judge` or `vlm_endpoint.Endpoint`. Raises ValueError for anything but
    one list, and as `read`, `read_published` and the judges do.
    """
    if checklist is not None and questions is None and coefficients is None:
        loaded = read(checklist)
    elif checklist is None and questions is not None and coefficients is not None:
        loaded = read_published(questions, coefficients)
    else:
        raise ValueError(
            "got no list of questions, or two; expected checklist= (JSON), or questions= and coefficients= "
            "(VisionReward's files); pass one of these"
        )
    return ChecklistReward(judge(weights, url, towers, **options), loaded, answers=answers, template=template)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"got {path}, which cannot be read ({error}); expected a UTF-8 file; check it"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"got {path}, which is not JSON ({error}); expected a JSON object; correct it"
        ) from error
    if not isinstance(data, dict):
        raise ValueError(f"got {type(data).__name__} in {path}; expected a JSON object; correct it")
    return data
