"""A LoRA in a policy's network: put in, and asked for."""

from collections.abc import Sequence

import torch
from peft import LoraConfig
from torch import nn

from t2ialign.models.base import Policy

ADAPTER = "default"


def add_lora(
    policy: Policy,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> None:
    """Add a trainable LoRA (Hu et al. 2022) that starts as the identity; its weights are fp32 whatever the
    base is.

    alpha: strength, the rank if None. targets: names of linear and convolutional layers, the family's own if
    None. The same seed gives the same start in every process. Raises ValueError for a rank below 1, targets
    that match nothing, or a policy that has an adapter.
    """
    if rank < 1:
        raise ValueError(f"got LoRA rank {rank}; expected at least 1; train_all trains every weight instead")
    if adapters(policy):
        raise ValueError(
            f"got a policy with adapters {adapters(policy)}; expected none; call fuse_lora() and "
            "unload_lora_weights() of its pipeline, or load the model again"
        )
    names = list(policy.lora_targets if targets is None else targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        target_modules=names,
        init_lora_weights="gaussian",
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy.adapted.add_adapter(config, ADAPTER)
    except ValueError as error:
        raise ValueError(
            f"got LoRA targets {names}; expected names of layers, such as {policy.lora_targets}"
        ) from error
    for parameter in trainable(policy).values():
        parameter.data = parameter.data.float()
    policy.autocast = True


def trainable(policy: Policy) -> dict[str, nn.Parameter]:
    """The trained parameters by name, in a fixed order."""
    named = policy.adapted.named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def adapters(policy: Policy) -> list[str]:
    """Names of the adapters in the network, in the order they came."""
    return list(getattr(policy.adapted, "peft_config", {}))
