"""From a name to a policy: the toy model, a folder, one file of weights, or a model on the Hub."""

import copy
import importlib.metadata
import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch

from rewards.device import default_device
from rewards.weights import align_weights
from t2ialign.models.advice import distilled, not_followed, unvisited
from t2ialign.models.ahead import look_ahead
from t2ialign.models.base import Policy
from t2ialign.models.families import policy_class_of
from t2ialign.models.folder import load_folder, networks, readable
from t2ialign.models.options import AS_IT_IS, ModelOptions
from t2ialign.models.single.read import load_file
from t2ialign.models.sources import locate

log = logging.getLogger(__name__)

FOR_DDPM = {"prediction_type", "rescale_betas_zero_snr"}
"""Options that say something of DDPM's noise levels."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_policy(
    model: str,
    *,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    attention: Literal["sdpa", "xformers"] = "sdpa",
    device: torch.device | str | None = None,
    master_weights: bool = False,
    options: ModelOptions = AS_IT_IS,
    sides: Sequence[int] = (),
) -> Policy:
    """Load a model of one of the families as a policy; nothing that could run code is opened.

    model: "toy" or "toy-flow" (the toy models), a diffusers folder, a single file of Stable Diffusion 1, 2 or
    XL, a Hub id, or the output of a run that trained all weights: its base model with those weights. device:
    the GPU if there is one. A VAE that asks for it (SDXL's) stays in fp32. master_weights: keep the network's
    weights in fp32 and compute in `precision`, which training all of them needs. options: how to read the
    model, in place of what its files say. sides: of images to come, in pixels. Raises ValueError for a
    missing or unsupported model, for sides that do not divide or are too long, both before weights are read,
    and for xformers without a working build.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"got precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    source, dtype = locate(model), PRECISIONS[precision]
    options = options.over(source.options)
    weights = torch.float32 if master_weights else dtype
    dtypes = {"default": dtype, "vae": torch.float32, "network": weights}
    if sides:
        look_ahead(source, options).check_sides(sides)
    if source.file is None:
        pipe = load_folder(source, options, dtypes)
    else:
        pipe = load_file(source.file, source.network, options, dtypes)
    if not pipe.vae.config.get("force_upcast"):
        with readable(source.place):
            pipe.vae.to(dtype)
    pipe.to(torch.device(device or default_device()))
    align_weights(*networks(pipe).values())
    policy = policy_of(pipe, dtype=dtype, options=options, source=source.place)
    policy.autocast = master_weights
    if attention == "xformers":
        use_xformers(policy.adapted, policy.device)
    elif attention != "sdpa":
        raise ValueError(f"got attention {attention!r}; expected sdpa or xformers")
    return policy


def policy_of(
    pipe: Any,
    *,
    dtype: torch.dtype | None = None,
    options: ModelOptions = AS_IT_IS,
    source: str | None = None,
) -> Policy:
    """A loaded diffusers pipeline as a policy, on its device; its networks are taken over, without gradients.

    dtype: what the network computes in; that of its weights if None. source: where it was read from. A VAE
    that asks for fp32 (SDXL's) and is in half precision is copied. Raises ValueError for a pipeline of no
    family, and for one that its family cannot train.
    """
    policy_type = policy_class_of(pipe)
    config = {"_class_name": type(pipe.scheduler).__name__, **pipe.scheduler.config}
    dtype = dtype or getattr(pipe, policy_type.component).dtype
    policy: Policy = policy_type(pipe, dtype=dtype, options=options)
    if pipe.vae.config.get("force_upcast") and pipe.vae.dtype != torch.float32:
        policy.latents.vae = copy.deepcopy(pipe.vae).float()
    policy.source = source or policy.source
    if policy.kind == "flow" and (given := options.given().keys() & FOR_DDPM):
        raise ValueError(
            f"got {' and '.join(sorted(given))} for the flow model {policy.source}; expected it for Stable "
            "Diffusion 1, 2 or XL; drop it"
        )
    policy.distilled = distilled(source or str(pipe.config.get("_name_or_path") or ""), config)
    for line in (not_followed(config), unvisited(policy.schedule)):
        if line is not None:
            log.info("%s", line)
    return policy


def use_xformers(network: Any, device: torch.device) -> None:
    """Switch a diffusers network to xformers attention. Raises ValueError unless its kernels run here."""
    try:
        from xformers.ops import memory_efficient_attention

        probe = torch.zeros(1, 8, 1, 16, device=device)
        memory_efficient_attention(probe, probe, probe)
    except (ImportError, NotImplementedError, RuntimeError, OSError, AttributeError) as error:
        raise ValueError(
            f"got attention=xformers, and {_build()} does not run beside torch {torch.__version__} on "
            f"{device.type} ({_line(error)}); expected a GPU and a build for this torch; pip install "
            '"t2ialign[xformers]" brings a matching pair (xformers 0.0.35, torch 2.10), or set attention=sdpa'
        ) from error
    network.enable_xformers_memory_efficient_attention()


def _build() -> str:
    """The name and version of the installed xformers."""
    try:
        return f"xformers {importlib.metadata.version('xformers')}"
    except importlib.metadata.PackageNotFoundError:
        return "xformers (not installed)"


def _line(error: Exception) -> str:
    """The first line of an error, without the full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
