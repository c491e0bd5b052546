"""Geometry: the same place in the words of napari, ITK and NIfTI, whatever the orientation."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_medt.core import AxisMap, BadImage, Geometry

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))
SIZES = st.floats(0.05, 12)
SHAPES = st.tuples(*[st.integers(1, 40)] * 3)


@st.composite
def geometries(draw: st.DrawFn, *, ndim: int = 3, oblique: bool | None = None) -> Geometry:
    """Any of the orientations, of unequal spacing, tilted by up to 40 degrees or not, far from the origin."""
    orders = list(product(permutations(range(ndim)), product((1, -1), repeat=ndim)))
    order, signs = draw(st.sampled_from(orders))
    turn = np.eye(ndim)[:, list(order)] * signs
    if draw(st.booleans()) if oblique is None else oblique:
        angles = draw(st.lists(st.floats(-40, 40), min_size=3, max_size=3))
        matrix = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
        turn = (matrix if ndim == 3 else Rotation.from_euler("z", angles[0], degrees=True).as_matrix()[:2, :2]) @ turn
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = turn * draw(st.tuples(*[SIZES] * ndim))
    affine[:-1, -1] = draw(st.tuples(*[st.floats(-500, 500)] * ndim))
    return Geometry(affine, "mm", "patient" if ndim == 3 else "image")


def corners(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*((0, size - 1) for size in shape), indexing="ij"), -1).reshape(-1, len(shape))


def furthest_mm(one: Geometry, other: Geometry, shape: tuple[int, ...]) -> float:
    return float(np.abs(one.position(corners(shape)) - other.position(corners(shape))).max())


@settings(max_examples=300, deadline=None)
@given(geometry=geometries(), shape=SHAPES)
def test_round_trips_keep_every_corner(geometry, shape):
    by_nifti = Geometry.from_nifti(geometry.to_nifti())
    by_itk = Geometry.from_itk(*geometry.to_itk())
    by_layer = Geometry.from_layer(geometry.to_layer(), ndim=3, frame="patient")
    for other in (by_nifti, by_itk, by_layer):
        assert furthest_mm(geometry, other, shape) < 1e-4
        assert (other.units, other.frame) == ("mm", "patient")


@settings(max_examples=100, deadline=None)
@given(geometry=geometries(ndim=2), size=st.tuples(*[st.integers(1, 40)] * 2))
def test_round_trips_of_pictures(geometry, size):
    for other in (Geometry.from_itk(*geometry.to_itk()), Geometry.from_layer(geometry.to_layer(), ndim=2)):
        assert furthest_mm(geometry, other, size) < 1e-4
        assert other.units == "mm"


@settings(max_examples=60, deadline=None)
@given(geometry=geometries(), place=st.tuples(*[st.floats(-5, 50)] * 3))
def test_napari_agrees(geometry, place):
    from napari.layers import Image

    layer = Image(np.zeros((2, 3, 4), np.uint8), **geometry.to_layer())
    np.testing.assert_allclose(layer.data_to_world(place), geometry.position(place), atol=1e-4)
    attributes = {name: getattr(layer, name) for name in ("scale", "translate", "rotate", "shear", "affine", "units")}
    again = Geometry.from_layer(attributes, ndim=3, frame="patient")
    assert furthest_mm(geometry, again, (9, 9, 9)) < 1e-4


@settings(max_examples=60, deadline=None)
@given(
    rotate=st.lists(st.floats(-180, 180), min_size=3, max_size=3),
    shear=st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3),
    scale=st.tuples(*[SIZES] * 3),
    outer=geometries(),
)
def test_a_layer_turned_and_sheared_by_hand_is_understood(rotate, shear, scale, outer):
    from napari.layers import Image

    matrix = Rotation.from_euler("zyx", rotate, degrees=True).as_matrix()
    layer = Image(
        np.zeros((2, 3, 4), np.uint8), scale=scale, translate=(1, 2, 3), rotate=matrix, shear=shear, affine=outer.affine
    )
    attributes = {name: getattr(layer, name) for name in ("scale", "translate", "rotate", "shear", "affine")}
    found = Geometry.from_layer(attributes, ndim=3)
    for place in corners((7, 8, 9)):
        np.testing.assert_allclose(found.position(place), layer.data_to_world(place), atol=1e-4)


def test_only_the_last_axes_of_a_layer_count():
    from napari.layers import Image

    layer = Image(np.zeros((5, 2, 3, 4), np.uint8), scale=(7, 3, 2, 1), translate=(9, 1, 2, 3), rotate=np.eye(4))
    attributes = {name: getattr(layer, name) for name in ("scale", "translate", "rotate", "shear", "affine")}
    found = Geometry.from_layer(attributes, ndim=3)
    assert found.spacing == (3, 2, 1)
    assert found.origin == (1, 2, 3)


@settings(max_examples=200, deadline=None)
@given(geometry=geometries(), towards=st.sampled_from(ORIENTATIONS), shape=st.tuples(*[st.integers(1, 6)] * 3))
def test_rearranged_samples_stay_where_they_are_and_come_back(geometry, towards, shape):
    letters = "".join(("SI", "PA", "LR")[axis][sign < 0] for axis, sign in zip(*towards, strict=True))
    axes = geometry.axes_towards(letters)
    array = np.arange(np.prod(shape)).reshape(shape)
    turned = axes.apply(array)
    moved = geometry.rearranged(axes, shape)
    assert moved.orientation == letters
    here = np.argwhere(np.ones(turned.shape))
    before = np.stack(np.unravel_index(turned.ravel(), shape), -1)  # each value tells where it was
    np.testing.assert_allclose(moved.position(here), geometry.position(before), atol=1e-6)
    back = axes.inverse
    np.testing.assert_array_equal(back.apply(turned), array)
    assert furthest_mm(moved.rearranged(back, turned.shape), geometry, shape) < 1e-6
    assert back.inverse == axes


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_axes_map_both_ways_also_with_channels_before(order, signs):
    axes = AxisMap(order, tuple(sign < 0 for sign in signs))
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    turned = axes.apply(array)
    assert np.shares_memory(turned, array)
    np.testing.assert_array_equal(axes.inverse.apply(turned), array)
    np.testing.assert_array_equal(turned[1], axes.apply(array[1]))
    assert axes.is_identity == (order == (0, 1, 2) and signs == (1, 1, 1))


@settings(max_examples=100, deadline=None)
@given(geometry=geometries(), index=st.tuples(*[st.floats(-10, 50)] * 3))
def test_index_and_position_undo_each_other(geometry, index):
    np.testing.assert_allclose(geometry.index(geometry.position(index)), index, atol=1e-6)
    many = np.stack([index, index])[None]
    np.testing.assert_allclose(geometry.index(geometry.position(many)), many, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(geometry=geometries(), start=st.tuples(*[st.integers(-3, 9)] * 3), step=st.tuples(*[st.floats(0.2, 5)] * 3))
def test_a_part_lies_where_it_was_cut(geometry, start, step):
    part = geometry.part(start, step=step)
    for index in ((0, 0, 0), (1, 2, 3)):
        np.testing.assert_allclose(
            part.position(index), geometry.position(np.add(start, np.multiply(index, step))), atol=1e-6
        )
    np.testing.assert_allclose(part.spacing, np.multiply(geometry.spacing, step), rtol=1e-9)


def test_an_axial_scan_is_spl_and_straight():
    geometry = Geometry.from_nifti(np.diag([-1, -1, 2, 1]))  # towards left, back, head
    assert geometry.orientation == "SPL"
    assert geometry.spacing == (2, 1, 1)
    assert not geometry.is_oblique
    np.testing.assert_array_equal(geometry.affine, np.diag([2, 1, 1, 1]))


@pytest.mark.parametrize(("degrees", "oblique"), [(0, False), (0.001, False), (0.5, True), (30, True), (90, False)])
def test_oblique_means_by_more_than_a_thousandth(degrees, oblique):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("x", degrees, degrees=True).as_matrix()
    assert Geometry(matrix, "mm", "patient").is_oblique == oblique


@pytest.mark.parametrize("letters", ["SPL", "IAR", "LPS", "RAS", "PSR", "ALI"])
def test_letters_are_those_of_nibabel(letters):
    import nibabel as nib

    geometry = Geometry.from_spacing((1, 1, 1), units="mm", frame="patient")
    moved = geometry.rearranged(geometry.axes_towards(letters), (4, 5, 6))
    assert "".join(reversed(nib.aff2axcodes(moved.to_nifti()))) == letters


@pytest.mark.parametrize("letters", ["SP", "SPP", "SPX", "SPLL", "spl"])
def test_letters_that_are_no_orientation_are_refused(letters):
    with pytest.raises(ValueError, match="no orientation"):
        Geometry.from_spacing((1, 1, 1), units="mm", frame="patient").axes_towards(letters)
    with pytest.raises(ValueError, match="no orientation"):
        Geometry.from_spacing((1, 1, 1)).axes_towards("SPL")


@pytest.mark.parametrize(
    ("affine", "units", "frame"),
    [
        (np.diag([1.0, 0, 1, 1]), "mm", "patient"),
        (np.diag([1.0, np.nan, 1, 1]), "mm", "patient"),
        (np.full((4, 4), np.inf), "mm", "patient"),
        (np.ones((4, 4)), "mm", "image"),
        (np.eye(5), "mm", "image"),
        (np.eye(4)[:3], "mm", "image"),
        (np.eye(4), "um", "patient"),
        (np.eye(3), "mm", "patient"),
    ],
)
def test_what_is_no_place_is_refused(affine, units, frame):
    with pytest.raises(BadImage):
        Geometry(affine, units, frame)


def test_a_geometry_cannot_be_changed_and_compares_by_value():
    affine = np.eye(4)
    geometry = Geometry(affine, "mm")
    affine[0, 0] = 5
    assert geometry.spacing == (1, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 0] = 5
    assert geometry == Geometry(np.eye(4), "mm")
    assert hash(geometry) == hash(Geometry(np.eye(4), "mm"))
    assert geometry != Geometry(np.eye(4), "um")


def test_close_to_looks_at_the_corners():
    geometry = Geometry.from_spacing((1, 1, 1), units="mm", frame="patient")
    affine = geometry.affine.copy()
    affine[2, 2] = 1.00005
    turned = Geometry(affine, "mm", "patient")
    assert geometry.close_to(turned, shape=(5, 5, 5))
    assert not geometry.close_to(turned, shape=(5, 5, 500))
    assert not geometry.close_to(Geometry.from_spacing((1, 1, 1)), shape=(2, 2, 2))
