"""The plans against their laws, and the gradient against finite differences of what each plan means."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from scripts.experiments.gradient import double, spied, surrogate
from t2ialign.diffusion.backprop import Plan, differentiable_sample, draw_plan, low_variance_sample
from t2ialign.diffusion.kernels import ODE, ddim
from t2ialign.diffusion.noise import generator, normal_rows
from t2ialign.diffusion.path import to_x0_eps
from t2ialign.diffusion.schedule import path_table, timesteps
from t2ialign.models.load import load_policy

T = 5
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SD = {**SD, "timestep_spacing": "leading", "set_alpha_to_one": False}


def draws(rule, num_inference_steps, count, **options):
    return [draw_plan(rule, num_inference_steps, generator=generator(7, i), **options) for i in range(count)]


def test_all_and_last_are_what_they_say():
    assert draws("all", 4, 1)[0] == Plan((True,) * 4)
    assert draws("last", 4, 1, k=2)[0] == Plan((False, False, True, True))


def test_alignprop_s_mask_keeps_step_i_with_probability_i_plus_1_over_51():
    plans = draws("mask", 50, 4000)
    kept = torch.tensor([plan.recorded for plan in plans]).double().mean(0)
    expected = (torch.arange(50).double() + 1) / 51
    assert (kept - expected).abs().max() < 4 * 0.5 / 4000**0.5
    both = torch.tensor([plan.recorded[20] and plan.recorded[40] for plan in plans]).double().mean()
    assert abs(both - expected[20] * expected[40]) < 4 * 0.5 / 4000**0.5  # drawn apart: no cut point


def test_the_mask_is_drawn_again_where_no_step_would_record():
    """Without a step the loss has no gradient. Of two steps the second has 2/3 of 7/9, which is 6/7."""
    assert all(plan.recorded == (True,) for plan in draws("mask", 1, 50))
    plans = draws("mask", 2, 4000)
    assert all(any(plan.recorded) for plan in plans)
    kept = torch.tensor([plan.recorded for plan in plans]).double().mean(0)
    assert abs(kept[1] - 6 / 7) < 4 * 0.5 / 4000**0.5 and abs(kept[0] - 3 / 7) < 4 * 0.5 / 4000**0.5


def test_the_uniform_cut_keeps_the_last_k_of_1_to_t():
    plans = draws("uniform", 5, 4000)
    counts = Counter(sum(plan.recorded) for plan in plans)
    assert set(counts) == {1, 2, 3, 4, 5} and max(counts.values()) < 900 and min(counts.values()) > 700
    assert all(list(plan.recorded) == sorted(plan.recorded) for plan in plans)


@pytest.mark.parametrize(
    ("values", "cut"),
    [
        ([41.99], 41),  # the fraction is lost, not rounded
        ([1.9], 1),
        ([0.9, 30.2], 30),  # int() makes 0 of it: drawn again
        ([-0.5, 0.0, 7.6], 7),
        ([50.0, 61.3, 49.9], 49),  # N and beyond: drawn again
    ],
)
def test_the_normal_cut_is_int_of_a_draw_in_1_to_n(monkeypatch, values, cut):
    """AlignProp's rewrite takes int(Normal(42, 5).sample()) of N = 50 steps until it is one of 1 .. N - 1."""
    left = [(value - 42) / 5 for value in values]
    monkeypatch.setattr(torch, "randn", lambda *_, **__: left.pop(0))
    plan = draw_plan("normal", 50, generator=generator(0))
    assert plan.recorded == (False,) * cut + (True,) * (50 - cut) and not left


def test_the_normal_cut_follows_the_law_of_n_42_5():
    """P(cut = c) = (F(c + 1) - F(c)) / F(50), F of N(42, 5); F(50) = .9452, F(1) = 1e-16."""
    count = 4000
    cuts = torch.tensor([50 - sum(plan.recorded) for plan in draws("normal", 50, count)])
    law = torch.distributions.Normal(42.0, 5.0).cdf(torch.arange(51.0).double())
    expected = law.diff() / law[50]
    shares = torch.bincount(cuts, minlength=50) / count
    assert (shares - expected).abs().max() < 4 * (0.085 / count) ** 0.5  # no cut is likelier than .085
    assert cuts.min() >= 1 and cuts.max() == 49
    assert abs(cuts.double().mean() - 40.91) < 4 * 4.4 / count**0.5


def test_spaced_steps_are_k_at_equal_distances_from_a_random_offset():
    plans = draws("spaced", 24, 400, k=3)
    starts = set()
    for plan in plans:
        first, second, third = (i for i, records in enumerate(plan.recorded) if records)
        assert second - first == 8 and third - second == 8
        starts.add(first)
    assert starts == set(range(8))
    assert {sum(plan.recorded) for plan in draws("spaced", 25, 400, k=3)} == {3}


def test_an_early_stop_falls_evenly_on_the_last_m_steps_and_records_the_step_it_ends_on():
    plans = draws("last", 40, 4000, k=1, early_stop=10)
    counts = Counter(len(plan.recorded) - 1 for plan in plans)  # ReFL: mid = randint(30, 39)
    assert set(counts) == set(range(30, 40)) and min(counts.values()) > 300
    assert all(plan.posterior and sum(plan.recorded) == 1 and plan.recorded[-1] for plan in plans)


