"""The loop: what one optimiser step is, what it costs, and what it leaves behind."""

import importlib.util
import json
import math
import os

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from t2ialign.models.generate import generate
from t2ialign.training import checkpoint
from t2ialign.training.optim import learning_rate
from t2ialign.training.watch.validation import grid
from tests.training import toy
from tests.training.helpers import ROOT, numbers, run


def weights(trainer: toy.Trainer) -> list[Tensor]:
    return [p.detach().clone() for p in trainer.state.parameters]


def test_the_optimiser_steps_once_per_accumulated_batch_on_clipped_gradients(toy_config):
    """The trap: clipping over an iterator that was used up clips nothing."""
    trainer, norms = toy.Trainer(toy_config(max_grad_norm=1e-3, accumulate=3)), []

    def seen(optimizer: torch.optim.Optimizer, *_: object) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())

    trainer.state.bare_optimizer.register_step_pre_hook(seen)
    trainer.fit()
    assert len(norms) == 4
    assert norms == pytest.approx([1e-3] * 4, rel=1e-3)
    logged = [row["grad_norm"] for row in numbers(trainer.cfg.output)[1:]]
    assert min(logged) > 2e-3  # before clipping, so the clip had work to do


@pytest.mark.parametrize("batch_size, accumulate", [(4, 1), (1, 4)])
def test_any_split_of_the_global_batch_is_the_same_run(toy_config, tmp_path, batch_size, accumulate):
    whole = toy.Trainer(toy_config())
    split = toy.Trainer(toy_config(output=tmp_path / "split", batch_size=batch_size, accumulate=accumulate))
    whole.fit()
    split.fit()
    for a, b in zip(numbers(whole.cfg.output), numbers(split.cfg.output), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    for p, q in zip(whole.state.parameters, split.state.parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)


def test_gradients_are_the_mean_over_the_global_batch(toy_config):
    """By hand: one backward over all four rows at once, against the loop's two micro-steps."""
    trainer = toy.Trainer(toy_config(max_grad_norm=0))
    micro = [trainer.batch(0, m) for m in range(2)]
    cond = {name: torch.cat([b[3][name] for b in micro]) for name in micro[0][3]}
    x_0, eps, t = (torch.cat([b[i] for b in micro]) for i in range(3))
    trainer.loss((x_0, eps, t, cond))[0].mean().backward()
    by_hand = [p.grad.clone() for p in trainer.state.parameters]
    trainer.optimizer_grads = []
    for p in trainer.state.parameters:
        p.grad = None

    def seen(optimizer: torch.optim.Optimizer, *_: object) -> None:
        trainer.optimizer_grads = [p.grad.clone() for p in trainer.state.parameters]

    trainer.state.bare_optimizer.register_step_pre_hook(seen)
    trainer.update({})
    for ours, theirs in zip(trainer.optimizer_grads, by_hand, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


class HostReads(TorchDispatchMode):
    """Counts the reads of a tensor's value that pass the dispatcher: .item(), bool(), float(), int()."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_one_host_sync_per_optimiser_step(toy_config, monkeypatch):
    trainer, lists = toy.Trainer(toy_config(ema=0.9)), []
    plain = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: lists.append(self.shape) or plain(self))
    batches = {
        (0, m): trainer.batch(0, m) for m in range(2)
    }  # drawn on the CPU, before the device is involved
    monkeypatch.setattr(trainer, "batch", lambda step, micro: batches[0, micro])
    with HostReads() as reads:
        trainer.update({})
    assert len(lists) == 1 and reads.count == 0


def test_the_counter_of_host_reads_counts():
    with HostReads() as reads:
        torch.ones(()).item()
        bool(torch.ones(()))
    assert reads.count == 2


def test_the_moving_average_is_the_recursion_and_is_what_users_get(toy_config):
    trainer, decay = toy.Trainer(toy_config(ema=0.15)), 0.15
    shadow, history = weights(trainer), []
    trainer.state.bare_optimizer.register_step_post_hook(lambda *_: history.append(weights(trainer)))
    trainer.fit()
    for step, new in enumerate(history):  # diffusers' warm-up: 0 at first, (1 + k) / (10 + k) up to the decay
        d = min(decay, (1 + step) / (10 + step)) if step else 0.0
        shadow = [d * s + (1 - d) * n for s, n in zip(shadow, new, strict=True)]
    assert trainer.state.ema is not None
    for ours, theirs in zip(trainer.state.ema.shadow_params, shadow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    served = numbers(trainer.cfg.output)[-1]["heldout/weights"]
    assert served == pytest.approx(sum(float(s.abs().sum()) for s in shadow), rel=1e-5)
    for p, last in zip(trainer.state.parameters, history[-1], strict=True):
        assert torch.equal(p, last)  # serving them did not change what is trained


def test_learning_rates_by_hand(toy_config):
    linear = learning_rate(toy_config(lr=1.0, lr_schedule="linear", lr_warmup=2, max_steps=10))
    assert [linear(k) for k in (0, 1, 2, 6, 9)] == pytest.approx([0, 0.5, 1, 0.5, 0.125])
    cosine = learning_rate(toy_config(lr=2.0, lr_schedule="cosine", max_steps=10))
    assert [cosine(k) for k in (0, 5)] == pytest.approx([2, 1])
    assert learning_rate(toy_config(lr=3.0))(7) == 3.0
    assert learning_rate(toy_config(lr=4.0, lr_warmup=4))(1) == 1.0


def test_the_schedule_reaches_the_optimiser(toy_config):
    trainer, used = toy.Trainer(toy_config(lr=1.0e-2, lr_schedule="linear")), []
    trainer.state.bare_optimizer.register_step_pre_hook(lambda o, *_: used.append(o.param_groups[0]["lr"]))
    trainer.fit()
    assert used == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])
    assert [row["lr"] for row in numbers(trainer.cfg.output)[1:]] == used


def test_nan_stops_names_the_step_and_keeps_the_last_good_checkpoint(toy_config):
    cfg = toy_config(poison=2, checkpoint_every=1)
    trainer = toy.Trainer(cfg)
    with pytest.raises(FloatingPointError, match=r"step 3; .*checkpoint-000002") as caught:
        trainer.fit()
    assert "\n" not in str(caught.value)
    there = checkpoint.whole(cfg.output / "checkpoints")
    assert [checkpoint.step_of(p) for p in there] == [1, 2]
    kept = checkpoint.load(there[-1]).tensors["weights"]
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    assert not (cfg.output / "pytorch_lora_weights.safetensors").exists()
    assert [row["step"] for row in numbers(cfg.output)] == [0, 1, 2]


def test_the_result_loads_in_diffusers_and_draws_the_same_image(toy_config, tiny_sd):
    cfg = toy_config(lr=5e-2, lora_alpha=8)
    trainer = toy.Trainer(cfg, policy=None)
    trainer.fit()
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    pipe.load_lora_weights(cfg.output)
    out = pipe.unet(torch.ones(1, 4, 8, 8), 500, torch.ones(1, 32, 32), return_dict=False)[0]
    ours = trainer.policy.unet(torch.ones(1, 4, 8, 8), 500, torch.ones(1, 32, 32), return_dict=False)[0]
    torch.testing.assert_close(out, ours, rtol=1e-5, atol=1e-5)
    pipe.unload_lora_weights()
    base = pipe.unet(torch.ones(1, 4, 8, 8), 500, torch.ones(1, 32, 32), return_dict=False)[0]
    assert (out - base).abs().max() > 1e-3


def test_all_weights_train_against_a_frozen_copy_and_are_saved_as_a_unet(toy_config):
    trainer = toy.Trainer(toy_config(lora_rank=0, lr=1e-3))
    count = sum(p.numel() for p in trainer.policy.unet.parameters())
    assert sum(p.numel() for p in trainer.state.parameters) == count
    x, cond = torch.ones(1, 4, 8, 8), {"prompt_embeds": torch.ones(1, 32, 32)}
    with torch.no_grad():
        before = trainer.policy.predict(x, torch.tensor([500]), cond)
    trainer.fit()
    with trainer.policy.reference():
        assert torch.equal(trainer.policy.predict(x, torch.tensor([500]), cond), before)
    with torch.no_grad():
        after = trainer.policy.predict(x, torch.tensor([500]), cond)
        saved = UNet2DConditionModel.from_pretrained(trainer.cfg.output / "unet")
        torch.testing.assert_close(saved(x, 500, cond["prompt_embeds"]).sample, after, rtol=1e-5, atol=1e-5)
    assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize("lora_rank", [2, 0])
def test_bf16_computes_in_16_bits_and_trains_in_32(toy_config, lora_rank):
    trainer = toy.Trainer(toy_config(precision="bf16", lora_rank=lora_rank, gradient_checkpointing=True))
    assert {p.dtype for p in trainer.state.parameters} == {torch.float32}
    seen = []
    trainer.policy.unet.conv_in.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    row = trainer.fit()
    assert math.isfinite(row["loss"]) and set(seen) == {torch.bfloat16}


def test_gradient_checkpointing_gives_the_same_gradients(toy_config, tmp_path):
    plain, thrifty = (
        toy.Trainer(toy_config(output=tmp_path / str(on), gradient_checkpointing=on)) for on in (False, True)
    )
    assert plain.update({}) and thrifty.update({})
    for p, q in zip(plain.state.parameters, thrifty.state.parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_what_this_machine_cannot_do_is_said_before_anything_is_loaded(toy_config):
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"precision=fp16 and no CUDA GPU.*bf16"):
            toy.Trainer(toy_config(precision="fp16"))
    if importlib.util.find_spec("wandb") is None:
        with pytest.raises(ValueError, match="pip install wandb"):
            toy.Trainer(toy_config(trackers=("wandb",)))
    with pytest.raises(ValueError, match="expected tensorboard or wandb"):
        toy.Trainer(toy_config(trackers=("excel",)))


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_the_8_bit_optimiser_names_its_extra(toy_config):
    with pytest.raises(ValueError, match=r"t2ialign\[adamw8bit\]"):
        toy.Trainer(toy_config(optimizer="adamw8bit"))


def test_tensorboard_gets_the_rows_and_the_validation_grid(toy_config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cfg = toy_config(
        trackers=("tensorboard",),
        log_every=2,
        validation_prompts=("a cat", "a dog"),
        validate_every=2,
        num_validation_images=3,
        validation_steps=2,
    )
    trainer = toy.Trainer(cfg)
    trainer.fit()
    (events,) = (cfg.output / "logs").rglob("events*")
    seen = EventAccumulator(str(events)).Reload()
    rows = numbers(cfg.output)
    assert [e.step for e in seen.Scalars("loss")] == [2, 4]
    assert [e.value for e in seen.Scalars("loss")] == pytest.approx([rows[2]["loss"], rows[4]["loss"]])
    assert [e.step for e in seen.Images("validation")] == [0, 2, 4]
    names = sorted(p.name for p in (cfg.output / "validation").iterdir())
    assert names == ["step-000000.png", "step-000002.png", "step-000004.png"]
    page = Image.open(cfg.output / "validation" / "step-000004.png")
    assert page.size == (3 * 32, 2 * 32)
    with trainer.state.served():  # after training the encoders are gone, the prompts are not
        image = generate(trainer.policy, ["a dog"], [2], num_inference_steps=2, guidance_scale=5.0)[0]
    cell = torch.tensor(list(page.crop((64, 32, 96, 64)).tobytes())).view(32, 32, 3)
    assert (cell.permute(2, 0, 1) - 255 * image).abs().max() <= 1


WANDB = """
import json, os
class Run:
    def log(self, values, step=None): note("log", values, step)
    def finish(self): note("finish")
class Config:
    def update(self, values, **options): pass
class Image:
    def __init__(self, pixels): self.shape = pixels.shape
def note(*what):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps(what, default=lambda o: list(o.shape)) + "\\n")
def init(project, config, dir):
    note("init", project, config["lr"], dir)
    return Run()
config = Config()
"""


@pytest.mark.rest
def test_wandb_gets_settings_rows_images_and_an_end(toy_config, tmp_path):
    """A package that writes down its calls, found by a fresh process as the real one would be."""
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "__init__.py").write_text(WANDB)
    (tmp_path / "wandb-1.0.dist-info").mkdir()
    (tmp_path / "wandb-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: wandb\nVersion: 1.0\n"
    )
    cfg, notes = toy_config(), tmp_path / "notes.jsonl"
    keys = [f"{key}={getattr(cfg, key)}" for key in ("output", "batch_size", "lora_rank", "lr")]
    keys += ["max_steps=2", "trackers=wandb", "validation_prompts=a cat", "num_validation_images=2"]
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    command = ["-m", "tests.training.toy", cfg.model, *keys, "validation_steps=1"]
    done = run(*command, PYTHONPATH=path, NOTES=str(notes))
    assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in notes.read_text().splitlines()]
    assert calls[0] == ["init", "t2ialign", cfg.lr, str(cfg.output)] and calls[-1] == ["finish"]
    assert [call[0] for call in calls].count("finish") == 1
    logged = [(step, values) for what, values, step in calls[1:-1] if what == "log"]
    images = {step: values["validation"] for step, values in logged if "validation" in values}
    assert images == {0: [[32, 64, 3]], 2: [[32, 64, 3]]}
    losses = {step: values["loss"] for step, values in logged if "loss" in values}
    assert losses == {row["step"]: row["loss"] for row in numbers(cfg.output) if "loss" in row}


def test_the_grid_puts_every_pixel_in_its_place():
    images = torch.arange(6).view(6, 1, 1, 1).expand(6, 3, 2, 5) / 255
    image = grid(images, 3)
    assert image.size == (15, 4)
    assert [image.getpixel((5 * column, 2 * row))[0] for row in (0, 1) for column in (0, 1, 2)] == list(
        range(6)
    )
    with pytest.raises(ValueError, match="multiple of 4"):
        grid(images, 4)


def test_the_model_card_says_what_hubs_and_people_read(toy_config, tiny_sd):
    cfg = toy_config()
    row = toy.Trainer(cfg).fit()
    head, body = (cfg.output / "README.md").read_text().split("---\n", 2)[1:]
    meta = yaml.safe_load(head)
    assert "base_model" not in meta and meta["library_name"] == "diffusers"  # a folder: only its name is said
    assert str(tiny_sd) not in body
    assert {"text-to-image", "diffusers", "lora", "toy"} <= set(meta["tags"])
    assert "load_lora_weights" in body and f"| loss | {row['loss']:.5g} |" in body and "Steps: 4" in body
    assert json.loads(json.dumps(yaml.safe_load((cfg.output / "config.yaml").read_text())))["lr"] == cfg.lr
