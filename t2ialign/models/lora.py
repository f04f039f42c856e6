"""What is trained (a LoRA, or all weights beside a frozen copy), and the files that diffusers loads."""

import copy
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from t2ialign.models.unet import UNetPolicy

ADAPTER = "default"
FILE = "pytorch_lora_weights.safetensors"
PARTIAL = f".{FILE}.partial"
"""What a writer that was killed leaves behind; the next one replaces it."""
METADATA = "lora_adapter_metadata"
"""Where diffusers keeps alpha in the file; without it a reader assumes alpha = rank."""
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")

# diffusers warns of every LoRA without weights for the text encoder, which ours never have.
logging.getLogger("diffusers.loaders.lora_base").addFilter(
    lambda record: "No LoRA keys associated" not in record.getMessage()
)


def add_lora(
    policy: UNetPolicy,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] = TARGETS,
    *,
    seed: int = 0,
) -> None:
    """Add a trainable LoRA (Hu et al. 2022) that starts as the identity; its weights are fp32 whatever the
    base is.

    alpha: strength, the rank if None. targets: names of linear and convolutional layers. The same seed gives
    the same start in every process. Raises ValueError for a rank below 1, targets that match nothing, or a
    policy that has an adapter.
    """
    if rank < 1:
        raise ValueError(f"got LoRA rank {rank}; expected at least 1; train_all trains every weight instead")
    if _adapters(policy):
        raise ValueError(
            f"got a policy with adapters {_adapters(policy)}; expected none; fuse them into the model first"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        target_modules=list(targets),
        init_lora_weights="gaussian",
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy.unet.add_adapter(config, ADAPTER)
    except ValueError as error:
        raise ValueError(
            f"got LoRA targets {list(targets)}; expected names of layers, such as {TARGETS}"
        ) from error
    for parameter in trainable(policy).values():
        parameter.data = parameter.data.float()
    policy.autocast = True


def train_all(policy: UNetPolicy) -> None:
    """Make every weight of the network trainable, in fp32, and keep a frozen copy of it as the reference."""
    policy.unet.float()
    policy.frozen = copy.deepcopy(policy.unet).requires_grad_(False)
    policy.unet.requires_grad_(True)
    policy.autocast = True


def trainable(policy: UNetPolicy) -> dict[str, nn.Parameter]:
    """The trained parameters by name, in a fixed order."""
    return {name: parameter for name, parameter in policy.unet.named_parameters() if parameter.requires_grad}


def save_lora(policy: UNetPolicy, folder: Path | str) -> Path:
    """Write the LoRA as the file that `pipe.load_lora_weights(folder)` loads, whole or not at all -> its
    path.

    Raises ValueError if there is no LoRA.
    """
    if ADAPTER not in _adapters(policy):
        raise ValueError("got a policy without a LoRA; expected one; call add_lora first or save_all")
    state = get_peft_model_state_dict(policy.unet, adapter_name=ADAPTER)
    return _write(type(policy.pipe), state, policy.unet.peft_config[ADAPTER].to_dict(), Path(folder))


def save_all(policy: UNetPolicy, folder: Path | str) -> Path:
    """Write the whole network as `folder/unet`, a folder that UNet2DConditionModel.from_pretrained loads ->
    its path.
    """
    final, partial = Path(folder) / "unet", Path(folder) / ".unet.partial"
    policy.unet.save_pretrained(partial, safe_serialization=True)
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    return final


def load_lora(policy: UNetPolicy, path: Path | str, *, weight: float = 1.0) -> None:
    """Add one saved LoRA (a file, or a folder holding one) to the policy, beside those already loaded.

    weight: how much of it. Raises ValueError if the file is missing or does not fit the model.
    """
    file = _file(path)
    name = f"lora_{len(_adapters(policy))}"
    try:
        policy.pipe.load_lora_weights(
            str(file.parent),
            weight_name=file.name,
            adapter_name=name,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,  # copied, so that no weight lies where the file happens to have it
        )
    except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"got LoRA {str(file)!r}; expected one made for this model ({reason})") from error
    if name not in _adapters(policy):
        raise ValueError(
            f"got LoRA {str(file)!r} with no weights for the UNet; expected one made for this model"
        )
    policy.loras[name] = weight
    policy.pipe.set_adapters(list(policy.loras), list(policy.loras.values()))
    policy.unet.requires_grad_(False)


