"""Margins against balls whose size is known, and what must hold of any structure."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from napari_medt.core import BadEdit, Geometry, NothingToChange
from napari_medt.editing import grow, hollow, shrink
from tests.editing.tools import after, ball, done

GRIDS = [((60, 60), (1.0, 1.0)), ((40, 80), (1.5, 0.7)), ((40, 40, 40), (1.0, 1.0, 1.0)), ((20, 40, 56), (2.5, 1, 0.8))]


def radius_mm(mask, spacing):
    """Of the ball, or disc, of the same size."""
    size = mask.sum() * np.prod(spacing)
    return np.sqrt(size / np.pi) if mask.ndim == 2 else np.cbrt(size * 3 / 4 / np.pi)


def within_a_voxel(mask, middle, radius, spacing):
    """Say whether the surface is nowhere farther from where it should be than the longest side of a voxel."""
    slack = max(spacing)
    inner, outer = (ball(mask.shape, middle, radius + more, spacing) for more in (-slack, slack))
    return not (inner & ~mask).any() and not (mask & ~outer).any()


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_balls_have_the_radius_they_should(shape, spacing):
    middle = [size * step / 2 for size, step in zip(shape, spacing, strict=True)]
    labels = ball(shape, middle, 10, spacing).astype(np.uint8)
    half = max(spacing) / 2
    cases = {
        14: after(grow(labels, 1, margin_mm=4, spacing=spacing), labels) == 1,
        6: after(shrink(labels, 1, margin_mm=4, spacing=spacing), labels) == 1,
    }
    for side, radii in (("inside", (10, 6)), ("outside", (14, 10)), ("middle", (12, 8))):
        shell = after(hollow(labels, 1, thickness_mm=4, shell=side, spacing=spacing), labels) == 1
        assert not shell[tuple(size // 2 for size in shape)]
        outer = shell | ball(shape, middle, np.mean(radii), spacing)
        cases |= {f"{side} outer": outer, f"{side} inner": outer & ~shell}
    wanted = dict(zip(cases, (14, 6, 10, 6, 14, 10, 12, 8), strict=True))
    for name, mask in cases.items():
        assert abs(radius_mm(mask, spacing) - wanted[name]) < half, name
        assert within_a_voxel(mask, middle, wanted[name], spacing), name


structures = arrays(np.uint8, st.one_of(st.just((9, 11)), st.just((5, 7, 8))), elements=st.sampled_from([0, 0, 1, 2]))
steps = st.tuples(*[st.floats(0.4, 3)] * 3)


@settings(max_examples=60)
@given(structures, steps, st.floats(0.3, 5))
def test_against_another_distance_transform(labels, spacing, margin):
    spacing = spacing[-labels.ndim :]
    labels.flat[0], labels.flat[-1] = 1, 0
    mask = labels == 1
    outwards, inwards = (distance_transform_edt(side, sampling=spacing) for side in (~mask, mask))
    if np.isclose(np.concatenate((outwards.ravel(), inwards.ravel())), margin, rtol=1e-4).any():
        return
    np.testing.assert_array_equal(done(grow, labels, 1, margin_mm=margin, spacing=spacing) == 1, outwards <= margin)
    if (inwards > margin).any():
        np.testing.assert_array_equal(done(shrink, labels, 1, margin_mm=margin, spacing=spacing) == 1, inwards > margin)
    else:
        with pytest.raises(BadEdit, match="would leave nothing of label 1; choose a smaller value"):
            shrink(labels, 1, margin_mm=margin, spacing=spacing)


@settings(max_examples=60)
@given(structures, steps, st.floats(0.3, 5))
def test_growing_then_shrinking_loses_nothing(labels, spacing, margin):
    labels.flat[0] = 1
    spacing = spacing[-labels.ndim :]
    grown = done(grow, labels, 1, margin_mm=margin, spacing=spacing)
    back = done(shrink, grown, 1, margin_mm=margin, spacing=spacing)
    assert (back[labels == 1] == 1).all()
    assert (grown[back == 1] == 1).all()


@settings(max_examples=30)
@given(structures, steps, st.floats(0.3, 3))
def test_a_shell_is_what_shrinking_takes(labels, spacing, margin):
    labels.flat[0], labels.flat[-1] = 1, 0
    spacing = spacing[-labels.ndim :]
    try:
        core = after(shrink(labels, 1, margin_mm=margin, spacing=spacing), labels) == 1
        shell = after(hollow(labels, 1, thickness_mm=margin, spacing=spacing), labels) == 1
    except BadEdit:
        return
    np.testing.assert_array_equal(core ^ shell, labels == 1)
    assert not (core & shell).any()


def test_as_simpleitk_grows_in_voxels(rng):
    labels = (rng.random((12, 20, 20)) > 0.97).astype(np.uint8)
    grown = after(grow(labels, 1, margin_mm=2, spacing=(1, 1, 1)), labels)
    theirs = sitk.BinaryDilate(sitk.GetImageFromArray(labels), [2, 2, 2], sitk.sitkCross)  # a part of the ball
    assert (grown[sitk.GetArrayFromImage(theirs) == 1] == 1).all()
    distance = sitk.SignedMaurerDistanceMap(
        sitk.GetImageFromArray(labels), insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    np.testing.assert_array_equal(grown == 1, sitk.GetArrayFromImage(distance) <= 2)


def test_micrometres_count_and_pixels_do_not():
    labels = np.zeros((1, 9), np.uint8)
    labels[0, 4] = 1
    geometry = Geometry.from_spacing((1, 500), units="um")
    assert grow(labels, 1, margin_mm=1, spacing=geometry).voxels == 4
    with pytest.raises(BadEdit, match="does not say how large its pixels are.*give the size of a pixel"):
        grow(labels, 1, margin_mm=1, spacing=Geometry.from_spacing((1, 1)))


@pytest.mark.parametrize("tool", [grow, shrink])
def test_senseless_lengths(tool):
    labels = np.pad(np.ones((3, 3), np.uint8), 2)
    with pytest.raises(NothingToChange, match="too little to"):
        tool(labels, 1, margin_mm=0.5, spacing=(1, 1))
    for margin in (0, -1, np.nan, np.inf):
        with pytest.raises(BadEdit, match="margin must be above 0"):
            tool(labels, 1, margin_mm=margin, spacing=(1, 1))
    for spacing in ((1,), (1, 0), (1, np.inf), (1, 1, 1)):
        with pytest.raises(BadEdit, match="does not fit a mask of 2 axes"):
            tool(labels, 1, margin_mm=1, spacing=spacing)


@pytest.mark.parametrize(
    ("labels", "value", "words"),
    [
        (np.ones((3, 3), np.uint8), 2, "There is no label 2 in this mask"),
        (np.ones((3, 3), np.uint8), 0, "0 is no label of a structure.*from 1 to 255"),
        (np.ones((3, 3), np.uint8), 256, "256 is no label"),
        (np.ones((3, 3)), 1, "whole numbers, not 2 axes of type float64"),
        (np.ones(3, np.uint8), 1, "two or three axes"),
    ],
)
def test_senseless_structures(labels, value, words):
    with pytest.raises(BadEdit, match=words):
        grow(labels, value, margin_mm=1, spacing=(1,) * labels.ndim)


def test_a_structure_cut_by_the_edge_does_not_shrink_there():
    labels = np.array([[1, 1, 1, 1, 0]], np.uint8)
    assert after(shrink(labels, 1, margin_mm=1, spacing=(1, 1)), labels).tolist() == [[1, 1, 1, 0, 0]]
