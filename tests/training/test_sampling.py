"""Windows for training: repeatable, balanced, with something in them, image and mask moved alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from napari_medt.training.sampling import Sample, Sampler


def sampler(samples, seed=0, weights=None, scales=None):
    groups = dict.fromkeys((s.group for s in samples), 1.0)
    return Sampler(samples, weights=weights or groups, scales=scales or {}, seed=seed)


def test_the_same_seed_gives_the_same_batches(make_samples):
    samples = make_samples(3)
    one, two, other = sampler(samples), sampler(samples), sampler(samples, seed=1)
    for _ in range(3):
        (x, y), (u, v) = one.batch(4, 32), two.batch(4, 32)
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    assert not torch.equal(other.batch(4, 32)[0], sampler(samples).batch(4, 32)[0])


@pytest.mark.parametrize("window", [16, 32, 64])
@pytest.mark.parametrize("size", [(48, 48), (20, 70), (9, 9)])
def test_shape_type_and_range_also_of_images_smaller_than_the_window(make_samples, window, size):
    images, labels = sampler(make_samples(2, size=size)).batch(5, window)
    assert images.shape == (5, 3, window, window)
    assert labels.shape == (5, window, window)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert 0 <= images.min() <= images.max() <= 1
    assert set(labels.unique().tolist()) <= {0, 1}


def test_groups_are_drawn_by_weight_however_many_images_they_have(make_samples):
    samples = [*make_samples(20, group="common"), *make_samples(1, group="rare")]
    drawn = Counter()
    one = sampler(samples, weights={"common": 0.25, "rare": 0.75, "absent": 9.0})
    inner = one._crop
    one._crop = lambda sample, window: (drawn.update([sample.group]), inner(sample, window))[1]
    one.batch(400, 16)
    assert drawn["rare"] / 400 == pytest.approx(0.75, abs=0.08)


def test_small_fields_of_view_are_seen_beside_a_large_series(make_samples):
    series = [Sample(s.image, s.labels, s.group, "series") for s in make_samples(30)]
    one = sampler([*series, *make_samples(1, first=99)])
    drawn = Counter()
    inner = one._crop
    one._crop = lambda sample, window: (drawn.update([sample.field]), inner(sample, window))[1]
    one.batch(400, 16)
    assert drawn["99"] / 400 == pytest.approx(0.25, abs=0.08)  # half by field, and there are two fields


def test_most_windows_hold_some_foreground():
    """Of an object that covers a hundredth of the image, most windows still show a part."""
    labels = np.zeros((200, 200), np.uint8)
    labels[90:110, 90:110] = 1
    image = np.zeros((3, 200, 200), np.float16)
    one = sampler([Sample(image, labels, "a", "1")])
    labels = one.batch(200, 64)[1]
    assert labels.flatten(1).any(1).float().mean() > 0.6


def test_image_and_mask_are_moved_alike(make_samples):
    """Where the image is the mask itself, it stays so through magnification, turning and mirroring."""
    sample = make_samples(1)[0]
    same = Sample(np.repeat(sample.labels[None].astype(np.float16), 3, axis=0), sample.labels, "a", "1")
    one = sampler([same], scales={"a": (0.4, 3.0)})
    wrong = []
    for _ in range(60):
        image, labels = one._turn(*one._crop(same, 32))
        wrong.append(((image[0] > 0.5) != labels.bool()).float().mean().item())
    assert np.mean(wrong) < 0.02
    assert max(wrong) < 0.08


def test_magnification_follows_the_range_of_the_group(make_samples):
    """Discs of the same size come out larger where the range lies higher."""
    samples = make_samples(6, size=(128, 128))
    shares = []
    for scale in (1.0, 2.0):
        one = sampler(samples, scales={"bright": (scale, scale)})
        image, _ = one._crop(samples[0], 32)
        assert image.shape == (3, 32, 32)
        edges = [np.abs(np.diff(one._crop(s, 32)[1].numpy(), axis=1)).sum() for s in samples for _ in range(10)]
        shares.append(np.mean(edges))
    assert shares[1] < shares[0]


def test_pictures_vary_in_light_and_colour(make_samples):
    """The same window never looks the same twice, is sometimes inverted, and stays mostly recognisable."""
    one = sampler(make_samples(1))
    image = one._crop(one._images["bright"][0], 32)[0].numpy()
    varied = np.stack([one._vary(image.copy()) for _ in range(300)])
    correlation = np.array([np.corrcoef(v.ravel(), image.ravel())[0, 1] for v in varied])
    assert 0.01 < (correlation < -0.3).mean() < 0.12
    assert (correlation > 0.5).mean() > 0.85
    assert varied.mean((1, 2, 3)).std() > 0.05
    coloured = np.ptp(varied, axis=1).max((1, 2)) > 0.02
    assert not coloured.all()  # a grey image gets no stain
