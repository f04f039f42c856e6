"""The demo, whole, in small: the rounds it is made of, its files, and that a second run reuses the first."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from rewards.toy.world import COLOURS, SHAPES
from scripts.experiments.demo import GAIN, HIGH, LOW, Demo
from t2ialign.cli import prove
from t2ialign.cli.main import main
from t2ialign.config import read_yaml
from t2ialign.data.pairs import read_pairs
from t2ialign.evaluation.provenance import hash_files
from t2ialign.io import jsonl, manifest
from t2ialign.tasks.demo import images, measuring, rounds, settings
from t2ialign.tasks.demo.settings import BY_MODEL, TRAINING, Settings
from t2ialign.toy.captions import is_held_out

pytestmark = pytest.mark.rest

ROOT = Path(__file__).resolve().parents[2]
SMALL = Settings(
    rounds=2,
    prompts_per_round=12,
    choosing_prompts=6,
    curve_prompts=6,
    heldout_prompts=12,
    guidance_scales=(2, 6),
    num_inference_steps=6,
    training={
        **TRAINING,
        **{"max_steps": 2, "batch_size": 4, "evaluate_every": 1, "checkpoint_every": 1, "lora_rank": 2},
        **{"trackers": (), "lr_warmup": 0},
    },
)
MODELS = measuring.MODELS


@pytest.fixture(scope="module")
def small() -> Iterator[pytest.MonkeyPatch]:
    """`t2ialign demo` with small settings."""
    with pytest.MonkeyPatch.context() as patch:
        flow = replace(SMALL, **{name: getattr(BY_MODEL["toy-flow"], name) for name in ("model", "rounds")})
        training = {**SMALL.training, "lora_targets": BY_MODEL["toy-flow"].training["lora_targets"]}
        patch.setattr(settings, "BY_MODEL", {"toy": SMALL, "toy-flow": replace(flow, training=training)})
        yield patch


@pytest.fixture(scope="module")
def finished(small: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "run"
    assert main(["demo", "--output", str(output)]) == 0
    return output


def folders(output: Path) -> dict[str, Path]:
    """All folders of sampled images, by their name in the demo."""
    return {str(file.parent.relative_to(output)): file.parent for file in output.rglob(manifest.NAME)}


def test_result_has_the_promised_fields(finished: Path) -> None:
    result = json.loads((finished / "demo.json").read_text())
    for model in MODELS:
        low, high = result[model]["ci95"]
        assert low <= result[model]["accuracy"] <= high
        assert len(result[model]["by_category"]) == 6
    pairs = [len(jsonl.read(place.pairs)) for place in rounds.places(finished, SMALL)]
    assert result["pairs"] == sum(pairs) and min(pairs) > 0
    assert (result["steps"], result["prompts"]) == (4, 24) and result["seconds"] > 0
    assert [row["guidance_scale"] for row in result["over_guidance"]] == [2, 6]
    assert set(result["new_combinations"]) == {*MODELS, "difference"}
    assert sum(result["outcomes"].values()) == 12


def test_each_round_samples_and_trains_on_what_the_round_before_left(finished: Path) -> None:
    first, second = rounds.places(finished, SMALL)
    assert first.samples == finished / "samples" and second.training == finished / "training"
    assert (first.training, second.samples) == (finished / "round_1/training", finished / "round_2/samples")
    sampled = [manifest.read(place.samples) for place in (first, second)]
    assert {row.settings["adapter"] for row in sampled[0]} == {None}
    assert {row.settings["adapter"] for row in sampled[1]} == {str(first.training)}
    assert not {row.seed for row in sampled[0]} & {row.seed for row in sampled[1]}
    configs = [read_yaml(place.training / "config.yaml") for place in (first, second)]
    assert [config["init_lora"] for config in configs] == [None, str(first.training)]
    assert len({config["seed"] for config in configs}) == 2
    steps = [row["step"] for row in rounds.metrics(finished, SMALL)]
    assert steps == [0, 1, 2, 3, 4]


def test_one_round_lies_where_users_look_for_it(tmp_path: Path) -> None:
    (place,) = rounds.places(tmp_path, replace(SMALL, rounds=1))
    assert (place.samples, place.pairs, place.training) == (
        *(tmp_path / "samples", tmp_path / "pairs.jsonl", tmp_path / "training"),
    )


def test_training_choosing_and_measuring_share_no_prompt_and_no_seed(finished: Path) -> None:
    rows = {name: manifest.read(folder) for name, folder in folders(finished).items()}
    groups = (("samples", "round_2/samples"), ("choosing/base_2",), ("base",))
    prompts = [{row.prompt for name in names for row in rows[name]} for names in groups]
    seeds = [{row.seed for name in names for row in rows[name]} for names in groups]
    for one in range(3):
        for other in range(one):
            assert not prompts[one] & prompts[other] and not seeds[one] & seeds[other]
    assert [{is_held_out(prompt) for prompt in group} for group in prompts] == [{False}, {False}, {True}]
    assert [(row.prompt, row.seed) for row in rows["aligned"]] == [
        (row.prompt, row.seed) for row in rows["base"]
    ]


def test_the_best_guidance_is_chosen_for_each_model_and_nothing_is_sampled_twice(finished: Path) -> None:
    best = json.loads((finished / "guidance.json").read_text())
    there = folders(finished)
    for model in MODELS:
        passed = {
            scale: sum(row["score"] for row in images.scores_in(finished / "choosing" / f"{model}_{scale}"))
            for scale in (2, 6)
        }
        assert best[model] == (6 if passed[6] > passed[2] else 2)
        (other,) = {2, 6} - {best[model]}
        assert {row.settings["guidance"] for row in manifest.read(finished / model)} == {best[model]}
        curve = manifest.read(finished / "over_guidance" / f"{model}_{other}")
        assert [row.seed for row in curve] == [row.seed for row in manifest.read(finished / model)][:6]
    assert len(there) == 2 + 4 + 4
    made = [
        (row.settings["adapter"], row.settings["guidance"], row.prompt, row.seed)
        for folder in there.values()
        for row in manifest.read(folder)
    ]
    assert len(made) == len(set(made))
    assert {row.settings["steps"] for row in manifest.read(finished / "base")} == {6}


def test_pairs_are_in_the_format_that_users_bring(finished: Path) -> None:
    for record in read_pairs(str(finished / "pairs.jsonl")):
        assert isinstance(record.win, Path) and record.win.is_file() and record.win != record.lose


def test_the_report_is_one_file_with_images_marks_and_words(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 24 and "http" not in page.replace("http://www.w3.org", "")
    assert "pass" in page and "fail" in page and "<svg" in page
    assert page.count("asked:</span>") == 12 and page.count("drawn:</span>") == 24
    assert "In 2 rounds the model drew 24 captions 4 times each" in page
    with Image.open(finished / "demo.png") as image:
        assert image.format == "PNG" and image.width == 1760 and image.height > image.width


def test_the_report_leads_with_how_many_images_were_fixed_and_broken(finished: Path) -> None:
    sides = [images.scores_in(finished / name) for name in MODELS]
    pairs = [(before["score"], after["score"]) for before, after in zip(*sides, strict=True)]
    page = " ".join((finished / "report.html").read_text(encoding="utf-8").split())
    for verdicts, name in (((0.0, 1.0), "fixed"), ((1.0, 0.0), "broken")):
        shown = re.search(rf"<b[^>]*>(\d+)</b> <span>of 12 images {name}</span>", page)
        assert shown is not None and int(shown[1]) == pairs.count(verdicts)
    places = [page.index(words) for words in ("images fixed", "images broken", "<img", "<svg", "<table")]
    assert places == sorted(places), "counts, then images, then charts and tables"


def test_a_second_run_reuses_everything(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.is_file()}
    assert main(["demo", "--output", str(finished)]) == 0
    assert {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.is_file()} == before
    assert "held-out" in capsys.readouterr().out


def test_a_demo_cut_off_goes_on(finished: Path) -> None:
    """Without its result and half of its last images, only what is missing is made again."""
    kept = finished / "samples" / "00000.png"
    lost = finished / "aligned" / "00003.png"
    result = json.loads((finished / "demo.json").read_text())
    pixels, made = lost.read_bytes(), kept.stat().st_mtime_ns
    for file in (lost, finished / "aligned" / "scores.jsonl", finished / "demo.json"):
        file.unlink()
    assert main(["demo", "--output", str(finished)]) == 0
    assert lost.read_bytes() == pixels and kept.stat().st_mtime_ns == made
    again = json.loads((finished / "demo.json").read_text())
    assert {**again, "seconds": 0} == {**result, "seconds": 0}


def test_another_seed_or_another_folder_is_refused(finished: Path, tmp_path: Path) -> None:
    assert main(["demo", "--output", str(finished), "--seed", "5"]) == 2
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def claim() -> Demo:
    """The claim, of demos with the small settings."""
    made = Demo()
    made.settings = SMALL
    return made


def test_the_flow_model_is_aligned_by_the_same_command(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert main(["demo", "--model", "toy-flow", "--output", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "run" / "demo.json").read_text())
    assert (result["steps"], result["prompts"]) == (2, 12) and result["pairs"] > 0
    assert read_yaml(tmp_path / "run" / "training" / "config.yaml")["model"] == "toy-flow"
    assert (tmp_path / "run" / "report.html").is_file()
    assert main(["demo", "--output", str(tmp_path / "run")]) == 2, "another model is another demo"


def test_prove_pools_the_seeds(finished: Path, tmp_path: Path, claim: Demo) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    for file in other.rglob("scores.jsonl"):
        rows = jsonl.read(file)
        jsonl.rewrite(file, [row | {"seed": row["seed"] + 100_000} for row in rows])
    best, over_guidance = claim.rows([finished, other])
    assert best.measured["base"]["count"] == 24 and best.measured["base"]["prompts"] <= 12
    assert best.ci95 is not None and best.ci95[0] <= best.measured["difference"]["mean"] <= best.ci95[1]
    assert [row["seconds"] > 0 for row in best.measured["by_seed"]] == [True, True]
    assert 0 < best.measured["new_combinations"]["base"]["count"] < 24
    assert [row["guidance"] for row in over_guidance.measured["over_guidance"]] == [2, 6]
    assert over_guidance.measured["over_guidance"][0]["base"]["count"] == 12
    bars, curve = claim.figures([finished, other])
    assert bars.body.count("<rect") >= 14  # six categories and all, before and after
    assert curve.body.count("<polyline") == curve.body.count("<polygon") == 2


@pytest.mark.parametrize(
    ("best", "lowest", "verdicts"),
    [((2, 9), 0, [True, True]), ((4, 5), 0, [False, True]), ((2, 9), -1, [True, False])],
)
def test_the_verdicts(
    finished: Path, claim: Demo, best: tuple[int, int], lowest: int, verdicts: list[bool], monkeypatch
) -> None:
    """Of ten images of each of 24 prompts so many pass; below 0 at one scale is enough to fall."""

    def rows(count: int) -> list[measuring.Score]:
        tens = [(f"a {colour} {shape}", i) for colour in COLOURS for shape in SHAPES for i in range(10)]
        return [
            {"prompt": text, "seed": seed, "score": float(i < count)} for seed, (text, i) in enumerate(tens)
        ]

    held = dict(zip(MODELS, map(rows, best), strict=True))
    curve: dict[str, dict[float, list[measuring.Score]]] = {
        "base": {2: rows(3), 6: rows(5)},
        "aligned": {2: rows(3 + lowest), 6: rows(9)},
    }
    measured = measuring.Measured({"base": 6, "aligned": 2}, held, curve)
    monkeypatch.setattr(measuring, "read", lambda folder, settings: measured)
    assert [row.holds for row in claim.rows([finished])] == verdicts


def test_hash_follows_names_and_contents(tmp_path: Path) -> None:
    def digest() -> str:
        return hash_files([("part", tmp_path, "*.py")])

    (tmp_path / "a.py").write_text("x = 1")
    first = digest()
    (tmp_path / "notes.txt").write_text("not code")
    assert digest() == first
    (tmp_path / "a.py").write_text("x = 2")
    second = digest()
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, digest()}) == 3


def test_the_proof_on_file_is_of_this_code() -> None:
    """A row measured on older code is named among the skips, so that nobody quotes it unawares."""
    file = ROOT / "proofs" / "demo.json"
    if not file.exists():
        pytest.skip(f"{file.name} is not measured yet; run t2ialign prove demo")
    measured = json.loads(file.read_text())
    needed = {"claim", "source", "paper", "measured", "ci95", "seeds", "seconds", "verdict", "tree"}
    assert all(needed <= set(row) for row in measured)
    if any(row["claim"] not in (Demo.text, Demo.over_guidance) for row in measured):
        pytest.skip(f"{file.name} has rows of an earlier claim; run t2ialign prove demo")
    best, over_guidance = (row["measured"] for row in measured)
    apart = best["aligned"]["ci95"][0] > best["base"]["ci95"][1]
    inside = [row["difference"] for row in over_guidance["over_guidance"] if LOW <= row["guidance"] <= HIGH]
    holds = [
        best["difference"]["mean"] >= GAIN and apart,
        all(difference["ci95"][1] >= 0 for difference in inside),
    ]
    assert [row["verdict"] for row in measured] == ["holds" if one else "does not hold" for one in holds]
    reasons = {why for row in measured if (why := prove.stale(row, prove.recorded_files(file))) is not None}
    if reasons:
        pytest.skip(f"{file.name} is {'; '.join(reasons)}; delete runs/prove and run t2ialign prove demo")
