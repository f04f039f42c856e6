"""The base model that a LoRA is for, and the entries about it in the header of its file.

The keys are those of Stability's model specification 1.0.0 and of kohya's sd-scripts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from t2ialign.models.base import Policy
from t2ialign.models.options import ModelOptions

SD1, SD2, SD2_V, SDXL = (
    "stable-diffusion-v1",
    "stable-diffusion-v2-512",
    "stable-diffusion-v2-768-v",
    "stable-diffusion-xl-v1-base",
)
"""Architectures by their names in the model specification."""
VERSIONS = {SD1: "sd_v1", SD2: "sd_v2", SD2_V: "sd_v2_v", SDXL: "sdxl_base_v1-0"}
"""Architectures by their names in sd-scripts."""
SD3_SIZES = {(24, False, False): "-m", (24, True, True): "-5-medium", (38, True, False): "-5-large"}
"""Suffixes of Stable Diffusion 3's sizes: blocks, normalised queries and keys, blocks with two attentions."""
WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL}
"""The width of the encoded prompts that the cross-attention of each reads."""
ARCHITECTURE, TITLE, PREDICTION, VERSION = (
    "modelspec.architecture",
    "modelspec.title",
    "modelspec.prediction_type",
    "ss_base_model_version",
)
_GENERATIVE_MODELS = "https://github.com/Stability-AI/generative-models"


def of_policy(policy: Policy) -> str | None:
    """The architecture of a Stable Diffusion 1, 2 or XL, of whatever size it is; None for another family."""
    second = SD2_V if policy.kind == "v" else SD2
    return {"sd1": SD1, "sd2": second, "sdxl": SDXL}.get(policy.family)


def of_flow(policy: Policy) -> str | None:
    """A flow model's name in the specification, as sd-scripts writes it; None where there is none.

    sd-scripts tells the sizes of Stable Diffusion 3 apart by a suffix; one of no published size has none.
    """
    config = policy.adapted.config
    if policy.family == "sd3":
        size = config.num_layers, bool(config.qk_norm), bool(config.get("dual_attention_layers"))
        return f"stable-diffusion-3{SD3_SIZES.get(size, '')}"
    if policy.family == "flux":
        return "flux-1-dev" if config.guidance_embeds else "flux-1-schnell"
    return None


def of_header(header: Mapping[str, str]) -> str | None:
    """The architecture that a file's header names, if it is one of ours."""
    name = re.sub(r"[/-]lora$", "", header.get(ARCHITECTURE, ""))
    if name in VERSIONS:
        return name
    version = header.get(VERSION, "")
    known = {"sd_v1_v": SD1, **{version: name for name, version in VERSIONS.items()}}
    return known.get(version)


def of_shapes(shapes: Mapping[str, Sequence[int]]) -> str | None:
    """The architecture by the keys of a LoRA's layers and the shapes of the weights they change, if those
    tell it.
    """
    if any(key.startswith("transformer.") for key in shapes):
        return None
    widths = _widths(shapes)
    if widths:
        return WIDTHS.get(widths.pop()) if len(widths) == 1 else None
    second = any(key.startswith("text_encoder_2.") for key in shapes)
    deep = any(re.search(r"\.transformer_blocks\.[1-9]", key) for key in shapes)  # SD 1 and 2 have one each
    return SDXL if second or deep else None


def of_lora(header: Mapping[str, str], shapes: Mapping[str, Sequence[int]]) -> str | None:
    """The architecture that the header names, or the shapes tell; None if nobody knows, or if it is SDXL in
    another size, where only the model tells its block numbers.
    """
    stated = of_header(header)
    if stated == SDXL and _widths(shapes) - {2048}:
        return None
    return stated or of_shapes(shapes)


def header(
    architecture: str, *, title: str, prediction: str | None = None, adapter: str = "/lora"
) -> dict[str, str]:
    """The header entries of a LoRA on its base. prediction: "epsilon" or "v"; None if unknown. adapter: ""
    for a whole model.
    """
    return {
        "modelspec.sai_model_spec": "1.0.0",
        ARCHITECTURE: f"{architecture}{adapter}",
        "modelspec.implementation": _GENERATIVE_MODELS if architecture == SDXL else "diffusers",
        TITLE: title,
        **({PREDICTION: prediction} if prediction else {}),
    }


def reading_header(options: ModelOptions) -> dict[str, str]:
    """The settings with which the base was read, in words of sd-scripts, whose clip_skip 1 skips nothing."""
    words = {}
    if options.clip_skip:
        words["ss_clip_skip"] = str(options.clip_skip + 1)
    if options.rescale_betas_zero_snr is not None:
        words["ss_zero_terminal_snr"] = str(options.rescale_betas_zero_snr)
    return words


def kohya_header(architecture: str, rank: int, prediction: str | None = None) -> dict[str, str]:
    """The further header of sd-scripts, by which A1111 and Forge sort LoRAs."""
    suffix = "_v" if architecture == SD1 and prediction == "v" else ""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
        VERSION: VERSIONS[architecture] + suffix,
        "ss_v2": str(architecture in (SD2, SD2_V)),
    }


def carried(header: Mapping[str, str]) -> dict[str, str]:
    """The entries of a file's header that stay true when its LoRA is written in another format."""
    lasting = ("modelspec.", "ss_clip_skip", "ss_zero_terminal_snr")
    return {name: value for name, value in header.items() if name.startswith(lasting)}


def _widths(shapes: Mapping[str, Sequence[int]]) -> set[int]:
    return {shape[1] for key, shape in shapes.items() if re.search(r"\.attn2\.to_[kv]$", key)}
