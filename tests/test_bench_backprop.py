"""The script that times truncation, small: which rows come out and what it counts; never how fast."""

import json

import pytest

from scripts import bench_backprop

pytestmark = pytest.mark.rest


def test_every_row_comes_out_and_memory_is_counted(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert (
        bench_backprop.main(
            [
                "--device",
                "cpu",
                "--steps",
                "4",
                "--rows",
                "1",
                "--repeats",
                "1",
                "-o",
                str(file),
            ]
        )
        == 0
    )
    rows = {row["figure"]: row for row in json.loads(file.read_text())["rows"]}
    assert len(rows) == 7 and "full back-propagation / K = 1" in capsys.readouterr().out
    kept = {name.split(": ")[1]: row["value"] for name, row in rows.items() if "megabytes" in name}
    assert kept["last"] < kept["uniform"] < kept["full"] == pytest.approx(kept["thrown"], rel=1e-3)
    for name in ("full back-propagation / K = 1", "recorded and thrown away / K = 1"):
        assert rows[name]["low"] <= rows[name]["value"] <= rows[name]["high"]
