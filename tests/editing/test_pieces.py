"""Islands, holes, labels as a whole, and other masks."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_fill_holes, gaussian_filter, label
from skimage.morphology import remove_small_objects

from napari_medt.core import BadEdit, Geometry, NothingToChange
from napari_medt.editing import (
    change_island,
    combine,
    fill_holes,
    keep_island,
    keep_largest,
    merge,
    relabel,
    remove_islands,
)
from tests.editing.tools import after, done

structures = arrays(np.uint8, st.one_of(st.just((9, 11)), st.just((5, 7, 8))), elements=st.sampled_from([0, 0, 1, 2]))
many = settings(max_examples=60)


def pieces(mask):
    return label(mask, np.ones((3,) * mask.ndim))


@many
@given(structures)
def test_largest(labels):
    labels.flat[0] = 1
    once = done(keep_largest, labels, 1)
    sizes = np.bincount(pieces(labels == 1)[0].ravel())[1:]
    assert pieces(once == 1)[1] == 1
    assert (once == 1).sum() == sizes.max()
    np.testing.assert_array_equal(once[labels != 1], labels[labels != 1])
    with pytest.raises(NothingToChange, match="in one piece"):
        keep_largest(once, 1)


@many
@given(structures, st.integers(1, 12))
def test_small_islands(labels, voxels):
    labels.flat[0] = 1
    spacing = (3, 0.7, 0.1)[-labels.ndim :]
    size = voxels * np.prod(spacing) / (1000 if labels.ndim == 3 else 1)
    kept = remove_small_objects(labels == 1, max_size=voxels - 1, connectivity=labels.ndim)
    if not kept.any():
        with pytest.raises(BadEdit, match="would leave nothing of label 1"):
            remove_islands(labels, 1, smaller_than=size, spacing=spacing)
        return
    once = done(remove_islands, labels, 1, smaller_than=size, spacing=spacing)
    np.testing.assert_array_equal(once == 1, kept)
    np.testing.assert_array_equal(done(remove_islands, once, 1, smaller_than=size, spacing=spacing), once)


@many
@given(structures)
def test_the_clicked_island(labels):
    labels.flat[0] = 1
    point = (0,) * labels.ndim
    numbered, _ = pieces(labels == 1)
    there = numbered == numbered[point]
    np.testing.assert_array_equal(done(change_island, labels, point), np.where(there, 0, labels))
    np.testing.assert_array_equal(done(change_island, labels, point, to=2), np.where(there, 2, labels))
    np.testing.assert_array_equal(done(keep_island, labels, point) == 1, there)


def test_senseless_clicks():
    labels = np.array([[0, 1]], np.uint8)
    with pytest.raises(BadEdit, match="no structure at this point; click on one"):
        change_island(labels, (0, 0))
    for point in ((0, 2), (-1, 0), (0,)):
        with pytest.raises(BadEdit, match="outside the mask"):
            keep_island(labels, point)
    with pytest.raises(NothingToChange, match="of label 1 already"):
        change_island(labels, (0, 1), to=1)


def test_sizes_need_a_unit():
    with pytest.raises(BadEdit, match="does not say how large its pixels are"):
        remove_islands(np.ones((3, 3), np.uint8), 1, smaller_than=1, spacing=Geometry.from_spacing((1, 1)))


@many
@given(structures)
def test_holes(labels):
    labels.flat[0] = 1
    once = done(fill_holes, labels, 1)
    np.testing.assert_array_equal(once == 1, (labels == 1) | (binary_fill_holes(labels == 1) & (labels == 0)))
    with pytest.raises(NothingToChange, match="no holes"):
        fill_holes(once, 1)
    theirs = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray((labels == 1).astype(np.uint8))))
    np.testing.assert_array_equal(once == 1, (labels == 1) | ((theirs == 1) & (labels == 0)))


@many
@given(arrays(np.uint8, (5, 6, 7), elements=st.sampled_from([0, 1, 1, 2])), st.integers(0, 2))
def test_holes_of_slices(labels, axis):
    labels.flat[0] = 1
    filled = [binary_fill_holes(plane == 1) & (plane == 0) for plane in np.moveaxis(labels, axis, 0)]
    expected = np.where(np.stack(filled, axis), 1, labels)
    np.testing.assert_array_equal(done(fill_holes, labels, 1, axis=axis), expected)


def test_slices_of_a_picture():
    labels = np.ones((3, 3), np.uint8)
    with pytest.raises(BadEdit, match="A single picture has no slices; use this tool on a volume"):
        fill_holes(labels, 1, axis=0)
    with pytest.raises(BadEdit, match="no axis 3"):
        fill_holes(labels[None], 1, axis=3)


def test_labels_as_a_whole():
    labels = np.array([[0, 1, 2, 3]], np.uint8)
    assert after(relabel(labels, 1, to=9), labels).tolist() == [[0, 9, 2, 3]]
    with pytest.raises(BadEdit, match="Label 2 is in use in this mask; choose another one, or merge the two"):
        relabel(labels, 1, to=2)
    with pytest.raises(BadEdit, match="300 is no label of a structure: in this mask they are numbers from 1 to 255"):
        relabel(labels, 1, to=300)
    with pytest.raises(BadEdit, match="There is no label 7 in this mask"):
        relabel(labels, 7, to=8)
    assert after(merge(labels, [1, 3], to=3), labels).tolist() == [[0, 3, 2, 3]]
    with pytest.raises(BadEdit, match="There is no label 7 or 8"):
        merge(labels, [7, 8], to=3)
    with pytest.raises(BadEdit, match="No structure is chosen"):
        merge(labels, [], to=3)
    with pytest.raises(NothingToChange):
        merge(labels, [3], to=3)


@many
@given(structures, st.data())
def test_other_masks(labels, data):
    labels.flat[0] = 1
    mask = data.draw(arrays(np.int16, labels.shape, elements=st.sampled_from([0, -1, 5])))
    mask.flat[0], mask.flat[1] = 1, 0
    labels.flat[1] = 1
    ours, other = labels == 1, mask != 0
    for how, expected in (("add", ours | other), ("subtract", ours & ~other), ("intersect", ours & other)):
        changed = done(combine, labels, 1, mask, how=how)
        np.testing.assert_array_equal(changed == 1, expected)
        np.testing.assert_array_equal(changed[changed != labels] == 1, how == "add")


def test_senseless_masks():
    labels = np.ones((2, 2), np.uint8)
    with pytest.raises(BadEdit, match="does not lie on a mask"):
        combine(labels, 1, labels[:1], how="add")
    with pytest.raises(BadEdit, match="nothing in the mask to add"):
        combine(labels, 1, labels * 0, how="add")
    with pytest.raises(BadEdit, match="leave nothing of label 1"):
        combine(labels, 1, labels, how="subtract")


@pytest.mark.parametrize("shape", [(25, 37), (1, 1, 11), (7, 1, 1), (1, 12, 13), (9, 11, 12)])
def test_pieces_of_smooth_masks(shape, rng):
    """Shapes and masks of the kind that libraries number with gaps or fail on."""
    for _ in range(60):
        labels = (gaussian_filter(rng.standard_normal(shape), rng.random() * 1.5) > 0).astype(np.uint8)
        labels.flat[0] = 1
        numbered, _ = pieces(labels)
        sizes = np.bincount(numbered.ravel())
        expected = (sizes[1:].max(), sizes[1:][sizes[1:] >= 3].sum())
        spacing = (1,) * len(shape)
        limit = 3 / (1000 if len(shape) == 3 else 1)
        assert (done(keep_largest, labels, 1) == 1).sum() == expected[0]
        if expected[1]:
            assert (done(remove_islands, labels, 1, smaller_than=limit, spacing=spacing) == 1).sum() == expected[1]
        np.testing.assert_array_equal(done(fill_holes, labels, 1) == 1, binary_fill_holes(labels))
