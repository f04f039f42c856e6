"""Published settings at another size of the latent, against numbers worked out by hand."""

import pytest
import torch

from t2ialign.objectives.listwise import trajectory_logits
from t2ialign.objectives.preference import dpo
from t2ialign.training.conversion import SD, SDXL, Published, described, far_off

BETA = Published("beta", 5000.0, 5000.0, "strength", (SD, SDXL))
CLIP = Published("clip", 5e-4, 0.032, "bound")


@pytest.mark.parametrize(
    ("setting", "numbers", "expected"),
    [
        (BETA, 256, 78.125),  # 5000 x 256 / 16384
        (BETA, SD, 5000.0),
        (BETA, SDXL, 5000.0),  # published there too
        (BETA, 2 * SD, 10000.0),  # as near to either, and the smaller one counts
        (BETA, 4 * 96 * 96, 5000 * 36864 / 65536),  # 2.25 times SD's, SDXL's is 1.78 times it
        (Published("beta", 500.0, 50.0, "strength"), 256, 7.8125),
        (CLIP, 256, 0.032),  # 5e-4 x 16384 / 256
        (CLIP, SDXL, 1.25e-4),
        (Published("temperature", 12.5, 0.2, "strength"), 256, 0.1953125),
    ],
)
def test_conversions_by_hand(setting, numbers, expected):
    assert setting.converted(numbers) == pytest.approx(expected, rel=1e-12)


def test_converted_settings_see_the_same_exact_log_ratio():
    """A latent of 64 times fewer numbers with the same sum of log-ratios gives the same loss and logits."""
    sums = torch.tensor([[3.0, -1.0]])
    large, small = sums / SD, sums / 256
    converted = BETA.converted(256)
    losses = [dpo(r[:, 0], r[:, 1], beta=beta) for r, beta in ((large, 5000.0), (small, converted))]
    torch.testing.assert_close(losses[0], losses[1])
    assert losses[0] < 0.6  # not merely ln 2 twice
    sums = torch.tensor([[[9.0, 1.0], [-20.0, 2.0]]])  # 5e-4 is 8.2 in sums: some are clipped
    logits = [
        trajectory_logits(sums / size, temperature=temperature, clip=clip)
        for size, temperature, clip in ((SD, 12.5, 5e-4), (256, 12.5 / 64, 0.032))
    ]
    torch.testing.assert_close(logits[0], logits[1])


def test_what_is_far_off_is_named_with_the_converted_value():
    (warning,) = far_off((BETA, CLIP), 256)
    assert warning.startswith("beta=5000 is 64 times larger than 78.1, to which the published 5000 converts")
    assert "latents of 256 numbers" in warning
    exactly = Published("beta", 5000.0, 4 * 78.125, "strength")
    assert not far_off((exactly,), 256)
    (below,) = far_off((Published("clip", 1e-4, 1e-4, "bound"),), 256)
    assert below.startswith("clip=0.0001 is 64 times smaller than 0.0064")


def test_at_a_published_size_nothing_is_converted_or_warned_of():
    far = Published("beta", 5000.0, 10.0, "strength", (SD, SDXL))  # the user's own choice
    for size in (SD, SDXL):
        assert not far_off((far,), size) and not described((far,), size)
    (line,) = described((BETA,), 256)
    assert line == "beta 5000 is for latents of 16,384 numbers; for 256 it converts to 78.1 (set to 5000)"
    (line,) = described((BETA,), 4 * 96 * 96)  # Stable Diffusion 2.1
    assert line.endswith("of 65,536 numbers; for 36,864 it converts to 2812 (set to 5000)")
