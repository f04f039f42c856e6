"""Hostile images: each one gets a score, a row with an error or a named skip, and none harms the others."""

import json
import os
import warnings
from pathlib import Path
from random import Random

from PIL import Image

from t2ialign.scoring.output import text as shown
from tests.soak.judge import close, faults, hostile
from tests.soak.mutants import whole
from tests.soak.odd_files import CAPTIONS, mutants, no_files
from tests.soak.runs import Run
from tests.soak.world import World

ODD = [
    None,
    True,
    1e400,
    -1,
    [],
    {},
    {"bytes": None},
    {"path": ["x"]},
    [["x"]],
    "",
    "\0",
    "a\0.png",
    "\ud800",
]
ODD += ["/dev/zero", "/dev/stdin", "/proc/self/mem", "/etc/passwd", "/", "..", "x" * 5000, "file:///dev/zero"]
ODD += ["http://[::1", "ftp://x/y.png", "javascript:x", "data:image/png;base64,!", "http://127.0.0.1:9/x.png"]
"""What a cell that should name an image may hold."""
SCORES = ("saturation", "toy-clip")


class Images:
    """Tries of one folder, one table or one set of pairs of mutants."""

    def __init__(self, world: World) -> None:
        self.world, self.good = world, whole()
        folder = world.root / "whole" / "images"
        self._write_good(folder / "in")
        run = world.must(folder, *self._words("in", "0", "0.html"))
        self.known = {Path(row["file"]).name: row for row in _rows(folder)}
        wrong = [name for name in self.good if self.known[name]["error"]]
        assert len(self.known) == len(self.good) and not wrong, f"{wrong}: {run.text}"
        self.scripts = (folder / "0.html").read_text(encoding="utf-8").count("<script")

    def attempt(self, rng: Random, folder: Path) -> tuple[int, list[str]]:
        """One run over many files -> how many of them, and the faults."""
        return rng.choice((self._folder, self._folder, self._table, self._pairs))(rng, folder)

    def _words(self, source: str, workers: str, page: str) -> list[str]:
        words = f"score {source} --rewards {','.join(SCORES)} -o out.jsonl --workers {workers} --html {page}"
        return words.split()

    def _write_good(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, data in self.good.items():
            (folder / name).write_bytes(data)
            (folder / name).with_suffix(".txt").write_text("a red circle", encoding="utf-8")

    def _folder(self, rng: Random, folder: Path) -> tuple[int, list[str]]:
        self._write_good(folder / "in" / "good")
        names = {
            f"bad/{name}": may
            for name, may in mutants(rng, folder / "in" / "bad", str(self.world.canary)).items()
        }
        names |= dict.fromkeys(no_files(folder / "in" / "odd"), False)
        run = Run(self._words("in", rng.choice("002"), "page.html"), folder).wait()
        wrong = [*faults(run, 3)]
        if run.code != 3:
            return len(names), [*wrong, f"exit code {run.code} with images that are none"]
        rows = {row["file"]: row for row in _rows(folder)}
        wrong += [f"{name!r} is lost" for name in names if shown(name) not in rows]
        for name, may in names.items():
            row = rows.get(str(shown(name)), {"error": "lost"})
            if row["error"] is None and not (may and _opens(folder / "in" / name)):
                wrong.append(f"{name!r} is no image and has a score")
        kinds = ("device or pipe", "link loop")
        wrong += [f"no word on what is a {kind}" for kind in kinds if kind not in run.text]
        return len(names), [*wrong, *self._neighbours(rows), *self._page(folder)]

    def _neighbours(self, rows: dict[str, dict]) -> list[str]:
        """What is whole is scored as if it were alone."""
        there = {Path(name).name: row for name, row in rows.items() if name.startswith("good/")}
        return [
            f"a whole image, {name}, lost its score among others"
            for name in self.good
            if name not in there or not close(*({k: r[name][k] for k in SCORES} for r in (self.known, there)))
        ]

    def _page(self, folder: Path) -> list[str]:
        html = (folder / "page.html").read_text(encoding="utf-8")
        return [f"page.html would run {what}" for what in hostile(html, scripts=self.scripts)]

    def _table(self, rng: Random, folder: Path) -> tuple[int, list[str]]:
        """A table whose cells are anything: as many rows come out as went in."""
        self._write_good(folder / "good")
        os.mkfifo(folder / "pipe.png")
        values = [*ODD, "pipe.png", "good", *(f"good/{name}" for name in self.good)]
        prompts: list[object] = [None, 3, [], {}, "\ud800", *CAPTIONS[:1] * 5, *CAPTIONS]
        rows = [{"image": rng.choice(values), "prompt": rng.choice(prompts)} for _ in range(60)]
        rows.append({"image": f"good/{next(iter(self.good))}", "prompt": "a red circle"})
        (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        run = Run(self._words("t.jsonl", rng.choice("002"), "page.html"), folder).wait()
        wrong = [*faults(run, 3)]
        if run.code == 3:
            found = [row["row"] for row in _rows(folder)]
            wrong += [] if sorted(found) == list(range(len(rows))) else [f"{len(found)} of {len(rows)} rows"]
            wrong += self._page(folder)
        return len(rows), wrong

    def _pairs(self, rng: Random, folder: Path) -> tuple[int, list[str]]:
        """Pairs of mutants: what is skipped is counted, and whole pairs are never among it."""
        self._write_good(folder / "good")
        bad = [f"bad/{name}" for name in list(mutants(rng, folder / "bad", str(self.world.canary)))[:30]]
        good = [f"good/{name}" for name in self.good]
        rows = [{"prompt": f"{i}", "chosen": bad[i], "rejected": rng.choice(good)} for i in range(len(bad))]
        rows += [{"prompt": f"good {i}", "chosen": good[i], "rejected": good[-1 - i]} for i in range(6)]
        (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        if rng.random() < 0.3:
            words = "train dpo data=p.jsonl model=toy output=out max_steps=1 batch_size=2 accumulate=1"
            run = Run(f"{words} lora_rank=2 unreadable=skip trackers=[]".split(), folder).wait()
            return len(bad), [*faults(run, 0), *([] if run.code == 0 else [f"exit code {run.code}"])]
        words = "filter p.jsonl --rewards saturation grid toy-clip -o out.jsonl --floor -9 -9 -9"
        run = Run(f"{words} --unreadable skip".split(), folder).wait()
        wrong = [*faults(run, 0)]
        if run.code == 0:
            prompts = {json.loads(line)["prompt"] for line in (folder / "out.jsonl").open(encoding="utf-8")}
            wrong += [f"the pair good {i} was left out" for i in range(6) if f"good {i}" not in prompts]
        return len(bad), wrong or ([] if run.code == 0 else [f"exit code {run.code}"])


def _rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "out.jsonl").open(encoding="utf-8")]


def _opens(file: Path) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            if image.width * image.height < 10**7:
                image.load()
            return image.format not in ("EPS", "WMF", "PDF")
    except Exception:
        return False
