"""Figures against numbers worked out by hand, what ties must do, and what the sources publish."""

import json
import math
import os
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from t2ialign.evaluation import calibrate, ranking, raters, resampling
from t2ialign.evaluation.calibrate import pair_credits, pairwise_accuracy

DATA = Path(os.environ.get("T2IALIGN_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
TIA2, SETS = DATA / "textnorm-tia2", ("counting", "composition", "comprehensive")
needs_tia2 = pytest.mark.skipif(not TIA2.is_dir(), reason=f"no {TIA2}; set T2IALIGN_DATA")


def read(*parts: str) -> dict:
    file = DATA.joinpath(*parts)
    if not file.is_file():
        pytest.skip(f"no {file}; set T2IALIGN_DATA")
    return json.loads(file.read_text())


def votes(name: str) -> dict[str, list[list[int]]]:
    """TIA2's raw labels: for each prompt 50 images by 3 raters."""
    found: dict[str, list[list[int]]] = {}
    for row in read("textnorm-tia2", "human_annotations", f"human_labels_{name}.json").values():
        found.setdefault(row["caption"], []).append(row["human_labels"])
    return found


def mean(values: list[float], prompts: list[str]) -> resampling.Interval:
    """Of one value a prompt."""
    return resampling.bootstrap(lambda rows: float(np.asarray(values)[rows].mean()), prompts, resamples=200)


def test_credits_of_every_case_under_both_protocols() -> None:
    margins, labels = zip(*product((2.0, 0.0, -2.0), (1.0, 0.5, 0.0)), strict=True)
    strict = pair_credits(margins, labels)
    assert np.isnan(strict[[1, 4, 7]]).all()  # label ties are left out
    assert strict[[0, 2, 3, 5, 6, 8]].tolist() == [1, 0, 0, 0, 0, 1]  # ties of the scorer are wrong
    half = pair_credits(margins, labels, ties="half", label_ties="count")
    assert half.tolist() == [1, 0.5, 0, 0.5, 1, 0.5, 0, 0.5, 1]
    assert pair_credits([0.4, 0.6], [1, 1], threshold=0.5).tolist() == [0, 1]


@pytest.mark.parametrize("ties, best", [("wrong", 0.0), ("half", 0.5)])
def test_a_constant_scorer_is_never_right(ties: str, best: float) -> None:
    labels = np.array([1, 0, 1, 1, 0.5])
    assert pairwise_accuracy(np.zeros(5), labels, ties=ties) == best
    counted = pairwise_accuracy(np.zeros(5), labels, ties=ties, label_ties="count")
    assert counted == pytest.approx((4 * best + 1) / 5)
    with pytest.raises(ValueError, match="no preference"):
        pairwise_accuracy(np.zeros(2), [0.5, 0.5], ties=ties, label_ties="count")
    assert ranking.auroc([0, 1, 1], np.zeros(3)) == 0.5
    assert ranking.spearman([0, 1, 2], np.zeros(3)) == ranking.kendall([0, 1, 2], np.zeros(3)) == 0.0


def test_swapping_the_images_swaps_nothing_that_counts() -> None:
    rng = np.random.default_rng(0)
    margins, labels = rng.integers(-2, 3, 200).astype(float), rng.choice([0, 0.5, 1], 200)
    for protocol in product(("wrong", "half"), ("skip", "count")):
        options = dict(zip(("ties", "label_ties"), protocol, strict=True))
        swapped = pairwise_accuracy(-margins, 1 - labels, **options)
        assert pairwise_accuracy(margins, labels, **options) == swapped


def test_ranked_pairs_have_the_better_rank_on_their_side() -> None:
    margins, preferences = calibrate.ranked_pairs([0.9, 0.1, 0.5], [1, 2, 2])
    np.testing.assert_allclose(margins, [0.8, 0.4, -0.4])
    assert preferences.tolist() == [1, 1, 0.5]


def test_the_tie_threshold_separates_ties_from_preferences() -> None:
    margins, labels = np.array([0.01, -0.02, 1.0, -1.2]), np.array([0.5, 0.5, 1, 0])
    threshold = calibrate.tie_threshold(margins, labels)
    assert 0.02 <= threshold < 1
    assert pairwise_accuracy(margins, labels, ties="half", label_ties="count", threshold=threshold) == 1


def test_average_precision_at_k_by_hand_and_against_sklearn() -> None:
    labels, scores = [0, 1, 1, 0, 1], [5, 4, 3, 2, 1]
    assert ranking.average_precision_at(3, labels, scores) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert ranking.average_precision_at(1, labels, scores) == 0
    rng = np.random.default_rng(1)
    for _ in range(20):
        label, score = np.r_[0, 1, rng.integers(0, 2, 28)], rng.permutation(np.r_[:30])
        top = np.argsort(-score)[:10]
        if label[top].any():
            wanted = average_precision_score(label[top], score[top])
            assert ranking.average_precision_at(10, label, score) == pytest.approx(wanted)
        tied = rng.integers(0, 4, 30)
        assert ranking.average_precision_at(30, label, tied) == pytest.approx(ranking.auprc(label, tied))
    assert ranking.average_precision_at(5, [1, 0, 0, 0] * 10, np.zeros(40)) == pytest.approx(0.25)


def test_the_order_of_rows_changes_no_ranking_figure() -> None:
    rng = np.random.default_rng(2)
    labels, scores, order = np.r_[0, 1, rng.integers(0, 2, 48)], rng.integers(0, 6, 50), rng.permutation(50)
    for figure in (ranking.auroc, ranking.auprc, ranking.spearman, ranking.kendall):
        assert figure(labels, scores) == pytest.approx(figure(labels[order], scores[order]))
    a, b = (ranking.average_precision_at(10, labels[o], scores[o]) for o in (slice(None), order))
    assert a == pytest.approx(b)


def test_calibration_error_by_hand() -> None:
    """Two bins: .1 and .2 with no hit (gap .15), .9 twice with one hit (gap .4): (2 x .15 + 2 x .4) / 4."""
    assert calibrate.calibration_error([0.1, 0.2, 0.9, 0.9], [0, 0, 1, 0], bins=2) == pytest.approx(0.275)
    assert calibrate.calibration_error([1.0, 0.0], [1, 0]) == 0


def test_the_fitted_temperature_is_the_one_that_made_the_labels() -> None:
    rng = np.random.default_rng(3)
    margins = rng.normal(0, 0.1, 40_000)
    soft = 1 / (1 + np.exp(-7 * margins))
    exact = calibrate.fit_temperature(margins, soft)
    assert exact.scale == pytest.approx(7, rel=1e-3)
    drawn = calibrate.fit_temperature(margins, (rng.random(40_000) < soft).astype(float))
    assert drawn.scale == pytest.approx(7, rel=0.05) and drawn.loss < math.log(2)
    assert calibrate.calibration_error(drawn.probability(margins), soft) < 0.01
    backwards = calibrate.fit_temperature(-margins, soft)
    assert (backwards.scale, backwards.loss) == (0, pytest.approx(math.log(2)))
    once, twice = [0.3, -0.2, 0.1], [0.3, 0.3, -0.2, 0.1]
    weighted = calibrate.fit_temperature(once, [1, 1, 0], [2, 1, 1]).scale
    assert weighted == pytest.approx(calibrate.fit_temperature(twice, [1, 1, 1, 0]).scale, rel=1e-4)


def test_fleiss_kappa_of_the_textbook_and_its_limits() -> None:
    """The example of Fleiss's method with 10 items, 14 raters and 5 categories gives .210."""
    counts = [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
    labels = [[c for c, n in enumerate(row) for _ in range(n)] for row in counts]
    assert raters.fleiss_kappa(labels) == pytest.approx(0.210, abs=5e-4)
    assert raters.fleiss_kappa([[0, 0], [1, 1]]) == 1
    assert raters.fleiss_kappa([[0, 1], [1, 0]]) == -1
    with pytest.raises(ValueError, match="one category"):
        raters.fleiss_kappa([[1, 1], [1, 1]])


def test_a_bootstrap_by_prompt_is_wider_than_one_by_row_where_rows_of_a_prompt_agree() -> None:
    rng = np.random.default_rng(4)
    values = np.repeat(rng.random(25), 8)
    by_prompt = [str(i // 8) for i in range(200)]
    grouped, single = (
        resampling.bootstrap(lambda rows: float(values[rows].mean()), prompts, resamples=2000)
        for prompts in (by_prompt, [str(i) for i in range(200)])
    )
    assert grouped.value == single.value == pytest.approx(values.mean())
    ratio = (grouped.high - grouped.low) / (single.high - single.low)
    assert ratio == pytest.approx(math.sqrt(8), rel=0.15)  # 25 independent values, not 200
    exact = 2 * 1.96 * values.std() / 5
    assert grouped.high - grouped.low == pytest.approx(exact, rel=0.1)
    alone = resampling.bootstrap(lambda rows: 1.0, ["a", "a"])
    assert alone.value == 1 and math.isnan(alone.low)


def test_draws_without_both_labels_are_drawn_again() -> None:
    labels, prompts = np.array([1, 0, 0, 0]), list("abcd")
    interval = resampling.bootstrap(lambda r: ranking.auroc(labels[r], -r), prompts, resamples=50)
    assert interval.value == interval.low == interval.high == 1
    with pytest.raises(ValueError, match="add some"):  # a figure that almost no draw has
        resampling.bootstrap(lambda r: ranking.auroc((r > 0) & (len(set(r)) == 6), r), list("abcdef"))


def test_the_report_of_a_scorer() -> None:
    margins, labels = np.array([1.0, 2.0, -1.0, 0.0, 1.0]), np.array([1, 1, 0, 1, 0.5])
    figures = calibrate.report(margins, labels, list("aabbc"), scale=2.0)
    assert (figures["accuracy"].value, figures["accuracy_half"].value) == (0.75, 0.875)
    assert figures["accuracy"].low <= 0.75 <= figures["accuracy"].high
    assert set(figures) == {"accuracy", "accuracy_half", "ece"}


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: ranking.auroc([0, 0], [1, 2]), "expected both 0 and 1"),
        (lambda: ranking.auroc([0, 1], [1, math.nan]), "1 scores that are not finite"),
        (lambda: ranking.spearman([1, 1], [1, 2]), "equal labels"),
        (lambda: pair_credits([1.0], [1.0, 0.0]), r"expected equal lengths \(N,\)"),
        (lambda: pair_credits([1.0], [2.0]), r"expected \[0, 1\]; rescale"),
        (lambda: calibrate.calibration_error([1.2], [1]), "apply a sigmoid"),
        (lambda: calibrate.fit_temperature([0, 0], [1, 0]), "margins that are all 0"),
        (lambda: raters.fleiss_kappa([1, 0]), "items, raters"),
        (lambda: ranking.per_prompt(ranking.auroc, [0, 1], [0, 1], ["a"]), "1 prompts for 2 rows"),
    ],
)
def test_mistakes_are_told(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


@needs_tia2
def test_tia2_the_published_rate_of_every_prompt_follows_from_the_raw_labels() -> None:
    counted = 0
    for name in SETS:
        labels = {prompt: raters.majority(rows) for prompt, rows in votes(name).items()}
        published = read("textnorm-tia2", "alignment_scores", f"alignment_scores_{name}.json")
        rank = {p: np.arange(50.0) for p in labels}
        evaluated = ranking.per_prompt(
            lambda label, _: float(label.mean()),
            np.concatenate(list(labels.values())),
            np.concatenate(list(rank.values())),
            [prompt for prompt in labels for _ in range(50)],
        )
        assert evaluated.keys() == published.keys()  # prompts of equal labels are left out, and no others
        for prompt, rate in evaluated.items():
            assert rate == pytest.approx(published[prompt]["human"], abs=1e-12), prompt
        counted += len(evaluated)
    assert counted == 525


@needs_tia2
@pytest.mark.parametrize("name, kappa", zip(SETS, (0.684, 0.284, 0.629), strict=True))
def test_tia2_agreement_of_raters(name: str, kappa: float) -> None:
    labels = [row for rows in votes(name).values() for row in rows]
    assert round(raters.fleiss_kappa(labels, unsure=-1), 3) == kappa


@needs_tia2
@pytest.mark.parametrize(
    "name, means",
    [
        ("counting", (0.595, 0.565, 0.657, 0.731, 0.807)),
        ("composition", (0.717, 0.613, 0.774, 0.785, 0.844)),
        ("comprehensive", (0.671, 0.683, 0.761, 0.747, 0.773)),
    ],
)
def test_tia2_mean_auroc_of_each_scorer(name: str, means: tuple[float, ...]) -> None:
    rows = read("textnorm-tia2", "alignment_scores", f"alignment_scores_{name}.json")
    for scorer, published in zip(list(next(iter(rows.values())))[1:], means, strict=True):
        interval = mean([row[scorer]["auroc"] for row in rows.values()], list(rows))
        assert interval.value == pytest.approx(published, abs=1e-3)  # the list rounds both ways
        assert interval.low < published < interval.high


@needs_tia2
def test_tia2_every_published_ap5_is_one_that_our_ap5_can_give() -> None:
    """All orders of hits and misses, and for CLIP, whose scores are rounded, all tied ones too."""
    fillers = [1.0, 0.0]  # so that both labels occur whatever the five are
    strict, tied = set[float](), set[float]()
    for hits in product((0, 1), repeat=5):
        for cuts in product((0, 1), repeat=4):
            scores = 10 - np.r_[0, np.cumsum(cuts)]
            value = ranking.average_precision_at(5, [*hits, *fillers], [*scores, 0, 0])
            (strict if all(cuts) else tied).add(round(value, 9))
    for name in SETS:
        rows = read("textnorm-tia2", "alignment_scores", f"alignment_scores_{name}.json")
        for row in rows.values():
            for scorer, figures in row.items():
                if scorer != "human":
                    allowed = strict | tied if scorer == "clip" else strict
                    assert round(figures["ap5"], 9) in allowed


def test_genai_bench_model_means() -> None:
    rows = read("uniworld-v1-eval", "univa", "eval", "genai", "eval_prompts", "genai1600", "genai_image.json")
    published = {"DALLE_3": 3.82, "Midjourney_6": 3.64, "DeepFloyd_I_XL_v1": 3.36}
    published |= {"SDXL_Base": 3.26, "SDXL_Turbo": 3.20, "SDXL_2_1": 3.02}
    for model, figure in published.items():
        ratings = np.array([row["models"][model] for row in rows.values()], float).mean(1)
        interval = mean(ratings.tolist(), list(rows))
        assert round(interval.value, 2) == figure and interval.high - interval.low < 0.12


def test_imagereward_pairs_and_ties() -> None:
    rows = read("imagereward", "data", "test.json")
    labels = np.concatenate(
        [calibrate.ranked_pairs([0.0] * len(row["ranking"]), row["ranking"])[1] for row in rows]
    )
    assert (int((labels != 0.5).sum()), int((labels == 0.5).sum())) == (6399, 831)
    assert len(labels) == sum(len(list(combinations(row["ranking"], 2))) for row in rows)
    credits = pair_credits(np.zeros(len(labels)), labels, ties="half")
    assert int(np.isnan(credits).sum()) == 831 and np.nanmean(credits) == 0.5
