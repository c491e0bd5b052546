"""The whole loop: by its Python interface, by mouse and keys in the real window, and what keeps a worse version out."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QToolButton, QWidget

from napari_medt.cases import CaseFolder
from napari_medt.core import MedtError, Volume
from napari_medt.widgets import ReviewDock, texts
from napari_medt.widgets._compat import scene_camera
from napari_medt.widgets.answers import Doubt

WAIT_MS = 60_000


@pytest.fixture
def done(dock, walk, worker):
    """The dock with a mask that was run, painted on and accepted."""
    worker.session.doubtful = (Doubt((8.0, 20.0), 30.0, 0.6, "cell"),)
    dock.run()
    dock.wait()
    walk.paint(dock, (80, 20))
    dock.accept()
    dock.wait()
    return dock


def bright(dock):
    """Names of the controls that are bright and can be used."""
    made = [widget for widget in dock.findChildren(QWidget) if widget.property("primary") and widget.isVisible()]
    return [widget.objectName() for widget in made if widget.isEnabled()]


def test_the_loop_in_python(dock, walk, worker, viewer):
    assert isinstance(dock, ReviewDock)
    dock.wait()
    assert (dock.busy, bright(dock)) == (False, ["run"])
    worker.session.doubtful = (Doubt((8.0, 20.0), 30.0, 0.6, "cell"),)
    dock.run()
    assert dock.busy
    dock.wait()
    found = dock.review.work.snapshot()
    assert bright(dock) == ["next_doubt"]
    dock.next_doubtful()
    np.testing.assert_allclose(scene_camera(viewer).center[-2:], (8, 20))
    walk.paint(dock, (80, 20))
    assert bright(dock) == ["accept"]
    dock.accept()
    dock.wait()
    assert dock.cases.state == "accepted"
    assert bright(dock) == ["learn"]

    dock.learn(minutes=3)
    dock.wait()
    assert worker.session.learnt_with[-1]["minutes"] == 3
    (lesson,) = worker.session.learnt[-1]
    assert lesson.accepted
    assert lesson.who.current
    assert dock.compare_step.found.new == "quick@2"
    assert bright(dock) == ["accept_new"]
    dock.compare_step.accept_new()
    dock.wait()
    assert (dock.review.model_key, bright(dock)) == ("quick@2", ["learn"]), "what is signed is not run over"

    corrected = dock.review.work.snapshot()
    dock.undo()
    dock.wait()
    np.testing.assert_array_equal(dock.review.work.snapshot(), found)
    dock.redo()
    dock.wait()
    np.testing.assert_array_equal(dock.review.work.snapshot(), corrected)
    dock.open_case("/nowhere/at/all.tif")
    with pytest.raises(MedtError, match="all.tif"):
        dock.wait()


def test_mouse_and_keys_walk_the_loop_in_six_actions(dock, viewer, worker, qtbot):
    """Every press of a button or key counts; the stroke belongs to its tool."""
    worker.session.doubtful = (Doubt((8.0, 20.0), 30.0, 0.6, "cell"),)
    dock.wait()
    canvas = next(w for w in dock.window().findChildren(QWidget) if "CanvasBackend" in type(w).__name__)
    actions = []

    def press(what, modifier=Qt.KeyboardModifier.NoModifier):
        actions.append(what)
        if isinstance(what, QWidget):
            dock.scroll.ensureWidgetVisible(what)
            qtbot.mouseClick(what, Qt.MouseButton.LeftButton)
        else:
            qtbot.keyClick(canvas, what, modifier)
        dock.wait()

    press(dock.run_step.run_button)
    mask = dock.review.work.mask
    found = mask.data.copy()
    press(Qt.Key.Key_J)
    np.testing.assert_allclose(scene_camera(viewer).center[-2:], (8, 20))
    press(dock.correct_step.brush_button)
    dock.correct_step.size_box.setValue(9)
    zoom, middle = scene_camera(viewer).zoom, np.array([canvas.height(), canvas.width()]) / 2
    strokes = [middle + np.array([0, step]) * zoom for step in (0.0, 1.0, 2.0)]
    points = [QPoint(round(x), round(y)) for y, x in strokes]
    qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=points[0])
    for point in points:
        qtbot.mouseMove(canvas, point)
    qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=points[-1])
    qtbot.waitUntil(lambda: dock.review.work.edits > 0, timeout=WAIT_MS)
    changed = np.argwhere(mask.data != found)
    world = [mask.data_to_world(place) for place in changed]
    assert np.abs(np.mean(world, axis=0) - (8, 21)).max() < 2, "paint lies where the mouse was"
    press(Qt.Key.Key_A)
    assert dock.cases.state == "accepted"
    press(Qt.Key.Key_L, Qt.KeyboardModifier.ShiftModifier)
    assert dock.compare_step.found is not None, "what was learnt is compared unasked"
    press(Qt.Key.Key_Y, Qt.KeyboardModifier.ShiftModifier)
    assert dock.review.model_key == "quick@2"
    assert len(actions) <= 6


def test_keys_work_while_the_dock_has_the_focus(dock, qtbot):
    dock.wait()
    dock.run_step.run_button.setFocus()
    dock.window().activateWindow()
    qtbot.keyClick(dock.run_step.run_button, Qt.Key.Key_R, Qt.KeyboardModifier.ShiftModifier)
    dock.wait()
    assert dock.review.work.model_key == "quick@1"


def test_a_worse_version_is_kept_out_unless_the_user_insists(done, worker):
    dock, step = done, done.compare_step
    worker.session.after = 0.2
    dock.learn(1)
    dock.wait()
    assert step.found.verdict.worse
    assert "falls from 0.50 to 0.20" in step.verdict.text()
    assert bright(dock) == ["keep_old"]
    step.accept_new()
    assert not step.accept_button.isEnabled()
    step.back_button.click()
    dock.wait()
    assert dock.review.model_key == "quick@1", "neither a key nor the list of versions gets past it"
    step.insist.setChecked(True)
    assert step.back_button.isEnabled()
    step.keep_button.click()
    step.version_box.setCurrentIndex(step.version_box.findData("quick@2"))
    assert not step.back_button.isEnabled(), "nor once the comparison was put away"
    assert not step.insist.isHidden()
    step.compare_button.click()
    dock.wait()
    assert step.found.verdict.worse
    step.insist.setChecked(True)
    step.accept_button.click()
    dock.wait()
    assert dock.review.model_key == "quick@2"
    step.version_box.setCurrentIndex(step.version_box.findData("quick@1"))
    step.back_button.click()
    dock.wait()
    assert dock.review.model_key == "quick@1"
    assert step.message.text == "quick@1 is in use now. quick@2 stays in the list."


def test_of_a_fall_that_may_be_chance_the_old_version_is_the_bright_choice(done, worker):
    worker.session.after, worker.session.spared = 0.2, True
    done.learn(1)
    done.wait()
    step = done.compare_step
    assert "differ too much to tell" in step.verdict.text()
    assert bright(done) == ["keep_old"]
    assert step.accept_button.isEnabled()


def test_a_version_that_was_worse_is_still_kept_out_after_a_restart(done, worker, open_dock):
    worker.session.after = 0.2
    done.learn(1)
    done.wait()
    done.compare_step.keep_button.click()
    done.wait()
    done.close_review()
    worker.start()
    step = open_dock(worker).wait().compare_step
    step.version_box.setCurrentIndex(step.version_box.findData("quick@2"))
    assert not step.back_button.isEnabled()
    assert not step.insist.isHidden()
    step.insist.setChecked(True)
    assert step.back_button.isEnabled()


def test_the_list_of_models_says_which_version_was_worse(done, worker):
    worker.session.after = 0.2
    done.learn(1)
    done.wait()
    done.compare_step.keep_button.click()
    done.wait()
    step = done.run_step
    rows = [step.model_box.itemText(row) for row in range(step.model_box.count())]
    assert [row for row in rows if "version 2" in row] == ["Quick cells, version 2, worse than version 1"]
    step.choose("quick@2")
    assert step.message.text.startswith("quick@2 was worse than quick@1 on held-out cases.")


def test_a_version_that_is_gone_is_not_said_to_be_in_use(done, worker):
    done.learn(1)
    done.wait()
    step = done.compare_step
    step.keep_button.click()
    step.version_box.setCurrentIndex(step.version_box.findData("quick@2"))
    worker.session.cards = [card for card in worker.session.cards if card.key != "quick@2"]
    step.back_button.click()
    with pytest.raises(MedtError, match="quick@2 is no longer there"):
        done.wait()
    assert done.review.model_key == "quick@1"


def test_a_comparison_asked_for_by_hand_can_be_decided_on(done, worker, qtbot):
    done.learn(1)
    done.wait()
    done.compare_step.keep_button.click()
    assert bright(done) == ["learn"]
    done.compare("quick@2")
    done.wait()
    assert bright(done) == ["accept_new"]
    button, view = done.compare_step.accept_button, done.scroll.viewport()
    qtbot.waitUntil(lambda: view.rect().contains(button.mapTo(view, button.rect().center())))


def test_without_held_out_cases_it_warns(done, worker, viewer):
    worker.session.measured = 0
    done.learn(1)
    done.wait()
    step = done.compare_step
    assert "No case was held out" in step.verdict.text()
    assert step.accept_button.isEnabled()
    assert [row[0] for row in step.table.rows] == [texts.THIS_CASE]
    layer = viewer.layers["What changes on cells"]
    np.testing.assert_array_equal(layer.data, done.review.work.mask.data > 0)
    step.difference.click()
    assert not layer.visible
    step.difference.click()
    assert layer.visible
    step.keep_old()
    assert (done.review.model_key, step.found) == ("quick@1", None)


def test_the_accepted_version_is_chosen_in_the_next_session(done, open_dock, worker):
    done.learn(1)
    done.wait()
    done.compare_step.accept_new()
    done.wait()
    done.close_review()
    worker.start()
    again = open_dock(worker)
    again.wait()
    assert again.review.model_key == "quick@2"


def test_a_picture_that_was_replaced_is_not_compared_with_the_mask_of_the_former(done, viewer):
    done.learn(1)
    done.wait()
    done.compare_step.keep_button.click()
    image = done.review.image
    image.data = image.data[::-1].copy()
    done.compare("quick@2")
    with pytest.raises(MedtError, match="shows another picture than the one its mask was drawn on"):
        done.wait()
    assert done.compare_step.found is None


def test_an_open_tool_has_the_bright_button_and_is_in_sight(dock, walk, until):
    dock.wait()
    dock.run()
    dock.wait()
    dock.correct_step.set_open(False)
    toolbox = dock.correct_step.toolbox
    toolbox.open("grow")
    until(lambda: toolbox.outlook is not None)
    assert bright(dock) == ["apply"]
    button = toolbox.form.apply_button
    until(lambda: dock.scroll.viewport().rect().contains(button.mapTo(dock.scroll.viewport(), button.rect().center())))
    toolbox.close_tool()
    assert bright(dock) == ["pick"]


def test_learning_can_pause_and_stop_with_the_best(done, worker, qtbot):
    step = done.learn_step
    worker.session.gate.clear()
    worker.session.entered.clear()
    done.learn(1)
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    assert step.pause_button.isVisibleTo(step)
    step.pause_button.click()
    assert step.pause_button.text() == texts.GO_ON
    worker.session.gate.set()
    qtbot.wait(100)
    assert done.review.busy == "learn"
    step.stop_button.click()
    done.wait()
    assert step.curve.losses == [], "it ended at once and still stored what it had"
    assert len(worker.session.cards) == 2
    assert step.curve.validation == {"cell": [(5.0, 0.8)]}


def test_a_change_after_acceptance_turns_it_back_into_a_draft(done, walk, worker, cells):
    assert done.case_bar.state.text() == "● accepted"
    assert done.sign_off.accept_button.text() == texts.ACCEPTED
    walk.paint(done, (10, 10))
    done.wait()
    assert done.case_bar.state.text() == "◐ draft"
    assert done.correct_step.message.text == texts.AGAIN_DRAFT
    assert bright(done) == ["accept"]
    done.cases.second_look()
    done.wait()
    assert done.case_bar.state.text() == "? second look"
    done.close_review()
    with CaseFolder.open(Volume.from_array(cells)) as case:
        lines = [line.what for line in case.log.lines()]
        assert case.status == "second look"
        assert case.verify() == ""
    assert [what for what in lines if what in ("run", "decided", "no longer accepted")] == [
        "run",
        "decided",
        "no longer accepted",
        "decided",
    ]
    (ran,) = (line for line in case.log.lines() if line.what == "run")
    assert ran.facts["model"] == "quick"


def test_nothing_can_be_accepted_without_a_mask(dock):
    dock.wait()
    dock.accept()
    assert dock.correct_step.message.text == texts.NOTHING_TO_ACCEPT
    assert dock.case_bar.state.text() == "○ to do"


def test_a_bright_tool_button_is_styled(dock):
    assert 'QToolButton[primary="true"]' in dock.styleSheet()
    assert isinstance(dock.case_bar.next_button, QToolButton)
