"""From annotated images to a head that judges: what is read, what is stored, what is learned."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import rewards
from rewards.keypoints.evaluator_head import features
from rewards.keypoints.oracle import shown, toy_points
from rewards.keypoints.taxonomy import KeyPoint
from rewards.scorers.textnorm import toy_near_misses
from rewards.toy.vision import read_things
from t2ialign.cli import main as cli
from t2ialign.evaluation.keypoints.agreement import OVERALL
from t2ialign.evaluation.keypoints.annotated import read_annotated
from t2ialign.evaluation.keypoints.embedded import embed
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.render import render

pytestmark = pytest.mark.rest

MADE_OF = {"data": "d"}


def annotated(folder: Path, captions: int) -> Path:
    """Captions of the toy world on renders of themselves and of near misses, judged by the oracle."""
    folder.mkdir(parents=True)
    drawn, asked = [], []
    for row, caption in enumerate(dict.fromkeys(draw_captions(captions, 0, held_out=False))):
        misses = np.random.default_rng(row).permutation(toy_near_misses(caption))[:3].tolist()
        drawn += [caption, *misses]
        asked += [caption] * (1 + len(misses))
    rows = []
    for number, (pixels, prompt) in enumerate(zip(render(drawn, 0), asked, strict=True)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        things = read_things(pixels / 255)
        points = [
            {"kind": point.kind, "description": point.description, "match": shown(point, things)}
            for point in toy_points(prompt)
        ]
        rows.append({"image": f"{number}.png", "prompt": prompt, "points": points})
    file = folder / "annotated.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return annotated(tmp_path_factory.mktemp("annotated") / "data", 200)


@pytest.fixture(scope="module")
def head(file, tmp_path_factory) -> Path:
    """What the command leaves."""
    output = tmp_path_factory.mktemp("head") / "out"
    assert cli.main(["train", "evaluator", f"data={file}", "reward=toy-clip", f"output={output}"]) == 0
    return output


def test_a_head_beats_chance_on_prompts_that_it_never_saw(head, capsys):
    found = json.loads((head / "heldout.json").read_text())
    whole = found[OVERALL]["balanced"]
    assert whole["ci95"][0] > 0.55, whole
    assert whole["prompts"] == pytest.approx(0.2 * 200, rel=0.15)
    card = (head / "README.md").read_text()
    assert f"| **all kinds** | {found[OVERALL]['pairs']} |" in card and "neither fitted to" in card
    assert f'backend="head", weights="{head}"' in card


def test_a_fit_with_shuffled_verdicts_is_no_better_than_chance(file, tmp_path):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    flat = [point for row in rows for point in row["points"]]
    mixed = np.random.default_rng(0).permutation([point["match"] for point in flat]).tolist()
    for point, match in zip(flat, mixed, strict=True):
        point["match"] = match
    for row in rows:
        row["image"] = str(file.parent / row["image"])
    data, output = tmp_path / "shuffled.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["train", "evaluator", f"data={data}", "reward=toy-clip", f"output={output}"]) == 0
    assert abs(json.loads((output / "heldout.json").read_text())[OVERALL]["balanced"]["mean"] - 0.5) < 0.08


def test_the_head_judges_images_of_the_verb(head, tmp_path, capsys):
    caption = "a red circle left of a blue square"
    folder = tmp_path / "images"
    folder.mkdir()
    drawn = [caption] * 8 + ["three green crosses"] * 8
    for number, pixels in enumerate(render(drawn, 0)):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(caption)
    points = tmp_path / "points.jsonl"
    names = ["Entity Layout", "Cross-Entity Binding"]
    row = {"prompt": caption, "prompt_points": names, "prompt_points_des": [caption, "a red circle"]}
    points.write_text(json.dumps(row) + "\n")
    more = ("--backend", "head", "--weights", str(head), "--points", str(points))
    assert cli.main(["keypoints", str(folder), "--output", str(tmp_path / "out"), *more]) == 0
    found = [json.loads(line) for line in (tmp_path / "out" / "keypoints.jsonl").read_text().splitlines()]
    match = np.array(
        [
            [one["match"] for one in found if one["kind"] == kind]
            for kind in ("entity_layout", "cross_entity_binding")
        ]
    )
    assert match.shape == (2, 16) and (match[:, :8].mean(1) > match[:, 8:].mean(1)).all()


def test_a_run_goes_on_from_its_cache_and_an_output_in_use_is_told(head, file, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in (head / "cache").glob("*.safetensors")}
    train = ["train", "evaluator", f"data={file}", "reward=toy-clip", f"output={head}"]
    assert cli.main(train) == 2
    assert "which is in use" in capsys.readouterr().err
    weights = (head / "head.safetensors").read_bytes()
    assert cli.main([*train, "resume=latest"]) == 0
    plan = capsys.readouterr().err
    assert (
        "run plan: evaluator" in plan and "key points, " in plan and "their accuracy must change by" in plan
    )
    assert {path.name: path.stat().st_mtime_ns for path in (head / "cache").glob("*.safetensors")} == before
    assert (head / "head.safetensors").read_bytes() == weights, "the same fit twice"
    assert cli.main([*train, "resume=latest", "pictures=8"]) == 2
    assert "made with another pictures" in capsys.readouterr().err


def test_embeddings_are_those_that_the_head_will_see_and_a_killed_run_embeds_the_rest(file, tmp_path):
    scorer = rewards.load("toy-clip")
    assert isinstance(scorer, rewards.TwoTower)
    records = list(read_annotated(str(file)))[:10]
    loads: list[int] = []

    def base() -> rewards.TwoTower:
        loads.append(1)
        return scorer

    def again() -> torch.Tensor:
        known = embed(iter(records), tmp_path / "cache", base, images=4, made_of=MADE_OF)
        wanted = features(scorer, images, [record.points for record in records])
        torch.testing.assert_close(known.features.image.cpu(), wanted.image, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(known.features.text.cpu(), wanted.text)
        assert known.features.kind.tolist() == wanted.kind.tolist()
        assert known.labels.tolist() == [float(match) for one in records for match in one.matches]
        named = [known.prompts[number] for number in known.numbers]
        assert named == [one.prompt for one in records for _ in one.points]
        return known.labels

    pixels = [np.array(Image.open(record.image).convert("RGB")) for record in records]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    again()
    (tmp_path / "cache" / "features-000001.safetensors").unlink()
    again()
    again()
    assert len(loads) == 2, "nothing to embed is no reason to load a scorer"
    with pytest.raises(ValueError, match="made with another data; expected the same"):
        embed(iter(records), tmp_path / "cache", base, images=4, made_of={"data": "e"})
    with pytest.raises(ValueError, match="got no annotated images"):
        embed(iter([]), tmp_path / "none", base, images=4, made_of=MADE_OF)


def test_an_image_that_cannot_be_read_leaves_no_part_of_a_file(file, tmp_path):
    records = list(read_annotated(str(file)))[:2]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    records[1] = type(records[1])("row 2", broken, "p", records[1].points, records[1].matches)
    with pytest.raises(ValueError, match=r"row 2: .*broken.png: got zero bytes"):
        embed(iter(records), tmp_path / "c", lambda: rewards.load("toy-clip"), images=2, made_of=MADE_OF)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["made_of.json"]


POINT = {"kind": "Counting", "description": "two dogs", "match": True}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_annotations_in_every_format(tmp_path, kind):
    points = [POINT, POINT | {"kind": "size", "match": 0}]
    row = {"image": "a.png", "prompt": "p", "points": points}
    table = tmp_path / f"t.{kind}"
    if kind == "jsonl":
        table.write_text(json.dumps(row) + "\n")
    elif kind == "csv":
        quoted = json.dumps(points).replace('"', '""')
        table.write_text(f'image,prompt,points\na.png,p,"{quoted}"\n')
    else:
        points = [one | {"match": bool(one["match"])} for one in points]
        pq.write_table(pa.Table.from_pylist([row | {"points": points}]), table)
    (found,) = read_annotated(str(table))
    assert found.points == (KeyPoint("counting", "two dogs"), KeyPoint("size", "two dogs"))
    assert found.matches == (True, False) and found.image == tmp_path / "a.png"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"points": []}, "line 1: got points that are no list or empty"),
        ({"points": [POINT | {"match": None}]}, "line 1: got key point .* match that is true or false"),
        ({"points": [POINT | {"match": 0.5}]}, "match that is true or false"),
        ({"points": [{"kind": "size", "match": 1}]}, "expected an object with kind, description"),
        ({"points": [POINT | {"kind": "Weather"}]}, "line 1: got key point 'Weather'"),
        ({"prompt": ""}, "line 1: got prompt ''"),
        ({"image": ""}, "line 1: got ''; expected a path, bytes or an image"),
    ],
)
def test_annotations_that_are_wrong_are_named(tmp_path, change, said):
    table = tmp_path / "t.jsonl"
    table.write_text(json.dumps({"image": "a.png", "prompt": "p", "points": [POINT]} | change) + "\n")
    with pytest.raises(ValueError, match=said):
        list(read_annotated(str(table)))


def test_a_table_without_the_columns(tmp_path):
    table = tmp_path / "t.jsonl"
    table.write_text(json.dumps({"image": "a.png", "prompt": "p"}) + "\n")
    with pytest.raises(ValueError, match="expected image, prompt, points; add points"):
        list(read_annotated(str(table)))


def test_a_scorer_without_two_towers_is_refused(file, tmp_path, capsys):
    more = ["reward=toy-oracle", f"output={tmp_path / 'out'}"]
    assert cli.main(["train", "evaluator", f"data={file}", *more]) == 2
    assert "got ToyOracle; expected a two-tower scorer" in capsys.readouterr().err
