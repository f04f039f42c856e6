"""Several rewards at once: shared squares, shared towers, and the scores of each alone."""

import pytest
import torch
from PIL import Image
from torch import Tensor

import rewards
from rewards import Prepared, Reward
from rewards.combine import WeightedSum
from rewards.preprocess import HPS_224, Geometry
from rewards.scorers import pal_reward
from rewards.scorers.aesthetic import Aesthetic
from rewards.scorers.clip import ClipScore
from rewards.scorers.hpsv2 import HumanPreferenceScore
from rewards.scorers.pal import PalA
from rewards.towers.clip_towers import load_tower
from tests.rewards import tiny_clip


class Redness(Reward):
    """Needs the images themselves."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        return images[:, 0].mean((1, 2))


class Counted(Geometry):
    """Counts its resizes, by the size of the batch."""

    calls: list[int] = []  # noqa: RUF012

    def tensor(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        return super().tensor(images)


def panel(geometry: Geometry | None = None) -> tuple[tiny_clip.TransformersClip, dict[str, Reward]]:
    geometry = geometry or Geometry(32)
    torch.manual_seed(0)
    tower = tiny_clip.tower()
    return tower, {
        "clip": ClipScore(tower, geometry),
        "aesthetic": Aesthetic(tower, torch.randn(tiny_clip.DIM), torch.tensor(5.0), geometry),
        "other": ClipScore(tiny_clip.tower(1), geometry),
        "padded": HumanPreferenceScore(tower, Geometry(32, "pad", source="float")),
        "red": Redness(),
    }


def test_each_reward_scores_as_if_alone():
    _, several = panel()
    images, prompts = torch.rand(5, 3, 40, 50), ["a", "bb", "a", "c d", "bb"]
    scores = rewards.score_all(several, images, prompts)
    assert list(scores) == list(several)
    for name, reward in several.items():
        assert torch.equal(scores[name], reward(images, prompts)), name


def test_one_resize_a_geometry_and_one_forward_a_tower():
    Counted.calls.clear()
    tower, several = panel(Counted(32))
    image_rows, text_rows = tiny_clip.counts(tower, "image"), tiny_clip.counts(tower, "text")
    rewards.score_all(several, torch.rand(5, 3, 40, 50), ["a", "bb", "a", "c d", "bb"])
    assert Counted.calls == [5]  # three rewards
    assert image_rows == [5, 5]  # clip and aesthetic together, and the padded image
    assert text_rows == [3]


def test_prepared_squares_take_the_place_of_images():
    _, several = panel()
    images, prompts = torch.rand(2, 3, 40, 50), ["a", "b"]
    crop, pad = Geometry(32), Geometry(32, "pad", source="float")
    prepared = {crop: crop.tensor(images), pad: pad.tensor(images)}
    red = several.pop("red")
    assert torch.equal(
        rewards.score_all(several, None, prompts, prepared)["padded"], several["padded"](images, prompts)
    )
    with pytest.raises(ValueError, match="got no images for red; expected them"):
        rewards.score_all({**several, "red": red}, None, prompts, prepared)
    with pytest.raises(ValueError, match="got no images for padded"):
        rewards.score_all(several, None, prompts, {crop: prepared[crop]})
    with pytest.raises(ValueError, match="got 1 prompts for 2 rows"):
        rewards.score_all(several, None, ["a"], prepared)
    with pytest.raises(ValueError, match=r"got pixels in \[.*expected \[0, 1\]"):
        rewards.score_all(several, images + 1, prompts)


def test_gradient_reaches_the_image_through_all_of_them():
    _, several = panel()
    images = torch.rand(2, 3, 40, 50, requires_grad=True)
    scores = rewards.score_all(several, images, ["a", "b"])
    together = torch.autograd.grad(sum(score.sum() for score in scores.values()), images)[0]
    images = images.detach().requires_grad_()
    alone = sum(torch.autograd.grad(r(images, ["a", "b"]).sum(), images)[0] for r in several.values())
    assert (together - alone).abs().max() < 1e-5 * alone.abs().max()


def test_rewards_of_equal_weights_are_loaded_once(tmp_path):
    """aesthetic and clipscore-l share one CLIP in memory and one forward an image."""
    model = tiny_clip.random_model()
    folder = tiny_clip.save_folder(model, tmp_path / "clip")
    head = tmp_path / "head.safetensors"
    from safetensors.torch import save_file

    save_file({"weight": torch.randn(1, tiny_clip.DIM), "bias": torch.zeros(1)}, head)
    loaded = rewards.load_all(
        ["clipscore-l", "aesthetic", "clipscore"],
        {
            "clipscore-l": {"weights": str(folder)},
            "aesthetic": {"clip": str(folder / "model.safetensors"), "weights": str(head)},
            "clipscore": {"weights": str(folder)},
        },
    )
    assert loaded["clipscore-l"].tower is loaded["aesthetic"].tower
    rows = tiny_clip.counts(loaded["clipscore-l"].tower, "image")
    rewards.score_all(
        {name: loaded[name] for name in ("clipscore-l", "aesthetic")}, torch.rand(4, 3, 32, 32), ["a"] * 4
    )
    assert rows == [4]
    separate = rewards.load("clipscore-l", weights=str(folder))
    assert separate.tower is not loaded["clipscore-l"].tower


def test_rewards_made_of_others_share_their_towers(tmp_path, monkeypatch):
    """TextNorm, PAL and a sum over clipscore-l, beside clipscore-l itself: one CLIP in memory."""
    torch.manual_seed(0)
    tiny_clip.save_folder(tiny_clip.random_model(), tmp_path / "openai" / "clip-vit-large-patch14")
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(tmp_path))
    (tmp_path / "sets.json").write_text('{"a cat": ["a dog"]}')
    pal_reward.save(PalA(tiny_clip.DIM, 2, width=8), tmp_path / "head.safetensors")
    loaded = rewards.load_all(
        ["rewards.scorers.textnorm", "rewards.scorers.pal_reward", "rewards.combine", "clipscore-l"],
        {
            "rewards.scorers.textnorm": {
                "base": "clipscore-l",
                "contrast": str(tmp_path / "sets.json"),
                "scale": 2.0,
            },
            "rewards.scorers.pal_reward": {
                "base": "clipscore-l",
                "weights": str(tmp_path / "head.safetensors"),
            },
            "rewards.combine": {"members": {"clipscore-l": 2.0}},
        },
    )
    clip = loaded["clipscore-l"]
    normalised, pal, total, _ = loaded.values()
    assert normalised.base.tower is pal.tower is total.members["clipscore-l"].tower is clip.tower
    scores = rewards.score_all(loaded, torch.rand(1, 3, 32, 32), ["a cat"])
    assert torch.allclose(scores["rewards.combine"], 2 * scores["clipscore-l"])


def test_load_all_checks_its_options():
    with pytest.raises(ValueError, match="got options of hpsv3; expected options of toy-clip"):
        rewards.load_all(["toy-clip"], {"hpsv3": {}})
    with pytest.raises(
        ValueError, match=r"got options of toy-clip that do not fit: .*'colour'.*expected path"
    ):
        rewards.load_all(["toy-clip"], {"toy-clip": {"colour": 1}})
    assert list(rewards.load_all(["toy-oracle", "toy-clip", "toy-oracle"])) == [
        "toy-oracle",
        "toy-clip",
    ]


def test_precision_and_architecture_keep_towers_apart(tmp_path):
    folder = str(tiny_clip.save_folder(tiny_clip.random_model(), tmp_path))
    towers: dict = {}
    first = load_tower(folder, towers=towers)
    assert load_tower(folder, towers=towers) is first
    assert load_tower(folder, dtype="bfloat16", towers=towers) is not first
    assert load_tower(folder, tokenizer="transformers", towers=towers) is not first
    assert len(towers) == 3


def test_hps_geometry_is_the_padded_one():
    assert HumanPreferenceScore(tiny_clip.tower()).geometry == HPS_224


class Spoiler(Reward):
    """Writes into all that it is given, past the version counter of torch too."""

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        score = images[:, 1].mean((1, 2))
        images.detach().numpy()[:] = 0.5
        images.data.zero_()
        prompts[:] = ["spoilt"] * len(prompts)
        return score

    def score_pil(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        for image in images:
            image.paste((0, 0, 0), (0, 0, *image.size))
        return torch.zeros(len(images))


class SpoilerOfSquares(Prepared):
    """The same with squares that it shares with others."""

    geometry = Geometry(32)

    def score_prepared(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        score = pixels.mean((1, 2, 3))
        pixels.zero_()
        return score


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_reward_that_writes_into_its_input_changes_no_other_score(mode):
    _, several = panel()
    images, prompts = torch.rand(2, 3, 40, 50), ["a", "b"]
    before = images.clone()
    with mode():
        alone = rewards.score_all(several, images, prompts)
        first = {"spoiler": Spoiler(), "squares": SpoilerOfSquares()}
        for order in ({**first, **several}, {**several, **first}):
            scores = rewards.score_all(order, images, prompts)
            assert all(torch.equal(scores[name], alone[name]) for name in several)
            assert torch.equal(scores["spoiler"], before[:, 1].mean((1, 2)))
        nested = WeightedSum({"spoiler": Spoiler(), "red": Redness()}, {"spoiler": 0.0, "red": 1.0})
        scores = rewards.score_all({"nested": nested, "red": Redness()}, images, prompts)
        assert torch.equal(scores["nested"], scores["red"])
    assert torch.equal(images, before) and prompts == ["a", "b"]


def test_a_reward_that_paints_over_pil_images_changes_no_other_score():
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    scores = rewards.score({"spoiler": Spoiler(), "red": Redness()}, [image], ["a"])
    assert scores["red"].tolist() == [1.0] and image.getpixel((0, 0)) == (255, 0, 0)
