"""Windows for training: repeatable, balanced, around structures, image, classes and position moved alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from napari_medt.core import BadTrainingData
from napari_medt.training.augmentation import variation
from napari_medt.training.recipe import read_recipe
from napari_medt.training.sampling import Sample, Sampler, own_range, resampled


@pytest.fixture
def sampler(recipe_file):
    """A sampler of images with parts of the recipe replaced; 3D if the images are."""

    def make(samples, *, seed=0, weights=None, foreground=0.5, spacing=None, **augmentation):
        recipe = read_recipe(recipe_file)
        dims = samples[0].image.ndim - 1
        how = {"preset": "none", "scale": (1.0, 1.0), "quarter_turns": False, "mirror": ()} | augmentation
        changes = {
            "seed": seed,
            "window": (16,) * dims,
            "spacing": spacing,
            "data": recipe.data.model_copy(update={"weights": weights or {}, "foreground": foreground}),
            "augmentation": recipe.augmentation.model_copy(update=how),
        }
        return Sampler(samples, recipe.model_copy(update=changes))

    return make


def ramps(shape, *, labels=None):
    """An image whose channels are the coordinates, from the outer edge, and a structure in one corner."""
    coordinates = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij")).astype(np.float16)
    if labels is None:
        labels = np.zeros(shape, np.uint8)
        labels[tuple(slice(0, n // 4) for n in shape)] = 1
    return Sample(coordinates, labels, "a", "1", "ramps")


def test_a_window_follows_from_seed_step_and_place_alone(make_samples, sampler):
    samples = make_samples(3)
    one, two = sampler(samples, preset="microscopy"), sampler(samples, preset="microscopy")
    later = one.batch(7, 4, (32, 32))
    one.batch(3, 4, (32, 32))
    again = one.batch(7, 4, (32, 32))
    elsewhere = two.window(7, 3, (32, 32))
    for there, other, last in zip(later, again, elsewhere, strict=True):
        assert torch.equal(there, other)
        assert torch.equal(there[3], last)
    assert not torch.equal(later.images, one.batch(8, 4, (32, 32)).images)
    assert not torch.equal(later.images, sampler(samples, seed=1, preset="microscopy").batch(7, 4, (32, 32)).images)
    assert not torch.equal(later.images[0], later.images[1])


@pytest.mark.parametrize("window", [16, 32, 64])
@pytest.mark.parametrize("size", [(48, 48), (20, 70), (9, 9)])
def test_shape_type_and_range_also_of_images_smaller_than_the_window(make_samples, sampler, window, size):
    how = {"preset": "microscopy", "scale": (0.5, 2.0), "rotate": 45, "quarter_turns": True, "mirror": (0, 1)}
    images, labels, positions = sampler(make_samples(2, size=size), **how).batch(0, 5, (window, window))
    assert images.shape == (5, 3, window, window)
    assert labels.shape == (5, window, window)
    assert positions.shape == (5, 2)
    assert (images.dtype, labels.dtype, positions.dtype) == (torch.float32, torch.int64, torch.float32)
    assert 0 <= images.min() <= images.max() <= 1
    assert set(labels.unique().tolist()) <= {0, 1}


def test_groups_are_drawn_by_weight_however_many_images_they_have(make_samples, sampler):
    samples = [*make_samples(20, group="common"), *make_samples(1, group="rare")]
    one = sampler(samples, weights={"common": 0.25, "rare": 0.75, "absent": 9.0})
    rng = np.random.default_rng(0)
    drawn = Counter(one.choose(rng).group for _ in range(400))
    assert drawn["rare"] / 400 == pytest.approx(0.75, abs=0.08)


def test_shares_for_other_groups_than_there_are(make_samples, recipe_file):
    with pytest.raises(
        BadTrainingData, match="a share of the windows to bright, dark, but the images are of grey; correct"
    ):
        Sampler(make_samples(1, group="grey"), read_recipe(recipe_file))


def test_small_units_are_seen_beside_a_large_series(make_samples, sampler):
    series = [Sample(s.image, s.labels, s.group, "series") for s in make_samples(30)]
    one = sampler([*series, *make_samples(1, first=99)])
    rng = np.random.default_rng(0)
    drawn = Counter(one.choose(rng).unit for _ in range(400))
    assert drawn["99"] / 400 == pytest.approx(0.25, abs=0.08)  # half by unit, and there are two


@pytest.mark.parametrize("dims", [2, 3])
def test_windows_lie_around_structures_as_often_as_wished(sampler, dims):
    """Of two classes that differ a thousandfold in size, the small one is met as often."""
    labels = np.zeros((64,) * dims, np.uint8)
    labels[(slice(0, 32),) * dims] = 1
    labels[(slice(56, 57),) * dims] = 2
    sample = Sample(np.zeros((1, *labels.shape), np.float16), labels)
    often, never = (
        sampler([sample], foreground=share).batch(0, 200, (16,) * dims).labels.flatten(1) for share in (1.0, 0.0)
    )
    assert 0.4 < (often == 2).any(1).float().mean() < 0.6
    assert (often > 0).any(1).float().mean() > 0.95
    assert (never == 2).any(1).float().mean() < 0.15


def test_without_changes_windows_are_cut_as_they_are(sampler):
    sample = ramps((20, 31, 26))
    for image, labels, position in zip(*sampler([sample]).batch(0, 20, (8, 8, 8)), strict=True):
        first = (image[:, 0, 0, 0] - 0.5).int().tolist()
        where = tuple(slice(f, f + 8) for f in first)
        assert torch.equal(image, torch.from_numpy(sample.image[(slice(None), *where)].astype(np.float32)))
        assert (labels.numpy() == sample.labels[where]).all()
        assert position.tolist() == [f + 4 - n / 2 for f, n in zip(first, (20, 31, 26), strict=True)]


def test_position_stays_that_of_the_middle_through_turns_and_mirrors(sampler):
    """The image tells each place; turned and mirrored like it, the position of the window's middle is what was handed out."""
    size = np.array([20, 33, 33])
    one = sampler([ramps(tuple(size))], quarter_turns=True, mirror=(0, 1, 2))
    seen = set()
    for image, _, position in zip(*one.batch(0, 40, (9, 9, 9)), strict=True):
        steps = [(image[:, 1, 0, 0] - image[:, 0, 0, 0]), (image[:, 0, 1, 0] - image[:, 0, 0, 0])]
        steps.append(image[:, 0, 0, 1] - image[:, 0, 0, 0])
        turn = torch.stack(steps).numpy()  # row i: where in the image the i-th axis of the window runs
        seen.add(turn.tobytes())
        offset = image[:, 4, 4, 4].numpy() - size / 2
        np.testing.assert_allclose(position, turn @ offset, atol=1e-3)
    assert len(seen) > 8


