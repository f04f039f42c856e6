"""The flow families, tiny and random, as policies for images of 32 pixels."""

from collections.abc import Callable, Mapping
from typing import Any

from t2ialign.models.base import Policy
from t2ialign.models.load import policy_of
from tests.models.flows.tiny_flux import tiny_flux_pipeline
from tests.models.flows.tiny_sd3 import tiny_sd3_pipeline
from tests.models.flows.tiny_z_image import tiny_z_image_pipeline

FLOWS: Mapping[str, Callable[..., Any]] = {
    "sd3": tiny_sd3_pipeline,
    "flux": tiny_flux_pipeline,
    "z-image": tiny_z_image_pipeline,
}
"""Family -> what builds its pipeline."""


def tiny_flow(family: str) -> Policy:
    """The policy of that family; FLUX and Z-Image, which state no size of their own, are told one."""
    policy = policy_of(FLOWS[family]())
    policy.latents.native_size = (32, 32)
    return policy
