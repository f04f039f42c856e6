"""The right number of objects: detected boxes against the numbers that a prompt's metadata asks for.

A detector counts crisp, separate objects best, so training on this reward drifts towards grid-like layouts:
watch `grid` of `rewards.scorers.image_stats` beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from rewards.base import Reward
from rewards.detection.detect import Detection, Detector, select
from rewards.detection.geneval import FORMS, closeness
from rewards.detection.geneval_spec import Spec, check_labels, lookup, read_specs

NAMES: dict[str, dict[str, str]] = {"count": {"form": "dense"}, "count-strict": {"form": "strict"}}
TABLE = {
    "count, count-strict": (
        "as for `geneval` | the detector's own | its metadata | [0, 1]; 1 or 0 | no | MIT"
    ),
}

THRESHOLD = 0.5
MAX_OVERLAP = 0.5
CANDIDATES = tuple(step / 20 for step in range(1, 20))


class ObjectCount(Reward):
    """max(0, 1 - |n - k| / k) averaged over what is to be counted, or 1 only where every n = k; in [0, 1].

    n is the number of boxes above the threshold, of those that overlap by half only the best. Not
    differentiable.
    """

    differentiable = False

    def __init__(
        self,
        detector: Detector,
        specs: Mapping[str, Spec],
        *,
        form: str = "dense",
        threshold: float = THRESHOLD,
        max_overlap: float = MAX_OVERLAP,
    ) -> None:
        """Raises ValueError for an unknown form, and for a label that the detector does not have."""
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"got form {form!r}; expected one of {', '.join(FORMS)}; choose one")
        check_labels(specs, detector.labels)
        self.detector, self.specs, self.form = detector, dict(specs), form
        self.threshold, self.max_overlap = threshold, max_overlap

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts of the metadata -> (B,) in [0, 1].

        Raises ValueError for a prompt that the metadata lacks.
        """
        return self.score_table(images, [[prompt] for prompt in prompts])

    def score_table(self, images: Tensor, candidates: list[list[str]]) -> Tensor:
        """images (B, 3, H, W), B lists of n_i prompts -> (sum n_i,): each image is looked at once."""
        specs = [[lookup(self.specs, prompt) for prompt in prompts] for prompts in candidates]
        rows = zip(self.detector(images), specs, strict=True)
        credits = [self._credit(detections, spec) for detections, wanted in rows for spec in wanted]
        return torch.tensor(credits, device=images.device)

    def _credit(self, detections: Sequence[Detection], spec: Spec) -> float:
        objects = select(detections, threshold=self.threshold, max_overlap=self.max_overlap)
        credit = fmean(closeness(len(objects.get(clause.label, [])), clause.count) for clause in spec.include)
        return credit if self.form == "dense" else float(credit == 1)

    def category(self, prompt: str) -> str:
        """The tag in the prompt's metadata, such as "counting"."""
        return lookup(self.specs, prompt).tag


def best_threshold(
    detections: Sequence[Sequence[Detection]],
    counts: Sequence[Mapping[str, int]],
    max_overlap: float = MAX_OVERLAP,
) -> float:
    """Detections of N held-out images, their true {label: count} -> the threshold that gets most right.

    Of 0.05, 0.1, ..., 0.95; the middle one of those that do equally well.
    """

    def right(threshold: float) -> int:
        selected = (select(row, threshold=threshold, max_overlap=max_overlap) for row in detections)
        pairs = zip(selected, counts, strict=True)
        return sum(
            all(len(objects.get(label, [])) == n for label, n in wanted.items()) for objects, wanted in pairs
        )

    score = {threshold: right(threshold) for threshold in CANDIDATES}
    best = [threshold for threshold in CANDIDATES if score[threshold] == max(score.values())]
    return best[len(best) // 2]


def build(
    form: str = "dense",
    metadata: str | Path | None = None,
    weights: str | None = None,
    sha256: str | None = None,
    **thresholds: float,
) -> ObjectCount:
    """The count reward over the prompts of `metadata`, a file of GenEval's form; see `geneval.build`.

    Raises ValueError without metadata. `thresholds` are `threshold`, best set by `best_threshold`, and
    `max_overlap`.
    """
    from rewards.detection.detectors import GENEVAL, load_detector

    if metadata is None:
        raise ValueError(
            "got no metadata; expected the JSON-lines file that says what each prompt counts; pass metadata="
        )
    return ObjectCount(
        load_detector(weights or GENEVAL, sha256), read_specs(metadata), form=form, **thresholds
    )
