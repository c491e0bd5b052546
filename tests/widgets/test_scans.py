"""Scans of patients in the dock: where a run goes, what is said before it, how it is looked at, and where its mask is saved."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel

from napari_medt._napari_io import get_reader, write_labels
from napari_medt.core import Geometry, MedtError
from napari_medt.engine.running import predict
from napari_medt.io import read, read_segmentation, write
from napari_medt.widgets import layers, texts
from napari_medt.widgets.answers import Doubt, Hint
from napari_medt.widgets.compass import Compass, edges
from napari_medt.widgets.doubts import centre_on
from napari_medt.widgets.map_layers import frame_lines
from napari_medt.widgets.mask_files import mask_endings
from napari_medt.widgets.more import box_of, this_slice
from napari_medt.widgets.session import Session
from napari_medt.widgets.straight import region_of_scan
from napari_medt.zoo import load_model

pytest.importorskip("nibabel")
WAIT_MS = 60_000
SHAPE = (5, 24, 32)


@pytest.fixture
def scan_file(tmp_path):
    """A scan that runs down, to the front and to the right: each axis is turned round for display."""
    affine = np.diag([-3.0, -2.0, -1.0, 1.0])
    affine[:3, 3] = (10, 20, 30)
    path = tmp_path / "scan.nii.gz"
    values = np.random.default_rng(1).integers(0, 500, SHAPE).astype(np.int16)
    write(values.astype(np.float32), path, geometry=Geometry(affine, "mm", "patient"))
    return path


def opened(viewer, path):
    (layer,) = [layer for data in get_reader(str(path))(str(path)) for layer in viewer._add_layer_from_data(*data)]
    return layer


@pytest.fixture
def scan(viewer, worker, open_dock, scan_file, qtbot):
    image = opened(viewer, scan_file)
    dock = open_dock(worker)
    qtbot.waitUntil(dock.run_step.run_button.isEnabled, timeout=WAIT_MS)
    return dock, image


def test_a_mask_made_in_the_dock_is_saved_on_the_grid_of_the_file(scan, scan_file, walk, qtbot, tmp_path):
    dock, _ = scan
    shown = walk.run(dock).copy()
    dock.correct_step.save(tmp_path / "mask.seg.nrrd")
    qtbot.waitUntil(lambda: "Saved as mask.seg.nrrd" in dock.correct_step.message.text, timeout=WAIT_MS)
    saved = read_segmentation(tmp_path / "mask.seg.nrrd")[0]
    np.testing.assert_array_equal(saved.array, shown[::-1, ::-1, ::-1])
    np.testing.assert_allclose(np.diag(saved.geometry.affine), (-3, -2, -1, 1), atol=1e-4)
    assert saved.names[1] == "cell"
    dock.correct_step.undo()
    qtbot.waitUntil(lambda: not dock.review.work.mask.data.any(), timeout=WAIT_MS)
    dock.correct_step.load(tmp_path / "mask.seg.nrrd")
    qtbot.waitUntil(lambda: dock.review.work.undo_name == "mask from mask.seg.nrrd", timeout=WAIT_MS)
    np.testing.assert_array_equal(dock.review.work.mask.data, shown)


def test_the_image_goes_to_the_model_with_its_place(scan, walk, worker):
    dock, image = scan
    walk.run(dock)
    (volume,) = worker.session.images.values()
    assert volume.geometry.frame == "patient"
    assert volume.geometry.orientation == "SPL"
    np.testing.assert_allclose(volume.geometry.position((4, 23, 31)), image.data_to_world((4, 23, 31)))


def test_the_usual_run_has_no_wishes(scan, walk, worker):
    dock, _ = scan
    assert dock.run_step.more.isHidden()
    walk.run(dock)
    assert worker.session.ran_with == [{"uncertainty": False, "roi": None}]


def test_only_the_slice_that_is_shown_is_changed(scan, viewer, walk, worker, qtbot):
    dock, image = scan
    whole = walk.run(dock).copy()
    walk.paint(dock, (1, 5, 5), size=3, label=1)
    painted = dock.review.work.snapshot()
    box = dock.run_step.more.region_box
    box.setCurrentIndex(box.findText(texts.THIS_SLICE))
    viewer.dims.set_point(0, image.data_to_world((3, 0, 0))[0])
    dock.review.work.mask.data[3] = 0
    walk.run(dock)
    assert worker.session.ran_with[-1]["roi"] == (slice(3, 4), slice(0, 24), slice(0, 32))
    now = dock.review.work.snapshot()
    np.testing.assert_array_equal(now[3], whole[3])
    np.testing.assert_array_equal(now[[0, 1, 2, 4]], painted[[0, 1, 2, 4]])
    assert box.currentText() == texts.THIS_SLICE, "the choice stays for the next run"


def test_wishes_are_passed_on(scan, walk, worker):
    dock, _ = scan
    more = dock.run_step.more
    dock.run_step.more_button.click()
    assert not more.isHidden()
    assert not more.plane_box.isHidden(), "the model sees one slice at a time"
    assert more.plane_box.currentText() == "As acquired"
    more.plane_box.setCurrentIndex(more.plane_box.findData("coronal"))
    more.doubt_box.setCurrentIndex(more.doubt_box.findData("margin"))
    more.mirror.setChecked(True)
    more.compute_box.setCurrentText("tcp://gpu:8786")
    dock.run_step.uncertainty.setChecked(True)
    walk.run(dock)
    wanted = {"uncertainty": "margin", "plane": "coronal", "flips": True, "compute": "tcp://gpu:8786", "roi": None}
    assert worker.session.ran_with == [wanted]


def test_a_plane_that_is_chosen_is_passed_on_whichever_it_is(scan):
    dock, image = scan
    more = dock.run_step.more
    dock.run_step.more_button.click()
    assert "plane" not in more.wishes(image)
    more.plane_box.setCurrentIndex(more.plane_box.findData("axial"))
    assert more.wishes(image)["plane"] == "axial"


def test_what_a_run_takes_is_said_before_it(scan, qtbot):
    dock, _ = scan
    qtbot.waitUntil(lambda: not dock.run_step.ahead.isHidden(), timeout=WAIT_MS)
    assert dock.run_step.ahead.text() == "40 windows, about 310 MB of memory"


def test_a_misfit_is_said_and_mended_by_a_click(scan, worker, qtbot):
    dock, _ = scan
    worker.session.hints = (Hint("The values begin at 0", "subtract 1024", "shift values", (-1024.0,)),)
    dock.run_step.more.changed.emit()
    hints = dock.run_step.hints
    qtbot.waitUntil(lambda: not hints.isHidden(), timeout=WAIT_MS)
    from qtpy.QtWidgets import QLabel, QToolButton

    assert [label.text() for label in hints.findChildren(QLabel)] == ["The values begin at 0; subtract 1024."]
    (button,) = hints.findChildren(QToolButton)
    (fix,) = worker.session.hints
    worker.session.hints = ()
    button.click()
    qtbot.waitUntil(lambda: worker.session.fixes == (fix,), timeout=WAIT_MS)
    qtbot.waitUntil(hints.isHidden, timeout=WAIT_MS)


def test_doubtful_places_are_gone_through(scan, viewer, walk, worker):
    dock, image = scan
    places = [image.data_to_world(index) for index in ((4, 20, 3), (1, 2, 30))]
    worker.session.doubtful = (Doubt(places[0], 2000.0, 0.8, "cell"), Doubt(places[1], 30.0, 0.5))
    doubts = dock.look_step.doubts
    assert doubts.isHidden()
    walk.run(dock)
    assert not doubts.isHidden()
    assert doubts.title.text() == "Doubtful places: 2"
    assert doubts.list.item(0).text() == "1.  cell, 2 ml, unsure by 80 %"
    doubts.on.click()
    assert viewer.dims.point[0] == places[0][0]
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], places[0][1:])
    doubts.on.click()
    assert viewer.dims.point[0] == places[1][0]
    doubts.on.click()
    assert doubts.list.currentRow() == 0


def test_letters_stand_at_the_edges(scan, viewer):
    dock, _ = scan

    def letters():
        found = viewer.canvas.overlays
        return [found[f"medt_{edge}"].text for edge in ("top", "left", "right", "bottom")]

    assert letters() == ["A", "R", "L", "P"]
    viewer.dims.order = (1, 0, 2)
    assert letters() == ["S", "R", "L", "I"]
    assert str(viewer.scene.camera.orientation2d[0]) == "up", "heads are up"
    viewer.dims.order = (2, 0, 1)
    assert letters() == ["S", "A", "P", "I"]
    viewer.dims.ndisplay = 3
    assert not any(name.startswith("medt_") for name in viewer.canvas.overlays)
    viewer.dims.ndisplay = 2
    dock.close_review()
    assert not any(name.startswith("medt_") for name in viewer.canvas.overlays)


def test_frames_between_slices_leave_the_sliders_on_them(scan, viewer):
    dock, image = scan
    viewer.dims.set_current_step(0, 3)
    before = viewer.dims.range, viewer.dims.point

    def frame():
        lines = frame_lines([[-0.5] * 3, np.array(SHAPE) - 0.5], (3, 4, 5))
        dock.review.layers.show_vectors(image, "window", lines, name="window")

    frame()
    assert (viewer.dims.range, viewer.dims.point) == before, "the frame is finer, and begins half a slice before"
    image.events.translate()  # the viewer measures all layers anew
    assert (viewer.dims.range, viewer.dims.point) == before
    other = viewer.add_image(np.zeros((7, 24, 32)), **layers.spatial_state(image))
    assert viewer.dims.nsteps[0] == 7
    viewer.layers.remove(other)
    assert viewer.dims.range == before[0]
    dock.close_review()
    image.events.translate()
    assert viewer.dims.range != before[0], "left to napari"


# ------------------------------------------------------------------------------------------------- without a window


@pytest.fixture
def model():
    return ViewerModel()


def test_pictures_that_lie_in_no_patient_have_no_letters(model):
    image = model.add_image(np.zeros(SHAPE))
    compass = Compass(model)
    compass.follow(image)
    assert not any(name.startswith("medt_") for name in model.canvas.overlays)
    compass.close()


def test_edges_are_opposite():
    assert edges((1, 2)) == ("A", "R", "L", "P")
    assert edges((0, 2), upwards=True) == ("S", "R", "L", "I")


def test_the_slice_is_that_of_the_hidden_axis(model):
    image = model.add_image(np.zeros(SHAPE), scale=(3, 2, 1), translate=(10, 0, 0))
    model.dims.set_point(0, 16)
    assert this_slice(model, image)[0] == slice(2, 3)
    model.dims.order = (1, 0, 2)
    model.dims.set_point(1, 8)
    assert this_slice(model, image) == (slice(0, 5), slice(4, 5), slice(0, 32))
    model.dims.ndisplay = 3
    with pytest.raises(MedtError, match="shown in 3D"):
        this_slice(model, image)


def test_a_box_is_that_around_the_shapes(model):
    image = model.add_image(np.zeros(SHAPE), scale=(3, 2, 1), translate=(0, 4, 0))
    shapes = model.add_shapes(ndim=3)
    with pytest.raises(MedtError, match="Nothing is drawn"):
        box_of(shapes, image)
    flat = np.array([[3, 8, 5], [3, 8, 9], [3, 20, 9], [3, 20, 5]])
    shapes.add_rectangles(flat)
    assert box_of(shapes, image) == (slice(0, 5), slice(2, 9), slice(5, 10))
    shapes.add_rectangles(np.add(flat, (6, 0, 0)))
    assert box_of(shapes, image)[0] == slice(1, 4)
    beside = model.add_shapes([np.array([[500, 500], [500, 600], [600, 600], [600, 500]])])
    with pytest.raises(MedtError, match="beside the picture"):
        box_of(beside, image)


def test_a_place_is_shown_in_the_middle(model):
    model.add_image(np.zeros(SHAPE), scale=(3, 2, 1))
    centre_on(model, (6, 10, 20))
    assert model.dims.point[0] == 6
    np.testing.assert_allclose(model.scene.camera.center[-2:], (10, 20))


def test_formats_offered_begin_with_that_of_the_image(model, scan_file):
    assert mask_endings(opened(model, scan_file))[0] == ".nii.gz"
    flat = model.add_image(np.zeros((8, 9)))
    assert mask_endings(flat)[0] == ".tif"
    assert ".png" in mask_endings(flat)
    assert ".dcm" not in mask_endings(flat)
    assert set(mask_endings(flat)) <= set(texts.ENDINGS)


def test_a_fix_makes_another_picture_of_the_same_layer(model):
    image = model.add_image(np.zeros((8, 9)))
    before = layers.take(image)
    fix = Hint("what", "remedy", "shift values", (-1024.0,))
    layers.add_fixes(image, [fix])
    after = layers.take(image)
    assert after.fixes == (fix,)
    assert after.token != before.token
    assert after.still_there(model) is image


@pytest.fixture
def oblique_file(tmp_path):
    """A scan turned by 20 degrees about the line from right to left, and axes that run down, to the front and right."""
    turn = np.radians(20)
    about = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about @ np.diag([-3.0, -2.0, -1.0])
    values = np.random.default_rng(1).integers(0, 500, SHAPE).astype(np.float32)
    return write(values, tmp_path / "oblique.nii.gz", geometry=Geometry(affine, "mm", "patient"))


def test_a_scan_at_an_angle_is_segmented_as_it_lies_and_saved_to_the_voxel(model, oblique_file, tiny_model, tmp_path):
    image = opened(model, oblique_file)
    picture = layers.take(image)
    session = Session()
    session.put_image("token", picture.load(), (), picture.scan)
    found = session.predict("token", tiny_model, "cpu", uncertainty=True)
    straight = predict(load_model(tiny_model, device="cpu"), picture.scan)
    np.testing.assert_array_equal(found.on_scan, straight.labels)
    assert found.prediction.labels.shape == found.prediction.uncertainty.shape == image.data.shape != SHAPE
    mask = layers.OurLayers(model).add_mask(image, found.prediction.labels.copy(), classes=2)
    layers.made_of(mask, found.on_scan)

    def saved():
        write_labels(str(tmp_path / "mask.nii.gz"), *mask.as_layer_data_tuple()[:2])
        return read(tmp_path / "mask.nii.gz")

    back = saved()
    np.testing.assert_array_equal(back.array[0], straight.labels[::-1, ::-1, ::-1])
    assert back.geometry.close_to(read(oblique_file).geometry, shape=SHAPE)
    box = (slice(3, 6), slice(8, 12), slice(10, 15))
    mask.data[box] = 7
    changed = np.argwhere(saved().array[0] != back.array[0])
    allowed = region_of_scan(box, picture.load(), picture.scan)
    assert len(changed) > 10
    for axis, part in enumerate(allowed):
        places = SHAPE[axis] - 1 - changed[:, axis]
        assert part.start <= places.min() <= places.max() < part.stop


def test_a_region_of_the_straight_copy_lies_in_that_of_the_scan(model, oblique_file):
    picture = layers.take(opened(model, oblique_file))
    shown, scan = picture.load(), picture.scan
    box = (slice(2, 4), slice(5, 9), slice(3, 30))
    found = region_of_scan(box, shown, scan)
    assert found != tuple(slice(0, n) for n in scan.spatial_shape)
    places = np.stack(np.meshgrid(*(np.arange(part.start, part.stop) for part in box), indexing="ij"), -1)
    inside = np.rint(scan.geometry.index(shown.geometry.position(places.reshape(-1, 3))))
    inside = inside[((inside >= 0) & (inside < scan.spatial_shape)).all(axis=1)]
    assert (inside >= [part.start for part in found]).all()
    assert (inside < [part.stop for part in found]).all()
    with pytest.raises(MedtError, match="does not reach"):
        region_of_scan((slice(0, 1), slice(0, 1), slice(0, 1)), shown, scan)


def test_a_filtered_copy_is_not_taken_for_the_scan(model, oblique_file):
    image = opened(model, oblique_file)
    image.data = image.data + 1
    assert layers.take(image).scan is None


@pytest.mark.parametrize("rgb", [False, True])
def test_what_is_read_from_disk_is_handed_over_unread(model, monkeypatch, rgb):
    read_parts = []

    def values(block_info=None):
        read_parts.append(block_info)
        return np.ones(block_info[None]["chunk-shape"], np.uint8)

    shape, chunks = ((8, 64, 3), (4, 16, 3)) if rgb else ((8, 16, 64), (4, 8, 16))
    data = da.map_blocks(values, chunks=da.core.normalize_chunks(chunks, shape), dtype=np.uint8)
    monkeypatch.setattr(layers, "WHOLE_BYTES", 0)
    image = model.add_image(data, rgb=rgb, contrast_limits=(0, 1))
    read_parts.clear()
    monkeypatch.setattr(layers.pickle, "dumps", lambda data: b"")
    volume = layers.take(image).load()
    assert not read_parts
    assert volume.array.shape == ((3, 8, 64) if rgb else (1, 8, 16, 64))
    assert volume.is_rgb == rgb


def test_a_layer_that_was_moved_is_another_picture(model):
    image = model.add_image(np.zeros((8, 9)))
    before = layers.take(image).token
    image.scale = (2, 2)
    assert layers.take(image).token != before
