"""Surface distances against the public codes' figures, against brute force, and by what must hold of any distance."""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_medt.measure import Surfaces, average_surface_distance, bounding_box, hausdorff_distance, hd95, surface_dice
from napari_medt.measure.surfels import border, surface_elements

steps = st.floats(0.3, 4)


def pairs(*, smallest: int = 2):
    shapes = st.one_of(st.tuples(st.integers(1, 7), st.integers(1, 7)), st.tuples(*[st.integers(1, 5)] * 3))
    return shapes.flatmap(
        lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape), st.tuples(*[steps] * len(shape)))
    )


def filled(pair):
    assume(pair[0].any() and pair[1].any())
    return pair


def values(a, b, spacing):
    """Every distance there is, and every share."""
    surfaces = Surfaces(a, b, spacing=spacing)
    lengths = [
        *(
            surfaces.hausdorff(percent, definition=who)
            for percent, who in product((95, 100), ("monai", "medpy", "deepmind"))
        ),
        *(surfaces.average(definition=who) for who in ("monai", "deepmind")),
    ]
    return np.array(lengths), np.array([surfaces.dice(1.0, definition=who) for who in ("monai", "deepmind")])


# -------------------------------------------------------------------------------------------------- others' figures


@pytest.fixture(scope="session")
def golden(root):
    folder = root.parent / "shared" / "golden" / "3d" / "metrics"
    if not folder.is_dir():
        pytest.skip("needs the figures of MONAI, MedPy and surface-distance")
    labels = np.load(folder / "labels.npz")
    figures = json.loads((folder / "values.json").read_text())
    cases = {}
    for case in figures:
        if f"{case}__pred" in labels:
            masks = [labels[f"{case}__{part}"] for part in ("pred", "ref", "spacing")]
            cases[case] = (Surfaces(masks[0], masks[1], spacing=masks[2]), figures[case])
    return cases


# Theirs by name, and how ours is asked for the same.
THEIRS = {
    "monai": {
        "hd": lambda s: s.hausdorff(),
        "hd95": lambda s: s.hausdorff(95),
        "asd_pred_to_ref": lambda s: s.average(of="prediction"),
        "assd": lambda s: s.average(),
        "nsd_1mm": lambda s: s.dice(1, definition="monai"),
        "nsd_2mm": lambda s: s.dice(2, definition="monai"),
        "nsd_1mm_subvoxel": lambda s: s.dice(1),
        "nsd_2mm_subvoxel": lambda s: s.dice(2),
    },
    "medpy": {
        "hd": lambda s: s.hausdorff(definition="medpy"),
        "hd95": lambda s: s.hausdorff(95, definition="medpy"),
        "asd_pred_to_ref": lambda s: s.average(of="prediction", definition="medpy"),
        "assd": lambda s: s.average(definition="medpy"),
    },
    "surface_distance": {
        "hd": lambda s: s.hausdorff(definition="deepmind"),
        "hd95": lambda s: s.hausdorff(95, definition="deepmind"),
        "asd_pred_to_ref": lambda s: s.average(of="prediction", definition="deepmind"),
        "asd_ref_to_pred": lambda s: s.average(of="reference", definition="deepmind"),
        "assd_area_weighted": lambda s: s.average(definition="deepmind"),
        "nsd_1mm": lambda s: s.dice(1),
        "nsd_2mm": lambda s: s.dice(2),
    },
}


@pytest.mark.parametrize(("code", "figure"), [(code, figure) for code, names in THEIRS.items() for figure in names])
def test_figures_of_the_public_codes(golden, code, figure):
    compared = 0
    for case, (surfaces, figures) in golden.items():
        if "empty" not in case:
            # MONAI computes in float32.
            assert THEIRS[code][figure](surfaces) == pytest.approx(figures[code][figure], abs=1e-6), case
            compared += 1
    assert compared == 8


def test_definitions_differ_where_they_should(golden):
    surfaces, _ = golden["two_components"]
    found = [round(surfaces.hausdorff(95, definition=who), 3) for who in ("monai", "medpy", "deepmind")]
    assert found == [16.279, 15.684, 15.620]


def test_golden_empty_masks(golden):
    for case, share, distance in [
        ("empty_prediction", 0, math.inf),
        ("empty_reference", 0, math.inf),
        ("both_empty", 1, 0),
    ]:
        surfaces, _ = golden[case]
        assert surfaces.dice(1) == surfaces.dice(1, definition="monai") == share
        for who in ("monai", "medpy", "deepmind"):
            assert surfaces.hausdorff(95, definition=who) == surfaces.hausdorff(definition=who) == distance
        assert {surfaces.average(of=of) for of in ("both", "prediction", "reference")} == {distance}


