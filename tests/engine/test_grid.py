"""The grid of a model and that of an image: every place is where it was, on the way there and back."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_medt.core import AxisMap, Geometry, Volume
from napari_medt.engine.grid import Grid, Line
from napari_medt.engine.planes import whole
from napari_medt.engine.prepare import fit
from napari_medt.engine.windows import Layout

ORIENTATIONS = [
    "".join(letters)
    for pairs in permutations(("SI", "PA", "LR"))
    for letters in product(*pairs)
]  # fmt: skip


def patient(orientation, spacing, *, turn=0.0):
    """Geometry of a scan whose axes run towards `orientation`, turned by `turn` radians about the head-foot axis."""
    c, s = np.cos(turn), np.sin(turn)
    affine = np.diag([0.0, 0, 0, 1])
    for column, letter in enumerate(orientation):
        row = next(i for i, pair in enumerate(("SI", "PA", "LR")) if letter in pair)
        affine[row, column] = (1 if letter in "SPL" else -1) * spacing[column]
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3, :3]
    affine[:3, 3] = (-30, 12, 7)
    return Geometry(affine, "mm", "patient")


def ball(geometry, shape, *, at, radius):
    """A ball at a place of the world, as fractions at its surface."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    distance = np.linalg.norm(geometry.position(index) - at, axis=-1)
    return np.clip((radius - distance) / max(geometry.spacing) + 0.5, 0, 1).astype(np.float32)


def parts(values, box, *, rows, strips):
    """Values of the model's grid in parts, as a network gives them, in memory that is used again."""
    for start in range(box[0].start, box[0].stop, rows):
        first = slice(start, min(start + rows, box[0].stop))
        if len(box) == 2:
            yield reused((first, box[1]), values)
            continue
        for begin in range(box[1].start, box[1].stop, strips):
            yield reused((first, slice(begin, min(begin + strips, box[1].stop)), *box[2:]), values)


def reused(where, values):
    return where, torch.from_numpy(values[(slice(None), *where)].copy())


def back(grid, values, *, box=None, rows=5, strips=4):
    """All parts that come back, put together; every sample once, and their memory spoilt afterwards."""
    box = box or whole(grid.shape_turned)
    found = np.full((len(values), *grid.shape_turned), np.nan, np.float32)
    held = None
    made = parts(values, grid.model_box(box), rows=rows, strips=strips)

    def spoiling():
        for where, part in made:
            yield where, part
            part.fill_(1e9)

    for where, part in grid.back(spoiling(), box=box):
        assert np.isnan(found[(slice(None), *where)]).all(), "a sample came twice"
        found[(slice(None), *where)] = part.numpy()
        held = where
    assert held is not None
    inside = np.zeros(grid.shape_turned, bool)
    inside[box] = True
    assert np.isfinite(found[:, inside]).all()
    assert np.isnan(found[:, ~inside]).all()
    return found


@pytest.mark.parametrize("shape", [(9, 11), (7, 9, 11)])
def test_equal_grids_hand_through_what_they_get(shape, rng):
    grid = Grid.of(Geometry.from_spacing((2.0,) * len(shape), units="mm"), shape, spacing=(2.001,) * len(shape))
    assert grid.identity
    given = [(whole(shape), torch.from_numpy(rng.random((3, *shape))))]
    (found,) = grid.back(given)
    assert found is given[0]


@given(
    size=st.integers(1, 40),
    step=st.floats(0.2, 5).filter(lambda s: abs(s - 1) >= 0.01),
)
def test_middles_lie_in_one_place_and_ends_within_half_a_sample(size, step):
    line = Line.of(size, step)
    assert np.isclose(line.to_image((line.model - 1) / 2), (size - 1) / 2)
    np.testing.assert_allclose(line.to_model(line.to_image(np.arange(line.model))), np.arange(line.model), atol=1e-9)
    if line.model > 1:
        assert abs(line.model * step - size) <= step / 2 + 1e-9


