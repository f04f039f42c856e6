"""LoRAs in any network, not only in a policy: put in, and read out merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from t2ialign.models.lora_targets import SCORER

ADAPTER = "default"


def inject(
    network: nn.Module,
    *,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] = SCORER,
    seed: int = 0,
) -> None:
    """Put a trainable fp32 LoRA (Hu et al. 2022) into linear layers of those names; all else is frozen.

    It starts as the identity, the same for the same seed. alpha: strength, the rank if None. The projections
    of torch's fused attention are left alone: it reads their weights and never calls them. Raises ValueError
    for names that match no layer.
    """
    names = list(_linear(network, targets))
    if not names:
        there = sorted({name.rpartition(".")[2] for name, _ in _all_linear(network)})[:12] or ["none"]
        raise ValueError(
            f"got LoRA targets {', '.join(targets)}; expected names of linear layers, such as "
            f"{', '.join(there)}; set lora_targets"
        )
    network.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network, ADAPTER)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@torch.no_grad()
def merged(network: nn.Module) -> dict[str, Tensor]:
    """The whole weight of every layer that has a LoRA, by its name in the network without one."""
    weights = {}
    for name, module in network.named_modules():
        if hasattr(module, "get_delta_weight"):  # a layer that peft put in
            base = module.get_base_layer().weight
            delta = module.get_delta_weight(ADAPTER)
            weights[f"{name}.weight"] = (base.float() + delta.float()).to(base.dtype)
    return weights


def _linear(network: nn.Module, targets: Sequence[str]) -> Iterator[str]:
    fused = {
        f"{name}.{child}"
        for name, module in network.named_modules()
        if isinstance(module, nn.MultiheadAttention)
        for child, _ in module.named_children()
    }
    wanted = set(targets)
    for name, _ in _all_linear(network):
        if name not in fused and (name in wanted or name.rpartition(".")[2] in wanted):
            yield name


def _all_linear(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, part) for name, part in network.named_modules() if isinstance(part, nn.Linear))
