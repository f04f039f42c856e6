"""What published settings become for a latent of another size than the one they were published for.

Every log-ratio here is the mean r over the D = C h w numbers of a latent, as in the published code; the
exact log-ratio of a step is their sum, R = D r. A loss that sees beta r = (beta / D) R sees the same of R at
another size D' if beta' / D' = beta / D, so a strength grows with the latent: beta' = beta D' / D. A bound on
r, |r| <= c, is |R| <= c D, so a clip range shrinks with it: c' = c D / D'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SD, SDXL = 4 * 64 * 64, 4 * 128 * 128
"""Numbers in a latent of Stable Diffusion 1.5 at 512 pixels and of SDXL at 1024."""
FLOW = 16 * 64 * 64
"""Numbers in a latent of Stable Diffusion 3.5 at 512 pixels."""
FAR = 4.0
"""The factor by which a setting may differ from the converted one without a warning."""


@dataclass(frozen=True)
class Published:
    """A setting that acts on means over the latent, as published and as it is set in this run."""

    setting: str
    """The name of the setting."""
    value: float
    """The published value."""
    used: float
    """The value in this run."""
    kind: Literal["strength", "bound"]
    """Whether it multiplies the mean log-ratio, or bounds it."""
    latents: tuple[int, ...] = (SD,)
    """Numbers in the latents it was published for, the same value for each."""

    def nearest(self, numbers: int) -> int:
        """The published size that is nearest, as a ratio, to a latent of `numbers` numbers."""
        return min(self.latents, key=lambda size: max(size / numbers, numbers / size))

    def converted(self, numbers: int) -> float:
        """The published value in the same exact units for a latent of `numbers` numbers."""
        ratio = numbers / self.nearest(numbers)
        return self.value * ratio if self.kind == "strength" else self.value / ratio


def described(settings: tuple[Published, ...], numbers: int) -> list[str]:
    """A line for each setting whose published value converts to another one at this size."""
    return [
        f"{one.setting} {one.value:g} is for latents of {one.nearest(numbers):,} numbers; for {numbers:,} it "
        f"converts to {short(one.converted(numbers))} (set to {one.used:g})"
        for one in settings
        if numbers not in one.latents
    ]


def far_off(settings: tuple[Published, ...], numbers: int) -> list[str]:
    """A warning for each setting more than `FAR` times off the converted value."""
    warnings = []
    for one in settings:
        wanted = one.converted(numbers)
        factor = max(one.used / wanted, wanted / one.used)
        if numbers not in one.latents and factor > FAR:
            size = "larger" if one.used > wanted else "smaller"
            warnings.append(
                f"{one.setting}={one.used:g} is {short(factor)} times {size} than {short(wanted)}, to which "
                f"the published {one.value:g} converts for latents of {numbers:,} numbers"
            )
    return warnings


def short(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