def test_impossible_plans_are_one_line():
    for options, words in (
        ({"k": 6}, "got k=6 recorded steps of num_inference_steps=5"),
        ({"k": 4, "early_stop": 3}, "got k=4 recorded steps of num_inference_steps=5 with early_stop=3"),
        ({"early_stop": 6, "k": 1}, "got k=1|got early_stop=6"),
    ):
        with pytest.raises(ValueError, match=words):
            draw_plan("last", T, generator=generator(0), **options)
    with pytest.raises(ValueError, match="got early_stop=6; expected 0 to num_inference_steps=5"):
        draw_plan("mask", T, early_stop=6, generator=generator(0))
    with pytest.raises(
        ValueError, match="got record=normal for num_inference_steps=1 with early_stop=0; expected 2"
    ):
        draw_plan("normal", 1, generator=generator(0))


class Constants:
    """Stable Diffusion's own path, with each step's output a parameter: only the linear path is left."""

    kind = "eps"

    def __init__(self, num_inference_steps: int) -> None:
        self.table = path_table(SD).double()
        self.outputs = torch.zeros(num_inference_steps, dtype=torch.float64, requires_grad=True)
        self.calls = 0

    def path(self, t):
        squared = self.table[t].view(-1, 1, 1, 1)
        return squared.sqrt(), (1 - squared).sqrt()

    def guided(self, x_t, t, cond, guidance_scale):
        out = self.outputs[self.calls].expand_as(x_t)
        self.calls += 1
        return out

    def transition(self, out, x_t, t, s, *, kernel):
        return kernel(*to_x0_eps("eps", out, x_t, *self.path(t)), self.path(t), self.path(s))


def test_the_linear_path_s_weights_are_those_derived_by_hand():
    """d x_end / d eps_i = -sqrt(abar_end) (s_t - s_p), s = sqrt((1 - abar) / abar); SD1.5, 50 steps."""
    policy = Constants(50)
    x_T = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    plan = draw_plan("all", 50, generator=generator(0))
    x_0, _ = differentiable_sample(
        policy, {}, x_T, timesteps(SD, 50), plan, kernel=ODE, guidance_scale=1.0, recompute=False
    )
    x_0.sum().backward()
    weights = -policy.outputs.grad
    found = weights[torch.tensor([0, 10, 20, 30, 40, 49])]
    published = torch.tensor([1.444, 0.394, 0.144, 0.070, 0.046, 0.012], dtype=torch.float64)
    assert (found - published).abs().max() < 1e-3 and abs(weights.sum() - 13.09) < 0.01
    assert abs(weights[:10].sum() / weights.sum() - 0.64) < 0.01


@pytest.fixture(scope="module")
def policy(tiny_sd):
    """The tiny Stable Diffusion in fp64, all of its network's weights trainable."""
    return double(load_policy(str(tiny_sd)))


@pytest.fixture(scope="module")
def problem(policy):
    """Two prompts, noise, the grid, and the numbers that weigh the pixels of the result."""

    def noise(i):
        return torch.randn(x_T.shape, generator=generator(9, i), dtype=torch.float64)

    cond = {name: value.double() for name, value in policy.encode_prompts(["a cat", "two dogs"]).items()}
    shape = policy.latent_shape(*policy.native_size)
    x_T = normal_rows(shape, [(0, row) for row in range(2)]).double()
    pixels = torch.randn(2, 3, *policy.native_size, generator=generator(3), dtype=torch.float64)
    return SimpleNamespace(
        policy=policy,
        cond=cond,
        x_T=x_T,
        times=policy.timesteps(T),
        guidance_scale=2.0,
        noise=noise,
        pixels=pixels,
    )


PLANS = {
    "draft": Plan((True,) * T),
    "draft-k": draw_plan("last", T, k=2, generator=generator(0)),
    "alignprop": Plan((False, True, False, False, True)),
    "alignprop-uniform": draw_plan("uniform", T, generator=generator(4)),
    "refl": draw_plan("last", T, k=1, early_stop=3, generator=generator(5)),
    "drtune": Plan((True, False, True, False), posterior=True, detach_input=True),
    "cut latent": Plan((True,) * T, detach_before=3),
    "posterior": Plan((True,) * T, posterior=True),
}


def path(problem, plan, eta, **options):
    x_0, _ = differentiable_sample(
        problem.policy,
        problem.cond,
        problem.x_T,
        problem.times,
        plan,
        kernel=ddim(eta),
        guidance_scale=problem.guidance_scale,
        noise=problem.noise if eta else None,
        **options,
    )
    return (problem.policy.decode(x_0) * problem.pixels).sum()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", PLANS)
