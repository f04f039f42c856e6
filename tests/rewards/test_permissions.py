"""Files that are written can be read by whoever the system's mask lets."""

import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from rewards import trained
from rewards.permissions import share
from t2ialign.models.full import save_all
from t2ialign.models.load import load_policy
from t2ialign.models.lora import add_lora
from t2ialign.models.lora_saved import save_kohya, save_lora

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_mask_decides(mask, expected, tmp_path):
    (tmp_path / "part").mkdir()
    files = [tmp_path / "a.safetensors", tmp_path / "part" / "b.safetensors"]
    for file in files:
        save_file({"a": torch.zeros(1)}, file)
    before = os.umask(mask)
    try:
        assert share(tmp_path) == tmp_path
    finally:
        os.umask(before)
    assert [mode(file) for file in files] == [expected, expected]
    assert os.umask(before) == before, "the mask is left as it was"


def test_results_are_as_open_as_a_file_written_by_hand(tiny_sd, tmp_path):
    (tmp_path / "by hand").write_text("x")
    policy = load_policy(str(tiny_sd), device="cpu")
    unet = save_all(policy, tmp_path)
    add_lora(policy, 1)
    lora = save_lora(policy, tmp_path)
    kohya = save_kohya(policy, lora, tmp_path / "a_kohya.safetensors")
    scorer = trained.save(tmp_path / "scorer", {"a": torch.zeros(1)}, {})
    for file in (lora, kohya, scorer, *unet.glob("*.safetensors")):
        assert mode(file) == mode(tmp_path / "by hand"), file
