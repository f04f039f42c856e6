"""Detectors: real transformers models with tiny random networks, Mask2Former by hand, and a foreign one."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    ResNetConfig,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    SwinConfig,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

from rewards.detection.detect import (
    Detection,
    Detector,
    MaskDetector,
    TransformersDetector,
    canonical,
    enclosing,
    inside,
    overlap,
    select,
)
from rewards.detection.detectors import load_detector
from rewards.toy.detector import ToyColours, ToyDetector
from rewards.toy.world import COLOURS, SHAPES, Thing, coverage, distance_map
from tests.rewards.fastestdet import FastestDet

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
FASTESTDET = DATA / "weights/fastestdet"
NAMES = {0: "N/A", 1: "tvmonitor", 2: "person", 3: "mouse"}

foreign = pytest.mark.skipif(
    not FASTESTDET.is_dir(), reason=f"no FastestDet weights in {FASTESTDET}; set T2IALIGN_DATA"
)


def detr() -> tuple[DetrForObjectDetection, DetrImageProcessor]:
    backbone = ResNetConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, embedding_size=8, out_features=["stage4"]
    )
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 12}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = DetrConfig(
        backbone_config=backbone, encoder_layers=1, decoder_layers=1, id2label=NAMES, **sizes, **heads
    )
    return DetrForObjectDetection(config), DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})


def yolos() -> tuple[YolosForObjectDetection, YolosImageProcessor]:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = YolosConfig(image_size=(64, 64), num_detection_tokens=12, id2label=NAMES, **sizes)
    return YolosForObjectDetection(config), YolosImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 96}
    )


def rt_detr() -> tuple[RTDetrForObjectDetection, RTDetrImageProcessor]:
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8] * 4,
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    sizes = {"encoder_hidden_dim": 16, "d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "decoder_layers": 1,
        "num_queries": 12,
    }
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[8] * 3,
        decoder_in_channels=[16] * 3,
        id2label=NAMES,
        **sizes,
        **heads,
    )
    return RTDetrForObjectDetection(config), RTDetrImageProcessor(size={"height": 64, "width": 64})


def mask2former() -> tuple[Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor]:
    backbone = SwinConfig(
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1, 1, 2, 2],
        window_size=4,
        image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    sizes = {
        "hidden_dim": 32,
        "feature_size": 32,
        "mask_feature_size": 32,
        "dim_feedforward": 16,
    }  # 32 groups
    layers = {
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_feedforward_dim": 16,
        "num_attention_heads": 2,
    }
    config = Mask2FormerConfig(backbone_config=backbone, num_queries=6, id2label=NAMES, **sizes, **layers)
    processor = Mask2FormerImageProcessor(size={"shortest_edge": 48, "longest_edge": 96}, size_divisor=32)
    return Mask2FormerForUniversalSegmentation(config), processor


def noise(count: int, height: int = 40, width: int = 56) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def photo(path: Path) -> Tensor:
    array = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("family", [detr, yolos, rt_detr])
def test_a_transformers_detector_says_what_its_own_pipeline_says(family):
    """The boxes of an image in a batch are those that transformers itself gives for the eight-bit image."""
    torch.manual_seed(0)
    model, processor = family()
    detector = TransformersDetector(model, processor, lowest=0.1)
    images = noise(3)
    things = detector(images)
    assert sum(map(len, things)) > 0
    image = Image.fromarray((images[1] * 255).round().byte().permute(1, 2, 0).numpy())
    with torch.no_grad():
        outputs = model(**processor(images=image, return_tensors="pt"))
    (detections,) = processor.post_process_object_detection(outputs, threshold=0.1, target_sizes=[(40, 56)])
    order = detections["scores"].argsort(descending=True, stable=True).tolist()
    order_kept = [i for i in order if int(detections["labels"][i])]  # 0 is N/A
    assert [thing.label for thing in things[1]] == [
        canonical(NAMES[int(detections["labels"][i])]) for i in order_kept
    ]
    assert [thing.score for thing in things[1]] == pytest.approx(
        [float(detections["scores"][i]) for i in order_kept], abs=1e-5
    )
    for thing, index in zip(things[1], order_kept, strict=True):
        expected = inside(detections["boxes"][index].tolist(), (40, 56))
        assert thing.box == pytest.approx(expected, abs=0.01)
    assert detector.labels == {"tv", "person", "computer mouse"}


def test_a_detector_survives_saving_and_loading_by_its_folder(tmp_path):
    torch.manual_seed(0)
    for family, kind in ((detr, TransformersDetector), (mask2former, MaskDetector)):
        model, processor = family()
        folder = tmp_path / kind.__name__
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        loaded = load_detector(str(folder))
        assert type(loaded) is kind
        loaded.lowest = 0.0
        things, expected = loaded(noise(2))[1], kind(model, processor, lowest=0.0)(noise(2))[1]
        assert things and [thing.label for thing in things] == [thing.label for thing in expected]
        for one, two in zip(things, expected, strict=True):
            assert one.score == pytest.approx(two.score, abs=1e-5)
            assert one.box == pytest.approx(two.box, abs=0.01)


def test_mask2former_gives_boxes_around_masks_of_the_size_of_the_image():
    torch.manual_seed(0)
    detector = MaskDetector(*mask2former(), lowest=0.0)
    things = detector(noise(2))
    assert sum(map(len, things)) > 0
    for thing in things[0] + things[1]:
        assert thing.mask is not None and thing.mask.shape == (40, 56) and thing.mask.dtype == torch.bool
        assert thing.box == enclosing(thing.mask)
        assert 0 < thing.score < 1


def test_mask2former_scores_are_class_chance_times_mean_mask_chance():
    detector = MaskDetector(*mask2former(), lowest=0.25)
    classes = torch.full((2, 5), -20.0)  # N/A, tv, person, computer mouse, no object
    classes[0, 2] = classes[0, 4] = 0.0  # half a person
    classes[1, 1] = 0.0
    masks = torch.full((2, 6, 8), -5.0)
    masks[0, 1:3, 2:6] = 0.0 + torch.logit(torch.tensor(0.8))
    masks[1, 4, 7] = torch.logit(torch.tensor(0.6))
    things = detector.instances(classes, masks)
    assert [(thing.label, thing.box) for thing in things] == [("tv", (7, 4, 8, 5)), ("person", (2, 1, 6, 3))]
    assert [thing.score for thing in things] == pytest.approx([0.6, 0.4], abs=1e-5)
    assert not MaskDetector(*mask2former()).instances(classes, torch.full((2, 6, 8), -5.0))


def test_mask2former_leaves_its_padding_out():
    """A mask that covers exactly the image within the padded square covers the whole image."""
    model, processor = mask2former()
    processor.pad_size = {"height": 96, "width": 128}
    detector = MaskDetector(model, processor)
    inputs = processor(images=[(noise(1)[0] * 255).byte()], return_tensors="pt")
    used = inputs["pixel_mask"][0]
    assert not used.all(), "the processor pads here"

    def forward(**given: Tensor):
        masks = torch.where(given["pixel_mask"][:, None].bool(), 9.0, -9.0)
        classes = torch.tensor([[[-9.0, -9.0, 9.0, -9.0, -9.0]]])
        return type(model(**inputs))(class_queries_logits=classes, masks_queries_logits=masks)

    detector.model = type(
        "Stub", (torch.nn.Module,), {"device": torch.device("cpu"), "forward": lambda _, **g: forward(**g)}
    )()
    ((thing,),) = detector(noise(1))
    assert thing.label == "person" and thing.box == (0, 0, 56, 40) and thing.mask.all()


def test_labels_are_spelled_as_geneval_spells_them():
    listed = DATA / "geneval/prompts/object_names.txt"
    if not listed.is_file():
        pytest.skip(f"no {listed}; set T2IALIGN_DATA")
    names = (FASTESTDET / "example/onnx-runtime/coco.names").read_text().split()
    assert {"tvmonitor", "pottedplant"} <= set(names)
    voc = (FASTESTDET / "example/onnx-runtime/coco.names").read_text().strip().split("\n")
    assert [canonical(name) for name in voc] == listed.read_text().strip().split("\n")


def test_overlap_and_selection():
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2), pixel=1) == pytest.approx(6 / 12)
    assert overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0 == overlap((0, 0, 0, 0), (0, 0, 0, 0))
    things = [
        Detection("cat", 0.5, (0, 0, 10, 10)),
        Detection("cat", 0.9, (0, 0, 10, 9)),
        Detection("dog", 0.3, (0, 0, 10, 10)),
        Detection("cat", 0.31, (50, 50, 60, 60)),
    ]
    assert {k: [t.score for t in v] for k, v in select(things, threshold=0.3).items()} == {
        "cat": [0.9, 0.5, 0.31]
    }
    assert [t.score for t in select(things, threshold=0.3, most=2)["cat"]] == [0.9, 0.5]
    assert [t.score for t in select(things, threshold=0.3, max_overlap=0.5)["cat"]] == [0.9, 0.31]
    # The limit comes before the suppression, as in the released evaluation.
    assert [t.score for t in select(things, threshold=0.3, most=2, max_overlap=0.5)["cat"]] == [0.9]


def test_a_detector_must_answer_for_every_image():
    class Silent(Detector):
        def detect(self, images: Tensor) -> list[list[Detection]]:
            return []

    with pytest.raises(ValueError, match=r"got 0 lists from Silent.detect; expected 2"):
        Silent()(noise(2))


def test_sources_that_name_no_detector(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(
        ValueError, match=r"which holds model.safetensors; expected config.json; put it there"
    ):
        load_detector(str(tmp_path))
    assert isinstance(load_detector("toy"), ToyDetector)
    assert isinstance(load_detector("rewards.toy.detector:ToyDetector"), ToyDetector)
    with pytest.raises(
        ValueError, match=r"got nowhere.at_all:Name, which does not load \(ModuleNotFoundError: "
    ):
        load_detector("nowhere.at_all:Name")
    with pytest.raises(ValueError, match=r"got rewards.toy.detector:ToyColours; expected a subclass"):
        load_detector("rewards.toy.detector:ToyColours")


def draw(*things: Thing) -> Tensor:
    """Things on a white canvas of 32 pixels: (1, 3, 32, 32)."""
    image: np.ndarray = np.ones((32, 32, 3))
    for thing in things:
        ink = coverage(distance_map(thing))[..., None]
        image = image * (1 - ink) + np.asarray(COLOURS[str(thing.colour)]) * ink
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_the_oracle_detector_boxes_the_ink(shape, colour):
    image = draw(Thing(shape, colour, 14.3, 17.2, 5.8))
    ((thing,),) = ToyDetector()(image)
    assert (thing.label, thing.score) == (shape, 1.0)
    assert thing.box == pytest.approx(enclosing(image[0].mean(0) < 0.98), abs=1.1)
    assert ToyColours().classify([image[0]], shape) == [colour]


def test_the_oracle_detector_does_not_guess():
    image = draw(Thing("circle", "red", 8, 8, 5.0))
    image[:, :, 20:24, 4:30] = 0.1  # a bar is no shape of this world
    assert sorted(thing.label for thing in ToyDetector()(image)[0]) == ["circle", "unknown"]
    assert ToyDetector()(torch.ones(1, 3, 32, 32)) == [[]]
    assert ToyColours().classify([torch.ones(3, 16, 16)], "circle") == ["unknown"]


@foreign
@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (
            "diffusion-nft/flow_grpo/test_cases/a photo of a brown giraffe and a white stop sign.png",
            {"stop sign": 1, "giraffe": 1},
        ),
        ("diffusion-nft/flow_grpo/test_cases/cat.jpg", {"cat": 1}),
        ("images/skimage/skimage/data/chelsea.png", {"cat": 1}),
        ("images/skimage/skimage/data/coffee.png", {"cup": 1}),
        ("images/skimage/skimage/data/astronaut.png", {"person": 1}),
        ("weights/fastestdet/data/1.jpg", {"bus": 1}),
        ("weights/fastestdet/data/3.jpg", {"person": 4}),
    ],
)
def test_a_foreign_detector_finds_what_is_there(file, expected):
    """Published weights, whose images nobody here made, through the same interface."""
    (things,) = FastestDet(FASTESTDET)(photo(DATA / file))
    print(file, [(thing.label, round(thing.score, 2), tuple(map(round, thing.box))) for thing in things])
    assert {label: len(things) for label, things in select(things, threshold=0.5).items()} == expected
