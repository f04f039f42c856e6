"""Users' prompts that the generator does not understand: as they are, after SFT, after SFT and GRPO."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from rewards.keypoints.oracle import shapes_points
from rewards.keypoints.taxonomy import kinds
from scripts.experiments import rewriter_runs as runs
from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.rewriter_pictures import Pictures
from t2ialign.evaluation.provenance import source_hash
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, paired_difference
from t2ialign.io import atomic
from t2ialign.rewriting.parse import parse
from t2ialign.toy.phrasings import HABITS, Phrasing, draw_phrasings
from t2ialign.web.charts import Bar, bars
from t2ialign.web.pages import part

SHARED = "rewriters"
"""Beside the claims: the rewriters of each seed, trained by the first claim to need them."""
RESULT = "pictures.json"
PROMPT, CAPTION, SHUFFLED = "the user's prompt", "canonical caption", "sft+grpo, thoughts shuffled"
SFT, PLAIN, GRPO = "sft", "sft without thought", "sft+grpo"

SHORT = {
    **{PROMPT: "prompt", SFT: "SFT", PLAIN: "no thought", GRPO: "GRPO"},
    **{SHUFFLED: "shuffled", CAPTION: "caption"},
}
"""Ways to say a prompt, as the heads of a table."""


class RewriterClaim(Claim):
    """What claims on the embedded rewriter share: how it is trained, and the prompts held out."""

    paper = "PromptEnhancer, arXiv 2509.04545"
    sizes: runs.Sizes = runs.Sizes()
    sft: ClassVar[dict[str, Any]] = runs.SFT_SETTINGS
    grpo: ClassVar[dict[str, Any]] = runs.GRPO_SETTINGS
    heldout: int = 1000

    def rewriters(self, folder: Path, seed: int, *, plain: bool) -> Path:
        """The folder of this seed's rewriters, trained if they are not there; `folder` is the claim's own.

        Those of other code are left alone. plain: SFT without thought too.
        """
        shared = folder.parents[1] / SHARED / source_hash() / f"seed-{seed}"
        runs.make(shared, seed, self.sizes, self.sft, self.grpo, plain=plain)
        return shared

    def asked(self, seed: int) -> list[Phrasing]:
        """Prompts with a turn of phrase and a word that training never shows together."""
        return draw_phrasings(self.heldout, 3000 + seed, held_out=True)


class RewritingClaim(RewriterClaim):
    """A picture of every held-out prompt and way to say it, from the same noise, judged for what is meant."""

    text = "Oracle accuracy on held-out phrasings: the user's prompt < SFT < SFT+GRPO, intervals apart"
    plain = "SFT with the thought is better than SFT without"
    shuffled = "Giving each prompt the thought of another one lowers accuracy"

    def measure(self, folder: Path, seed: int) -> None:
        """Train the rewriters, write every held-out prompt with each, render and judge."""
        if (folder / RESULT).exists():
            return
        rewriters, asked = self.rewriters(folder, seed, plain=True), self.asked(seed)
        prompts = [phrasing.prompt for phrasing in asked]
        outputs = {
            SFT: runs.written(rewriters / runs.SFT, prompts),
            PLAIN: runs.written(rewriters / runs.PLAIN, prompts),
            GRPO: runs.written(rewriters / runs.GRPO, prompts),
        }
        thoughts = [parse(output, "").thought for output in outputs[GRPO]]
        outputs[SHUFFLED] = runs.with_thoughts(rewriters / runs.GRPO, prompts, [*thoughts[1:], thoughts[0]])
        texts = {PROMPT: prompts, CAPTION: [phrasing.caption for phrasing in asked]} | {
            name: [parse(output, prompt).answer for output, prompt in zip(each, prompts, strict=True)]
            for name, each in outputs.items()
        }
        fallbacks = {
            name: sum(parse(output, "").fallback is not None for output in each) / len(each)
            for name, each in outputs.items()
        }
        pictures = Pictures([phrasing.caption for phrasing in asked], first_seed=4_000_000 + 10_000 * seed)
        matches = {name: pictures.matches(each) for name, each in texts.items()}
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(
            folder / RESULT,
            {
                "captions": [phrasing.caption for phrasing in asked],
                "tempting": [_is_tempting(phrasing) for phrasing in asked],
                "texts": texts,
                "matches": matches,
                "fallbacks": fallbacks,
            },
        )

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Three rows over the pictures of all seeds."""
        found = [runs.read_json(folder / RESULT) for folder in folders]
        units, right = units_of(found), _right(found)
        tempting = [one for each in found for one in each["tempting"]]
        each = {name: bootstrap_ci(values, units) for name, values in right.items()}
        steps = [each[name] for name in (PROMPT, SFT, GRPO)]
        gain = paired_difference(right[GRPO], right[SFT], units)
        measured = {
            "oracle_accuracy": {name: estimate.to_json() for name, estimate in each.items()},
            "key_point_accuracy": {
                name: _mean_match([one["matches"][name] for one in found], units).to_json() for name in right
            },
            "by_key_point": {
                kind: {name: estimate.to_json() for name, estimate in ways.items()}
                for kind, ways in _by_kind(found).items()
            },
            "same_text_as_the_caption": {name: _same(found, name) for name in right},
            "fallbacks": [one["fallbacks"] for one in found],
            "gain_of_grpo": gain.to_json(),
            "gain_of_grpo_by_seed": [_gain_of(one).to_json() for one in found],
            "teacher_misreads": self.sizes.misread,
            "where_the_teacher_misreads": _part(right, units, tempting, True),
            "elsewhere": _part(right, units, tempting, False),
        }
        thought = paired_difference(right[SFT], right[PLAIN], units)
        shuffled = paired_difference(right[SHUFFLED], right[GRPO], units)
        apart = all(low.high < high.low for low, high in pairwise(steps))
        return [
            Row(self.text, measured, (gain.low, gain.high), apart),
            Row(self.plain, {"difference": thought.to_json()}, (thought.low, thought.high), thought.low > 0),
            Row(
                self.shuffled,
                {"difference": shuffled.to_json()},
                (shuffled.low, shuffled.high),
                shuffled.high < 0,
            ),
        ]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Accuracy of all and of each key point: bars of the prompt and of the best rewriter, and a table."""
        found = [runs.read_json(folder / RESULT) for folder in folders]
        units = units_of(found)
        table = {"all of a prompt": {n: bootstrap_ci(v, units) for n, v in _right(found).items()}}
        table |= _by_kind(found)
        drawn = [Bar(kind, ways[PROMPT], ways[GRPO]) for kind, ways in table.items()]
        return [
            Figure("Key points shown", bars(drawn, before=PROMPT, after=GRPO), "whiskers: 95 %"),
            Figure("Key points shown, per cent", _as_html(table), "in the shape of the paper's table"),
        ]


def _is_tempting(phrasing: Phrasing) -> bool:
    """Whether the teacher of SFT has a habit about its turn of phrase or one of its words."""
    return any(turn in HABITS or word in HABITS for turn, word in phrasing.pairs)


def _gain_of(one: dict[str, Any]) -> Estimate:
    """Oracle accuracy of one seed's rewriter after GRPO, less that before."""
    after, before = ([float(all(own)) for own in one["matches"][name]] for name in (GRPO, SFT))
    return paired_difference(after, before, one["captions"])


