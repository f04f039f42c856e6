"""Claims on prompt rewriting: the trained rewriter, the best of several, key points by rules, survival.

The generator does not understand the prompts of the trained rewriter: they are rendered as they are, after
SFT, after SFT and GRPO. The best of several rewrites is chosen by the key points of the user's prompt. The
oracle chooses and measures, so the best never shows less than the first: what tells something of rewriting is
the row against as many images of one rewrite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, ClassVar

from rewards.keypoints.oracle import toy_points
from rewards.keypoints.taxonomy import kinds
from scripts.experiments import rewriter_runs as runs
from scripts.experiments.claim import Claim, Figure, MeasuredOnce, Row
from scripts.experiments.estimates import Table, average, bar_figure, judged
from scripts.experiments.keypoint_rules import KeypointRulesClaim
from scripts.experiments.survival import SurvivalClaim
from t2ialign.evaluation.provenance import source_hash
from t2ialign.evaluation.statistics import Estimate
from t2ialign.rewriting.language import AGAIN
from t2ialign.rewriting.parse import parse
from t2ialign.toy.phrasings import HABITS, Phrasing, draw_phrasings
from t2ialign.web.pages import part

SHARED = "rewriters"
"""Beside the claims: the rewriters of each seed, trained by the first claim to need them."""
RESULT = "pictures.json"
PROMPT, CAPTION, SHUFFLED = "the user's prompt", "canonical caption", "sft+grpo, thoughts shuffled"
SFT, PLAIN, GRPO = "sft", "sft without thought", "sft+grpo"
HEADS = ("prompt", "SFT", "no thought", "GRPO", "shuffled", "caption")
SHORT = dict(zip((PROMPT, SFT, PLAIN, GRPO, SHUFFLED, CAPTION), HEADS, strict=True))
"""Ways to say a prompt, as the heads of a table."""
ONE, REWRITES, SEEDS = "one rewrite", "best of rewrites", "best of seeds of one rewrite"


class RewriterClaim(MeasuredOnce):
    """The common part of claims on the toy rewriter: its training, and the held-out prompts."""

    paper = "PromptEnhancer, arXiv 2509.04545"
    result = RESULT
    sizes: runs.Sizes = runs.Sizes()
    sft: ClassVar[dict[str, Any]] = runs.SFT_SETTINGS
    grpo: ClassVar[dict[str, Any]] = runs.GRPO_SETTINGS
    heldout: int = 1000

    def shared(self, folder: Path, seed: int) -> Path:
        """The folder of this seed's rewriters; those of other code are left alone."""
        return folder.parents[1] / SHARED / source_hash() / f"seed-{seed}"

    def rewriters(self, folder: Path, seed: int, *, plain: bool) -> Path:
        """`shared`, with the rewriters trained if they are not there; plain: SFT without thought too."""
        shared = self.shared(folder, seed)
        runs.make(shared, seed, self.sizes, self.sft, self.grpo, plain=plain)
        return shared

    def phrasings(self, seed: int) -> list[Phrasing]:
        """Prompts with a turn of phrase and a word that training never shows together."""
        return draw_phrasings(self.heldout, 3000 + seed, held_out=True)


