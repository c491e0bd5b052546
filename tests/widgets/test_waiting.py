"""Nothing makes the window wait, and nothing but changes of masks keeps changes of masks from being undone and kept."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_medt.cases import CaseFolder, mask_digest
from napari_medt.core import Volume
from napari_medt.widgets.casework import Casework
from napari_medt.widgets.correct_step import CorrectStep
from napari_medt.widgets.review import Review

PICTURE = np.arange(2000.0).reshape(40, 50)
FOUND = (PICTURE > 900).astype(np.uint8)


@pytest.fixture
def gate():
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
def review(qtbot, worker, until):
    """A review without a window, of a picture with a mask."""
    model = ViewerModel()
    image = model.add_image(PICTURE, name="slide")
    made = Review(model, worker=worker)
    made.choose_image(image)
    made.work.replace(FOUND, "model run", model_key="quick@1")
    until(lambda: made.changes.idle)
    yield made
    made.close()


def paint(work, until, at=(3, 3)):
    steps = work.depth
    work.mask.paint(at, 1)
    until(lambda: work.depth == steps + 1)


def test_undo_and_autosave_do_not_wait_for_a_save(review, qtbot, until, gate, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_medt.widgets.mask_files.write_labels", lambda *_: [gate.wait(60), "mask.tif"][1:])
    step = CorrectStep(review)
    qtbot.addWidget(step)
    work = review.work
    step.save(tmp_path / "mask.tif")
    step.undo()
    until(lambda: work.depth == 0)
    step.redo()
    until(lambda: work.depth == 1)
    paint(work, until)
    until(lambda: review.changes.idle)
    assert not review.bridge.idle, "all of it while the file is being written"
    step.close_tools()
    gate.set()
    until(lambda: step.message.text.startswith("Saved"))
    painted = work.labels.copy()
    review.close()
    with CaseFolder.open(Volume.from_array(PICTURE)) as case:
        np.testing.assert_array_equal(case.recover().labels, painted)


def test_undo_does_not_wait_for_an_export_which_is_whole(review, until, gate, tmp_path, monkeypatch):
    from napari_medt.widgets import casework

    real = casework.export

    def slow(*args, **options):
        gate.wait(60)
        return real(*args, **options)

    monkeypatch.setattr(casework, "export", slow)
    cases = Casework(review)
    cases.accept()
    until(lambda: review.work.status == "accepted" and review.changes.idle)
    cases.hand_over(tmp_path / "mask.tif")
    until(lambda: cases.exports == 1)
    paint(review.work, until)
    review.work.undo()
    until(lambda: review.work.depth == 1)
    assert cases.exports == 1
    cases.accept()
    until(lambda: review.work.status == "accepted")
    gate.set()
    until(lambda: cases.exports == 0)
    assert (tmp_path / "mask.tif.json").is_file()
    cases.close()


def test_taking_up_a_mask_does_not_wait(make_editor, until, gate):
    first = make_editor(FOUND.shape)
    first.replace(FOUND, "model run", model_key="quick@1")
    first.close()
    until(lambda: first._bridge.idle)
    second = make_editor(FOUND.shape)
    second.look_for_draft()
    until(lambda: second.found is not None)
    threading.Timer(2.0, gate.set).start()
    second._bridge.aside(lambda: gate.wait(60))
    assert second.restore()
    assert not gate.is_set()
    np.testing.assert_array_equal(second.mask.data, FOUND)
    second.undo()
    until(lambda: second.depth == 0)
    assert not second.mask.data.any()


def test_what_follows_a_step_that_is_unpacked_is_done_after_it(make_editor, until, gate):
    editor = make_editor(FOUND.shape)
    editor.replace(FOUND, "model run", model_key="quick@1")
    other = np.full_like(FOUND, 2)
    seen = []
    threading.Timer(2.0, gate.set).start()
    editor._bridge.aside(lambda: gate.wait(60))
    editor.undo()
    assert editor.replace(other, "model run", model_key="quick@1")
    editor.when_still(lambda: seen.append(editor.snapshot()))
    assert (gate.is_set(), seen) == (False, []), "the window did not wait"
    until(lambda: bool(seen))
    np.testing.assert_array_equal(editor.mask.data, other)
    assert editor.depth == 1
    editor.undo()
    until(lambda: editor.depth == 0)
    assert not editor.mask.data.any(), "the run came after the step back"


def test_accept_right_after_undo_signs_what_is_left(review, until):
    cases, decided = Casework(review), []
    cases.decided.connect(decided.append)
    paint(review.work, until)
    review.work.undo()
    cases.accept()
    until(lambda: decided == ["accepted"])
    signed = []
    review.work.on_case(lambda case: signed.append(case.card.sign_off.mask))
    until(lambda: bool(signed))
    assert signed == [mask_digest(FOUND)]
    cases.close()


def test_a_mask_that_goes_while_a_step_is_unpacked_is_kept_after_the_step(make_editor, until, gate):
    editor = make_editor(FOUND.shape)
    editor.replace(FOUND, "model run", model_key="quick@1")
    threading.Timer(0.5, gate.set).start()
    editor._bridge.aside(lambda: gate.wait(60))
    editor.undo()
    editor.when_still(pytest.fail)
    editor.close()
    until(lambda: editor._bridge.idle)
    with CaseFolder.open(editor.picture.load()) as case:
        assert not case.recover().labels.any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strokes_are_looked_for_in_the_slice_that_is_shown_whichever_way_it_is_cut(qtbot, worker, axis):
    model = ViewerModel()
    image = model.add_image(np.zeros((6, 10, 12)), scale=(4, 1, 2), translate=(0, 5, 0))
    review = Review(model, worker=worker)
    model.dims.order = (axis, *(other for other in range(3) if other != axis))
    at = (4, 8, 11)
    model.dims.point = tuple(image.data_to_world(at))
    wanted = [slice(0, 6), slice(0, 10), slice(0, 12)]
    wanted[axis] = slice(at[axis] - 1, at[axis] + 2)
    assert review._plane(image) == tuple(wanted)
    model.dims.ndisplay = 3
    assert review._plane(image) is None
    review.close()