class Factors(NamedTuple):
    """What a LoRA adds to one layer, fp32, its scale alpha / rank folded into `up`: delta W = up @ down.

    down (r, in), up (out, r); of a convolution (r, in, h, w) and (out, r, 1, 1).
    """

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """r."""
        return len(self.down)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of delta W: (out, in), or (out, in, h, w)."""
        return (len(self.up), *self.down.shape[1:])


def read_lora(path: Path | str) -> dict[str, Factors]:
    """The layers of a saved UNet LoRA (a file, or a folder holding one) by name, whatever model it is for.

    Raises ValueError for a missing file, one that is not safetensors, and weights other than factors of a
    UNet's layers.
    """
    file = _file(path)
    state, settings = _read(file)
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in convert_unet_state_dict_to_peft(state).items():
        factor = re.fullmatch(r"(.+)\.lora_([AB])\.weight", key)
        if factor is None:
            raise ValueError(
                f"got LoRA {str(file)!r} with {key!r}; expected factors lora_A and lora_B only; DoRA and "
                "biases are not read"
            )
        found.setdefault(factor[1], {})[factor[2]] = tensor.float()
    layers = {}
    for layer, pair in found.items():
        down, up = pair.get("A"), pair.get("B")
        if down is None or up is None or down.ndim != up.ndim or down.shape[:1] != up.shape[1:2]:
            raise ValueError(
                f"got LoRA {str(file)!r} with half of {layer}; expected two factors of one rank; restore it"
            )
        layers[layer] = Factors(down, _scale(settings, layer, len(down)) * up)
    return layers


def save_factors(layers: Mapping[str, Factors], folder: Path | str) -> Path:
    """Write layers as `save_lora` does, whole or not at all -> the file's path.

    Zeros fill every layer up to the largest rank: one rank and alpha = rank are then true of all layers, for
    readers of the metadata and for those that ignore it.
    """
    rank = max(factors.rank for factors in layers.values())
    state = {}
    for layer, (down, up) in layers.items():
        state[f"{layer}.lora_A.weight"] = _filled(down, rank, dim=0)
        state[f"{layer}.lora_B.weight"] = _filled(up, rank, dim=1)
    settings = {"r": rank, "lora_alpha": rank, "target_modules": list(layers)}
    return _write(StableDiffusionPipeline, state, settings, Path(folder))


def _file(path: Path | str) -> Path:
    """The file of a LoRA. Raises ValueError if it is missing."""
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"got LoRA {str(path)!r}; expected a .safetensors file, or a folder with {FILE}")
    return file


def _write(pipeline: Any, state: dict[str, Tensor], settings: dict[str, Any], folder: Path) -> Path:
    partial = folder / PARTIAL
    try:
        # The metadata carries alpha; without it a reader assumes alpha = rank.
        pipeline.save_lora_weights(partial, unet_lora_layers=state, unet_lora_adapter_metadata=settings)
        os.replace(partial / FILE, folder / FILE)
    except SafetensorError as error:
        raise OSError(f"cannot write {folder / FILE} ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / FILE


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The UNet's tensors and settings, both without their `unet.`."""
    try:
        with safe_open(str(file), framework="pt") as stream:
            state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (no iterator)
            settings = json.loads((stream.metadata() or {}).get(METADATA, "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"got LoRA {str(file)!r}; expected safetensors as diffusers saves them ({error})"
        ) from error
    others = sorted({key.partition(".")[0] for key in state} - {"unet"})
    if not any(key.startswith("unet.") for key in state):
        raise ValueError(
            f"got LoRA {str(file)!r} with {next(iter(state), 'no weights')!r}; expected keys that start with "
            "unet., as diffusers saves them; load it into a pipeline and save it with save_lora_weights"
        )
    if others:
        raise ValueError(
            f"got LoRA {str(file)!r} with weights for {', '.join(others)}; expected the UNet's only; save it "
            "again without the others"
        )
    return _inside(state), _inside(settings)


def _inside(values: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("unet."): value for key, value in values.items()}


def _scale(settings: dict[str, Any], layer: str, rank: int) -> float:
    """alpha / rank as peft reads them: of the patterns the first that fits the end of the name counts."""
    patterns = settings.get("alpha_pattern") or {}
    own = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer))
    alpha = next(own, settings.get("lora_alpha", rank))
    return float(alpha / (rank**0.5 if settings.get("use_rslora") else rank))


def _filled(factor: Tensor, rank: int, *, dim: int) -> Tensor:
    missing = list(factor.shape)
    missing[dim] = rank - missing[dim]
    return torch.cat([factor, factor.new_zeros(missing)], dim)


def _adapters(policy: UNetPolicy) -> list[str]:
    """Names of the adapters in the network, in the order they came."""
    return list(getattr(policy.unet, "peft_config", {}))
