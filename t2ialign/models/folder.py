"""Reading a diffusers folder or a Hub repository: which weight files, and which parts are not needed."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import nn

from rewards.foreign import refuse_code
from rewards.hub import check_repository
from t2ialign.models.families import pipelines, policy_class
from t2ialign.models.options import ModelOptions
from t2ialign.models.sources import COMPONENTS, EXPECTED, Source

log = logging.getLogger(__name__)

UNUSED = ("feature_extractor", "image_encoder")
"""Parts that an index may name, and whose folders may be missing, as the safety checker's: none is used."""
_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?(\.(?P<variant>[\w-]+?))?(-\d+-of-\d+)?\.safetensors"
)


def load_folder(source: Source, options: ModelOptions, dtypes: dict[str, torch.dtype]) -> Any:
    """The pipeline in a folder or of a Hub id, from its safetensors.

    dtypes: of the "network" that is trained, of the "vae", and "default" for the rest. Raises ValueError for
    another class of pipeline, and for files that are not there or not whole.
    """
    place, revision = source.place, {"revision": options.revision} if options.revision else {}
    if source.folder is not None and revision:
        raise ValueError(f"got revision={options.revision!r} for a folder; expected it for a Hub id; drop it")
    refuse_code(place)
    index = pipeline_index(source, options.revision)
    name = str(index["_class_name"])
    pipeline, policy = getattr(diffusers, name), policy_class(name)
    # diffusers asks for parts to be passed that its index says are not there, such as a T5 that was left out.
    absent = [part for part, kind in index.items() if isinstance(kind, list) and kind[:1] == [None]]
    given: dict[str, Any] = dict.fromkeys([*UNUSED, *absent])
    if name == "StableDiffusionPipeline":
        given |= {"safety_checker": None, "requires_safety_checker": False}
    variant = options.variant if source.folder is None else _variant(source.folder, index, options.variant)
    if source.network is not None:
        given[policy.component] = trained_network(source.network, policy.save_class, dtypes["network"])
    hint = "" if source.folder or variant else "; set variant=fp16 if it has only such files"
    with readable(place, hint):
        return pipeline.from_pretrained(
            place,
            dtype={"default": dtypes["default"], "vae": dtypes["vae"], policy.component: dtypes["network"]},
            use_safetensors=True,
            variant=variant,
            trust_remote_code=False,
            **revision,
            **given,
        )


@contextmanager
def readable(place: str, hint: str = "") -> Iterator[None]:
    """Within this block a library's error about the files of a model is a ValueError of one line.

    Configurations of strangers lead libraries to errors of any kind. Too little memory stays what it is.
    """
    logger = logging.getLogger("diffusers.models.modeling_utils")
    logger.addFilter(_news)
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # libraries raise whatever a wrong value in a configuration leads them to
        raise ValueError(
            f"got model {place!r}; expected a whole diffusers model in safetensors ({_line(error)}){hint}"
        ) from error
    finally:
        logger.removeFilter(_news)


def _news(record: logging.LogRecord) -> bool:
    """diffusers 0.42 warns of each change of precision that no module must stay in fp32."""
    return "should be kept in float32: []" not in record.getMessage()


def networks(pipe: Any) -> dict[str, nn.Module]:
    """The networks of a pipeline, by their names in it."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


def trained_network(folder: Path, save_class: str, dtype: torch.dtype) -> Any:
    """The network of a run that trained all weights, of that class of diffusers."""
    with readable(str(folder)):
        return getattr(diffusers, save_class).from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )


def pipeline_index(source: Source, revision: str | None) -> dict[str, Any]:
    """The content of model_index.json. Raises ValueError if there is none, or its class is of no family."""
    place = source.place
    try:
        if source.folder is None:
            check_repository(place, "model_index.json", revision)
        index = DiffusionPipeline.load_config(place, revision=revision)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"got model {place!r}, no folder or file here and no model the Hub gave ({_line(error)}); "
            f"expected {EXPECTED}; check the name, the network and your Hub login"
        ) from error
    name = str(index.get("_class_name")) if isinstance(index, dict) else "none"
    if name not in pipelines():
        raise ValueError(f"got model {place!r} of class {name}; expected one of {', '.join(pipelines())}")
    return dict(index)


def variants(part: Path) -> set[str | None]:
    """The variants of weights in the folder of a part; None stands for the plain files."""
    matches = [_WEIGHTS.fullmatch(file.name) for file in part.glob("*.safetensors")]
    return {match["variant"] for match in matches if match}


def _variant(folder: Path, index: dict[str, Any], wanted: str | None) -> str | None:
    """The variant to read. Raises ValueError for one that is nowhere, and where only several others are."""
    read = [name for name in index if name not in (*UNUSED, "safety_checker")]
    parts = {name: names for name in sorted(read, key=_network_first) if (names := variants(folder / name))}
    named = sorted({str(name) for names in parts.values() for name in names if name})
    if wanted is not None:
        if wanted not in named:
            raise ValueError(
                f"got variant={wanted!r} for {folder}; expected one of {', '.join(named) or 'none'}, whose "
                "files it holds"
            )
        return wanted
    lacking = {name: names for name, names in parts.items() if None not in names}
    if not lacking:
        return None
    everywhere = sorted(str(name) for name in set.intersection(*map(set, lacking.values())))
    if len(everywhere) != 1:
        raise ValueError(
            f"got {folder}, whose {', '.join(lacking)} has no plain weights but {', '.join(named)}; expected "
            "one variant for all parts; choose it with variant=NAME"
        )
    log.info("%s holds only %s weights, so these are read", folder, everywhere[0])
    return everywhere[0]


def _network_first(name: str) -> tuple[int, str]:
    """The network, the VAE, then the text encoders by number."""
    return (0 if name in COMPONENTS else 1 if name == "vae" else 2), name


def _line(error: Exception) -> str:
    """The first line of an error, without the full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
