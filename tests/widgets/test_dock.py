"""The dock as a user meets it: run, look, correct, learn, run again, and everything that can come in between."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtCore import Qt

from napari_medt.core import BadImage, MedtError, OutOfMemory
from napari_medt.widgets import layers, texts
from tests.widgets.conftest import card

WAIT_MS = 60_000


def names(viewer):
    return [layer.name for layer in viewer.layers]


def click(viewer, at, *, drag=0):
    """Press, move by `drag` canvas pixels, and release, as napari's canvas does."""
    event = SimpleNamespace(
        type="mouse_press",
        position=at,
        pos=np.array([100, 100]),
        button=1,
        modifiers=[],
        is_dragging=False,
        handled=False,
        view_direction=None,
        dims_displayed=(0, 1),
    )
    mouse_press_callbacks(viewer, event)
    if drag:
        event.type, event.pos, event.is_dragging = "mouse_move", np.array([100 + drag, 100]), True
        mouse_move_callbacks(viewer, event)
    event.type = "mouse_release"
    mouse_release_callbacks(viewer, event)


def test_the_whole_loop(dock, viewer, walk, qtbot, worker, cells):
    work = dock.review.work
    assert (dock.review.stage, names(viewer)) == ("run", ["cells", "Mask of cells"])
    assert dock.run_step.image_words.text() == "128 × 96 pixels, grey, 8-bit, 0.25 × 0.5 µm a pixel"

    found = walk.run(dock).copy()
    np.testing.assert_array_equal(found, cells > cells.mean())
    assert dock.review.stage == "look"
    assert "Quick cells took" in dock.run_step.message.text

    qtbot.waitUntil(dock.look_step.pick_button.isEnabled, timeout=WAIT_MS)
    dock.look_step.pick_button.click()
    image = viewer.layers["cells"]
    click(viewer, image.data_to_world((40, 90)))
    qtbot.waitUntil(lambda: dock.look_step.answered_query == (40, 90), timeout=WAIT_MS)
    shown = dock.review.layers.find(image, "attention")
    assert shown.data.shape == (8, 8)
    assert shown.data[40 // 12, 90 // 16] == 10, "times even attention"
    np.testing.assert_allclose(dock.review.layers.find(image, "point").data, [[40, 90]])
    assert dock.review.stage == "correct"

    walk.paint(dock, (80, 20))
    corrected = work.mask.data.copy()
    assert (corrected != found).any()
    assert dock.correct_step.undo_button.text() == "Undo: brush, cell"
    assert not dock.look_step.pick_button.isChecked(), "the brush takes the clicks now"
    walk.undo(dock)
    np.testing.assert_array_equal(work.mask.data, found)
    walk.redo(dock)
    assert dock.review.stage == "accept"

    dock.learn_step.learn(7)
    qtbot.waitUntil(lambda: dock.compare_step.found is not None, timeout=WAIT_MS)
    (lesson,) = worker.session.learnt[0]
    np.testing.assert_array_equal(lesson.labels, corrected)
    np.testing.assert_array_equal(lesson.edited, corrected != found)
    assert worker.session.learnt_with == [{"learns": "everything", "minutes": 7}]
    assert dock.learn_step.curve.losses == pytest.approx([1 / step for step in range(1, 6)])
    assert "Stored as quick@2" in dock.learn_step.message.text
    assert dock.review.model_key == "quick@1", "a new version is used only when it is accepted"
    dock.compare_step.accept_button.click()
    qtbot.waitUntil(lambda: dock.review.model_key == "quick@2", timeout=WAIT_MS)

    dock.run_step.run_button.click()
    qtbot.waitUntil(lambda: not dock.review.busy, timeout=WAIT_MS)
    np.testing.assert_array_equal(work.mask.data, found)
    assert work.model_key == "quick@2"
    walk.undo(dock)
    np.testing.assert_array_equal(work.mask.data, corrected)
    walk.undo(dock)
    walk.undo(dock)
    assert not work.mask.data.any(), "undo of the first run gives the empty mask back"
    assert worker.session.sent == 1, "the picture travels once"
    assert sum(layer.name.startswith("Mask") for layer in viewer.layers) == 1


def test_masks_lie_where_the_picture_lies(dock, viewer, walk):
    walk.run(dock)
    image, mask = viewer.layers["cells"], dock.review.work.mask
    np.testing.assert_allclose(mask.data_to_world((95, 127)), image.data_to_world((95, 127)))
    assert mask.units == image.units
    assert viewer.layers.selection.active is image


def test_a_cancelled_run_changes_nothing(dock, viewer, worker, qtbot):
    before = names(viewer)
    worker.session.gate.clear()
    dock.run_step.uncertainty.setChecked(True)
    dock.run_step.run_button.click()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    assert dock.run_step.run_button.text() == texts.CANCEL
    dock.run_step.run_button.click()
    qtbot.waitUntil(lambda: not dock.review.busy, timeout=WAIT_MS)
    assert names(viewer) == before
    assert not dock.review.work.mask.data.any()
    assert dock.review.work.untouched
    assert dock.run_step.message.text == texts.CANCELLED
    assert dock.run_step.run_button.text() == texts.RUN


def test_cancelled_learning_stores_nothing(dock, worker, walk, qtbot):
    walk.run(dock)
    walk.paint(dock, (60, 90))
    worker.session.gate.clear()
    worker.session.entered.clear()
    dock.learn_step.learn_button.click()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    dock.learn_step.learn_button.click()
    qtbot.waitUntil(lambda: not dock.review.busy, timeout=WAIT_MS)
    assert len(worker.session.cards) == 1
    assert dock.learn_step.message.text == texts.CANCELLED


def test_the_image_may_be_removed_during_a_run(dock, viewer, worker, cells, qtbot):
    other = viewer.add_image(cells[::-1], name="other")
    worker.session.gate.clear()
    dock.run_step.run()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    viewer.layers.remove("cells")
    worker.session.gate.set()
    qtbot.waitUntil(lambda: not dock.review.busy, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: dock.review.image is other and dock.review.work is not None, timeout=WAIT_MS)
    assert not dock.review.work.mask.data.any(), "the result of one picture must never land on another"
    assert "put aside" in dock.run_step.message.text


def test_without_an_image_the_dock_begins_at_run_again(dock, viewer, walk):
    walk.run(dock)
    dock.wait()
    dock.look_step.pick((40, 50))
    dock.wait()
    walk.paint(dock, (80, 20))
    assert len(viewer.layers) == 6, "picture, mask, map and marks"
    viewer.layers.selection.active = dock.review.layers.find(dock.review.image, "attention")
    viewer.layers.remove("cells")
    dock.wait()
    assert (dock.review.stage, dock.run_step.is_open, dock.correct_step.is_open) == ("run", True, False)
    assert [layer.name for layer in viewer.layers] == ["Mask of cells"], "what was drawn stays"
    assert dock.case_bar.open_button.property("primary")
    assert dock.run_step.message.text == texts.IMAGE_REMOVED.format(name="cells")


def test_what_a_layer_was_drawn_with_is_freed_where_it_was_drawn(dock, viewer, qtbot):
    """napari frees it at once, in whichever context is current; in another one a later drawing crashes."""
    from qtpy.QtGui import QOpenGLContext
    from qtpy.QtOpenGLWidgets import QOpenGLWidget

    (canvas,) = dock.window().centralWidget().findChildren(QOpenGLWidget)
    qtbot.waitUntil(canvas.isValid, timeout=WAIT_MS)
    current = []
    viewer.layers.events.removed.connect(lambda event: current.append(QOpenGLContext.currentContext()))
    canvas.doneCurrent()
    viewer.layers.remove("cells")
    assert current == [canvas.context()] * 2, "the picture and its empty mask"


def test_the_image_may_be_replaced_during_a_run(dock, viewer, worker, cells, qtbot):
    worker.session.gate.clear()
    dock.run_step.run()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    viewer.layers["cells"].data = cells[::-1].copy()
    worker.session.gate.set()
    qtbot.waitUntil(lambda: not dock.review.busy, timeout=WAIT_MS)
    assert not dock.review.work.mask.data.any()
    assert "put aside" in dock.run_step.message.text


def test_the_image_may_be_renamed_during_a_run(dock, viewer, worker, qtbot):
    worker.session.gate.clear()
    dock.run_step.run()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    viewer.layers["cells"].name = "slide 7"
    worker.session.gate.set()
    qtbot.waitUntil(lambda: not dock.review.busy, timeout=WAIT_MS)
    assert dock.review.work.mask.data.any()
    qtbot.waitUntil(lambda: dock.run_step.image_box.currentText() == "slide 7", timeout=WAIT_MS)


def test_the_mask_may_be_removed_during_a_run(dock, viewer, worker, qtbot):
    worker.session.gate.clear()
    dock.run_step.run()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    viewer.layers.remove("Mask of cells")
    worker.session.gate.set()
    qtbot.waitUntil(lambda: not dock.review.busy, timeout=WAIT_MS)
    assert dock.review.work.mask in viewer.layers
    assert dock.review.work.mask.data.any()


def test_an_error_is_a_sentence_that_stays(dock, worker, walk, qtbot):
    worker.session.fail = OutOfMemory("Memory ran out", remedy="close other programs")
    dock.run_step.run()
    qtbot.waitUntil(lambda: not dock.review.busy, timeout=WAIT_MS)
    message = dock.run_step.message
    assert message.text == "Memory ran out; close other programs."
    assert message.kind == "error"
    message.say("Something else happened.")
    assert message.text.startswith("Memory ran out"), "an unread error is not overwritten"
    worker.session.fail = None
    walk.run(dock)
    assert message.kind == "good"


def test_uncertainty_is_one_layer_over_the_picture(dock, viewer, walk):
    dock.run_step.uncertainty.setChecked(True)
    walk.run(dock)
    walk.run(dock)
    assert names(viewer) == ["cells", "Mask of cells", "Unsure places of cells"]


def test_one_map_is_replaced_by_the_next(dock, viewer, walk, qtbot):
    walk.run(dock)
    look = dock.look_step
    qtbot.waitUntil(look.pick_button.isEnabled, timeout=WAIT_MS)
    for query in ((5, 5), (90, 120)):
        look.pick(query)
        qtbot.waitUntil(lambda query=query: look.answered_query == query, timeout=WAIT_MS)
    count = len(viewer.layers)
    look.source_box.setCurrentIndex(look.source_box.findData("local.layer1.0"))
    image = viewer.layers["cells"]
    shown = dock.review.layers.find(image, "attention")
    qtbot.waitUntil(lambda: "Local" in shown.name, timeout=WAIT_MS)
    corner = shown.data_to_world((-0.5, -0.5))
    np.testing.assert_allclose(image.world_to_data(corner), (72 - 0.5, 96 - 0.5))
    window = dock.review.layers.find(image, "window")
    framed = np.array([image.world_to_data(window.data_to_world(line[0])) for line in window.data])
    np.testing.assert_allclose(framed.min(axis=0), (72 - 0.5, 96 - 0.5), atol=1e-5)
    assert not shown.bounding_box.visible, "one frame around the patch, not two"
    look.show_mean()
    qtbot.waitUntil(lambda: shown.data.shape == (96, 128), timeout=WAIT_MS)
    assert not shown.bounding_box.visible
    assert len(viewer.layers) == count


def test_a_script_asks_as_a_click_does(dock, viewer):
    dock.wait().run()
    dock.wait().look("level2")
    dock.wait()
    assert dock.look_step.map_shown.source == "level2"
    dock.look(at=(40, 90))
    assert dock.wait().look_step.answered_query == (40, 90)
    with pytest.raises(MedtError, match="has no attention called 'level9'; choose one of global.layer1.0"):
        dock.look("level9")


def test_a_drag_moves_the_picture_and_asks_nothing(dock, viewer, walk, qtbot):
    walk.run(dock)
    qtbot.waitUntil(dock.look_step.pick_button.isEnabled, timeout=WAIT_MS)
    dock.look_step.pick_button.click()
    click(viewer, viewer.layers["cells"].data_to_world((40, 90)), drag=40)
    qtbot.wait(100)
    assert dock.look_step.answered_query is None


def test_a_click_beside_the_picture_says_so(dock, viewer, walk, qtbot):
    walk.run(dock)
    qtbot.waitUntil(dock.look_step.pick_button.isEnabled, timeout=WAIT_MS)
    dock.look_step.pick_world((1000, 1000))
    assert dock.look_step.message.text == texts.OUTSIDE


def test_clicks_faster_than_answers_end_at_the_last(dock, walk, qtbot):
    walk.run(dock)
    look = dock.look_step
    qtbot.waitUntil(look.pick_button.isEnabled, timeout=WAIT_MS)
    for x in range(10, 60, 10):
        look.pick((30, x))
    qtbot.waitUntil(lambda: look.answered_query == (30, 50), timeout=WAIT_MS)


def test_saving_and_loading_a_mask(dock, viewer, walk, qtbot, tmp_path):
    from napari_medt.io import read_labels

    found = walk.run(dock).copy()
    dock.correct_step.save(tmp_path / "mask.tif")
    qtbot.waitUntil(lambda: "Saved as mask.tif" in dock.correct_step.message.text, timeout=WAIT_MS)
    labels, geometry = read_labels(tmp_path / "mask.tif")
    np.testing.assert_array_equal(labels, found)
    assert geometry.spacing == pytest.approx((0.5, 0.25))
    assert geometry.units == "um"
    walk.undo(dock)
    dock.correct_step.load(tmp_path / "mask.tif")
    qtbot.waitUntil(lambda: dock.review.work.undo_name == "mask from mask.tif", timeout=WAIT_MS)
    np.testing.assert_array_equal(dock.review.work.mask.data, found)
    work, told = dock.review.work, []
    assert work.timeline.changes[-1].by == "file"
    assert not dock.cases.who(), "nobody vouched for what a file says"
    work.on_case(lambda case: told.append([line.facts for line in case.log.lines() if line.what == "loaded"]))
    qtbot.waitUntil(lambda: bool(told), timeout=WAIT_MS)
    assert told == [[{"file": "mask.tif"}]]


def test_a_mask_of_another_size_is_refused(dock, qtbot, tmp_path):
    from napari_medt.io import write

    write(np.ones((9, 9), np.uint8), tmp_path / "small.tif")
    dock.correct_step.load(tmp_path / "small.tif")
    qtbot.waitUntil(lambda: dock.correct_step.message.kind == "error", timeout=WAIT_MS)
    assert "small.tif is 9 × 9, but the picture is 128 × 96" in dock.correct_step.message.text


def test_tools_are_naparis_own(dock, viewer, walk, qtbot):
    walk.run(dock)
    mask = dock.review.work.mask
    for mode, button in dock.correct_step.tool_buttons.items():
        button.click()
        assert str(mask.mode) == mode
        assert viewer.layers.selection.active is mask
        assert button.isChecked()
    dock.correct_step.size_box.setValue(23)
    assert mask.brush_size == 23
    mask.brush_size = 7
    assert dock.correct_step.size_box.value() == 7


def test_undo_and_redo_work_anywhere_in_the_window(dock, viewer, walk, qtbot):
    found = walk.run(dock).copy()
    walk.paint(dock, (80, 20))
    work, window = dock.review.work, dock.window()
    assert window is not dock
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=WAIT_MS)
    viewer.layers.selection.active = viewer.layers["cells"]
    control = Qt.KeyboardModifier.ControlModifier
    qtbot.keyClick(window, Qt.Key.Key_Z, control)
    qtbot.waitUntil(lambda: work.depth == 1, timeout=WAIT_MS)
    np.testing.assert_array_equal(work.mask.data, found)
    qtbot.keyClick(window, Qt.Key.Key_Z, control | Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: work.depth == 2, timeout=WAIT_MS)


