"""Settings that every trainer test starts from."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from t2ialign.data.cache.build import build_cache
from t2ialign.data.cache.stored import PairCache
from t2ialign.data.pairs import read_pairs
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.models.load import load_policy
from tests.training import toy


@pytest.fixture
def toy_config(tiny_sd: Path, tmp_path: Path) -> Callable[..., toy.Config]:
    """Makes a config of the toy trainer on the tiny model, a few steps, no trackers."""

    def make(**changes: object) -> toy.Config:
        base = {
            "model": str(tiny_sd),
            "output": tmp_path / "run",
            "max_steps": 4,
            "batch_size": 2,
            "accumulate": 2,
            "lora_rank": 2,
            "lr": 1e-2,
            "trackers": (),
        }
        return toy.Config.model_validate({**base, **changes})

    return make


@pytest.fixture(scope="session")
def sharp_sd(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with an image encoder whose latents tell images apart, as a trained one's do."""
    folder = tmp_path_factory.mktemp("sharp") / "sd"
    shutil.copytree(tiny_sd, folder)
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    with torch.no_grad():  # the random one's means are drowned in the noise of its own posterior
        vae.quant_conv.weight[:4] *= 15
        vae.quant_conv.bias[4:] -= 10
    vae.save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty prompts with two pairs each: the chosen images are bright, the rejected ones dark."""
    folder, rng, rows = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0), []
    for side, brightness in (("chosen", 200), ("rejected", 40)):
        (folder / side).mkdir()
        for i in range(40):
            pixels = np.clip(rng.normal(brightness, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / side / f"{i}.png")
    for i in range(40):
        rows.append({"file_name": f"{i}.png", "text": f"image {i // 2}"})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="session")
def pair_cache(sharp_sd: Path, pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PairCache:
    """The pairs of `pair_folder`, encoded."""
    folder = tmp_path_factory.mktemp("encoded") / "cache"
    return build_cache(
        PairCache, folder, read_pairs(str(pair_folder)), load_policy(str(sharp_sd)), resolution=32
    )


@pytest.fixture
def dpo_config(sharp_sd: Path, pair_folder: Path, tmp_path: Path) -> Callable[..., dpo.Config]:
    """Makes a config of the DPO trainer on those pairs."""

    def make(**changes: object) -> dpo.Config:
        base = {
            "model": str(sharp_sd),
            "data": str(pair_folder),
            "output": tmp_path / "run",
            "max_steps": 4,
            "batch_size": 4,
            "accumulate": 1,
            "lora_rank": 4,
            "lr": 3e-3,
            "holdout": 0.3,
            "trackers": (),
        }
        return dpo.Config.model_validate({**base, **changes})

    return make


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums are the same only if split over as many threads as in the child processes, which have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
