"""A diffusers pipeline that the user has loaded, as a policy; its weights are shared, not copied."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch

from t2ialign.models.advice import distilled, not_followed
from t2ialign.models.families.sd import UNetPolicy
from t2ialign.models.families.sdxl import SDXLPolicy

log = logging.getLogger(__name__)

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def is_pipeline(model: object) -> bool:
    """Whether it is a pipeline of diffusers, of any family."""
    from diffusers import DiffusionPipeline

    return isinstance(model, DiffusionPipeline)


def wrap(pipe: Any) -> UNetPolicy:
    """StableDiffusionPipeline or StableDiffusionXLPipeline, on its device and in its precision -> a policy.

    A VAE that asks for fp32 (SDXL's) is copied in fp32 where the pipeline has it in half precision. Raises
    ValueError for a pipeline of another family, and for one whose parts are offloaded.
    """
    kind = type(pipe).__name__
    if missing := [name for name in PARTS if getattr(pipe, name, None) is None]:
        raise ValueError(
            f"got a {kind} without {' and '.join(missing)}; expected a StableDiffusionPipeline or a "
            "StableDiffusionXLPipeline with all its parts; load one"
        )
    if any(hasattr(part, "_hf_hook") for part in (pipe.unet, pipe.vae, pipe.text_encoder)):
        raise ValueError(
            f"got a {kind} whose parts are offloaded; expected all of it on one device; load it again and "
            "call pipe.to(device)"
        )
    policy_class = SDXLPolicy if hasattr(pipe, "text_encoder_2") else UNetPolicy
    policy = policy_class(pipe, dtype=pipe.unet.dtype)
    if pipe.vae.config.force_upcast and pipe.vae.dtype != torch.float32:
        policy.latents.vae = copy.deepcopy(pipe.vae).float()
    config = {"_class_name": type(pipe.scheduler).__name__, **pipe.scheduler.config}
    policy.distilled = distilled(str(pipe.config.get("_name_or_path") or ""), config)
    if (line := not_followed(config)) is not None:
        log.info("%s", line)
    return policy