def test_images_in_the_chooser_follow_the_viewer(dock, viewer, walk, qtbot, cells):
    box = dock.run_step.image_box
    other = viewer.add_image(cells, name="other")
    walk.run(dock)
    qtbot.waitUntil(lambda: box.count() == 2, timeout=WAIT_MS)
    assert [box.itemText(i) for i in range(2)] == ["other", "cells"], "our own layers are not offered"
    box.setCurrentIndex(0)
    assert dock.review.image is other
    assert names(viewer) == ["cells", "Mask of cells", "other", "Mask of other"]
    box.setCurrentIndex(1)
    assert dock.review.work.depth == 1, "the history of the first picture was kept"
    assert names(viewer) == ["cells", "Mask of cells", "other"], "an untouched mask goes with its picture"


def test_a_picture_that_cannot_be_used_says_why(dock, viewer, qtbot):
    odd = viewer.add_image(np.zeros((2, 3, 16, 16), np.uint8), name="odd")
    qtbot.waitUntil(lambda: dock.run_step.image_box.count() == 2, timeout=WAIT_MS)
    dock.run_step.image_box.setCurrentIndex(dock.run_step.image_box.findText("odd"))
    assert dock.review.image is odd
    assert "4 axes" in dock.run_step.image_words.text()
    assert not dock.run_step.run_button.isEnabled()
    with pytest.raises(BadImage):
        layers.take(odd)


