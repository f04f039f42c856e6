"""What people use every day asks nothing of the system that only POSIX has: Windows and macOS, by hand.

One process runs train, sample, score and rewrite. In it our packages cannot import the modules that Windows
lacks (a library may, where it finds them), and calls that Windows lacks or refuses are lacking or refused.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [file for package in ("t2ialign", "rewards") for file in sorted((ROOT / package).rglob("*.py"))]
BUILDERS = ("toy",)
"""Folders of what measures claims and builds the toy world, on Linux."""
ABSENT = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
POSIX_ONLY = {
    "os": "chown chroot fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpriority getuid "
    "killpg mkfifo nice openpty posix_fallocate posix_spawn pread pwrite sched_getaffinity setsid statvfs "
    "sync sysconf uname",
    "signal": "SIGALRM SIGCHLD SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2 alarm pause setitimer",
}

CODE = """
import builtins, fcntl, gc, os, shutil, sys

ROOT, ABSENT = {root!r}, {absent!r}
import_, open_, fsync, rmtree = builtins.__import__, os.open, os.fsync, shutil.rmtree

def is_ours(globals):
    return ((globals or {{}}).get("__name__") or "").partition(".")[0] in ("t2ialign", "rewards")

def import_without(name, globals=None, *rest, **options):
    if is_ours(globals) and name.partition(".")[0] in ABSENT:
        raise ModuleNotFoundError("no module on this system: " + name)
    return import_(name, globals, *rest, **options)

def open_no_folder(path, flags, *rest, **options):
    if is_ours(sys._getframe(1).f_globals) and os.path.isdir(path):
        raise PermissionError(13, "Windows opens no folder", str(path))
    return open_(path, flags, *rest, **options)

def fsync_what_is_written(descriptor):
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Windows flushes only what is open for writing")
    fsync(descriptor)

def refuse_if_open(path):
    path = os.path.realpath(path)
    if path.startswith(ROOT):
        with open("/proc/self/maps") as maps:
            held = [line[line.index("/"):].strip() for line in maps if "/" in line]
        for number in os.listdir("/proc/self/fd"):
            link = "/proc/self/fd/" + number
            held += [os.readlink(link)] if os.path.lexists(link) else []
        if any(one == path or one.startswith(path + os.sep) for one in held):
            raise PermissionError(13, "Windows moves and deletes nothing that is open", path)

def careful(real):
    def call(*paths, **options):
        for path in paths if options.get("dir_fd") is None else ():
            refuse_if_open(path)
        return real(*paths, **options)
    return call

def rmtree_carefully(path, *rest, **options):
    refuse_if_open(path)
    rmtree(path, *rest, **options)

builtins.__import__, os.open, os.fsync = import_without, open_no_folder, fsync_what_is_written
shutil.rmtree = rmtree_carefully
for name in ("rename", "replace", "unlink", "remove"):
    setattr(os, name, careful(getattr(os, name)))
for name in ("posix_fallocate", "sched_getaffinity"):
    delattr(os, name)

from t2ialign.cli.main import main

for argv in {commands!r}:
    code = main(argv)
    assert not code, (argv, code)
    gc.collect()  # as the end of a process does, so that no file of this run stays open in the next
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what is open is read from /proc")
def test_train_sample_score_and_rewrite_need_nothing_that_is_posix_only(tmp_path):
    run, images = str(tmp_path / "run"), str(tmp_path / "images")
    settings = """model=toy reward=toy-oracle collect_every=1 collect_prompts=1 rollouts=2 keep=2
        compare=2 timesteps=1 num_inference_steps=2 guidance_scale=1 batch_size=1 lora_rank=2
        checkpoint_every=1 checkpoint_limit=1 trackers=[] validation_prompts=[]"""
    train = ["train", "dense", "prompts=a red circle", f"output={run}", *settings.split()]
    commands = [
        [*train, "max_steps=2"],
        [*train, "max_steps=3", "resume=latest"],
        [
            "sample",
            "a red circle",
            "--lora",
            run,
            "--num-inference-steps",
            "2",
            "-n",
            "2",
            "--output",
            images,
        ],
        ["score", images, "--rewards", "toy-oracle,toy-clip", "--output", str(tmp_path / "scores.csv")],
        ["rewrite", "a crimson ball", "--output", str(tmp_path / "rewritten.jsonl")],
    ]
    code = CODE.format(root=str(tmp_path.resolve()), absent=ABSENT, commands=commands)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 3
    assert (tmp_path / "rewritten.jsonl").is_file()


def nodes(kind: type[ast.AST], files: list[Path] = SOURCES) -> Iterator[tuple[str, str, ast.AST]]:
    """(where it stands, the file's text, node) of one kind."""
    for file in files:
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, kind):
                yield f"{file.relative_to(ROOT)}:{node.lineno}", text, node  # type: ignore[attr-defined]


def test_names_that_only_posix_has_are_asked_for_first():
    found = set()
    for where, text, node in nodes(ast.Attribute):
        module, name = ast.unparse(node.value), node.attr
        if name in POSIX_ONLY.get(module, "").split():
            found.add(name)
            assert f'hasattr({module}, "{name}")' in text, f"{where}: {module}.{name}"
    assert found == {"SIGALRM", "posix_fallocate", "sched_getaffinity", "setitimer"}


def test_text_files_have_a_stated_encoding():
    """Without one Windows takes that of the country."""
    seen = 0
    for where, _, node in nodes(ast.Call, [file for file in SOURCES if file.parent.name not in BUILDERS]):
        call = ast.unparse(node.func)
        opened = call.endswith(".open") and any(f"('{mode}'" in ast.unparse(node) for mode in ("r", "w", "a"))
        if opened or (call.endswith((".read_text", ".write_text")) and not call.startswith("atomic.")):
            seen += 1
            assert "encoding=" in ast.unparse(node), f"{where}: {ast.unparse(node)[:80]}"
    assert seen > 50
