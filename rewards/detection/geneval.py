"""GenEval: does an object detector find in the image what the prompt asks for, in number, colour and place?

Ghosh et al. 2023, with the rules of the released evaluation: the strict form is its verdict, 1 or 0; the
dense form is the partial credit that Flow-GRPO (Liu et al. 2025) trains on. Both need the prompts' metadata:
`build` is given the JSON-lines file that maps each prompt to it. `counting.py` has the plain count reward.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor

from rewards.base import Reward
from rewards.detection.colours import ColourClassifier, cut_out
from rewards.detection.detect import Box, Detection, Detector, select
from rewards.detection.geneval_spec import Clause, Spec, check_labels, lookup, read_specs
from rewards.towers.two_tower import Tower

NAMES: dict[str, dict[str, str]] = {"geneval": {"form": "strict"}, "geneval-dense": {"form": "dense"}}
TABLE = {
    "geneval, geneval-dense": (
        "facebook/mask2former-swin-small-coco-instance; CLIP L/14 for colours | the detector's own | "
        "its metadata | 1 or 0; [0, 1] | no | MIT"
    ),
}

FORMS = ("strict", "dense")
THRESHOLD = 0.3
COUNTING_THRESHOLD = 0.9  # for prompts tagged "counting", where a doubtful box would be one too many
MOST = 16  # detections of one label in one image
SHRINK = 0.1  # share of the two boxes' sides that does not count as distance
STEEP = 0.5  # share of the distance between centres that a direction must keep

Objects = Mapping[str, Sequence[Detection]]
Colours = Callable[[Sequence[Detection], str], list[str]]
"""Objects of one label in one image -> the colour of each."""


@dataclass
class Verdict:
    """Whether an image passes, its partial credit in [0, 1], and what failed, in words."""

    correct: bool = True
    credits: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def credit(self) -> float:
        """Mean over the checks, in [0, 1]."""
        return fmean(self.credits)

    def fail(self, reason: str) -> None:
        """Note that the image does not pass, and why."""
        self.correct = False
        self.reasons.append(reason)


def relations(a: Box, b: Box) -> set[str]:
    """Where box a lies as seen from box b: up to one of left of / right of and one of above / below.

    The offset of the centres is shortened on each axis by a tenth of the boxes' summed sides on it, then
    divided by its length before that; a direction holds above one half. Boxes around one centre stand in no
    relation.
    """
    offset = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
    sides = [abs(a[i + 2] - a[i]) + abs(b[i + 2] - b[i]) for i in (0, 1)]
    left = [max(abs(o) - SHRINK * s, 0.0) * math.copysign(1, o) for o, s in zip(offset, sides, strict=True)]
    if max(map(abs, left)) < 1e-3:
        return set()
    right, down = (part / math.hypot(*offset) for part in left)
    across = {"left of"} if right < -STEEP else {"right of"} if right > STEEP else set()
    along = {"above"} if down < -STEEP else {"below"} if down > STEEP else set()
    return across | along


def judge(spec: Spec, objects: Objects, colours: Colours) -> Verdict:
    """The benchmark's verdict: at least `count` of each label, the best ones right in colour and place.

    Only the `count` best detections of a clause are looked at, and all of them must have the colour and stand
    in the relation to all of the target's, which must itself have passed. More objects than asked for are no
    fault unless an exclude clause counts them. `credits` holds the verdict.
    """
    verdict = Verdict()
    groups: list[Sequence[Detection] | None] = []
    for clause in spec.include:
        things = objects.get(clause.label, [])[: clause.count]
        groups.append(None)
        if len(things) < clause.count:
            verdict.fail(f"found {len(things)} {clause.label}, expected {clause.count} or more")
        elif _coloured(clause, things, colours, verdict) == clause.count and _placed(
            clause, things, groups, verdict
        ):
            groups[-1] = things
    for clause in spec.exclude:
        number = len(objects.get(clause.label, []))
        if number >= clause.count:
            verdict.fail(f"found {number} {clause.label}, expected below {clause.count}")
    verdict.credits = [float(verdict.correct)]
    return verdict


def judge_dense(spec: Spec, objects: Objects, colours: Colours) -> Verdict:
    """Partial credit for training, with n objects of the k asked for: the mean over all checks.

    Each clause is checked for its number, max(0, 1 - |k - n| / k), and, where it has them, for its colour,
    the same with the number of that colour, and its relation, 1 or 0; the last two are 0 when the number is
    wrong. Here n must equal k and all n are looked at; exclude clauses are not read. It is correct when every
    check gives 1.

    Flow-GRPO's reward server differs in two ways that are not reproduced. Its credit for numbers falls below
    0 for more than 2k objects. And where a relation fails it counts that check twice, as 0 and as 1, so that
    a wrong place earns half by accident; here it earns nothing.
    """
    verdict = Verdict()
    groups: list[Sequence[Detection] | None] = []
    for clause in spec.include:
        things = objects.get(clause.label, [])
        groups.append(None)
        verdict.credits.append(closeness(len(things), clause.count))
        checks = (clause.colour is not None) + (clause.relation is not None)
        if len(things) != clause.count:
            verdict.fail(f"found {len(things)} {clause.label}, expected {clause.count}")
            verdict.credits += [0.0] * checks
            continue
        right = _coloured(clause, things, colours, verdict)
        if clause.colour is not None:
            verdict.credits.append(closeness(right, clause.count))
        placed = right == clause.count and _placed(clause, things, groups, verdict)
        if clause.relation is not None:
            verdict.credits.append(float(placed))
        if placed:
            groups[-1] = things
    return verdict


def closeness(number: int, wanted: int) -> float:
    """Credit for a count: 1 where exact, less by 1 / wanted for each object off, never below 0."""
    return max(0.0, 1 - abs(number - wanted) / wanted)


def _coloured(clause: Clause, things: Sequence[Detection], colours: Colours, verdict: Verdict) -> int:
    """How many of the objects have the clause's colour; all of them when it names none."""
    if clause.colour is None:
        return len(things)
    seen = colours(things, clause.label)
    right = seen.count(clause.colour)
    if right < clause.count:
        verdict.fail(f"found {', '.join(seen)} {clause.label}, expected {clause.count} {clause.colour}")
    return right


