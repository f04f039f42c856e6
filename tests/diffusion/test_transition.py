"""One reverse step: DDIM's on the variance-preserving path, marginals kept on both paths."""

import pytest
import torch

from t2ialign.diffusion.schedule import path_table, timesteps
from t2ialign.diffusion.transition import Gaussian, reverse_step

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
# sigma at eta = 1 and T = 20 for t = 1, 51, .. 951, as published with the LPO code
STD_TABLE = [0.0206, 0.0406, 0.1673, 0.2144, 0.2509, 0.2836, 0.3144, 0.3442, 0.3732, 0.4016]
STD_TABLE += [0.4293, 0.4565, 0.4829, 0.5087, 0.5336, 0.5576, 0.5807, 0.6029, 0.6241, 0.6444]


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def vp(sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    return (1 - number(sigma) ** 2).sqrt(), number(sigma)


def flow(sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    return 1 - number(sigma), number(sigma)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_is_ddim_on_the_vp_path(eta):
    alpha_bar_t, alpha_bar_s = number(0.5), number(0.7)
    x_0, eps = torch.randn(2, 2, 3, dtype=torch.float64), torch.randn(2, 2, 3, dtype=torch.float64)
    path_t, path_s = ((a.sqrt(), (1 - a).sqrt()) for a in (alpha_bar_t, alpha_bar_s))
    std = eta * ((1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)).sqrt()  # eq. 16
    mean = alpha_bar_s.sqrt() * x_0 + (1 - alpha_bar_s - std**2).sqrt() * eps  # eq. 12
    torch.testing.assert_close(reverse_step(x_0, eps, path_t, path_s, eta), Gaussian(mean, std))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("path", [vp, flow])
@pytest.mark.parametrize(("sigma_t", "sigma_s"), [(1.0, 0.9), (0.9, 0.5), (0.3, 0.01)])
def test_keeps_the_marginal(path, eta, sigma_t, sigma_s):
    """With the true x_0 and eps, x_s has mean alpha_s x_0 and variance sigma_s^2, whatever eta."""
    zero, one = number(0.0).view(1, 1), number(1.0).view(1, 1)
    signal = reverse_step(one, zero, path(sigma_t), path(sigma_s), eta)
    noise = reverse_step(zero, one, path(sigma_t), path(sigma_s), eta)
    torch.testing.assert_close(signal.mean[0, 0], path(sigma_s)[0])
    torch.testing.assert_close(noise.mean[0, 0] ** 2 + noise.std**2, number(sigma_s) ** 2)


def test_sd_noise_levels_are_the_published_table():
    """The last one is not zero: SD's grid ends at t = 0, not at a clean image."""
    table, grid = path_table(SD).double(), timesteps(SD, 20)
    alpha, sigma = table[grid].sqrt(), (1 - table[grid]).sqrt()
    one = torch.ones(20, dtype=torch.float64)
    step = reverse_step(one, one, (alpha[:-1], sigma[:-1]), (alpha[1:], sigma[1:]), eta=1.0)
    torch.testing.assert_close(step.std.flip(0), torch.tensor(STD_TABLE).double(), rtol=0, atol=6e-5)


def test_log_prob_is_the_averaged_normal_log_density():
    x, mean = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    std = torch.tensor([0.02, 0.3, 2.0]).view(3, 1, 1, 1)
    expected = torch.distributions.Normal(mean, std.expand_as(mean)).log_prob(x).flatten(1).mean(1)
    torch.testing.assert_close(Gaussian(mean, std).log_prob(x), expected)


def test_log_prob_is_fp32_for_half_inputs():
    x, mean, std = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2), torch.full((2, 1, 1, 1), 0.5)
    found = Gaussian(mean.bfloat16(), std.bfloat16()).log_prob(x.bfloat16())
    assert found.dtype == torch.float32


def test_log_prob_of_a_deterministic_row_is_zero_without_nan():
    mean = torch.randn(2, 1, 3, 3, requires_grad=True)
    std = torch.tensor([0.0, 0.5]).view(2, 1, 1, 1).requires_grad_()
    found = Gaussian(mean, std).log_prob(mean.detach() + 1)
    found.sum().backward()
    assert found[0] == 0 and mean.grad is not None and std.grad is not None
    assert mean.grad[0].abs().sum() == 0 and std.grad[0].abs().sum() == 0
    assert mean.grad.isfinite().all() and std.grad.isfinite().all()
    # d/d mean of -(x - mean)^2 / (2 std^2), averaged over 9: (x - mean) / std^2 / 9 = 1 / .25 / 9
    torch.testing.assert_close(mean.grad[1], torch.full((1, 3, 3), 4 / 9))


def test_candidates_of_one_state_need_one_forward():
    """log-ratio of winner minus loser is <w - l, mu - mu_ref> / (D std^2) when both come from one x_t."""
    win, lose, mu, mu_ref = torch.randn(4, 3, 2, 4, 4, dtype=torch.float32)
    std = torch.full((3, 1, 1, 1), 0.4)
    new, old = Gaussian(mu, std), Gaussian(mu_ref, std)
    ratio = (new.log_prob(win) - old.log_prob(win)) - (new.log_prob(lose) - old.log_prob(lose))
    expected = ((win - lose) * (mu - mu_ref)).flatten(1).sum(1) / (32 * 0.4**2)
    torch.testing.assert_close(ratio, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan")])
def test_eta_outside_its_range_is_an_error(eta):
    one = torch.ones(1)
    with pytest.raises(ValueError, match="expected a number from 0"):
        reverse_step(one, one, (one, one), (one, one), eta)