# ------------------------------------------------------------------------------------------------------ brute force


def brute_border(mask):
    padded = np.pad(mask, 1)
    found = []
    for place in np.argwhere(padded):
        sides = [place + sign * np.eye(mask.ndim, dtype=int)[axis] for axis in range(mask.ndim) for sign in (1, -1)]
        if not all(padded[tuple(side)] for side in sides):
            found.append(place - 1)
    return np.array(found)


@settings(max_examples=40, deadline=None)
@given(pairs())
def test_every_distance_is_the_smallest_of_all(pair):
    a, b, spacing = filled(pair)
    places = [brute_border(mask) * spacing for mask in (a, b)]
    apart = np.linalg.norm(places[0][:, None] - places[1][None], axis=-1)
    there, back = apart.min(axis=1), apart.min(axis=0)
    assert hausdorff_distance(a, b, spacing=spacing) == pytest.approx(max(there.max(), back.max()))
    assert hd95(a, b, spacing=spacing) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert hd95(a, b, spacing=spacing, definition="medpy") == pytest.approx(np.percentile([*there, *back], 95))
    assert average_surface_distance(a, b, spacing=spacing) == pytest.approx(np.mean([*there, *back]))
    assert average_surface_distance(a, b, spacing=spacing, of="reference") == pytest.approx(back.mean())
    within = np.mean(np.array([*there, *back]) <= 1 + 1e-9)
    assert surface_dice(a, b, spacing=spacing, tolerance=1, definition="monai") == pytest.approx(within)


@settings(max_examples=40, deadline=None)
@given(pairs())
def test_border_is_found_voxel_by_voxel(pair):
    mask = pair[0]
    assert sorted(map(tuple, np.argwhere(border(mask)))) == sorted(map(tuple, brute_border(mask)))


# ---------------------------------------------------------------------------------------------------------- surface


def test_surface_of_a_box_is_its_own_but_for_the_cut_edges():
    sizes, spacing = (9, 7, 8), (2.0, 0.5, 1.5)
    found = surface_elements(np.ones(sizes, bool), spacing).sum()
    # Marching cubes cut an edge of the box in its middle: of both faces at it half a step goes, for the slope between.
    sides = [(n - 1) * step for n, step in zip(sizes, spacing, strict=True)]
    flat = 2 * sum(sides[i] * sides[j] for i, j in ((0, 1), (0, 2), (1, 2)))
    slopes = 4 * sum(sides[k] * math.hypot(spacing[i], spacing[j]) / 2 for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)))
    corner = math.sqrt(sum((spacing[i] * spacing[j]) ** 2 for i, j in ((0, 1), (0, 2), (1, 2)))) / 8
    assert found == pytest.approx(flat + slopes + 8 * corner)


def test_length_of_a_rectangle_in_2d():
    found = surface_elements(np.ones((4, 6), bool), (2.0, 0.5)).sum()
    assert found == pytest.approx(2 * (3 * 2 + 5 * 0.5) + 4 * math.hypot(2, 0.5) / 2)


@pytest.mark.parametrize("radius", [12, 18])
def test_surface_of_a_ball(radius):
    """Marching cubes on inside and outside alone overrate a round surface by about a tenth."""
    spacing = (1.0, 0.8, 1.25)
    grid = np.ogrid[tuple(slice(-radius * 2, radius * 2 + 1) for _ in spacing)]
    ball = sum((axis * step) ** 2 for axis, step in zip(grid, spacing, strict=True)) <= radius**2
    assert surface_elements(ball, spacing).sum() / (4 * math.pi * radius**2) == pytest.approx(1.09, abs=0.03)


