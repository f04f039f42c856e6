"""t2ialign mix: the network's weights, as diffusers loads them, are alpha W_A + (1 - alpha) W_B."""

import json
import re
import resource
import shlex
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rewards import assets
from t2ialign.cli import main as cli
from t2ialign.models.factors import Factors
from t2ialign.models.generate import generate
from t2ialign.models.load import load_policy
from t2ialign.models.lora import ADAPTER, add_lora, trainable
from t2ialign.models.lora_apply import load_lora
from t2ialign.models.lora_files import FILE, METADATA, partial_name, read_lora, write_diffusers
from t2ialign.models.lora_saved import save_lora
from t2ialign.models.lora_targets import ATTENTION as TARGETS
from t2ialign.models.mixing import mix_layers
from tests import loras

TOY = str(assets.folder("toy"))
CONVS = (*TARGETS, "conv1", "conv2")


def saved(policy, folder: Path, seed: int) -> Path:
    draw = torch.Generator().manual_seed(seed)
    for parameter in trainable(policy).values():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=draw)
    save_lora(policy, folder)
    return folder


def lora(model: str, folder: Path, *, rank: int, alpha: float, seed: int, targets=TARGETS) -> Path:
    """A LoRA of random weights, saved as a run saves it."""
    policy = load_policy(model, device="cpu")
    add_lora(policy, rank, alpha, targets, seed=seed)
    return saved(policy, folder, seed)


def patterned(model: str, folder: Path, seed: int, **settings) -> Path:
    """One whose ranks and alphas differ between layers."""
    policy = load_policy(model, device="cpu")
    config = LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=list(CONVS),
        rank_pattern={"to_k": 1, "conv1": 4},
        alpha_pattern={"attn1.to_k": 2, "mid_block.resnets.0.conv1": 9},
        **settings,
    )
    policy.adapted.add_adapter(config, ADAPTER)
    return saved(policy, folder, seed)


def weights(model: str, path: Path | None = None) -> dict[str, torch.Tensor]:
    """All weights of the UNet with a LoRA fused into them by diffusers."""
    pipe = DiffusionPipeline.from_pretrained(model)
    if path is not None:
        folder, name = (path, FILE) if path.is_dir() else (path.parent, path.name)
        pipe.load_lora_weights(folder, weight_name=name)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    return pipe.unet.state_dict()


def run(a: Path, b: Path, alpha: float, output: Path) -> int:
    return cli.main(["mix", str(a), str(b), "--alpha", str(alpha), "-o", str(output)])


def check(model: str, a: Path, b: Path, alpha: float, output: Path) -> None:
    """Every weight of the mixture is the one between those of A and B, and the LoRAs do change them."""
    assert run(a, b, alpha, output) == 0
    base, one, other, mixed = (weights(model, path) for path in (None, a, b, output))
    moved = 0
    for name in base:
        expected = alpha * one[name].double() + (1 - alpha) * other[name].double()
        torch.testing.assert_close(mixed[name].double(), expected, rtol=1e-5, atol=2e-6, msg=name)
        moved += (one[name] - other[name]).abs().max().item() > 1e-2
    assert moved >= 8


