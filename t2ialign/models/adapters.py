"""Switching adapters off and on again, without a second network."""

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


@contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Within this block the module is its base; adapters and their requires_grad come back as they were."""
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, BaseTunerLayer) and not layer.disable_adapters
    ]
    # peft freezes what it disables and thaws what it enables, so a frozen adapter would come back trainable.
    flags = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
