"""Training, and the filter of the pairs that go into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t2ialign.api.parameters import takes_former_names
from t2ialign.scoring.budget import MAX_BATCH_PIXELS

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.tasks.filtering import Filtered
    from t2ialign.tasks.training import TrainResult

Place = str | Path
"""A file or a folder."""


def train(
    method: str,
    *,
    config: Place | None = None,
    on_step: Callable[[int, dict[str, float]], object] | None = None,
    on_evaluation: Callable[[int, dict[str, float]], object] | None = None,
    **settings: Any,
) -> TrainResult:
    """Train by a method ("dpo", "dense", "backprop", "lpo", "reward", ...) -> its output and last metrics.

    config: a recipe, by its name or as a YAML file. settings: those of the method, as `t2ialign train METHOD
    --help` lists them; they win over the recipe. `model` may be a diffusers pipeline or a `Policy`, which is
    trained in place, `reward` a `Reward` (for backprop and lpo a `LatentReward` too), settings of prompts
    lists or pandas tables, and `data` a table with paths of images. on_step is called after each optimiser
    step with its number and metrics, on_evaluation where held-out metrics are due.
    Raises ValueError for an unknown method or setting, a wrong value, and an output in use.
    """
    from t2ialign.tasks import training

    if not isinstance(config, str | Path | None):
        raise ValueError(
            f"got config of type {type(config).__name__}; expected the name of a recipe or a YAML file; pass "
            "settings by their names, or an object of settings to the class of the trainer"
        )
    recipe = None if config is None else str(config)
    told = training.Callbacks(on_step, on_evaluation)
    return training.run(method, recipe=recipe, settings=settings, told=told)


@takes_former_names
def filter_pairs(
    pairs: Place,
    rewards: Iterable[str | Reward] | Mapping[str, Reward],
    output: Place,
    *,
    strategy: Literal[1, 2, 3] | None = None,
    floors: Sequence[float] | None = None,
    ties: Sequence[float] | None = None,
    split: str = "train",
    streaming: bool = False,
    limit: int | None = None,
    unreadable: Literal["error", "skip"] = "error",
    batch_size: int = 64,
    max_batch_pixels: int = MAX_BATCH_PIXELS,
    resume: bool = False,
) -> Filtered:
    """Keep the preference pairs that three rewards do not contradict -> the file, and what was dropped.

    Multi-Preference Consistent Filtering (Zhang et al., NeurIPS 2025). pairs: in any form that training
    takes. rewards: three, by name or as objects. output: a .jsonl or .parquet file. strategy: published
    limits, or floors and ties of your own, one a reward. split, streaming, limit: of a Hub data set.
    unreadable: whether a broken row ends the run. resume: keeps the scores beside the output. Raises
    ValueError for bad settings or data.
    """
    from t2ialign.tasks import filtering
    from t2ialign.tasks.scorers import listed

    how = filtering.Filter(
        pairs=str(pairs),
        judges=listed(rewards),
        output=Path(output).expanduser(),
        strategy=strategy,
        floors=floors,
        ties=ties,
        split=split,
        streaming=streaming,
        limit=limit,
        unreadable=unreadable,
        batch_size=batch_size,
        max_batch_pixels=max_batch_pixels,
    )
    return filtering.run(how, resume=resume)
