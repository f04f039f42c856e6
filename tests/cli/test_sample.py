"""t2ialign sample: images depend on prompt and seed only, and a killed run loses and doubles nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2ialign.cli import main as cli
from t2ialign.io import jsonl, manifest
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.models.lora import add_lora, trainable
from t2ialign.models.lora_saved import save_lora
from t2ialign.tasks.plan import parse_lora
from tests.models.released import pipeline, released, write

PROMPTS = ["a red circle", "two blue squares"]


def sample(model: Path, output: Path, *more: str) -> int:
    argv = [
        "sample",
        *PROMPTS,
        "--model",
        str(model),
        "--num-inference-steps",
        "2",
        "--output",
        str(output),
        *more,
    ]
    return cli.main(argv)


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {p.name: np.asarray(Image.open(p)) for p in sorted(folder.glob("[0-9]*.png"))}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run: 2 prompts, 3 images each, in batches of 2."""
    output = tmp_path_factory.mktemp("sample") / "whole"
    assert sample(tiny_sd, output, "-n", "3", "--seed", "5", "--batch-size", "2") == 0
    return output


@pytest.fixture(scope="module")
def loras(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs with weights large enough to change every image."""
    folders = []
    for seed in range(2):
        policy = load_policy(str(tiny_sd), device="cpu")
        add_lora(policy, 2, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in trainable(policy).values():
            parameter.data.normal_(std=0.5, generator=generator)
        folders.append(tmp_path_factory.mktemp("lora"))
        save_lora(policy, folders[-1])
    return folders


def test_manifest_says_what_made_each_image(whole: Path, tiny_sd: Path) -> None:
    rows = [json.loads(line) for line in (whole / manifest.NAME).read_text().splitlines()]
    assert [row["file"] for row in rows] == [f"{i:05d}.png" for i in range(6)]
    assert [row["prompt"] for row in rows] == [p for p in PROMPTS for _ in range(3)]
    assert [row["seed"] for row in rows] == [5, 6, 7, 8, 9, 10]
    settings = {"adapter": None, "model": str(tiny_sd), "steps": 2, "guidance": 5.0, "eta": 0.0}
    assert all(row | settings == row for row in rows)
    images = pixels(whole)
    assert {image.shape for image in images.values()} == {(32, 32, 3)}
    assert len({image.tobytes() for image in images.values()}) == 6


def test_images_are_those_of_the_library_call(whole: Path, tiny_sd: Path) -> None:
    policy = load_policy(str(tiny_sd), device="cpu")
    image = generate(policy, PROMPTS[1:], [9], num_inference_steps=2, guidance_scale=5.0)[0]
    expected = (image * 255).round().byte().permute(1, 2, 0).numpy()
    found = pixels(whole)["00004.png"].astype(int)
    assert np.abs(found - expected.astype(int)).max() <= 1  # another batch size rounds another way


def test_a_prompt_file_adds_prompts_and_one_image_can_be_repeated_by_its_seed(
    whole: Path, tiny_sd: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text(f"{PROMPTS[1]}\n")
    argv = ["sample", "--prompts", str(tmp_path / "prompts.txt"), "--seed", "9", "--num-inference-steps", "2"]
    assert cli.main([*argv, "--model", str(tiny_sd), "--output", str(tmp_path / "one")]) == 0
    one = pixels(tmp_path / "one")["00000.png"].astype(int)
    assert np.abs(one - pixels(whole)["00004.png"]).max() <= 1


@pytest.mark.parametrize("torn", ["", '{"file": "0000', "{}"[:1]])
def test_a_killed_run_continues_to_the_same_folder(
    torn: str, whole: Path, tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill falls after the second batch's images and before (or within) its rows."""
    output, append, calls = tmp_path / "out", jsonl.append, []

    def dies(file: Path, rows: list[dict[str, object]]) -> None:
        calls.append(file)
        if len(calls) == 2:
            with file.open("a") as stream:
                stream.write(torn)
            raise KeyboardInterrupt
        append(file, rows)

    options = ("-n", "3", "--seed", "5", "--batch-size", "2")
    with monkeypatch.context() as patch:
        patch.setattr(jsonl, "append", dies)
        assert sample(tiny_sd, output, *options) == 130
    assert sample(tiny_sd, output, *options) == 2, "in use, and not asked to resume"
    assert sample(tiny_sd, output, *options, "--resume", "latest") == 0
    assert (output / manifest.NAME).read_bytes() == (whole / manifest.NAME).read_bytes()
    assert same(pixels(output), pixels(whole))
    assert sorted(p.name for p in output.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_resume_renders_only_what_is_missing(
    whole: Path, tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    for file in whole.iterdir():
        (output / file.name).write_bytes(file.read_bytes())
    kept = {p.name: p.stat().st_mtime_ns for p in output.glob("[0-9]*.png")}
    (output / "00002.png").unlink()
    options = ("-n", "3", "--seed", "5", "--resume", "latest")
    assert sample(tiny_sd, output, *options) == 0
    assert "6 images and manifest.jsonl" in (text := capsys.readouterr().out) and "(1 new)" in text
    now = {p.name: p.stat().st_mtime_ns for p in output.glob("[0-9]*.png")}
    assert [name for name in now if now[name] != kept[name]] == ["00002.png"]
    assert (output / manifest.NAME).read_bytes() == (whole / manifest.NAME).read_bytes()


@pytest.mark.parametrize("damage", ["hole", "flip", "torn", "empty"])
def test_resume_renders_a_damaged_image_anew(
    damage: str, whole: Path, tiny_sd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    shutil.copytree(whole, output)
    file = output / "00002.png"
    data = file.read_bytes()
    middle = data.index(b"IDAT") + 12
    file.write_bytes(
        {
            "hole": data[: middle - 12] + bytes(12) + data[middle:],
            "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "torn": data[:middle],
            "empty": b"",
        }[damage]
    )
    assert sample(tiny_sd, output, "-n", "3", "--seed", "5", "--resume", "latest") == 0
    assert "00002.png is damaged" in caplog.text and "rendered anew" in caplog.text
    now, before = pixels(output), pixels(whole)
    assert now.keys() == before.keys()
    for name in now:  # another batch may round a level the other way
        assert np.abs(now[name].astype(int) - before[name]).max() <= (2 if name == "00002.png" else 0)
    assert (output / manifest.NAME).read_bytes() == (whole / manifest.NAME).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--num-inference-steps", "3"), "got steps=2 for 00000.png"),
        (("--seed", "6"), "got seed=5"),
        (("-n", "2"), "got prompt='a red circle' for 00002.png"),
    ],
)
def test_resume_with_other_settings_is_an_error(
    change: tuple[str, str], message: str, whole: Path, tiny_sd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p.name: p.read_bytes() for p in whole.iterdir()}
    capsys.readouterr()
    assert sample(tiny_sd, whole, "-n", "3", "--seed", "5", "--resume", "latest", *change) == 2
    assert message in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == before


def test_loras_are_applied_together_at_their_scales(tiny_sd: Path, loras: list[Path], tmp_path: Path) -> None:
    one, two = map(str, loras)
    runs = {
        "base": (),
        "zero": ("--lora", f"{one}:0", "--lora", f"{two}:0.0"),
        "one": ("--lora", one),
        "two": ("--lora", f"{two}:1"),
        "both": ("--lora", one, "--lora", two),
        "swapped": ("--lora", f"{two}:1.0", "--lora", f"{one}:1.0"),
    }
    for name, options in runs.items():
        assert sample(tiny_sd, tmp_path / name, *options) == 0
    found = {name: pixels(tmp_path / name) for name in runs}
    assert same(found["base"], found["zero"]) and not same(found["one"], found["two"])
    assert not any(same(found["both"], found[name]) for name in ("base", "one", "two"))
    apart = [found["both"][k].astype(int) - found["swapped"][k] for k in found["both"]]
    assert max(np.abs(d).max() for d in apart) <= 1, "the order of LoRAs does not matter"
    rows = manifest.read(tmp_path / "swapped")
    assert rows[0].settings["adapter"] == f"{two}:1.0 + {one}:1.0"


def test_resume_sees_another_lora_at_the_path_and_other_kernels(
    tiny_sd: Path, loras: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora, output = tmp_path / "lora", tmp_path / "out"
    shutil.copytree(loras[0], lora)
    assert sample(tiny_sd, output, "--lora", str(lora)) == 0
    before = {p.name: p.read_bytes() for p in output.iterdir()}
    resume = ("--lora", str(lora), "--resume", "latest")
    capsys.readouterr()
    assert sample(tiny_sd, output, *resume, "--precision", "bf16") == 2
    assert "got precision='fp32' for 00000.png" in capsys.readouterr().err
    assert sample(tiny_sd, output, *resume, "--attention", "xformers") == 2
    assert "got attention='sdpa' for 00000.png" in capsys.readouterr().err
    shutil.copytree(loras[1], lora, dirs_exist_ok=True)
    assert sample(tiny_sd, output, *resume) == 2
    assert "got adapter_hash=" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in output.iterdir()} == before
    shutil.copytree(loras[0], lora, dirs_exist_ok=True)
    assert sample(tiny_sd, output, *resume) == 0


def test_pixels_that_are_not_finite_are_never_saved(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(tiny_sd, tmp_path / "out", "--seed", "5", "--guidance-scale", "1e38") == 2
    assert "pixels that are not finite for prompt 'a red circle', seed 5" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b.safetensors", (Path("a/b.safetensors"), 1.0)),
        ("a/b:0.5", (Path("a/b"), 0.5)),
        ("a:b:-1", (Path("a:b"), -1.0)),
        (r"C:\runs\x.safetensors", (Path(r"C:\runs\x.safetensors"), 1.0)),
        ("C:/runs/x.safetensors:0.5", (Path("C:/runs/x.safetensors"), 0.5)),
    ],
)
def test_lora_arguments(text: str, expected: tuple[Path, float]) -> None:
    assert parse_lora(text) == expected


@pytest.mark.parametrize("text", ["a/b:half", "a/b:nan", "a/b:"])
def test_bad_lora_scales_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match="expected PATH or PATH:SCALE"):
        parse_lora(text)


