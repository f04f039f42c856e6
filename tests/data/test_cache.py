import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from t2ialign.data.cache.build import build_cache
from t2ialign.data.cache.stored import PairCache
from t2ialign.data.images import open_rgb
from t2ialign.data.pairs import PairRecord
from t2ialign.data.transform import bucket_sizes, frame, nearest_bucket
from t2ialign.models.base import Policy
from t2ialign.models.load import load_policy


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def make_records(
    count: int, prompts: int, shapes: Sequence[tuple[int, int]] = ((32, 32),)
) -> list[PairRecord]:
    """Pair i: prompt i mod prompts, winner noise 2i, loser noise 2i + 1, of shapes in turn."""
    return [
        PairRecord(
            f"prompt {i % prompts}",
            noise(shapes[i % len(shapes)], 2 * i),
            noise(shapes[i // len(shapes) % len(shapes)], 2 * i + 1),
            weight=1.0 if i % 3 else 0.5,
            name=f"row {i}",
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def sd(tiny_sd) -> Policy:
    return load_policy(str(tiny_sd), device="cpu")


@pytest.fixture(scope="module")
def sharp(tiny_sd) -> Policy:
    """A VAE whose posterior is narrow, as a trained one's is: a latent tells which image it is of."""
    policy = load_policy(str(tiny_sd), device="cpu")
    policy.latents.vae.quant_conv.bias.data[4:] -= 10  # log variance
    return policy


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl) -> Policy:
    return load_policy(str(tiny_sdxl), device="cpu")


@pytest.fixture(scope="module")
def records() -> list[PairRecord]:
    return make_records(21, 5)


@pytest.fixture(scope="module")
def cache(records, sd, tmp_path_factory) -> PairCache:
    folder = tmp_path_factory.mktemp("cache") / "made" / "here"
    return build_cache(PairCache, folder, iter(records), sd, resolution=32, batch_size=4, shard_size=6)


def keys(count: int, epoch: int = 0) -> list[tuple[int, ...]]:
    return [(7, epoch, i) for i in range(count)]


def moments(policy: Policy, image, size=(32, 32), mirror=False) -> tuple[Tensor, Tensor]:
    return policy.encode_images(frame(open_rgb(image), size, mirror=mirror).pixels[None])


def shows(latents: Tensor, policy: Policy, image, size=(32, 32), mirror=False) -> bool:
    """Whether latents (C, h, w) are a plausible draw for the image; half precision blurs z a little."""
    mean, std = moments(policy, image, size, mirror)
    return bool(((latents - mean) / std).square().mean() < 1.5)


class CountCalls:
    """Counts the forwards of modules while inside."""

    def __init__(self, *modules: nn.Module) -> None:
        self.modules, self.rows = modules, [0 for _ in modules]

    def __enter__(self) -> "CountCalls":
        self.handles = [m.register_forward_hook(self.count(i)) for i, m in enumerate(self.modules)]
        return self

    def count(self, index: int):
        def hook(module, args, output):
            self.rows[index] += len(output if isinstance(output, Tensor) else output[0])

        return hook

    def __exit__(self, *error) -> None:
        for handle in self.handles:
            handle.remove()


class TestContents:
    def test_latents_are_the_posterior_of_each_image(self, cache, records, sd):
        """std is multiplied by each row's own noise; many draws average to the mean at the right rate."""
        draws, indices = 400, [0, 5, 20]
        wins = torch.stack([cache.batch(indices, keys(3, epoch)).win for epoch in range(draws)])
        for position, index in enumerate(indices):
            mean, std = moments(sd, records[index].win)
            assert std.min() > 0.01, "the random VAE's posterior has some width, or this test shows nothing"
            z = (wins[:, position].mean(0) - mean[0]) / (std[0] / draws**0.5)
            assert abs(z.mean()) < 0.3 and 0.8 < z.std() < 1.2
            assert (wins[:, position].std(0) / std[0] - 1).abs().mean() < 0.06

    def test_winner_and_loser_are_not_mixed_up(self, records, sharp, tmp_path):
        cache = build_cache(PairCache, tmp_path / "c", records, sharp, resolution=32)
        batch = cache.batch(range(21), keys(21))
        for i, record in enumerate(records):
            assert shows(batch.win[i], sharp, record.win) and shows(batch.lose[i], sharp, record.lose)
            assert not shows(batch.win[i], sharp, record.lose)
            assert not shows(batch.lose[i], sharp, records[i - 1].lose)

    def test_both_images_are_drawn_independently(self, cache, records, sd):
        batch = cache.batch([3], keys(1))
        (mean_win, std_win), (mean, std) = moments(sd, records[3].win), moments(sd, records[3].lose)
        z = torch.stack([((batch.win - mean_win) / std_win).flatten(), ((batch.lose - mean) / std).flatten()])
        assert abs(torch.corrcoef(z)[0, 1]) < 0.3

    def test_same_keys_same_batch_and_rows_do_not_depend_on_company(self, cache):
        first, again = cache.batch([1, 2, 3], keys(3)), cache.batch([1, 2, 3], keys(3))
        assert torch.equal(first.win, again.win) and torch.equal(first.lose, again.lose)
        alone = cache.batch([3], keys(3)[2:])
        assert torch.equal(alone.win[0], first.win[2]) and torch.equal(alone.lose[0], first.lose[2])
        other = cache.batch([1, 2, 3], keys(3, epoch=1))
        assert not torch.equal(other.win, first.win)

    def test_prompts_weights_and_order(self, cache, records, sd):
        assert len(cache) == 21
        assert [cache.prompt(i) for i in range(21)] == [record.prompt for record in records]
        assert cache.prompts == [f"prompt {i}" for i in range(5)]
        batch = cache.batch(range(21), keys(21))
        assert batch.weight.tolist() == [record.weight for record in records]
        expected = sd.encode_prompts([record.prompt for record in records])
        assert batch.cond.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(batch.cond[name], value, rtol=1e-3, atol=1e-3)

    def test_shards_hold_no_more_than_they_should(self, cache):
        sizes = [path.stat().st_size for path in cache.folder.glob("pairs-*")]
        assert len(sizes) == 3  # 8 + 8 + 5 pairs: full at 6, in steps of 4
        row = 2 * 2 * 4 * 8 * 8 * 2
        assert max(sizes) < 8 * row * 1.2 + 1000
        assert {path.suffix for path in cache.folder.iterdir()} == {".safetensors", ".json"}

    def test_moves_to_a_device(self, cache):
        batch = cache.batch([0, 1], keys(2)).to("meta")
        tensors = [batch.win, batch.lose, batch.weight, batch.sizes, *batch.cond.values()]
        assert {tensor.device.type for tensor in tensors} == {"meta"}


class TestForwards:
    def test_each_image_and_each_prompt_is_encoded_once_and_never_again(self, records, sd, tmp_path):
        options = {"resolution": 32, "batch_size": 4, "shard_size": 6}
        with CountCalls(sd.vae.encoder, sd.pipe.text_encoder) as built:
            cache = build_cache(PairCache, tmp_path / "c", records, sd, **options)
        assert built.rows == [42, 5]
        with CountCalls(sd.vae.encoder, sd.pipe.text_encoder) as trained:
            for epoch in range(2):
                for rows in cache.plan(0, epoch, 4):
                    cache.batch(rows, keys(4, epoch)).stacked(sd)

            def spoiled():
                raise AssertionError("a finished cache must not read its records")
                yield

            again = build_cache(PairCache, tmp_path / "c", spoiled(), sd, **options)
        assert trained.rows == [0, 0]
        assert torch.equal(again.batch([4], keys(1)).win, cache.batch([4], keys(1)).win)


class TestBuckets:
    SHAPES = ((32, 32), (32, 50), (60, 36))

    def test_pairs_share_a_size_and_batches_a_bucket(self, sharp, tmp_path):
        records = make_records(24, 3, self.SHAPES)
        cache = build_cache(
            PairCache, tmp_path / "c", records, sharp, resolution=32, buckets=True, batch_size=3
        )
        sizes, seen = bucket_sizes(32, 4), set()
        for i, record in enumerate(records):
            size = nearest_bucket((record.win, record.lose), sizes)
            pairs = cache.batch([i], keys(1))
            assert pairs.win.shape[2:] == pairs.lose.shape[2:] == (size[0] // 4, size[1] // 4)
            assert shows(pairs.win[0], sharp, record.win, size) and shows(
                pairs.lose[0], sharp, record.lose, size
            )
            seen.add(size)
        assert len(seen) >= 3, "the test's images fall into several buckets"
        for rows in cache.plan(0, 0, 4):
            assert len(cache.batch(rows, keys(4)).win) == 4

    def test_every_pair_is_drawn_equally_often_whatever_its_bucket(self, sd, tmp_path):
        records = make_records(24, 3, ((32, 32), (32, 32), (32, 32), (32, 32), (32, 60)))
        cache = build_cache(PairCache, tmp_path / "c", records, sd, resolution=32, buckets=True)
        epochs = 3000
        counts = np.zeros(24)
        for epoch in range(epochs):
            plan = cache.plan(1, epoch, 5)
            assert len(plan) == 4 and all(len(rows) == 5 for rows in plan)
            np.add.at(counts, np.concatenate(plan), 1)
        # 20 draws over 24 pairs; a rare bucket's pairs come together, so their counts spread more.
        assert np.abs(counts / epochs - 20 / 24).max() < 0.12

    def test_sets_smaller_than_a_batch_wrap(self, cache, sd, tmp_path):
        small = build_cache(PairCache, tmp_path / "c", make_records(3, 3), sd, resolution=32)
        (rows,) = small.plan(0, 0, 8)
        assert sorted(np.bincount(rows).tolist()) == [2, 3, 3]


class TestPlan:
    def test_deterministic_and_reshuffled(self, cache):
        plans = [np.concatenate(cache.plan(0, epoch, 4)).tolist() for epoch in (0, 0, 1)]
        assert plans[0] == plans[1] != plans[2]
        assert np.concatenate(cache.plan(1, 0, 4)).tolist() != plans[0]
        assert len(set(plans[0])) == 20

    def test_nothing_to_plan(self, cache):
        _, held = cache.split(0.0, seed=0)
        with pytest.raises(ValueError, match="got 0 pairs for batches of 4"):
            held.plan(0, 0, 4)


class TestSplit:
    def test_no_prompt_on_both_sides_and_no_pair_lost(self, cache):
        train, held = cache.split(0.4, seed=3)
        sides = [{part.prompt(i) for i in range(len(part))} for part in (train, held)]
        assert len(sides[1]) == 2 and not sides[0] & sides[1]
        assert len(train) + len(held) == 21

    def test_a_part_reads_its_own_rows(self, cache, records):
        _, held = cache.split(0.4, seed=3)
        numbers = [i for i, record in enumerate(records) if record.prompt in {held.prompt(0), held.prompt(1)}]
        assert len(held) == len(numbers)
        part, whole = held.batch(range(len(held)), keys(len(held))), cache.batch(numbers, keys(len(held)))
        assert torch.equal(part.win, whole.win) and torch.equal(part.weight, whole.weight)
        assert torch.equal(part.cond["prompt_embeds"], whole.cond["prompt_embeds"])
        assert all(rows.max() < len(held) for rows in held.plan(0, 0, 2))

    def test_depends_on_seed_and_text_alone(self, cache, sd, tmp_path):
        again = build_cache(PairCache, tmp_path / "c", make_records(10, 5)[::-1], sd, resolution=32)
        for seed in range(5):
            prompts = [
                {p.prompt(i) for i in range(len(p))} for c in (cache, again) for p in c.split(0.4, seed)
            ]
            assert prompts[0] == prompts[2] and prompts[1] == prompts[3]
        assert len({tuple(sorted(cache.split(0.2, seed)[1].prompt(0))) for seed in range(20)}) > 1

    @pytest.mark.parametrize("fraction", [0.95, 1.0, -0.1])
    def test_something_must_be_left_to_train_on(self, cache, fraction):
        with pytest.raises(ValueError, match="got 5 distinct prompts"):
            cache.split(fraction, seed=0)


class TestFlip:
    def test_both_images_are_mirrored_together_half_of_the_time(self, sharp, tmp_path):
        record = PairRecord("a", noise((32, 40), 0), noise((32, 32), 1))
        cache = build_cache(PairCache, tmp_path / "c", [record], sharp, resolution=32, flip=True)
        mirrored = []
        for epoch in range(60):
            batch = cache.batch([0], keys(1, epoch))
            fits = [
                [shows(latents[0], sharp, image, mirror=mirror) for mirror in (False, True)]
                for latents, image in ((batch.win, record.win), (batch.lose, record.lose))
            ]
            assert fits[0] == fits[1] and sum(fits[0]) == 1
            mirrored.append(fits[0][1])
        assert 15 < sum(mirrored) < 45


class TestSdxl:
    def test_each_image_tells_its_own_size_and_the_prompt_is_shared(self, sdxl, tmp_path):
        record = PairRecord("a cat", noise((40, 60), 0), noise((64, 48), 1))
        cache = build_cache(PairCache, tmp_path / "c", [record, record], sdxl, resolution=32)
        pairs = cache.batch([0, 1], keys(2))
        x_0, cond = pairs.stacked(sdxl)
        assert torch.equal(x_0, torch.cat([pairs.win, pairs.lose]))
        # 40x60 -> 32x48, 8 cut from the left; 64x48 -> 43x32, 5 from the top.
        assert cond["time_ids"].tolist() == [[40, 60, 0, 8, 32, 32]] * 2 + [[64, 48, 5, 0, 32, 32]] * 2
        expected = sdxl.encode_prompts(["a cat"])
        for name in ("prompt_embeds", "pooled"):
            for row in cond[name]:
                torch.testing.assert_close(row, expected[name][0], rtol=1e-3, atol=1e-3)
        out = sdxl.predict(x_0, torch.full((4,), 500), cond)
        assert out.shape == x_0.shape and (out[0] - out[2]).abs().max() > 0

    def test_sizes_are_nothing_to_other_families(self, sd, cache):
        pairs = cache.batch([0, 1], keys(2))
        _, cond = pairs.stacked(sd)
        assert cond.keys() == {"prompt_embeds"}
        assert torch.equal(cond["prompt_embeds"][:2], cond["prompt_embeds"][2:])


def test_progress_counts_every_pair(records, sd, tmp_path):
    passed: list[int] = []
    build_cache(PairCache, tmp_path / "c", records, sd, resolution=32, progress=passed.append)
    assert sum(passed) == 21


def test_manifest_says_what_it_is_made_of(cache):
    manifest = json.loads((cache.folder / "cache.json").read_text())
    assert (manifest["pairs"], manifest["prompts"]) == (21, 5)
    assert manifest["fingerprint"] == cache.fingerprint
    assert cache.fingerprint["resolution"] == 32 and cache.fingerprint["image_factor"] == 4