@settings(max_examples=30, deadline=None)
@given(arrays(bool, (2, 2, 2)), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_cells_turned_mirrored_or_exchanged_have_the_same_surface(cell, order, flips):
    spacing = (1.0, 2.0, 0.7)
    inner = (slice(1, 2),) * 3
    turned = cell.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    area = surface_elements(cell, spacing)[inner]
    assert surface_elements(turned, [spacing[axis] for axis in order])[inner] == pytest.approx(area)
    assert surface_elements(~cell, spacing)[inner] == pytest.approx(area)


# ------------------------------------------------------------------------------------------------------- properties


@settings(max_examples=40, deadline=None)
@given(pairs())
def test_symmetry(pair):
    a, b, spacing = pair
    for one, two in zip(values(a, b, spacing), values(b, a, spacing), strict=True):
        np.testing.assert_allclose(one, two)


@settings(max_examples=40, deadline=None)
@given(pairs(), st.integers(0, 3))
def test_moving_both_in_a_larger_array_changes_nothing(pair, by):
    a, b, spacing = pair
    moved = [np.pad(mask, (by, 2)) for mask in (a, b)]
    for one, two in zip(values(a, b, spacing), values(*moved, spacing), strict=True):
        np.testing.assert_allclose(one, two)


@settings(max_examples=40, deadline=None)
@given(pairs(), st.floats(0.1, 10))
def test_lengths_grow_with_the_spacing(pair, factor):
    a, b, spacing = filled(pair)
    larger = [step * factor for step in spacing]
    np.testing.assert_allclose(values(a, b, larger)[0], factor * values(a, b, spacing)[0], rtol=1e-9)
    for who in ("monai", "deepmind"):
        one = surface_dice(a, b, spacing=spacing, tolerance=0.77, definition=who)
        assert surface_dice(a, b, spacing=larger, tolerance=0.77 * factor, definition=who) == pytest.approx(one)


@settings(max_examples=40, deadline=None)
@given(pairs())
def test_order_of_axes_does_not_matter(pair):
    a, b, spacing = pair
    for one, two in zip(values(a, b, spacing), values(a.T, b.T, spacing[::-1]), strict=True):
        np.testing.assert_allclose(one, two)


@settings(max_examples=40, deadline=None)
@given(pairs(), st.floats(0, 5))
def test_bounds(pair, tolerance):
    a, b, spacing = filled(pair)
    surfaces = Surfaces(a, b, spacing=spacing)
    rounding = 1 + 1e-12
    assert 0 <= surfaces.average() <= surfaces.hausdorff() * rounding
    assert surfaces.hausdorff(95) <= surfaces.hausdorff() * rounding
    assert surfaces.dice(tolerance) <= surfaces.dice(tolerance + 1) * rounding
    assert surfaces.dice(tolerance + 1) <= rounding
    assert surfaces.dice(surfaces.hausdorff(definition="deepmind")) == pytest.approx(1)
    same = Surfaces(a, a, spacing=spacing)
    assert (same.hausdorff(), same.average(), same.dice(0)) == (0, 0, pytest.approx(1))


@pytest.mark.parametrize("step", [0.1, 0.3, 0.7, 0.9])
def test_a_shift_by_exactly_the_tolerance_is_within_it(step):
    mask = np.zeros((12, 12), bool)
    mask[2:6, 2:6] = True
    moved = np.roll(mask, 3, axis=1)
    for who in ("monai", "deepmind"):
        assert surface_dice(moved, mask, spacing=(step, step), tolerance=3 * step, definition=who) == pytest.approx(1)


def test_a_plane_is_moved_by_as_much_as_it_is_moved():
    mask = np.zeros((20, 8, 8), bool)
    mask[:10] = True
    moved = np.zeros_like(mask)
    moved[:12] = True
    assert hausdorff_distance(moved, mask, spacing=(2.5, 1, 1)) == 5


# -------------------------------------------------------------------------------------------------------- empty, odd


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
@pytest.mark.parametrize(
    ("first", "second", "distance", "share"), [(0, 0, 0, 1), (1, 0, math.inf, 0), (0, 1, math.inf, 0)]
)
def test_empty_masks(shape, first, second, distance, share):
    lengths, shares = values(np.full(shape, first), np.full(shape, second), (1.0,) * len(shape))
    assert set(lengths) == {distance}
    assert set(shares) == {share}


def test_a_mask_that_fills_its_array_has_a_border():
    assert hausdorff_distance(np.ones((3, 3, 3)), np.ones((3, 3, 3)), spacing=(1, 1, 1)) == 0
    assert border(np.ones((3, 3, 3), bool)).sum() == 26


@pytest.mark.parametrize(
    ("shapes", "spacing", "text"),
    [
        (((2, 2), (2, 3)), (1, 1), r"\(2, 2\) and \(2, 3\)"),
        (((2, 2), (2, 2)), (1, 1, 1), "2 axes and 3 spacings"),
        (((2,), (2,)), (1,), "1 axes"),
        (((2, 2), (2, 2)), (1, 0), "not positive"),
        (((2, 2), (2, 2)), (1, math.nan), "not positive"),
    ],
)
def test_what_does_not_fit_is_refused(shapes, spacing, text):
    with pytest.raises(ValueError, match=text):
        Surfaces(*(np.ones(shape) for shape in shapes), spacing=spacing)


@settings(deadline=None)
@given(arrays(bool, st.tuples(*[st.integers(0, 5)] * 3)))
def test_box_holds_everything_and_no_empty_end(mask):
    box = bounding_box(mask)
    assert mask[box].sum() == mask.sum()
    inside = mask[box]
    if mask.any():
        assert all(np.moveaxis(inside, axis, 0)[end].any() for axis in range(3) for end in (0, -1))
    else:
        assert inside.size == 0
