"""Claims on alignment without image pairs: text preferences, unpaired likes, and pairs that tools label."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

import t2ialign
from scripts.experiments import labelled_pairs, stepwise
from scripts.experiments.claim import Claim, Figure, Row, resumable
from scripts.experiments.estimates import Table, bar_figure, judged
from scripts.experiments.training import RUN, finish, recipe
from t2ialign.evaluation.statistics import Estimate
from t2ialign.io import jsonl

SIDES = "sides.jsonl"
"""A line for each side: {"side", "guidance", "passed", ...}; the first is the base."""
BASE = "base"
UNWATCHED: dict[str, Any] = {"evaluate_every": 10_000, "checkpoint_every": 10_000, "trackers": ()}
TRAINING: Mapping[str, Mapping[str, Any]] = {
    method: recipe(f"{method}_toy", **UNWATCHED) for method in ("dpo", "kto", "sft", "tpo")
}
"""Of the toy recipes; what they watch is left out."""
UNGUARDED: dict[str, Any] = {"guard": "none", "denoising": 0.0}
SHARE = 0.8
"""The share of DPO's gain that unpaired likes are claimed to reach."""
RARE = 0.2
"""The share of liked images where they are few."""
TOOLS = ("toy-clip", "toy-clip-b", "toy-textnorm")


Trainings = Mapping[str, tuple[str, Mapping[str, Any]]]


class Sides(Claim):
    """Several trainings on the same images, each measured at its own best guidance, beside the base."""

    captions: int = 480
    choosing: int = 80
    heldout: int = 240
    sides: ClassVar[Trainings]
    """Name -> the method, and the settings in which it differs from its toy recipe."""
    training: ClassVar[Mapping[str, Mapping[str, Any]]] = TRAINING

    @abstractmethod
    def data(self, folder: Path, seed: int, side: str) -> Path:
        """The file that a side learns from; what is there already is left as it is."""

    def about(self, folder: Path, seed: int, side: str) -> dict[str, Any]:
        """What is told of a side beside its accuracy."""
        return {}

    def measure(self, folder: Path, seed: int) -> None:
        """Train and measure each side."""
        items = [{"side": side} for side in (BASE, *self.sides)]
        resumable(folder / SIDES, items, lambda item: self._side(folder, seed, item["side"]), "sides")

    def _side(self, folder: Path, seed: int, side: str) -> dict[str, Any]:
        lora = None
        if side != BASE:
            method, changes = self.sides[side]
            values = {**self.training[method], **changes, "data": str(self.data(folder, seed, side))}
            lora = folder / side / RUN
            finish(method, values, lora, seed)
        sizes = {"choosing": self.choosing, "heldout": self.heldout}
        return {**stepwise.at_best_guidance(lora, seed, **sizes), **self.about(folder, seed, side)}

    def prompts(self, seed: int) -> list[str]:
        """The captions of training images."""
        return labelled_pairs.distinct_captions(self.captions, 10_000 + seed, held_out=False)

    def table(self, folders: Sequence[Path]) -> Table:
        """Whether the oracle passes each held-out image, a column a side."""
        results = []
        for folder, seed in zip(folders, self.seeds, strict=True):
            lines = {line["side"]: line["passed"] for line in jsonl.read(folder / SIDES)}
            captions = stepwise.held_out_captions(self.heldout, 12_000 + seed, each=1)
            results.append({"prompts": captions, **lines})
        names = (BASE, *self.sides)
        return Table.of(self.seeds, results, lambda result: {name: result[name] for name in names})

    def measured(self, folders: Sequence[Path], table: Table) -> dict[str, Any]:
        """Accuracy of every side, its gain, and what is told beside."""
        told: dict[str, dict[str, list[Any]]] = {}
        for folder in folders:
            for line in jsonl.read(folder / SIDES):
                for key in line.keys() - {"side", "passed"}:
                    told.setdefault(line["side"], {}).setdefault(key, []).append(line[key])
        return {
            BASE: table.mean(BASE),
            "sides": {
                side: {"accuracy": table.mean(side), "gain": table.difference(side, BASE), **told[side]}
                for side in self.sides
            },
            "settings": {
                side: {"method": method, **changes} for side, (method, changes) in self.sides.items()
            },
        }

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """The base beside every side."""
        table = self.table(folders)
        pairs = {side: (table.mean(BASE), table.mean(side)) for side in self.sides}
        return [bar_figure(self.text, pairs, before=BASE, after="trained")]


class TextPreferences(Sides):
    """Renders of captions, and nothing else: no pairs, no verdicts, no reward."""

    text = "TDPO and TKTO raise held-out accuracy from images and their captions alone"
    paper = "arXiv 2509.25771 (rebuilt from summaries)"
    each: int = 2
    sides: ClassVar[Trainings] = {
        "tdpo": ("tpo", {}),
        "tkto": ("tpo", {"loss": "tkto"}),
        "tdpo, clipped": ("tpo", {"guard": "clip"}),
        "tdpo unguarded": ("tpo", UNGUARDED),
        "tkto unguarded": ("tpo", {"loss": "tkto", **UNGUARDED}),
        "sft": ("sft", {}),
    }

    def data(self, folder: Path, seed: int, side: str) -> Path:
        """Renders of the captions, in a table."""
        from t2ialign.toy.render import render

        file = folder / "images.jsonl"
        if not file.exists():
            captions = [caption for caption in self.prompts(seed) for _ in range(self.each)]
            (folder / "images").mkdir(parents=True, exist_ok=True)
            rows = []
            for number, pixels in enumerate(render(captions, seed)):
                name = f"images/{number:04d}.png"
                Image.fromarray(pixels).save(folder / name)
                rows.append({"prompt": captions[number], "image": name})
            jsonl.rewrite(file, rows)
        return file

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """One row: both guarded sides have to gain."""
        table = self.table(folders)
        gains = [table.difference(side, BASE) for side in ("tdpo", "tkto")]
        least = min(gains, key=lambda gain: gain.low)
        return [judged(self.text, self.measured(folders, table), least, least.low > 0)]