@pytest.fixture(scope="module")
def a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attention only, and a strength of 3; a run's folder, which says its model."""
    folder = lora(TOY, tmp_path_factory.mktemp("a"), rank=4, alpha=12, seed=1)
    (folder / "config.yaml").write_text("model: toy\n")
    return folder


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions too, and a strength of 2/3."""
    return lora(TOY, tmp_path_factory.mktemp("b"), rank=3, alpha=2, seed=2, targets=CONVS)


def test_a_layer_worked_out_by_hand() -> None:
    """A adds 4 (1, 3) (1, 2)^T and B adds (2, 1) (0, 1)^T; a quarter of A and three quarters of B."""
    one = {"x": Factors(torch.tensor([[1.0, 2.0]]), 4 * torch.tensor([[1.0], [3.0]]))}
    other = {"x": Factors(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0], [1.0]]))}
    down, up = mix_layers(one, other, 0.25)["x"]
    assert down.tolist() == [[1, 2], [0, 1]]
    assert up.tolist() == [[1, 1.5], [3, 0.75]]
    assert (up @ down).tolist() == [[1, 3.5], [3, 6.75]]  # 1/4 [[4, 8], [12, 24]] + 3/4 [[0, 2], [0, 1]]
    mean_up, mean_down = (
        0.25 * p + 0.75 * q for p, q in ((one["x"].up, other["x"].up), (one["x"].down, other["x"].down))
    )
    assert (mean_up @ mean_down).tolist() == [
        [0.625, 3.125],
        [0.9375, 4.6875],
    ]  # the factors' mean is no mixture


def test_a_layer_of_one_of_them_keeps_its_share() -> None:
    only = Factors(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [3.0]]))
    mixed = mix_layers({"x": only}, {"y": only}, 0.25)
    assert mixed["x"].up.tolist() == [[0.25], [0.75]] and mixed["y"].up.tolist() == [[0.75], [2.25]]


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_weights_in_diffusers_lie_between(a: Path, b: Path, alpha: float, tmp_path: Path) -> None:
    check(TOY, a, b, alpha, tmp_path / "out")


def test_weights_of_sdxl_lie_between(tiny_sdxl: Path, tmp_path: Path) -> None:
    model = str(tiny_sdxl)
    one = lora(model, tmp_path / "a", rank=1, alpha=3, seed=1, targets=CONVS)
    other = lora(model, tmp_path / "b", rank=2, alpha=2, seed=2)
    check(model, one, other, 0.3, tmp_path / "out")


@pytest.mark.parametrize("root", [False, True])
def test_ranks_and_alphas_of_single_layers_count(a: Path, root: bool, tmp_path: Path) -> None:
    """As peft reads them, and with the square root of the rank where the file asks for it."""
    other = patterned(TOY, tmp_path / "b", 3, use_rslora=root)
    check(TOY, a, other, 0.3, tmp_path / "out")


def test_one_rank_and_alpha_is_true_of_every_layer(a: Path, b: Path, tmp_path: Path) -> None:
    """Readers that know no metadata take alpha = rank, so that must be right too."""
    assert run(a, b, 0.3, tmp_path / "out") == 0
    state = load_file(tmp_path / "out" / FILE)
    assert {t.shape[0] for key, t in state.items() if "lora_A" in key} == {4 + 3}
    assert {t.shape[1] for key, t in state.items() if "lora_B" in key} == {4 + 3}
    assert {t.dtype for t in state.values()} == {torch.float32}
    save_file(state, tmp_path / "plain.safetensors")  # drops the metadata
    for with_it, without in zip(
        weights(TOY, tmp_path / "out").values(),
        weights(TOY, tmp_path / "plain.safetensors").values(),
        strict=True,
    ):
        torch.testing.assert_close(with_it, without, rtol=1e-6, atol=1e-7)


def test_old_half_precision_files_are_read(a: Path, b: Path, tmp_path: Path) -> None:
    """Other names of the factors, 16 bits, no metadata: diffusers' own training scripts wrote such files."""
    state = {
        key.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): tensor.bfloat16()
        for key, tensor in load_file(b / FILE).items()
    }
    save_file(state, tmp_path / "old.safetensors")
    check(TOY, tmp_path / "old.safetensors", a, 0.3, tmp_path / "out")


def test_kohya_files_with_text_encoders_are_mixed(tiny_sd: Path, tmp_path: Path) -> None:
    pipe = DiffusionPipeline.from_pretrained(tiny_sd)
    one, other = loras.draw(pipe, seed=1), loras.draw(pipe, seed=2, mixed=False)
    files = [
        loras.write(kind, parts, tmp_path / kind, pipe.unet)
        for kind, parts in (("kohya", one), ("diffusers", other))
    ]
    assert run(files[0], files[1], 0.3, tmp_path / "out") == 0
    mixed = read_lora(tmp_path / "out").layers
    assert mixed.keys() == one.keys()
    for key, factors in mixed.items():
        expected = 0.3 * one[key].delta + 0.7 * other[key].delta
        torch.testing.assert_close(factors.delta, expected.float(), rtol=1e-5, atol=1e-6)


