"""Stable Diffusion XL as a policy: the U-Net family with two text encoders and size conditioning."""

from collections.abc import Sequence

import torch
from torch import Tensor

from t2ialign.models.base import Cond, Policy
from t2ialign.models.families import clip_text
from t2ialign.models.families.sd import UNetPolicy

Size = Tensor | tuple[int, int]


class SDXLPolicy(UNetPolicy):
    """StableDiffusionXLPipeline as a policy: two text encoders, a pooled embedding, and each image's size."""

    family, default_guidance_scale = "sdxl", 5.0

    def _added(self, cond: Cond) -> dict[str, Tensor]:
        return {
            "text_embeds": cond["pooled"].to(self.device, self.dtype),
            "time_ids": cond["time_ids"].to(self.device),
        }

    def _encode(self, prompts: Sequence[str], clip_skip: int | None) -> Cond:
        pipe = self.pipe
        tokenizers, encoders = (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2)
        hidden, _, pooled = clip_text.encode_two(tokenizers, encoders, prompts, clip_skip)
        size = self.native_size
        return self.with_size({"prompt_embeds": hidden, "pooled": pooled}, size, (0, 0), size)

    def null_cond(self, cond: Cond) -> Cond:
        """Zeros where the pipeline zeroes its empty prompt, else the encoding of ""; sizes as in cond."""
        if self.pipe.config.force_zeros_for_empty_prompt:
            null = {name: torch.zeros_like(value) for name, value in cond.items()}
        else:
            null = super().null_cond(cond)
        return {**null, "time_ids": cond["time_ids"]}

    def with_size(self, cond: Cond, original: Size, crop: Size, target: Size) -> Cond:
        """Set `time_ids` (B, 6): original (H, W), crop's top left (y, x), target (H, W); each a tuple or (B,
        2).
        """
        like = cond["prompt_embeds"]
        parts = [
            torch.as_tensor(size, dtype=torch.float32, device=like.device)
            for size in (original, crop, target)
        ]
        return {**cond, "time_ids": torch.cat([part.expand(len(like), 2) for part in parts], dim=1)}


PIPELINES: dict[str, type[Policy]] = {"StableDiffusionXLPipeline": SDXLPolicy}
