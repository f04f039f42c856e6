"""Prompts and seeds in, images out: each image depends on its own prompt and seed only."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from t2ialign.diffusion.kernels import ddim
from t2ialign.diffusion.noise import SeededRows
from t2ialign.diffusion.sampler import Noise, sample
from t2ialign.models.base import Cond, Policy


@torch.no_grad()
def generate(
    policy: Policy,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    num_inference_steps: int,
    guidance_scale: float | None = None,
    eta: float = 0.0,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 64,
    decode: bool = True,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Render N rows of (prompt, seed) -> images (N, 3, H, W) fp32 in [0, 1] on CPU.

    A row is what a diffusers pipeline with a DDIMScheduler gives for the same prompt, steps, guidance, eta,
    size and precision with generator=torch.Generator().manual_seed(seed). Guidance and sizes, in pixels,
    default to the model's own. Every unique prompt is encoded once. decode: if not, the scaled latents
    (N, C, h, w) come back. progress is called with the number of images just finished. Raises ValueError if
    rows do not match, are none, a size, a seed or a step count does not fit, or a number is not finite.
    """
    if len(prompts) != len(seeds) or not prompts:
        raise ValueError(
            f"got {len(prompts)} prompts and {len(seeds)} seeds; expected as many of each, at least one"
        )
    if batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}; expected at least 1")
    scale = policy.default_guidance_scale if guidance_scale is None else guidance_scale
    size = (height or policy.native_size[0], width or policy.native_size[1])
    shape, times, texts, images = (
        policy.latent_shape(*size),
        policy.timesteps(num_inference_steps, size),
        _Texts(policy, prompts),
        [],
    )
    for start in range(0, len(prompts), batch_size):
        rows = range(start, min(start + batch_size, len(prompts)))
        keys = [seeds[row] for row in rows]
        cond = policy.with_size(texts.rows(rows), size, (0, 0), size)
        draws = SeededRows(shape, keys, policy.dtype)
        x_T, noise = draws.draw().to(policy.device), _in_order(draws) if eta > 0 else None
        x_0 = sample(policy, cond, x_T, times, kernel=ddim(eta), guidance_scale=scale, noise=noise)
        made = (policy.decode(x_0) if decode else x_0).cpu()
        images.append(_finite(made, [prompts[row] for row in rows], keys))
        if progress is not None:
            progress(len(rows))
    return torch.cat(images)


def _in_order(draws: SeededRows) -> Noise:
    """The noise of each step: the sampler asks for them one after the other, as diffusers does."""
    return lambda _: draws.draw()


def _finite(images: Tensor, prompts: list[str], seeds: list[int]) -> Tensor:
    """The images, or latents, of which a broken one would be a broken image."""
    broken = (~images.flatten(1).isfinite().all(1)).nonzero()
    if len(broken):
        row = int(broken[0])
        raise ValueError(
            f"got pixels that are not finite for prompt {prompts[row]!r}, seed {seeds[row]}; expected finite "
            "ones; lower the guidance or raise the precision"
        )
    return images


class _Texts:
    """Encodes each unique prompt once, and drops it after the last row that needs it."""

    def __init__(self, policy: Policy, prompts: Sequence[str]) -> None:
        self.policy, self.prompts = policy, prompts
        self.last = {prompt: row for row, prompt in enumerate(prompts)}
        self.known: dict[str, Cond] = {}

    def rows(self, rows: range) -> Cond:
        """Cond of a run of rows; runs are asked for in order."""
        wanted = [self.prompts[row] for row in rows]
        if new := [prompt for prompt in dict.fromkeys(wanted) if prompt not in self.known]:
            encoded = self.policy.encode_prompts(new)
            for i, prompt in enumerate(new):
                self.known[prompt] = {name: value[i : i + 1] for name, value in encoded.items()}
        encoded_rows = [self.known[prompt] for prompt in wanted]
        self.known = {prompt: cond for prompt, cond in self.known.items() if self.last[prompt] > rows[-1]}
        return {name: torch.cat([cond[name] for cond in encoded_rows]) for name in encoded_rows[0]}