@given(size=st.integers(1, 40), step=st.floats(0.2, 5), data=st.data())
def test_weights_are_those_of_linear_interpolation_or_of_a_tent(size, step, data):
    """Against `numpy.interp` up to twice as coarse; beyond, every sample of the image has its share."""
    line = Line.of(size, step)
    start = data.draw(st.integers(0, line.model - 1))
    part = slice(start, data.draw(st.integers(start + 1, line.model)))
    values = np.sin(np.arange(size) * 1.7).astype(np.float32)
    needed, index, weights = line.weights(part)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    if line.step <= 2:
        found = (values[needed][index] * weights).sum(1)
        expected = np.interp(line.to_image(np.arange(part.start, part.stop)), np.arange(size), values)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    else:
        needed, index, weights = line.weights(slice(0, line.model))
        assert {*range(needed.start, needed.stop)} == {*(index + needed.start)[weights > 0].tolist()}
        assert needed.start <= step / 2
        assert needed.stop >= size - step / 2


def test_stripes_finer_than_the_model_become_grey_instead_of_other_stripes(make_card):
    values = np.zeros((64, 65), np.float32)
    values[:, ::2] = 1
    card = make_card(channels="grey", intensity={"kind": "none"}, spacing=(1, 4), net_options={})
    found = fit(Volume(values[None], Geometry.from_spacing((1, 1), units="mm")), card).whole()
    np.testing.assert_allclose(found[..., 1:-1], 0.5, atol=0.06)


@settings(max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    steps=st.tuples(*[st.sampled_from([0.3, 0.5, 0.77, 1, 1.4, 2, 3.1])] * 3),
    rows=st.integers(1, 7),
    strips=st.integers(1, 7),
    data=st.data(),
)
def test_parts_come_back_as_the_whole_would(shape, steps, rows, strips, data):
    """Against `scipy.ndimage.map_coordinates` on the whole; any box is the same as in the whole."""
    grid = Grid.of(Geometry.from_spacing((1, 1, 1), units="mm"), shape, spacing=steps)
    values = np.random.default_rng(0).random((2, *grid.shape_model)).astype(np.float32)
    starts = [data.draw(st.integers(0, size - 1)) for size in shape]
    box = tuple(slice(a, data.draw(st.integers(a + 1, size))) for a, size in zip(starts, shape, strict=True))
    places = [np.clip(line.to_model(np.arange(line.size)), 0, line.model - 1) for line in grid.lines]
    index = np.stack(np.meshgrid(*places, indexing="ij"))
    expected = np.stack([ndimage.map_coordinates(v, index, order=1, mode="nearest") for v in values])
    found = back(grid, values, box=box, rows=rows, strips=strips)
    np.testing.assert_allclose(found[(slice(None), *box)], expected[(slice(None), *box)], atol=1e-5)


def test_parts_of_an_image_of_two_axes_come_back(rng):
    grid = Grid.of(Geometry.from_spacing((1, 1), units="mm"), (30, 20), spacing=(2.5, 0.7))
    values = rng.random((3, *grid.shape_model)).astype(np.float32)
    np.testing.assert_allclose(back(grid, values, rows=3), back(grid, values, rows=100), atol=1e-6)


def test_what_is_too_much_at_once_comes_in_pieces(rng, monkeypatch):
    grid = Grid.of(Geometry.from_spacing((1, 1, 1), units="mm"), (9, 10, 11), spacing=(2, 2, 2))
    values = rng.random((2, *grid.shape_model)).astype(np.float32)
    expected = back(grid, values)
    monkeypatch.setattr("napari_medt.engine.back.TOGETHER", 300)
    np.testing.assert_array_equal(back(grid, values), expected)


def test_windows_of_an_engine_make_such_parts(rng):
    """The order in which finished rows leave a layout of windows is what `back` wants."""
    from napari_medt.engine.stitch import Stitch

    grid = Grid.of(Geometry.from_spacing((1, 1, 1), units="mm"), (25, 31, 18), spacing=(0.8, 1.7, 0.5))
    values = rng.random((2, *grid.shape_model)).astype(np.float32)
    layout = Layout.of(grid.shape_model, (16, 12, 16))
    stitch = Stitch(2, layout, whole(grid.shape_model))

    def finished():
        for where in layout:
            part = np.pad(values[(slice(None), *where)], [(0, 0), *((0, 0),) * 3])
            if found := stitch.add(where, torch.from_numpy(part)):
                yield found

    found = np.full((2, *grid.shape_turned), np.nan, np.float32)
    for where, part in grid.back(finished()):
        found[(slice(None), *where)] = part.numpy()
    np.testing.assert_allclose(found, back(grid, values), atol=1e-5)


