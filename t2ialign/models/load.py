"""From a name to a policy: the embedded model, a folder, or a model on the Hub."""

import importlib.metadata
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import SafetensorError

from t2ialign.models.unet import SDXLPolicy, UNetPolicy

FAMILIES: dict[str, tuple[Any, type[UNetPolicy]]] = {
    "StableDiffusionPipeline": (StableDiffusionPipeline, UNetPolicy),
    "StableDiffusionXLPipeline": (StableDiffusionXLPipeline, SDXLPolicy),
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_policy(
    model: str,
    *,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    attention: Literal["sdpa", "xformers"] = "sdpa",
    device: torch.device | str | None = None,
    master_weights: bool = False,
) -> UNetPolicy:
    """Load a Stable Diffusion model as a policy; only safetensors are read.

    model: "shapes" (the embedded model), a diffusers folder, or a Hub id. device: the GPU if there is one. A
    VAE that asks for it (SDXL's) stays in fp32. master_weights: keep the network's weights in fp32 and
    compute in `precision`, which training all of them needs. Raises ValueError for a missing or unsupported
    model, and for xformers without a working build.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"got precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    source, dtype = _source(model), PRECISIONS[precision]
    family = _family(source)
    pipeline_class, policy_class = FAMILIES[family]
    dtypes = {"default": dtype, "vae": torch.float32, "unet": torch.float32 if master_weights else dtype}
    skip = (
        {"safety_checker": None, "requires_safety_checker": False}
        if family == "StableDiffusionPipeline"
        else {}
    )
    try:
        pipe = pipeline_class.from_pretrained(source, dtype=dtypes, use_safetensors=True, **skip)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"got model {model!r}; expected a whole diffusers model in safetensors ({_line(error)})"
        ) from error
    if not pipe.vae.config.force_upcast:
        pipe.vae.to(dtype)
    pipe.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    policy = policy_class(pipe, dtype=dtype)
    policy.autocast = master_weights
    if attention == "xformers":
        use_xformers(policy.unet, policy.device)
    elif attention != "sdpa":
        raise ValueError(f"got attention {attention!r}; expected sdpa or xformers")
    return policy


def use_xformers(unet: Any, device: torch.device) -> None:
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
    unet.enable_xformers_memory_efficient_attention()


def _source(model: str) -> str:
    """The folder or Hub id to load. Raises ValueError for what is plainly neither."""
    if model == "shapes":
        from rewards.assets import folder

        return str(folder("shapes"))
    path = Path(model).expanduser()
    if path.suffix in (".safetensors", ".ckpt", ".pt", ".bin"):
        raise ValueError(
            f"got model {model!r}, a single file; expected a diffusers folder or Hub id; convert it with "
            "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
        )
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ValueError(
                f"got folder {model!r} without model_index.json; expected a diffusers pipeline folder"
            )
        return str(path)
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ValueError(
            f'got model {model!r}, which is no folder here; expected "shapes", a folder or a Hub id'
        )
    return model


def _family(source: str) -> str:
    """The pipeline class named in the model's index. Raises ValueError if it is not one of ours, or not
    found.
    """
    try:
        name = str(DiffusionPipeline.load_config(source).get("_class_name"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"got model {source!r}, no folder here and no model the Hub gave ({_line(error)}); expected "
            '"shapes", a diffusers folder or a Hub id; check the name, the network and your Hub login'
        ) from error
    if name not in FAMILIES:
        raise ValueError(f"got model {source!r} of class {name}; expected one of {', '.join(FAMILIES)}")
    return name


def _build() -> str:
    """The installed xformers, in words."""
    try:
        return f"xformers {importlib.metadata.version('xformers')}"
    except importlib.metadata.PackageNotFoundError:
        return "xformers (not installed)"


def _line(error: Exception) -> str:
    """The first line of an error, without the full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
