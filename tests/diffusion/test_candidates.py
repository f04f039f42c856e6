"""Candidates: draws from one step's Gaussian, one forward a step whatever K, the path that was chosen."""

from itertools import pairwise

import torch
from torch import Tensor

from t2ialign.diffusion.candidates import candidate_rollout
from t2ialign.diffusion.kernels import ddim
from t2ialign.diffusion.sampler import sample
from tests.diffusion.test_sampler import TIMES, PointMass

B, K = 3, 4
SHAPE = (3, 2, 2)


def noise(i: int) -> Tensor:
    return torch.randn(B, K, *SHAPE, generator=torch.Generator().manual_seed(200 + i))


def choice(i: int) -> Tensor:
    return torch.tensor([i % K, (i + 1) % K, 0])


def steps(eta: float = 1.0, policy: PointMass | None = None):
    x_T = torch.randn(B, *SHAPE, generator=torch.Generator().manual_seed(0))
    path = candidate_rollout(
        policy or PointMass(),
        {},
        x_T,
        TIMES,
        kernel=ddim(eta),
        guidance_scale=1.0,
        noise=noise,
        choice=choice,
    )
    return x_T, list(path)


def test_candidates_are_mean_plus_std_times_their_own_noise():
    _, found = steps()
    assert [step.number for step in found] == [0, 1, 2, 3]
    for step in found:
        assert step.candidates.shape == (B, K, *SHAPE)
        expected = step.p.mean[:, None] + step.p.std[:, None] * noise(step.number)
        torch.testing.assert_close(step.candidates, expected)


def test_each_path_goes_on_from_its_chosen_candidate():
    x_T, found = steps()
    assert torch.equal(found[0].x_t, x_T)
    for before, after in pairwise(found):
        assert torch.equal(after.x_t, before.candidates[torch.arange(B), choice(before.number)])
        assert torch.equal(after.t, before.s)


def test_the_path_of_one_candidate_is_the_sampler_s():
    """With K = 1 nothing is left to choose: the same states as `sample` with that noise."""
    x_T = torch.randn(B, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = list(
        candidate_rollout(
            PointMass(),
            {},
            x_T,
            TIMES,
            kernel=ddim(1.0),
            guidance_scale=1.0,
            noise=lambda i: noise(i)[:, :1],
            choice=lambda i: torch.zeros(B, dtype=torch.long),
        )
    )
    by_sampler = sample(
        PointMass(), {}, x_T, TIMES, kernel=ddim(1.0), guidance_scale=1.0, noise=lambda i: noise(i)[:, 0]
    )
    assert torch.equal(found[-1].candidates[:, 0], by_sampler)


def test_a_step_is_one_forward_and_records_nothing():
    policy = PointMass()
    _, found = steps(policy=policy)
    assert policy.recorded == [False] * 4
    assert not any(step.candidates.requires_grad for step in found)
    assert torch.is_grad_enabled()


def test_on_a_step_without_noise_candidates_are_one():
    """The flow path's last step has no noise, whatever eta."""
    _, found = steps()
    assert float(found[-1].p.std.max()) == 0
    assert torch.equal(found[-1].candidates, found[-1].candidates[:, :1].expand(B, K, *SHAPE))
