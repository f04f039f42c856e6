"""Images from prompts: rendered, chosen among several, and the prompts rewritten before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t2ialign.api.parameters import takes_former_names
from t2ialign.models.options import options_from
from t2ialign.rewriting.intensity import LONG

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.rewriting.load import Choice
    from t2ialign.rewriting.rewriter import Rewriter, Rewritten
    from t2ialign.tasks.plan import Loras
    from t2ialign.tasks.rewriting import Listener
    from t2ialign.tasks.samples import Samples

Place = str | Path
"""A file or a folder."""
Precision = Literal["fp32", "bf16", "fp16"]
Options = Mapping[str, Any]
"""Settings by their names."""


@takes_former_names
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
    model_options: Options | None = None,
    rewriter: str | Choice | Rewriter | None = None,
    rewriter_options: Options | None = None,
    html: Place | None = None,
    output: Place | None = None,
    resume: bool = False,
) -> Samples:
    """Render images from prompts -> a sequence of PIL images with their prompts and seeds.

    model: a name (a diffusers folder, a file, a Hub id or the toy model, which None is too), a diffusers
    pipeline or a `Policy`. prompts: one, several, a file of them, or a pandas table. Image i has seed
    `seed + i`. eta: 0 is DDIM, 1 is DDPM. loras: paths, "PATH:SCALE", or a mapping of paths to scales.
    precision, attention, model_options (variant, revision, clip_skip, prediction_type,
    rescale_betas_zero_snr): how a named model is loaded. rewriter, rewriter_options: who rewrites the
    prompts, and its preset, url, intensity, temperature or settings. html: a page of prompts and rewrites.
    output: a folder for the images and manifest.jsonl, in which `resume` goes on; without one they stay in
    memory. Raises ValueError for a setting out of range, a model that is not there, and a folder in use.
    """
    from t2ialign.tasks import rendering
    from t2ialign.tasks.arguments import path_of, prompts_of
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
        options=options_from(model_options),
    )
    rewriting = rewriting_of(model, rewriter, rewriter_options or {}, html=path_of(html), seed=seed)
    return rendering.run(how, prompts_of(prompts), path_of(output), resume=resume, rewriting=rewriting)


@takes_former_names
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
    model_options: Options | None = None,
    rewriter: str | Choice | Rewriter | None = None,
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
    from t2ialign.tasks.arguments import path_of, prompts_of
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
        options=options_from(model_options),
    )
    rewriting = rewriting_of(model, rewriter, rewriter_options or {}, html=path_of(html), seed=seed)
    judge = best.Judge(reward, reward_options or {})
    texts, folder = prompts_of(prompts), path_of(output)
    return best.run(how, texts, num_candidates, judge, folder, rewriting=rewriting, resume=resume)


@takes_former_names
def rewrite(
    prompts: Any,
    rewriter: str | Choice | Rewriter = "rules",
    *,
    rewriter_options: Options | None = None,
    seed: int = 0,
    tries: int = 2,
    longest: int = LONG,
    fit: Place | None = None,
    output: Place | None = None,
    html: Place | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> list[Rewritten]:
    """Rewrite prompts for an image generator -> for each its `text` to use, and why it is kept if it is.

    prompts: one, several, a file of them, or a pandas table. rewriter: "rules", a folder or Hub id of a
    language model, or an object. rewriter_options: its preset, url, intensity, temperature or settings.
    tries: how often a prompt is asked at most. longest: prompts of more words are left alone. fit: the model
    whose text encoder must take a rewrite. output: a .txt, .jsonl or .parquet file with a report beside it,
    which `resume` goes on with. html: a page of prompts and rewrites. listener: follows a run without output.
    Raises ValueError for a setting out of range, an unknown rewriter, and an output in use.
    """
    from t2ialign.rewriting.job import Job
    from t2ialign.tasks import rewriting
    from t2ialign.tasks.arguments import path_of, prompts_of, sources_of
    from t2ialign.tasks.rewriters import choice_of

    choice = choice_of(rewriter, rewriter_options or {}, seed=seed)
    job = Job(choice, None if fit is None else str(fit), tries, longest)
    return rewriting.run(
        job,
        prompts_of(prompts),
        path_of(output),
        resume=resume,
        html=path_of(html),
        listener=listener,
        sources=sources_of(prompts),
    )
