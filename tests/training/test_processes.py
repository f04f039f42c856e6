"""Two processes equal one on the same global batch, through accelerate launch."""

import json
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from t2ialign.io import locks
from t2ialign.methods.dense.trajectories import open_store
from t2ialign.training import checkpoint
from tests.training import recorded
from tests.training.helpers import numbers, run

DPO = ("accumulate=2", "max_steps=3", "lora_rank=4", "lr=3e-4", "holdout=0.3", "evaluate_every=3")
DENSE = (
    *(
        "max_steps=3",
        "collect_every=2",
        "lora_rank=4",
        "lr=1e-3",
        "clip=0.1",
        "num_inference_steps=3",
        "timesteps=2",
    ),
    *("collect_prompts=6", "rollouts=3", "keep=3", "rollout_batch=6", "guidance_scale=2", "max_grad_norm=1"),
    *("reward=tests.training.brightness", "prompts=a red circle", "store=fp32"),
)
BACKPROP = (
    *(
        "preset=alignprop",
        "max_steps=3",
        "accumulate=1",
        "num_inference_steps=3",
        "guidance_scale=2",
        "lr=1e-3",
    ),
    *("lora_rank=4", "reward=tests.training.redness", "prompts=a red circle"),
)
LPO = (
    *(
        "max_steps=3",
        "collect_prompts=3",
        "num_inference_steps=3",
        "candidates=3",
        "rollout_batch=1",
        "guidance_scale=2",
    ),
    *("threshold_low=0", "threshold_high=0", "t_max=999", "beta=50", "lora_rank=4", "lr=1e-3"),
    *("reward=tests.training.brightness", "prompts=a red circle"),
)
GRPO = (
    *("preset=ddpo", "max_steps=3", "groups=2", "group_size=4", "updates=2", "num_inference_steps=3"),
    *(
        "window=1",
        "rollout_batch=2",
        "guidance_scale=2",
        "clip=0.1",
        "kl_weight=0.1",
        "lora_rank=4",
        "lr=1e-3",
    ),
    *("reward=tests.training.brightness", "prompts=a red circle"),
)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.rest]


def launch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two gloo processes on the CPU; `--cpu` would start one, `--multi_gpu` is what starts several."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [
        "--multi_gpu",
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
    ]
    command = ["-m", "accelerate.commands.launch", *flags, f"--main_process_port={port}", "-m", *arguments]
    return run(*command, ACCELERATE_USE_CPU="true", **environment)


@pytest.fixture(scope="module")
def both(sharp_sd, pair_folder, tmp_path_factory) -> Path:
    """A folder with each method's run by one process (dpo-1 ...) and by two (dpo-2 ...)."""
    folder, common = tmp_path_factory.mktemp("processes"), [f"model={sharp_sd}", "trackers=[]"]
    methods = {"dpo": [*DPO, f"data={pair_folder}", *common], "dense": [*DENSE, *common]}
    methods["backprop"], methods["lpo"] = [*BACKPROP, *common], [*LPO, *common]
    methods["grpo"] = [*GRPO, *common]
    others = folder / "others.json"
    others.write_text(json.dumps({f"image {i}": [f"picture {i}", f"image {i + 50}"] for i in range(20)}))
    offline = [*DPO, f"data={pair_folder}", *common]
    methods |= {"sft": offline, "kto": [*offline, "reference_decay=0.9"]}
    methods |= {"bco": [*offline, "loss=bco", "shift_bins=2"]}
    methods |= {"tpo": [*offline, f"mismatched={others}", "loss=tkto"]}
    for name, settings in methods.items():
        method = "kto" if name == "bco" else name
        recorded.record(method, *settings, "batch_size=4", f"output={folder / name}-1")
        two = [method, *settings, "batch_size=2", f"output={folder / name}-2"]
        done = launch("tests.training.recorded", *two)
        assert done.returncode == 0, done.stderr
    return folder


OFFLINE = ("dpo", "sft", "kto", "bco", "tpo")
ONLINE = ("dense", "backprop", "lpo", "grpo")


@pytest.mark.parametrize("method, rows", [*((name, 8) for name in OFFLINE), *((name, 4) for name in ONLINE)])
def test_two_processes_give_the_losses_and_gradients_of_one(both, method, rows):
    """Over three updates, where policy and reference have parted.

    The tolerances are those of fp32 sums in another order, which beta = 5000 magnifies (a last bit of an
    error near 1 is 3e-4 of a margin) and updates carry on.
    """
    outputs = [both / f"{method}-{processes}" for processes in (1, 2)]
    ends = [checkpoint.load(checkpoint.path(output / "checkpoints", 3)) for output in outputs]
    assert [end.meta["global_batch"] for end in ends] == [rows, rows]
    one, two = map(numbers, outputs)
    assert len(one) == len(two) >= 3
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=5e-3, abs=5e-4)
    left, right = (load_file(output / "gradients.safetensors") for output in outputs)
    assert left.keys() == right.keys()
    for name, gradient in left.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(gradient, right[name], rtol=5e-3, atol=2e-3 * scale, msg=name)
    for name, weight in ends[0].tensors["weights"].items():
        torch.testing.assert_close(weight, ends[1].tensors["weights"][name], rtol=1e-2, atol=1e-3)


def test_two_processes_sample_the_trajectories_of_one(both):
    stores = [open_store(both / f"dense-{processes}" / "trajectories" / "round-0001") for processes in (1, 2)]
    assert np.array_equal(stores[0].states[:, :, 0], stores[1].states[:, :, 0])  # the first noise
    np.testing.assert_allclose(stores[0].states, stores[1].states, atol=2e-2)  # from weights two updates on
    np.testing.assert_allclose(stores[0].all_scores, stores[1].all_scores, atol=2e-3)


def test_the_verb_locks_on_the_first_process_alone_and_a_second_run_is_refused_in_one_line(
    sharp_sd, pair_folder, tmp_path
):
    common = [f"model={sharp_sd}", f"data={pair_folder}", "trackers=[]", f"output={tmp_path / 'run'}"]
    words = ["t2ialign", "train", "dpo", *DPO, *common, "batch_size=2", "resume=latest"]
    done = launch(*words)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / ".lock").exists()
    with locks.hold_folder(tmp_path / "run"):
        second = launch(*words)
    lines = [line for line in second.stderr.splitlines() if line.startswith("t2ialign: error")]
    assert second.returncode != 0 and len(lines) == 1
    assert f"got output={tmp_path / 'run'}, which another run is using" in lines[0]


def test_a_signal_to_one_process_stops_both_after_the_same_update(tiny_sd, tmp_path):
    settings = [
        "max_steps=6",
        "batch_size=1",
        "accumulate=2",
        "lora_rank=2",
        "trackers=[]",
        f"output={tmp_path}/run",
    ]
    stopped = launch(
        "tests.training.toy", str(tiny_sd), *settings, KILL_AT=f"3,0,{signal.SIGTERM}", KILL_RANK="1"
    )
    assert stopped.returncode != 0
    assert stopped.stdout.count("process group left: False") == 2
    assert "stopped by SIGTERM after step 4; add resume=latest" in stopped.stderr
    there = checkpoint.whole(tmp_path / "run" / "checkpoints")
    assert checkpoint.step_of(there[-1]) == 4
