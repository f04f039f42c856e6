"""Advice on a model: that it is distilled, or names a sampler that is not followed."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2ialign.models.base import Policy

log = logging.getLogger(__name__)

_WORDS = {"turbo", "lightning", "hyper", "hypersd", "lcm", "schnell", "dmd", "tcd"}
_SCHEDULERS = ("LCMScheduler", "TCDScheduler")
_FOLLOWED = ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler")


def distilled(place: str, scheduler: Mapping[str, Any]) -> str | None:
    """Why a model seems to be distilled to a few steps: by the name of its file, folder or Hub id, or by the
    config of its scheduler; None if it does not.
    """
    name = "/".join(PurePath(place).parts[-2:]) if place.count("/") == 1 else PurePath(place).name
    words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
    if marks := sorted(words & _WORDS):
        return f"its name has {marks[0]!r}"
    kind = str(scheduler.get("_class_name"))
    if kind in _SCHEDULERS:
        return f"its scheduler is {kind}"
    if kind == "EulerAncestralDiscreteScheduler" and scheduler.get("timestep_spacing") == "trailing":
        return (
            "its scheduler is EulerAncestralDiscreteScheduler with trailing steps, as the Turbo models have"
        )
    return None


def advise_before_training(policy: Policy) -> None:
    """Log one warning for a model that seems distilled."""
    if (reason := policy.distilled) is not None:
        log.warning(
            "the model seems to be distilled to a few steps (%s); training on all timesteps undoes the "
            "distillation; train the model it was distilled from",
            reason,
        )


def not_followed(scheduler: Mapping[str, Any]) -> str | None:
    """One line on a sampler that the model's config names and that is not used here; None for one that is."""
    name = scheduler.get("_class_name")
    if name is None or name in _FOLLOWED:
        return None
    return f"the model names {name}; images are sampled with DDIM on its noise schedule instead"


def unvisited(schedule: Mapping[str, Any]) -> str | None:
    """One line if the noise schedule ends in pure noise where no step of the model's own grid begins."""
    if not schedule.get("rescale_betas_zero_snr") or schedule.get("timestep_spacing") == "trailing":
        return None
    return (
        f"the noise schedule ends in pure noise, which the {schedule.get('timestep_spacing')} steps of the "
        "model's config never visit; rescale_betas_zero_snr=true samples with trailing steps"
    )
