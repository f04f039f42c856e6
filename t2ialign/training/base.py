"""The training loop with an image model: the base of every method that aligns one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from t2ialign.data.prompts import read_prompts
from t2ialign.evaluation.panel import Trained
from t2ialign.models.advice import advise_before_training
from t2ialign.models.ahead import Ahead, check_family, check_trainable, look_ahead
from t2ialign.models.load import load_policy
from t2ialign.models.lora import trainable
from t2ialign.models.options import options_of
from t2ialign.models.sources import locate
from t2ialign.models.wrapped import loaded
from t2ialign.training import card
from t2ialign.training.facts import Facts
from t2ialign.training.loop import BatchT, Loop
from t2ialign.training.plan import image_facts
from t2ialign.training.result import identity_of, make_trainable, write_kohya
from t2ialign.training.settings import TrainConfig
from t2ialign.training.state import TrainState
from t2ialign.training.watch import validation
from t2ialign.training.watch.monitor import Monitor, check_monitor
from t2ialign.training.watch.watcher import Watch

Cfg = TypeVar("Cfg", bound=TrainConfig)


class Trainer(Loop[Cfg, BatchT]):
    """The loop with an image model in it, its validation images and its monitor.

    policy: a loaded model without adapters, or a diffusers pipeline, whose encoders stay in memory; else
    `cfg.model` is loaded. In `setup` the encoders are in memory for the last time. Raises ValueError like
    `Loop`, and for what is no model.
    """

    decodes: ClassVar[bool] = False
    """Whether training itself needs the image decoder."""
    wraps: ClassVar[bool] = True
    """Whether several processes wrap the net, which is right where a loss runs it once. Where it runs many
    times, or again in the backward pass, gradients are averaged before the update instead."""
    any_reward: ClassVar[bool] = False
    """Whether its reward needs no gradient."""
    times: Tensor | None = None
    """The grid (T + 1,) of the paths that it samples; None where it samples none."""

    def __init__(self, cfg: Cfg, *, policy: Any = None) -> None:
        check_monitor(cfg)
        self._policy = None if policy is None else loaded(policy)
        self.keep_prompts = list[str]()
        self.supplied |= {"model"} if policy is not None else frozenset()
        super().__init__(cfg)
        self.watch = Watch(
            self._monitor(), self.cfg, self.state, self.log, save=self.save_once, write=self.result
        )
        if policy is None:
            prompts = [*self.validation_prompts, *self.watch.prompts, *self.keep_prompts]
            self.policy.free_encoders(keep_decoder=self.decodes or bool(prompts), keep_prompts=prompts)

    def look_ahead(self, model: Ahead) -> None:
        """Raises ValueError, before weights are read, for a model that the settings do not fit."""
        model.check_sides(self.cfg.sides)
        model.check_training(self.cfg.family)

    def load(self) -> TrainState:
        """The policy with its LoRA, or with all weights trainable."""
        cfg = self.cfg
        self.validation_prompts = [text for item in cfg.validation_prompts for text in read_prompts(item)]
        if self._policy is None:
            self.look_ahead(look_ahead(locate(cfg.model), options_of(cfg)))
        self.policy = self._policy or load_policy(
            cfg.model,
            precision=cfg.precision,
            attention=cfg.attention,
            device=self.accelerator.device,
            master_weights=cfg.lora_rank == 0,
            options=options_of(cfg),
        )
        check_family(self.policy.source, self.policy.family, cfg.family)
        check_trainable(self.policy.source, self.policy.untrainable)
        cfg = cfg.for_family(self.policy.family)
        if cfg.lora_targets is None:
            cfg = cfg.model_copy(update={"lora_targets": self.policy.lora_targets})
        self.cfg = cfg
        advise_before_training(self.policy)
        identity = None if self._policy is None else identity_of(self._policy)
        write, often = make_trainable(self.policy, cfg), cfg.lora_rank > 0
        if cfg.gradient_checkpointing:
            self.policy.checkpoint_gradients()
        trained = trainable(self.policy)
        return TrainState(
            cfg,
            self.accelerator,
            self.policy,
            trained,
            write,
            often=often,
            wrap=self.wraps,
            identity=identity,
        )

    def _monitor(self) -> Monitor | None:
        """The monitor of the main process, if there is one. Raises ValueError like `Monitor`."""
        if self.cfg.monitor_prompts is None or not self.accelerator.is_main_process:
            return None
        return Monitor(self.cfg, self.policy, method=self.method, trained=self.trained_reward)

    def facts(self) -> Facts:
        """The model, and the validation images and sampled paths where there are any."""
        facts = image_facts(self.cfg, self.policy, len(self.validation_prompts))
        return replace(facts, more={**self._grid(), **facts.more})

    def _grid(self) -> dict[str, str]:
        """The noise levels of the sampled paths, in words."""
        return {} if self.times is None else {"noise levels": self.policy.latents.described(self.times)}

    def result(self, folder: Path | None = None) -> Path:
        """Write the weights as diffusers loads them, and a LoRA as other programs do too -> the first."""
        return write_kohya(self.policy, self.cfg, self.state.export(folder or self.cfg.output))

    @property
    def trained_reward(self) -> Trained | None:
        """The name and the reward that training climbs, for the monitor; None where there is none."""
        return None

    def _start(self) -> None:
        self.halted = self.watch.open()
        super()._start()
        self.watch.keep_best()

    def _report(self, row: dict[str, float]) -> None:
        if self.due:
            self.halted = self.watch.measure(row)
        super()._report(row)

    def _after_step(self, row: dict[str, float]) -> None:
        super()._after_step(row)
        self.watch.keep_best()

    def show(self, *, last: bool) -> None:
        """The validation images, where they are due."""
        cfg, step, prompts = self.cfg, self.state.step, self.validation_prompts
        if prompts and (step % cfg.validate_every == 0 or last):
            file = cfg.output / "validation" / f"step-{step:06d}.png"
            with self.state.served():
                self.log.images(step, validation.render(cfg, self.policy, prompts, file))

    def write_card(self, metrics: dict[str, float]) -> None:
        """Write the model card: model, data, and how diffusers loads the result."""
        policy = self.policy
        network = {"component": policy.component, "save_class": policy.save_class}
        model = {**policy.schedule, **policy.options.given(), **network}
        more = {**self.policy.options.facts(), **self.watch.facts()}
        more |= {name.capitalize(): levels for name, levels in self._grid().items()}
        if self.cfg.init_lora is not None:
            more["Started from"] = self.cfg.init_lora
        if self.halted:
            more["Steps"] = f"{self.state.step} of {self.cfg.max_steps}, ended by the monitor"
        data, dataset, method = self.data_card(), self.dataset(), self.method
        card.write(
            self.cfg, method=method, model=model, data=data, dataset=dataset, metrics=metrics, more=more
        )
