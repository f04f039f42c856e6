"""Settings of a training that are objects: passed to the trainer, and described by text in its files."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rewards.loading import of_any_kind
from t2ialign.io import jsonl
from t2ialign.tasks.arguments import is_frame, is_name, name_of, prompts_of, rows_of

if TYPE_CHECKING:
    from t2ialign.config import Config

OBJECTS = {"model": "policy", "reward": "reward"}
"""Settings that may be objects -> what trainers call these."""
LISTS = ("prompts", "heldout_prompts", "monitor_prompts")
"""Settings that name a file of prompts, and may be prompts themselves."""
TABLE = "data"
"""The setting that names training data, and may be a table."""
FOLDER = "prompts"
"""In the output: prompts and tables that were handed over, as files that a resumed run reads too."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingArguments:
    """Settings without objects, and the objects."""

    settings: dict[str, Any]
    objects: dict[str, Any] = field(default_factory=dict)
    """By the names that trainers give them."""
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Lists of prompts and tables by their setting, as rows of a file."""

    def written(self, cfg: Config) -> Config:
        """The settings with the files that lists and tables were written to, in the output folder."""
        from t2ialign.training.output import check_unused

        files = {}
        if self.rows and cfg.resume is None:  # type: ignore[attr-defined]
            check_unused(cfg.output)  # type: ignore[attr-defined]
        for key, rows in self.rows.items():
            digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:8]
            file = Path(cfg.output) / FOLDER / f"{key}-{digest}.jsonl"  # type: ignore[attr-defined]
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                jsonl.rewrite(file, rows)
            files[key] = str(file)
        return cfg.model_copy(update=files) if files else cfg

    def check(self, module: ModuleType, cfg: Config, told: Mapping[str, object]) -> None:
        """Raises ValueError for objects, or calls on the way, that the method's trainer does not take."""
        if not self.objects and not told:
            return
        takes, fit = (inspect.signature(part).parameters for part in (module.Trainer, module.Trainer.fit))
        names = {trainer: setting for setting, trainer in OBJECTS.items()}
        if stray := [names[key] for key in self.objects if key not in takes]:
            raise ValueError(
                f"got an object as {stray[0]}, which this method takes by its name alone; name it"
            )
        if stray := [key for key in told if key not in fit]:
            raise ValueError(
                f"got {stray[0]} for a method that does not call it; expected none; leave it out"
            )
        if self.objects:
            what = " and ".join(sorted(names[key] for key in self.objects))
            log.warning(
                "an object as %s is in no file of the run: to continue it, pass the same again with "
                'resume="latest"',
                what,
            )


def taken_apart(settings: Mapping[str, Any]) -> TrainingArguments:
    """Settings, some of them objects -> what files can say, and the objects.

    Raises ValueError for a loaded model that cannot be trained, or not in the precision that is set, and for
    what is no reward.
    """
    plain, objects = dict[str, Any](), dict[str, Any]()
    plain |= {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    lists = [key for key in LISTS if _is_list(plain.get(key))]
    rows: dict[str, list[dict[str, Any]]] = {
        key: [{"prompt": text} for text in prompts_of(plain[key])] for key in lists
    }
    if is_frame(plain.get(TABLE)):
        rows[TABLE] = rows_of(plain[TABLE])
    plain |= dict.fromkeys(rows, "handed over in Python")
    for setting, name in OBJECTS.items():
        value = plain.get(setting)
        if value is not None and not is_name(value):
            objects[name], plain[setting] = value, name_of(value)
    if "reward" in objects:
        of_any_kind(objects["reward"])
    if "policy" in objects:
        from t2ialign.models.wrapped import loaded

        policy = objects["policy"] = loaded(objects["policy"])
        plain["precision"] = _precision(policy, plain)
    return TrainingArguments(plain, objects, rows)


def _is_list(value: Any) -> bool:
    return value is not None and not isinstance(value, str | Path)


def _precision(policy: Any, settings: Mapping[str, Any]) -> str:
    """The precision that a loaded model is in. Raises ValueError where it cannot be trained as it is."""
    from rewards.device import default_device
    from t2ialign.models.load import PRECISIONS

    (name,) = [name for name, dtype in PRECISIONS.items() if dtype == policy.dtype] or ["fp32"]
    if settings.get("precision", name) != name:
        raise ValueError(
            f"got precision={settings['precision']} for a model that is loaded in {name}; expected the same; "
            "leave it out, or load the model in that precision"
        )
    if settings.get("lora_rank", 1) == 0 and name != "fp32":
        raise ValueError(
            f"got lora_rank=0 for a model that is loaded in {name}; expected fp32 to train all weights; name "
            "the model, or load it in torch.float32"
        )
    if policy.device.type != default_device().type:
        raise ValueError(
            f"got a model on {policy.device}; expected it on {default_device()}, where it is trained; call "
            f"pipe.to('{default_device()}')"
        )
    return name
