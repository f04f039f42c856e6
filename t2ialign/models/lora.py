"""What is trained (a LoRA, or all weights beside a frozen copy), and the files of it that others load."""

import copy
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from torch import nn

from rewards.permissions import share
from rewards.tensor_files import save_pretrained
from t2ialign.models import lora_family
from t2ialign.models.families.sd import UNetPolicy
from t2ialign.models.lora_files import FILE, Factors, read_lora, write_diffusers, write_kohya
from t2ialign.models.lora_names import UNET
from t2ialign.models.lora_targets import UNET as UNET_TARGETS

ADAPTER = "default"


def add_lora(
    policy: UNetPolicy,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] = UNET_TARGETS,
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
            f"got LoRA targets {list(targets)}; expected names of layers, such as {UNET_TARGETS}"
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


def save_lora(policy: UNetPolicy, folder: Path | str, *, title: str = "LoRA") -> Path:
    """Write the LoRA as the file that `pipe.load_lora_weights(folder)` loads, whole or not at all -> its
    path.

    Its alpha is its rank and the weights are scaled to fit, so that readers need no header. Raises ValueError
    if there is no LoRA, OSError if the file cannot be written.
    """
    if ADAPTER not in _adapters(policy):
        raise ValueError("got a policy without a LoRA; expected one; call add_lora first or save_all")
    layers = {}
    for path, module in policy.unet.named_modules():
        if ADAPTER in getattr(module, "lora_A", {}):
            down, up = (part[ADAPTER].weight.detach().float() for part in (module.lora_A, module.lora_B))
            layers[f"{UNET}.{path}"] = Factors(down, module.scaling[ADAPTER] * up)
    return write_diffusers(layers, Path(folder) / FILE, header_of(policy, title))


def save_kohya(policy: UNetPolicy, lora: Path, file: Path) -> Path:
    """Write a saved LoRA of this policy as ComfyUI, A1111 and Forge load it -> the file.

    Raises ValueError for a U-Net whose layers have no name there, OSError if the file cannot be written.
    """
    layers = read_lora(lora, layout=policy.unet.config).layers
    header, architecture = header_of(policy, file.stem), lora_family.of_policy(policy)
    return write_kohya(layers, file, header, architecture=architecture, layout=policy.unet.config)


def header_of(policy: UNetPolicy, title: str, *, adapter: str = "/lora") -> dict[str, str]:
    """What the header of a LoRA for this policy says of its base model; adapter: "" for a whole model."""
    prediction = "v" if policy.kind == "v" else "epsilon"
    architecture = lora_family.of_policy(policy)
    return {
        **lora_family.header(architecture, title=title, prediction=prediction, adapter=adapter),
        **lora_family.reading_header(policy.options),
    }


def save_all(policy: UNetPolicy, folder: Path | str) -> Path:
    """Write the whole network as `folder/unet`, a folder that UNet2DConditionModel.from_pretrained loads ->
    its path.
    """
    final, partial = Path(folder) / "unet", Path(folder) / ".unet.partial"
    save_pretrained(policy.unet, partial)
    if final.exists():
        shutil.rmtree(final)
    os.replace(share(partial), final)
    return final


def _adapters(policy: UNetPolicy) -> list[str]:
    """Names of the adapters in the network, in the order they came."""
    return list(getattr(policy.unet, "peft_config", {}))
