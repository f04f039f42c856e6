"""From a name to a policy: the embedded model, a folder, or a model on the Hub."""

import importlib.metadata
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from diffusers import (
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import SafetensorError

from rewards.device import default_device
from rewards.weights import own_memory
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

    model: "shapes" (the embedded model), a diffusers folder, a Hub id, or the output of a run that trained
    all weights: its base model with those weights. device: the GPU if there is one. A VAE that asks for it
    (SDXL's) stays in fp32. master_weights: keep the network's weights in fp32 and compute in `precision`,
    which training all of them needs. Raises ValueError for a missing or unsupported model, and for xformers
    without a working build.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"got precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    (source, trained), dtype = _source(model), PRECISIONS[precision]
    family = _family(source)
    pipeline_class, policy_class = FAMILIES[family]
    dtypes = {"default": dtype, "vae": torch.float32, "unet": torch.float32 if master_weights else dtype}
    skip: dict[str, Any] = {}
    if family == "StableDiffusionPipeline":
        skip = {"safety_checker": None, "requires_safety_checker": False}
    try:
        if trained is not None:
            options = {"torch_dtype": dtypes["unet"], "use_safetensors": True, "local_files_only": True}
            skip["unet"] = UNet2DConditionModel.from_pretrained(trained, **options)
        pipe = pipeline_class.from_pretrained(source, dtype=dtypes, use_safetensors=True, **skip)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"got model {model!r}; expected a whole diffusers model in safetensors ({_line(error)})"
        ) from error
    if not pipe.vae.config.force_upcast:
        pipe.vae.to(dtype)
    pipe.to(torch.device(device or default_device()))
    own_memory(*pipe.components.values())
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


def _source(model: str) -> tuple[str, Path | None]:
    """The folder or Hub id to load, and a `unet` folder that replaces its network. Raises ValueError for what
    is plainly neither.
    """
    if model == "shapes":
        from rewards.assets import folder

        return str(folder("shapes")), None
    path = Path(model).expanduser()
    if path.suffix in (".safetensors", ".ckpt", ".pt", ".bin"):
        raise ValueError(
            f"got model {model!r}, a single file; expected a diffusers folder or Hub id; convert it with "
            "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
        )
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            return _run_folder(model, path)
        return str(path), None
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ValueError(
            f'got model {model!r}, which is no folder here; expected "shapes", a folder or a Hub id'
        )
    return model, None


def _run_folder(model: str, path: Path) -> tuple[str, Path]:
    """The same for the output of a run. Raises ValueError if it trained a LoRA, or is no run."""
    settings, unet = path / "config.yaml", path / "unet"
    if (path / "pytorch_lora_weights.safetensors").is_file():
        raise ValueError(
            f"got folder {model!r}, which holds a LoRA; expected a model; name its base model, and "
            f"beside it --lora {model}"
        )
    if not (unet / "config.json").is_file() or not settings.is_file():
        raise ValueError(
            f"got folder {model!r} without model_index.json; expected a diffusers pipeline folder, or the "
            "output of a finished run with lora_rank=0"
        )
    try:
        values = yaml.safe_load(settings.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"got {settings}, which is not YAML ({_line(error)}); expected a run's own"
        ) from error
    base = values.get("model") if isinstance(values, dict) else None
    if not isinstance(base, str) or Path(base).expanduser().resolve() == path.resolve():
        raise ValueError(f"got model={base!r} in {settings}; expected the base model of that run; restore it")
    try:
        return _source(base)[0], unet
    except ValueError as error:
        raise ValueError(f"{settings}: {error}") from error


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
