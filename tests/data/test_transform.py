import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose, InterpolationMode, Resize, ToTensor

from t2ialign.data.transform import bucket_sizes, frame, nearest_bucket, stretch


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def blank(height: int, width: int) -> Image.Image:
    return Image.new("RGB", (width, height))


class TestBuckets:
    @pytest.mark.parametrize(
        ("resolution", "factor", "grid"),
        [(512, 8, 64), (1024, 8, 64), (768, 8, 64), (128, 8, 16), (32, 4, 8)],
    )
    def test_grid_area_and_aspect(self, resolution, factor, grid):
        sizes = bucket_sizes(resolution, factor)
        assert sizes[0] == (resolution, resolution) and len(set(sizes)) == len(sizes)
        for height, width in sizes:
            assert height % grid == width % grid == 0
            assert 0.8 * resolution**2 < height * width <= resolution**2
            assert 1 / 2 <= width / height <= 2
            assert (width, height) in sizes

    def test_stable_diffusion_has_the_usual_ones(self):
        assert {(448, 576), (384, 640)} <= set(bucket_sizes(512, 8))
        assert {(832, 1216), (896, 1152), (768, 1344)} <= set(bucket_sizes(1024, 8))

    @pytest.mark.parametrize("resolution", [500, 8, 0])
    def test_off_grid_resolution(self, resolution):
        with pytest.raises(ValueError, match=f"got resolution {resolution}; expected a multiple of"):
            bucket_sizes(resolution, 8)

    def test_nearest_by_aspect(self):
        sizes = bucket_sizes(512, 8)
        assert nearest_bucket((blank(900, 900), blank(30, 30)), sizes) == (512, 512)
        assert nearest_bucket((blank(448, 576), blank(896, 1152)), sizes) == (448, 576)
        assert nearest_bucket((blank(1152, 896), blank(1152, 896)), sizes) == (576, 448)
        # One of 2:1 and one of 1:2 meet in the square, whichever is preferred.
        for pair in ((blank(100, 200), blank(200, 100)), (blank(200, 100), blank(100, 200))):
            assert nearest_bucket(pair, sizes) == (512, 512)

    def test_pair_of_one_shape_keeps_most_of_its_area(self):
        """Within the aspect range no bucket cuts more than a fifth off."""
        sizes = bucket_sizes(512, 8)
        for ratio in np.linspace(0.5, 2, 31):
            image = blank(1000, round(1000 * ratio))
            height, width = nearest_bucket((image, image), sizes)
            share = min(ratio, width / height) / max(ratio, width / height)
            assert share > 0.8


class TestFrame:
    def test_identical_images_give_identical_tensors(self):
        for mirror in (False, True):
            framed = [frame(noise(37, 53), (32, 40), mirror=mirror) for _ in range(2)]
            assert torch.equal(framed[0].pixels, framed[1].pixels)
            assert framed[0].crop == framed[1].crop

    def test_right_size_passes_untouched(self):
        image = noise(32, 40)
        framed = frame(image, (32, 40))
        expected = torch.from_numpy(np.asarray(image).astype(np.float32) / 255).permute(2, 0, 1)
        assert torch.equal(framed.pixels, expected)
        assert (framed.original, framed.crop, framed.target) == ((32, 40), (0, 0), (32, 40))

    def test_crop_is_the_centre(self):
        image = noise(32, 50)
        framed = frame(image, (32, 40))
        assert framed.crop == (0, 5)
        expected = frame(image.crop((5, 0, 45, 32)), (32, 40)).pixels
        assert torch.equal(framed.pixels, expected)

    @pytest.mark.parametrize(("height", "width"), [(64, 161), (47, 33), (8, 9), (300, 70)])
    def test_mirror_is_the_mirror_image_and_tells_the_mirrored_crop(self, height, width):
        image = noise(height, width)
        plain, mirrored = frame(image, (32, 40)), frame(image, (32, 40), mirror=True)
        assert torch.equal(mirrored.pixels, plain.pixels.flip(-1))
        scale = max(32 / height, 40 / width)
        assert plain.crop[1] + 40 + mirrored.crop[1] == max(round(width * scale), 40)
        assert plain.crop[0] == mirrored.crop[0]

    def test_numbers_for_sdxl(self):
        """A 600 x 1200 image in a 512 square: resized to 512 x 1024, cut 256 from the left."""
        framed = frame(blank(600, 1200), (512, 512))
        assert (framed.original, framed.crop, framed.target) == ((600, 1200), (0, 256), (512, 512))

    def test_resampling_keeps_a_gradient_in_place(self):
        """What was at relative position u stays there: a horizontal ramp, shrunk and enlarged."""
        for width in (400, 20):
            ramp = np.linspace(0, 255, width).round().astype(np.uint8)
            image = Image.fromarray(np.repeat(np.tile(ramp, (width, 1))[:, :, None], 3, axis=2))
            row = frame(image, (64, 64)).pixels[0, 32]
            assert (row - torch.linspace(0, 1, 64)).abs().max() < 0.03

    def test_extreme_aspect_needs_no_extreme_memory(self):
        """A 2 x 60,000 strip covers 512 x 512 only as 512 x 15,360,000: 23 GB if it were ever made."""
        framed = frame(blank(2, 60_000), (512, 512))
        assert framed.pixels.shape == (3, 512, 512)

    def test_range(self):
        image = Image.fromarray((np.indices((90, 90)).sum(0) // 7 % 2 * 255).astype(np.uint8)).convert("RGB")
        pixels = frame(image, (64, 64)).pixels
        assert pixels.min() >= 0 and pixels.max() <= 1 and pixels.dtype == torch.float32


class TestStretch:
    @pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 53), (20, 200), (300, 70)])
    def test_it_is_torchvision_s_square_resize_of_an_image(self, height, width):
        """What the released code of the latent reward does with each image: Resize((S, S)), bilinear."""
        image = noise(height, width)
        theirs = Compose([Resize((48, 48), interpolation=InterpolationMode.BILINEAR), ToTensor()])
        assert torch.equal(stretch(image, (48, 48)), theirs(image))

    def test_nothing_is_cut_off(self):
        """Of a 64 x 256 image whose left and right eighths are white, a centre crop would see neither."""
        row = np.zeros((64, 256, 3), np.uint8)
        row[:, :32] = row[:, -32:] = 255
        columns = stretch(Image.fromarray(row), (64, 64))[0, 32]
        assert columns[:7].eq(1).all() and columns[-7:].eq(1).all() and columns[9:55].eq(0).all()
        assert frame(Image.fromarray(row), (64, 64)).pixels.max() == 0
