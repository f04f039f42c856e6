"""A path that is not there is an error before any weights are read, for every verb and every trainer."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline, ModelMixin
from PIL import Image
from transformers import PreTrainedModel

import rewards
from t2ialign.cli import main as cli
from t2ialign.config import Config
from t2ialign.io.paths import check_place
from t2ialign.training.methods import methods, settings_of


class Loaded(BaseException):
    """Weights were read."""


@pytest.fixture
def nothing_loads(monkeypatch):
    """Whatever reads weights raises `Loaded`, which no handler of errors stops."""

    def load(*_: Any, **__: Any) -> None:
        raise Loaded

    for home in (DiffusionPipeline, ModelMixin, PreTrainedModel):
        monkeypatch.setattr(home, "from_pretrained", load)
    monkeypatch.setattr(torch, "load", load)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", load)
    monkeypatch.setattr(safetensors.torch, "load_file", load)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with what is right: prompts, pairs, samples, a LoRA, an image."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a red circle\n")
    for name in ("a", "b"):
        Image.new("RGB", (32, 32), "red").save(f"{name}.png")
    pair = {"prompt": "a red circle", "chosen": "a.png", "rejected": "b.png"}
    Path("pairs.jsonl").write_text(json.dumps(pair) + "\n")
    Path("samples").mkdir()
    Image.new("RGB", (32, 32), "red").save("samples/a.png")
    row = {"file": "a.png", "prompt": "a red circle", "seed": 0}
    Path("samples/manifest.jsonl").write_text(json.dumps(row) + "\n")
    Path("lora.safetensors").write_bytes(b"")
    Path("file").write_text("")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert cli.main(list(argv)) == 2
    return capsys.readouterr().err.splitlines()[-1]


MISSING = "no/such/thing"
VERBS = [
    "sample --prompts no/such/thing.txt",
    "sample x --model no/such/thing",
    "sample x --lora no/such/thing",
    "sample x --output file/no/such/thing",
    "sample x --rewrite no/such/thing",
    "sample x --rewrite rules --best-of 2 --reward evaluator --option weights=no/such/thing",
    "mix no/such/thing lora.safetensors --alpha 0.5 -o out",
    "mix lora.safetensors no/such/thing --alpha 0.5 -o out",
    "export no/such/thing --format kohya -o out",
    "export lora.safetensors --format merged --model no/such/thing -o out",
    "score no/such/thing --rewards toy-clip -o out.jsonl --workers 0",
    "score samples --rewards toy-clip --prompts no/such/thing.jsonl -o out.jsonl --workers 0",
    "score samples --rewards toy-clip,pickscore --option pickscore:weights=no/such/thing -o out.jsonl",
    "score samples --rewards toy-clip,no/such/thing -o out.jsonl --workers 0",
    "score samples --rewards toy-clip -o file/no/such/thing.jsonl --workers 0",
    "evaluate no/such/thing --reward toy-clip",
    "evaluate samples --reward no/such/thing",
    "evaluate samples --reward toy-clip --baseline no/such/thing",
    "evaluate samples --reward toy-clip --output file/no/such/thing",
    "rewrite --prompts no/such/thing.txt --rewriter toy",
    "rewrite x --rewriter no/such/thing",
    "rewrite x --rewriter toy --fit no/such/thing",
    "rewrite x --rewriter toy -o file/no/such/thing.txt",
    "keypoints no/such/thing --backend yes_no --weights file",
    "keypoints samples --backend yes_no --weights no/such/thing",
    "keypoints samples --extract no/such/thing",
    "keypoints samples --points no/such/thing",
    "keypoints samples --output file/no/such/thing",
    "filter no/such/thing -o out.jsonl --rewards toy-clip toy-oracle toy-clip-b",
    "filter pairs.jsonl -o out.jsonl --rewards toy-clip toy-oracle no/such/thing",
    "filter pairs.jsonl -o file/no/such/thing.jsonl --rewards toy-clip toy-oracle toy-clip-b",
    "monitor no/such/thing -o out.html",
    "recipes no/such/thing",
    "demo --output file/no/such/thing",
    "prove demo --work file/no/such/thing",
]


@pytest.mark.parametrize("line", VERBS)
def test_no_verb_loads_anything_before_a_wrong_path_is_refused(line, place, nothing_loads, capsys):
    assert "such" in refused(capsys, *line.split())
    assert not [path.name for path in place.iterdir() if path.name.startswith("out")]


RIGHT = [
    "sample x --model toy",
    "score samples --rewards toy-clip -o out.jsonl --workers 0",
    "evaluate samples --reward toy-clip --output out",
    "rewrite x --rewriter toy",
    "filter pairs.jsonl -o out.jsonl --rewards toy-clip toy-oracle toy-clip-b",
    "train dpo data=pairs.jsonl trackers=[]",
    "train backprop prompts=prompts.txt trackers=[]",
    "train reward reward=toy-clip data=pairs.jsonl trackers=[]",
]


@pytest.mark.parametrize("line", RIGHT)
def test_with_right_paths_something_is_loaded(line, place, nothing_loads):
    """The tests above could not fail if nothing noticed that weights are read."""
    with pytest.raises(Loaded):
        cli.main(line.split())


GOOD = {"prompts": "prompts.txt", "data": "pairs.jsonl", "reward": "toy-clip", "model": "toy"}
LISTS = ("data", "model", "generator", "prompts", "heldout_prompts", "monitor_prompts", "validation_prompts")
PATHS = (*LISTS, "reward", "weights", "output", "cache", "text_projection", "resume")


def wrong_settings() -> list[tuple[str, str]]:
    return [
        (name, key)
        for name in methods()
        for key in PATHS
        if key in fields(name) and (key, name) != ("resume", "evaluator")  # it may resume what is not there
    ]


def fields(name: str) -> dict[str, Any]:
    cls: type[Config] = settings_of(name)
    return dict(cls.model_fields)


@pytest.mark.parametrize(("method", "key"), wrong_settings())
def test_no_trainer_loads_anything_before_a_wrong_path_is_refused(method, key, place, nothing_loads, capsys):
    wrong = {
        "output": "file/no/such/thing",
        "cache": "file/no/such/thing",
        **{name: "no/such/thing.jsonl" for name in PATHS if name.endswith("prompts") or name == "data"},
    }.get(key, MISSING)
    right = {name: value for name, value in GOOD.items() if name in fields(method) and name != key}
    if key == "weights":
        right["reward"] = "clipscore"
    if method == "rewrite_grpo":
        right |= {"reward": "evaluator", "reward_options.backend": "oracle", "prompts": "pairs.jsonl"}
    words = [f"{name}={value}" for name, value in right.items() if name != key]
    extra = ["trackers=[]"] if "trackers" in fields(method) else []
    line = refused(capsys, "train", method, *words, *extra, f"{key}={wrong}")
    assert "such" in line or key == "resume", line
    assert not Path("runs").exists()


def test_weights_of_a_reward_in_its_options(place, nothing_loads, capsys):
    for method in ("backprop", "lpo", "rewrite_grpo"):
        name = "evaluator" if method == "rewrite_grpo" else "pickscore"
        prompts = "pairs.jsonl" if method == "rewrite_grpo" else "prompts.txt"
        words = [f"prompts={prompts}", f"reward={name}", "reward_options.weights=no/such/thing"]
        line = refused(capsys, "train", method, *words, "trackers=[]")
        assert f"got weights=no/such/thing of {name}" in line
    words = ["prompts=prompts.txt", "reward_options.path=no/such/thing", "trackers=[]"]
    assert "got path=no/such/thing of latent" in refused(capsys, "train", "lpo", *words)


def test_everything_that_is_wrong_is_named_at_once(place, nothing_loads, capsys):
    words = ["data=no/such/pairs.jsonl", "model=no/such/model", "validation_prompts=no/such/prompts.txt"]
    line = refused(capsys, "train", "dpo", *words, "trackers=[]")
    assert all(name in line for name in ("such/pairs.jsonl", "such/model", "such/prompts.txt"))
    assert line.count(" | ") == 2


def test_a_place_that_cannot_be_written(tmp_path):
    check_place(tmp_path / "new" / "folder", "output")
    check_place(tmp_path, "output")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file; expected a folder"):
        check_place(tmp_path / "file" / "x", "output")


@pytest.mark.parametrize(
    ("weights", "there"), [("org/name", True), ("org/name@main", True), ("a/b.pt", False)]
)
def test_a_hub_id_is_no_missing_path(weights, there, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rewards.check("clipscore", weights="org/name")
    if there:
        rewards.check("clipscore", weights=weights)
        (tmp_path / "org").mkdir()  # now it is the folder of that name that is meant
    with pytest.raises(ValueError, match="of clipscore, which does not exist"):
        rewards.check("clipscore", weights=weights)
    rewards.check("toy-clip", path="toy-clip-b")  # a name, and no path
    home = tmp_path / "home"
    (home / "org" / "name").mkdir(parents=True)
    monkeypatch.setenv("T2IALIGN_WEIGHTS", str(home))
    rewards.check("clipscore", weights="org/name")
