"""Preference pairs and likes, made from images that are sampled, scored or ranked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t2ialign.api.parameters import takes_former_names
from t2ialign.models.options import options_from

if TYPE_CHECKING:
    from rewards import Reward
    from t2ialign.tasks.pairing import Paired, Sampling
    from t2ialign.tasks.plan import Loras

Place = str | Path
"""A file or a folder."""
Options = Mapping[str, Any]
"""Settings by their names."""


@takes_former_names
def make_pairs(
    images: Place | None,
    output: Place,
    *,
    rewards: str | Reward | Iterable[str | Reward] | Mapping[str, Reward] = (),
    options: Mapping[str, Options] | None = None,
    columns: Sequence[str] = (),
    judge: str | None = None,
    every: bool = False,
    min_margin: float = 0.0,
    min_agreement: float = 0.0,
    ties: float | None = None,
    likes: bool = False,
    quantiles: tuple[float, float] = (0.85, 0.5),
    model: Any = None,
    prompts: Any = None,
    num_images_per_prompt: int = 8,
    seed: int = 0,
    num_inference_steps: int = 20,
    guidance_scale: float = 5.0,
    eta: float = 0.0,
    height: int | None = None,
    width: int | None = None,
    loras: Loras = (),
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    attention: Literal["sdpa", "xformers"] = "sdpa",
    model_options: Options | None = None,
    batch_size: int = 16,
    resume: bool = False,
) -> Paired:
    """Make preference pairs, or likes, of several images of each prompt -> the file and a report.

    images: a folder or table of images with prompts, which rewards score; a table of scores; or a ranking.
    None samples images of the prompts by the model, as `sample` does. output: a .jsonl or .parquet file.
    rewards, columns: by names or objects; columns of scores. judge: the one that orders, while the others
    vouch. every: every two images of a prompt. min_margin, min_agreement: what a pair needs. ties: pairs up
    to that margin are ties. likes, quantiles: single images, liked and disliked. resume: keeps the scores.
    Raises ValueError for bad settings or data, and for no pair.
    """
    from t2ialign.tasks import pairing
    from t2ialign.tasks.scorers import rewards_of

    how = pairing.Pairing(
        source=_source(images, model, prompts, locals()),
        output=Path(output).expanduser(),
        tools=rewards_of(rewards),
        options=options or {},
        columns=columns,
        judge=judge,
        every=every,
        min_margin=min_margin,
        min_agreement=min_agreement,
        ties=ties,
        likes=(quantiles[0], quantiles[1]) if likes else None,
        batch_size=batch_size,
    )
    return pairing.run(how, resume=resume)


SAMPLED = (
    *("num_images_per_prompt", "seed", "num_inference_steps", "guidance_scale", "eta"),
    *("height", "width", "precision", "attention", "batch_size"),
)
"""Parameters that say how images are sampled."""


def _source(images: Place | None, model: Any, prompts: Any, given: Mapping[str, Any]) -> str | Sampling:
    """The place of the images, or what draws them."""
    from t2ialign.io import naming
    from t2ialign.tasks.arguments import prompts_of
    from t2ialign.tasks.pairing import Sampling
    from t2ialign.tasks.plan import Rendering, lora_texts

    if images is not None:
        if model is not None or prompts is not None:
            raise ValueError(
                f"got {images} and a model or prompts; expected images, or what draws them; drop one"
            )
        return str(images)
    if prompts is None:
        raise ValueError(
            f"got neither images nor {naming.name('prompts')}; expected a folder or table of images, or "
            "prompts and a model that draws them; name one"
        )
    how = Rendering(
        model=model,
        loras=lora_texts(given["loras"]),
        options=options_from(given["model_options"]),
        **{name: given[name] for name in SAMPLED},
    )
    return Sampling(how=how, prompts=prompts_of(prompts))
