"""A method's trainer from a recipe, settings and loaded objects -> its result and where that lies."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from t2ialign.io import jsonl, locks
from t2ialign.tasks import recipe_files
from t2ialign.tasks.training_arguments import TrainingArguments, taken_apart
from t2ialign.toy import default as toy
from t2ialign.training.methods import load_method, methods, settings_of

if TYPE_CHECKING:
    from t2ialign.config import Config

PROMPTS = ("prompts", "heldout_prompts", "monitor_prompts", "data")
"""Settings that may name a file of prompts."""
METRICS, BEST, WEIGHTS = "metrics.jsonl", "best", "pytorch_lora_weights.safetensors"

Told = Callable[[int, dict[str, float]], object]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Callbacks:
    """The callbacks of a run, which get the number of a step and its metrics."""

    on_step: Told | None = None
    on_evaluation: Told | None = None

    def __post_init__(self) -> None:
        for name, call in self.given().items():
            if not callable(call):
                raise ValueError(
                    f"got {name} of type {type(call).__name__}; expected a function of the number of a step "
                    "and its metrics; pass one"
                )

    def given(self) -> dict[str, Told]:
        """The callbacks that are set, by the names that `fit` gives them."""
        named = {"on_step": self.on_step, "on_evaluation": self.on_evaluation}
        return {name: call for name, call in named.items() if call is not None}


NONE = Callbacks()


@dataclass(frozen=True)
class TrainResult:
    """The result of a run: its folder, and the metrics of its last step."""

    output: Path
    """The folder of the run; `loras=result.output` of `sample` applies a LoRA that lies there."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The metrics of the last step; empty for methods that have no steps."""

    @property
    def best(self) -> Path:
        """The folder of the best weights by `keep_best`; the output itself where none are kept."""
        best = self.output / BEST
        return best if best.is_dir() else self.output

    @property
    def history(self) -> list[dict[str, Any]]:
        """The metrics of every step so far, for a table or a plot."""
        return jsonl.read(self.output / METRICS)


def run(
    method: str,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    told: Callbacks = NONE,
) -> TrainResult:
    """Train. Raises ValueError for an unknown method, key or value, and as the method's trainer does.

    settings: values by their names, which win over those of the recipe; models, rewards and prompts may be
    objects.
    """
    from t2ialign import config

    cls = settings_of(method)
    file = recipe_files.find(recipe) if recipe else None
    if file is not None and method in methods():
        recipe_files.check_method(file, method, settings_of)
    folders = (file.parent, recipe_files.folder()) if file else ()
    arguments = taken_apart(settings or {})
    cfg = config.load(cls, file, overrides, folders=folders, values=arguments.settings)
    if key := _unnamed_model(cfg):
        toy.announce(f"{key}=")
    output = getattr(cfg, "output", None)  # a method of the user's may write none
    held = locks.hold_folder(Path(output), "output=", shared=True, nested=True) if output else nullcontext()
    with held:
        cfg = arguments.written(cfg)
        metrics = _fit(load_method(method), cfg, arguments, told.given())
    return TrainResult(Path(output or "."), metrics or {})


def _fit(
    module: ModuleType, cfg: Config, arguments: TrainingArguments, told: dict[str, Told]
) -> dict[str, float] | None:
    """Train; if the cache turns out to be damaged, build it anew and go on from the last checkpoint."""
    from t2ialign.data.cache.shards import DamagedCache

    try:
        return _fit_once(module, cfg, arguments, told)
    except DamagedCache as error:
        alone = os.environ.get("WORLD_SIZE", "1") == "1"
        if not alone or getattr(cfg, "resume", "") not in (None, "latest") or arguments.objects:
            raise
        log.warning("%s; this run does so", error)
    return _fit_once(module, cfg.model_copy(update={"resume": "latest"}), arguments, told)


def _fit_once(
    module: ModuleType, cfg: Config, arguments: TrainingArguments, told: dict[str, Told]
) -> dict[str, float] | None:
    """Train. Where a reward fails, the error names the row of the file that its prompt stands in."""
    from rewards.failures import FailedRows
    from t2ialign.data.prompts import place_of

    arguments.check(module, cfg, told)
    try:
        metrics: dict[str, float] | None = module.Trainer(cfg, **arguments.objects).fit(**told)
    except FailedRows as error:
        files = (getattr(cfg, name, None) for name in PROMPTS)
        places = (place_of(file, error.prompts) for file in files if isinstance(file, str | Path))
        where = next((place for place in places if place), None)
        raise ValueError(f"{where}: {error}" if where else str(error)) from error
    return metrics


def _unnamed_model(cfg: Config) -> str | None:
    """The key of the image model where nobody set it; None where it is set, or the method has none."""
    from t2ialign.training.settings import TrainConfig

    key = "model" if isinstance(cfg, TrainConfig) else "generator"  # of a rewriter, model is another
    known = type(cfg).model_fields
    return key if key in known and key not in cfg.model_fields_set else None
