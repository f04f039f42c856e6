"""What may go wrong while a cache is built: nothing half-made is taken for whole, nothing whole is lost."""

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from t2ialign.data.cache.build import build_cache
from t2ialign.data.cache.stored import PairCache
from t2ialign.data.pairs import PairRecord
from t2ialign.data.skipped import Skipped
from t2ialign.io.hashes import HASHES
from t2ialign.models.base import Policy
from t2ialign.models.load import load_policy

OPTIONS: dict[str, Any] = {"resolution": 32, "batch_size": 2, "shard_size": 4}


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def make_records(count: int = 13) -> list[PairRecord]:
    return [
        PairRecord(f"prompt {i % 7}", noise(2 * i), noise(2 * i + 1), name=f"row {i}") for i in range(count)
    ]


@pytest.fixture(scope="module")
def sd(tiny_sd) -> Policy:
    return load_policy(str(tiny_sd), device="cpu")


@pytest.fixture(scope="module")
def whole(sd, tmp_path_factory) -> PairCache:
    return build_cache(PairCache, tmp_path_factory.mktemp("whole") / "c", make_records(), sd, **OPTIONS)


def assert_same(cache: PairCache, other: PairCache) -> None:
    assert len(cache) == len(other) and cache.prompts == other.prompts
    batches = [c.batch(range(len(c)), [(0, i) for i in range(len(c))]) for c in (cache, other)]
    torch.testing.assert_close(batches[0].win, batches[1].win, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(batches[0].lose, batches[1].lose, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(batches[0].cond, batches[1].cond, rtol=2e-3, atol=2e-3)


def refuses(folder: Path) -> bool:
    with pytest.raises(ValueError, match="no finished pair cache"):
        PairCache(folder)
    return True


class Crash(BaseException):
    """The process is gone: no handler of ours may see it."""


def fail_at(monkeypatch, number: int, error: BaseException) -> list[str]:
    """The number-th file to be completed is not; returns the names completed so far."""
    replace = os.replace
    names: list[str] = []

    def completing(source, target):
        if len(names) == number:
            raise error
        names.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", completing)
    return names


def writes(folder: Path) -> int:
    """Files ever completed: those there, and the note that the build removes in the end."""
    return len(list(folder.iterdir())) + 1


@pytest.mark.parametrize("full", [False, True], ids=["crash", "disk full"])
def test_a_failure_at_any_write_leaves_no_cache_and_the_next_build_goes_on(sd, whole, tmp_path, full):
    total = writes(whole.folder)
    assert total > 8
    for number in range(total):
        folder = tmp_path / str(number)
        error = OSError(errno.ENOSPC, "No space left on device") if full else Crash()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(type(error)):
            names = fail_at(patch, number, error)
            build_cache(PairCache, folder, make_records(), sd, **OPTIONS)
        assert len(names) == number and refuses(folder)
        left = sorted(path.name for path in folder.glob("*") if path.name != HASHES)
        assert sorted(names) == left, "nothing half-written stays"
        assert_same(build_cache(PairCache, folder, make_records(), sd, **OPTIONS), whole)


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {root!r}]
from data.test_cache_faults import OPTIONS, make_records
from t2ialign.data.cache.build import build_cache
from t2ialign.data.cache.stored import PairCache
from t2ialign.models.load import load_policy
replace, left = os.replace, [5]
def completing(source, target):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = completing
build_cache(PairCache, {folder!r}, make_records(), load_policy({model!r}, device="cpu"), **OPTIONS)
"""


@pytest.mark.rest
def test_kill_9_in_the_middle_of_a_write(sd, whole, tiny_sd, tmp_path):
    tests, folder = Path(__file__).parents[1], tmp_path / "c"
    names = {"tests": str(tests), "root": str(tests.parent), "folder": str(folder), "model": str(tiny_sd)}
    done = subprocess.run([sys.executable, "-c", KILLED.format(**names)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in folder.glob("*.partial")], "it died while a file was half-way"
    shards = len(list(folder.glob("pairs-*.safetensors")))
    assert refuses(folder) and shards > 0

    encoded = []
    hook = sd.vae.encoder.register_forward_hook(lambda module, args, out: encoded.append(len(out)))
    cache = build_cache(PairCache, folder, make_records(), sd, **OPTIONS)
    hook.remove()
    assert sum(encoded) == 2 * (13 - 4 * shards), "what whole shards hold is not encoded again"
    assert_same(cache, whole)
    assert not list(folder.glob("*.partial"))


class TestFolder:
    def test_another_make_is_refused_and_the_difference_named(self, sd, tmp_path):
        made = {"source": "a.parquet", "model": "x"}
        build_cache(PairCache, tmp_path / "c", make_records(2), sd, fingerprint=made, **OPTIONS)
        build_cache(PairCache, tmp_path / "c", [], sd, fingerprint=made, **OPTIONS)
        with pytest.raises(ValueError, match=r"made with resolution=32; expected resolution=64; delete it"):
            build_cache(PairCache, tmp_path / "c", [], sd, fingerprint=made, **{**OPTIONS, "resolution": 64})
        with pytest.raises(
            ValueError, match=r"made with flip=False, source=a.parquet; expected flip=True, sour"
        ):
            build_cache(
                PairCache, tmp_path / "c", [], sd, fingerprint={**made, "source": "b"}, flip=True, **OPTIONS
            )

    def test_so_is_an_unfinished_one_of_another_make(self, sd, tmp_path):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
            fail_at(patch, 3, Crash())
            build_cache(PairCache, tmp_path / "c", make_records(), sd, **OPTIONS)
        with pytest.raises(ValueError, match="made with buckets=False; expected buckets=True"):
            build_cache(PairCache, tmp_path / "c", make_records(), sd, buckets=True, **OPTIONS)

    def test_folder_with_other_files_is_left_alone(self, sd, tmp_path):
        (tmp_path / "thesis.tex").write_text("precious")
        with pytest.raises(ValueError, match="holds other files; expected an empty one"):
            build_cache(PairCache, tmp_path, make_records(), sd, **OPTIONS)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    @pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
    @pytest.mark.parametrize("name", ["pairs-000001.safetensors", "texts-000000.safetensors", "prompts.json"])
    def test_missing_or_cut_file(self, sd, tmp_path, name, harm):
        build_cache(PairCache, tmp_path / "c", make_records(), sd, **OPTIONS)
        harm(tmp_path / "c" / name)
        with pytest.raises(ValueError, match=f"in which {name} is missing or cut; .* builds anew"):
            PairCache(tmp_path / "c")

    def test_no_folder_and_no_pairs(self, sd, tmp_path):
        assert refuses(tmp_path / "gone")
        with pytest.raises(ValueError, match="no readable pairs"):
            build_cache(PairCache, tmp_path / "c", [], sd, **OPTIONS)
        assert refuses(tmp_path / "c")

    def test_resolution_the_model_cannot_take(self, sd, tmp_path):
        with pytest.raises(ValueError, match="got size 30x30"):
            build_cache(PairCache, tmp_path / "c", make_records(), sd, resolution=30)
        assert not (tmp_path / "c").exists()


class TestImages:
    def broken(self) -> list[PairRecord]:
        records = make_records()
        records[6] = PairRecord("prompt 6", b"no image", noise(1), name="set.parquet row 6")
        return records

    def test_an_unreadable_image_stops_the_build_and_keeps_what_is_done(self, sd, whole, tmp_path):
        with pytest.raises(ValueError, match=r"^set.parquet row 6 winner: got bytes of no known image"):
            build_cache(PairCache, tmp_path / "c", self.broken(), sd, **OPTIONS)
        assert refuses(tmp_path / "c") and list((tmp_path / "c").glob("pairs-*"))
        assert_same(build_cache(PairCache, tmp_path / "c", make_records(), sd, **OPTIONS), whole)

    def test_or_is_logged_and_left_out(self, sd, tmp_path, caplog):
        with caplog.at_level(logging.WARNING):
            cache = build_cache(
                PairCache, tmp_path / "c", self.broken(), sd, skipped=Skipped("set.parquet"), **OPTIONS
            )
        assert "1 rows left out: 1 with an image that cannot be read (first: row 6" in caplog.text
        assert [cache.prompt(i) for i in range(len(cache))] == [
            f"prompt {i % 7}" for i in range(13) if i != 6
        ]

    def test_source_that_breaks_half_way(self, sd, whole, tmp_path):
        def records():
            yield from make_records()[:9]
            raise ValueError("pairs.jsonl line 10: got no 'prompt'")

        with pytest.raises(ValueError, match="line 10"):
            build_cache(PairCache, tmp_path / "c", records(), sd, **OPTIONS)
        assert refuses(tmp_path / "c")
        assert_same(build_cache(PairCache, tmp_path / "c", make_records(), sd, **OPTIONS), whole)

    def test_latents_that_are_not_finite_are_named(self, tiny_sd, tmp_path):
        policy = load_policy(str(tiny_sd), device="cpu")
        policy.vae.quant_conv.bias.data[0] = torch.inf  # what fp16 makes of SDXL's VAE
        with pytest.raises(ValueError, match="VAE output that is not finite for row 0; expected finite"):
            build_cache(PairCache, tmp_path / "c", make_records(), policy, **OPTIONS)
        assert refuses(tmp_path / "c")


class TestMended:
    """What a build that stopped has encoded is kept when its rows are mended, and stays with its own row."""

    def stopped(self, sd, folder: Path, records: list[PairRecord]) -> None:
        with pytest.raises(ValueError, match="winner: got bytes of no known image"):
            build_cache(
                PairCache, folder, records, sd, fingerprint={"contents": "before", "ties": "drop"}, **OPTIONS
            )
        assert list(folder.glob("pairs-*"))

    def test_rows_may_be_mended_dropped_and_moved(self, sd, tmp_path):
        records = [PairRecord(f"p{i}", noise(2 * i), noise(2 * i + 1), name=f"row {i}") for i in range(13)]
        broken = PairRecord("p8", b"no image", noise(1))
        self.stopped(sd, tmp_path / "c", [*records[:8], broken, *records[9:]])
        new = PairRecord("first", noise(100), noise(101), weight=0.5)
        mended = [new, *records[1:8], PairRecord("another caption", records[0].win, records[0].lose)]
        encoded = []
        hook = sd.vae.encoder.register_forward_hook(lambda module, args, out: encoded.append(len(out)))
        cache = build_cache(
            PairCache,
            tmp_path / "c",
            mended,
            sd,
            fingerprint={"contents": "after", "ties": "half"},
            **OPTIONS,
        )
        hook.remove()
        assert sum(encoded) == 2, "one new pair; the others were encoded by the first build"
        assert_same(cache, build_cache(PairCache, tmp_path / "d", mended, sd, **OPTIONS))
        assert cache.batch([0, 1], [(0,), (1,)]).weight.tolist() == [0.5, 1.0]

    def test_a_build_without_a_shard_has_no_claim(self, sd, tmp_path):
        with pytest.raises(ValueError, match="no readable pairs"):
            build_cache(PairCache, tmp_path / "c", [], sd, fingerprint={"data": "empty"}, **OPTIONS)
        made = {**OPTIONS, "resolution": 16}
        assert (
            len(
                build_cache(
                    PairCache, tmp_path / "c", make_records(2), sd, fingerprint={"data": "full"}, **made
                )
            )
            == 2
        )

    def test_a_replaced_file_is_encoded_again(self, sd, tmp_path):
        files = [tmp_path / f"{name}.png" for name in "abcd"]
        for seed, file in enumerate(files):
            noise(seed).save(file)
        records = [PairRecord("x", files[0], files[1]), PairRecord("y", files[2], files[3])]
        whole = noise(3).tobytes()
        files[3].write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"d\.png"):
            build_cache(
                PairCache, tmp_path / "c", [records[0], records[0], records[0], records[1]], sd, **OPTIONS
            )
        noise(50).save(files[0])
        Image.frombytes("RGB", (32, 32), whole).save(files[3])
        cache = build_cache(PairCache, tmp_path / "c", records, sd, **OPTIONS)
        assert_same(cache, build_cache(PairCache, tmp_path / "d", records, sd, **OPTIONS))