class RewritingClaim(RewriterClaim):
    """An image of every held-out prompt and way to say it, from the same noise, judged for what is meant."""

    text = "Oracle accuracy on held-out phrasings: the user's prompt < SFT < SFT+GRPO, intervals apart"
    plain = "SFT with the thought is better than SFT without"
    shuffled = "Giving each prompt the thought of another one lowers accuracy"

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train the rewriters, write every held-out prompt with each, render and judge."""
        rewriters, phrasings = self.rewriters(folder, seed, plain=True), self.phrasings(seed)
        prompts, captions = prompts_and_captions(phrasings)
        trained = {SFT: runs.SFT, PLAIN: runs.PLAIN, GRPO: runs.GRPO}
        outputs = {name: runs.written(rewriters / home, prompts) for name, home in trained.items()}
        thoughts = [parse(output, "").thought for output in outputs[GRPO]]
        outputs[SHUFFLED] = runs.with_thoughts(rewriters / runs.GRPO, prompts, [*thoughts[1:], thoughts[0]])
        rewrites = {name: answers(written, prompts) for name, written in outputs.items()}
        texts = {PROMPT: prompts, CAPTION: captions, **rewrites}
        images = runs.JudgedImages(captions, first_seed=4_000_000 + 10_000 * seed)
        return {
            "captions": captions,
            "tempting": [_is_tempting(phrasing) for phrasing in phrasings],
            "texts": texts,
            "matches": {name: images.matches(written) for name, written in texts.items()},
            "fallbacks": {
                name: average([float(parse(output, "").fallback is not None) for output in written])
                for name, written in outputs.items()
            },
        }

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Three rows over the images of all seeds."""
        results = self.results(folders)
        table = pooled(results, all_shown)
        accuracy, gain = table.means(), table.difference(GRPO, SFT)
        tempting = [one for result in results for one in result["tempting"]]
        measured = {
            "oracle_accuracy": accuracy,
            "key_point_accuracy": pooled(results, average).means(),
            "by_key_point": _by_kind(results),
            "same_text_as_the_caption": {name: _same_texts(results, name) for name in accuracy},
            "fallbacks": [result["fallbacks"] for result in results],
            "gain_of_grpo": gain,
            "gain_of_grpo_by_seed": [pooled([one], all_shown).difference(GRPO, SFT) for one in results],
            "teacher_misreads": self.sizes.misread,
            "where_the_teacher_misreads": _means_where(table, tempting),
            "elsewhere": _means_where(table, [not one for one in tempting]),
        }
        thought, shuffled = table.difference(SFT, PLAIN), table.difference(SHUFFLED, GRPO)
        steps = [accuracy[name] for name in (PROMPT, SFT, GRPO)]
        apart = all(low.high < high.low for low, high in pairwise(steps))
        return [
            judged(self.text, measured, gain, apart),
            judged(self.plain, {"difference": thought}, thought, thought.low > 0),
            judged(self.shuffled, {"difference": shuffled}, shuffled, shuffled.high < 0),
        ]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Accuracy of all and of each key point: bars of the prompt and of the best rewriter, and a table."""
        results = self.results(folders)
        ways = {"all of a prompt": pooled(results, all_shown).means(), **_by_kind(results)}
        pairs = {kind: (each[PROMPT], each[GRPO]) for kind, each in ways.items()}
        rows = [(kind, *(f"{100 * each[way].mean:.1f}" for way in SHORT)) for kind, each in ways.items()]
        table = part("table", ("", *SHORT.values()), rows)
        return [
            bar_figure("Key points shown", pairs, before=PROMPT, after=GRPO),
            Figure("Key points shown, per cent", table, "in the shape of the paper's table"),
        ]


class BestOfClaim(RewriterClaim):
    """The first rewrite is greedy, the others are drawn; beside it as many seeds of the first one."""

    text = "The best of 4 rewrites, judged on the user's prompt, beats one rewrite"
    more = "It also beats the best of 4 images of the one rewrite"
    heldout = 300
    n: int = 4

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Write, render and judge."""
        rewriter = self.rewriters(folder, seed, plain=False) / runs.GRPO
        prompts, captions = prompts_and_captions(self.phrasings(seed))
        texts = []
        for draw in range(self.n):
            temperature, drawn = AGAIN if draw else 0.0, 10_000 * seed + 1000 * draw
            outputs = runs.written(rewriter, prompts, temperature=temperature, seed=drawn)
            texts.append(answers(outputs, prompts))
        images = runs.JudgedImages(captions, first_seed=5_000_000 + 10_000 * seed)
        matches = {
            REWRITES: [images.matches(written, draw=draw) for draw, written in enumerate(texts)],
            SEEDS: [images.matches(texts[0], draw=draw) for draw in range(self.n)],
        }
        return {"captions": captions, "texts": texts, "matches": matches}

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Two rows over the prompts of all seeds."""

        def columns(result: Mapping[str, Any]) -> dict[str, list[float]]:
            matches = result["matches"]
            draws = {ONE: zip(matches[REWRITES][0], strict=True)}
            draws |= {name: zip(*matches[name], strict=True) for name in (REWRITES, SEEDS)}
            return {name: [all_shown(best(each)) for each in images] for name, images in draws.items()}

        results = self.results(folders)
        table = Table.of(range(len(results)), results, columns, "captions")
        gain, over = table.difference(REWRITES, ONE), table.difference(REWRITES, SEEDS)
        measured = {**table.means(), "gain": gain, "chosen_by": "the oracle, which also measures"}
        return [
            judged(self.text, measured, gain, gain.low > 0),
            judged(self.more, {"gain": over}, over, over.low > 0),
        ]


def best(draws: Sequence[Sequence[float]]) -> Sequence[float]:
    """The matches of the image with the highest mean; the first of equals."""
    return max(draws, key=average)


def pooled(results: Sequence[dict[str, Any]], value: Callable[[Sequence[float]], float]) -> Table:
    """Way to say a prompt -> a value of the matches of each image, over the prompts of all seeds."""

    def columns(result: Mapping[str, Any]) -> dict[str, list[float]]:
        return {name: [value(shown) for shown in matches] for name, matches in result["matches"].items()}

    return Table.of(range(len(results)), results, columns, "captions")


def prompts_and_captions(phrasings: Sequence[Phrasing]) -> tuple[list[str], list[str]]:
    """The users' prompts, and the captions that they mean."""
    return [phrasing.prompt for phrasing in phrasings], [phrasing.caption for phrasing in phrasings]


def answers(outputs: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """The rewrites in a rewriter's outputs; the prompt itself where one has none."""
    return [parse(output, prompt).answer for output, prompt in zip(outputs, prompts, strict=True)]


def all_shown(matches: Sequence[float]) -> float:
    """1 if every key point is shown, else 0."""
    return float(all(matches))


def _is_tempting(phrasing: Phrasing) -> bool:
    """Whether the teacher of SFT has a habit about its turn of phrase or one of its words."""
    return any(turn in HABITS or word in HABITS for turn, word in phrasing.pairs)


def _means_where(table: Table, chosen: Sequence[bool]) -> dict[str, Estimate]:
    """Oracle accuracy over the prompts that are chosen; {} without any."""
    return table.where(chosen).means() if any(chosen) else {}


def _same_texts(results: Sequence[dict[str, Any]], name: str) -> float:
    """The share of texts that are the very caption."""
    pairs = [pair for one in results for pair in zip(one["texts"][name], one["captions"], strict=True)]
    return average([float(text == caption) for text, caption in pairs])


def _by_kind(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Estimate]]:
    """Kind of key point -> way to say the prompt -> share of its key points that are shown."""
    tables, labels = [], []
    for result in results:
        points = [(caption, point) for caption in result["captions"] for point in toy_points(caption)]
        columns = {name: list(chain.from_iterable(shown)) for name, shown in result["matches"].items()}
        tables.append(Table([caption for caption, _ in points], columns))
        labels += [kinds()[point.kind].name for _, point in points]
    by_kind = Table.pooled(range(len(tables)), tables).by(labels)
    return {kind: table.means() for kind, table in by_kind.items()}


CLAIMS: tuple[Claim, ...] = (RewritingClaim(), BestOfClaim(), KeypointRulesClaim(), SurvivalClaim())