def test_a_colon_in_a_real_path_is_no_scale(tmp_path: Path) -> None:
    (tmp_path / "run:2").mkdir()
    assert parse_lora(f"{tmp_path}/run:2") == (tmp_path / "run:2", 1.0)
    assert parse_lora(f"{tmp_path}/run:2:0.5") == (tmp_path / "run:2", 0.5)


def test_how_the_model_is_read_is_in_the_manifest_and_changes_the_images(
    tiny_sd_v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--clip-skip", "1", "--prediction-type", "v_prediction", "--rescale-betas-zero-snr")
    assert sample(tiny_sd_v, tmp_path / "plain") == 0
    assert sample(tiny_sd_v, tmp_path / "set", *options) == 0
    files = [tmp_path / name / manifest.NAME for name in ("plain", "set")]
    plain, row = (json.loads(file.read_text().splitlines()[0]) for file in files)
    added = {"clip_skip": 1, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert {key: row[key] for key in row.keys() - plain.keys()} == added
    assert not same(pixels(tmp_path / "plain"), pixels(tmp_path / "set"))
    capsys.readouterr()
    assert sample(tiny_sd_v, tmp_path / "set", "--resume", "latest") == 2
    assert "got clip_skip=1 for 00000.png" in capsys.readouterr().err
    assert sample(tiny_sd_v, tmp_path / "off", "--no-rescale-betas-zero-snr") == 0
    assert same(pixels(tmp_path / "plain"), pixels(tmp_path / "off"))


def test_a_single_file_is_sampled(tmp_path: Path) -> None:
    file = write(released(pipeline("sd1")), tmp_path / "model.safetensors")
    size = ("--height", "16", "--width", "16", "--rewrite", "rules")
    assert sample(Path(file), tmp_path / "out", *size) == 0
    assert len(manifest.read(tmp_path / "out")) == 2