@settings(max_examples=48)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    wanted=st.sampled_from(["", *ORIENTATIONS]),
    spacing=st.tuples(*[st.floats(0.6, 3)] * 3),
    model=st.tuples(*[st.floats(0.7, 2.5)] * 3),
    turn=st.sampled_from([0.0, 0.2]),
)
def test_a_ball_comes_back_to_its_place(orientation, wanted, spacing, model, turn):
    """Seen on the model's grid, the ball lies where the geometry of that grid says; back, where it was."""
    shape = tuple(int(36 / s) + 2 for s in spacing)
    geometry = patient(orientation, spacing, turn=turn)
    middle = geometry.position([(n - 1) / 2 for n in shape]) + np.array([1.3, -2.1, 0.7])
    image = ball(geometry, shape, at=middle, radius=9)
    axes = geometry.axes_towards(wanted) if wanted else AxisMap((0, 1, 2), (False,) * 3)
    grid = Grid.of(geometry, shape, axes=axes, spacing=model)
    seen = axes.apply(image)
    for axis, line in enumerate(grid.lines):
        if not line.same:
            needed, index, weights = line.weights(slice(0, line.model))
            part = seen.take(range(needed.start, needed.stop), axis=axis)
            seen = np.moveaxis((np.moveaxis(part, axis, -1)[..., index] * weights).sum(-1), -1, axis)
    there = grid.geometry(geometry)
    if wanted:
        assert there.orientation == wanted
    assert np.linalg.norm(there.position(ndimage.center_of_mass(seen)) - middle) < 0.5 * min(*spacing, *model)
    found = axes.inverse.apply(back(grid, seen[None].astype(np.float32))[0])
    assert found.shape == shape
    assert np.linalg.norm(geometry.position(ndimage.center_of_mass(found)) - middle) < 0.5 * min(spacing)
    labels = ndimage.center_of_mass(found > 0.5)
    assert np.linalg.norm(geometry.position(labels) - middle) < 0.5 * max(spacing)


def test_a_model_twice_as_coarse_lies_over_the_same_place():
    geometry = patient("SPL", (1, 1, 1))
    grid = Grid.of(geometry, (20, 30, 40), spacing=(2, 2, 2))
    assert grid.shape_model == (10, 15, 20)
    there = grid.geometry(geometry)
    assert there.spacing == (2, 2, 2)
    np.testing.assert_allclose(there.position((4.5, 7, 9.5)), geometry.position((9.5, 14.5, 19.5)))


def test_micrometres_are_understood_and_pixels_are_left():
    assert Grid.of(Geometry.from_spacing((500, 500), units="um"), (8, 8), spacing=(1, 1)).shape_model == (4, 4)
    assert Grid.of(Geometry.from_spacing((0.5, 0.5)), (8, 8), spacing=(1, 1)).identity


def test_a_model_of_slices_leaves_their_distance():
    grid = Grid.of(Geometry.from_spacing((5, 1, 1), units="mm"), (7, 8, 9), spacing=(2, 2))
    assert grid.shape_model == (7, 4, 4)


def test_masks_go_to_the_model_as_they_are(rng):
    labels = rng.integers(0, 4, (12, 10, 8)).astype(np.uint8)
    geometry = patient("LIA", (1, 2, 3))
    axes = geometry.axes_towards("SPL")
    grid = Grid.of(geometry, labels.shape, axes=axes, spacing=(6, 1, 1))
    found = grid.labels(labels)
    assert found.shape == grid.shape_model
    assert set(np.unique(found)) <= set(np.unique(labels))
    same = Grid.of(geometry, labels.shape, axes=axes)
    np.testing.assert_array_equal(same.labels(labels), axes.apply(labels))
