"""Loads a detector by name: the toy world's oracle, a published one, or one of your own."""

import inspect
from importlib import import_module
from typing import Any

from rewards.detection.colours import ClipColours, ColourClassifier
from rewards.detection.detect import Detector, MaskDetector, TransformersDetector
from rewards.foreign import reading
from rewards.preprocess import Geometry
from rewards.renamed import current
from rewards.towers.clip_towers import load_tower
from rewards.towers.two_tower import Tower
from rewards.toy.detector import ToyColours, ToyDetector
from rewards.user_code import announce, refuse_recorded, returned
from rewards.weights import align_weights, find

GENEVAL = "facebook/mask2former-swin-small-coco-instance"
"""GenEval's detector (Mask2Former, Swin-S, COCO instances; MIT) in `transformers` form."""

GENEVAL_CLIP = "openai/clip-vit-large-patch14"
TOY = "toy"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def load_detector(source: str, sha256: str | None = None) -> Detector:
    """A detector, by "toy", by "package.module:Name", or by a folder or Hub id in `transformers` form.

    `Name` is called without arguments; `sha256` pins the weights file. A Mask2Former becomes a MaskDetector,
    any other checkpoint a TransformersDetector. Raises ValueError for what does not load or is no Detector.
    """
    if current(source) == TOY:
        return ToyDetector()
    if ":" in source:
        return _called(source).eval()
    return _pretrained(source, sha256)


def load_colours(
    source: str | None = None, sha256: str | None = None, towers: dict[str, Tower] | None = None
) -> ColourClassifier:
    """A colour classifier: "toy", or a CLIP by file, folder or Hub id, by default GenEval's ViT-L/14.

    An equal CLIP among `towers` is shared. Raises ValueError for what `load_tower` refuses.
    """
    if source is not None and current(source) == TOY:
        return ToyColours()
    tower = load_tower(
        source or GENEVAL_CLIP, architecture="ViT-L-14-quickgelu", sha256=sha256, towers=towers
    )
    return ClipColours(tower, Geometry(tower.size))


def _called(source: str) -> Detector:
    """A detector of the user's own, which no file of weights may name. What is no Detector is not called."""
    refuse_recorded(source, "detector")
    path, name = source.split(":", 1)
    try:
        announce(path, f"the detector {source}")
        kind: Any = getattr(import_module(path), name)
        result = returned(kind) if inspect.isfunction(kind) else kind
        if not (inspect.isclass(result) and issubclass(result, Detector)):
            raise ValueError(
                f"got {source}; expected a subclass of rewards.detection.detect.Detector, or a function "
                "annotated to return one; name one"
            )
        made: Detector = kind()
        return made
    except (ValueError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # code of users fails in any way
        raise ValueError(
            f"got {source}, which does not load ({type(error).__name__}: {error}); expected "
            "package.module:Name; check the spelling and PYTHONPATH"
        ) from error


def _pretrained(source: str, sha256: str | None) -> TransformersDetector:
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForObjectDetection,
        AutoModelForUniversalSegmentation,
    )

    for name in ("config.json", "preprocessor_config.json"):
        find(source, name)  # beside the weights, in a folder of the user's or of the Hub's cache
    folder = find(source, WEIGHTS, sha256=sha256).parent
    with reading(folder, "a detector of transformers"):
        masks = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type == "mask2former"
        auto = AutoModelForUniversalSegmentation if masks else AutoModelForObjectDetection
        wrap = MaskDetector if masks else TransformersDetector
        model = auto.from_pretrained(folder, trust_remote_code=False)
        align_weights(model)
        return wrap(model, AutoImageProcessor.from_pretrained(folder, trust_remote_code=False))
