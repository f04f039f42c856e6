"""Text preference optimisation: an image's own prompt against prompts that do not fit it (TDPO and TKTO).

arXiv 2509.25771, whose code and full text we could not obtain: the losses are rebuilt from summaries, and
safeguards and denoising term are our choice (docs/tpo.md). One image, one x_t, one noise and one time go
through the network with both prompts, so that only the text differs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from t2ialign.data.cache.contrasted import Contrasted, ContrastedCache
from t2ialign.data.cache.stored import EncodedCache
from t2ialign.data.rated import read_rated
from t2ialign.data.skipped import Skipped
from t2ialign.io.hashes import digest
from t2ialign.methods.offline.base import OfflineTrainer
from t2ialign.methods.offline.draws import Batch
from t2ialign.methods.tpo import mismatched
from t2ialign.methods.tpo.config import Config
from t2ialign.methods.tpo.contrasted import Checker, ContrastedRecord, contrasted
from t2ialign.models.base import Policy
from t2ialign.objectives.preference import denoising_ratio, dpo, mean_square, wins
from t2ialign.objectives.safeguard import clip_rise, loser_scale, scale_gradient
from t2ialign.objectives.unpaired import kto
from t2ialign.training.conversion import SD, Published
from t2ialign.training.facts import Facts

PROMPTS = "prompts"
"""The folder of the output that has the mismatched prompts of each caption, and what the checking reward gave
them on its image."""
TOKENS = 512
"""Tokens of a text of which prompts are told apart, where a tokenizer names no limit."""


class Trainer(OfflineTrainer[Config, Contrasted]):
    """Trains on the images of `cfg.data` with mismatched prompts, or on an already built cache of them."""

    method = "tpo"
    cache_of = ContrastedCache

    def records(self, skipped: Skipped | None) -> Iterator[ContrastedRecord]:
        """The liked images with their mismatched prompts, made and checked as the settings say."""
        cfg = self.cfg
        rated = read_rated(
            cfg.data, split=cfg.split, streaming=cfg.streaming, limit=cfg.limit, skipped=skipped
        )
        of = cfg.model_dump(mode="json", include=set(cfg.READ) - {"limit"})
        source = mismatched.Mismatched(
            self._source(),
            cfg.output / PROMPTS / "mismatched.jsonl",
            of=of,
            limit=cfg.num_mismatched,
            max_edits=cfg.max_edits,
            tokens=_tokens(self.policy),
        )
        yield from contrasted(rated, source, self._checker(), count=cfg.num_mismatched, origin=cfg.data)

    def _source(self) -> mismatched.Source:
        cfg = self.cfg
        written = mismatched.by_rules(cfg.principles) if cfg.llm is None else self._by_model(cfg.llm)
        if cfg.mismatched is None:
            return written
        listed = mismatched.by_file(cfg.mismatched)
        return listed if cfg.llm is None else lambda prompt: listed(prompt) or written(prompt)

    def _by_model(self, llm: str) -> mismatched.Source:
        from rewards.llm.choose import writer

        cfg, model = self.cfg, writer(llm, self.cfg.llm_url)

        def complete(request: str) -> str:
            return model.write([[{"role": "user", "content": request}]])[0]

        count = 2 * cfg.num_mismatched  # some say the same, or change too much
        return mismatched.by_model(complete, cfg.principles, count=count, max_edits=cfg.max_edits)

    def _checker(self) -> Checker | None:
        cfg = self.cfg
        if cfg.check is None:
            return None
        import rewards

        reward = rewards.load_all([cfg.check], {cfg.check: cfg.check_options})[cfg.check]
        reward = reward.to(self.accelerator.device).requires_grad_(False).eval()
        return Checker(reward, cfg.check_margin, cfg.output / PROMPTS / "checks.jsonl")

    def _made_of(self) -> dict[str, Any]:
        """Also the content of the file of mismatched prompts."""
        file = self.cfg.mismatched
        contents = {} if file is None or not file.is_file() else {"mismatched_contents": digest(file)}
        return super()._made_of() | contents

    def loss(self, batch: Batch[Contrasted]) -> tuple[Tensor, dict[str, Tensor]]:
        """The preference of each image for its caption, and plain denoising with the caption."""
        cfg = self.cfg
        caption, other = batch.residuals(self.policy)
        with self.policy.reference():
            references = [mean_square(residual) for residual in batch.residuals(self.policy)]
        (err, err_other), scale = self._guarded(caption, other, references[1])
        rise, rise_other = err - references[0], err_other - references[1]
        if cfg.loss == "tdpo":
            r, r_other = denoising_ratio(err, references[0]), denoising_ratio(err_other, references[1])
            losses = dpo(r, r_other, beta=cfg.beta)
        else:
            losses = self._tkto(-rise, -rise_other)
        weight = cfg.denoising * cfg.beta / 4
        losses = losses + weight * rise  # by the rise, so that a run starts at the loss of the preference
        return batch.data.weight * losses, {
            "implicit_acc": wins(rise_other - rise),
            "margin": cfg.beta * denoising_ratio(rise, rise_other),
            "err_minus_ref": rise,
            "err_other_minus_ref": rise_other,
            "loser_scale": scale,
        }

    def _guarded(
        self, caption: Tensor, other: Tensor, reference: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Mean squared errors (B,) with both prompts, the other's gradient limited, and its scale (B,)."""
        cfg, err, err_other = self.cfg, mean_square(caption), mean_square(other)
        if cfg.guard == "sdpo":
            scale = loser_scale(caption, other, mu=cfg.mu)
            return (err, scale_gradient(err_other, scale)), scale
        if cfg.guard == "clip":
            clipped = clip_rise(err_other, reference, cfg.clip)
            return (err, clipped), (err_other - reference < cfg.clip).float()
        return (err, err_other), torch.ones_like(err)

    def _tkto(self, gain: Tensor, gain_other: Tensor) -> Tensor:
        """Diffusion-KTO of both prompts, summed; the reference point is the mean gain of all, if above 0."""
        both = torch.stack([gain.detach().mean(), gain_other.detach().mean()]).mean()
        point = self.accelerator.reduce(both, "mean").clamp_min(0)
        ones, beta = torch.ones_like(gain), self.cfg.beta
        liked = kto(gain, ones, beta=beta, point=point)
        return liked + kto(gain_other, 0 * ones, beta=beta, point=point)

    def figures(
        self, cache: EncodedCache[Contrasted], rows: list[int], errors: Tensor, reference: Tensor
    ) -> dict[str, float]:
        """The share of held-out images whose caption gains more than a mismatched prompt, and its error."""
        rise, rise_other = errors - reference
        return {
            "heldout/implicit_acc": wins((rise_other - rise).mean(1)).mean().item(),
            "heldout/err_minus_ref": rise.mean().item(),
            "heldout/err_other_minus_ref": rise_other.mean().item(),
        }

    def facts(self) -> Facts:
        """The images, and beta at the size of their latents."""
        cfg = self.cfg
        beta = Published("beta", Config.model_fields["beta"].default, cfg.beta, "strength", (SD,))
        levers = {"lr": cfg.lr, "lora_rank": cfg.lora_rank, "beta": cfg.beta}
        return replace(super().facts(), accuracy=True, published=(beta,), levers=levers)

    def data_card(self) -> str:
        """The source of the images and their number, for the model card."""
        return f"{self.count} images from {self.cfg.data}, each with prompts that do not fit it"


def _tokens(policy: Policy) -> Callable[[str], Hashable]:
    """What the text encoders read of a prompt: prompts of equal tokens are one to the model."""
    readers = [part for name, part in policy.components.items() if name.startswith("tokenizer")]

    def tokens(prompt: str) -> Hashable:
        return tuple(
            tuple(reader(prompt, truncation=True, max_length=min(TOKENS, reader.model_max_length)).input_ids)
            for reader in readers
        )

    return tokens
