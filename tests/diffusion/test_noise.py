"""Noise is a function of its key and of nothing else."""

import subprocess
import sys

import pytest
import torch

from t2ialign.diffusion.noise import generator, normal_rows, uniform_rows

KEYS = [(3, row) for row in range(64)]


def test_a_row_depends_on_its_key_only():
    together = normal_rows((2, 3), KEYS)
    assert torch.equal(together[7], normal_rows((2, 3), [KEYS[7]])[0])
    assert torch.equal(together[[9, 5]], normal_rows((2, 3), [KEYS[9], KEYS[5]]))
    assert torch.equal(uniform_rows(KEYS)[[9, 5]], uniform_rows([KEYS[9], KEYS[5]]))


def test_keys_do_not_run_into_each_other():
    keys = [(1, 23), (12, 3), (123,), (3, 12), (1, 2, 3), (-1, 23), (0,), (-1,)]
    first = [generator(*key).initial_seed() for key in keys]
    assert len(set(first)) == len(keys)


def test_global_seed_is_neither_read_nor_changed():
    torch.manual_seed(1)
    before, state = normal_rows((4,), KEYS), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(before, normal_rows((4,), KEYS))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.rest
def test_same_seed_in_another_process():
    code = "from t2ialign.diffusion.noise import generator; print(generator(5, -7, 10**12).initial_seed())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == generator(5, -7, 10**12).initial_seed()


def test_moments():
    """Over 64 x 1000 numbers: mean within 4 / sqrt(64000), variance within 4 sqrt(2 / 64000)."""
    normal, uniform = normal_rows((1000,), KEYS), uniform_rows([(0, i) for i in range(4000)])
    assert abs(normal.mean()) < 0.016 and abs(normal.var() - 1) < 0.023
    assert uniform.dtype == torch.float64 and uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4 * (1 / 12 / 4000) ** 0.5


def test_no_keys_no_rows():
    assert normal_rows((2, 3), []).shape == (0, 2, 3) and uniform_rows([]).shape == (0,)
