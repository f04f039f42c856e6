"""python scripts/bench_train.py [--device cuda] [--models sd15,sdxl] [--variants | --rounds] [-o bench.json]

What a training step of Diffusion-DPO costs beside the two public ones, on released architectures at their
own sizes with random weights; the batch, the loss, the LoRA and the optimiser are the same on all sides.
Sides run in turn: a figure is the median over the rounds of the ratio of one round.

  ours       images and prompts come from the cache; the reference is the adapter switched off
  again      the same, where the reference's errors on the draws are known (noise_draws)
  research   images and prompts are encoded in every step, then the same two forwards: diffusers' script
  released   the same time, and the reference is a second network in memory: the authors' script

--variants times our step with channels_last, with the denoiser compiled block by block, and with an optimiser
that is not fused, each beside the step as it is. --rounds times rounds of online reinforcement learning
instead (scripts/bench_rounds.py), which the toy models have too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from scripts.bench_models import MODELS
from scripts.bench_parts import Row, machine, megabytes, prompt, ratio, rounds, say, table, write
from scripts.bench_rounds import TOYS, measure_rounds
from scripts.bench_variants import VARIANTS
from t2ialign.data.cache.stored import Pairs
from t2ialign.io.paths import path
from t2ialign.methods.dpo.loss import reference_loss
from t2ialign.methods.dpo.trainer import Config, Trainer
from t2ialign.methods.offline.draws import Batch
from t2ialign.models.load import policy_of
from t2ialign.objectives.preference import mean_square


class Sides:
    """One trainer, and the same step by each pattern."""

    def __init__(self, args: argparse.Namespace, model: str, folder: Path) -> None:
        self.folder, self.size, self.rows = folder, args.resolution, args.rows
        self.images = write_pairs(folder / "pairs", self.size, self.rows)
        self.prompts = [prompt(row) for row in range(self.rows)]
        pipe = MODELS[model](small=args.small).to(torch.device(args.device))
        self.trainer = Trainer(self._config(folder / "run"), policy=policy_of(pipe))
        self.policy = self.trainer.policy
        self.batch = self.trainer.batch(0, 0)

    def _config(self, output: Path) -> Config:
        return Config(
            data=str(self.folder / "pairs"),
            output=output,
            resolution=self.size,
            holdout=0,
            batch_size=self.rows,
            accumulate=1,
            lora_rank=8,
            noise_draws=1,
            trackers=(),
        )

    def ours(self) -> Tensor:
        """The loss from the cache, with a reference that is asked."""
        self.trainer.remembered.known.fill_(False)
        return self.again()

    def again(self) -> Tensor:
        """The loss from the cache, where the reference was asked before."""
        return self.trainer.loss(self.trainer.batch(0, 0))[0].mean()

    def research(self) -> Tensor:
        """The loss of images and prompts that are encoded now."""
        with torch.no_grad():
            images = torch.stack([to_tensor(image) for image in self.images])
            mean, _ = self.policy.encode_images(images)
            cond = self.policy.encode_prompts(self.prompts)
        pairs = replace(self.batch.data, x_0=torch.stack(mean.chunk(2), 1), cond=cond)
        return self._loss(replace(self.batch, data=pairs))

    def _loss(self, batch: Batch[Pairs]) -> Tensor:
        win, lose = batch.residuals(self.policy)
        with self.policy.reference():
            reference = torch.stack([mean_square(part) for part in batch.residuals(self.policy)], 1)
        return reference_loss(self.trainer.cfg, (win, lose), reference, 1.0)[0].mean()

    def step(self, loss: Callable[[], Tensor]) -> None:
        """Backward and the optimiser's step."""
        loss().backward()
        self.trainer.state.bare_optimizer.step()
        self.trainer.state.bare_optimizer.zero_grad()


