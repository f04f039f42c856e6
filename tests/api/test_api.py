"""The functions that people call from Python: what they take and give, and what they say of mistakes."""

import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor

import t2ialign
from rewards import Reward
from t2ialign.io import jsonl, manifest
from t2ialign.models.base import Policy
from t2ialign.models.load import load_policy
from t2ialign.models.lora import add_lora
from t2ialign.models.lora_saved import save_lora

PROMPTS = ["a red circle", "two blue squares"]
FAST: dict[str, Any] = {"num_inference_steps": 2}


class Redness(Reward):
    """The mean of the red channel."""

    needs_text = False

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """(B, 3, H, W) -> (B,)"""
        return images[:, 0].mean((1, 2))


@pytest.fixture(scope="module")
def pipeline(tiny_sd: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_sd)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_import_loads_no_library_and_names_are_there() -> None:
    code = (
        "import sys, t2ialign; assert 'sample' in dir(t2ialign)\n"
        "print({'torch', 'diffusers', 'transformers', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_is_documented() -> None:
    for name in t2ialign.__all__:
        assert getattr(t2ialign, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        getattr(t2ialign, "sampel")  # noqa: B009


def test_a_pipeline_a_policy_and_a_name_give_the_same_images(
    tiny_sd: Path, pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    """Within a level of 8 bits; a table of prompts is one of their kinds."""
    by_name = t2ialign.sample(tiny_sd, PROMPTS, seed=5, output=tmp_path / "out", **FAST)
    policy = t2ialign.load_policy(str(tiny_sd))
    assert isinstance(policy, t2ialign.Policy) and t2ialign.Policy is Policy
    for model in (pipeline, policy):
        samples = t2ialign.sample(model, pd.DataFrame({"caption": PROMPTS}), seed=5, **FAST)
        assert samples.prompts == PROMPTS and samples.seeds == [5, 6] and samples.folder is None
        for one, other in zip(samples, by_name, strict=True):
            assert np.abs(pixels(one) - pixels(other)).max() <= 1
    theirs = pipeline(
        PROMPTS[0], num_inference_steps=2, guidance_scale=5.0, generator=torch.Generator().manual_seed(5)
    ).images[0]
    assert np.abs(pixels(theirs) - pixels(by_name[0])).max() <= 1
    assert by_name.folder == tmp_path / "out" and len(manifest.read(tmp_path / "out")) == 2
    assert by_name.grid().width > by_name[0].width
    assert repr(by_name) == f"<Samples: 2 images of 2 prompts in {tmp_path / 'out'}>"
    assert Image.open(io.BytesIO(by_name._repr_png_())).size == by_name.grid().size


def test_an_sdxl_pipeline_in_half_precision_stays_as_it_was(tiny_sdxl: Path) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, dtype=torch.bfloat16)
    (image,) = t2ialign.sample(pipe, "a cat", **FAST)
    assert image.size == (32, 32)
    assert pipe.vae.dtype == pipe.unet.dtype == torch.bfloat16


def test_what_a_loaded_model_cannot_take_is_said(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got loras for a StableDiffusionPipeline loaded in Python"):
        t2ialign.sample(pipeline, "a cat", loras={tmp_path: 0.5})
    with pytest.raises(ValueError, match="got precision, attention or model_options"):
        t2ialign.sample(pipeline, "a cat", precision="bf16", **FAST)
    with pytest.raises(ValueError, match="got a model of type int; expected a name, a diffusers pipeline"):
        t2ialign.sample(3, "a cat", **FAST)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"num_inference_steps": 0}, "got num_inference_steps=0; expected a number from 1"),
        ({"guidance_scale": 0.5}, "got guidance_scale=0.5"),
        ({"num_images_per_prompt": 0}, "got num_images_per_prompt=0"),
        ({"loras": "nowhere"}, "got loras=nowhere; expected an existing file"),
        ({"model_options": {"clip": 1}}, "got clip as an option of the model; expected one of variant"),
        ({"rewriter_options": {"preset": "general"}}, "got rewriter_options without rewriter"),
        ({"rewriter": "rules", "html": "page.txt"}, "got html=page.txt"),
    ],
)
def test_mistakes_name_the_parameter(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        t2ialign.sample("toy", "a red circle", **setting)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)


