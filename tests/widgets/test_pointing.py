"""Where in a layer the mouse points, without a window: the one piece that picking and the tools share."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel

from napari_medt.widgets.clicks import CanvasClicks
from napari_medt.widgets.pointing import brightest, first_seen, held_still, line_of_sight, place_at

SHAPE = (6, 9, 12)
PLACES = {"scale": (3.0, 0.5, 2.0), "translate": (7, -4, 1)}


@pytest.fixture(scope="module")
def volume():
    return ViewerModel().add_image(np.zeros(SHAPE, np.uint8), **PLACES)


@given(index=st.tuples(*(st.floats(-2, n + 1) for n in SHAPE)), extra=st.integers(0, 1))
def test_a_place_is_where_the_world_says_and_none_is_beside_the_layer(volume, index, extra):
    world = (0.0,) * extra + tuple(volume.data_to_world(index))  # the viewer may have more axes than the layer
    found = place_at(volume, SHAPE, world, displayed=(1 + extra, 2 + extra))
    inside = [-0.5 <= i <= n - 0.5 for i, n in zip((np.rint(index[0]), *index[1:]), SHAPE, strict=True)]
    edge = min(abs(abs(i - (n - 1) / 2) - n / 2) for i, n in zip(index, SHAPE, strict=True))
    if edge < 1e-6:
        return
    assert (found is not None) == all(inside)
    if found is not None:
        assert found[0] == round(found[0]), "of a slice, no place between it and the next"
        np.testing.assert_allclose(found[1:], np.clip(index[1:], 0, np.array(SHAPE[1:]) - 1), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1, 1])
def test_in_3d_what_is_seen_is_the_first_of_a_structure_behind_the_pointer(volume, axis, sign):
    labels = np.zeros(SHAPE, np.uint8)
    column = [slice(4, 5)] * 3
    column[axis] = slice(1, 4)
    labels[tuple(column)] = 2
    direction = np.zeros(3)
    direction[axis] = sign
    at = np.array(volume.data_to_world((4, 4, 4))) - 500 * direction
    line = line_of_sight(volume, SHAPE, tuple(at), tuple(direction), (0, 1, 2))
    along = line[:, axis][::sign]
    assert sorted(set(along.tolist())) == list(range(SHAPE[axis])), "every voxel of the column, to both ends"
    nearest = [4, 4, 4]
    nearest[axis] = 1 if sign > 0 else 3
    assert first_seen(labels, line) == tuple(nearest)
    assert first_seen(np.zeros_like(labels), line) is None
    aside = at + 500 * np.roll(direction, 1)
    assert line_of_sight(volume, SHAPE, tuple(aside), tuple(direction), (0, 1, 2)) is None


def test_in_3d_a_picture_without_a_mask_is_taken_where_its_projection_is_brightest():
    values = np.zeros(SHAPE, np.float32)
    values[1, 4, 4], values[2, 4, 4] = 5, np.nan
    image = ViewerModel().add_image(values)
    line = np.array([(z, 4, 4) for z in range(SHAPE[0])])
    assert brightest(image, line) == (1, 4, 4)
    image.rendering = "iso"
    assert brightest(image, line) == (3, 4, 4), "half way"


@pytest.mark.parametrize(("way", "click"), [((), True), ((3, -4), True), ((9,), False), ((2, 30, 0), False)])
def test_a_press_that_went_away_and_came_back_is_a_drag(way, click):
    event = SimpleNamespace(type="mouse_press", pos=np.array([100, 100]))
    following, told = held_still(event), []

    def follow():
        told.append((yield from following))

    run = follow()
    next(run)
    for step in way:
        event.type, event.pos = "mouse_move", np.array([100 + step, 100])
        next(run)
    event.type = "mouse_release"
    next(run, None)
    assert told == [click]


def test_a_tool_takes_no_drag_for_a_click(qapp):
    """Also one that ends where it began."""
    viewer = ViewerModel()
    mask = viewer.add_labels(np.ones((20, 20), np.uint8))
    clicks, found = CanvasClicks(viewer), []
    clicks.clicked.connect(found.append)
    clicks.listen(mask, "point")
    for way, expected in (((0,), [(3.0, 4.0)]), ((60, 0), [(3.0, 4.0)])):
        event = SimpleNamespace(
            type="mouse_press", pos=np.array([50, 50]), position=(3.0, 4.0), button=1, view_direction=None
        )
        event.dims_displayed = (0, 1)
        run = clicks._pressed(viewer, event)
        next(run)
        for step in way:
            event.type, event.pos = "mouse_move", np.array([50 + step, 50])
            next(run)
        event.type = "mouse_release"
        next(run, None)
        assert found == expected
    clicks.stop()
