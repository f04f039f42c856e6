"""GRPO of a rewriter on the images its rewrites make. PromptEnhancer, arXiv 2509.04545.

For each user prompt a group of outputs is drawn; a frozen generator renders one image of each, all from the
same noise, and AlignEvaluator judges it by the key points of the user's prompt. Advantages are standard
scores within the group, the KL is to the rewriter that training began with: the LoRA switched off.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import rewards
from rewards.keypoints.evaluator import AlignEvaluator
from rewards.keypoints.taxonomy import KeyPoint, from_json, to_json
from t2ialign.data.rewrites import Wish, read_wishes
from t2ialign.io.locks import holding_output
from t2ialign.methods.rewrite_grpo.config import Config
from t2ialign.methods.rewrite_grpo.reward import ImageReward
from t2ialign.methods.rewriter import language
from t2ialign.rewriting.instructions import PRESETS
from t2ialign.training.facts import Facts
from t2ialign.training.log import Told


class Trainer:
    """TRL's GRPOTrainer over our settings, with an `ImageReward`.

    Raises ValueError as `language.start`, `read_wishes` and the reward do, and for a batch without groups.
    """

    def __init__(self, cfg: Config) -> None:
        if cfg.batch_size * cfg.accumulate % cfg.group:
            raise ValueError(
                f"got batch_size={cfg.batch_size} x accumulate={cfg.accumulate}; expected a multiple of "
                f"group={cfg.group}; change one of them"
            )
        if cfg.kl and not cfg.lora_rank and language.from_lora(cfg):
            raise ValueError(
                f"got lora_rank=0 for {cfg.model}, which is a LoRA; expected lora_rank above 0, whose "
                "reference is the merged model; raise it, or set kl=0"
            )
        self.cfg, self.checkpoint = cfg, language.start(cfg)
        from trl import GRPOConfig, GRPOTrainer

        from t2ialign.models.load import load_policy

        preset = PRESETS[cfg.preset]
        model, tokenizer = language.load(cfg)
        options = {cfg.reward: cfg.reward_options}
        reward = rewards.load_all(options, options)[cfg.reward]
        wishes = with_points(read_wishes(cfg.prompts), reward)
        self.prompts = len(wishes)
        policy = load_policy(cfg.generator)
        self.judge = ImageReward(
            policy,
            reward.to(policy.device),
            convention=preset.convention,
            survival=preset.survival,
            num_inference_steps=cfg.num_inference_steps,
            guidance_scale=cfg.guidance_scale,
            batch_size=cfg.image_batch,
        )
        self.trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=self.paid,
            args=GRPOConfig(
                **language.arguments(cfg),
                num_generations=cfg.group,
                beta=cfg.kl,
                temperature=cfg.temperature,
                max_completion_length=cfg.tokens,
                chat_template_kwargs=dict(preset.chat) or None,
                loss_type="grpo",  # the mean of an output's tokens, then of outputs, as in the paper
                shuffle_dataset=False,  # drawn in order already
            ),
            train_dataset=self.drawn(wishes),
            peft_config=language.lora(cfg),
        )

    @holding_output
    def fit(self, *, on_step: Told | None = None, on_evaluation: Told | None = None) -> dict[str, float]:
        """Train, and leave the rewriter in the output folder -> the last metrics."""
        return language.fit(
            self.trainer,
            self.cfg,
            self.checkpoint,
            method="rewrite_grpo",
            data=str(self.cfg.prompts),
            facts=self.facts(),
            on_step=on_step,
            on_evaluation=on_evaluation,
        )

    def facts(self) -> Facts:
        """The prompts, of which each has a group of outputs, and what renders and judges their images."""
        cfg = self.cfg
        images = f"{cfg.generator}, {cfg.num_inference_steps} steps, guidance {cfg.guidance_scale:g}"
        more = {"sampling": images, "reward": cfg.reward, "group": f"{cfg.group} outputs a prompt"}
        return Facts(cfg.model, unit="prompts", train=self.prompts, epoch=self.prompts * cfg.group, more=more)

    def paid(
        self, completions: Any, completion_ids: Any, wish: Any, points: Any, **given: Any
    ) -> list[float]:
        """Called by TRL: outputs of all groups of a step -> their rewards."""
        ends = set(self.trainer.eos_token_ids)
        return self.judge(
            completions=completions,
            ended=[bool(ids) and ids[-1] in ends for ids in completion_ids],
            wish=wish,
            points=[from_json(points_of_row) for points_of_row in points],
            image_seed=given["image_seed"],
            log_metric=given["log_metric"],
        )

    def drawn(self, wishes: Sequence[tuple[str, list[KeyPoint]]]) -> Any:
        """The prompts of the whole run in their order, each with the seed that its group's images share."""
        from accelerate import PartialState
        from datasets import Dataset

        cfg = self.cfg
        outputs = cfg.max_steps * cfg.batch_size * cfg.accumulate * PartialState().num_processes
        drawn_wishes = draw(wishes, outputs // cfg.group, seed=cfg.seed, balance=cfg.balance)
        rows = [
            {
                "prompt": language.chat_of(cfg, prompt),
                "wish": prompt,
                "points": to_json(points),
                "image_seed": 1_000_003 * cfg.seed + place,
            }
            for place, (prompt, points) in enumerate(drawn_wishes)
        ]
        return Dataset.from_list(rows)


def with_points(wishes: Sequence[Wish], reward: rewards.Reward) -> list[tuple[str, list[KeyPoint]]]:
    """Each prompt with its key points: those of its row, else the evaluator's own, else the rules'.

    Raises ValueError, naming the row, for points of another form and where none are found.
    """
    from rewards.keypoints.rules import extract

    find = reward.points if isinstance(reward, AlignEvaluator) else extract
    pairs = []
    for wish in wishes:
        points = list(find(wish.prompt)) if wish.points is None else _given(wish)
        if not points:
            raise ValueError(
                f"{wish.where}: got {wish.prompt!r} without key points; expected at least one to judge; "
                "leave it out, or fill the column points"
            )
        pairs.append((wish.prompt, points))
    return pairs


def _given(wish: Wish) -> list[KeyPoint]:
    try:
        return from_json(wish.points)
    except ValueError as error:
        raise ValueError(f"{wish.where}, points: {error}") from error


def draw(
    wishes: Sequence[tuple[str, list[KeyPoint]]], count: int, *, seed: int, balance: bool
) -> list[tuple[str, list[KeyPoint]]]:
    """`count` prompts: each time a kind of key point and then a prompt that has it, or else any prompt."""
    rng = random.Random(seed)
    if not balance:
        return [wishes[rng.randrange(len(wishes))] for _ in range(count)]
    having: dict[str, list[int]] = {}
    for place, (_, points) in enumerate(wishes):
        for kind in dict.fromkeys(point.kind for point in points):
            having.setdefault(kind, []).append(place)
    kinds = sorted(having)
    return [wishes[rng.choice(having[rng.choice(kinds)])] for _ in range(count)]
