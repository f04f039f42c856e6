"""The loop, on models whose answer is known: all data is one image, so x_0 is that image always."""

import pytest
import torch
from torch import Tensor

from t2ialign.diffusion.kernels import ddim
from t2ialign.diffusion.sampler import rollout, sample
from t2ialign.diffusion.transition import Gaussian

IMAGE = torch.linspace(-2, 2, 12).view(3, 2, 2)
TIMES = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])


class PointMass:
    """The exact denoiser of a single image, times a learnable gain of 1, on the rectified-flow path."""

    def __init__(self) -> None:
        self.gain = torch.ones((), requires_grad=True)
        self.recorded: list[bool] = []

    def step(
        self, x_t: Tensor, t: Tensor, s: Tensor, cond: dict[str, Tensor], *, kernel, guidance_scale
    ) -> Gaussian:
        self.recorded.append(torch.is_grad_enabled())
        t, s = t.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)
        x_0 = self.gain * IMAGE.expand_as(x_t)
        eps = (x_t - (1 - t) * x_0) / t
        return kernel(x_0, eps, (1 - t, t), (1 - s, s))


def noise(i: int) -> Tensor:
    return torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(100 + i))


def walk(function, policy, eta, **options):
    x_T = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return function(policy, {}, x_T, TIMES, kernel=ddim(eta), guidance_scale=1.0, noise=noise, **options)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_arrives_at_the_image(eta):
    found = walk(sample, PointMass(), eta)
    torch.testing.assert_close(found, IMAGE.expand(5, 3, 2, 2))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_rollout_and_sample_are_one_loop(eta):
    path = walk(rollout, PointMass(), eta)
    assert path.latents.shape == (5, 5, 3, 2, 2) and path.log_probs.shape == (5, 4)
    assert torch.equal(path.latents[:, -1], walk(sample, PointMass(), eta))
    assert torch.equal(path.times, TIMES)


def test_log_probs_are_those_of_the_steps_taken():
    policy, path = PointMass(), walk(rollout, PointMass(), 1.0)
    for i in range(3):
        t, s = TIMES[i : i + 2, None].expand(2, 5)
        p = policy.step(path.latents[:, i], t, s, {}, kernel=ddim(1.0), guidance_scale=1.0)
        normal = torch.distributions.Normal(p.mean, p.std.expand_as(p.mean))
        expected = normal.log_prob(path.latents[:, i + 1]).flatten(1).mean(1)
        torch.testing.assert_close(path.log_probs[:, i], expected.detach())


def test_the_last_flow_step_is_deterministic_and_counts_zero():
    path = walk(rollout, PointMass(), 1.0)
    assert (path.log_probs[:, -1] == 0).all() and (path.log_probs[:, :-1] != 0).all()
    assert path.log_probs.isfinite().all()
    assert (walk(rollout, PointMass(), 0.0).log_probs == 0).all()


def test_nothing_records_and_no_grad_mode_leaks():
    policy = PointMass()
    path = walk(rollout, policy, 1.0)
    assert not path.latents.requires_grad and not path.log_probs.requires_grad
    assert policy.recorded == [False] * 4 and torch.is_grad_enabled()


def test_a_stochastic_sampler_without_noise_is_an_error():
    with pytest.raises(ValueError, match=r"got the noisy kernel eta 0.5 and no noise; expected noise"):
        sample(PointMass(), {}, noise(0), TIMES, kernel=ddim(0.5), guidance_scale=1.0)
    found = sample(PointMass(), {}, noise(0), TIMES, kernel=ddim(0.0), guidance_scale=1.0)
    torch.testing.assert_close(found, IMAGE.expand(5, 3, 2, 2))
