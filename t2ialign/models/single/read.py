"""Reading one file of weights in the released layout, offline, by diffusers' own conversion."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from t2ialign.models.folder import networks, readable, trained_network
from t2ialign.models.options import ModelOptions
from t2ialign.models.single.configs import tokenizers, write_configs
from t2ialign.models.single.facts import FAMILIES, FileFacts, read_facts

log = logging.getLogger(__name__)

_BASE_2 = re.compile(r"512|base")
"""Names of the Stable Diffusion 2 files that predict eps: 512-base-ema, v2-1_512-ema-pruned."""


def load_file(path: Path, network: Path | None, options: ModelOptions, dtypes: dict[str, torch.dtype]) -> Any:
    """The pipeline in a single file of Stable Diffusion 1, 2 or XL, in `dtypes` by part; nothing is fetched.

    network: a folder of weights that a run trained, in place of the file's. Raises ValueError as `read_facts`
    and `write_configs` do, and for options of a folder.
    """
    for name in options.given().keys() & {"variant", "revision"}:
        raise ValueError(
            f"got {name} for the single file {path}; expected it for a folder or Hub id; drop it"
        )
    facts = read_facts(path)
    prediction_type, reason = prediction(facts, options)
    log.info("%s is %s, %s (%s)", path, FAMILIES[facts.family], prediction_type, reason)
    cls = StableDiffusionXLPipeline if facts.family == "sdxl" else StableDiffusionPipeline
    with TemporaryDirectory() as folder:
        write_configs(facts, prediction_type, zero_snr(facts, options), Path(folder))
        parts = tokenizers(facts.family)
        if network is not None:
            parts["unet"] = trained_network(network, "UNet2DConditionModel", dtypes["network"])
        with readable(str(path)):
            pipe = _read(cls, path, parts, dtypes, {"config": folder, "local_files_only": True})
    _check_whole(pipe, path)
    return pipe


def _read(
    cls: Any,
    path: Path,
    parts: dict[str, Any],
    dtypes: dict[str, torch.dtype],
    common: dict[str, Any],
) -> Any:
    """The pipeline of the parts that are there and those in the file."""
    try:
        for name, kind in (("unet", "network"), ("vae", "vae")):
            if name not in parts:
                read = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[name].from_single_file
                parts[name] = read(str(path), subfolder=name, torch_dtype=dtypes[kind], **common)
        return cls.from_single_file(str(path), torch_dtype=dtypes["default"], **parts, **common)
    except NotImplementedError as error:  # torch's, on moving a weight without a value
        raise ValueError("some weights are missing") from error


def prediction(facts: FileFacts, options: ModelOptions) -> tuple[str, str]:
    """The quantity that the network predicts, and the evidence for it.

    Files of Stable Diffusion 2 lack it: one with "512" or "base" in its name is taken for the model of 512
    pixels, which predicts eps, any other for that of 768, which predicts v.
    """
    if options.prediction_type is not None:
        return options.prediction_type, "as set"
    if facts.prediction_type is not None:
        return facts.prediction_type, "as the file says"
    if facts.family != "sd2":
        return "epsilon", "as its family does"
    if _BASE_2.search(facts.path.stem.lower()):
        return "epsilon", "as its name says; set prediction_type=v_prediction if it is a model of 768 pixels"
    return "v_prediction", "a guess; set prediction_type=epsilon if it is a model of 512 pixels (base)"


def zero_snr(facts: FileFacts, options: ModelOptions) -> bool:
    """Whether the last training step is pure noise: as set, else as the file says."""
    given = options.rescale_betas_zero_snr
    return facts.zero_snr if given is None else given


def _check_whole(pipe: Any, path: Path) -> None:
    """Raises ValueError if the file left a weight of a part without a value."""
    for name, part in networks(pipe).items():
        empty = [key for key, value in part.named_parameters() if value.is_meta]
        if empty:
            raise ValueError(
                f"got {path}, which lacks {len(empty)} weights of its {name}, {empty[0]} among them; "
                "expected a whole model; download it again"
            )
