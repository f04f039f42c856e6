"""t2ialign score: images in, a table out, whatever their kind and whatever stops the run in between."""

import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from t2ialign.cli import main as cli
from t2ialign.scoring import output
from tests.scoring.images import Counting, folder, plain, png, reds, tar

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
RED, MATCH = "tests.scoring.images:build_redness", "tests.scoring.images:build_match"
BROKEN = 3


def score(source: object, output: object, *more: str, rewards: str = f"{RED},{MATCH}") -> int:
    return cli.main(["score", str(source), "--rewards", rewards, "-o", str(output), "--workers", "0", *more])


def rows(path: Path) -> list[dict]:
    found: list[dict] = output.read(path).to_pylist()
    return found


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert cli.main(["score", *argv]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_help_imports_neither_torch_nor_diffusers():
    code = (
        "import sys\nfrom t2ialign.cli.main import main\n"
        "try:\n    main(['score', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'diffusers', 'numpy', 'pyarrow', 'PIL', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--prompts-from-names" in done.stdout


@pytest.mark.parametrize("suffix", output.SUFFIXES)
def test_from_a_folder_to_a_table(tmp_path, suffix, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)  # where the bar shows how fast it is
    reds(tmp_path / "i", 9)
    assert score(tmp_path / "i", tmp_path / f"s{suffix}", "--batch-size", "4") == 0
    found = rows(tmp_path / f"s{suffix}")
    assert [row["file"] for row in found] == [f"{i:03d}.png" for i in range(9)]
    assert [row[RED] for row in found] == pytest.approx([i / 255 for i in range(9)])
    assert all(row[MATCH] == pytest.approx(1, abs=1e-3) for row in found[1:]), "red images and red prompts"
    out = capsys.readouterr()
    assert "9 rows in" in out.out and "mean" in out.out and "image/s" in out.err


def test_a_mapping_and_a_gallery(tmp_path):
    reds(tmp_path / "i", 4)
    (tmp_path / "p.jsonl").write_text(
        "".join(f'{{"file": "00{i}.png", "prompt": "blue"}}\n' for i in range(4))
    )
    page = tmp_path / "g.html"
    more = ("--prompts", str(tmp_path / "p.jsonl"), "--html", str(page), "--top", "1")
    assert score(tmp_path / "i", tmp_path / "s.csv", *more) == 0
    assert all(row["prompt"] == "blue" and row[MATCH] < 0.01 for row in rows(tmp_path / "s.csv")[1:])
    assert 2 <= page.read_text().count("<figure") <= 4


def test_broken_images_become_error_rows_and_exit_code_3(tmp_path, capsys):
    reds(tmp_path / "i", 6)
    whole = (tmp_path / "i" / "001.png").read_bytes()
    (tmp_path / "i" / "001.png").write_bytes(b"")
    (tmp_path / "i" / "003.png").write_bytes(whole[:40])
    assert score(tmp_path / "i", tmp_path / "s.parquet") == BROKEN
    found = rows(tmp_path / "s.parquet")
    assert [row["row"] for row in found if row["error"]] == [1, 3]
    assert all((row[RED] is None) == (row["error"] is not None) for row in found)
    out = capsys.readouterr().out
    assert "2 of 6 rows could not be scored" in out and "zero bytes" in out

    (tmp_path / "i" / "001.png").write_bytes(whole)
    (tmp_path / "i" / "003.png").write_bytes(whole)
    assert score(tmp_path / "i", tmp_path / "s.parquet", "--resume", "latest") == 0
    assert [row["error"] for row in rows(tmp_path / "s.parquet")] == [None] * 6


COUNTING = "tests.scoring.images:Counting"


@pytest.fixture(autouse=True)
def fresh():
    Counting.seen, Counting.stop_at = 0, None


def test_a_stopped_run_goes_on_where_it_was(tmp_path, capsys):
    reds(tmp_path / "i", 20)
    Counting.stop_at = 8
    args = (tmp_path / "i", tmp_path / "s.csv", "--batch-size", "4")
    assert score(*args, rewards=COUNTING) == 130
    assert not (tmp_path / "s.csv").exists()
    Counting.stop_at = None
    assert "from an earlier run; expected none" in fails(
        capsys, str(args[0]), "--rewards", COUNTING, "-o", str(args[1])
    )
    assert score(*args, "--resume", "latest", rewards=COUNTING) == 0
    assert Counting.seen <= 24, "at most the batch in flight is scored twice"
    assert [row["row"] for row in rows(tmp_path / "s.csv")] == list(range(20))
    assert score(*args, "--resume", "latest", rewards=COUNTING) == 0
    assert Counting.seen <= 24, "nothing is left to do"
    before = Counting.seen
    folder(tmp_path / "i", {name: (plain(99, size=(30, 7)), "new") for name in ("000a.png", "019.png")})
    (tmp_path / "i" / "005.png").unlink()
    assert score(*args, "--resume", "latest", rewards=COUNTING) == 0
    assert Counting.seen - before == 2, "one image more, and one that was replaced"
    found = rows(tmp_path / "s.csv")
    assert [row["row"] for row in found] == list(range(20)) and found[1]["file"] == "000a.png"
    assert [row["file"] for row in found if row[COUNTING] == pytest.approx(99 / 255)] == [
        "000a.png",
        "019.png",
    ]


KILLER = """
import os, signal
from t2ialign.scoring import journal
from tests.scoring.images import Redness

journal.EVERY = 0.0

class Killer(Redness):
    def score(self, images, prompts):
        if len(self.batches) == int(os.environ.get("KILL_AFTER", "-1")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(images, prompts)

def build():
    return Killer()
"""


@pytest.mark.rest
def test_sigkill_loses_no_row_and_doubles_none(tmp_path, monkeypatch):
    """With a decoding process, in a process of its own; then the end of the journal is torn too."""
    reds(tmp_path / "i", 30)
    (tmp_path / "package_for_test").mkdir()
    (tmp_path / "package_for_test" / "killer.py").write_text(KILLER)
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "t2ialign", "score", str(tmp_path / "i")]
    command += ["--rewards", "package_for_test.killer", "-o", str(tmp_path / "s.jsonl")]
    command += ["--batch-size", "4", "--workers", "1", "--resume", "latest"]
    environment = {**os.environ, "PYTHONPATH": path}
    killed = subprocess.run(command, env={**environment, "KILL_AFTER": "4"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    book = tmp_path / "s.jsonl.journal.jsonl"
    there = book.read_bytes()
    assert 1 < there.count(b"\n") < 31 and not (tmp_path / "s.jsonl").exists()
    book.write_bytes(there + there.splitlines()[1][:33])
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(command[3:]) == 0
    found = rows(tmp_path / "s.jsonl")
    assert [row["row"] for row in found] == list(range(30))
    assert [row["package_for_test.killer"] for row in found] == pytest.approx([i / 255 for i in range(30)])


def test_processes_write_parts_that_one_command_joins(tmp_path, monkeypatch, capsys):
    reds(tmp_path / "i", 7)
    (tmp_path / "i" / "004.png").write_bytes(b"")
    assert score(tmp_path / "i", tmp_path / "one.csv") == BROKEN
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert score(tmp_path / "i", tmp_path / "s.csv") == 0, "another code would stop the other processes"
    assert "--merge" in capsys.readouterr().out
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    merge = [
        "--merge",
        str(tmp_path / "s.rank*.csv"),
        "-o",
        str(tmp_path / "s.csv"),
        "--html",
        str(tmp_path / "g.html"),
    ]
    assert cli.main(["score", str(tmp_path / "i"), *merge]) == BROKEN
    assert output.read(tmp_path / "s.csv").equals(output.read(tmp_path / "one.csv"))
    assert "<figure" in (tmp_path / "g.html").read_text()
    assert (
        cli.main(
            ["score", "--merge", *map(str, tmp_path.glob("s.rank*.csv")), "-o", str(tmp_path / "t.parquet")]
        )
        == 3
    )


@pytest.mark.rest
def test_two_processes_through_accelerate_launch(tmp_path):
    for shard in range(2):
        members = {f"{i}.png": png(plain(10 * shard + i)) for i in range(5)}
        tar(tmp_path / f"{shard}.tar", {**members, "bad.png": b"junk"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [
        "--multi_gpu",
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
    ]
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, f"--main_process_port={port}"]
    command += [str(ROOT / "scripts" / "score.py"), str(tmp_path), "--prompts", "red", "--rewards", MATCH]
    command += ["-o", str(tmp_path / "out" / "s.parquet"), "--workers", "0"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "out").glob("*.parquet"))
    assert [path.name for path in found] == ["s.rank0-of-2.parquet", "s.rank1-of-2.parquet"]
    assert [{row["shard"] for row in rows(path)} for path in found] == [{0}, {1}]
    assert cli.main(["score", "--merge", *map(str, found), "-o", str(tmp_path / "s.parquet")]) == BROKEN
    assert [row["row"] for row in rows(tmp_path / "s.parquet")] == [*range(6), *range(6)]


def test_an_output_that_the_next_run_would_read_is_refused(tmp_path, capsys):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": png(plain(7)), "path": None}], kind)
    pq.write_table(pa.table({"image": images, "prompt": ["red"]}), tmp_path / "0.parquet")
    line = fails(capsys, str(tmp_path), "--rewards", RED, "-o", str(tmp_path / "s.parquet"))
    assert "among the shards of" in line
    assert score(tmp_path, tmp_path / "s.csv") == 0
    assert [(row["file"], row[RED]) for row in rows(tmp_path / "s.csv")] == [
        ("0.parquet#0", pytest.approx(7 / 255))
    ]
    (tmp_path / "s.csv.journal.jsonl").unlink()
    line = fails(capsys, str(tmp_path), "--rewards", RED, "-o", str(tmp_path / "s.csv"), "--resume", "latest")
    assert "without s.csv.journal.jsonl" in line


def test_options_reach_their_reward(tmp_path, capsys):
    reds(tmp_path / "i", 2)
    assert (
        score(
            tmp_path / "i",
            tmp_path / "s.csv",
            "--option",
            "toy-clip:path=toy-clip-b",
            rewards="toy-clip",
        )
        == 0
    )
    assert score(tmp_path / "i", tmp_path / "t.csv", rewards="toy-clip-b") == 0
    assert [r["toy-clip"] for r in rows(tmp_path / "s.csv")] == [
        r["toy-clip-b"] for r in rows(tmp_path / "t.csv")
    ]
    line = fails(
        capsys, str(tmp_path / "i"), "--rewards", RED, "-o", str(tmp_path / "u.csv"), "--option", "x=1"
    )
    assert "expected REWARD:KEY=VALUE" in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{i}", "--rewards", "contrast"], "got no --output; expected the table to write; add -o scores.csv"),
        (["{i}", "-o", "{tmp}/s.csv"], "got no --rewards"),
        (["--rewards", "contrast", "-o", "{tmp}/s.csv"], "got no source"),
        (
            ["{i}", "--rewards", "contrast", "-o", "{tmp}/s.txt"],
            "expected an ending of .parquet, .csv, .jsonl",
        ),
        (["{i}", "--rewards", "contrastt", "-o", "{tmp}/s.csv"], "got reward 'contrastt'"),
        (["{i}", "--rewards", ",", "-o", "{tmp}/s.csv"], "got no name in --rewards"),
        (["{i}", "--rewards", RED, "-o", "{tmp}/s.csv", "--batch-size", "0"], "got --batch-size 0"),
        (["{i}", "--rewards", RED, "-o", "{tmp}/s.csv", "--device", "tpu-x"], "got --device tpu-x"),
        (["{tmp}/none", "--rewards", RED, "-o", "{tmp}/s.csv"], "does not exist"),
        (["--merge", "{tmp}/s.rank*.csv", "-o", "{tmp}/s.csv"], "which fits no file"),
        (
            ["{bare}", "--rewards", MATCH, "-o", "{tmp}/s.csv"],
            "got no prompt for any of the first 1 images",
        ),
    ],
)
def test_user_errors_are_one_line_and_leave_no_table(tmp_path, argv, message, capsys):
    reds(tmp_path / "i", 1)
    folder(tmp_path / "bare", {"x.png": (plain(1), None)})
    places = {"i": tmp_path / "i", "bare": tmp_path / "bare", "tmp": tmp_path}
    assert message in fails(capsys, *(item.format(**places) for item in argv))
    assert not list(tmp_path.glob("s.*[!l]"))


BAD = {
    "cut.jpg": "truncated",
    "cut.webp": "",
    "empty.png": "zero bytes",
    "page.png": "no known image format",
    "bomb.png": "decompression bomb",
}


def real_images() -> dict[str, bytes]:
    """Every image file of the shared data, and broken ones made of them."""
    endings = {".jpg", ".jpeg", ".png", ".webp", ".gif"}
    found = {
        str(p.relative_to(DATA)): p.read_bytes()
        for p in sorted(DATA.rglob("*"))
        if p.suffix.lower() in endings
    }
    jpg, webp = (
        next(data for name, data in found.items() if name.endswith(end)) for end in (".jpg", ".webp")
    )
    for name, mode in (
        ("palette.png", "P"),
        ("grey_alpha.png", "LA"),
        ("one_bit.png", "1"),
        ("alpha.webp", "RGBA"),
    ):
        stream = io.BytesIO()
        Image.open(io.BytesIO(jpg)).convert("RGBA").convert(mode).save(stream, Path(name).suffix[1:])
        found[name] = stream.getvalue()
    stream = io.BytesIO()
    Image.new("1", (14_000, 7_000)).save(stream, "png")
    bad = (jpg[: len(jpg) // 2], webp[: len(webp) // 2], b"", b"<html></html>", stream.getvalue())
    return found | dict(zip(BAD, bad, strict=True))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no images in {DATA}; set T2IALIGN_DATA")
def test_real_images_of_every_kind_go_through_one_run(tmp_path, capsys):
    """JPEG, WebP, PNG with alpha, palette, grey and one bit, emoji out of their .tar.gz, and broken files."""
    found = real_images()
    (tmp_path / "in").mkdir()
    tar(tmp_path / "in" / "a.tar", found)
    with tarfile.open(DATA / "images/noto-emoji/png32.tar.gz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        emoji = {name: file.read() for name, file in list(files.items())[::10] if file is not None}
    tar(tmp_path / "in" / "emoji.tar.gz", emoji, "w:gz")
    more = ("--prompts-from-names", "--workers", "2", "--html", str(tmp_path / "g.html"), "--top", "6")
    rewards = "toy-clip,contrast,jpeg-compressibility"
    assert score(tmp_path / "in", tmp_path / "s.parquet", *more, rewards=rewards) == BROKEN
    table = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert len(table) == len(found) + len(emoji) > 300
    errors = {Path(row["file"]).name: row["error"] for row in table if row["error"]}
    assert set(errors) == set(BAD)
    assert all(reason in errors[name] for name, reason in BAD.items())
    for row in table:
        numbers = [row[name] for name in rewards.split(",")]
        assert all(n is None for n in numbers) if row["error"] else all(isinstance(n, float) for n in numbers)
    whole = [row for row in table if not row["error"]]
    assert all(-1 <= row["toy-clip"] <= 1 and 0 <= row["contrast"] <= 0.5 for row in whole)
    assert f"5 of {len(table)} rows could not be scored" in capsys.readouterr().out
    assert (tmp_path / "g.html").read_text().count("<figure") >= 6


def test_a_reward_of_the_users_that_writes_into_images_changes_no_other_score(tmp_path):
    folder(tmp_path / "in", {f"{n}.png": (plain(60 * n), "p") for n in range(4)})
    code = tmp_path / "spoiler.py"
    code.write_text(
        "from rewards import Reward\n\n\nclass Spoiler(Reward):\n    def score(self, images, prompts):\n"
        "        images.numpy()[:] = 1\n        return images.mean((1, 2, 3))\n",
        encoding="utf-8",
    )
    assert score(tmp_path / "in", tmp_path / "alone.jsonl", rewards="saturation") == 0
    both = f"{code}:Spoiler,saturation"
    assert score(tmp_path / "in", tmp_path / "both.jsonl", rewards=both) == 0
    alone, together = (
        [row["saturation"] for row in rows(tmp_path / name)] for name in ("alone.jsonl", "both.jsonl")
    )
    assert alone == together and len(alone) == 4 and max(alone) > 0.1


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("saturation:scale=[a", "with a value that is not YAML"),
        ("saturation:scale=abc", "got scale='abc' for saturation; expected float"),
        ("saturation:scale=!!bool x", "with a value that is not YAML"),
        ("saturation:statistic=5", "expected str"),
        ("saturation:scale={a: 1}", "expected float"),
        (f"saturation:scale={'[' * 5000}", "with a value that is not YAML (it is nested too deeply)"),
    ],
)
def test_an_option_of_the_wrong_kind_is_one_line(tmp_path, capsys, option, text):
    folder(tmp_path / "in", {"a.png": (plain(9), "p")})
    arguments = (str(tmp_path / "in"), "--rewards", "saturation", "-o", str(tmp_path / "o.jsonl"))
    line = fails(capsys, *arguments, "--option", option)
    assert text in line and len(line) < 1100
