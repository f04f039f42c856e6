"""python scripts/bench_lpo.py [--device cuda] [-o bench.json]

What one forward for two candidates and one encoding a prompt save in step-level preference optimisation, on
the toy model: the figure is the median over the rounds of the ratio of one round. Bytes and text forwards
are counted, not timed.

  shared     one policy and one reference forward a pair, the reference being the adapter switched off
  four       two of each, the reference a second network: the pattern of the released code
  cached     a roll-out whose judge has every prompt encoded before
  encoding   the judge encodes the prompt at each step for each candidate: the same pattern
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from rewards.latent import lrm, saved, untrained
from scripts.bench_parts import Row, kept_bytes, machine, megabytes, number, ratio, rounds, say, table, write
from t2ialign.diffusion.candidates import Step
from t2ialign.io.paths import path
from t2ialign.methods.lpo.step_scorers import Judge, LatentScorer
from t2ialign.methods.lpo.trainer import Batch, Config, Trainer
from t2ialign.models.base import Cond
from t2ialign.objectives.stepwise import candidate_preference

PROMPT = "a red circle above a blue square"


class Encoding(LatentScorer):
    """The judge that caches nothing: text encoder and blocks run for each candidate of each step."""

    def judge(self, numbers: Tensor, cond: Cond) -> Judge:
        """The scores, from one call for each candidate."""
        prompts = [PROMPT] * len(numbers)

        @torch.no_grad()
        def scores(step: Step) -> Tensor:
            t = step.t.long().expand(len(numbers))
            return torch.stack([self.reward(x, t, prompts) for x in step.candidates.unbind(1)], 1)

        return scores


def four(trainer: Trainer, batch: Batch, reference: nn.Module) -> Tensor:
    """The loss of a batch by two forwards of the policy and two of a second network."""
    win, lose = (_ratio(trainer, batch, reference, x_s) for x_s in batch.x_s.unbind(1))
    return candidate_preference(win, lose, beta=trainer.cfg.beta, clip=trainer.cfg.clip).mean()


def _ratio(trainer: Trainer, batch: Batch, reference: nn.Module, x_s: Tensor) -> Tensor:
    policy = trainer.policy

    def log_prob() -> Tensor:
        x_t = batch.x_t[:, 0]
        p = policy.step(
            x_t,
            batch.t,
            batch.s,
            batch.cond,
            kernel=trainer.sampler.kernel,
            guidance_scale=trainer.cfg.guidance_scale,
        )
        return p.log_prob(x_s)

    ours, net = log_prob(), policy.net
    with torch.no_grad():
        policy.net = reference
        theirs = log_prob()
        policy.net = net
    return ours - theirs


def step(trainer: Trainer, loss: Callable[[], Tensor]) -> None:
    """A training step."""
    loss().backward()
    trainer.state.bare_optimizer.step()
    trainer.state.bare_optimizer.zero_grad()


def rollout(trainer: Trainer, scorer: LatentScorer) -> None:
    """The first places of round 0."""
    trainer.sampler.scorer = scorer
    trainer.sampler.rows(0, trainer.sampler.chunks()[0])


def text_rows(reward: lrm.LRM, work: Callable[[], object]) -> int:
    """The number of prompts that the judge's text encoder gets during `work`."""
    seen: list[int] = []
    hook = reward.backbone.text_encoder.register_forward_hook(
        lambda _, args, kwargs, __: seen.append(len(args[0] if args else kwargs["input_ids"])),
        with_kwargs=True,
    )
    work()
    hook.remove()
    return sum(seen)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 0 whatever the verdicts are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--rows", type=int, default=16, help="The number of pairs per training step (default: 16)."
    )
    parser.add_argument(
        "--prompts", type=int, default=8, help="The number of paths of a roll-out (default: 8)."
    )
    parser.add_argument("--steps", type=int, default=20, help="The number of denoising steps (default: 20).")
    parser.add_argument(
        "--repeats", type=int, default=5, help="The number of timed rounds after a first one (default: 5)."
    )
    parser.add_argument("-o", "--output", type=path, help="A JSON file for the rows of results.")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        about, rows = measure(args, Path(folder))
    if args.output:
        write(args.output, about, rows)
    print(table(about, rows))
    return 0


def measure(args: argparse.Namespace, folder: Path) -> tuple[dict[str, str | int | float], list[Row]]:
    """All rows, and what they depend on."""
    trainer = made(args, folder)
    device, policy = trainer.accelerator.device, trainer.policy
    about = machine(device, args.repeats)
    batch, reference = trainer.batch(0, 0), copy.deepcopy(policy.adapted).requires_grad_(False)
    losses = {
        "shared": lambda: trainer.loss(batch)[0].mean(),
        "four": lambda: four(trainer, batch, reference),
    }
    on = f"{args.rows} pairs"
    say(f"one training step, {on}:")
    times = rounds(
        {name: partial(step, trainer, loss) for name, loss in losses.items()}, args.repeats, device
    )
    rows = [ratio("shared forward / two of policy and reference", on, times, "shared / four", "<= 0.55")]
    for name, loss in losses.items():
        size = kept_bytes(loss, (policy.adapted, reference)) / 1e6
        rows.append(Row(f"megabytes kept for the backward pass: {name}", on, size, size, size))
    weights = {"shared": megabytes(policy.adapted), "four": megabytes(policy.adapted, reference)}
    rows += [Row(f"megabytes of denoisers: {name}", "", mb, mb, mb) for name, mb in weights.items()]

    on = f"{args.prompts} paths, {args.steps} steps, {trainer.cfg.candidates} candidates"
    reward = trainer.reward
    assert isinstance(reward, lrm.LRM), "the judge is the latent reward that `made` saved"
    scorers = {
        "cached": LatentScorer(reward, trainer.prompts.texts, device),
        "encoding": Encoding(reward, trainer.prompts.texts, device),
    }
    say(f"a roll-out, {on}:")
    times = rounds({name: partial(rollout, trainer, s) for name, s in scorers.items()}, args.repeats, device)
    rows.append(ratio("encoding at each step and candidate / once", on, times, "encoding / cached", None))
    before = text_rows(reward, lambda: LatentScorer(reward, trainer.prompts.texts, device))
    inside = text_rows(reward, partial(rollout, trainer, scorers["cached"]))
    theirs = text_rows(reward, partial(rollout, trainer, scorers["encoding"]))
    unique = len(set(trainer.prompts.texts))
    rows.append(
        number("prompts encoded before: unique prompts, and the empty one", on, before, f"<= {unique + 1}")
    )
    rows.append(number("prompts encoded within a roll-out", on, inside, "<= 0"))
    rows.append(
        Row("prompts encoded within a roll-out, at each step and candidate", on, theirs, theirs, theirs)
    )
    return about, rows


def made(args: argparse.Namespace, folder: Path) -> Trainer:
    """A trainer with an untrained judge and one round."""
    saved.save(untrained.from_pipeline("toy"), folder / "judge")
    cfg = Config(
        prompts=PROMPT,
        reward_options={"path": str(folder / "judge")},
        output=folder / "run",
        num_inference_steps=args.steps,
        collect_prompts=args.prompts,
        rollout_batch=args.prompts,
        threshold_low=0.0,
        threshold_high=0.0,
        t_max=999,
        batch_size=args.rows,
        trackers=(),
    )
    trainer = Trainer(cfg)
    trainer.state.save(cfg.output / "checkpoints")
    trainer.before_step()
    return trainer


if __name__ == "__main__":
    sys.exit(main())
