"""GenEval's rules by hand, on published metadata, on a real image and in the toy world."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rewards
from rewards.detection.colours import BACKDROP, COLOURS, ClipColours, ColourClassifier, cut_out
from rewards.detection.counting import ObjectCount, best_threshold
from rewards.detection.detect import Detection, Detector
from rewards.detection.geneval import GenEval, judge, judge_dense, overall, relations, task_means
from rewards.detection.geneval_spec import TAGS, parse_spec, read_specs
from rewards.preprocess import Geometry
from rewards.towers.two_tower import Tower
from rewards.toy.detector import ToyDetector
from rewards.toy.world import Thing
from tests.rewards.detection.test_detect import DATA, FASTESTDET, draw, foreign, photo
from tests.rewards.fastestdet import FastestDet

PUBLISHED = DATA / "geneval/prompts/evaluation_metadata.jsonl"
published = pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"no {PUBLISHED}; set T2IALIGN_DATA")

LEFT, RIGHT = (0.0, 40.0, 20.0, 60.0), (80.0, 40.0, 100.0, 60.0)


def thing(label: str, score: float = 0.95, box=LEFT) -> Detection:
    return Detection(label, score, box)


class Fixed(Detector):
    """Finds the same in every image, and counts how often it looks."""

    def __init__(self, *detections: Detection) -> None:
        super().__init__()
        self.detections, self.images = detections, 0

    def detect(self, images: Tensor) -> list[list[Detection]]:
        self.images += len(images)
        return [list(self.detections) for _ in images]


class Named(ColourClassifier):
    """Colours dealt out in order; remembers how many crops it was asked about."""

    def __init__(self, *colours: str) -> None:
        super().__init__()
        self.colours = colours
        self.classified: list[tuple[str, int]] = []

    def classify(self, crops: Sequence[Tensor], label: str) -> list[str]:
        self.classified.append((label, len(crops)))
        return list(self.colours[: len(crops)])


def spec(include: list[dict], tag: str = "two_object", exclude: Iterable[dict] = ()):
    return parse_spec({"prompt": "p", "tag": tag, "include": include, "exclude": list(exclude)})


def verdicts(rules, requirement, detections: Sequence[Detection], colours: Sequence[str] = ()):
    """The verdict for one image, through the reward, as a user gets it."""
    form = {judge: "strict", judge_dense: "dense"}[rules]
    reward = GenEval(Fixed(*detections), {"p": requirement}, Named(*colours), form=form)
    (verdict,) = reward.verdicts(torch.zeros(1, 3, 100, 120), [["p"]])
    assert reward(torch.zeros(1, 3, 100, 120), ["p"]).tolist() == pytest.approx([verdict.credit])
    return verdict


def cats(count: int, **more) -> dict:
    return {"class": "cat", "count": count, **more}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (LEFT, RIGHT, {"left of"}),
        (RIGHT, LEFT, {"right of"}),
        ((40, 0, 60, 20), (40, 80, 60, 100), {"above"}),
        ((40, 80, 60, 100), (40, 0, 60, 20), {"below"}),
        ((10, 10, 50, 50), (0, 0, 60, 60), set()),  # one centre
        # Centres 10 apart: sides of 10 take 2 off and 0.8 of the distance is left, sides of 30 take 6 off.
        ((0, 0, 10, 10), (10, 0, 20, 10), {"left of"}),
        ((0, 0, 30, 10), (10, 0, 40, 10), set()),
        # The shortened offset is divided by the whole distance: (8, 8) / 14.1 = 0.57 holds on both axes,
        ((0, 0, 10, 10), (10, 10, 20, 20), {"left of", "above"}),
        # and (4, 8) / 14.1 = (0.28, 0.57) on one, though it is the diagonal.
        ((0, 0, 30, 10), (10, 10, 40, 20), {"above"}),
        # Exactly one half is not enough: 20 apart, 0.1 * 100 off.
        ((0, 0, 50, 10), (20, 0, 70, 10), set()),
    ],
)
def test_relations_are_those_of_the_shrunk_offset(a, b, expected):
    assert relations(a, b) == expected


def test_strict_asks_for_at_least_as_many():
    assert verdicts(judge, spec([cats(2)]), [thing("cat")] * 3).correct
    failed = verdicts(judge, spec([cats(2)]), [thing("cat"), thing("dog")])
    assert failed.reasons == ["found 1 cat, expected 2 or more"]
    both = spec([cats(1), {"class": "dog", "count": 1}])
    assert not verdicts(judge, both, [thing("cat")]).correct
    assert verdicts(judge, both, [thing("cat"), thing("dog")]).correct


def test_counting_prompts_need_surer_boxes_and_exclude_one_more():
    requirement = spec([cats(2)], tag="counting", exclude=[cats(3)])
    sure, unsure = thing("cat", 0.91), thing("cat", 0.9)  # the threshold itself is not above it
    assert verdicts(judge, requirement, [sure, sure]).correct
    assert verdicts(judge, requirement, [sure, sure, unsure]).correct
    assert verdicts(judge, requirement, [sure] * 3).reasons == ["found 3 cat, expected below 3"]
    assert not verdicts(judge, requirement, [sure, unsure]).correct
    other = spec([cats(2)], tag="two_object")
    assert verdicts(judge, other, [thing("cat", 0.31)] * 2).correct
    assert not verdicts(judge, other, [thing("cat", 0.3)] * 2).correct


def test_sixteen_detections_of_a_label_are_looked_at():
    crowd = [thing("cat")] * 20
    assert not verdicts(judge, spec([cats(17)]), crowd).correct
    assert verdicts(judge, spec([cats(1)], tag="counting", exclude=[cats(17)]), crowd).correct


def test_strict_looks_at_the_best_detections_only_and_at_all_of_them():
    requirement = spec([cats(2, color="red")], tag="colors")
    detections = [thing("cat", 0.4), thing("cat", 0.9), thing("cat", 0.8)]
    assert verdicts(
        judge, requirement, detections, ["red", "red", "blue"]
    ).correct  # the third is the least sure
    failed = verdicts(judge, requirement, detections, ["red", "blue", "red"])
    assert failed.reasons == ["found red, blue cat, expected 2 red"]
    classifier = Named("red", "red", "red")
    GenEval(Fixed(*detections), {"p": requirement}, classifier)(torch.zeros(1, 3, 100, 120), ["p"])
    assert classifier.classified == [("cat", 2)]


def test_every_pair_must_stand_in_the_relation():
    requirement = spec([cats(1), {"class": "dog", "count": 2, "position": ["right of", 0]}], tag="position")
    right, wrong = thing("dog", 0.9, RIGHT), thing("dog", 0.8, (0, 0, 20, 20))
    assert verdicts(judge, requirement, [thing("cat"), right, right]).correct
    assert verdicts(judge, requirement, [thing("cat"), right, wrong]).reasons == [
        "found dog above its target, expected right of"
    ]
    assert verdicts(judge, requirement, [right, right]).reasons == [
        "found 0 cat, expected 1 or more",
        "found no target for dog to be right of",
    ]


def test_a_target_of_the_wrong_colour_is_no_target():
    requirement = spec([cats(1, color="red"), {"class": "dog", "count": 1, "position": ["right of", 0]}])
    detections = [thing("cat"), thing("dog", 0.9, RIGHT)]
    assert verdicts(judge, requirement, detections, ["red"]).correct
    assert (
        verdicts(judge, requirement, detections, ["blue"]).reasons[-1]
        == "found no target for dog to be right of"
    )
    assert verdicts(judge_dense, requirement, detections, ["blue"]).credits == [1, 0, 1, 0]


def test_dense_credit_by_hand():
    two = spec([cats(1), {"class": "dog", "count": 1}])
    assert verdicts(judge_dense, two, [thing("cat")]).credits == [1, 0]
    assert verdicts(judge_dense, two, []).credit == 0
    four = spec([cats(4)], tag="counting", exclude=[cats(5)])
    for number, credit in {0: 0, 1: 0.25, 3: 0.75, 4: 1, 5: 0.75, 8: 0, 12: 0}.items():
        verdict = verdicts(judge_dense, four, [thing("cat")] * number)
        assert (verdict.credit, verdict.correct) == (credit, number == 4)
    colour = spec([cats(2, color="red")], tag="colors")
    assert verdicts(judge_dense, colour, [thing("cat")] * 2, ["red", "blue"]).credits == [1, 0.5]
    assert verdicts(judge_dense, colour, [thing("cat")] * 3, ["red", "red", "red"]).credits == [0.5, 0]


def test_dense_does_not_repeat_the_slips_of_the_released_server():
    two = spec([cats(1), {"class": "dog", "count": 1}])
    crowd = [thing("dog"), *[thing("cat")] * 4]
    assert verdicts(judge_dense, two, crowd).credits == [0, 1]  # there (-2 + 1) / 2
    place = spec([cats(1), {"class": "dog", "count": 1, "position": ["left of", 0]}], tag="position")
    detections = [thing("cat"), thing("dog", 0.9, RIGHT)]
    assert verdicts(judge_dense, place, detections).credits == [1, 1, 0]  # there a second, contrary 1 follows
    assert verdicts(judge_dense, place, [thing("cat"), thing("dog", 0.9, (-90, 40, -70, 60))]).credit == 1


def test_what_a_reward_cannot_judge_is_refused():
    requirement = {"p": spec([cats(1, color="red")])}
    with pytest.raises(ValueError, match=r"got 'p', about a colour, and no colour classifier"):
        GenEval(Fixed(), requirement)
    with pytest.raises(ValueError, match=r"got form 'lenient'; expected one of strict, dense"):
        GenEval(Fixed(), requirement, Named("red"), form="lenient")
    with pytest.raises(
        ValueError, match=r"got 'p', about cat; expected labels of the detector: circle, cross"
    ):
        GenEval(ToyDetector(), requirement, Named("red"))


def test_each_image_is_looked_at_once():
    detector = Fixed(thing("cat"))
    reward = GenEval(detector, {"one": spec([cats(1)]), "two": spec([cats(2)])})
    table = reward.table(torch.zeros(2, 3, 8, 8), [["one", "two", "one"], ["two"]])
    assert [row.tolist() for row in table] == [[1, 0, 1], [0]]
    assert detector.images == 2
    counter = ObjectCount(detector, reward.specs)
    assert [row.tolist() for row in counter.table(torch.zeros(1, 3, 8, 8), [["one", "two"]])] == [[1, 0.5]]
    assert detector.images == 3
    assert not reward.differentiable and not counter.differentiable


def test_the_headline_weighs_tasks_alike():
    scores, tags = [1, 1, 1, 0, 0], ["single_object"] * 3 + ["counting"] * 2
    assert task_means(scores, tags) == {"single_object": 1, "counting": 0}
    assert overall(scores, tags) == 0.5 != np.mean(scores)


def write(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = {"prompt": "a cat", "tag": "single_object", "include": [cats(1)]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a cat"}, 'expected an object with "prompt", "tag" and "include"'),
        ({**GOOD, "include": []}, "got no \"include\" for 'a cat'"),
        ({**GOOD, "include": cats(1)}, "expected a list of clauses"),
        ({**GOOD, "include": [cats(0)]}, "got count 0 of cat; expected a whole number from 1"),
        ({**GOOD, "include": [{"count": 1}]}, "name the class"),
        ({**GOOD, "include": [cats(1, color="teal")]}, "got color 'teal'; expected one of red, orange"),
        ({**GOOD, "include": [cats(1, position=["left of", 0])]}, "name a clause that precedes it"),
        ({**GOOD, "include": [cats(1), cats(1, position=["beside", 0])]}, "got position"),
        ({**GOOD, "include": [cats(2)]}, "got 'a cat' with two meanings"),
    ],
)
def test_metadata_that_is_wrong_names_the_line(tmp_path, row, message):
    path = write(tmp_path / "metadata.jsonl", GOOD, GOOD, row)
    with pytest.raises(ValueError) as error:
        read_specs(path)
    assert str(error.value).startswith(f"{path}:3: ") and message in str(error.value)


def test_metadata_that_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"absent.jsonl, which is no file; expected GenEval's"):
        read_specs(tmp_path / "absent.jsonl")
    with pytest.raises(ValueError, match="without a line"):
        read_specs(write(tmp_path / "empty.jsonl"))
    (tmp_path / "torn.jsonl").write_text('{"prompt": "a c')
    with pytest.raises(ValueError, match=r"torn.jsonl:1: Unterminated string"):
        read_specs(tmp_path / "torn.jsonl")
    for name in ("geneval", "geneval-dense", "count", "count-strict"):
        with pytest.raises(ValueError, match=r"got no metadata; expected the JSON-lines file"):
            rewards.load(name)


def test_a_prompt_without_metadata_names_the_nearest():
    reward = GenEval(Fixed(), {"a photo of a cat": spec([cats(1)]), "three dogs": spec([cats(1)])})
    with pytest.raises(
        ValueError, match=r"got prompt 'a photo of cat', .* of its 2, such as 'a photo of a cat'"
    ):
        reward(torch.zeros(1, 3, 8, 8), ["a photo of cat"])


@published
def test_the_published_metadata_is_read_whole():
    specs = read_specs(PUBLISHED)
    tags = Counter(requirement.tag for requirement in specs.values())
    assert tags == dict(zip(TAGS, (80, 99, 80, 94, 100, 100), strict=True))
    names = (DATA / "geneval/prompts/object_names.txt").read_text().strip().split("\n")
    assert {clause.label for requirement in specs.values() for clause in requirement.include} <= set(names)
    assert {clause.colour for requirement in specs.values() for clause in requirement.include} == {
        None,
        *COLOURS,
    }
    for requirement in specs.values():
        counts = [(clause.label, clause.count + 1) for clause in requirement.include]
        excluded = [(clause.label, clause.count) for clause in requirement.exclude]
        assert excluded == (counts if requirement.tag == "counting" else [])
    assert specs == read_specs(DATA / "flow-grpo/dataset/geneval/test_metadata.jsonl")  # each line four times
    assert len(read_specs(DATA / "flow-grpo/dataset/geneval_unseen_objects/test_metadata.jsonl")) == 256
    long = read_specs(DATA / "bagel-geneval-long/eval/gen/geneval/prompts/evaluation_metadata_long.jsonl")
    assert sorted(map(str, (s.include for s in long.values()))) == sorted(
        map(str, (s.include for s in specs.values()))
    )


@published
def test_a_perfect_detector_passes_all_published_prompts_and_an_empty_one_none():
    specs = read_specs(PUBLISHED)
    places = {"left of": (-90, 0), "right of": (90, 0), "above": (0, -90), "below": (0, 90), None: (0, 0)}
    for requirement in specs.values():
        objects = defaultdict(list)
        for clause in requirement.include:
            x, y = places[clause.relation]
            box = (x, y, x + 10, y + 10)
            objects[clause.label] += [Detection(clause.label, 1, box)] * clause.count
        wanted = {clause.label: clause.colour for clause in requirement.include}

        def colours(things, label, wanted=wanted):
            return [wanted[label]] * len(things)

        def wrong(things, label):
            return ["teal"] * len(things)

        for rules in (judge, judge_dense):
            assert rules(requirement, objects, colours).correct, requirement
            assert rules(requirement, objects, colours).credit == 1
            assert not rules(requirement, {}, colours).correct
            assert rules(requirement, {}, colours).credit == 0
            if any(wanted.values()):
                assert not rules(requirement, objects, wrong).correct


@foreign
def test_a_real_image_is_judged_by_a_real_detector(tmp_path):
    """Published weights and a generated image: a giraffe on the left, a stop sign on the right."""

    def row(prompt: str, *include: dict, tag: str = "position") -> dict:
        return {"prompt": prompt, "tag": tag, "include": list(include)}

    giraffe, sign = {"class": "giraffe", "count": 1}, {"class": "stop sign", "count": 1}
    truths = {
        "both": (row("both", giraffe, sign), 1, 1),
        "right": (row("right", giraffe, {**sign, "position": ["right of", 0]}), 1, 1),
        "left": (row("left", giraffe, {**sign, "position": ["left of", 0]}), 0, 2 / 3),
        "two": (row("two", {**giraffe, "count": 2}), 0, 0.5),
        "zebra": (row("zebra", giraffe, {"class": "zebra", "count": 1}), 0, 0.5),
    }
    specs = read_specs(write(tmp_path / "metadata.jsonl", *(row for row, _, _ in truths.values())))
    image = photo(
        DATA / "diffusion-nft/flow_grpo/test_cases/a photo of a brown giraffe and a white stop sign.png"
    )
    detector = FastestDet(FASTESTDET)
    for form, column in (("strict", 1), ("dense", 2)):
        (scores,) = GenEval(detector, specs, form=form).table(image, [list(truths)])
        assert scores.tolist() == pytest.approx([row[column] for row in truths.values()])

    people = {"p": spec([{"class": "person", "count": 4}], "counting", [{"class": "person", "count": 5}])}
    four = photo(FASTESTDET / "data/3.jpg")
    assert GenEval(detector, people)(four, ["p"]).tolist() == [0]  # none of the four is above 0.9
    assert GenEval(detector, people, counting_threshold=0.5)(four, ["p"]).tolist() == [1]
    assert ObjectCount(detector, people)(four, ["p"]).tolist() == [1]


def test_the_threshold_for_counting_is_the_one_that_counts_held_out_images_right():
    sure, doubtful = thing("cat", 0.7), thing("cat", 0.42, RIGHT)
    detections, counts = [[sure, doubtful], [sure], [doubtful]], [{"cat": 1}, {"cat": 1}, {"cat": 0}]
    assert 0.42 < best_threshold(detections, counts) < 0.7
    reward = ObjectCount(
        Fixed(sure, doubtful), {"p": spec([cats(1)])}, threshold=best_threshold(detections, counts)
    )
    assert reward(torch.zeros(1, 3, 8, 8), ["p"]).tolist() == [1]


def test_counts_suppress_boxes_of_one_object():
    twice = [thing("cat", 0.9, (0, 0, 10, 10)), thing("cat", 0.8, (1, 0, 11, 10)), thing("cat", 0.7, RIGHT)]
    requirement = {"p": spec([cats(2), {"class": "dog", "count": 1}])}
    zeros = torch.zeros(1, 3, 8, 8)
    assert ObjectCount(Fixed(*twice), requirement)(zeros, ["p"]).tolist() == [0.5]
    assert ObjectCount(Fixed(*twice), requirement, form="strict")(zeros, ["p"]).tolist() == [0]
    assert ObjectCount(Fixed(*twice, thing("dog")), requirement, form="strict")(zeros, ["p"]).tolist() == [1]
    assert ObjectCount(Fixed(*twice, thing("dog")), requirement, max_overlap=1.0)(zeros, ["p"]).tolist() == [
        0.75
    ]


def test_the_toy_world_is_judged_by_its_oracle(tmp_path):
    """GenEval's verdict on drawn scenes is the truth of the drawing, in number, colour and place."""
    circle, square = {"class": "circle", "count": 1}, {"class": "square", "count": 1}
    rows = [
        {"prompt": "red circle", "tag": "colors", "include": [{**circle, "color": "red"}]},
        {
            "prompt": "two circles",
            "tag": "counting",
            "include": [{**circle, "count": 2}],
            "exclude": [{**circle, "count": 3}],
        },
        {
            "prompt": "square left",
            "tag": "position",
            "include": [circle, {**square, "position": ["left of", 0]}],
        },
        {
            "prompt": "both colours",
            "tag": "color_attr",
            "include": [{**circle, "color": "red"}, {**square, "color": "blue"}],
        },
    ]
    metadata = write(tmp_path / "metadata.jsonl", *rows)
    options = {"metadata": str(metadata), "weights": "toy", "colour_weights": "toy"}
    prompts = [row["prompt"] for row in rows]
    scenes = [
        (draw(Thing("circle", "red", 22, 16, 4.0), Thing("square", "blue", 8, 16, 4.0)), [1, 0, 1, 1]),
        (draw(Thing("circle", "red", 8, 16, 4.0), Thing("square", "green", 22, 16, 4.0)), [1, 0, 0, 0]),
        (draw(Thing("circle", "blue", 8, 8, 4.0), Thing("circle", "red", 22, 22, 4.0)), [0, 1, 0, 0]),
        (draw(*(Thing("circle", "red", x, 16, 3.5) for x in (5, 16, 27))), [1, 0, 0, 0]),
    ]
    strict, dense = rewards.load("geneval", **options), rewards.load("geneval-dense", **options)
    for image, expected in scenes[:2] + scenes[3:]:
        assert strict(image.expand(4, -1, -1, -1), prompts).tolist() == expected
    # Of two circles as sure as each other the first found is judged, the blue one.
    assert strict(scenes[2][0].expand(4, -1, -1, -1), prompts).tolist() == scenes[2][1]
    assert dense(scenes[1][0].expand(4, -1, -1, -1), prompts).tolist() == pytest.approx([1, 0.5, 2 / 3, 0.75])
    assert strict.category("two circles") == "counting"


