"""What is trained (a LoRA, or all weights beside a frozen copy), and the files that diffusers loads."""

import copy
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from torch import nn

from t2ialign.models.unet import UNetPolicy

ADAPTER = "default"
FILE = "pytorch_lora_weights.safetensors"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


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

    alpha: strength, the rank if None. targets: names of linear layers. The same seed gives the same start in
    every process. Raises ValueError for a rank below 1, targets that match nothing, or a policy that has an
    adapter.
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
    folder = Path(folder)
    partial = folder / f".{FILE}.partial"
    # The metadata carries alpha; without it a reader assumes alpha = rank.
    type(policy.pipe).save_lora_weights(
        partial,
        unet_lora_layers=get_peft_model_state_dict(policy.unet, adapter_name=ADAPTER),
        unet_lora_adapter_metadata=policy.unet.peft_config[ADAPTER].to_dict(),
    )
    os.replace(partial / FILE, folder / FILE)
    shutil.rmtree(partial)
    return folder / FILE


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
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"got LoRA {str(path)!r}; expected a .safetensors file, or a folder with {FILE}")
    name = f"lora_{len(_adapters(policy))}"
    try:
        policy.pipe.load_lora_weights(
            str(file.parent),
            weight_name=file.name,
            adapter_name=name,
            use_safetensors=True,
            local_files_only=True,
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


def _adapters(policy: UNetPolicy) -> list[str]:
    """Names of the adapters in the network, in the order they came."""
    return list(getattr(policy.unet, "peft_config", {}))
