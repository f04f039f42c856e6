import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.rest

TESTS = Path(__file__).parents[1]
PAIRS, PROMPTS, MEGABYTE = 20_000, 2_000, 1_000_000

BUILD = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
import conftest, torch
import numpy as np
from diffusers import AutoencoderKL
from PIL import Image
from t2ialign.data.cache.build import build_cache
from t2ialign.data.cache.stored import PairCache
from t2ialign.data.pairs import PairRecord
from t2ialign.models.load import load_policy

torch.set_num_threads(1)
conftest.tiny_vae = lambda: AutoencoderKL(
    block_out_channels=(4,), norm_num_groups=2, layers_per_block=1, latent_channels=4, sample_size=16,
    down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
    mid_block_add_attention=False,
)
folder, pairs, prompts = Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
policy = load_policy(str(conftest.build_sd(folder / "model")), device="cpu")

def memory():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

def records():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    for i in range(pairs):
        win, lose = (Image.fromarray(pixels[j % 64]) for j in (i, i + 1 + i // 64))
        yield PairRecord(f"prompt {i * 7919 % prompts}", win, lose)

passed, peaks = 0, []
def progress(count):
    global passed
    passed += count
    if passed % 1000 == 0:
        peaks.append(memory())

cache = build_cache(
    PairCache,
    folder / "cache", records(), policy, resolution=16, batch_size=64, shard_size=256, progress=progress
)
sizes = {kind: sum(f.stat().st_size for f in cache.folder.glob(kind + "*")) for kind in ("pairs", "texts")}
largest = max(f.stat().st_size for f in cache.folder.glob("pairs-*"))
print(json.dumps({
    "pairs": len(cache), "prompts": len(cache.prompts), "sizes": sizes, "largest": largest,
    "growth": memory() - peaks[1], "last_prompt": cache.prompt(pairs - 1),
}))
"""


def test_20_000_pairs_in_the_memory_of_2_000(tmp_path):
    """160 MB of latents pass through; from the 2,000th pair to the end the peak hardly moves."""
    arguments = [str(TESTS), str(TESTS.parent), str(tmp_path), str(PAIRS), str(PROMPTS)]
    done = subprocess.run([sys.executable, "-c", BUILD, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["pairs"], result["prompts"]) == (PAIRS, PROMPTS)
    assert result["last_prompt"] == f"prompt {(PAIRS - 1) * 7919 % PROMPTS}"
    assert result["sizes"]["pairs"] > 160 * MEGABYTE and result["sizes"]["texts"] > 3 * MEGABYTE
    assert result["largest"] < 4 * MEGABYTE, "shards stay small"
    assert result["growth"] < 24 * MEGABYTE