def _part(
    right: dict[str, list[float]], units: Sequence[str], tempting: Sequence[bool], wanted: bool
) -> dict[str, Any]:
    """Oracle accuracy over the prompts that are tempting, or over those that are not; {} without any."""
    places = [place for place, one in enumerate(tempting) if one is wanted]
    if not places:
        return {}
    mine = [units[place] for place in places]
    return {
        name: bootstrap_ci([values[place] for place in places], mine).to_json()
        for name, values in right.items()
    }


def units_of(found: Sequence[dict[str, Any]]) -> list[str]:
    """What the bootstrap draws: captions, those of each seed apart."""
    return [f"{seed} {caption}" for seed, one in enumerate(found) for caption in one["captions"]]


def _right(found: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Way to say a prompt -> for each prompt of all seeds whether its picture shows all that is meant."""
    return {
        name: [float(all(own)) for one in found for own in one["matches"][name]]
        for name in found[0]["matches"]
    }


def _mean_match(matches: Sequence[Sequence[Sequence[float]]], units: Sequence[str]) -> Estimate:
    return bootstrap_ci([sum(own) / len(own) for each in matches for own in each], units)


def _same(found: Sequence[dict[str, Any]], name: str) -> float:
    pairs = [pair for one in found for pair in zip(one["texts"][name], one["captions"], strict=True)]
    return sum(text == caption for text, caption in pairs) / len(pairs)


def _by_kind(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, Estimate]]:
    """Kind of key point -> way to say the prompt -> share of its key points that are shown."""
    values: dict[str, dict[str, list[float]]] = {}
    units: dict[str, list[str]] = {}
    for seed, one in enumerate(found):
        for place, caption in enumerate(one["captions"]):
            for spot, point in enumerate(shapes_points(caption)):
                kind = kinds()[point.kind].name
                units.setdefault(kind, []).append(f"{seed} {caption}")
                for name, each in one["matches"].items():
                    values.setdefault(kind, {}).setdefault(name, []).append(each[place][spot])
    return {
        kind: {name: bootstrap_ci(shown, units[kind]) for name, shown in values[kind].items()}
        for kind in sorted(values)
    }


def _as_html(table: dict[str, dict[str, Estimate]]) -> str:
    rows = [(kind, *(f"{100 * ways[way].mean:.1f}" for way in SHORT)) for kind, ways in table.items()]
    return part("table", ("", *SHORT.values()), rows)