@pytest.mark.parametrize("dims", [2, 3])
def test_image_and_classes_are_moved_alike(sampler, make_samples, dims):
    """Where the image is the mask itself, it stays so through magnification and turning."""
    labels = make_samples(1)[0].labels if dims == 2 else np.kron(np.eye(3, dtype=np.uint8)[None], np.ones((24, 8, 8)))
    labels = labels.astype(np.uint8)
    same = Sample(labels[None].astype(np.float16), labels)
    one = sampler([same], scale=(0.5, 2.5), rotate=40, mirror=(0,))
    batch = one.batch(0, 60, (24,) * dims)
    wrong = ((batch.images[:, 0] > 0.5) != batch.labels.bool()).float().flatten(1).mean(1)
    assert wrong.mean() < 0.03
    assert wrong.max() < 0.12


def test_turning_keeps_millimetres_where_samples_are_not_cubes(sampler):
    """Slices of 4 mm: distances in a turned window are, in millimetres, those of the window."""
    spacing = np.array([4.0, 1.0, 1.0])
    one = sampler([ramps((30, 60, 60))], spacing=tuple(spacing), rotate=30)
    rng = np.random.default_rng(3)
    turned = next(m for m in (one._matrix(rng) for _ in range(50)) if not np.array_equal(m, np.eye(3)))
    offsets = np.random.default_rng(0).normal(size=(5, 3))
    moved = (offsets @ turned.T) * spacing
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.linalg.norm(offsets * spacing, axis=1))


