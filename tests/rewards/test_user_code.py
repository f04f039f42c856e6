"""Rewards of the working folder, by module and by file; what is no reward is not called."""

import json
import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image

import rewards
from rewards import user_code
from rewards.keypoints.taxonomy import kinds
from t2ialign.cli.main import main

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

SHARPNESS = '''
"""A reward of the user."""
import torch
from rewards import Reward
from {helper} import FACTOR

class Sharpness(Reward):
    needs_text = False

    def __init__(self, power=1.0):
        super().__init__()
        self.power = power
        self.head = torch.nn.Linear(1, 1)

    def score(self, images, prompts):
        return FACTOR * images.diff(dim=-1).abs().pow(self.power).mean((1, 2, 3)) + 0 * self.head.weight[0]

class Unfinished(Reward):
    pass

def build(power=2.0):
    from {helper} import FACTOR as again  # imported while it is built
    assert again == FACTOR
    return Sharpness(power)

def factory():
    raise AssertionError("must not be called")

def wrong() -> torch.nn.Module:
    raise AssertionError("must not be called")

def steep() -> Sharpness:
    return Sharpness(4.0)

class Other:
    def __init__(self):
        raise AssertionError("must not be called")
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A working folder with a package and a file, both named after the test, and what they import."""
    name = f"mine_{abs(hash(request.node.name)) % 10**9}"
    (tmp_path / name).mkdir()
    code = SHARPNESS.format(helper=f"{name}_helper")
    (tmp_path / name / "sharpness.py").write_text(code, encoding="utf-8")
    (tmp_path / f"{name}_single.py").write_text(code, encoding="utf-8")
    (tmp_path / f"{name}_helper.py").write_text("FACTOR = 3.0\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as of a console script
    return name


def expected(power: float) -> list[float]:
    return (3 * IMAGES.diff(dim=-1).abs().pow(power).mean((1, 2, 3))).tolist()


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("{m}.sharpness", 2.0),
        ("{m}.sharpness:Sharpness", 1.0),
        ("{m}_single:Sharpness", 1.0),
        ("./{m}_single.py", 2.0),
        ("./{m}_single.py:Sharpness", 1.0),
        ("{m}/sharpness.py:Sharpness", 1.0),
        ("{cwd}/{m}_single.py:Sharpness", 1.0),
        ("{m}.sharpness:steep", 4.0),
    ],
)
def test_a_reward_of_the_working_folder_loads_after_one_line(folder, name, power, caplog):
    if "/sharpness.py" in name:  # a file finds what lies beside it
        (Path(folder) / f"{folder}_helper.py").write_text("FACTOR = 3.0\n", encoding="utf-8")
    name, before = name.format(m=folder, cwd=Path.cwd()), list(sys.path)
    reward = rewards.load(name)
    assert reward(IMAGES, ["", ""]).tolist() == pytest.approx(expected(power))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.getMessage().startswith("running code of the ")
    assert str(Path.cwd()) in record.getMessage()
    assert sys.path == before
    if "steep" not in name:
        assert rewards.load(name, power=3.0)(IMAGES, ["", ""]).tolist() == pytest.approx(expected(3.0))


def test_what_is_installed_needs_no_line(caplog):
    assert rewards.load("rewards.toy.oracle:ToyOracle").differentiable is False
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "./{m}_single.py:factory",
            "factory, a function of .*; expected a subclass of rewards.Reward, or a",
        ),
        ("./{m}_single.py:wrong", "got wrong, a function of"),
        ("./{m}_single.py:Other", "got class Other of .*; expected a subclass"),
        ("{m}.sharpness:Other", "got class Other of .*; name {m}.sharpness:Sharpness"),
        ("{m}.sharpness:Unfinished", "got {m}.sharpness:Unfinished without score; expected the method"),
        ("{m}.sharpness:FACTOR", "got FACTOR, a float of"),
        ("logging.config:dictConfig", "got dictConfig, a function of logging.config"),
        ("./no_such_file.py:A", "got reward './no_such_file.py:A', but there is no file .*; check the path"),
        ("{m}_single", r"for the file of the working folder pass ./{m}_single.py:Class"),
        ("./broken.py:A", r"whose module does not import \(SyntaxError: "),
    ],
)
def test_what_is_no_reward_is_refused_before_it_is_called(folder, name, words):
    Path("broken.py").write_text("def f(:\n", encoding="utf-8")
    with pytest.raises(ValueError, match=words.format(m=folder)) as caught:
        rewards.load(name.format(m=folder))
    assert "\n" not in str(caught.value)


def save(folder: Path, reward: str, /, **options: object) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file({"head.weight": torch.ones(1, 1)}, folder / "reward.safetensors")
    about = {"format": 1, "reward": reward, "options": options}
    (folder / "reward.json").write_text(json.dumps(about), encoding="utf-8")


def test_a_folder_of_weights_names_no_code(folder):
    installed = "rewards.combine:WeightedSum"
    for number, name in enumerate((f"./{folder}_single.py:Sharpness", f"{folder}.sharpness:Sharpness")):
        weights = Path(f"run{number}")
        save(weights, name)
        for load in (
            lambda given=weights: rewards.load("trained", weights=given),
            lambda given=weights: rewards.load(str(given)),
        ):
            with pytest.raises(ValueError, match=r"reward.json; expected one that ships, .* only where you"):
                load()
        for trusted in (
            rewards.load("trained", weights=weights, reward=name),
            rewards.load(name, weights=str(weights)),
        ):
            assert trusted.head.weight.item() == 1
    save(Path("mixed"), "rewards.combine", members={f"./{folder}_single.py:Sharpness": 1.0})
    for name in ("trained", "rewards.combine"):  # nor by way of a reward that is made of others
        with pytest.raises(ValueError, match=r"mixed/reward.json; expected one that ships"):
            rewards.load(name, weights="mixed")
    save(Path("installed"), installed)
    with pytest.raises(ValueError, match=r"got reward 'rewards\.combine:WeightedSum' in installed"):
        rewards.load("installed")


HARMFUL = """
from pathlib import Path
Path("ran").touch()
def Harm(**options):
    Path("ran").touch()
build = Harm
"""


def test_no_option_of_a_folder_of_weights_runs_code(folder):
    """By way of an inner folder, of its name as typed, of a detector, of a package's import."""
    name = f"./{folder}_bad.py:Harm"
    Path(f"{folder}_bad.py").write_text(HARMFUL, encoding="utf-8")
    Path(folder, "__init__.py").write_text(HARMFUL, encoding="utf-8")
    save(Path("inner"), name)
    Image.new("RGB", (8, 8)).save("x.png")
    heads = {"reward": name, "options": {}, "format": 1, "kinds": list(kinds())}
    for place, about in (("head", {}), ("by_weights", {"options": {"weights": "inner"}})):
        Path(place).mkdir()
        Path(place, "head.safetensors").write_bytes(Path("inner/reward.safetensors").read_bytes())
        Path(place, "head.json").write_text(json.dumps({**heads, **about}), encoding="utf-8")
    for number, (reward, options) in enumerate(
        (
            ("logging.config:dictConfig", {"config": {"version": 1}}),
            (f"{folder}.sharpness:Sharpness", {}),
            ("trained", {"weights": "inner", "reward": name}),
            (name, {"weights": "inner"}),
            ("evaluator", {"backend": "head", "weights": "head"}),
            ("evaluator", {"backend": "head", "weights": "head", "reward": name}),
            ("evaluator", {"backend": "head", "weights": "by_weights"}),
            ("geneval", {"detector": f"{folder}_bad:Harm"}),
            ("toy-textnorm", {"base": name}),
        )
    ):
        save(Path(f"outer{number}"), reward, **options)
        for load in (
            lambda at=f"outer{number}": rewards.load("trained", weights=at),
            lambda at=f"outer{number}": rewards.load(at),
            lambda at=f"outer{number}": main(
                ["score", "x.png", "--prompts", "x", "--rewards", at, "-o", "o.csv", "--workers", "0"]
            ),
        ):
            with suppress(ValueError):
                assert load() == 2  # the verb tells what a ValueError says
            assert not Path("ran").exists(), (reward, options)
    for given in ({}, {"reward": "toy-clip"}):
        with pytest.raises(ValueError):
            rewards.load("evaluator", backend="head", weights="head", **given)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("reward", "options"),
    [("run", {}), ("trained", {"weights": "run"}), ("toy-clip", {"weights": "./run"})],
)
def test_a_folder_of_weights_that_stands_on_itself_is_refused(folder, reward, options):
    save(Path("run"), reward, **options)
    with pytest.raises(ValueError, match=r"reward\.json, which is its own base"):
        rewards.load("run")


def test_a_folder_of_weights_sends_no_key(folder, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret-value")
    options = {"url": "http://localhost:9/v1", "key_env": "SOME_KEY", "backend": "yes_no"}
    save(Path("run"), "evaluator", **{**options, "weights": "m"})
    with pytest.raises(ValueError, match=r"got a server \(url=\) in run") as caught:
        rewards.load("run")
    assert "secret-value" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[1]", '{"format": 1}', '{"format": 1, "reward": ["a"], "options": {}}', "\x00"]
)
def test_a_damaged_description_of_weights_is_told_in_a_line(folder, text):
    Path("run").mkdir()
    Path("run/reward.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"got run/reward.json") as caught:
        rewards.load("run")
    assert "\n" not in str(caught.value)


def test_the_restriction_ends_with_its_block(folder):
    with pytest.raises(ValueError, match=r"in some\.json"), user_code.recorded("some.json"):
        rewards.load(f"./{folder}_single.py:Sharpness")
    assert rewards.load(f"./{folder}_single.py:Sharpness") is not None


def test_score_and_train_take_them(folder, tmp_path, capsys):
    for side, level in (("chosen", 200), ("rejected", 50)):
        Path(side).mkdir()
        for i in range(4):
            Image.effect_noise((16, 16), level + i).save(f"{side}/{i}.png")
            Path(f"{side}/{i}.txt").write_text(f"prompt {i}", encoding="utf-8")
    name = f"./{folder}_single.py:Sharpness"
    table = ["score", "chosen", "--rewards", f"{name},{folder}.sharpness", "-o", "scores.jsonl"]
    assert main([*table, "--workers", "0", "--device", "cpu", "--option", f"{name}:power=2.0"]) == 0
    rows = [json.loads(line) for line in Path("scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row[name] for row in rows] == pytest.approx([row[f"{folder}.sharpness"] for row in rows])
    assert "running code of the file" in capsys.readouterr().err
    lines = [
        {"prompt": f"prompt {i}", "chosen": f"chosen/{i}.png", "rejected": f"rejected/{i}.png"}
        for i in range(4)
    ]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    settings = ["resolution=16", "max_steps=1", "holdout=0", "trackers=[]", "batch_size=2", "accumulate=1"]
    assert main(["train", "reward", f"reward={name}", "data=pairs.jsonl", "output=run", *settings]) == 0
    assert rewards.load(name, weights="run") is not None
    capsys.readouterr()
    assert main(["score", "chosen", "--rewards", "aestetic", "-o", "s.csv"]) == 2
    assert "did you mean aesthetic" in capsys.readouterr().err


def test_the_console_script_finds_them_too(folder):
    """Its sys.path has the folder of the script in place of the working folder."""
    code = (
        "import sys; sys.path[:] = [path for path in sys.path if path]\n"
        f"import rewards; print(type(rewards.load('{folder}.sharpness:Sharpness')).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Sharpness", done.stderr
    assert done.stderr.count("running code of the working folder") == 1


def test_code_of_an_installed_package_is_announced_too(tmp_path, monkeypatch, caplog):
    place = tmp_path / "installed_package.py"
    place.write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(place.parent))
    with caplog.at_level(logging.INFO, logger="rewards"), pytest.raises(ValueError, match=r"SystemExit: 0"):
        rewards.load("installed_package:Reward")
    (message,) = caplog.messages
    assert message.startswith(f"running code of the module installed_package ({place}) for the reward")


def test_a_reward_that_ends_the_program_is_one_that_fails(folder):
    text = "from rewards import Reward\nclass Leaves(Reward):\n"
    text += "    def score(self, images, prompts):\n        exit(0)\n"
    Path("leaves.py").write_text(text, encoding="utf-8")
    reward = rewards.load("./leaves.py:Leaves")
    with pytest.raises(ValueError, match=r"got SystemExit \(0\) from Leaves.score for 'a', 'b'"):
        reward(IMAGES, ["a", "b"])


@pytest.mark.parametrize(
    "text", ["raise IndexError('i')", "raise SystemExit(0)", "assert False", "import nowhere"]
)
def test_a_build_that_fails_in_any_way_is_one_line(folder, text):
    Path("fails.py").write_text(f"def build():\n    {text}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"got no options for \./fails\.py, whose build fails"):
        rewards.load("./fails.py")


@pytest.mark.parametrize("wrong", ["to_sparse()", "to('meta')", "to(torch.float8_e4m3fn)", "to(torch.int)"])
def test_scores_of_another_kind_of_tensor_are_refused(folder, wrong):
    text = "import torch\nfrom rewards import Reward\nclass Odd(Reward):\n"
    text += "    def score(self, images, prompts):\n        return images.mean((1, 2, 3))."
    sys.modules.pop(str(Path("odd.py").resolve()), None)
    Path("odd.py").write_text(f"{text}{wrong}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"from Odd.score; expected float \(2,\); fix that method"):
        rewards.load("./odd.py:Odd")(IMAGES, ["a", "b"])
