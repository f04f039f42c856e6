"""The base of every policy over a diffusers pipeline: its networks, the prompts it keeps, its reference."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rewards.tensor_files import save_pretrained
from t2ialign.models.adapters import adapters_off
from t2ialign.models.base import Cond, Policy
from t2ialign.models.latents import Latents
from t2ialign.models.options import AS_IT_IS, ModelOptions


class PipelinePolicy(Policy):
    """A policy over a pipeline's own networks. A family says how prompts are encoded and what `predict` does.

    dtype: what the network computes in. options: how the model was read.
    """

    def __init__(
        self,
        pipe: Any,
        latents: Latents,
        *,
        dtype: torch.dtype = torch.float32,
        options: ModelOptions = AS_IT_IS,
    ) -> None:
        self.pipe, self.latents = pipe, latents
        self.adapted = getattr(pipe, self.component).requires_grad_(False)
        self.net: nn.Module = self.adapted
        self.device, self.dtype = self.adapted.device, dtype
        self.pipeline_class = self.source = type(pipe).__name__
        self.schedule = dict(pipe.scheduler.config)
        self.options, self.loras = options, {}
        self.untrainable = self.untrainable_by(self.adapted.config)
        self._stand_in: nn.Module | None = None
        self._null: Cond | None = None
        self._encoded: dict[str, Cond] = {}

    @classmethod
    def multiple_of(cls, vae: Mapping[str, Any], network: Mapping[str, Any]) -> int:
        """The divisor of both sides of an image in pixels, by the configurations of VAE and network."""
        return int(2 ** (len(vae["block_out_channels"]) - 1) * cls._patch(network))

    @classmethod
    def largest_of(cls, vae: Mapping[str, Any], network: Mapping[str, Any]) -> int | None:
        """The longest side of an image in pixels that the network has positions for; None without an end."""
        return None

    @classmethod
    def untrainable_by(cls, network: Mapping[str, Any]) -> str | None:
        """`untrainable`, by the configuration of the network."""
        return None

    @classmethod
    def _patch(cls, network: Mapping[str, Any]) -> int:
        """Latent cells along one side of a token."""
        return 1

    @abstractmethod
    def _encode(self, prompts: Sequence[str], clip_skip: int | None) -> Cond:
        """B prompts through the text encoders."""

    def _warn_if_cut(self, prompts: Sequence[str]) -> None:
        """Log what of the prompts does not fit."""

    @property
    def components(self) -> Mapping[str, Any]:
        """The networks and tokenizers that are in memory, by their names in the pipeline."""
        return {name: part for name, part in self.pipe.components.items() if part is not None}

    @property
    def network(self) -> nn.Module:
        """The network that `predict` calls: the trained one, or within `reference` the frozen one."""
        return self._stand_in or self.net

    def precision(self) -> AbstractContextManager[Any]:
        """The precision it computes in: mixed where the network holds fp32 weights and `dtype` is another."""
        mixed = self.autocast and self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype) if mixed else nullcontext()

    def null_cond(self, cond: Cond) -> Cond:
        """The encoding of "" for every row of cond; no layer is skipped for it, as in diffusers."""
        if self._null is None:
            self._null = self._encode([""], None)
        return {name: self._null[name].expand_as(value).to(value) for name, value in cond.items()}

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """B prompts, encoded; warns of what was cut. Raises ValueError for none, and for others than those
        kept once the encoders are freed.
        """
        if not prompts:
            raise ValueError("got no prompts; expected at least one")
        if self.pipe.text_encoder is not None:
            self._warn_if_cut(prompts)
            return self._encode(prompts, self.options.clip_skip)
        if missing := [prompt for prompt in prompts if prompt not in self._encoded]:
            raise ValueError(
                f"got prompt {missing[0]!r} after the text encoders were freed; expected a kept prompt; "
                "pass it to free_encoders(keep_prompts=...)"
            )
        rows = [self._encoded[prompt] for prompt in prompts]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def forget_prompts(self) -> None:
        """Encode the empty prompt again when it is next needed: the text encoders have changed."""
        self._null = None

    def fingerprint(self) -> str:
        """A hash of some numbers of every weight of the VAE and of all text encoders."""
        return digest(part for name, part in sorted(self.components.items(), key=_order) if _encodes(name))

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The frozen copy, or the network with its adapters off; nothing records gradients."""
        before, self._stand_in = self._stand_in, self.frozen or self.adapted
        try:
            with torch.no_grad(), adapters_off(self.adapted):
                yield
        finally:
            self._stand_in = before

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass: less memory, about a third more time."""
        self.adapted.enable_gradient_checkpointing()

    def free_encoders(self, *, keep_decoder: bool = False, keep_prompts: Sequence[str] = ()) -> None:
        """Drop the text encoders and the VAE; "" and `keep_prompts` stay encoded."""
        for prompt in dict.fromkeys(["", *keep_prompts]):
            self._encoded[prompt] = self.encode_prompts([prompt])
        self.null_cond(self._encoded[""])
        for name in self.pipe.components:
            if _encodes(name) and name != "vae":
                setattr(self.pipe, name, None)
        self.latents.free(keep_decoder=keep_decoder)
        self.pipe.vae = self.latents.vae
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def convert_weights(self, dtype: torch.dtype) -> None:
        """Put every weight into that precision, the VAE's too: for writing, not for sampling."""
        self.pipe.to(dtype)

    def save_pipeline(self, folder: Path) -> None:
        """Write the whole model as `pipeline_class` of diffusers loads it."""
        save_pretrained(self.pipe, folder)


def digest(modules: Iterable[nn.Module]) -> str:
    """A hash of some numbers of every weight: whether two models would encode alike."""
    total = hashlib.blake2b(digest_size=16)
    for parameter in (p for module in modules for p in module.parameters()):
        total.update(parameter.detach().flatten()[:16].float().cpu().numpy().tobytes())
    return total.hexdigest()


def _encodes(name: str) -> bool:
    """Whether a part of a pipeline, by its name there, encodes images or prompts."""
    return name == "vae" or name.startswith("text_encoder")


def _order(part: tuple[str, Any]) -> tuple[bool, str]:
    """The VAE first, then the text encoders by number."""
    return part[0] != "vae", part[0]
