"""The public functions of t2ialign, which the commands of the same names call too: docs/python.md shows each.

Every setting has the field's name. Paths may be text. A mistake is a ValueError on one line, which says what
was got, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t2ialign.models.options import AS_IT_IS, ModelOptions
from t2ialign.scoring.budget import MAX_BATCH_PIXELS

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.rewriting.load import Choice
    from t2ialign.tasks.evaluating import Evaluation
    from t2ialign.tasks.plan import Loras
    from t2ialign.tasks.samples import Samples
    from t2ialign.tasks.score_table import ScoreTable
    from t2ialign.tasks.training import TrainResult

Place = str | Path
"""A file or a folder."""
Precision = Literal["fp32", "bf16", "fp16"]
Options = Mapping[str, Any]


def sample(
    model: Any,
    prompts: Any,
    *,
    num_images_per_prompt: int = 1,
    seed: int = 0,
    num_inference_steps: int = 20,
    guidance_scale: float = 5.0,
    eta: float = 0.0,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 16,
    loras: Loras = (),
    precision: Precision | None = None,
    attention: Literal["sdpa", "xformers"] = "sdpa",
    options: ModelOptions = AS_IT_IS,
    rewriter: str | Choice | None = None,
    rewriter_options: Options | None = None,
    html: Place | None = None,
    output: Place | None = None,
    resume: bool = False,
) -> Samples:
    """Render images from prompts -> a sequence of PIL images with their prompts and seeds.

    model: a name (a diffusers folder, a file, a Hub id or the toy model, which None is too), a diffusers
    pipeline or a `Policy`.
    prompts: one, several, a file of them, or a pandas table. Image i has seed `seed + i`. eta: 0 is DDIM, 1
    is DDPM. loras: paths, "PATH:SCALE", or a mapping of paths to scales. precision, attention, options: how a
    named model is loaded. rewriter, rewriter_options: who rewrites the prompts, and its preset, url,
    intensity, temperature or settings. html: a page of prompts and rewrites. output: a folder for the images
    and manifest.jsonl, in which `resume` goes on; without one they stay in memory. Raises ValueError for a
    setting out of range, a model that is not there, and a folder in use.
    """
    from t2ialign.tasks import rendering
    from t2ialign.tasks.given import path_of, prompts_of
    from t2ialign.tasks.plan import Rendering, lora_texts
    from t2ialign.tasks.rewriters import rewriting_of

    how = Rendering(
        model=model,
        num_images_per_prompt=num_images_per_prompt,
        seed=seed,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        eta=eta,
        height=height,
        width=width,
        batch_size=batch_size,
        loras=lora_texts(loras),
        precision=precision,
        attention=attention,
        options=options,
    )
    rewriting = rewriting_of(model, rewriter, rewriter_options or {}, html=path_of(html), seed=seed)
    return rendering.run(how, prompts_of(prompts), path_of(output), resume=resume, rewriting=rewriting)


def best_of(
    model: Any,
    prompts: Any,
    num_candidates: int,
    *,
    reward: str | Reward | None = None,
    reward_options: Options | None = None,
    num_images_per_prompt: int = 1,
    seed: int = 0,
    num_inference_steps: int = 20,
    guidance_scale: float = 5.0,
    eta: float = 0.0,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 16,
    loras: Loras = (),
    precision: Precision | None = None,
    attention: Literal["sdpa", "xformers"] = "sdpa",
    options: ModelOptions = AS_IT_IS,
    rewriter: str | Choice | None = None,
    rewriter_options: Options | None = None,
    html: Place | None = None,
    output: Place | None = None,
    resume: bool = False,
) -> Samples:
    """Render several candidates for each image and keep the one that a reward scores highest -> as `sample`.

    Candidates differ in their seed, and with a rewriter in their rewrite; each is judged for the prompt that
    was given. reward: a name or an object; the toy model needs none. reward_options: of a named reward. The
    other settings are those of `sample`; an output also holds all candidates with their scores. Raises
    ValueError as `sample` does, and for a reward that is not there or cannot judge these prompts.
    """
    from t2ialign.tasks import best
    from t2ialign.tasks.given import path_of, prompts_of
    from t2ialign.tasks.plan import Rendering, lora_texts
    from t2ialign.tasks.rewriters import rewriting_of

    how = Rendering(
        model=model,
        num_images_per_prompt=num_images_per_prompt,
        seed=seed,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        eta=eta,
        height=height,
        width=width,
        batch_size=batch_size,
        loras=lora_texts(loras),
        precision=precision,
        attention=attention,
        options=options,
    )
    rewriting = rewriting_of(model, rewriter, rewriter_options or {}, html=path_of(html), seed=seed)
    judge = best.Judge(reward, reward_options or {})
    texts, folder = prompts_of(prompts), path_of(output)
    return best.run(how, texts, num_candidates, judge, folder, rewriting=rewriting, resume=resume)


def score(
    images: Any,
    rewards: str | Reward | Iterable[str | Reward] | Mapping[str, Reward],
    prompts: Any = None,
    *,
    options: Mapping[str, Options] | None = None,
    batch_size: int = 64,
    max_batch_pixels: int = MAX_BATCH_PIXELS,
    workers: int | None = None,
    device: str | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    ray: int | None = None,
    prompts_from_names: bool = False,
    image_column: str | None = None,
    prompt_column: str | None = None,
    split: str = "train",
    output: Place | None = None,
    html: Place | None = None,
    top: int = 24,
    resume: bool = False,
) -> ScoreTable:
    """Score images with rewards -> a table: one column a reward, NaN where an image could not be scored.

    images: a folder, a table, .tar shards, a pattern or a name on the Hub; or `Samples`, PIL images, paths,
    arrays, tensors or a pandas table. rewards: names, or objects. prompts: a table of files and prompts or
    one prompt for all; for images in memory also one each. options: of named rewards, by name. workers:
    processes that decode; ray: of a Ray cluster. image_column, prompt_column, split: of a table or data set.
    output: a .parquet, .csv or .jsonl file, whose journal `resume` goes on with. html: a page of the best and
    worst, `top` of each reward. Raises ValueError for a setting out of range, and for what is not there.
    """
    from t2ialign.tasks import scorers, scoring
    from t2ialign.tasks.given import path_of
    from t2ialign.tasks.images import Place as Images
    from t2ialign.tasks.score_table import ScoreTable

    how = scorers.Scoring(
        rewards=scorers.rewards_of(rewards),
        options=options or {},
        batch_size=batch_size,
        max_batch_pixels=max_batch_pixels,
        workers=workers,
        device=device,
        precision=precision,
        ray=ray,
    )
    where = Images(
        images=images,
        prompts=prompts,
        prompts_from_names=prompts_from_names,
        image_column=image_column,
        prompt_column=prompt_column,
        split=split,
    )
    return ScoreTable(scoring.run(how, where, path_of(output), html=path_of(html), top=top, resume=resume))


def evaluate(
    images: Any,
    reward: str | Reward,
    *,
    prompts: Any = None,
    baseline: Any = None,
    batch_size: int = 64,
    seed: int = 0,
    output: Place | None = None,
    resume: bool = False,
) -> Evaluation:
    """Score images with one reward -> its mean with a 95 % interval, by category, and against a baseline.

    images, baseline: a folder of samples, a manifest, `Samples`, or images in memory with their prompts. The
    baseline must be of the same prompts and seeds; the difference is taken pair by pair. seed: of the
    bootstrap. output: a folder for the scores and evaluation.json, in which `resume` goes on. Raises
    ValueError for a setting out of range, a baseline that does not match, and an output of another run.
    """
    from t2ialign.tasks import evaluating
    from t2ialign.tasks.given import path_of

    how: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "resume": resume}
    return evaluating.run(images, reward, prompts=prompts, baseline=baseline, output=path_of(output), **how)


def train(
    method: str,
    *,
    config: Place | None = None,
    on_step: Callable[[int, dict[str, float]], object] | None = None,
    on_evaluation: Callable[[int, dict[str, float]], object] | None = None,
    **settings: Any,
) -> TrainResult:
    """Train by a method ("dpo", "dense", "backprop", "lpo", "reward", ...) -> its output and last metrics.

    config: a recipe, by its name or as a YAML file. settings: those of the method, as `t2ialign train METHOD
    --help` lists them; they win over the recipe. `model` may be a diffusers pipeline or a `Policy`, which is
    trained in place, `reward` a `Reward`, and settings of prompts lists or pandas tables. on_step is called
    after each optimiser step with its number and metrics, on_evaluation where held-out metrics are due.
    Raises ValueError for an unknown method or setting, a wrong value, and an output in use.
    """
    from t2ialign.tasks import training

    recipe = None if config is None else str(config)
    told = training.Callbacks(on_step, on_evaluation)
    return training.run(method, recipe=recipe, settings=settings, told=told)