class Unpaired(Sides):
    """The images of pairs, winners liked and losers not, beside the pairs themselves."""

    text = (
        f"KTO and BCO reach {100 * SHARE:.0f} % of DPO's gain on the same images without pairs, and gain too "
        f"where {100 * RARE:.0f} % of the images are liked"
    )
    paper = "Li et al. 2024, arXiv 2404.04465; Jung et al. 2024, arXiv 2404.04656"
    samples: int = 4
    sides: ClassVar[Trainings] = {
        "dpo": ("dpo", {}),
        "kto": ("kto", {}),
        "bco": ("kto", {"loss": "bco"}),
        "kto, few liked": ("kto", {}),
        "bco, few liked": ("kto", {"loss": "bco"}),
        "sft": ("sft", {}),
    }

    def data(self, folder: Path, seed: int, side: str) -> Path:
        """Pairs of the base's samples by the oracle, or their images as likes of which few are liked."""
        pairs = labelled_pairs.sampled(
            folder / "samples", self.prompts(seed), self.samples, first_seed=20_000_000 + 100_000 * seed
        )
        if "few" not in side:
            return pairs
        likes = folder / "few.jsonl"
        if not likes.exists():
            jsonl.rewrite(likes, few_liked(jsonl.read(pairs), seed))
        return likes

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """One row: shares of DPO's gain, and the gains of the sides with few liked images."""
        table = self.table(folders)
        gains = {side: table.difference(side, BASE) for side in self.sides}
        shares = {side: gains[side].mean / gains["dpo"].mean for side in ("kto", "bco")}
        few = [gain for side, gain in gains.items() if "few" in side]
        least: Estimate = min(few, key=lambda gain: gain.low)
        holds = gains["dpo"].low > 0 and min(shares.values()) >= SHARE and least.low > 0
        return [judged(self.text, {**self.measured(folders, table), "share": shares}, least, holds)]


def few_liked(pairs: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The images of pairs as likes, liked ones left out until they are `RARE` of all."""
    sides = (("chosen", True), ("rejected", False))
    images = {(pair["prompt"], pair[side]): liked for pair in pairs for side, liked in sides}
    rows = [{"prompt": prompt, "image": image, "liked": liked} for (prompt, image), liked in images.items()]
    liked, others = ([row for row in rows if row["liked"] is one] for one in (True, False))
    count = min(len(liked), round(len(others) * RARE / (1 - RARE)))
    return random.Random(seed).sample(liked, count) + others


class Panel(Sides):
    """The same samples, paired by one reward, and by three that have to agree."""

    text = (
        "Pairs on which three tools agree are right more often than those of one reward, and teach DPO more"
    )
    paper = "Anyprefer, arXiv 2504.19276 (the idea of a panel)"
    samples: int = 6
    tools: tuple[str, ...] = TOOLS
    sides: ClassVar[Trainings] = {"one reward": ("dpo", {}), "panel": ("dpo", {})}

    def data(self, folder: Path, seed: int, side: str) -> Path:
        """Pairs by the first tool, or by all of them."""
        file = folder / f"{side.replace(' ', '_')}.jsonl"
        if not file.exists():
            options = {"num_images_per_prompt": self.samples, **labelled_pairs.SAMPLER}
            folder.mkdir(parents=True, exist_ok=True)
            place = folder / "samples"
            first = 30_000_000 + 100_000 * seed
            t2ialign.sample(
                "toy", self.prompts(seed), output=place, seed=first, resume=place.exists(), **options
            )
            tools = self.tools if side == "panel" else self.tools[:1]
            report = file.with_suffix(".json")
            t2ialign.make_pairs(place, file, rewards=tools, min_agreement=1.0, resume=report.exists())
        return file

    def about(self, folder: Path, seed: int, side: str) -> dict[str, Any]:
        """How many pairs, and of those on which the oracle prefers an image how many it orders so."""
        if side == BASE:
            return {}
        file = self.data(folder, seed, side)
        rows = jsonl.read(file)
        passed = [
            t2ialign.score(
                [file.parent / row[key] for row in rows], "toy-oracle", [r["prompt"] for r in rows]
            )
            for key in ("jpg_0", "jpg_1")
        ]
        gaps = (passed[0]["toy-oracle"] - passed[1]["toy-oracle"]).tolist()
        known = [gap for gap in gaps if gap]
        right = sum(gap > 0 for gap in known) / max(1, len(known))
        return {"pairs": len(rows), "oracle_prefers": len(known), "right": right}

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """One row: the labels' accuracy, and the difference of the two trainings."""
        table = self.table(folders)
        difference = table.difference("panel", "one reward")
        measured = self.measured(folders, table)
        right = {side: measured["sides"][side]["right"] for side in self.sides}
        better = all(a > b for a, b in zip(right["panel"], right["one reward"], strict=True))
        holds = better and difference.low > 0
        return [judged(self.text, {**measured, "panel less one reward": difference}, difference, holds)]


CLAIMS: tuple[Claim, ...] = (TextPreferences(), Unpaired(), Panel())