def _placed(
    clause: Clause,
    things: Sequence[Detection],
    groups: Sequence[Sequence[Detection] | None],
    verdict: Verdict,
) -> bool:
    """Whether every object stands in the relation to every object of the target clause."""
    if clause.relation is None:
        return True
    target = groups[clause.target]
    if target is None:
        verdict.fail(f"found no target for {clause.label} to be {clause.relation}")
        return False
    for thing, other in product(things, target):
        seen = relations(thing.box, other.box)
        if clause.relation not in seen:
            where = " and ".join(sorted(seen)) or "in no direction from"
            verdict.fail(f"found {clause.label} {where} its target, expected {clause.relation}")
            return False
    return True


class GenEval(Reward):
    """1 or 0 as the benchmark judges, or the dense credit in [0, 1]; not differentiable."""

    differentiable: ClassVar[bool] = False

    def __init__(
        self,
        detector: Detector,
        specs: Mapping[str, Spec],
        colours: ColourClassifier | None = None,
        *,
        form: str = "strict",
        threshold: float = THRESHOLD,
        counting_threshold: float = COUNTING_THRESHOLD,
    ) -> None:
        """Raises ValueError for an unknown form, or a label or colour that nothing here can recognise."""
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"got form {form!r}; expected one of {', '.join(FORMS)}; choose one")
        check_labels(specs, detector.labels)
        coloured = [spec.prompt for spec in specs.values() if any(clause.colour for clause in spec.include)]
        if coloured and colours is None:
            raise ValueError(
                f"got {coloured[0]!r}, about a colour, and no colour classifier; expected one; pass colours"
            )
        self.detector, self.specs, self.colours = detector, dict(specs), colours
        self.rules = judge if form == "strict" else judge_dense
        self.threshold, self.counting_threshold = threshold, counting_threshold

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts of the metadata -> (B,) in [0, 1].

        Raises ValueError for a prompt that the metadata lacks.
        """
        return self.score_table(images, [[prompt] for prompt in prompts])

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,): each image is looked at once."""
        verdicts = self.verdicts(images, candidates)
        return torch.tensor([verdict.credit for verdict in verdicts], device=images.device)

    def verdicts(self, images: Tensor, candidates: Sequence[Sequence[str]]) -> list[Verdict]:
        """The same with the reasons, for reports. Raises ValueError for a prompt that the metadata lacks."""
        specs = [[lookup(self.specs, prompt) for prompt in prompts] for prompts in candidates]
        rows = zip(images.detach(), self.detector(images), specs, strict=True)
        return [
            self._verdict(image, detections, spec) for image, detections, wanted in rows for spec in wanted
        ]

    def _verdict(self, image: Tensor, detections: list[Detection], spec: Spec) -> Verdict:
        counting = spec.tag == "counting"
        threshold = self.counting_threshold if counting else self.threshold

        def colours(things: Sequence[Detection], label: str) -> list[str]:
            assert self.colours is not None, "specs with colours were refused without a classifier"
            return self.colours.classify([cut_out(image, thing) for thing in things], label)

        return self.rules(spec, select(detections, threshold=threshold, most=MOST), colours)

    def category(self, prompt: str) -> str:
        """single_object, two_object, counting, colors, position or color_attr."""
        return lookup(self.specs, prompt).tag


def task_means(scores: Sequence[float], tags: Sequence[str]) -> dict[str, float]:
    """Scores and the task tag of each -> {tag: mean}, in order of first appearance."""
    return {
        tag: fmean(s for s, other in zip(scores, tags, strict=True) if other == tag)
        for tag in dict.fromkeys(tags)
    }


def overall(scores: Sequence[float], tags: Sequence[str]) -> float:
    """GenEval's headline: the mean of the task means, so that each of the six tasks weighs the same."""
    return fmean(task_means(scores, tags).values())


def build(
    form: str = "strict",
    metadata: str | Path | None = None,
    weights: str | None = None,
    *,
    sha256: str | None = None,
    colour_weights: str | None = None,
    colour_sha256: str | None = None,
    towers: dict[str, Tower] | None = None,
    **thresholds: float,
) -> GenEval:
    """GenEval over the prompts of `metadata`, with a detector and, where a prompt names a colour, a CLIP.

    `weights` and `colour_weights` are read as `detectors.py` says; `thresholds` are GenEval's own by default
    (`threshold`, `counting_threshold`). Raises ValueError without metadata, and for what read_specs refuses.
    """
    from rewards.detection.detectors import GENEVAL, load_colours, load_detector

    if metadata is None:
        raise ValueError(
            "got no metadata; expected the JSON-lines file that says what each prompt asks for, such as "
            "GenEval's evaluation_metadata.jsonl; pass metadata=PATH"
        )
    specs = read_specs(metadata)
    colourful = any(clause.colour for spec in specs.values() for clause in spec.include)
    detector = load_detector(weights or GENEVAL, sha256)
    colours = load_colours(colour_weights, colour_sha256, towers) if colourful else None
    return GenEval(detector, specs, colours, form=form, **thresholds)
