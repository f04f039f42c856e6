"""The facts that a trainer gives to the run plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from t2ialign.training.conversion import Published


@dataclass(frozen=True)
class Facts:
    """The facts of a run that only its trainer knows; the plan leaves out what is not set."""

    model: str
    """The model that is trained, and its family."""
    unit: str = "rows"
    """The unit of the data, and of a row of a batch."""
    train: int = 0
    """Units to train on."""
    heldout: int = 0
    """Units that are measured and never trained on."""
    accuracy: bool = False
    """Whether the measure of held-out units is an accuracy."""
    epoch: int = 0
    """Rows of an epoch; 0 where rows are sampled in rounds."""
    repeats: bool = False
    """Whether an epoch has the same rows again, which many epochs learn by heart."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Further lines, such as sampling: name -> text."""
    published: tuple[Published, ...] = ()
    """Settings that depend on the size of the latent."""
    numbers: int = 0
    """C h w of the latent that is trained on."""
    watched: Mapping[str, float | None] = field(default_factory=dict)
    """Metrics that should rise in the first tenth of the run; for one that starts at 0 its least mean."""
    levers: Mapping[str, object] = field(default_factory=dict)
    """Settings to change where they do not, with their values."""
    start: Callable[[], str] | None = None
    """A function that briefly measures the untrained weights and returns a line on them."""