def write_pairs(folder: Path, size: int, rows: int) -> list[Image.Image]:
    """A folder of pairs of noise -> winners, then losers."""
    images = []
    for side in ("chosen", "rejected"):
        (folder / side).mkdir(parents=True)
        for row in range(rows):
            image = Image.effect_noise((size, size), 80).convert("RGB")
            image.save(folder / side / f"{row}.png")
            (folder / side / f"{row}.txt").write_text(prompt(row))
            images.append(image)
    return images


def measure(args: argparse.Namespace, model: str, folder: Path) -> Iterator[Row]:
    """Times of all sides, and the megabytes of weights that each holds during a step."""
    sides = Sides(args, model, folder)
    on = f"{model}, {args.rows} pairs of {args.resolution} pixels"
    say(f"one training step, {on}:")
    losses = {"ours": sides.ours, "again": sides.again, "research": sides.research}
    steps: dict[str, Callable[[], object]] = {
        name: partial(sides.step, loss) for name, loss in losses.items()
    }
    times = rounds(steps, args.repeats, sides.policy.device)
    yield ratio("our step / the research script's", on, times, "ours / research", "<= 0.6")
    yield ratio("our step on a known draw / the research script's", on, times, "again / research", "<= 0.6")
    denoiser, encoders = megabytes(sides.policy.adapted), megabytes(*encoding(sides.policy.components))
    for name, held in (("ours", denoiser), ("research", denoiser + encoders)):
        yield Row(f"megabytes of weights during a step: {name}", on, held, held, held)
    held = 2 * denoiser + encoders
    yield Row("megabytes of weights during a step: released", on, held, held, held)


def measure_variants(args: argparse.Namespace, model: str, folder: Path) -> Iterator[Row]:
    """Times of our step with each of `VARIANTS`; every one has a model of its own in memory."""
    sides = {name: Sides(args, model, folder / name) for name in ("plain", *VARIANTS)}
    for name, change in VARIANTS.items():
        change(sides[name].trainer)
    on = f"{model}, {args.rows} pairs of {args.resolution} pixels"
    say(f"one training step with and without what compilers and layouts offer, {on}:")
    steps: dict[str, Callable[[], object]] = {
        name: partial(side.step, side.ours) for name, side in sides.items()
    }
    times = rounds(steps, args.repeats, sides["plain"].policy.device)
    for name in VARIANTS:
        yield ratio(f"our step, {name} / as it is", on, times, f"{name} / plain", None)


def encoding(components: Any) -> list[nn.Module]:
    """The networks that encode images and prompts."""
    names = ("vae", "text_encoder", "text_encoder_2")
    return [components[name] for name in names if name in components]


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 0 whatever the verdicts are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--models", default="sd15", help="The models to time, separated by commas: sd15, sdxl, sd35."
    )
    parser.add_argument(
        "--resolution", type=int, default=192, help="The side of an image in pixels (default: 192)."
    )
    parser.add_argument("--rows", type=int, default=2, help="The number of pairs per step (default: 2).")
    parser.add_argument(
        "--repeats", type=int, default=5, help="The number of timed rounds after a first one (default: 5)."
    )
    parser.add_argument(
        "--small", action="store_true", help="Use tiny models, to try the script itself in seconds."
    )
    parser.add_argument(
        "--variants",
        action="store_true",
        help="Time our step with other layouts, compilation and optimisers in place of the public patterns.",
    )
    parser.add_argument(
        "--rounds",
        action="store_true",
        help="Time rounds of online reinforcement learning in place of steps of Diffusion-DPO; --models may "
        "name toy and toy-flow as well.",
    )
    parser.add_argument("-o", "--output", type=path, help="A JSON file for the rows of results.")
    args = parser.parse_args(argv)
    names = args.models.split(",")
    known = (*MODELS, *TOYS) if args.rounds else tuple(MODELS)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"got --models {','.join(unknown)}; expected some of {', '.join(known)}; choose one")
    measured = measure_rounds if args.rounds else measure_variants if args.variants else measure
    about, rows = machine(torch.device(args.device), args.repeats), list[Row]()
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            rows += measured(args, name, Path(folder))
    if args.output:
        write(args.output, about, rows)
    print(table(about, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