def test_a_folder_in_use_says_how_to_go_on(tiny_sd: Path, tmp_path: Path) -> None:
    t2ialign.sample(tiny_sd, "a", output=tmp_path / "a", **FAST)
    with pytest.raises(ValueError, match=r"got output=.*continue its run with resume=True"):
        t2ialign.sample(tiny_sd, "a", output=tmp_path / "a", **FAST)
    assert t2ialign.sample(tiny_sd, "a", output=tmp_path / "a", resume=True, **FAST).new == 0


def test_rewritten_prompts_are_rendered_and_kept_beside_the_user_s(tiny_sd: Path) -> None:
    samples = t2ialign.sample(tiny_sd, ["a red cat"], rewriter="rules", seed=5, **FAST)
    assert samples.prompts == ["a red cat"] and samples.rows[0]["rewritten"] == "a red cat, centered."
    assert samples.notes == ["1 of 1 rewritten"]


def test_the_best_of_several_seeds_is_the_reddest(tiny_sd: Path) -> None:
    best = t2ialign.best_of(tiny_sd, "a", 3, reward=Redness(), seed=5, **FAST)
    every = t2ialign.sample(tiny_sd, ["a"] * 3, seed=5, **FAST)
    red = [pixels(image)[..., 0].mean() for image in every]
    assert best.seeds == [5 + int(np.argmax(red))]
    assert best.rows[0]["score"] == pytest.approx(max(red) / 255, abs=0.01)
    assert best.notes[0].startswith("best of 3 by Redness: mean")


def flat(level: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (level, 0, 0))


def test_images_of_every_kind_are_scored_alike(tmp_path: Path) -> None:
    image = flat(51)
    image.save(tmp_path / "a.png")
    array, tensor = np.asarray(image), torch.zeros(3, 8, 8)
    tensor[0] = 0.2
    frame = pd.DataFrame({"image": [str(tmp_path / "a.png")], "prompt": ["x"]})
    for images in (image, [image], [array], [tensor], [tmp_path / "a.png"], tmp_path, frame):
        scores = t2ialign.score(images, Redness())
        assert scores["Redness"].tolist() == pytest.approx([0.2])
        assert scores.errors == [] and list(scores.to_pandas()["Redness"]) == pytest.approx([0.2])
    both = t2ialign.score([image, image], {"mine": Redness(), "again": Redness()}, ["a", "b"])
    assert [row["prompt"] for row in both.rows()] == ["a", "b"] and list(both) == ["mine", "again"]


def test_scores_go_to_a_file_and_are_not_made_twice(tmp_path: Path) -> None:
    flat(255).save(tmp_path / "a.png")
    output = tmp_path / "out" / "scores.parquet"
    t2ialign.score(tmp_path / "a.png", "saturation", output=output)
    assert pd.read_parquet(output)["saturation"].tolist() == [1.0]
    with pytest.raises(ValueError, match="keep its scores with resume=True"):
        t2ialign.score(tmp_path / "a.png", "saturation", output=output)
    assert t2ialign.score(tmp_path / "a.png", "saturation", output=output, resume=True)["saturation"] == 1
    with pytest.raises(ValueError, match=r"got batch_size=0; expected at least 1"):
        t2ialign.score(tmp_path / "a.png", "saturation", batch_size=0)


