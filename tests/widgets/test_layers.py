"""Our layers lie exactly over the picture, whatever was done to it, and are replaced rather than multiplied."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_medt._napari_io import write_image
from napari_medt.core import AttentionMap, BadImage, Geometry
from napari_medt.io import read
from napari_medt.widgets import layers, map_layers, texts


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


def test_a_mask_drawn_as_lines_is_drawn_strongly(model):
    image = model.add_image(np.zeros((8, 12)))
    ours = layers.OurLayers(model)
    mask = ours.add_mask(image, np.zeros((8, 12), np.uint8), classes=2)
    ours.outline(image, True)
    assert (mask.contour, mask.opacity) == (1, layers.OUTLINED)
    ours.outline(image, False)
    assert (mask.contour, mask.opacity) == (0, layers.FILLED)
    mask.opacity = 0.2
    ours.outline(image, True)
    assert mask.opacity == 0.2, "as the user set it"


@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
def test_a_coarse_map_covers_its_pixels_exactly(model, place):
    """Cell (i, j) of a grid of 4 x 3 pixels stands over the middle of its pixels, also through rotation and shear."""
    image = model.add_image(np.zeros((16, 12)), **place)
    picture = layers.take(image)
    to_grid = np.diag([4.0, 3.0, 1.0])
    to_grid[:2, 2] = 8 + 1.5, 3 + 1.0
    affine = picture.geometry.affine @ to_grid
    found = AttentionMap(np.ones((2, 3), np.float32), Geometry(affine), "global", "row and column")
    data, state = map_layers.place_map(image, found, picture.geometry)
    shown = Image(data, **state)
    for cell in ((0, 0), (1, 2)):
        pixel = (8 + 1.5 + 4 * cell[0], 3 + 1 + 3 * cell[1])
        np.testing.assert_allclose(shown.data_to_world(cell), image.data_to_world(pixel))


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), (0, 0, 0)), ((2, 0, 1), (1, 0, 1)), ((1, 0, 2), (0, 1, 0))])
def test_a_map_of_a_scan_lies_right_whatever_way_the_model_has_its_axes(model, rng, order, flips):
    """Anisotropic, turned in the plane and moved: every cell stands where its geometry says, with its own value."""
    place = {"scale": (4, 0.5, 0.7), "rotate": (0, 0, 25), "translate": (1, 2, 3), "units": ("mm",) * 3}
    image = model.add_image(np.zeros((6, 16, 12)), **place)
    picture = layers.take(image)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    steps, shape = (2, 4, 3), (3, 4, 4)
    for axis, (old, flip) in enumerate(zip(order, flips, strict=True)):
        turn[old, axis] = -steps[old] if flip else steps[old]
        turn[old, 3] = (5, 15, 11)[old] - (steps[old] - 1) / 2 if flip else (steps[old] - 1) / 2
    values = rng.random([shape[old] for old in order], dtype=np.float32)
    found = AttentionMap(values, Geometry(picture.geometry.affine @ turn, "mm"), "block1", "token")
    data, state = map_layers.place_map(image, found, picture.geometry)
    shown = Image(data, **state)
    assert data.shape == shape
    for cell in np.ndindex(*values.shape):
        world = found.geometry.position(cell)
        at = np.asarray(shown.world_to_data(world))
        np.testing.assert_allclose(at, np.rint(at), atol=1e-6)
        assert data[tuple(np.rint(at).astype(int))] == values[cell]


def test_a_map_that_is_turned_against_the_picture_is_refused(model):
    image = model.add_image(np.zeros((8, 8)))
    turned = Geometry(np.array([[0.9, -0.4, 0], [0.4, 0.9, 0], [0, 0, 1]]))
    with pytest.raises(ValueError, match="turned"):
        map_layers.place_map(
            image, AttentionMap(np.zeros((8, 8), np.float32), turned, "a", "row"), layers.take(image).geometry
        )


def test_a_map_is_saved_as_it_was_calculated_unless_its_layer_was_changed(model, rng, tmp_path):
    """Of a scan at an angle the copy of a map is shown, and the map itself is saved: as from the command line."""
    image = model.add_image(np.zeros((6, 8, 8)), units=("mm",) * 3)
    ours, picture = layers.OurLayers(model), layers.take(image).geometry
    turned = picture.affine @ np.array([[1, 0, 0, 1], [0, 0.8, -0.6, 2], [0, 0.6, 0.8, 0], [0, 0, 0, 1]])
    on_scan = AttentionMap(rng.random((2, 3, 4), dtype=np.float32), Geometry(turned, "mm"), "gate", "gate")
    copy = AttentionMap(rng.random((4, 4, 4), dtype=np.float32), picture, "gate", "gate", extras={"on_scan": on_scan})
    layer = map_layers.show_map(ours, image, copy, picture, limits=(0, 1), heads=1)

    def saved(shown):
        data, attributes, _ = shown.as_layer_data_tuple()
        (path,) = write_image(str(tmp_path / "map.nii.gz"), data, attributes)
        return read(path)

    for shown in (layer, ours.keep(image, layer)):
        back = saved(shown)
        np.testing.assert_array_equal(back.array[0], on_scan.data)
        assert back.geometry.close_to(on_scan.geometry, shape=on_scan.data.shape)
    layer.translate = (0, 5, 0)
    np.testing.assert_array_equal(saved(layer).array[0], copy.data)
    layer.translate = (0, 0, 0)
    layer.data = layer.data * 2
    np.testing.assert_array_equal(saved(layer).array[0], 2 * copy.data)
    map_layers.show_map(ours, image, AttentionMap(copy.data, picture, "gate", "gate"), picture, limits=(0, 1), heads=1)
    np.testing.assert_array_equal(saved(layer).array[0], copy.data)


@pytest.mark.parametrize(("value", "high"), [(0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (37, 50), (0, 1.0)])
def test_colours_have_a_scale_of_few_steps(value, high):
    assert map_layers.rounded_up(value) == pytest.approx(high)


def test_maps_of_one_unit_are_shown_in_it():
    geometry = Geometry.from_spacing((1, 1))
    picked = AttentionMap(np.full((4, 4), 0.125, np.float32), geometry, "a", "token", even=0.0625)
    assert picked.times_even.max() == 2
    assert map_layers.limits_of(picked) == (0, 2)
    gate = AttentionMap(np.full((4, 4), 0.2, np.float32), geometry, "a", "gate")
    assert map_layers.limits_of(gate) == (0, 1)
    less = AttentionMap(np.full((4, 4), -3.0, np.float32), geometry, "a", "difference")
    assert map_layers.limits_of(less) == (-5, 5)


def test_the_window_is_framed_in_every_plane_through_the_point():
    flat = map_layers.frame_lines([[1.5, 2.5], [5.5, 8.5]], (3, 4))
    assert flat.shape == (4, 2, 2)
    assert {tuple(start) for start, _ in flat} == {(1.5, 2.5), (5.5, 2.5), (1.5, 8.5)}
    deep = map_layers.frame_lines([[0, 0, 0], [4, 6, 8]], (1, 2, 3))
    assert deep.shape == (12, 2, 3)
    assert sum(bool(start[0] == 1 and way[0] == 0) for start, way in deep) == 4


def test_colours_of_a_map_of_few_cells_tell_these_apart_from_the_rest():
    geometry = Geometry.from_spacing((1, 1))
    data = np.full((40, 40), 1e-8, np.float32)
    data[:4, :4] = np.linspace(0.02, 0.105, 16).reshape(4, 4)  # one in a hundred, and nearly all of the attention
    limits = map_layers.limits_of(AttentionMap(data, geometry, "composed", "composed", even=1 / 1600))
    assert limits == (0, 100), "times even attention"
    data[:4, :4] = 1 / 1600
    data[4:] = 1 / 1600
    assert map_layers.limits_of(AttentionMap(data, geometry, "even", "token", even=1 / 1600)) == (0, 1)


def test_arrows_that_lead_to_other_slices_are_counted_by_what_their_cells_cover():
    picture, cells = (Geometry.from_spacing(spacing, units="mm") for spacing in ((3, 1, 1), (12, 4, 4)))
    targets = np.array([[5.5, 9, 9], [9, 9, 9], [1, 9, 9]], float)  # cells are four slices thick
    extras = {"targets": targets, "shares": np.array([0.4, 0.3, 0.2])}
    data = np.ones((4, 4, 4), np.float32)
    found = AttentionMap(data, cells, "block1", "token", query=(4, 2, 2), even=0.1, extras=extras)
    assert map_layers.arrows_elsewhere(found, picture, 0) == (2, 3)
    assert map_layers.arrows_elsewhere(found, picture, 1) == (3, 3)
    assert map_layers.arrows_elsewhere(AttentionMap(data, cells, "block1", "gate"), picture, 0) == (0, 0)
    assert texts.arrows_elsewhere(0, 3) == ""
    assert (
        texts.arrows_elsewhere(1, 1) == " The arrow leads to another slice: it ends above or below the place it means."
    )
    assert texts.arrows_elsewhere(2, 3).startswith(" 2 of the 3 arrows lead to other slices: they end")


def test_arrows_lead_to_what_was_looked_at_more_than_evenly():
    targets = np.array([[9.0, 9.0], [1.0, 1.0], [5.0, 1.0]])
    arrows = map_layers.arrow_lines((1, 1), targets, (0.5, 0.3, 0.01), 0.1)
    np.testing.assert_array_equal(arrows, [[[1, 1], [8, 8]]])


def test_lines_are_as_thick_along_all_axes_and_lie_where_they_should(model):
    image = model.add_image(np.zeros((5, 8, 9)), scale=(4, 0.5, 0.7), rotate=(0, 0, 25), translate=(1, 2, 3))
    lines = np.array([[[1.0, 2, 3], [2, 4, 5]]])
    shown = layers.OurLayers(model).show_vectors(image, "arrows", lines, name="arrows")
    assert len(set(shown.scale)) == 1
    np.testing.assert_allclose(shown.data_to_world(shown.data[0, 0]), image.data_to_world((1, 2, 3)))
    np.testing.assert_allclose(shown.data_to_world(shown.data[0].sum(0)), image.data_to_world((3, 6, 8)))


def test_a_map_is_kept_as_a_copy_that_stays(model):
    image = model.add_image(np.zeros((8, 8)))
    ours = layers.OurLayers(model)
    state = layers.spatial_state(image)
    first = ours.show_map(image, "attention", np.ones((8, 8)), state, name="a", colormap="inferno", limits=(0, 1))
    kept = ours.keep(image, first)
    ours.show_map(image, "attention", np.zeros((8, 8)), state, name="b", colormap="inferno", limits=(0, 1))
    assert kept.data.all()
    assert kept.name == "a (kept)"
    assert layers.is_ours(kept), "it is not offered as a picture"


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
