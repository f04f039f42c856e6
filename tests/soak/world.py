"""What the commands of the soak work on: images, prompts and pairs, made once by the toolkit itself."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

from tests.soak.runs import Run

COLOURS = ("red", "blue", "green", "yellow", "purple")
SHAPES = ("circle", "square", "triangle")
PROMPTS = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]


class World:
    """Folders with fixed names under a root; `canary` must never appear."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.canary = root / "CODE-RAN"
        self.samples, self.prompts, self.pairs = root / "samples", root / "prompts.txt", root / "pairs.jsonl"
        self.many = root / "many.txt"
        self._images()
        self.prompts.write_text("".join(f"{prompt}\n" for prompt in PROMPTS), encoding="utf-8")
        many = "".join(f"a {c} {s}, number {i} of nine\n" for i in range(40) for c in COLOURS for s in SHAPES)
        self.many.write_text(many, encoding="utf-8")
        rows = [
            {"prompt": prompt, "chosen": self._image(i), "rejected": self._image((i + 4) % len(PROMPTS))}
            for i, prompt in enumerate(PROMPTS)
        ]
        self.pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def _images(self) -> None:
        self.samples.mkdir()
        for i, prompt in enumerate(PROMPTS):
            image = Image.new("RGB", (32, 32), "white")
            ImageDraw.Draw(image).ellipse([2 + i, 6, 14 + i, 18], fill=prompt.split()[1])
            image.save(self._image(i))
            Path(self._image(i)).with_suffix(".txt").write_text(prompt, encoding="utf-8")

    def _image(self, number: int) -> str:
        return str(self.samples / f"{number:05d}.png")

    def must(self, folder: Path, *words: str) -> Run:
        """A command that has to succeed before anything can be tried."""
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(words, folder).wait()
        assert run.code == 0, f"{' '.join(words)} gave {run.code}: {run.text[-2000:]}"
        return run