@pytest.mark.parametrize(("scale", "apart"), [(2.0, 0.5), (0.5, 2.0)])
def test_magnification(sampler, scale, apart):
    window = sampler([ramps((64, 64))], scale=(scale, scale)).batch(0, 1, (16, 16)).images[0]
    steps = np.diff(window[0, 4:12, 4:12].numpy(), axis=0)
    np.testing.assert_allclose(steps, apart, atol=0.05)


def test_a_window_in_its_own_range_looks_like_an_image_of_its_own(rng):
    window = rng.uniform(0.4, 0.5, (3, 16, 16)).astype(np.float32)
    found = own_range(window, (0.0, 100.0))
    np.testing.assert_allclose([found.min(), found.max()], [0, 1], atol=1e-6)
    np.testing.assert_array_equal(np.argsort(found, axis=None), np.argsort(window, axis=None))
    flat = np.full((1, 4, 4), 0.7, np.float32)
    assert own_range(flat, (0.5, 99.8)) is flat


def test_beyond_the_edge_the_image_goes_on_as_its_mirror_image():
    sample = ramps((10, 12))
    image, labels = resampled(sample, np.array([5.0, 6.0]), np.eye(2), (16, 16))
    inside = image[:, 3:13, 2:14]
    np.testing.assert_allclose(inside, sample.image.astype(np.float32), atol=1e-3)
    np.testing.assert_allclose(image[0, :3, 5], [2.5, 1.5, 0.5], atol=1e-3)
    assert (labels[:3, 2:14] == sample.labels[:3][::-1]).all()


def test_overlapping_classes_keep_a_channel_each(sampler):
    labels = np.zeros((2, 20, 20), np.uint8)
    labels[0, 4:16, 4:16] = 1
    labels[1, 8:12, 8:12] = 1
    sample = Sample(np.zeros((1, 20, 20), np.float16), labels)
    assert sample.overlapping
    batch = sampler([sample], rotate=90, scale=(0.8, 1.2)).batch(0, 8, (16, 16))
    assert batch.labels.shape == (8, 2, 16, 16)
    assert (batch.labels[:, 0] >= batch.labels[:, 1]).all()
    assert batch.labels[:, 1].any()


class TestVariation:
    def test_pictures_vary_in_light_and_colour(self, make_samples):
        """The same window never looks the same twice, is sometimes inverted, and stays mostly recognisable."""
        image = make_samples(1)[0].image.astype(np.float32)
        vary = variation("microscopy")
        varied = np.stack([vary(image, np.random.default_rng(seed)) for seed in range(300)])
        correlation = np.array([np.corrcoef(v.ravel(), image.ravel())[0, 1] for v in varied])
        assert 0.005 < (correlation < -0.3).mean() < 0.08
        assert (correlation > 0.5).mean() > 0.9
        assert varied.mean((1, 2, 3)).std() > 0.03
        assert np.ptp(varied, axis=1).max() > 0.02

    @pytest.mark.parametrize(
        ("preset", "shape"), [("ct", (1, 12, 12, 12)), ("mr", (4, 12, 12, 12)), ("fundus", (3, 24, 24))]
    )
    def test_presets_change_values_and_nothing_else(self, preset, shape):
        image = np.random.default_rng(0).random(shape, dtype=np.float32)
        before = image.copy()
        vary = variation(preset)
        varied = [vary(image, np.random.default_rng(seed)) for seed in range(40)]
        assert all(v.shape == shape and v.dtype == np.float32 and np.isfinite(v).all() for v in varied)
        assert sum(not np.array_equal(v, image) for v in varied) > 20
        assert np.array_equal(image, before)
        assert np.array_equal(vary(image, np.random.default_rng(5)), varied[5])

    def test_none_changes_nothing_and_an_unknown_one_is_refused(self):
        image = np.ones((1, 4, 4), np.float32)
        assert variation("none")(image, np.random.default_rng(0)) is image
        with pytest.raises(ValueError, match="none, microscopy, fundus, ct and mr"):
            variation("x-ray")
