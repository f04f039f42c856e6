"""Kernels of the reverse step: numbers by hand, and marginals kept, of a point and of a Gaussian."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.stats import norm

from t2ialign.diffusion.kernels import ODE, Kernel, cps, ddim, flow_sde
from t2ialign.diffusion.transition import Gaussian, reverse_step

Path = tuple[torch.Tensor, torch.Tensor]
ONE, ZERO = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)


def flow(sigma: float) -> Path:
    return torch.tensor(1 - sigma, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)


def vp(sigma: float) -> Path:
    return torch.tensor(math.sqrt(1 - sigma**2), dtype=torch.float64), torch.tensor(sigma).double()


def numbers(p: Gaussian) -> tuple[float, float]:
    return float(p.mean), float(p.std)


def test_flow_sde_by_hand():
    """sigma .5 to .4, a .7: x = .5 x_0 + .5 eps, g^2 = .49 (.5 / .5), std = .7 sqrt(.1) = .22136.

    With x_0 = 2, eps = 1: x = 1.5, v = -1, mean = 1.5 + (-1 + .49 / (2 .5) 1) (-.1) = 1.551.
    """
    mean, std = numbers(flow_sde(0.7)(2 * ONE, ONE, flow(0.5), flow(0.4)))
    assert (mean, std) == (pytest.approx(1.551), pytest.approx(0.7 * math.sqrt(0.1)))


def test_flow_sde_of_the_first_step_by_hand():
    """At sigma 1 the denominator has the next sigma, .9: g^2 = .49 / .1 = 4.9, std = sqrt(.49) = .7.

    With x_0 = 2, eps = 1: x = 1, v = -1, mean = 1 + (-1 + 4.9 / 2) (-.1) = .855.
    """
    mean, std = numbers(flow_sde(0.7)(2 * ONE, ONE, flow(1.0), flow(0.9)))
    assert (mean, std) == (pytest.approx(0.855), pytest.approx(0.7))


def test_cps_by_hand():
    """sigma .4, a 2/3: std = .4 sin 60 = .34641, mean = .6 x_0 + .4 cos 60 eps = 1.2 + .2."""
    mean, std = numbers(cps(2 / 3)(2 * ONE, ONE, flow(0.5), flow(0.4)))
    assert (mean, std) == (pytest.approx(1.4), pytest.approx(0.4 * math.sqrt(3) / 2))


def test_ode_is_eulers_step_of_the_flow():
    """x + v dt with x = 1.5, v = eps - x_0 = -1, dt = -.1."""
    assert numbers(ODE(2 * ONE, ONE, flow(0.5), flow(0.4))) == (pytest.approx(1.6), 0)
    for kernel in (flow_sde(0), cps(0), ddim(0)):
        assert numbers(kernel(2 * ONE, ONE, flow(0.5), flow(0.4))) == (pytest.approx(1.6), 0)


def test_ddim_is_the_step_there_was():
    for eta in (0.0, 0.5, 1.0):
        assert ddim(eta)(ONE, ONE, vp(0.9), vp(0.5)) == reverse_step(ONE, ONE, vp(0.9), vp(0.5), eta)


@pytest.mark.parametrize("path", [vp, flow])
@pytest.mark.parametrize("kernel", [ddim(1), ddim(0.3), cps(0.8), cps(1), ODE], ids=str)
@pytest.mark.parametrize(("sigma_t", "sigma_s"), [(1.0, 0.9), (0.9, 0.5), (0.3, 0.01)])
def test_a_point_keeps_its_marginal(path, kernel, sigma_t, sigma_s):
    """With the true x_0 and eps, x_s has mean alpha_s x_0 and variance sigma_s^2, whatever the noise."""
    signal, noise = (
        kernel(x_0, eps, path(sigma_t), path(sigma_s)) for x_0, eps in ((ONE, ZERO), (ZERO, ONE))
    )
    torch.testing.assert_close(signal.mean[0, 0], path(sigma_s)[0])
    torch.testing.assert_close(noise.mean[0, 0] ** 2 + noise.std**2, path(sigma_s)[1] ** 2)


def end_of(kernel: Kernel, steps: int, *, mean: float, std: float) -> tuple[float, float]:
    """Mean and std of x_0 sampled in closed form for data N(mean, std^2), by its exact posterior means.

    x_t = (1 - s) x_0 + s eps has variance V = (1 - s)^2 std^2 + s^2; E[x_0 | x] and E[eps | x] are linear in
    x, so every step maps a Gaussian to a Gaussian.
    """
    grid = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    m, v = 0.0, 1.0
    for t, s in pairwise(grid):
        a, spread = 1 - t, (1 - t) ** 2 * std**2 + t**2

        def step(x: float) -> Gaussian:
            off = x - a * mean  # noqa: B023 (called within the turn)
            x_0, eps = mean + a * std**2 / spread * off, t / spread * off  # noqa: B023
            return kernel(x_0 * ONE, eps * ONE, flow(t), flow(s))  # noqa: B023

        at_0, at_1 = float(step(0.0).mean), float(step(1.0).mean)
        m, v = at_0 + (at_1 - at_0) * m, (at_1 - at_0) ** 2 * v + float(step(0.0).std) ** 2
    return m, math.sqrt(v)


def error(kernel: Kernel) -> float:
    """Of the end's mean and std after 800 steps."""
    mean, std = end_of(kernel, 800, mean=1.5, std=0.6)
    return max(abs(mean - 1.5), abs(std - 0.6))


@pytest.mark.parametrize("kernel", [ddim(1), ddim(0.5), flow_sde(0.7), ODE], ids=str)
def test_a_gaussian_keeps_its_marginal(kernel):
    assert error(kernel) < 0.003


def test_the_error_of_the_flow_sde_on_a_point_halves_with_the_steps():
    errors = [end_of(flow_sde(0.7), steps, mean=1.5, std=0.0)[1] for steps in (50, 100, 200, 400)]
    ratios = [coarse / fine for coarse, fine in pairwise(errors)]
    assert all(1.9 < ratio < 2.1 for ratio in ratios), ratios


def test_a_gaussian_is_not_kept_by_fine_steps_of_cps():
    """Each step, however short, adds the noise sigma_s sin(a pi / 2): too many of them miss the end."""
    assert error(cps(0.01)) < 0.01 < 0.04 < error(cps(0.5))


def test_the_density_is_the_normal_one():
    p = flow_sde(0.7)(2 * ONE, ONE, flow(0.5), flow(0.4))
    expected = norm.logpdf(1.3, loc=1.551, scale=0.7 * math.sqrt(0.1))
    assert Gaussian(p.mean.view(1, 1, 1, 1), p.std.view(1, 1, 1, 1)).log_prob(
        torch.full((1, 1, 1, 1), 1.3, dtype=torch.float64)
    ).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ddim(1.5), "got eta=1.5; expected a number from 0"),
        (lambda: ddim(float("nan")), "got eta=nan; expected"),
        (lambda: cps(1.1), "got a=1.1; expected a number from 0"),
        (lambda: flow_sde(-0.1), "got a=-0.1; expected a number from 0"),
        (lambda: Kernel("ode", 0.5), "got eta=0.5; expected a number of 0"),
        (lambda: Kernel("dpm", 0.5), "got kernel 'dpm'; expected one of ddim, flow_sde"),  # type: ignore[arg-type]
        (lambda: flow_sde(0.7).check("eps"), "got kernel=flow_sde for a model that predicts eps"),
    ],
)
def test_bad_kernels_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