def test_the_best_model_for_the_picture_is_taken_until_the_user_takes_another(viewer, worker, open_dock, qtbot, cells):
    plain, best = worker.session.cards[0], card(name="best")
    worker.session.cards = [plain, best]
    worker.session.suits = (best.key,)
    viewer.add_image(cells, name="cells")
    dock = open_dock(worker)
    dock.wait()
    box = dock.run_step.model_box
    assert dock.review.model_key == best.key
    assert [box.itemData(row) for row in range(box.count())] == [best.key, None, plain.key], "the rest is under a line"

    dock.run_step.choose(plain.key)
    viewer.add_image(cells.T, name="others")
    dock.wait()
    dock.run_step.image_box.setCurrentIndex(0)
    dock.wait()
    assert dock.review.image.name == "others"
    assert dock.review.model_key == plain.key, "the user is not overruled"


def test_without_an_image_the_dock_says_what_to_do(viewer, worker, open_dock):
    dock = open_dock(worker)
    assert dock.run_step.image_words.text() == texts.NO_IMAGE_HINT
    assert not dock.run_step.run_button.isEnabled()
    assert not dock.learn_step.learn_button.isEnabled()
    assert dock.case_bar.open_button.property("primary"), "which opens one"


def test_scans_are_run_and_looked_at_as_volumes(viewer, worker, open_dock, walk, qtbot, cells):
    scan = viewer.add_image(np.stack([cells] * 5), name="scan", scale=(4, 1, 1))
    dock = open_dock(worker)
    qtbot.waitUntil(dock.run_step.run_button.isEnabled, timeout=WAIT_MS)
    walk.run(dock)
    assert dock.review.work.mask.data.shape == scan.data.shape
    qtbot.waitUntil(dock.look_step.pick_button.isEnabled, timeout=WAIT_MS)
    viewer.dims.set_point(0, 4)
    dock.look_step.pick_button.click()
    dock.look_step.pick_world(scan.data_to_world((1, 40, 90)))
    qtbot.waitUntil(lambda: dock.look_step.answered_query == (1, 40, 90), timeout=WAIT_MS)
    shown = dock.review.layers.find(scan, "attention")
    np.testing.assert_allclose(shown.data_to_world((-0.5,) * 3), scan.data_to_world((-0.5,) * 3))
    assert shown.data[tuple(np.rint(shown.world_to_data(scan.data_to_world((1, 40, 90)))).astype(int))] == 10


