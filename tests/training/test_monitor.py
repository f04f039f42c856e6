"""The monitor: its numbers are those of its images, all processes heed it, and a kill costs nothing."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rewards
from rewards.combine import WeightedSum
from rewards.scorers.image_stats import statistics
from t2ialign.evaluation import diversity, monitor_journal
from t2ialign.evaluation.manifest_scores import read_image
from t2ialign.evaluation.panel import Panel
from t2ialign.io.jsonl import read as journal
from t2ialign.methods.dpo import trainer as dpo
from t2ialign.models.generate import generate
from t2ialign.training import checkpoint
from t2ialign.training.watch import monitor
from tests.rewards import tiny_clip
from tests.training import toy
from tests.training.brightness import Brightness
from tests.training.helpers import assert_same_checkpoint, numbers, run
from tests.training.judges import Climber
from tests.training.test_processes import launch
from tests.training.test_progress import bars  # noqa: F401  (a fixture)

PROMPTS = ("a cat", "a dog", "a red hat")
DARKNESS, BROKEN = "tests.training.judges:Darkness", "tests.training.judges:Broken"
BRIGHTNESS = "tests.training.brightness"
SMALL = {"monitor_images": 2, "monitor_steps": 3, "monitor_guidance_scale": 2.0, "evaluate_every": 1}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "monitor.txt"
    file.write_text("\n".join(PROMPTS))
    return file


@pytest.fixture
def watched(toy_config, prompts) -> Callable[..., toy.Config]:
    """Makes a config of the toy with a small monitor; its first updates make the images brighter."""

    def make(**changes: object) -> toy.Config:
        base = {"monitor_prompts": str(prompts), "monitor_rewards": (DARKNESS,), "max_steps": 2, **SMALL}
        return toy_config(**{**base, **changes})

    return make


@pytest.fixture(scope="module")
def whole(tiny_sd, prompts, tmp_path_factory) -> toy.Trainer:
    """A finished run of four steps, measured after each; the best weights are by brightness, which peaks."""
    settings = {
        "model": str(tiny_sd),
        "output": tmp_path_factory.mktemp("whole") / "run",
        "monitor_prompts": str(prompts),
        "monitor_rewards": ("toy-clip", DARKNESS, BRIGHTNESS),
        "keep_best": BRIGHTNESS,
        **{"max_steps": 4, "batch_size": 2, "accumulate": 2, "lora_rank": 2, "lr": 1e-2, "trackers": ()},
        **{"ema": 0.5, "checkpoint_every": 2, **SMALL},
    }
    trainer = toy.Trainer(toy.Config.model_validate(settings))
    trainer.fit()
    return trainer


def rows(output: Path) -> list[dict]:
    return journal(output / "monitor" / "scores.jsonl")


def make_image(output: Path, row: dict) -> torch.Tensor:
    return read_image(output / "monitor" / row["file"])


def test_every_number_is_that_of_the_saved_images(whole):
    output = whole.cfg.output
    found, clip = rows(output), rewards.load("toy-clip")
    assert [(row["step"], row["prompt"], row["seed"]) for row in found] == [
        (step, prompt, 2 * i + j) for step in range(5) for i, prompt in enumerate(PROMPTS) for j in range(2)
    ]
    base = found[:6]
    for start in range(0, len(found), 2):  # the images of one prompt
        pair = found[start : start + 2]
        images = torch.stack([make_image(output, row) for row in pair])
        before = torch.stack([make_image(output, row) for row in base[start % 6 : start % 6 + 2]])
        with torch.no_grad():
            embedded, away = (clip.encode_image(clip.preprocess(x)) for x in (images, before))
            expected = {
                "toy-clip": clip(images, [row["prompt"] for row in pair]).tolist(),
                DARKNESS: (-images.mean((1, 2, 3))).tolist(),
                BRIGHTNESS: images.mean((1, 2, 3)).tolist(),
                **{name: values.tolist() for name, values in statistics(images).items()},
                "distance": (images - before).square().flatten(1).mean(1).sqrt().tolist(),
                "embedding-distance": (1 - (embedded * away).sum(1)).tolist(),
                "diversity": [float(1 - embedded[0] @ embedded[1])] * 2,
                "vendi": [diversity.vendi_score(embedded)] * 2,
            }
        for i, row in enumerate(pair):
            numbers = {**row["scores"], **row["statistics"]}
            assert numbers == pytest.approx({name: v[i] for name, v in expected.items()}, abs=2e-6)
    assert {row["statistics"]["distance"] for row in base} == {0.0}


def test_the_images_are_of_the_served_weights_after_the_encoders_were_freed(whole):
    assert whole.policy.pipe.text_encoder is None
    last = rows(whole.cfg.output)[-2:]
    with whole.state.served():
        images = generate(whole.policy, ["a red hat"] * 2, [4, 5], num_inference_steps=3, guidance_scale=2.0)
    assert [row["seed"] for row in last] == [4, 5]
    saved = torch.stack([make_image(whole.cfg.output, row) for row in last])
    assert (saved - images).abs().max() <= 0.5 / 255 + 1e-6


def test_the_metrics_have_the_means_and_the_largest_index(whole):
    found, steps = rows(whole.cfg.output), numbers(whole.cfg.output)
    for row in steps:
        now = [r for r in found if r["step"] == row["step"]]
        for kind in ("scores", "statistics"):
            for name in now[0][kind]:
                mean = sum(r[kind][name] for r in now) / 6
                assert row[f"monitor/{name}"] == pytest.approx(mean, abs=1e-12)
        falls = monitor_journal.Journal(whole.cfg.output).falls()
        assert row["monitor/hack"] == max(fall.index for fall in falls if fall.step == row["step"])
    assert whole.watch.monitor is not None and whole.watch.monitor.fired is not None
    assert steps[0]["monitor/hack"] == 0 < 1 < max(row["monitor/hack"] for row in steps)


def test_a_run_is_the_same_with_and_without_a_monitor(whole, tmp_path):
    off = {"monitor_prompts": None, "monitor_rewards": (), "keep_best": None, "output": tmp_path / "off"}
    toy.Trainer(whole.cfg.model_copy(update=off)).fit()
    assert_same_checkpoint(
        *(checkpoint.path(o / "checkpoints", 4) for o in (whole.cfg.output, off["output"]))
    )
    plain = [{k: v for k, v in row.items() if "monitor/" not in k} for row in numbers(whole.cfg.output)]
    assert plain == numbers(off["output"])


def test_the_best_weights_are_those_of_the_best_step(whole):
    output = whole.cfg.output
    means = [row[f"monitor/{BRIGHTNESS}"] for row in numbers(output)]
    facts = json.loads((output / "best" / "best.json").read_text())
    step = means.index(max(means))
    assert facts == {"reward": BRIGHTNESS, "step": step, "mean": pytest.approx(max(means))}
    assert 0 < step < 4, "neither untouched nor simply the last"
    again = toy.Trainer(whole.cfg.model_copy(update={"output": output.parent / "again", "max_steps": step}))
    again.fit()
    best, there = load_file(output / "best" / "pytorch_lora_weights.safetensors"), again.cfg.output
    assert all(
        torch.equal(tensor, best[name])
        for name, tensor in load_file(there / "pytorch_lora_weights.safetensors").items()
    )
    card = (output / "README.md").read_text()
    assert f"- Best: `best/`: step {step}, {BRIGHTNESS}" in card
    assert (output / "best" / "run_best_kohya.safetensors").is_file()


@pytest.mark.rest
def test_a_killed_and_resumed_run_has_the_same_rows_images_and_best_weights(whole, tmp_path):
    cfg = whole.cfg.model_copy(update={"output": tmp_path / "run"})
    keys = ["max_steps", "checkpoint_every", "ema", "output", "batch_size", "accumulate", "lora_rank", "lr"]
    keys += ["monitor_prompts", "keep_best", *SMALL]
    pairs = [f"{key}={getattr(cfg, key)}" for key in keys]
    pairs += ["trackers=[]", f"monitor_rewards=[toy-clip, '{DARKNESS}', {BRIGHTNESS}]"]
    killed = run("-m", "tests.training.toy", cfg.model, *pairs, KILL_AT=f"3,0,{signal.SIGKILL}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = {row["step"] for row in rows(cfg.output)}
    last = checkpoint.step_of(checkpoint.whole(cfg.output / "checkpoints")[-1])
    assert left == {0, 1, 2, 3} and last == 2, "a step was measured that the resumed run takes again"
    (cfg.output / "monitor" / "step-000009").mkdir()  # as another evaluate_every might have left it
    toy.Trainer(cfg.model_copy(update={"resume": "latest"})).fit()
    ours, theirs = (output / "monitor" for output in (cfg.output, whole.cfg.output))
    assert {p.relative_to(ours) for p in ours.rglob("*")} == {
        p.relative_to(theirs) for p in theirs.rglob("*")
    }
    for file in theirs.rglob("*.*"):
        assert (ours / file.relative_to(theirs)).read_bytes() == file.read_bytes(), file.name
    assert numbers(cfg.output) == numbers(whole.cfg.output)
    assert_same_checkpoint(cfg.output / "best", whole.cfg.output / "best")
    assert (cfg.output / "best/best.json").read_bytes() == (whole.cfg.output / "best/best.json").read_bytes()


def test_best_weights_lost_between_checkpoint_and_export_are_exported_on_resume(watched):
    cfg = watched(keep_best="tests.training.brightness", monitor_rewards=("tests.training.brightness",))
    toy.Trainer(cfg.model_copy(update={"max_steps": 1})).fit()
    best = cfg.output / "best" / "best.json"
    facts = best.read_bytes()
    assert json.loads(facts)["step"] == 1
    card = (cfg.output / "README.md").read_text()
    assert "on 3 prompts: too short to tell (measurements after the base: 1; it takes 5 or more)" in card
    best.unlink()  # as a kill in the middle of the export leaves it
    toy.Trainer(cfg.model_copy(update={"max_steps": 1, "resume": "latest"})).fit()
    assert best.read_bytes() == facts


def test_no_resume_starts_before_the_best_step(watched):
    """Brightness is best after the first update, when no checkpoint is due; the second one fails."""
    bright = "tests.training.brightness"
    cfg = watched(keep_best=bright, monitor_rewards=(bright,), poison=1)
    with pytest.raises(FloatingPointError):
        toy.Trainer(cfg).fit()
    assert json.loads((cfg.output / "best" / "best.json").read_text())["step"] == 1
    last = checkpoint.whole(cfg.output / "checkpoints")[-1]
    assert checkpoint.step_of(last) == 1
    best, there = (load_file(f / "pytorch_lora_weights.safetensors") for f in (cfg.output / "best", last))
    assert best.keys() == there.keys() and all(torch.equal(best[name], there[name]) for name in best)


def test_a_branch_measures_the_base_by_the_reference(whole, watched, tmp_path):
    """Its own folder has no step 0: the adapter switched off is the model that training began with."""
    start = checkpoint.path(whole.cfg.output / "checkpoints", 4)
    cfg = whole.cfg.model_copy(
        update={"resume": str(start), "output": tmp_path / "branch", "max_steps": 5, "keep_best": None}
    )
    toy.Trainer(cfg).fit()
    ours, theirs = rows(cfg.output), rows(whole.cfg.output)
    assert {row["step"] for row in ours} == {0, 5}
    assert ours[:6] == theirs[:6]
    for row in ours[:6]:
        assert torch.equal(make_image(cfg.output, row), make_image(whole.cfg.output, row))


def test_a_run_that_over_optimises_says_so_ends_and_stays_ended(watched, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)  # where the progress line shows it
    cfg = watched(max_steps=6, stop_on_hack=True)
    trainer = Climber(cfg)
    row = trainer.fit()
    fired = trainer.watch.monitor.fired
    assert fired is not None and fired.reward == DARKNESS and fired.step == trainer.state.step < 6
    said = capsys.readouterr().err
    line = f"over-optimised at step {fired.step}: held-out {DARKNESS} fell"
    assert said.count(line) == 1 and f"usable reward: {fired.usable:.4g}" in said
    assert f"over-optimised=since {fired.step}" in said
    assert f"ended by the monitor after step {fired.step} of 6" in said
    assert fired.usable == numbers(cfg.output)[fired.best_step]["monitor/trained"]
    assert row["monitor/hack"] > 1
    card = (cfg.output / "README.md").read_text()
    assert f"- Steps: {fired.step} of 6, ended by the monitor" in card and line in card
    there = checkpoint.whole(cfg.output / "checkpoints")
    assert checkpoint.step_of(there[-1]) == fired.step
    before = load_file(cfg.output / "pytorch_lora_weights.safetensors")
    again = Climber(watched(max_steps=6, stop_on_hack=True, resume="latest"))
    again.fit()
    assert again.state.step == fired.step and (cfg.output / "README.md").read_text() == card
    after = load_file(cfg.output / "pytorch_lora_weights.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    further = Climber(watched(max_steps=fired.step + 1, resume="latest"))
    further.fit()
    assert further.state.step == fired.step + 1


def test_nothing_ends_while_the_trained_reward_falls_with_the_held_out_one(watched, monkeypatch):
    """The held-out darkness falls as above, but so does the trained reward."""
    from tests.training.judges import Darkness

    monkeypatch.setattr(Climber, "climbs", ("another", Darkness()))
    trainer = Climber(watched(stop_on_hack=True))
    trainer.fit()
    assert trainer.state.step == 2 and trainer.watch.monitor.fired is None
    assert {row["monitor/hack"] for row in numbers(trainer.cfg.output)} == {0.0}


@pytest.mark.rest
def test_two_processes_end_together(tiny_sd, prompts, tmp_path):
    settings = ["max_steps=6", "batch_size=1", "accumulate=2", "lora_rank=2", "lr=1e-2", "trackers=[]"]
    settings += [f"{key}={value}" for key, value in SMALL.items()]
    settings += [f"monitor_prompts={prompts}", f"monitor_rewards={DARKNESS}", "stop_on_hack=true"]
    done = launch("tests.training.toy", str(tiny_sd), *settings, f"output={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("process group left: False") == 2
    assert done.stderr.count("ended by the monitor after step") == 1
    last = checkpoint.step_of(checkpoint.whole(tmp_path / "run" / "checkpoints")[-1])
    assert last == numbers(tmp_path / "run")[-1]["step"] < 6
    assert (tmp_path / "run" / "pytorch_lora_weights.safetensors").exists()


def test_each_image_is_encoded_once_whatever_asks(whole):
    watcher = whole.watch.monitor
    counted = tiny_clip.counts(watcher.panel.rewards["toy-clip"].tower, "image")
    images = torch.stack([make_image(whole.cfg.output, row) for row in rows(whole.cfg.output)[:2]])
    watcher.panel.score(images, ["a cat"] * 2)
    assert counted == [2]
    with whole.state.served():
        watcher.measure(5)
    assert counted[1:] == [2, 2, 2], "the base's embeddings are known"
    watcher.journal.cut(4)


def test_rewards_of_equal_weights_share_a_tower_and_fine_tuned_ones_do_not():
    trained = rewards.load("toy-clip")
    names = ["rewards.toy.clip", "toy-clip-b"]  # the first is the trained one by another name
    panel = Panel(names, ("toy-clip", trained), torch.device("cpu"))
    counted = tiny_clip.counts(trained.tower, "image")
    images, texts = torch.rand(3, 3, 32, 32), ["a red circle"] * 3
    scores, embedded = panel.score(images, texts)
    assert counted == [3] and panel.eye == names[0]
    assert torch.equal(scores["trained"], scores[names[0]])
    torch.testing.assert_close(scores["trained"], trained(images, texts))
    torch.testing.assert_close(embedded, trained.encode_image(trained.preprocess(images)))
    tuned = rewards.load("toy-clip")
    next(tuned.tower.parameters()).data.add_(0.1)
    panel = Panel(names, ("toy-clip", tuned), torch.device("cpu"))
    assert panel.rewards[names[0]].tower is not tuned.tower
    scores, _ = panel.score(images, texts)
    torch.testing.assert_close(scores[names[0]], trained(images, texts))


def test_a_reward_that_is_trained_on_is_not_held_out(watched):
    cfg = watched(monitor_rewards=("toy-clip", "tests.training.brightness"))
    with pytest.raises(
        ValueError, match=r"got monitor reward tests\.training\.brightness, which is trained on"
    ):
        Climber(cfg)
    assert not cfg.output.exists()
    both = WeightedSum({"pickscore": Brightness(), "other": Brightness()}, {"pickscore": 1.0, "other": 1.0})
    with pytest.raises(ValueError, match="got monitor reward pickscore, which is trained on"):
        Panel(["pickscore"], ("mine", both), torch.device("cpu"))


def test_a_score_that_is_no_number_stops_the_run_and_can_be_dropped(watched):
    cfg = watched(monitor_rewards=(DARKNESS, BROKEN))
    with pytest.raises(
        ValueError, match=rf"got the score nan of {BROKEN} for prompt 'a cat', seed 1; .*drop it"
    ):
        toy.Trainer(cfg).fit()
    toy.Trainer(watched(resume="latest")).fit()
    assert {row["step"] for row in rows(cfg.output)} == {0, 1, 2}


def test_without_an_image_tower_diversity_is_left_out_and_said_so(watched, capsys):
    cfg = watched(max_steps=1)
    toy.Trainer(cfg).fit()
    assert "monitor: diversity is not measured" in capsys.readouterr().err
    found = rows(cfg.output)[0]["statistics"]
    assert "distance" in found and not {"diversity", "vendi", "embedding-distance"} & set(found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"monitor_prompts": None}, "got monitor_rewards without monitor_prompts"),
        ({"monitor_rewards": (), "stop_on_hack": True}, "got stop_on_hack without monitor_rewards"),
        ({"keep_best": "pickscore"}, r"got keep_best=pickscore; expected one of monitor_rewards \(tests"),
        ({"monitor_prompts": "a cat", "stop_on_hack": True}, "got stop_on_hack with one monitor prompt"),
        ({"monitor_rewards": ("no-such",)}, "got reward 'no-such'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(watched, changes, words):
    cfg = watched(**changes)
    with pytest.raises(ValueError, match=words):
        toy.Trainer(cfg)
    assert not cfg.output.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"monitor_prompts": "a fish"},
            r"got a monitor on resume with prompts \['a fish'\]; expected \['a cat'",
        ),
        ({"monitor_guidance_scale": 3.0}, r"with guidance 3.0; expected 2.0, as in .*about.json"),
        ({"monitor_rewards": ("toy-clip", "toy-clip-b")}, "got monitor reward toy-clip-b on resume"),
        ({"monitor_rewards": (DARKNESS,)}, "with embedding None; expected 'toy-clip'"),
    ],
)
def test_a_resume_that_would_measure_something_else_is_refused(whole, changes, words):
    update = {"resume": "latest", "keep_best": None, "max_steps": 5, **changes}
    before = (whole.cfg.output / "monitor" / "scores.jsonl").read_bytes()
    with pytest.raises(ValueError, match=words):
        toy.Trainer(whole.cfg.model_copy(update=update)).fit()
    assert (whole.cfg.output / "monitor" / "scores.jsonl").read_bytes() == before


def test_a_base_image_that_is_gone_is_an_error_that_names_it(whole, tmp_path):
    lost = whole.cfg.output / "monitor" / "step-000000" / "00003.png"
    lost.rename(tmp_path / "kept.png")
    try:
        with pytest.raises(ValueError, match=r"got no .*step-000000/00003\.png; expected the base's images"):
            toy.Trainer(whole.cfg.model_copy(update={"resume": "latest", "max_steps": 5})).fit()
    finally:
        (tmp_path / "kept.png").rename(lost)


def test_other_trainers_have_it_with_no_code_of_their_own(dpo_config, prompts):
    options = {"monitor_prompts": str(prompts), "monitor_rewards": ("toy-clip",), **SMALL}
    cfg = dpo_config(max_steps=1, **options)
    row = dpo.Trainer(cfg).fit()
    assert {"monitor/toy-clip", "monitor/diversity", "monitor/hack"} <= row.keys()
    assert monitor_journal.Journal(cfg.output).about["method"] == "dpo"


def test_it_shows_how_far_it_is(watched, bars):  # noqa: F811
    seen, trainer = bars(monitor), toy.Trainer(watched())
    with trainer.state.served():
        trainer.watch.monitor.measure(0)
    assert seen == [("monitor", 3, 3, 3)]
