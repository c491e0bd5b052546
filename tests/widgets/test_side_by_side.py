"""Before and after side by side: the same place in both canvases, and nothing left behind."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from qtpy.QtCore import QCoreApplication, QEvent

from napari_medt.widgets import texts
from napari_medt.widgets._compat import scene_camera
from napari_medt.widgets.side_by_side import SideBySide
from tests.widgets.conftest import WAIT_MS, card


@pytest.fixture
def compare(dock, walk, worker, qtbot):
    """Step 5 with another version to compare with."""
    walk.run(dock)
    walk.paint(dock, (80, 20))
    worker.session.cards.append(card(2))
    dock.review.refresh_models()
    step = dock.compare_step
    qtbot.waitUntil(lambda: step.version_box.count() == 2, timeout=WAIT_MS)

    def compare():
        dock.compare("quick@2")
        dock.wait()
        assert step.found is not None
        return step

    return compare


def widgets_left(qapp):
    """After what was said to be deleted is."""
    for _ in range(3):
        qapp.processEvents()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()
    return len(qapp.allWidgets())


def test_before_and_after_are_shown_while_there_is_something_to_decide(compare, dock, viewer, qapp):
    step = compare()
    assert step.views is None, "only who wants it has to wait for it"
    counts, gone = [widgets_left(qapp)], []
    for _ in range(3):
        step.side_by_side.setChecked(True)
        model = step.views.model
        labels = dock.review.work.snapshot()
        assert [layer.name for layer in model.layers][1::2] == ["Before: version 1", "After: version 2"]
        for layer, expected in zip(model.layers[1::2], (np.roll(labels, 4, axis=-1), labels), strict=True):
            np.testing.assert_array_equal(layer.data, expected)
        assert all(layer.data is viewer.layers["cells"].data for layer in model.layers[::2]), (
            "the picture is not copied"
        )
        gone.append(weakref.ref(model))
        del model, layer
        step.side_by_side.setChecked(False)
        assert step.views is None
        counts.append(widgets_left(qapp))
    assert counts == counts[:1] * 4
    assert [ref() for ref in gone] == [None] * 3

    step.side_by_side.setChecked(True)
    step.keep_old()
    assert step.views is None
    assert not step.side_by_side.isVisibleTo(step)
    compare()
    assert step.views is not None, "it was wanted for the comparison before"
    viewer.layers.remove("cells")
    dock.wait()
    assert step.views is None


def test_closing_the_view_in_the_window_unticks_it(compare, viewer, qtbot):
    step = compare()
    step.side_by_side.setChecked(True)
    viewer.window.remove_dock_widget(step.views)  # as its little cross does
    qtbot.waitUntil(lambda: not step.side_by_side.isChecked(), timeout=WAIT_MS)
    assert step.views is None


def test_both_canvases_show_the_same_place_at_the_same_scale(viewer, qapp):
    """Whichever is moved, turned or stepped through."""
    scan = viewer.add_image(np.zeros((6, 40, 50), np.uint8), scale=(3, 0.5, 0.5), units=("mm",) * 3)
    masks = [np.zeros((6, 40, 50), np.uint8)] * 2
    views = SideBySide(viewer, scan, masks, titles=texts.VIEWS, classes=2)
    model = views.model

    def state(of):
        camera, dims = scene_camera(of), of.dims
        return (
            *(np.round(np.ravel(getattr(camera, name)), 6).tolist() for name in ("center", "zoom", "angles")),
            *(tuple(camera.orientation), tuple(np.round(dims.point, 6)), dims.order, dims.ndisplay),
        )

    assert state(model) == state(viewer)
    for one, other in ((viewer, model), (model, viewer)):
        for move in (
            lambda of: of.dims.set_point(0, 9.0),
            lambda of: setattr(of.dims, "order", (1, 0, 2)),
            lambda of: setattr(scene_camera(of), "zoom", scene_camera(of).zoom * 1.7),
            lambda of: setattr(scene_camera(of), "center", tuple(np.add(scene_camera(of).center, (0, 1, 2)))),
            lambda of: setattr(of.dims, "ndisplay", 3),
            lambda of: setattr(scene_camera(of), "angles", tuple(np.add(scene_camera(of).angles, (5, 10, 15)))),
            lambda of: setattr(of.dims, "ndisplay", 2),
            lambda of: setattr(of.dims, "order", (0, 1, 2)),
            lambda of: of.dims.set_point(0, 0.0),
        ):
            before = state(one)
            move(one)
            assert state(one) != before
            assert state(other) == state(one)
    views.leave()
    scene_camera(viewer).zoom *= 2
    assert state(model) != state(viewer)
