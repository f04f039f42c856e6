"""The three parametrisations say the same about x_0 and eps."""

import pytest
import torch

from t2ialign.diffusion.path import target, to_x0_eps


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
@pytest.mark.parametrize("sigma", [0.05, 0.6, 0.99])
def test_target_then_inverse_gives_back_x0_and_eps(kind, sigma):
    x_0, eps, sigma = draw(2, 4, 3, 5), draw(2, 4, 5, 3).mT, torch.tensor(sigma, dtype=torch.float64)
    alpha = 1 - sigma if kind == "flow" else (1 - sigma**2).sqrt()
    out = target(kind, x_0, eps, alpha, sigma)
    found = to_x0_eps(kind, out, alpha * x_0 + sigma * eps, alpha, sigma)
    torch.testing.assert_close(found, (x_0, eps), rtol=1e-9, atol=1e-9)


def test_v_is_defined_where_the_signal_is_gone():
    """At alpha = 0 (zero terminal SNR) v = -x_0, so x_0 = -v and eps = x_t; eps says nothing of x_0."""
    x_t, v, zero, one = draw(1, 2), draw(2, 1).mT, torch.zeros(()), torch.ones(())
    torch.testing.assert_close(to_x0_eps("v", v, x_t, zero, one), (-v, x_t))


@pytest.mark.parametrize("function", [target, to_x0_eps])
def test_unknown_kind_is_named(function):
    with pytest.raises(ValueError, match="got prediction kind 'x0'; expected one of eps, v, flow"):
        function("x0", *torch.ones(4, 1))