def test_mistakes_name_parameters_and_no_options_of_commands(tmp_path: Path) -> None:
    for name in "ab":
        flat(0).save(tmp_path / f"{name}.png")
    jsonl.rewrite(tmp_path / "pairs.jsonl", [{"prompt": "x", "chosen": "a.png", "rejected": "b.png"}])
    three = ["saturation", "contrast", "clipped"]
    calls: list[Callable[[], object]] = [
        lambda: t2ialign.score(tmp_path, "saturation", output=tmp_path / "scores.txt"),
        lambda: t2ialign.score(tmp_path, "saturation", "", output=tmp_path / "scores.csv"),
        lambda: t2ialign.score(tmp_path, "saturation", "x", prompts_from_names=True),
        lambda: t2ialign.score(tmp_path, "toy-clip"),
        lambda: t2ialign.filter_pairs(tmp_path / "pairs.jsonl", three, tmp_path / "kept.txt"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^got .*; expected ") as error:
            call()
        assert "--" not in str(error.value)


def test_evaluate_gives_a_mean_its_interval_and_the_difference() -> None:
    images, baseline = [flat(level) for level in (0, 51, 102)], [flat(0)] * 3
    result = t2ialign.evaluate(images, Redness(), prompts=["a", "b", "c"], baseline=baseline)
    low, high = result.interval
    assert result.mean == pytest.approx(0.2) and low < 0.2 < high and result.errors == []
    assert result.difference is not None and result.difference.mean == pytest.approx(0.2)
    assert str(result).startswith("Redness, mean [95 % interval, bootstrap by prompt]")
    with pytest.raises(ValueError, match="got no prompt for image 0"):
        t2ialign.evaluate(images, Redness())


def test_samples_are_evaluated_by_their_own_prompts(tiny_sd: Path, tmp_path: Path) -> None:
    samples = t2ialign.sample(tiny_sd, PROMPTS, **FAST)
    kept = t2ialign.sample(tiny_sd, PROMPTS, output=tmp_path / "a", **FAST)
    result = t2ialign.evaluate(samples, Redness(), baseline=kept)
    assert [row["prompt"] for row in result.rows] == PROMPTS
    assert result.difference is not None and abs(result.difference.mean) <= 1 / 255
    assert t2ialign.evaluate(tmp_path / "a", Redness(), output=tmp_path / "b").mean == result.mean
    assert (tmp_path / "b" / "evaluation.json").is_file()


BACKPROP: dict[str, Any] = {
    "prompts": PROMPTS,
    "num_inference_steps": 2,
    "batch_size": 1,
    "max_steps": 2,
    "evaluate_every": 1,
    "trackers": (),
    "lora_rank": 2,
    "seed": 1,
}


def test_a_pipeline_is_trained_in_place_by_a_reward_object(tiny_sd: Path, tmp_path: Path, caplog) -> None:
    pipe, steps, evaluations = StableDiffusionPipeline.from_pretrained(tiny_sd), [], []
    settings = {**BACKPROP, "heldout_prompts": pd.Series(["three"]), "output": tmp_path / "run"}
    result = t2ialign.train(
        "backprop",
        model=pipe,
        reward=Redness(),
        on_step=lambda step, row: steps.append((step, row["reward"])),
        on_evaluation=lambda step, row: evaluations.append(row["heldout/reward"]),
        **settings,
    )
    assert [step for step, _ in steps] == [1, 2] and len(evaluations) == 3
    assert result.output == tmp_path / "run" == result.best and len(result.history) == 3
    assert result.metrics["reward"] == steps[-1][1]
    assert "an object as model and reward" in caplog.text
    weights = [p for name, p in pipe.unet.named_parameters() if "lora_B" in name]
    assert any(weight.abs().max() > 0 for weight in weights)
    (row,) = jsonl.read(next((tmp_path / "run" / "prompts").glob("heldout_prompts-*.jsonl")))
    assert row == {"prompt": "three"}
    (image,) = t2ialign.sample(tiny_sd, "a", loras=result.output, **FAST)
    assert image.size == (32, 32)


def test_a_run_of_objects_goes_on_with_the_same_ones(tiny_sd: Path, tmp_path: Path) -> None:
    settings = {**BACKPROP, "output": tmp_path / "run", "reward": Redness()}
    t2ialign.train("backprop", model=t2ialign.load_policy(str(tiny_sd)), **{**settings, "max_steps": 1})
    with pytest.raises(ValueError, match="add resume=latest to continue"):
        t2ialign.train("backprop", model=t2ialign.load_policy(str(tiny_sd)), **settings)
    other = t2ialign.load_policy(str(tiny_sd))
    with torch.no_grad():
        other.adapted.conv_out.weight.mul_(1.5)
    with pytest.raises(
        ValueError, match="got a model of other weights on resume; expected those that the run"
    ):
        t2ialign.train("backprop", model=other, resume="latest", **settings)
    policy = t2ialign.load_policy(str(tiny_sd))
    result = t2ialign.train("backprop", model=policy, resume="latest", **settings)
    assert [row["step"] for row in result.history] == [1, 2]


def test_a_table_of_pairs_is_trained_on_and_gone_on_with(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # paths in a table start from the working folder
    for name, level in (("dark", 0), ("red", 255)):
        flat(level).save(f"{name}.png")
    pairs = pd.DataFrame([{"prompt": "red.png", "chosen": Path("red.png"), "rejected": "dark.png"}] * 2)
    settings: dict[str, Any] = {
        "model": tiny_sd,
        "output": tmp_path / "run",
        "batch_size": 2,
        "holdout": 0,
        "trackers": (),
    }
    t2ialign.train("dpo", data=pairs, max_steps=1, **settings)
    result = t2ialign.train("dpo", data=pairs, max_steps=2, resume="latest", **settings)
    assert [row["step"] for row in result.history] == [1, 2]
    (file,) = (tmp_path / "run" / "prompts").glob("data-*.jsonl")
    assert jsonl.read(file)[0] == {
        "prompt": "red.png",
        "chosen": str(tmp_path / "red.png"),
        "rejected": str(tmp_path / "dark.png"),
    }
    pairs["chosen"] = [flat(1), flat(2)]
    with pytest.raises(ValueError, match=r"got a table with a cell that is no text.*give their paths$"):
        t2ialign.train("dpo", data=pairs, max_steps=1, **{**settings, "output": tmp_path / "other"})


def test_trainers_are_classes_with_a_config(tiny_sd: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    config = t2ialign.BackpropConfig(
        **{**BACKPROP, "prompts": str(tmp_path / "prompts.txt"), "max_steps": 1},
        model=str(tiny_sd),
        reward="saturation",
        output=tmp_path / "run",
    )
    seen: list[int] = []
    metrics = t2ialign.BackpropTrainer(config).fit(on_step=lambda step, row: seen.append(step))
    assert seen == [1] and "reward" in metrics
    with pytest.raises(ValueError, match=r"^beta: got -1; expected a number greater than 0; --help says .*$"):
        t2ialign.DPOConfig(data="x", beta=-1)
    for method in ("DPO", "Dense", "LPO", "Reward", "LRM", "Evaluator", "RewriteSFT", "RewriteGRPO"):
        assert getattr(t2ialign, f"{method}Trainer").fit and getattr(t2ialign, f"{method}Config").model_fields


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("dop", {}, "did you mean dpo"),
        ("dpo", {"data": "x", "betta": 3}, "got unknown key 'betta'; expected 'beta'"),
        ("dpo", {"data": "x", "beta": -1}, "beta: got -1; expected a number greater than 0"),
        ("reward", {"data": "x", "model": Redness()}, "got a model of type Redness"),
        ("evaluator", {"data": "x", "reward": Redness()}, "got an object as reward"),
    ],
)
def test_wrong_settings_are_one_line(
    method: str, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        t2ialign.train(method, output=tmp_path / "run", **settings)
    assert "\n" not in str(caught.value)


def test_a_loaded_model_is_trained_in_its_own_precision(tiny_sd: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, dtype=torch.bfloat16)
    settings = {**BACKPROP, "output": tmp_path / "run", "reward": "saturation"}
    with pytest.raises(ValueError, match="got precision=fp32 for a model that is loaded in bf16"):
        t2ialign.train("backprop", model=pipe, precision="fp32", **settings)
    with pytest.raises(ValueError, match="got lora_rank=0 for a model that is loaded in bf16"):
        t2ialign.train("backprop", model=pipe, **{**settings, "lora_rank": 0})
    t2ialign.train("backprop", model=pipe, **{**settings, "max_steps": 1})
    assert "precision: bf16" in (tmp_path / "run" / "config.yaml").read_text()


def test_prompts_are_rewritten_and_a_listener_follows(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("three cats\n")
    results = t2ialign.rewrite(["two dogs", tmp_path / "more.txt"], rewriter_options={"intensity": "light"})
    assert [result.text for result in results] == ["two dogs side by side", "three cats side by side"]
    t2ialign.rewrite("two dogs", output=tmp_path / "out.txt")
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 1
    with pytest.raises(ValueError, match="got tries=0; expected at least 1"):
        t2ialign.rewrite("two dogs", tries=0)

    class Shouting:
        def write(self, prompts: Sequence[str], *, attempt: int) -> list[str]:
            return [f"<answer>{prompt}, LOUD</answer>" for prompt in prompts]

    heard: list[Any] = []

    class Following:
        def prompt(self, prompt: str) -> None:
            heard.append(prompt)

        def attempt(self, number: int) -> None:
            heard.append(number)

        def piece(self, text: str) -> None:
            raise AssertionError("it writes nothing piece by piece")

        def end(self, output: str) -> None:
            heard.append(output)

        def result(self, result: Any) -> None:
            heard.append(result.text)

    t2ialign.rewrite("two dogs", Shouting(), listener=Following())
    assert heard == ["two dogs", 0, "<answer>two dogs, LOUD</answer>", "two dogs, LOUD"]


def test_keypoints_of_samples_are_judged(tmp_path: Path) -> None:
    samples = t2ialign.sample("toy", "a red circle", output=tmp_path / "samples")
    judged = t2ialign.judge_keypoints(samples, output=tmp_path / "points")
    assert judged.errors == [] and [row["prompt"] for row in judged.rows] == ["a red circle"]
    assert (tmp_path / "points" / "keypoints.json").is_file()
    with pytest.raises(ValueError, match="got images in memory; expected a folder of samples"):
        t2ialign.judge_keypoints([flat(0)], output=tmp_path / "other")
    with pytest.raises(ValueError, match="got backend=head without weights"):
        t2ialign.judge_keypoints(samples, backend="head", output=tmp_path / "other")


def test_pairs_that_rewards_contradict_are_dropped(tmp_path: Path) -> None:
    for name, level in (("dark", 0), ("red", 255)):
        flat(level).save(tmp_path / f"{name}.png")
    rows = [{"prompt": "x", "chosen": "red.png", "rejected": "dark.png"}]
    rows.append({"prompt": "y", "chosen": "dark.png", "rejected": "red.png"})
    jsonl.rewrite(tmp_path / "pairs.jsonl", rows)
    three, floors = ["saturation", "contrast", "clipped"], [0.5, -1.0, -1.0]
    how: dict[str, Any] = {"floors": floors}
    kept = t2ialign.filter_pairs(tmp_path / "pairs.jsonl", three, tmp_path / "kept.jsonl", **how)
    assert (kept.pairs_kept, kept.preferences["pairs"]) == (1, 2)
    assert [row["prompt"] for row in jsonl.read(kept.output)] == ["x"]
    objects: list[str | Reward] = [Redness(), *three[1:]]
    redder = t2ialign.filter_pairs(tmp_path / "pairs.jsonl", objects, tmp_path / "redder.jsonl", **how)
    assert [row["prompt"] for row in jsonl.read(redder.output)] == ["x"]
    assert list(redder.preferences["rewards"]) == ["Redness", *three[1:]]
    for wrong, said in (({"floors": [1.0]}, "got floors="), ({"strategy": 7}, "got strategy=7")):
        with pytest.raises(ValueError, match=said):
            t2ialign.filter_pairs(tmp_path / "pairs.jsonl", three, tmp_path / "b.jsonl", **wrong)


def test_two_loras_are_mixed_and_exported(tiny_sd: Path, tmp_path: Path) -> None:
    folders = []
    for seed in range(2):
        policy = load_policy(str(tiny_sd), device="cpu")
        add_lora(policy, 2, seed=seed)
        save_lora(policy, tmp_path / str(seed))
        folders.append(tmp_path / str(seed))
    mixed = t2ialign.mix(folders[0], folders[1], tmp_path / "mix", alpha=0.25)
    assert mixed.folder == tmp_path / "mix" and mixed.rank == 4 and mixed.layers == mixed.shared
    file = t2ialign.export(mixed.folder, tmp_path / "x.safetensors", "diffusers")
    assert file == tmp_path / "x.safetensors" and file.is_file()
    with pytest.raises(ValueError, match="got alpha=2; expected the share of A"):
        t2ialign.mix(folders[0], folders[1], tmp_path / "other", alpha=2)
    with pytest.raises(ValueError, match="got format=merged without model"):
        t2ialign.export(mixed.folder, tmp_path / "merged", "merged")
