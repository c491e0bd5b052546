"""A folder of images gone through case by case: states, order, what is read ahead, and what a restart finds again."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.core import Volume
from napari_medt.io import write
from napari_medt.widgets import texts
from napari_medt.widgets._compat import scene_camera
from napari_medt.widgets.open_cases import patient_in


@pytest.fixture
def folder(tmp_path, cells):
    """Two pictures of one patient and a scan."""
    place = tmp_path / "images"
    (place / "anna").mkdir(parents=True)
    write(Volume.from_array(cells), place / "anna" / "one.tif")
    write(Volume.from_array(cells[::-1].copy()), place / "anna" / "two.tif")
    write(Volume.from_array(np.stack([cells] * 5), rgb=False), place / "scan.nii.gz")
    return place


@pytest.fixture
def listed(folder, worker, open_dock):
    """Opens the folder in a dock, also again."""

    def open_it():
        worker.start()
        dock = open_dock(worker)
        dock.wait()
        dock.open_case(folder)
        return dock.wait()

    return open_it


def names(dock):
    return [item.name for item in dock.opened.items]


def states(dock):
    return [item.state for item in dock.opened.items]


def test_a_folder_is_gone_through_case_by_case(listed, walk, viewer, folder, worker):
    dock = listed()
    assert dock.case_bar.place.text() == "1/3"
    first = names(dock)[0]
    assert dock.case_bar.name.text() == str(viewer.layers[0].name)
    walk.run(dock)
    walk.paint(dock, (60, 90))
    mine = dock.review.work.snapshot()
    dock.accept()
    dock.wait()
    assert states(dock) == ["accepted", "to do", "to do"]
    assert dock.case_bar.next_button.property("primary"), "the next case comes before learning"
    dock.case_bar.next_button.click()
    dock.wait()
    assert dock.case_bar.place.text() == "2/3"
    assert len([layer for layer in viewer.layers if "Mask" in layer.name]) == 1
    assert not dock.review.work.mask.data.any()

    who = dock.cases.who()
    assert [one.name for one in who] == [first], "an accepted case is learnt from though it is not open"
    walk.run(dock)
    assert [one.current for one in dock.cases.who()] == [False], "what only a model said teaches nothing"
    walk.paint(dock, (60, 90), label=0)
    assert [one.current for one in dock.cases.who()] == [True, False]
    dock.learn(1)
    dock.wait()
    lessons = worker.session.learnt[-1]
    assert [lesson.path is None for lesson in lessons] == [False, True] or lessons[0].who.current
    dock.compare_step.keep_old()

    dock.case_bar.back_button.click()
    dock.wait()
    np.testing.assert_array_equal(dock.review.work.mask.data, mine)
    assert dock.case_bar.state.text() == "● accepted", "taken up again without asking, and still accepted"


def test_a_restart_finds_case_and_view_again(listed, walk, viewer):
    dock = listed()
    dock.opened.step(1)
    dock.wait()
    dock.opened.step(1)
    dock.wait()
    name = dock.opened.items[dock.opened.place].name
    walk.run(dock)
    walk.paint(dock, (2, 60, 90))
    mine = dock.review.work.snapshot()
    viewer.dims.set_point(0, 3)
    scene_camera(viewer).zoom = 2.5
    dock.close_review()
    viewer.layers.clear()

    again = listed()
    assert again.opened.items[again.opened.place].name == name
    assert scene_camera(viewer).zoom == 2.5
    assert viewer.dims.current_step[0] == 3
    np.testing.assert_array_equal(again.review.work.mask.data, mine)
    assert again.review.work.model_key == "quick@1", "what it was made with is known, too"
    again.wait()
    assert again.look_step.pick_button.isEnabled()
    assert states(again)[again.opened.place] == "draft"


def test_what_was_seen_is_told_and_logged(listed, walk, viewer):
    dock = listed()
    dock.opened.step(2)
    dock.wait()
    viewer.dims.set_point(0, 0)
    for z in range(4):
        viewer.dims.set_current_step(0, z)
    walk.run(dock)
    assert dock.case_bar.notes.text() in ("80 % of the slices seen", "100 % of the slices seen")
    dock.accept()
    dock.wait()
    found = []
    dock.review.work.on_case(lambda case: found.append(case.log.lines()))
    dock.wait()
    (looked,) = (line for line in found[0] if line.what == "looked")
    assert looked.facts["slices"]["z"]["of"] == 5
    assert looked.facts["slices"]["z"]["share"] >= 0.8


def test_the_most_doubtful_case_comes_first(listed, walk):
    dock = listed()
    dock.opened.step(1)
    dock.wait()
    doubted = dock.opened.key
    dock.run_step.uncertainty.setChecked(True)
    walk.run(dock)
    dock.wait()
    dock.opened.sort("uncertainty")
    dock.wait()
    assert dock.opened.items[0].key == doubted
    assert dock.case_bar.place.text() == "1/3"
    menu = dock.case_bar.make_menu()
    assert [action.text() for action in menu.actions()][:2] == [texts.OPEN_FOLDER, texts.SHOW_LIST]
    menu.actions()[1].trigger()
    assert dock.case_bar.list.item(0).text().endswith("unsure 0.0 %")
    dock.case_bar.list.itemClicked.emit(dock.case_bar.list.item(2))
    dock.wait()
    assert dock.opened.place == 2


def test_the_next_case_is_read_ahead(listed):
    dock = listed()
    (ahead,) = dock.opened._ahead
    assert ahead == dock.opened.items[1].key
    dock.opened.step(1)
    assert not dock.opened.opening, "it is shown at once"
    dock.wait()


def test_a_patient_is_the_folder_an_image_lies_in(listed, folder):
    dock = listed()
    found = {item.name: patient_in(folder, item) for item in dock.opened.items}
    assert sorted(found.values()) == ["anna", "anna", "scan"]


def test_an_accepted_mask_is_handed_over_with_its_record(listed, walk, tmp_path):
    dock = listed()
    walk.run(dock)
    dock.accept()
    dock.wait()
    dock.cases.hand_over(tmp_path / "mask.tif")
    dock.wait()
    assert (tmp_path / "mask.tif").is_file()
    assert "accepted_by" in (tmp_path / "mask.tif.json").read_text()
    assert "mask.tif" in dock.correct_step.message.text


@pytest.mark.parametrize("what", ["a folder", "a file", "a case"])
def test_nothing_is_opened_while_something_is_calculated(listed, folder, viewer, worker, qtbot, tmp_path, cells, what):
    dock = listed()
    other = tmp_path / "others"
    other.mkdir()
    write(Volume.from_array(cells), other / "other.tif")
    open_it = {
        "a folder": lambda: dock.open_case(other),
        "a file": lambda: dock.open_case(other / "other.tif"),
        "a case": lambda: dock.opened.go(dock.opened.items[2].key),
    }[what]
    image, shown = dock.review.image, list(viewer.layers)
    worker.session.gate.clear()
    dock.run()
    open_it()
    assert dock.run_step.message.text == texts.BUSY_NOW
    assert (dock.review.image, list(viewer.layers)) == (image, shown)
    worker.session.gate.set()
    dock.wait()
    assert dock.review.image is image
    assert dock.review.work.model_key == "quick@1"

    worker.session.gate.clear()
    worker.session.entered.clear()
    open_it()  # while it is being read, a run begins
    dock.run()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=60_000)
    qtbot.waitUntil(lambda: "opens as soon as" in dock.run_step.message.text, timeout=60_000)
    assert dock.review.image is image
    worker.session.gate.set()
    dock.wait()
    assert dock.review.image is not image
    assert not dock.opened.opening


def test_a_folder_that_is_open_is_read_anew(listed, folder, cells):
    dock = listed()
    write(Volume.from_array(cells[:, ::-1].copy()), folder / "anna" / "three.tif")
    dock.open_case(folder)
    dock.wait()
    assert len(dock.opened.items) == 4
    assert not dock.opened.worklist.read_only