def test_loras_that_share_no_layer_are_refused(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = DiffusionPipeline.from_pretrained(tiny_sd)
    files = [
        loras.write("kohya", loras.draw(pipe, only=part), tmp_path / part, pipe.unet)
        for part in ("unet", "text_encoder")
    ]
    assert run(files[0], files[1], 0.5, tmp_path / "out") == 2
    assert re.search(r"got LoRA .* \(kohya\): 0 of \d+ layers matched by the other", capsys.readouterr().err)


def test_a_mixture_can_be_mixed(a: Path, b: Path, tmp_path: Path) -> None:
    assert run(a, b, 0.5, tmp_path / "half") == 0
    assert run(tmp_path / "half", a, 0.5, tmp_path / "out") == 0
    base, one, other, mixed = (weights(TOY, path) for path in (None, a, b, tmp_path / "out"))
    for name in base:
        expected = 0.75 * one[name] + 0.25 * other[name]
        torch.testing.assert_close(mixed[name], expected, rtol=1e-5, atol=2e-6)


def test_what_is_written_is_read_back(b: Path, tmp_path: Path) -> None:
    """Layers of several ranks are filled with zeros, which change no product."""
    layers = read_lora(b).layers
    name = next(name for name in layers if layers[name].down.ndim == 4)
    layers[name] = Factors(layers[name].down[:1], layers[name].up[:, :1])
    again = read_lora(write_diffusers(layers, tmp_path / FILE, {})).layers
    assert again.keys() == layers.keys()
    for layer, (down, up) in layers.items():
        found = again[layer]
        assert found.rank == 3 and found.shape == layers[layer].shape
        torch.testing.assert_close(
            torch.einsum("or...,ri...->oi...", found.up, found.down),
            torch.einsum("or...,ri...->oi...", up, down),
        )


def make_images(*loras: tuple[Path, float]) -> torch.Tensor:
    policy = load_policy("toy", device="cpu")
    for path, weight in loras:
        load_lora(policy, path, weight=weight)
    return generate(
        policy, ["a red circle", "two blue squares"], [0, 1], num_inference_steps=4, guidance_scale=3.0
    )


def test_all_of_a_renders_as_a_does(a: Path, b: Path, tmp_path: Path) -> None:
    assert run(a, b, 1, tmp_path / "out") == 0
    one = make_images((a, 1.0))
    assert (one - make_images()).abs().max() > 0.1
    torch.testing.assert_close(make_images((tmp_path / "out", 1.0)), one, rtol=0, atol=1e-3)


def test_a_mixture_renders_as_the_two_side_by_side(a: Path, b: Path, tmp_path: Path) -> None:
    """As docs/training.md says of `sample --lora A:0.3 --lora B:0.7`."""
    assert run(a, b, 0.3, tmp_path / "out") == 0
    both = make_images((a, 0.3), (b, 0.7))
    assert (both - make_images((a, 0.7), (b, 0.3))).abs().max() > 0.1
    torch.testing.assert_close(make_images((tmp_path / "out", 1.0)), both, rtol=0, atol=1e-3)


def test_what_the_card_and_the_last_line_say_works(
    a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "my soup"
    monkeypatch.chdir(tmp_path)
    assert run(a, b, 0.3, output) == 0
    line = capsys.readouterr().out
    shared = len(read_lora(a).layers)
    assert line.startswith(
        f"{output / FILE}: 0.3 x {a} + 0.7 x {b}, rank 7, {len(read_lora(b).layers)} layers "
    )
    assert f"({shared} in both)" in line and len(line.splitlines()) == 1
    command = shlex.split(line.partition("; t2ialign ")[2])
    assert cli.main([*command, "--num-inference-steps", "1", "--output", str(tmp_path / "sample")]) == 0
    card = (output / "README.md").read_text()
    assert (
        "base_model" not in card
        and f"`0.3 x {a.name} + 0.7 x {b.name}`" in card
        and str(tmp_path) not in card
    )
    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found is not None
    scope: dict[str, object] = {}
    exec(found[1].replace('"BASE"', repr(TOY)), scope)
    assert scope["pipe"].get_active_adapters() == ["default_0"]  # type: ignore[attr-defined]
    assert sorted(p.name for p in output.iterdir()) == sorted(["README.md", FILE])
    convert = re.search(r"```bash\nt2ialign (.*?)\n```", card)
    assert convert is not None and cli.main(shlex.split(convert[1])) == 0
    assert (tmp_path / "my soup_kohya.safetensors").is_file() and "`<lora:my soup_kohya:1>`" in card


def test_a_full_disk_leaves_nothing_and_the_same_command_passes_later(
    a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, (soft, hard) = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        assert run(a, b, 0.3, output) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("t2ialign: error: cannot write")
    assert not output.exists()
    output.mkdir()
    (output / partial_name(FILE)).write_bytes(b"torn by a kill")
    assert run(a, b, 0.3, output) == 0
    assert sorted(p.name for p in output.iterdir()) == sorted(["README.md", FILE])


def broken(folder: Path, b: Path) -> None:
    """Files that are no LoRA in a known format, each by the name of what is wrong."""
    state = load_file(b / FILE)
    key = next(iter(state))
    (folder / "no.safetensors").write_bytes(b"not a tensor")
    torch.save(state, folder / "pickled.bin")
    save_file({}, folder / "empty.safetensors")
    save_file({"lora_" + key.replace(".", "_"): state[key]}, folder / "odd.safetensors")
    save_file(state | {"text_encoder.x.lora_A.weight": state[key].clone()}, folder / "text.safetensors")
    magnitude = key.replace("lora_A.weight", "lora_magnitude_vector")
    save_file(state | {magnitude: torch.ones(3)}, folder / "dora.safetensors")
    save_file({k: t for k, t in state.items() if k != key}, folder / "half.safetensors")
    narrow = {k: t[:, :-1].contiguous() if "lora_A" in k else t for k, t in state.items()}
    save_file(narrow, folder / "narrow.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"got LoRA '.*missing'; expected a \.safetensors file, or a folder with pytorch_lora"),
        ("", r"got LoRA '.*'; expected a \.safetensors file, or a folder with pytorch_lora"),
        ("no.safetensors", r"got LoRA '.*no\.safetensors'; expected a safetensors file"),
        ("pickled.bin", r"got LoRA '.*pickled\.bin'; expected a safetensors file"),
        ("empty.safetensors", r"which is empty; expected one in a format of diffusers, old diffusers, PEFT"),
        ("odd.safetensors", r"with the unknown key 'lora_unet_.*'; expected a LoRA of an image model"),
        ("text.safetensors", r"with the unknown key 'text_encoder\.x\.lora_A\.weight'; .* kohya and ComfyUI"),
        ("dora.safetensors", r"with '.*lora_magnitude_vector', which is DoRA; expected a plain LoRA"),
        ("half.safetensors", r"with half of .*; expected two factors of one rank"),
        (
            "narrow.safetensors",
            r"got .* of shapes \(\d+, \d+.*\) and \(\d+, \d+.*\); expected two LoRAs for",
        ),
    ],
)
def test_what_cannot_be_mixed_is_said_in_one_line(
    name: str, message: str, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(tmp_path, b)
    for pair in ((b, tmp_path / name), (tmp_path / name, b)):
        assert run(*pair, 0.3, tmp_path / "out") == 2
        err = capsys.readouterr().err
        assert err.startswith("t2ialign: error: got ") and len(err.splitlines()) == 1
        assert re.search(message, err), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("alpha", ["-0.1", "1.1", "nan"])
def test_a_share_is_from_0_to_1(
    alpha: str, a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["mix", str(a), str(b), f"--alpha={alpha}", "-o", str(tmp_path / "out")]) == 2
    assert f"got --alpha {alpha}; expected the share of A, from 0 to 1" in capsys.readouterr().err


def test_a_folder_in_use_is_left_as_it_was(
    a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (a / FILE).read_bytes()
    assert run(a, b, 0.3, a) == 2
    assert re.search(r"got --output .* in use \(it holds config\.yaml\); expected", capsys.readouterr().err)
    assert (a / FILE).read_bytes() == before
    (tmp_path / "file").write_text("mine")
    assert run(a, b, 0.3, tmp_path / "file") == 2
    assert "which is a file; expected a folder" in capsys.readouterr().err


def test_the_metadata_says_what_the_weights_are(a: Path, b: Path, tmp_path: Path) -> None:
    """Other tools read alpha there; a mixture has rank = alpha, so at weight 1 it adds up @ down."""
    assert run(a, b, 0.3, tmp_path / "out") == 0
    with safe_open(tmp_path / "out" / FILE, "pt") as stream:
        settings = json.loads(stream.metadata()[METADATA])
    assert settings["unet.r"] == settings["unet.lora_alpha"] == 7
    assert set(settings["unet.target_modules"]) == {key.removeprefix("unet.") for key in read_lora(b).layers}


def test_a_base_model_that_a_shared_lora_names_is_only_a_name(tmp_path, capsys):
    """It comes from a stranger's config.yaml, and goes to the terminal, a command and code to copy."""
    evil = 'x/y"); __import__("os").system("true") #\x1b]0;title\x07<script>\n# heading'
    folder = lora(TOY, tmp_path / "lora", rank=2, alpha=2, seed=0)
    (folder / "config.yaml").write_text(json.dumps({"model": evil}), encoding="utf-8")
    mixed = tmp_path / "mixed"
    assert cli.main(["mix", str(folder), str(folder), "--alpha", "0.5", "-o", str(mixed)]) == 0
    card = (mixed / "README.md").read_text(encoding="utf-8")
    assert "__import__" not in card.split("```python")[1].split("```")[0]
    assert not any(part in card for part in ("<script>", "\x1b", "\n# heading"))
    assert capsys.readouterr().out.replace("\n", "").isprintable()