def test_closing_the_dock_ends_the_process_and_leaves_the_mask(dock, viewer, walk, qtbot, monkeypatch, worker):
    closed = []
    monkeypatch.setattr(worker, "close", lambda: closed.append(True))
    walk.run(dock)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.review.closed, timeout=WAIT_MS)
    assert closed == [True]
    assert "Mask of cells" in names(viewer)
    assert dock.look_step.picking._on_mouse not in viewer.mouse_drag_callbacks


def test_closing_without_a_change_leaves_no_trace(dock, viewer, medt_home):
    dock.close_review()
    assert names(viewer) == ["cells"]
    assert not (medt_home / "cases").exists()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_theme_is_followed(dock, viewer, theme):
    viewer.theme = theme
    background = dock.palette().window().color().lightness()
    assert (background < 128) == (theme == "dark")


def test_another_picture_in_the_layer_gets_a_mask_of_its_own(dock, until):
    work, image = dock.review.work, dock.review.image
    former, mask = image.data, work.mask
    mask.data[5:9, 5:9] = 1
    work.flush(everywhere=True)
    drawn = mask.data.copy()
    image.data = former[::-1].copy()
    until(lambda: dock.review.work not in (work, None))
    assert not dock.review.work.mask.data.any()
    assert not mask.visible
    np.testing.assert_array_equal(mask.data, drawn)
    image.data = former
    until(lambda: dock.review.work is not None and dock.review.work.found is not None)
    np.testing.assert_array_equal(dock.review.work.found.labels, drawn)


def test_the_same_picture_put_in_again_changes_nothing(dock, qtbot):
    work, image = dock.review.work, dock.review.image
    work.mask.data[5:9, 5:9] = 1
    work.flush(everywhere=True)
    image.data = image.data
    qtbot.wait(100)
    assert dock.review.work is work