def test_the_gradient_is_the_finite_difference_of_what_the_plan_means(policy, problem, name, eta, recompute):
    plan, weights = PLANS[name], list(policy.unet.parameters())
    with spied(policy) as held:
        value = path(problem, plan, eta, recompute=False)
    directions = [
        torch.randn(w.shape, generator=generator(2, i), dtype=w.dtype) for i, w in enumerate(weights)
    ]
    if recompute:
        value = path(problem, plan, eta, recompute=True)
    grads = torch.autograd.grad(value, weights, allow_unused=True)
    slope = sum((g * d).sum() for g, d in zip(grads, directions, strict=True) if g is not None)
    found, h = [], 1e-6
    with torch.no_grad():
        for sign in (1, -1):
            for w, d in zip(weights, directions, strict=True):
                w += sign * h * d
            x_0 = surrogate(problem, plan, eta, held)
            found.append((policy.decode(x_0) * problem.pixels).sum())
            for w, d in zip(weights, directions, strict=True):
                w -= sign * h * d
    assert abs(slope) > 1e-6
    assert slope.item() == pytest.approx(((found[0] - found[1]) / (2 * h)).item(), rel=1e-5)


def test_low_variance_records_the_last_step_only_from_each_new_noise(policy, problem):
    cond, times = problem.cond, problem.times
    shape = policy.latent_shape(*policy.native_size)
    x_0 = normal_rows(shape, [(4, row) for row in range(2)]).double()
    eps = (
        normal_rows(shape, [(5, n, row) for n in range(3) for row in range(2)]).double().unflatten(0, (3, 2))
    )
    with spied(policy) as seen:
        found, _ = low_variance_sample(policy, cond, x_0, times, eps, guidance_scale=2.0, recompute=False)
    assert found.shape == (6, *shape) and len(seen) == 1 and found.requires_grad
    alpha = policy.latents.table[times[-2].long()]
    x_t = alpha.sqrt() * x_0 + (1 - alpha).sqrt() * eps[1]  # the second noise is the rows 2 and 3
    torch.testing.assert_close(seen[0][0][2:4], x_t)
    t, s = (times[i].expand(2) for i in (-2, -1))
    with torch.no_grad():
        alone = policy.step(x_t, t, s, cond, kernel=ODE, guidance_scale=2.0).mean
    torch.testing.assert_close(found[2:4].detach(), alone)


def test_a_step_that_does_not_record_never_builds_a_graph(policy, problem):
    plan, records = PLANS["alignprop"], []
    hook = policy.unet.register_forward_pre_hook(lambda *_: records.append(torch.is_grad_enabled()))
    value = path(problem, plan, 0.0, recompute=True)
    assert records == list(plan.recorded)
    value.backward()
    assert records[T:] == [True] * 2  # each recorded step runs once more, and no other
    hook.remove()
    policy.unet.zero_grad()


def saved_bytes(policy, problem, num_inference_steps, **options):
    """Bytes that a loss of all steps keeps for its backward pass."""
    cond, x_T = problem.cond, problem.x_T
    kept = {}

    def pack(x: Tensor):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    own = {p.untyped_storage().data_ptr() for p in (*policy.unet.parameters(), *policy.vae.parameters())}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        plan = draw_plan("all", num_inference_steps, generator=generator(0))
        x_0, _ = differentiable_sample(
            policy,
            cond,
            x_T,
            policy.timesteps(num_inference_steps),
            plan,
            kernel=ODE,
            guidance_scale=2.0,
            **options,
        )
        value = (x_0 * x_T).sum()
    del value
    return sum(size for pointer, size in kept.items() if pointer not in own)


def test_a_recomputed_step_keeps_little_more_than_its_latents(policy, problem):
    latent = problem.x_T.numel() * 8
    few, many = (saved_bytes(policy, problem, steps, recompute=True) for steps in (5, 25))
    naive_few, naive_many = (saved_bytes(policy, problem, steps, recompute=False) for steps in (5, 25))
    assert many - few <= 20 * 8 * latent  # x_t, its two halves, x_0 and the guided output of each step
    assert naive_many - naive_few > 50 * (many - few)


def test_the_penalty_is_of_recorded_steps_against_the_reference_at_the_same_latents(policy, problem):
    calls = []

    def penalty(out, frozen, x_t, t, s):
        calls.append((int(t[0]), x_t.requires_grad, frozen.requires_grad))
        return (out - frozen).square().flatten(1).mean(1) + 1

    plan, times, cond, x_T = PLANS["draft-k"], problem.times, problem.cond, problem.x_T
    _, costs = differentiable_sample(
        policy, cond, x_T, times, plan, kernel=ODE, guidance_scale=2.0, penalty=penalty
    )
    assert calls == [(int(times[3]), False, False), (int(times[4]), False, False)]
    torch.testing.assert_close(costs.detach(), torch.full((2,), 2.0).double())  # no adapter: no difference


def test_noise_is_asked_for_where_eta_needs_it(policy, problem):
    with pytest.raises(ValueError, match=r"got the noisy kernel eta 0.5 and no noise"):
        differentiable_sample(
            policy,
            problem.cond,
            problem.x_T,
            problem.times,
            PLANS["draft"],
            kernel=ddim(0.5),
            guidance_scale=1.0,
        )
