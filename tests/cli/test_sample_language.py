"""t2ialign sample --rewrite with a language model in a folder, under both conventions of PromptEnhancer."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2ialign.cli import main as cli
from t2ialign.io import jsonl, manifest
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.rewriting.parse import LIMIT
from tests.rewards.tiny_llm import build_llama
from tests.rewriting.taught import build

PROMPT, REWRITE = "three cats", "three grey cats"
SEVEN, BIG = "promptenhancer-7b", "promptenhancer-32b"
SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n{% endif %}"
CONVENTIONS = {
    SEVEN: ("HunYuanDenseV1ForCausalLM", SWITCH, f"<think>many</think><answer>{REWRITE}</answer>"),
    BIG: ("Qwen2_5_VLForConditionalGeneration", "", f"<think>many</think>\n{REWRITE}"),
}
"""Preset -> class of the model, what its template opens an answer with, what it writes."""


def sample(model: Path, output: Path, *argv: object) -> list[manifest.Rendered]:
    few = ["--num-inference-steps", 2, "-n", 2, "--seed", 5, "--model", model, "--output", output]
    assert cli.main(["sample", PROMPT, *map(str, [*few, *argv])]) == 0
    return manifest.read(output)


def rendered(model: Path, text: str) -> list[np.ndarray]:
    """Images of a text at the seeds of the run, by the model itself."""
    images = generate(
        load_policy(str(model), device="cpu"), [text] * 2, [5, 6], num_inference_steps=2, guidance_scale=5.0
    )
    return [image.mul(255).round().permute(1, 2, 0).numpy() for image in images]


def distance(file: Path, pixels: np.ndarray) -> float:
    return float(np.abs(np.asarray(Image.open(file)).astype(int) - pixels).max())


@pytest.mark.parametrize("preset", CONVENTIONS)
def test_what_the_model_answers_is_rendered(preset: str, tiny_sd: Path, tmp_path: Path, capsys):
    kind, opened, output = CONVENTIONS[preset]
    folder = build(tmp_path / "model", kind, preset, {PROMPT: output}, opened=opened)
    rows = sample(tiny_sd, tmp_path / "out", "--rewrite", folder, "--preset", preset)
    assert [row.prompt for row in rows] == [PROMPT] * 2
    assert [row.settings["rewritten"] for row in rows] == [REWRITE] * 2
    assert rows[0].settings["rewriter"].startswith(f"{folder} preset={preset}")
    (journal,) = jsonl.read(tmp_path / "out" / "rewrites.jsonl")
    assert (journal["thought"], journal["rewrite"], journal["used"]) == ("many", REWRITE, "rewrite")
    for row, said, meant in zip(rows, rendered(tiny_sd, REWRITE), rendered(tiny_sd, PROMPT), strict=True):
        assert distance(row.path, said) <= 1 < distance(row.path, meant)
    assert "1 of 1 rewritten" in capsys.readouterr().out


@pytest.mark.parametrize("preset", CONVENTIONS)
def test_a_model_of_random_weights_falls_back_to_the_prompt_and_says_why(
    preset: str, tiny_sd: Path, tmp_path: Path, capsys
):
    """It never ends what it writes, nor marks an answer: what is rendered is the user's prompt."""
    folder = build_llama(tmp_path / "model")
    short = ("--rewriter-option", "tokens=12")
    rows = sample(tiny_sd, tmp_path / "out", "--rewrite", folder, "--preset", preset, *short)
    assert [row.settings["rewritten"] for row in rows] == [PROMPT] * 2
    (journal,) = jsonl.read(tmp_path / "out" / "rewrites.jsonl")
    assert (journal["used"], journal["fallback"]) == ("original", LIMIT)
    for row, meant in zip(rows, rendered(tiny_sd, PROMPT), strict=True):
        assert distance(row.path, meant) <= 1
    assert LIMIT in capsys.readouterr().out
