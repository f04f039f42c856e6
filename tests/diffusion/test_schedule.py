"""Every grid equals diffusers' own: timesteps and alphas bit for bit."""

import pytest
import torch
from diffusers import DDIMScheduler

from t2ialign.diffusion.schedule import END, alphas_cumprod, path_table, timesteps

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BETAS = [
    SD,
    {"beta_schedule": "linear"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": [0.01] * 1000},
]
SPACINGS = [("leading", 0), ("leading", 1), ("trailing", 0), ("trailing", 1), ("linspace", 0)]


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("to_one", [False, True])
def test_alphas_are_those_of_diffusers(betas, zero_snr, to_one):
    config = {**betas, "rescale_betas_zero_snr": zero_snr, "set_alpha_to_one": to_one}
    theirs, table = DDIMScheduler(**config), path_table(config)
    assert torch.equal(alphas_cumprod(config), theirs.alphas_cumprod)
    assert table.shape == (1001,) and table[END] == theirs.final_alpha_cumprod
    assert torch.equal(table[:-1], theirs.alphas_cumprod)


@pytest.mark.parametrize("num_inference_steps", [1, 3, 7, 20, 30, 50, 999])
@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
def test_timesteps_are_those_of_diffusers(spacing, offset, num_inference_steps):
    config = {**SD, "timestep_spacing": spacing, "steps_offset": offset}
    theirs = DDIMScheduler(**config)
    theirs.set_timesteps(num_inference_steps)
    ours = timesteps(config, num_inference_steps)
    assert ours.dtype == torch.long and ours[-1] == END
    assert torch.equal(ours[:-1], theirs.timesteps)


@pytest.mark.parametrize(
    ("spacing", "num_inference_steps"), [("leading", 20), ("leading", 30), ("trailing", 20)]
)
def test_each_step_ends_where_diffusers_ends_it(spacing, num_inference_steps):
    """diffusers steps to t - 1000 // T, below 0 meaning the end."""
    grid = timesteps({**SD, "timestep_spacing": spacing, "steps_offset": 1}, num_inference_steps)
    assert torch.equal(grid[1:], (grid[:-1] - 1000 // num_inference_steps).clamp_min(END))


def test_sd_twenty_steps_start_at_951_and_end_at_1():
    grid = timesteps({**SD, "steps_offset": 1}, 20)
    assert grid.tolist() == [*range(951, 0, -50), END]


def test_sd_alphas_are_the_published_ones():
    table = alphas_cumprod(SD)
    assert table[0].item() == pytest.approx(0.99915, abs=5e-6)
    assert table[999].item() == pytest.approx(0.00466, abs=5e-6)
    assert alphas_cumprod({**SD, "rescale_betas_zero_snr": True})[999] == 0


@pytest.mark.parametrize(
    ("config", "num_inference_steps", "message"),
    [
        (SD, 0, "got num_inference_steps=0; expected 1 to 1000"),
        (SD, 1001, "got num_inference_steps=1001; expected 1 to 1000"),
        ({**SD, "steps_offset": 1}, 1000, "got num_inference_steps=1000; expected fewer, as steps_offset=1"),
        ({**SD, "timestep_spacing": "karras"}, 5, "got timestep_spacing='karras'"),
    ],
)
def test_a_grid_that_does_not_fit_is_an_error(config, num_inference_steps, message):
    with pytest.raises(ValueError, match=message):
        timesteps(config, num_inference_steps)


def test_unknown_betas_are_an_error():
    with pytest.raises(ValueError, match="got beta_schedule='sigmoid'; expected linear"):
        alphas_cumprod({"beta_schedule": "sigmoid"})
