"""Our layers lie exactly over the picture, whatever was done to it, and are replaced rather than multiplied."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_medt.core import AttentionMap, BadImage, Geometry
from napari_medt.widgets import layers


@pytest.fixture
def model():
    return ViewerModel()


PLACES = {
    "plain": {},
    "scaled": {"scale": (0.5, 0.25), "translate": (3, -4), "units": ("um", "um"), "axis_labels": ("row", "column")},
    "turned": {"scale": (2, 3), "rotate": 30, "shear": [0.2], "translate": (5, 6)},
    "affine": {"scale": (2, 2), "affine": [[1.2, 0.3, 4], [-0.1, 0.8, 2], [0, 0, 1]]},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
def test_mask_takes_the_whole_place(model, place):
    image = model.add_image(np.zeros((8, 12)), **place)
    mask = layers.OurLayers(model).add_mask(image, np.zeros((8, 12), np.uint8), classes=2)
    for corner in ((0, 0), (7, 11), (3, 5)):
        np.testing.assert_allclose(mask.data_to_world(corner), image.data_to_world(corner))
    assert mask.units == image.units
    assert mask.axis_labels == image.axis_labels


@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
def test_a_coarse_map_covers_its_pixels_exactly(model, place):
    """Cell (i, j) of a grid of 4 x 3 pixels stands over the middle of its pixels, also through rotation and shear."""
    image = model.add_image(np.zeros((16, 12)), **place)
    picture = layers.take(image)
    to_grid = np.diag([4.0, 3.0, 1.0])
    to_grid[:2, 2] = 8 + 1.5, 3 + 1.0
    affine = picture.geometry.affine @ to_grid
    found = AttentionMap(np.ones((2, 3), np.float32), Geometry(affine), "global", "row and column")
    data, state = layers.map_state(image, found, picture.geometry, None)
    shown = Image(data, **state)
    for cell in ((0, 0), (1, 2)):
        pixel = (8 + 1.5 + 4 * cell[0], 3 + 1 + 3 * cell[1])
        np.testing.assert_allclose(shown.data_to_world(cell), image.data_to_world(pixel))


def test_a_map_of_a_scan_lies_in_its_slice(model):
    image = model.add_image(np.zeros((5, 8, 8)), scale=(4, 0.5, 0.5), translate=(1, 2, 3))
    picture = layers.take(image)
    found = AttentionMap(
        np.ones((4, 4), np.float32), Geometry.from_spacing((1, 1), origin=(0.25, 0.25)), "global", "row"
    )
    data, state = layers.map_state(image, found, picture.geometry, 3)
    shown = Image(data, **state)
    assert data.shape == (1, 4, 4)
    np.testing.assert_allclose(shown.data_to_world((0, 0, 0)), image.data_to_world((3, 0.5, 0.5)))


def test_maps_are_replaced_and_the_active_layer_stays(model):
    image = model.add_image(np.zeros((8, 8)))
    ours = layers.OurLayers(model)
    state = layers.spatial_state(image)
    shown = [
        ours.show_map(image, "attention", np.full((8, 8), v), state, name=f"map {v}", colormap="inferno", limits=(0, v))
        for v in (1, 2)
    ]
    assert shown[0] is shown[1]
    assert [layer.name for layer in model.layers] == ["Image", "map 2"]
    assert shown[1].contrast_limits == [0, 2]
    assert model.layers.selection.active is image


def test_renaming_changes_no_identity_and_a_copy_has_its_own(model):
    image = model.add_image(np.zeros((8, 8)), name="first")
    known = layers.identity(image)
    image.name = "second"
    copy = model.add_image(image.data, metadata=dict(image.metadata))
    assert layers.identity(image) == known
    assert layers.identity(copy) != known


def test_a_picture_notices_that_it_was_replaced(model):
    image = model.add_image(np.zeros((8, 8)))
    picture = layers.take(image)
    assert picture.still_there(model) is image
    image.data = np.ones((8, 8))
    assert picture.still_there(model) is None
    image.data = np.zeros((8, 8))
    written = layers.take(image)
    image.data[2:6] = 5
    assert written.still_there(model) is None
    model.layers.remove(image)
    assert layers.take(image).still_there(model) is None


def test_colours_and_slices_are_told_apart_by_the_layer(model):
    colour = model.add_image(np.zeros((16, 16, 3), np.uint8), rgb=True)
    stack = model.add_image(np.zeros((16, 16, 3), np.uint8), rgb=False)
    assert layers.spatial_shape_of(colour) == (16, 16)
    assert layers.take(colour).load().is_rgb
    assert layers.spatial_shape_of(stack) == (16, 16, 3)
    assert layers.take(stack).load().array.shape == (1, 16, 16, 3)


def test_pictures_that_cannot_be_used_say_why(model):
    with pytest.raises(BadImage, match=r"4 axes.*Split Stack"):
        layers.spatial_shape_of(model.add_image(np.zeros((2, 3, 8, 8))))


def test_units_are_kept_for_all_layers(model):
    """One layer without units would switch them off for the whole viewer."""
    image = model.add_image(np.zeros((8, 8)), scale=(0.5, 0.5), units=("um", "um"))
    ours = layers.OurLayers(model)
    ours.add_mask(image, np.zeros((8, 8), np.uint8), classes=2)
    ours.show_map(
        image, "attention", np.ones((8, 8)), layers.spatial_state(image), name="m", colormap="inferno", limits=(0, 1)
    )
    ours.show_point(image, (1, 2), name="p")
    assert {layer.units for layer in model.layers} == {image.units}
    assert layers.units_of(image) == "um"
    assert layers.take(image).geometry.spacing == (0.5, 0.5)


def test_class_colours_are_distinct_and_background_is_clear():
    colours = layers.class_colormap(4)
    assert tuple(colours.map(0)) == (0, 0, 0, 0)
    assert len({tuple(np.round(colours.map(label), 3)) for label in (1, 2, 3)}) == 3
