"""A diffusers pipeline that the user has loaded, as a policy; its weights are shared, not copied."""

from __future__ import annotations

from typing import Any

from t2ialign.models.base import Policy
from t2ialign.models.families import policy_class_of
from t2ialign.models.load import policy_of


def is_pipeline(model: object) -> bool:
    """Whether it is a pipeline of diffusers, of any family."""
    from diffusers import DiffusionPipeline

    return isinstance(model, DiffusionPipeline)


def wrap(pipe: Any) -> Policy:
    """A loaded pipeline of one of the families, on its device and in its precision -> a policy.

    A VAE that asks for fp32 (SDXL's) is copied in fp32 where the pipeline has it in half precision. Raises
    ValueError for a pipeline of no family, for one that lacks a part, and for one whose parts are offloaded.
    """
    kind = type(pipe).__name__
    parts = (policy_class_of(pipe).component, "vae", "text_encoder", "tokenizer", "scheduler")
    if missing := [name for name in parts if getattr(pipe, name, None) is None]:
        raise ValueError(
            f"got a {kind} without {' and '.join(missing)}; expected one with all its parts; load it again"
        )
    if any(hasattr(part, "_hf_hook") for part in pipe.components.values()):
        raise ValueError(
            f"got a {kind} whose parts are offloaded; expected all of it on one device; load it again and "
            "call pipe.to(device)"
        )
    return policy_of(pipe)


def loaded(model: Any) -> Policy:
    """A `Policy` as it is, a pipeline as a policy. Raises ValueError like `wrap`, and for what is neither."""
    if isinstance(model, Policy):
        return model
    if is_pipeline(model):
        return wrap(model)
    raise ValueError(
        f"got a model of type {type(model).__name__}; expected a name, a diffusers pipeline or a "
        "t2ialign.Policy; pass one"
    )
