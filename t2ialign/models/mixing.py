"""Two LoRAs as one, in weight space: alpha * A + (1 - alpha) * B, exactly."""

from __future__ import annotations

import torch

from t2ialign.models.factors import Factors


def mix_layers(one: dict[str, Factors], other: dict[str, Factors], alpha: float) -> dict[str, Factors]:
    """The layers whose delta W is alpha * one's + (1 - alpha) * other's; a missing one counts as 0.

    The factors are put side by side, [alpha up_A, (1 - alpha) up_B] @ [down_A; down_B], so that the ranks
    add up; a mean of the factors themselves would multiply A's with B's. Raises ValueError for a layer whose
    shape differs.
    """
    mixed = {}
    for layer in sorted(one.keys() | other.keys()):
        parts = [(w, lora[layer]) for w, lora in ((alpha, one), (1 - alpha, other)) if layer in lora]
        if len({factors.shape for _, factors in parts}) > 1:
            shapes = " and ".join(str(factors.shape) for _, factors in parts)
            raise ValueError(f"got {layer} of shapes {shapes}; expected two LoRAs for the same model")
        mixed[layer] = Factors(
            torch.cat([factors.down for _, factors in parts]),
            torch.cat([w * factors.up for w, factors in parts], dim=1),
        )
    return mixed
