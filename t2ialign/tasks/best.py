"""Several candidates for each image, judged for the user's prompt, of which the best is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import jsonl, manifest, naming
from t2ialign.rewriting import sampling
from t2ialign.tasks import candidates
from t2ialign.tasks.folder import claim, finish, pending
from t2ialign.tasks.plan import Rendering, kind_of, plan
from t2ialign.tasks.rendering import Rewriting, collected, named, opener, page, place, render
from t2ialign.tasks.samples import Samples

if TYPE_CHECKING:
    from rewards import Reward


@dataclass(frozen=True)
class Judge:
    """The reward that chooses, by name or loaded; None is the toy model's own."""

    reward: str | Reward | None
    options: Mapping[str, Any]
    """Options of a reward that is named."""

    def load(self, how: Rendering, prompts: Sequence[str]) -> tuple[str, dict[str, Any], Reward]:
        """The name of the reward, what its scores are of, and the reward.

        Raises ValueError where it is not named for another model, and where it cannot judge these prompts.
        """
        import rewards
        from rewards.loading import of_images
        from t2ialign.scoring.journal import answering

        options = dict(self.options)
        if self.reward is not None and not isinstance(self.reward, str):
            name = type(of_images(self.reward)).__name__
            return name, {"reward": name, "options": {}}, self.reward
        name = self.reward or candidates.default_reward(how.model, options, prompts)
        rewards.check(name, **options)
        reward = candidates.load_reward(name, options, how.model, prompts)
        return name, {"reward": name, "options": answering(options)}, reward


def run(
    how: Rendering,
    prompts: Sequence[str],
    count: int,
    judge: Judge,
    output: Path | None,
    *,
    rewriting: Rewriting | None = None,
    resume: bool = False,
) -> Samples:
    """Render and judge `count` candidates of each row of the plan, and keep the best in its place.

    With `rewriting` each candidate is of another rewrite, without it of another seed alone. Raises ValueError
    as `rendering.run` does, and for a reward that cannot judge these prompts.
    """
    if count < 2:
        raise ValueError(
            f"got {naming.given('num_candidates', count)}; expected at least 2; raise it, or leave it out"
        )
    how = named(how)
    rows = plan(how, prompts, **kind_of(rewriting.job if rewriting else None, count))
    texts = [row["prompt"] for row in rows]
    with place(how, output, resume=resume) as folder:
        name, of, reward = judge.load(how, texts)
        claim(folder, rows[0], resume=resume)
        opened, notes = opener(how), list[str]()
        draws = [{text: text for text in texts}] * count
        if rewriting is not None:
            results = sampling.rewritten(rewriting.job, texts, folder, count)
            draws = [sampling.texts(some) for some in results]
            notes.append(sampling.summary(results))
        inner = folder / candidates.FOLDER
        inner.mkdir(exist_ok=True)
        plans = candidates.candidates(rows, draws)
        missing = pending(inner, plans)
        render(how, missing, inner, opened)
        jsonl.rewrite(inner / manifest.NAME, plans)
        scored = candidates.score(reward, of, plans, inner, batch_size=how.batch_size)
        best = candidates.keep(folder, scored, name)
        finish(folder, best)
        notes.append(candidates.summary(scored, best, name))
        if rewriting is None:
            far = candidates.divergence(count)
            notes.append(f"KL divergence of the best of {count} from the model: at most {far:.3f} nats")
        notes += [*page(how, rewriting, best, folder, opened)]
        errors = [row["error"] for row in scored if row["error"]]
        samples = Samples(best, folder, len(missing), notes, errors)
        return collected(samples, keep=output is not None)
