"""What the public functions say of mistakes that people make in Python, and the old names that they take."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

import t2ialign
from rewards import LatentReward, Reward

IMAGE = Image.new("RGB", (8, 8), (200, 0, 0))
FAST: dict[str, Any] = {"num_inference_steps": 2}


class Redness(Reward):
    """The mean of the red channel."""

    needs_text = False

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """(B, 3, H, W) -> (B,)"""
        return images[:, 0].mean((1, 2))


class Stillness(LatentReward):
    """How small a latent is."""

    def score(self, latents: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """(B, C, h, w) -> (B,)"""
        return -latents.square().mean((1, 2, 3))


class OneNumber(Reward):
    """One score for all images, which is a mistake."""

    needs_text = False

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """(B, 3, H, W) -> ()"""
        return images.mean()


def test_old_names_of_parameters_are_taken_and_signatures_stay() -> None:
    old: dict[str, Any] = {"num_steps": 2, "guidance": 3.0}
    (row,) = t2ialign.sample("toy", "a red circle", **old).rows
    assert (row["steps"], row["guidance"]) == (2, 3.0)
    parameters = list(inspect.signature(t2ialign.sample).parameters)
    assert parameters[:3] == ["model", "prompts", "num_images_per_prompt"]
    assert (t2ialign.sample.__doc__ or "").startswith("Render images from prompts")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "guidence_scale",
            r"got guidence_scale, which is none of its parameters; did you mean guidance_scale\?",
        ),
        ("steps", "did you mean num_inference_steps"),
        ("negative_prompt", r"which is none of its parameters; help\(t2ialign.sample\) lists all"),
    ],
)
def test_unknown_parameters_name_the_nearest_one(name: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        t2ialign.sample("toy", "a red circle", **{name: 1})  # type: ignore[arg-type]


def test_an_old_name_beside_the_new_one_is_refused() -> None:
    both: dict[str, Any] = {"guidance": 2.0, "guidance_scale": 2.0}
    with pytest.raises(TypeError, match="got guidance, which is none"):
        t2ialign.sample("toy", "a", **both)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: dict[str, Any] = {"seed": np.int64(3), "guidance_scale": np.float32(2), "height": np.int32(32)}
    (row,) = t2ialign.sample("toy", "a red circle", width=32, **numbers, **FAST).rows
    assert [type(row[key]) for key in ("seed", "guidance", "height")] == [int, float, int]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_inference_steps": 2.5}, "got num_inference_steps=2.5; expected a whole number from 1"),
        ({"num_inference_steps": "2"}, "got num_inference_steps=2; expected a whole number from 1"),
        ({"guidance_scale": None}, "got guidance_scale=None; expected a number from 1"),
        ({"height": 0}, "got height=0; expected a number from 1"),
        ({"loras": 3}, r"got loras of type int; expected a path.*has its path in \.output"),
        (
            {"rewriter": print},
            "got a rewriter of type builtin_function_or_method; expected a name, or an obj",
        ),
    ],
)
def test_values_that_are_none_of_the_kind_are_said(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        t2ialign.sample("toy", "a red circle", **setting)
    assert "\n" not in str(caught.value)


CALLS: list[Callable[[Any], object]] = [
    lambda reward: t2ialign.score([IMAGE], {"mine": reward}),
    lambda reward: t2ialign.score([IMAGE], [reward]),
    lambda reward: t2ialign.evaluate([IMAGE], reward, prompts="a"),
    lambda reward: t2ialign.best_of("toy", "a red circle", 2, reward=reward, **FAST),
    lambda reward: t2ialign.train("dense", model="toy", reward=reward, prompts=["a red circle"]),
]


@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_reward_of_images_is_one_line(
    call: Callable[[Any], object], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for reward, message in (
        (Redness, r"got the class Redness as a reward; expected an object; pass Redness\(\)"),
        (torch.nn.Identity(), "got a reward of type Identity; .* call it in the method score"),
        (
            Stillness(),
            "got a Stillness, .* expected a reward of images; train lpo and train backprop take it",
        ),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call(reward)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["backprop", "lpo"])
def test_a_trainer_that_takes_latent_rewards_says_what_is_no_reward(method: str) -> None:
    for reward, message in (
        (Stillness, r"pass Stillness\(\)"),
        (print, "expected a name of rewards.names()"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            t2ialign.train(method, model="toy", reward=reward, prompts=["a red circle"])
        assert "\n" not in str(caught.value)


def test_rewards_need_a_name_each() -> None:
    with pytest.raises(ValueError, match="got two rewards called Redness; expected a name each"):
        t2ialign.score([IMAGE], [Redness(), Redness()])
    with pytest.raises(ValueError, match="got several rewards; expected one, by name or loaded"):
        t2ialign.evaluate([IMAGE], ["toy-clip"], prompts="a")  # type: ignore[arg-type]


def test_a_missing_prompt_is_said_in_words_of_python() -> None:
    with pytest.raises(ValueError, match="for images in memory one each") as caught:
        t2ialign.score([IMAGE], "toy-clip")
    assert "--" not in str(caught.value)


def test_a_printed_table_says_why_numbers_are_missing() -> None:
    table = t2ialign.score([IMAGE, IMAGE], OneNumber())
    assert len(table.errors) == 2
    assert repr(table).splitlines()[-1].startswith("errors: 2, the first: image 0: ")
    assert "errors" not in repr(t2ialign.score([IMAGE], Redness()))


def test_a_method_in_capitals_is_recognised() -> None:
    with pytest.raises(ValueError, match=r"got method 'DPO'.*did you mean dpo"):
        t2ialign.train("DPO", model="toy")


def test_a_call_on_the_way_and_a_recipe_are_checked_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="got on_step of type int; expected a function"):
        t2ialign.train("dpo", model="toy", data="pairs.jsonl", on_step=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got config of type Config; expected the name of a recipe"):
        t2ialign.train("dpo", config=t2ialign.DPOConfig(data="a"))  # type: ignore[arg-type]


def test_a_trainer_takes_a_pipeline(tiny_sd: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd)
    short: dict[str, Any] = {"num_inference_steps": 2, "max_steps": 1, "batch_size": 1, "trackers": ()}
    config = t2ialign.BackpropConfig(prompts="a", reward="saturation", output=tmp_path / "run", **short)
    assert "reward" in t2ialign.BackpropTrainer(config, policy=pipe).fit()
    assert any("lora" in name for name, _ in pipe.unet.named_parameters())
    with pytest.raises(ValueError, match="got a model of type str; expected a name, a diffusers pipeline"):
        t2ialign.BackpropTrainer(config, policy="toy")
