"""Doubtful regions: all of them, ranked, in their place, however the image is cut."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_medt.core import Geometry
from napari_medt.engine import regions
from napari_medt.engine.regions import doubtful_regions

MM = Geometry.from_spacing((2, 1, 0.5), origin=(100, -20, 3), units="mm", frame="patient")


def picture():
    doubt = np.full((20, 30, 40), 0.05, np.float16)
    doubt[2:5, 3:6, 4:7] = 0.9  # 27 samples
    doubt[10:14, 10:20, 10:15] = 0.6  # 200 samples
    doubt[17, 28, 38] = 1
    return doubt


def test_regions_are_ranked_by_uncertainty_times_volume():
    found = doubtful_regions(picture(), MM)
    assert [region.rank for region in found] == [1, 2, 3]
    assert [region.voxels for region in found] == [200, 27, 1]
    assert [region.centre for region in found] == [(12, 14, 12), (3, 4, 5), (17, 28, 38)]
    np.testing.assert_allclose(found[1].centre_mm, (106, -16, 5.5))
    np.testing.assert_allclose([region.volume_ml for region in found], [0.2, 0.027, 0.001])
    np.testing.assert_allclose([region.mean for region in found], [0.6, 0.9, 1], atol=1e-3)
    np.testing.assert_allclose(found[0].score, 120, atol=0.1)
    assert found[0].label is None


def test_only_so_many_are_listed():
    assert [region.voxels for region in doubtful_regions(picture(), MM, at_most=2)] == [200, 27]


def test_regions_have_the_label_most_of_them_has():
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[2:5, 3:5] = 3
    labels[10:14, 10:13] = 7
    labels[10:14, 13:20] = 2
    assert [region.label for region in doubtful_regions(picture(), MM, labels=labels)] == [2, 3, 0]


def test_a_shell_is_shown_where_it_is_and_not_in_its_middle():
    doubt = np.zeros((30, 30), np.float32)
    distance = np.hypot(*np.mgrid[-15:15, -15:15])
    doubt[(distance > 10) & (distance < 12)] = 0.7
    doubt[15, 26] = 0.95
    (found,) = doubtful_regions(doubt, Geometry.from_spacing((1, 1)))
    assert found.centre == (15, 26)
    assert found.centre_mm is None
    assert found.volume_ml is None


def test_micrometres_are_told_in_mm():
    doubt = np.zeros((5, 6), np.float32)
    doubt[2, 3] = 1
    (found,) = doubtful_regions(doubt, Geometry.from_spacing((10, 100), units="um"))
    np.testing.assert_allclose(found.centre_mm, (0.02, 0.3))
    assert found.volume_ml is None


@pytest.mark.parametrize("value", [0, 0.01, np.nan])
def test_where_all_is_sure_there_is_nothing_to_go_through(value):
    assert doubtful_regions(np.full((5, 6, 7), value, np.float16), MM) == []


def test_small_uncertainty_of_many_classes_counts_by_its_own_largest():
    doubt = picture() / 5
    assert [region.voxels for region in doubtful_regions(doubt, MM)] == [200, 27, 1]


def test_not_a_number_is_no_doubt():
    doubt = picture()
    doubt[0, 0] = np.nan
    assert [region.voxels for region in doubtful_regions(doubt, MM)] == [200, 27, 1]


@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.6), slab=st.integers(1, 300), dims=st.sampled_from([2, 3]))
def test_slabs_give_what_the_whole_gives(seed, share, slab, dims):
    """Against one labelling of the whole image, for regions that wind through many slabs."""
    rng = np.random.default_rng(seed)
    shape = (11, 9, 7)[:dims]
    doubt = np.where(rng.random(shape) < share, rng.uniform(0.6, 1, shape), rng.uniform(0, 0.2, shape))
    doubt.flat[0] = 1
    numbers, count = ndimage.label(doubt > 0.5, np.ones((3,) * dims))
    expected = sorted((float(doubt[numbers == n].sum()) for n in range(1, count + 1)), reverse=True)
    before, regions.SLAB = regions.SLAB, slab
    try:
        found = doubtful_regions(doubt, Geometry.from_spacing((1,) * dims), at_most=1000)
    finally:
        regions.SLAB = before
    np.testing.assert_allclose([region.score for region in found], expected, rtol=1e-5)
    assert sum(region.voxels for region in found) == int((doubt > 0.5).sum())
    for region in found:
        assert doubt[region.centre] > 0.5


def test_memory_does_not_grow_with_the_image(monkeypatch):
    class Made:
        """Uncertainty that is made row by row, as from a disk."""

        ndim = 3

        def __init__(self, rows):
            self.shape = (rows, 128, 128)

        def __getitem__(self, where):
            if isinstance(where, tuple):
                return np.float16(1)
            part = np.zeros((len(range(self.shape[0])[where]), 128, 128), np.float16)
            part[:, 60:64, 60:64] = 1
            return part

    monkeypatch.setattr(regions, "SLAB", 8 * 128 * 128)
    peaks = []
    for rows in (64, 512):
        tracemalloc.start()
        (found,) = doubtful_regions(Made(rows), MM)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.voxels == rows * 16
    assert peaks[1] < 2 * peaks[0]
