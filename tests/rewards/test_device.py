"""Which device is taken where none is named, and that nothing asks one without fp64 for it."""

import pytest
import torch

from rewards.device import default_device
from t2ialign.scoring.engine import Engine


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_a_gpu_is_taken_where_there_is_one(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert default_device() == torch.device(expected)


@pytest.mark.parametrize(("device", "dtype"), [("mps", torch.float32), ("cpu", torch.float64)])
def test_scores_are_kept_in_the_largest_precision_of_the_device(device, dtype):
    assert Engine({}, device=device, batch_size=1).exact == dtype
