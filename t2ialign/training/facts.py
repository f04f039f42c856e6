"""What a trainer tells the run plan of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from t2ialign.training.conversion import Published


@dataclass(frozen=True)
class Facts:
    """What only a trainer knows of its run; what it leaves out is not shown."""

    model: str
    """What is trained, and its family."""
    unit: str = "rows"
    """What the data is counted in, and what a row of a batch is."""
    train: int = 0
    """Units to train on."""
    heldout: int = 0
    """Units that are measured and never trained on."""
    accuracy: bool = False
    """Whether what is measured on them is an accuracy."""
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
    """Measures the untrained weights, shortly -> a line on them."""
