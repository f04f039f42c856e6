"""The same job on Ray: the rows of the plain run, from two workers, and going on with its journal."""

import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from t2ialign.cli import main as cli
from t2ialign.scoring import output
from tests.scoring.images import folder, plain, png, reds, tar

pytestmark = pytest.mark.rest

RED, MATCH = "tests.scoring.images:build_redness", "tests.scoring.images:build_match"
BROKEN = 3
installed = pytest.mark.skipif(
    find_spec("ray") is None, reason="ray is not installed: pip install 't2ialign[ray]'"
)


def score(source: Path, target: Path, *more: str) -> int:
    return cli.main(["score", str(source), "--rewards", f"{RED},{MATCH}", "-o", str(target), *more])


@pytest.fixture(scope="module")
def cluster():
    """A local Ray of four processors: two scoring workers, and room for the tasks that decode."""
    import ray

    before = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)  # Ray leaves its own


def equal(one: Path, two: Path) -> bool:
    """Bit for bit, but for the tail of a float where batches differ."""
    for a, b in zip(output.read(one).to_pylist(), output.read(two).to_pylist(), strict=True):
        assert a == pytest.approx(b, abs=1e-6)
    return True


@installed
def test_two_workers_give_the_table_of_the_plain_run(cluster, tmp_path):
    for shard in range(3):
        members = {f"{i}.png": png(plain(10 * shard + i, size=(12 + i % 2, 10))) for i in range(9)}
        tar(tmp_path / f"{shard}.tar", {**members, "bad.png": b"junk"})
    more = ("--prompts-from-names", "--batch-size", "4")
    assert score(tmp_path, tmp_path / "plain.csv", *more, "--workers", "0") == BROKEN
    assert score(tmp_path, tmp_path / "ray.csv", *more, "--ray", "2") == BROKEN
    assert len(output.read(tmp_path / "ray.csv")) == 30
    assert equal(tmp_path / "ray.csv", tmp_path / "plain.csv")


@installed
def test_a_run_goes_on_and_scores_only_what_is_missing(cluster, tmp_path):
    reds(tmp_path / "i", 12)
    (tmp_path / "i" / "003.png").write_bytes(b"")
    assert score(tmp_path / "i", tmp_path / "s.csv", "--ray", "2") == BROKEN
    book = tmp_path / "s.csv.journal.jsonl"
    lines = book.read_text().splitlines()
    assert len(lines) == 13
    folder(tmp_path / "i", {"003.png": (plain(3), "red 3"), "012.png": (plain(12), "red 12")})
    assert score(tmp_path / "i", tmp_path / "s.csv", "--ray", "2", "--resume", "latest") == 0
    assert len(book.read_text().splitlines()) == 15, "one mended and one new image"
    assert [row[RED] for row in output.read(tmp_path / "s.csv").to_pylist()] == pytest.approx(
        [i / 255 for i in range(13)]
    )


@installed
def test_a_mistake_is_one_line(cluster, tmp_path, capsys):
    folder(tmp_path / "i", {"a.png": (plain(1), None)})
    assert score(tmp_path / "i", tmp_path / "s.csv", "--ray", "2") == 2
    assert "got no prompt for any of the first 1 images" in capsys.readouterr().err


@installed
def test_a_mistake_that_a_worker_finds_is_one_line_too(cluster, tmp_path, capsys):
    reds(tmp_path / "i", 40)
    command = [
        "score",
        str(tmp_path / "i"),
        "--rewards",
        "tests.scoring.images:Fussy",
        "--prompts",
        "what?",
    ]
    assert cli.main([*command, "-o", str(tmp_path / "s.csv"), "--ray", "2"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("t2ialign: error: got prompt 'what?'; expected none with a question")


def test_without_ray_the_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    reds(tmp_path / "i", 1)
    assert score(tmp_path / "i", tmp_path / "s.csv", "--ray", "2") == 2
    assert "install it with pip install 't2ialign[ray]'" in capsys.readouterr().err
