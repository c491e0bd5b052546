"""Filling between slices: bodies whose shape is known, structures side by side, any axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_medt.core import BadEdit, NothingToChange
from napari_medt.editing import copy_slice, fill_between
from tests.editing.tools import after, done

axes = pytest.mark.parametrize("axis", [0, 1, 2])


def discs(centres_mm, radii_mm, spacing, size=70):
    """One disc on each slice, `spacing` of the plane."""
    y, x = np.ogrid[:size, :size]
    return np.stack(
        [
            (y * spacing[0] - cy) ** 2 + (x * spacing[1] - cx) ** 2 <= radius**2
            for (cy, cx), radius in zip(centres_mm, radii_mm, strict=True)
        ]
    )


def drawn_on(body, slices, axis, value=1):
    """Leave only some slices of a body, which are then made to lie along an axis."""
    labels = np.zeros(body.shape, np.uint8)
    labels[slices] = body[slices] * value
    return np.moveaxis(labels, 0, axis)


@axes
@pytest.mark.parametrize("in_plane", [(1.0, 1.0), (1.4, 0.6)])
def test_a_cone(axis, in_plane):
    radii = np.linspace(4, 16, 9)
    body = discs([(30, 20)] * 9, radii, in_plane)
    labels = drawn_on(body, [0, 8], axis)
    spacing = list(in_plane)
    spacing.insert(axis, 5)
    filled = np.moveaxis(after(fill_between(labels, [1], axis=axis, spacing=spacing), labels), axis, 0)
    found = np.sqrt(filled.sum(axis=(1, 2)) * np.prod(in_plane) / np.pi)
    np.testing.assert_allclose(found, radii, atol=max(in_plane) / 2)
    np.testing.assert_array_equal(filled[[0, 8]], body[[0, 8]])


@axes
def test_an_oblique_vessel(axis):
    """The discs of both ends have no point in common."""
    centres = [(10 + 5 * z, 60 - 4 * z) for z in range(9)]
    body = discs(centres, [5] * 9, (1, 1))
    labels = drawn_on(body, [0, 8], axis)
    filled = np.moveaxis(after(fill_between(labels, [1], axis=axis, spacing=(1, 1, 1)), labels), axis, 0)
    for plane, centre in zip(filled, centres, strict=True):
        np.testing.assert_allclose(np.argwhere(plane).mean(0), centre, atol=0.5)
        assert abs(np.sqrt(plane.sum() / np.pi) - 5) < 0.5


@axes
def test_neighbours_keep_touching(axis):
    """Two halves of a box, whose border moves: no gap, no overlap, the border within two voxels of a straight way."""
    body = np.zeros((9, 20, 40), np.uint8)
    body[:, 3:17, 3:37] = 2
    for z, middle in enumerate(np.linspace(11, 29, 9)):
        body[z, 3:17, 3 : round(middle)] = 1
    labels = np.moveaxis(np.where(np.isin(np.arange(9), [0, 8])[:, None, None], body, 0), 0, axis)
    filled = np.moveaxis(after(fill_between(labels, [1, 2], axis=axis, spacing=(2, 2, 2)), labels), axis, 0)
    np.testing.assert_array_equal(filled > 0, body > 0)
    assert abs((filled == 1).sum(axis=(1, 2)).astype(int) - (body == 1).sum(axis=(1, 2))).max() <= 2 * 14


@settings(max_examples=60)
@given(
    arrays(np.uint8, (6, 5, 7), elements=st.sampled_from([0, 0, 1, 2, 3])),
    st.sets(st.integers(0, 5), max_size=4),
    st.integers(0, 2),
)
def test_what_was_drawn_stays(drawn, empty, axis):
    drawn[list(empty)] = 0
    drawn[0, 0, 0] = 1
    labels = np.ascontiguousarray(np.moveaxis(drawn, 0, axis))
    filled = np.moveaxis(done(fill_between, labels, [1, 2], axis=axis, spacing=(2, 1, 0.5)), axis, 0)
    for value in (1, 2):
        assert (filled[drawn == value] == value).all()
        there = np.flatnonzero((drawn == value).any(axis=(1, 2)))
        now = np.flatnonzero((filled == value).any(axis=(1, 2)))
        if len(there):
            assert now.min() == there.min()
            assert now.max() == there.max()
            np.testing.assert_array_equal(filled[there] == value, (drawn == value)[there])
    again = np.moveaxis(done(fill_between, np.moveaxis(filled, 0, axis), [1], axis=axis, spacing=(2, 1, 0.5)), axis, 0)
    assert (again[filled == 1] == 1).all()


def test_structures_with_gaps_of_their_own():
    labels = np.zeros((7, 9, 9), np.uint8)
    labels[[0, 6], 1:4, 1:4] = 1
    labels[[2, 4], 5:8, 5:8] = 2
    filled = after(fill_between(labels, [1, 2], axis=0, spacing=(1, 1, 1)), labels)
    assert (filled[:, 1:4, 1:4] == 1).all()
    assert np.flatnonzero((filled == 2).any(axis=(1, 2))).tolist() == [2, 3, 4]


def test_nothing_between():
    labels = np.zeros((5, 4, 4), np.uint8)
    labels[1:3, 1, 1] = 1
    with pytest.raises(NothingToChange, match="no empty slice between two drawn ones"):
        fill_between(labels, [1], axis=0, spacing=(1, 1, 1))
    with pytest.raises(BadEdit, match="no label 2"):
        fill_between(labels, [2], axis=0, spacing=(1, 1, 1))
    with pytest.raises(BadEdit, match="A single picture has no slices"):
        fill_between(labels[1], [1], axis=0, spacing=(1, 1))


@axes
def test_a_copied_slice(axis):
    drawn = np.zeros((3, 3, 3), np.uint8)
    drawn[0] = [[1, 2, 3], [0, 0, 0], [0, 0, 1]]
    drawn[1] = [[0, 0, 0], [1, 1, 3], [0, 0, 0]]
    labels = np.ascontiguousarray(np.moveaxis(drawn, 0, axis))
    copied = np.moveaxis(after(copy_slice(labels, [1, 2], axis=axis, index=0, to=1), labels), axis, 0)
    assert copied[1].tolist() == [[1, 2, 0], [0, 0, 3], [0, 0, 1]]
    np.testing.assert_array_equal(copied[[0, 2]], drawn[[0, 2]])


def test_senseless_copies():
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[0, 0, 0] = 1
    with pytest.raises(BadEdit, match="There is no slice 3: along this axis they are 0 to 2"):
        copy_slice(labels, [1], axis=0, index=0, to=3)
    with pytest.raises(BadEdit, match="There is nothing to copy on slice 1"):
        copy_slice(labels, [1], axis=0, index=1, to=2)
