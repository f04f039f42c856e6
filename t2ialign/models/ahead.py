"""What a model is by its configurations alone: whether it fits is known before its weights are read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig

from t2ialign.models.families import policy_class
from t2ialign.models.folder import pipeline_index, readable
from t2ialign.models.latents import check_sides
from t2ialign.models.options import ModelOptions
from t2ialign.models.single.configs import network_configs
from t2ialign.models.single.facts import read_facts
from t2ialign.models.single.layout import version_of
from t2ialign.models.sources import Source

TEXT_WIDTH = ("cross_attention_dim", "joint_attention_dim", "cap_feat_dim")
"""Names of the width of the encoded prompts in the configurations of networks."""
_STABLE_DIFFUSION = "StableDiffusionPipeline"


@dataclass(frozen=True)
class Ahead:
    """The configurations of a model whose weights are not read."""

    place: str
    policy: Any
    """The class of policy that it will be."""
    family: str
    vae: Mapping[str, Any]
    network: Mapping[str, Any]

    def check_sides(self, sides: Sequence[int]) -> None:
        """Raises ValueError for sides of images that do not divide or are too long."""
        configs = self.vae, self.network
        check_sides(sides, self.policy.multiple_of(*configs), self.policy.largest_of(*configs))

    def check_training(self, family: str | None) -> None:
        """Raises ValueError for a model of another family, or one that cannot be trained."""
        check_family(self.place, self.family, family)
        check_trainable(self.place, self.policy.untrainable_by(self.network))

    def check_cache(self, folder: Path, text_width: int, channels: int) -> None:
        """Raises ValueError for a cache whose prompts or latents are no such as the network reads.

        text_width: of the encoded prompts in the cache, channels: of its latents.
        """
        there, wanted = (text_width, channels), (self._text_width or text_width, self.vae["latent_channels"])
        if there != wanted:
            raise ValueError(
                f"got cache {folder} of prompts {there[0]} wide and latents of {there[1]} channels; expected "
                f"{wanted[0]} and {wanted[1]}, which {self.place} reads; delete it or choose another folder"
            )

    @property
    def _text_width(self) -> int | None:
        """The width of the encoded prompts that the network reads, where its configuration says it."""
        return next((int(self.network[key]) for key in TEXT_WIDTH if self.network.get(key)), None)


def check_family(model: str, family: str, wanted: str | None) -> None:
    """Raises ValueError for a model of another family than settings are for; None is for any."""
    if wanted not in (None, family):
        raise ValueError(
            f"got model {model} of the family {family}; expected {wanted}, which the settings are for; "
            "choose another model or recipe, or set family=null and adapt the settings"
        )


def check_trainable(model: str, untrainable: str | None) -> None:
    """Raises ValueError, saying what the model is, for one that cannot be trained."""
    if untrainable is not None:
        raise ValueError(f"got model {model}, {untrainable}; choose another model")


def look_ahead(source: Source, options: ModelOptions) -> Ahead:
    """Read the configurations in a folder or of a Hub id, or what the header of a single file tells.

    Raises ValueError as loading does, for a model of no family and for files that are not there.
    """
    options = options.over(source.options)
    if source.file is not None:
        facts = read_facts(source.file)
        policy = policy_class("StableDiffusionXLPipeline" if facts.family == "sdxl" else _STABLE_DIFFUSION)
        return Ahead(source.place, policy, facts.family, *network_configs(facts))
    name = str(pipeline_index(source, options.revision)["_class_name"])
    policy = policy_class(name)
    with readable(source.place):
        vae = _config(AutoencoderKL, source, "vae", options)
        network = _config(getattr(diffusers, policy.save_class), source, policy.component, options)
        family = policy.family if name != _STABLE_DIFFUSION else _version(source, options)
    return Ahead(source.place, policy, family, vae, network)


def _version(source: Source, options: ModelOptions) -> str:
    """Which Stable Diffusion it is, "sd1" or "sd2", as its text encoder tells."""
    config = CLIPTextConfig.from_pretrained(
        source.place, subfolder="text_encoder", revision=options.revision or "main"
    )
    return version_of(config)


def _config(kind: Any, source: Source, part: str, options: ModelOptions) -> dict[str, Any]:
    """The configuration of a part, read alone; what its file leaves out is as its class has it."""
    read = kind.load_config(source.place, subfolder=part, revision=options.revision)
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty} | dict(read)
