"""Folders of mutated images under odd names, with odd captions, and of what is no file at all."""

import os
import socket
from pathlib import Path
from random import Random

from tests.soak.mutants import MUTATIONS, no_images, png, whole

COUNT = 150
"""Mutants in a folder."""
STEMS = ("a\nb", "\u202egnp", "\udcff\udc80", "-rf", "%s{x}", "<script>pwn()<", "\"'`$(touch x)", "x" * 240)
CAPTIONS = ("a red circle", "", "\0", "<script>pwn()</script>\u2028\udcff", "x " * 5000, "\ufeff{{x}}")


def mutants(rng: Random, folder: Path, canary: str) -> dict[str, bool]:
    """Write files with captions into a new folder: name -> whether it may be an image."""
    folder.mkdir(parents=True)
    good, names = whole(), {}
    contents = [(data, False) for data in no_images(rng, canary)]
    for _ in range(COUNT):
        data = rng.choice(list(good.values()))
        for _ in range(rng.choice((1, 1, 2))):
            data = rng.choice(MUTATIONS)(rng, data or b"x")
        contents.append((data, True))
    if rng.random() < 0.3:
        side = rng.randint(3000, 9400)
        contents.append((png(side, side, rows=side), True))
    for number, (data, may) in enumerate(contents):
        stem = rng.choice(STEMS) if rng.random() < 0.2 else "m"
        name = f"{number}{stem}".replace("/", "_")[:240] + Path(rng.choice(list(good))).suffix
        (folder / name).write_bytes(data)
        caption = rng.choice(CAPTIONS).encode("utf-8", "surrogatepass")
        (folder / name).with_suffix(".txt").write_bytes(caption)
        names[name] = may
    return names


def no_files(folder: Path) -> list[str]:
    """Pipes, sockets, links and folders -> the names of those that need a row."""
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket has to be short
        server.bind("socket.png")
        os.chdir(here)
    for name, target in (("zero.png", "/dev/zero"), ("to-pipe.png", "pipe.png"), ("up", "..")):
        (folder / name).symlink_to(target)
    (folder / "folder.png").mkdir()
    for name, target in (("self.png", "self.png"), ("nowhere.png", "nothing.png")):
        (folder / name).symlink_to(target)
    return [f"odd/{name}" for name in ("self.png", "nowhere.png")]
