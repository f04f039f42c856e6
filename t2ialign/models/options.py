"""Settings of how a model is read, which its files leave open or get wrong."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class ModelOptions:
    """Options of reading a model; None leaves it to its files. Raises ValueError for a value out of range."""

    variant: str | None = None
    """The variant of the weight files, such as "fp16", of a folder or Hub repository with several."""
    revision: str | None = None
    """Branch, tag or commit of a Hub repository."""
    clip_skip: int | None = None
    """The number of last text-encoder layers to skip, as diffusers counts: 1 is the last but one."""
    prediction_type: str | None = None
    """One of PREDICTION_TYPES, in place of the scheduler's."""
    rescale_betas_zero_snr: bool | None = None
    """Whether the last training step is pure noise (Lin et al. 2024), in place of the scheduler's."""

    def __post_init__(self) -> None:
        if self.prediction_type not in (None, *PREDICTION_TYPES):
            raise ValueError(
                f"got prediction_type={self.prediction_type!r}; expected one of {', '.join(PREDICTION_TYPES)}"
            )
        if self.clip_skip is not None and self.clip_skip < 0:
            raise ValueError(f"got clip_skip={self.clip_skip}; expected 0, which skips no layer, or more")

    def given(self) -> dict[str, Any]:
        """The options that are set, by name: what a manifest records."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}

    def facts(self) -> dict[str, object]:
        """A line for the model card, where anything is set."""
        values = ", ".join(f"{name}={value}" for name, value in self.given().items())
        return {"Model read with": values} if values else {}

    def over(self, others: ModelOptions) -> ModelOptions:
        """These options, and those of `others` where these leave the choice open."""
        return replace(others, **self.given())


AS_IT_IS = ModelOptions()
"""Every choice is left to the model's files."""
NAMES = tuple(field.name for field in fields(ModelOptions))
"""Names of the options, as settings and flags have them too."""


def options_of(settings: object) -> ModelOptions:
    """The options among the attributes of a configuration or of parsed arguments."""
    return ModelOptions(**{name: getattr(settings, name) for name in NAMES})


def options_from(values: Mapping[str, Any] | None) -> ModelOptions:
    """The options of these names. Raises ValueError for a name that is none, and a value out of range."""
    if stray := [name for name in values or {} if name not in NAMES]:
        raise ValueError(
            f"got {stray[0]} as an option of the model; expected one of {', '.join(NAMES)}; correct it"
        )
    return ModelOptions(**(values or {}))


def add_arguments(parser: ArgumentParser) -> None:
    """The same options as flags of a command."""
    group = parser.add_argument_group(
        "reading the model",
        "These options override what the files of the model say; see docs/models.md.",
    )
    group.add_argument(
        "--variant",
        metavar="NAME",
        help="The variant of the weight files to read, such as fp16, where a folder has several.",
    )
    group.add_argument("--revision", metavar="NAME", help="The branch, tag or commit of a Hub repository.")
    group.add_argument(
        "--clip-skip",
        type=int,
        metavar="N",
        help="The number of last text-encoder layers to skip, as diffusers counts them: 1 is what A1111 "
        "calls clip skip 2.",
    )
    group.add_argument(
        "--prediction-type",
        choices=PREDICTION_TYPES,
        help="What the network predicts: the noise (epsilon) or v.",
    )
    group.add_argument(
        "--rescale-betas-zero-snr",
        action=BooleanOptionalAction,
        help="Whether the last training timestep is pure noise (zero signal-to-noise ratio).",
    )
