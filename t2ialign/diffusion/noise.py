"""Noise addressed by key, so a sample's randomness does not depend on its batch or its process."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Key = tuple[int, ...]


def generator(*key: int) -> torch.Generator:
    """CPU generator seeded by a stable hash of the integers (order matters, machine and process do not).

    Torch's CPU engine keeps 32 bits of the seed: keys in their millions may meet by chance, never by pattern.
    """
    digest = hashlib.blake2b(repr(tuple(int(part) for part in key)).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def normal_rows(shape: Sequence[int], keys: Sequence[Key]) -> Tensor:
    """Standard normal noise (B, *shape), fp32 on CPU; row i depends on keys[i] only."""
    if not keys:
        return torch.empty(0, *shape)
    return torch.stack([torch.randn(*shape, generator=generator(*key)) for key in keys])


def uniform_rows(keys: Sequence[Key]) -> Tensor:
    """Uniform numbers (B,) in [0, 1), fp64 on CPU; row i depends on keys[i] only."""
    if not keys:
        return torch.empty(0, dtype=torch.float64)
    return torch.cat([torch.rand(1, generator=generator(*key), dtype=torch.float64) for key in keys])


class SeededRows:
    """Standard normal noise as diffusers pipelines draw it: row i is what a CPU generator of seeds[i] gives.

    dtype: what the pipeline computes in, since torch draws other numbers in another one. Raises ValueError
    for seeds that torch does not take.
    """

    def __init__(self, shape: Sequence[int], seeds: Sequence[int], dtype: torch.dtype) -> None:
        for seed in seeds:
            if not -(2**63) <= seed < 2**64:
                raise ValueError(f"got seed {seed}; expected an integer of 64 bits; choose another")
        self.shape, self.dtype = (1, *shape), dtype
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def draw(self) -> Tensor:
        """The next (B, *shape) on CPU: the first draw starts an image, and each noisy step takes one more."""
        rows = [torch.randn(self.shape, generator=one, dtype=self.dtype) for one in self.generators]
        return torch.cat(rows)
