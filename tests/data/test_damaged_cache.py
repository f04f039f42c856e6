"""Damaged caches: found by their hashes, said in a line, and built anew with what of them is whole."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from t2ialign.data.cache.build import build_cache
from t2ialign.data.cache.comparisons import build_comparisons
from t2ialign.data.cache.shards import DamagedCache
from t2ialign.data.cache.stored import PairCache
from t2ialign.io import locks
from t2ialign.io.hashes import digest
from t2ialign.models.base import Policy
from t2ialign.models.load import load_policy
from tests.data.test_cache_faults import OPTIONS, Crash, assert_same, fail_at, make_records

SHARDS = ("pairs-000001.safetensors", "texts-000000.safetensors")
ALL = (*SHARDS, "index.safetensors", "prompts.json", "cache.json")


@pytest.fixture(scope="module")
def sd(tiny_sd) -> Policy:
    return load_policy(str(tiny_sd), device="cpu")


@pytest.fixture(scope="module")
def whole(sd, tmp_path_factory) -> PairCache:
    return build_cache(PairCache, tmp_path_factory.mktemp("whole") / "c", make_records(), sd, **OPTIONS)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def read_all(cache: PairCache) -> None:
    cache.batch(range(len(cache)), [(0, i) for i in range(len(cache))])


def encoded(sd: Policy, build: Callable[[], PairCache]) -> tuple[PairCache, int]:
    """A build, and how many pairs it encoded."""
    count: list[int] = []
    hook = sd.latents.vae.encoder.register_forward_hook(lambda module, args, out: count.append(len(out)))
    try:
        return build(), sum(count) // 2
    finally:
        hook.remove()


def test_every_file_of_a_finished_cache_carries_its_hash(whole):
    digests = json.loads((whole.folder / "cache.json").read_text())["sha256"]
    files = {path.name for path in whole.folder.iterdir()}
    assert digests.keys() == files
    assert all(digests[name] == digest(whole.folder / name) for name in files - {"cache.json"})


def folder_in_place(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "x").touch()


@pytest.mark.parametrize("harm", [flip, zeros, Path.unlink, folder_in_place])
@pytest.mark.parametrize("name", ALL)
def test_a_damaged_cache_is_built_anew_from_what_is_whole(sd, whole, tmp_path, name, harm, caplog):
    folder = tmp_path / "c"
    build_cache(PairCache, folder, make_records(), sd, **OPTIONS)
    harm(folder / name)
    if name in SHARDS and harm in (flip, zeros):  # known when it is first read, and not at every start
        with pytest.raises(DamagedCache, match=rf"{name} has another content .* anew") as error:
            read_all(build_cache(PairCache, folder, [], sd, **OPTIONS))
        assert "\n" not in str(error.value)
    cache, count = encoded(sd, lambda: build_cache(PairCache, folder, make_records(), sd, **OPTIONS))
    assert_same(cache, whole)
    assert count == {"pairs-000001.safetensors": 4, "cache.json": 13}.get(name, 0)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert (
        len(lines) == 1 + (name in SHARDS and harm is folder_in_place)
        and str(folder) in lines[0]
        and "is damaged" in lines[0]
    )
    assert name in lines[0] or name == "cache.json"
    assert_same(build_cache(PairCache, folder, [], sd, **OPTIONS), whole)


def test_all_damaged_shards_are_found_with_the_first(sd, whole, tmp_path):
    folder = tmp_path / "c"
    build_cache(PairCache, folder, make_records(), sd, **OPTIONS)
    for shard in folder.glob("pairs-*"):
        flip(shard)
    with pytest.raises(DamagedCache):
        read_all(PairCache(folder))
    assert not list(folder.glob("pairs-*")) and list(folder.glob("texts-*"))
    cache, count = encoded(sd, lambda: build_cache(PairCache, folder, make_records(), sd, **OPTIONS))
    assert count == 13
    assert_same(cache, whole)


@pytest.mark.parametrize("harm", [flip, zeros, lambda file: file.write_text("{}"), Path.unlink])
@pytest.mark.parametrize("name", [*SHARDS, "building.json", "hashes.jsonl"])
def test_a_damaged_half_built_cache_goes_on_with_what_is_whole(sd, whole, tmp_path, name, harm):
    folder = tmp_path / "c"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        fail_at(patch, 6, Crash())
        build_cache(PairCache, folder, make_records(), sd, **OPTIONS)
    harm(folder / name)
    try:
        assert_same(build_cache(PairCache, folder, make_records(), sd, **OPTIONS), whole)
    except ValueError as error:  # another make, if that is what the damage reads like
        assert name == "building.json" and "delete it or choose another folder" in str(error)


@pytest.mark.parametrize("name", ["cache.json", "index.safetensors", "pairs-000000.safetensors"])
def test_files_of_others_that_are_named_like_those_of_a_cache_are_left_alone(sd, tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match="holds other files"):
        build_cache(PairCache, tmp_path, make_records(), sd, **OPTIONS)
    assert (tmp_path / name).read_text() == "precious"


def test_a_damaged_cache_of_another_make_is_left_alone(sd, tmp_path):
    build_cache(PairCache, tmp_path, make_records(), sd, **OPTIONS)
    zeros(tmp_path / "index.safetensors")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="made with flip=False"):
        build_cache(PairCache, tmp_path, make_records(), sd, flip=True, **OPTIONS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_cache_without_hashes_is_of_an_older_version_and_is_opened(sd, whole, tmp_path):
    folder = tmp_path / "c"
    build_cache(PairCache, folder, make_records(), sd, **OPTIONS)
    manifest = json.loads((folder / "cache.json").read_text())
    del manifest["sha256"]
    (folder / "cache.json").write_text(json.dumps(manifest))
    _, count = encoded(sd, lambda: build_cache(PairCache, folder, make_records(), sd, **OPTIONS))
    assert count == 0
    zeros(folder / "pairs-000001.safetensors")
    with pytest.raises(DamagedCache, match=r"pairs-000001\.safetensors cannot be read"):
        read_all(PairCache(folder))
    cache, count = encoded(sd, lambda: build_cache(PairCache, folder, make_records(), sd, **OPTIONS))
    assert count == 4
    assert_same(cache, whole)


def test_a_cache_is_locked_while_it_is_built_and_not_when_it_is_finished(sd, tmp_path):
    folder = tmp_path / "c"

    def second(_: int) -> None:
        with pytest.raises(ValueError, match=rf"got cache {folder}, which another run is using"):
            build_cache(PairCache, folder, make_records(), sd, **OPTIONS)

    build_cache(PairCache, folder, make_records(), sd, progress=second, **OPTIONS)
    with locks.hold_folder(folder):
        build_cache(PairCache, folder, [], sd, **OPTIONS)


def test_comparisons_are_mended_likewise(tmp_path):
    import torch

    def build() -> Any:
        prepared.clear()
        return build_comparisons(tmp_path, make_records(), prepare, shard_size=8)

    def prepare(image: Any) -> torch.Tensor:
        prepared.append(image)
        return torch.zeros(3, 8, 8)

    prepared: list[Any] = []
    cache = build()
    assert len(prepared) == 26
    flip(tmp_path / "pictures-000001.safetensors")
    with pytest.raises(DamagedCache, match="pictures-000001"):
        cache.batch(range(len(cache)))
    assert len(build()) == 13 and len(prepared) == 8
    zeros(tmp_path / "index.safetensors")
    assert len(build()) == 13 and not prepared
