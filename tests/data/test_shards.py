import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from t2ialign.data.cache.shards import ShardReader, ShardWriter, shard_files, whole_file


def rows(start: int, count: int) -> dict[str, torch.Tensor]:
    return {"row": torch.arange(start, start + count), "x": torch.arange(start, start + count)[:, None] * 1.5}


def test_rows_come_back_from_where_they_were_put(tmp_path):
    writer = ShardWriter(tmp_path, "s", 5)
    for start in range(0, 22, 2):
        writer.add(rows(start, 2), group=start % 4)
        assert writer.count < 5, "less than a shard is held between calls"
    writer.close()
    reader, seen = ShardReader(tmp_path), []
    for path in shard_files(tmp_path, "s"):
        for offset, row in enumerate(load_file(path)["row"].tolist()):
            assert reader.row(path.name, offset)["x"].tolist() == [row * 1.5]
            seen.append(row)
        groups = {row // 2 * 2 % 4 for row in seen[-(offset + 1) :]}
        assert len(groups) == 1, "groups do not share a shard: their shapes may differ"
    assert sorted(seen) == list(range(22))


def test_numbering_goes_on_after_what_is_there(tmp_path):
    for start in (0, 3):
        writer = ShardWriter(tmp_path, "s", 3)
        writer.add(rows(start, 3))
        writer.close()
    assert [load_file(path)["row"].tolist() for path in shard_files(tmp_path, "s")] == [[0, 1, 2], [3, 4, 5]]


def test_a_row_is_read_without_reading_its_shard(tmp_path):
    """256 MB lie mapped; one row of them costs less than a quarter of that."""
    writer = ShardWriter(tmp_path, "s", 64)
    writer.add({"x": torch.zeros(64, 1 << 20)})
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path; from t2ialign.data.cache.shards import ShardReader\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        f"reader, before = ShardReader(Path({str(tmp_path)!r})), peak()\n"
        "assert reader.row('s-000000.safetensors', 40)['x'].sum() == 0\n"
        "sys.exit(peak() - before > 64 * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyError), whole_file(path) as partial:
        partial.write_text("half of the new")
        raise KeyError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_the_system_refusing_to_write_more_is_an_os_error_and_leaves_nothing(tmp_path):
    """A real limit on file size stands in for a full disk: the write itself fails half-way."""
    code = (
        f"import resource, sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "import torch; from pathlib import Path; from t2ialign.data.cache.shards import ShardWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"writer = ShardWriter(Path({str(tmp_path)!r}), 's', 4)\n"
        "writer.add({'x': torch.zeros(4, 100)})\n"
        "try:\n    writer.add({'x': torch.zeros(4, 100_000)})\n"
        "except OSError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "s-000001.safetensors" in done.stdout and "free disk space" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["hashes.jsonl", "s-000000.safetensors"]
