"""Smoothing, splitting, painting, and structures by their intensities."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter

from napari_medt.core import BadEdit, NothingToChange
from napari_medt.editing import (
    brush,
    median,
    smooth,
    smooth_together,
    split_along_line,
    split_by_seeds,
    threshold,
    trace_level,
)
from tests.editing.tools import SPACING, after, ball, done

structures = arrays(np.uint8, st.one_of(st.just((9, 11)), st.just((5, 7, 8))), elements=st.sampled_from([0, 0, 1, 2]))

# ------------------------------------------------------------------------------------------------------------ smoothing


@settings(max_examples=30)
@given(structures, st.floats(0.4, 2))
def test_smoothing_is_a_gaussian_of_the_mask(labels, sigma):
    labels[...] = np.kron(labels, np.ones((2,) * labels.ndim, np.uint8))[tuple(slice(size) for size in labels.shape)]
    labels.flat[0] = 1
    spacing = SPACING[labels.ndim]
    expected = gaussian_filter((labels == 1).astype(float), [sigma / step for step in spacing], mode="nearest")
    if (abs(expected - 0.5) < 1e-5).any():
        return
    if not (expected > 0.5).any():
        with pytest.raises(BadEdit, match="would leave nothing"):
            smooth(labels, 1, sigma_mm=sigma, spacing=spacing)
        return
    np.testing.assert_array_equal(done(smooth, labels, 1, sigma_mm=sigma, spacing=spacing) == 1, expected > 0.5)


def test_smoothing_together_leaves_no_gap(rng):
    """Three structures that fill a box with ragged borders: none of the box becomes background, and borders get shorter."""
    y, x = np.mgrid[:60, :60]
    labels = np.where(y + rng.integers(-4, 5, y.shape) < 30, 1, np.where(x < 30, 2, 3)).astype(np.uint8)
    smoothed = after(smooth_together(labels, [1, 2, 3], sigma_mm=3, spacing=(1, 1)), labels)
    assert smoothed.min() == 1
    assert (np.diff(smoothed.astype(int), axis=0) != 0).sum() < (np.diff(labels.astype(int), axis=0) != 0).sum() / 3
    alone = labels
    for value in (1, 2, 3):
        alone = done(smooth, alone, value, sigma_mm=3, spacing=(1, 1))
    assert (alone == 0).any()  # which is what doing it one by one does


def test_a_plane_and_other_structures_stay():
    labels = np.zeros((10, 30, 30), np.uint8)
    labels[:, :15] = 1
    labels[:, 20:] = 2
    with pytest.raises(NothingToChange):
        smooth_together(labels, [1, 2], sigma_mm=1, spacing=(1, 1, 1))


@settings(max_examples=30)
@given(arrays(np.uint8, (6, 9, 8), elements=st.sampled_from([0, 1, 1])))
def test_median_as_simpleitk(labels):
    theirs = sitk.GetArrayFromImage(sitk.BinaryMedian(sitk.GetImageFromArray(labels), [2, 1, 0]))
    if not theirs.any():
        return
    ours = done(median, labels, 1, width_mm=3, spacing=(5, 1, 0.6)) if labels.any() else labels
    np.testing.assert_array_equal(ours, theirs)


def test_median_in_a_single_voxel():
    with pytest.raises(NothingToChange, match="1 mm is a single voxel"):
        median(np.ones((3, 3), np.uint8), 1, width_mm=1, spacing=(1, 2))


# ------------------------------------------------------------------------------------------------------------ splitting


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.5, 0.7), (1.0, 1.0, 1.0), (2.0, 1.0, 0.7)])
def test_touching_balls_part_at_their_neck(spacing):
    shape = [int(30 / step) for step in spacing[:-1]] + [int(50 / spacing[-1])]
    middle = [15.0] * (len(shape) - 1)
    labels = (ball(shape, (*middle, 16), 10, spacing) | ball(shape, (*middle, 33), 10, spacing)).astype(np.uint8)
    seeds = [[round(place / step) for place, step in zip((*middle, x), spacing, strict=True)] for x in (16, 33)]
    split = after(split_by_seeds(labels, 1, seeds, to=[1, 2], spacing=spacing), labels)
    place = np.broadcast_to(np.arange(shape[-1]) * spacing[-1], shape)
    wrong = ((split == 1) & (place > 24.5 + spacing[-1])) | ((split == 2) & (place < 24.5 - spacing[-1]))
    assert not wrong.any()
    np.testing.assert_array_equal(split > 0, labels > 0)


@pytest.mark.parametrize(
    "clicked", [[(15, 16), (15, 33)], [(15, 8), (15, 33)], [(7, 16), (15, 34)], [(15, 16), (23, 35)]]
)
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 1.0)])
def test_where_in_a_part_a_point_lies_does_not_matter(clicked, spacing):
    shape = (int(30 / spacing[0]), 50)
    labels = (ball(shape, (15, 16), 10, spacing) | ball(shape, (15, 33), 10, spacing)).astype(np.uint8)
    seeds = [(round(row / spacing[0]), column) for row, column in clicked]
    split = after(split_by_seeds(labels, 1, seeds, to=[1, 2], spacing=spacing), labels)
    halves = [np.count_nonzero(split == label) for label in (1, 2)]
    assert min(halves) > 0.95 * max(halves)


def test_two_points_without_a_neck_between_them_still_part():
    labels = ball((30, 30), (15, 15), 10, (1, 1)).astype(np.uint8)
    split = after(split_by_seeds(labels, 1, [(15, 8), (15, 22)], to=[1, 2], spacing=(1, 1)), labels)
    assert set(np.unique(split)) == {0, 1, 2}


def test_senseless_seeds():
    labels = np.array([[1, 1, 1, 0, 1]], np.uint8)
    options = {"spacing": (1, 1)}
    with pytest.raises(BadEdit, match=r"The point \(0, 3\) is not in label 1; click into the structure"):
        split_by_seeds(labels, 1, [(0, 0), (0, 3)], to=[1, 2], **options)
    for seeds, to in (([(0, 0)], [2]), ([(0, 0), (0, 1)], [2, 2]), ([(0, 0), (0, 1)], [2])):
        with pytest.raises(BadEdit, match="takes two points with labels of their own"):
            split_by_seeds(labels, 1, seeds, to=to, **options)
    split = after(split_by_seeds(labels, 1, [(0, 0), (0, 2)], to=[2, 3], **options), labels)
    assert split[0, 4] == 1  # an island without a seed


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_line_cuts_through_all_slices(axis):
    drawn = np.zeros((6, 20, 30), np.uint8)
    drawn[1:5, 4:16, 4:26] = 1
    drawn[1:5, 18:, 1:3] = 1  # an island the line does not reach
    labels = np.ascontiguousarray(np.moveaxis(drawn, 0, axis))
    edit = split_along_line(labels, 1, [(0, 18), (10, 20), (19, 16)], to=5, axis=axis, spacing=(1, 1, 1))
    split = np.moveaxis(after(edit, labels), axis, 0)
    np.testing.assert_array_equal(split > 0, drawn > 0)
    for z in range(1, 5):
        np.testing.assert_array_equal(split[z], split[1])
        assert (split[z, 4:16, :15][drawn[z, 4:16, :15] > 0] == 1).all()
        assert (split[z, 4:16, 22:][drawn[z, 4:16, 22:] > 0] == 5).all()
    assert (split[1:5, 18:, 1:3] == 1).all()


def test_a_line_in_a_picture_and_one_too_short():
    labels = np.ones((9, 15), np.uint8)
    split = after(split_along_line(labels, 1, [(0, 4), (8, 4)], to=2, spacing=(1, 1)), labels)
    assert (split[:, :3] == 2).all()
    assert (split[:, 6:] == 1).all()
    for short in ([(0, 4), (6, 4)], [(20, 20), (30, 30)]):
        with pytest.raises(NothingToChange, match="does not cut the structure through; draw it from one side"):
            split_along_line(labels, 1, short, to=2, spacing=(1, 1))
    for no_line in ([(0, 4)], [(0, 1, 2), (1, 2, 3)]):
        with pytest.raises(BadEdit, match="at least two points"):
            split_along_line(labels, 1, no_line, to=2, spacing=(1, 1))


# ------------------------------------------------------------------------------------------------------------- painting


@settings(max_examples=15)
@given(
    st.lists(st.tuples(*[st.floats(-3, 15)] * 3), min_size=1, max_size=3),
    st.floats(0.5, 6),
    st.tuples(*[st.floats(0.5, 3)] * 3),
)
def test_a_stroke_is_all_near_its_line(points, radius, spacing):
    labels = np.zeros((9, 11, 12), np.uint8)
    stroke = np.array(points) * spacing
    places = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij"), -1) * spacing
    nearest = np.full(labels.shape, np.inf)
    for first, last in zip(stroke, [*stroke[1:], stroke[-1]], strict=True):
        for share in np.linspace(0, 1, 100):
            nearest = np.minimum(nearest, np.linalg.norm(places - first - share * (last - first), axis=-1))
    try:
        painted = after(brush(labels, points, 1, radius_mm=radius, spacing=spacing), labels) == 1
    except BadEdit:
        painted = labels == 1
    clear = abs(nearest - radius) > 0.02 * radius + 0.05
    np.testing.assert_array_equal(painted[clear], nearest[clear] <= radius)


def test_a_ball_in_mm():
    labels = np.zeros((16, 40, 50), np.uint8)
    spacing = (2.5, 1, 0.8)
    painted = after(brush(labels, [(8, 20, 25)], 1, radius_mm=7, spacing=spacing), labels)
    np.testing.assert_array_equal(painted == 1, ball(labels.shape, (20, 20, 20), 7, spacing))


def test_discs_intensities_and_the_eraser():
    labels = np.zeros((5, 9, 9), np.uint8)
    image = np.broadcast_to(np.arange(9.0), labels.shape).copy()
    image[2, 4, 4] = np.nan
    options = {"radius_mm": 3, "spacing": (1, 1, 1)}
    disc = after(brush(labels, [(2, 4, 4)], 1, axis=0, **options), labels)
    assert np.unique(np.argwhere(disc)[:, 0]).tolist() == [2]
    some = after(brush(labels, [(2, 4, 4)], 1, axis=0, image=image, low=3, high=4, **options), labels)
    np.testing.assert_array_equal(some == 1, (disc == 1) & (image >= 3) & (image <= 4))
    assert some[2, 4, 4] == 0
    both = np.where(disc == 1, 1 + (image > 4), 0).astype(np.uint8)
    erased = brush(both, [(2, 4, 4)], 0, **options)
    assert (erased.name, erased.structures) == ("erase", (1, 2))
    assert after(erased, both).max() == 0
    with pytest.raises(NothingToChange, match="nothing to paint"):
        brush(disc, [(2, 4, 4)], 1, axis=0, **options)
    with pytest.raises(BadEdit, match="outside the image"):
        brush(labels, [(2, 40, 4)], 1, **options)
    with pytest.raises(BadEdit, match="points of 3 numbers"):
        brush(labels, [(2, 4)], 1, **options)
    with pytest.raises(BadEdit, match="No intensity lies between 5 and 4; give the lower one first"):
        brush(labels, [(2, 4, 4)], 1, image=image, low=5, high=4, **options)


# ---------------------------------------------------------------------------------------------------------- intensities


def test_thresholds():
    labels = np.array([[1, 1, 1, 2, 0]], np.uint8)
    image = np.array([[10.0, 50, np.nan, 90, 90]])
    assert after(threshold(labels, 3, image, within=1, low=50), labels).tolist() == [[1, 3, 1, 2, 0]]
    assert after(threshold(labels, 1, image, within=1, low=50), labels).tolist() == [[0, 1, 0, 2, 0]]
    box = (slice(None), slice(1, 4))
    edit = threshold(labels, 3, image, within=box, high=90)
    assert after(edit, labels).tolist() == [[1, 3, 1, 3, 0]]
    assert edit.structures == (3,)
    with pytest.raises(BadEdit, match="Nothing in this region has an intensity of 200 to 300; widen the range"):
        threshold(labels, 3, image, within=1, low=200, high=300)
    with pytest.raises(BadEdit, match="does not lie on a mask"):
        threshold(labels, 3, image[:, :2], within=1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_line_of_equal_grey(axis):
    plane = -np.hypot(*np.mgrid[-20:21, -20:21])
    drawn = np.stack([plane - 3, plane, plane + 3])
    image = np.ascontiguousarray(np.moveaxis(drawn, 0, axis))
    labels = np.zeros(image.shape, np.uint8)
    point = [20, 31]
    point.insert(axis, 1)
    traced = np.moveaxis(after(trace_level(labels, 1, image, point, axis=axis), labels), axis, 0)
    assert np.unique(np.argwhere(traced)[:, 0]).tolist() == [1]
    assert not (traced[1][plane < -11]).any()
    assert (traced[1][plane > -10.5] == 1).all()


def test_a_line_that_leaves_the_image():
    image = np.broadcast_to(np.arange(20.0), (20, 20))
    with pytest.raises(BadEdit, match="No closed line of equal grey goes through this point; click on the edge"):
        trace_level(np.zeros((20, 20), np.uint8), 1, image, (5, 5))