RGB = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "white": (1, 1, 1)}


class RgbTower(Tower):
    """Embeds an image as its mean colour less grey, and a text as the colour it names."""

    def __init__(self) -> None:
        super().__init__()
        self.texts_encoded: list[str] = []
        self.one = nn.Parameter(torch.ones(1), requires_grad=False)

    def text_parameters(self):
        return [self.one]

    def encode_image(self, pixels: Tensor) -> Tensor:
        return nn.functional.normalize(pixels.mean((2, 3)) - BACKDROP, dim=-1)

    def encode_text(self, prompts: list[str]) -> Tensor:
        self.texts_encoded += prompts
        named = [next((c for c in RGB if f" {c}" in prompt), "black") for prompt in prompts]
        return nn.functional.normalize(
            torch.tensor([RGB.get(name, (-1, -1, -1)) for name in named]).float() - 0.5, dim=-1
        )


def test_colours_are_told_by_three_templates_on_the_cut_out_object():
    tower = RgbTower()
    plain = Geometry(16, "squash", mean=(0.0,) * 3, std=(1.0,) * 3)
    image = torch.zeros(3, 40, 60)
    image[:, 10:20, 10:30] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    image[:, 10:20, 30:50] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    red, blue = Detection("cup", 0.9, (10, 10, 30, 20)), Detection("cup", 0.9, (30, 10, 50, 20))
    crops = [cut_out(image, red), cut_out(image, blue)]
    assert [crop.shape for crop in crops] == [(3, 10, 20)] * 2
    assert ClipColours(tower, plain).classify(crops, "cup") == ["red", "blue"]
    assert len(tower.texts_encoded) == 30
    assert tower.texts_encoded[:3] == [
        "a photo of a red cup",
        "a photo of a red-colored cup",
        "a photo of a red object",
    ]
    assert ClipColours(tower, plain).classify([], "cup") == []


def test_masks_grey_out_what_is_not_the_object():
    image = torch.zeros(3, 4, 6)
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1, 2] = True
    crop = cut_out(image, Detection("cup", 0.9, (1.4, 0.5, 3.6, 2.5), mask))
    assert crop.shape == (3, 2, 3)  # borders 1, 0, 4, 2: halves round to even, as PIL's crop does
    assert crop[0].tolist() == [pytest.approx([0.6] * 3), pytest.approx([0.6, 0.0, 0.6])]
    assert cut_out(image, Detection("cup", 0.9, (9.0, 9.0, 9.2, 9.1))).shape == (3, 1, 1)
    assert cut_out(image, Detection("cup", 0.9, (-5.0, -5.0, 99.0, 99.0))).shape == (3, 4, 6)
