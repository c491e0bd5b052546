"""A mask survives the death of the program, and is offered when its picture is met again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_medt._system import display_answers
from napari_medt.widgets import texts

WAIT_MS = 60_000


@pytest.fixture
def reopen(viewer, worker, open_dock, qtbot, cells):
    def again():
        viewer.add_image(cells, name="renamed meanwhile")
        dock = open_dock(worker)
        qtbot.waitUntil(lambda: dock.review.work is not None, timeout=WAIT_MS)
        return dock

    return again


@pytest.fixture
def offered(reopen, qtbot):
    def again():
        dock = reopen()
        qtbot.waitUntil(dock.correct_step.offer.isVisible, timeout=WAIT_MS)
        return dock

    return again


@pytest.fixture
def killed(cells, tmp_path):
    """The mask as it was when a real napari was killed in the middle of a stroke."""
    if not display_answers():
        pytest.skip("needs a display; `make test` brings a virtual one")
    np.save(tmp_path / "picture.npy", cells)
    script = Path(__file__).with_name("_left_off.py")
    command = [sys.executable, str(script), str(tmp_path / "picture.npy"), str(tmp_path / "mask.npy")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return np.load(tmp_path / "mask.npy")


def test_a_killed_napari_offers_the_mask_again(killed, offered, walk):
    dock = offered()
    assert dock.correct_step.offer.text.startswith("A mask from ")
    assert not dock.review.work.mask.data.any(), "an offer, not a surprise"
    dock.correct_step.offer.accept_button.click()
    np.testing.assert_array_equal(dock.review.work.mask.data, killed)
    assert not dock.correct_step.offer.isVisible()
    names = [change.title for change in dock.review.work.timeline.changes]
    assert names == ["model run", *["brush, foreground"] * 4], "the history outlives the program, too"
    assert dock.review.work.depth == 4
    walk.redo(dock)
    for _ in range(5):
        walk.undo(dock)
    assert not dock.review.work.mask.data.any()
    for _ in range(4):
        walk.redo(dock)
    np.testing.assert_array_equal(dock.review.work.mask.data, killed)


def edit(dock, walk):
    walk.run(dock)
    walk.paint(dock, (80, 20))
    return dock.review.work.mask.data.copy()


@pytest.fixture
def left(dock, viewer, walk, qtbot):
    """Work on a picture, then close the dock and everything in the viewer."""
    kept = edit(dock, walk)
    qtbot.waitUntil(lambda: bool(dock.review.work.kept_words), timeout=WAIT_MS)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.review.closed, timeout=WAIT_MS)
    viewer.layers.clear()
    return kept


def test_a_closed_dock_offers_the_mask_again(left, offered):
    dock = offered()
    assert dock.correct_step.offer.text.endswith("with 2 edits was found.")
    dock.correct_step.offer.accept_button.click()
    np.testing.assert_array_equal(dock.review.work.mask.data, left)
    assert dock.review.stage == "correct"


def test_what_is_done_after_a_restore_is_kept_too(left, offered, walk, viewer, worker, open_dock, cells):
    dock = offered()
    dock.correct_step.offer.accept_button.click()
    walk.paint(dock, (15, 110))
    more = dock.review.work.mask.data.copy()
    dock.close_review()
    viewer.layers.clear()
    dock = offered()
    dock.correct_step.offer.accept_button.click()
    np.testing.assert_array_equal(dock.review.work.mask.data, more)


def test_starting_anew_puts_the_mask_aside(left, reopen, offered, viewer, qtbot, medt_home):
    dock = offered()
    dock.correct_step.offer.decline_button.click()
    assert not dock.correct_step.offer.isVisible()
    assert dock.run_step.message.text == texts.FORGOTTEN
    dock.close_review()
    viewer.layers.clear()
    dock = reopen()
    qtbot.wait(500)
    assert not dock.correct_step.offer.isVisible()
    assert list((medt_home / "cases").glob("*/discarded.tif")), "even then it can be found on disk"


def test_working_on_without_an_answer_keeps_both(left, offered, qtbot, walk):
    dock = offered()
    walk.paint(dock, (15, 110))
    qtbot.waitUntil(lambda: bool(dock.review.work.kept_words), timeout=WAIT_MS)
    painted = dock.review.work.mask.data.copy()
    titles = [change.title for change in dock.review.work.timeline.changes]
    assert titles[-2] == texts.PUT_ASIDE_NAME
    assert len(titles) == 4, "the run and the stroke of before, too"
    dock.correct_step.offer.accept_button.click()
    np.testing.assert_array_equal(dock.review.work.mask.data, left)
    assert "in the place of what was done since" in dock.correct_step.message.text
    walk.undo(dock)
    np.testing.assert_array_equal(dock.review.work.mask.data, painted)
    walk.undo(dock)
    assert not dock.review.work.mask.data.any()
    walk.undo(dock)
    np.testing.assert_array_equal(dock.review.work.mask.data, left)


def test_an_answer_may_come_after_the_next_work(left, offered, walk, viewer):
    dock = offered()
    walk.paint(dock, (15, 110))
    painted = dock.review.work.mask.data.copy()
    dock.correct_step.offer.decline_button.click()
    assert dock.run_step.message.text == texts.FORGOTTEN_LATER
    np.testing.assert_array_equal(dock.review.work.mask.data, painted)
    dock.close_review()
    viewer.layers.clear()
    dock = offered()
    dock.correct_step.offer.accept_button.click()
    np.testing.assert_array_equal(dock.review.work.mask.data, painted)
    walk.undo(dock)
    walk.undo(dock)
    np.testing.assert_array_equal(dock.review.work.mask.data, left)


def test_a_deleted_mask_is_offered_again(dock, viewer, walk, qtbot):
    kept = edit(dock, walk)
    viewer.layers.remove("Mask of cells")
    qtbot.waitUntil(dock.correct_step.offer.isVisible, timeout=WAIT_MS)
    dock.correct_step.offer.accept_button.click()
    np.testing.assert_array_equal(dock.review.work.mask.data, kept)


def test_another_picture_is_offered_nothing(left, viewer, worker, open_dock, qtbot, cells):
    viewer.add_image(cells[::-1], name="cells")
    dock = open_dock(worker)
    qtbot.wait(500)
    assert not dock.correct_step.offer.isVisible()


def test_a_full_disk_is_told_and_the_mask_stays(dock, walk, qtbot, monkeypatch):
    from napari_medt.cases import CaseFolder
    from napari_medt.core import StorageError

    def refuse(*_):
        raise StorageError("The disk is full", remedy="free some space")

    with monkeypatch.context() as full:
        full.setattr(CaseFolder, "record", refuse)
        walk.run(dock)
        qtbot.waitUntil(lambda: dock.correct_step.message.kind == "error", timeout=WAIT_MS)
        assert dock.correct_step.message.text == "The disk is full; free some space."
        assert dock.review.work.mask.data.any()
        walk.undo(dock)
        assert not dock.review.work.mask.data.any()
    walk.redo(dock)
    qtbot.waitUntil(lambda: dock.correct_step.message.text == texts.CAUGHT_UP, timeout=WAIT_MS)


def test_an_image_taken_out_and_opened_again_offers_its_mask(dock, viewer, walk, qtbot, cells):
    kept = edit(dock, walk)
    qtbot.waitUntil(lambda: bool(dock.review.work.kept_words), timeout=WAIT_MS)
    viewer.layers.remove("cells")
    viewer.add_image(cells, name="cells again")
    qtbot.waitUntil(dock.correct_step.offer.isVisible, timeout=WAIT_MS)
    dock.correct_step.offer.accept_button.click()
    np.testing.assert_array_equal(dock.review.work.mask.data, kept)


def test_a_change_the_disk_refused_is_kept_with_the_next(cells, monkeypatch):
    from types import SimpleNamespace

    from napari_medt.cases import CaseFolder, Journal
    from napari_medt.core import StorageError, Volume
    from napari_medt.widgets import drafts

    image = Volume.from_array(cells)
    draft = drafts.Draft(SimpleNamespace(load=lambda: image))
    labels, journal, full = np.zeros(cells.shape, np.uint8), Journal(), [True]
    real = CaseFolder.open

    def refuse_once(*given, **options):
        if full.pop() if full else False:
            raise StorageError("The disk is full")
        return real(*given, **options)

    monkeypatch.setattr(CaseFolder, "open", refuse_once)
    for place in (slice(0, 5), slice(20, 30)):
        before = labels.copy()
        labels[place, place] = 1
        entry = journal.record("brush", before, labels)
        if full:
            with pytest.raises(StorageError):
                draft.record(entry)
        else:
            assert draft.record(entry).startswith("Kept")
    draft.close()
    assert draft.record(entry) == "", "a closed draft takes nothing more"
    with real(image) as case:
        np.testing.assert_array_equal(case.recover().labels, labels)
