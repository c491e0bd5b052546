"""A folder of images gone through case by case: states, order, what is read ahead, and what a restart finds again."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_medt.core import Geometry, MedtError, Volume
from napari_medt.io import write
from napari_medt.widgets import texts
from napari_medt.widgets._compat import scene_camera
from napari_medt.widgets.casework import patient_of
from napari_medt.widgets.refilled import fill, fits, same


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
    told = [step.message.text for step in dock.steps.values()]
    assert (told, dock.run_step.header.summary.text()) == ([""] * 5, ""), "nothing is said of the former case"

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


def test_a_case_of_the_same_kind_is_shown_in_the_same_layers(listed, walk, viewer, cells):
    dock = listed()
    image, work = dock.review.image, dock.review.work
    mask, first = work.mask, str(image.name)
    dock.run_step.uncertainty.setChecked(True)
    walk.run(dock)
    walk.paint(dock, (60, 90))
    mine = work.snapshot()
    mask.mode, mask.contour, mask.visible, image.gamma = "paint", 1, False, 0.7
    before = np.array(image.data)
    dock.opened.step(1)
    dock.wait()

    assert list(viewer.layers) == [image, mask], "both go on, and what the former case had beside them is gone"
    assert image.name != first
    assert str(mask.name) == f"Mask of {image.name}"
    assert dock.run_step.image_box.currentText() == str(image.name)
    np.testing.assert_array_equal(image.data, before[::-1])
    assert dock.review.work is not work
    assert dock.review.work.mask is mask
    assert not mask.data.any()
    assert (str(mask.mode), mask.contour, mask.visible) == ("pan_zoom", 0, True)
    assert image.gamma == 0.7, "how the user likes to see pictures stays"
    assert viewer.layers.selection.active is image
    assert dock.review.doubtful == ()
    walk.run(dock)
    walk.paint(dock, (60, 90), label=0)
    second = dock.review.work.snapshot()

    for by, kept in ((-1, mine), (1, second)):
        dock.opened.step(by)
        dock.wait()
        np.testing.assert_array_equal(dock.review.work.snapshot(), kept)
        np.testing.assert_array_equal(mask.data, kept)

    dock.opened.step(1)  # a scan, which has an axis more
    dock.wait()
    assert image not in viewer.layers
    assert mask not in viewer.layers
    assert dock.review.work.mask.ndim == 3


def test_what_is_in_view_is_frozen_and_stays_so(listed, walk, viewer, qtbot):
    dock = listed()
    dock.opened.step(2)
    dock.wait()
    work, step = dock.review.work, dock.correct_step
    assert step.unfreeze_button.isHidden()
    viewer.dims.set_point(0, 2)
    camera = scene_camera(viewer)
    camera.zoom *= 4
    qtbot.wait(200)
    step.freeze_button.click()
    frozen = np.array(work.protection.frozen)
    assert not frozen[[0, 1, 3, 4]].any()
    rows, columns = np.nonzero(frozen[2])
    centre = np.array(camera.center[-2:])
    np.testing.assert_allclose([rows.mean(), columns.mean()], centre, atol=2)
    assert 0 < work.frozen_share < 0.1
    walk.run(dock)
    dock.wait()  # what the rules leave of the run is worked out beside the window
    assert not work.mask.data[2][frozen[2]].any()
    assert work.mask.data[1].any()
    dock.opened.step(-1)
    dock.wait()
    assert step.unfreeze_button.isHidden(), "of another case"
    dock.opened.step(1)
    dock.wait()
    np.testing.assert_array_equal(dock.review.work.protection.frozen, frozen)
    assert not step.unfreeze_button.isHidden()
    step.unfreeze_button.click()
    assert dock.review.work.protection.frozen is None
    viewer.dims.ndisplay = 3
    step.freeze_button.click()
    assert step.message.text == texts.NOTHING_IN_VIEW


def test_the_mask_of_another_channel_goes_with_its_case(folder, listed, walk, viewer, cells):
    scan = np.stack([cells] * 5).astype(np.float32)
    for name in ("a", "b"):
        volume = Volume(np.stack([scan, scan[:, ::-1]]), Geometry.from_spacing((1, 1, 1), units="mm"))
        write(volume, folder / f"two_{name}.nii.gz")
    dock = listed()
    for _ in range(3):
        dock.opened.step(1)
        dock.wait()
    assert str(dock.review.image.name).startswith("two_a")
    second = next(layer for layer in viewer.layers if layer is not dock.review.image and "Mask" not in layer.name)
    dock.review.choose_image(second)
    walk.run(dock)
    dock.opened.step(1)
    dock.wait()
    assert sum("Mask" in layer.name for layer in viewer.layers) == 1
    assert not dock.review.work.mask.data.any()
    assert all("two_a" not in layer.name for layer in viewer.layers)


def test_layers_go_on_with_another_place_and_brightness(viewer, rng):
    first, second = (rng.integers(0, 900, (4, 9, 9 + add)).astype(np.int16) for add in (0, 3))
    layer = viewer.add_image(first, contrast_limits=(0, 5), scale=(1, 1, 1), units="mm", visible=False)
    options = {"name": "other", "scale": (2, 0.5, 0.5), "translate": (1, 2, 3), "units": ("mm",) * 3, "rgb": False}
    assert fits(layer, second, options)
    assert not fits(layer, second.astype(np.float32), options)
    assert not fits(layer, second[0], options)
    assert not fits(layer, [second, second[:, ::2]], options), "of several resolutions"
    fill(layer, second, options)
    fresh = viewer.add_image(second, **options)
    assert layer.visible
    assert layer.name.startswith("other")
    for name in ("scale", "translate", "contrast_limits", "units"):
        assert same(getattr(layer, name), getattr(fresh, name)), name
    fill(layer, first, options | {"contrast_limits": (-3, 20)})
    assert tuple(layer.contrast_limits) == tuple(layer.contrast_limits_range) == (-3, 20)
    np.testing.assert_allclose(viewer.dims.range[0][:2], (1, 7))


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


def test_a_viewer_that_closes_keeps_how_the_case_was_shown(listed, viewer):
    dock = listed()
    dock.opened.step(2)
    dock.wait()
    viewer.dims.set_point(0, 3)
    scene_camera(viewer).zoom = 2.5
    viewer.layers.clear()  # as a viewer does before its window goes
    dock.close_review()

    again = listed()
    assert again.review.image.visible
    assert scene_camera(viewer).zoom == 2.5
    assert viewer.dims.current_step[0] == 3


def test_a_case_is_never_shown_without_its_picture(listed, viewer):
    dock = listed()
    dock.review.image.visible = False
    dock.close_review()
    viewer.layers.clear()
    assert listed().review.image.visible


@pytest.mark.parametrize("order", ["state", "uncertainty"])
def test_next_leads_to_what_is_left_where_a_case_moves_in_the_order(listed, walk, order):
    dock = listed()
    dock.opened.sort(order)
    dock.wait()
    dock.run_step.uncertainty.setChecked(True)
    for left in (2, 1, 0):
        assert dock.cases.state == "to do"
        walk.run(dock)
        dock.accept()
        dock.wait()
        assert len([item for item in dock.opened.items if item.state != "accepted"]) == left
        button = dock.case_bar.next_button
        assert button.property("primary") == bool(left)
        if left:
            assert button.isEnabled()
            button.click()
            dock.wait()
    assert dock.learn_step.learn_button.property("primary")


def test_a_damaged_image_does_not_keep_the_others_from_being_opened(folder, worker, open_dock):
    (folder / "anna" / "a.tif").write_bytes(b"II*\0 damaged")
    dock = open_dock(worker)
    dock.wait()
    dock.open_case(folder)
    with pytest.raises(MedtError, match="a.tif"):
        dock.wait()
    assert dock.case_bar.place.text() == "2/4"
    assert "a.tif" in dock.run_step.message.text, "it is told of"
    dock.case_bar.make_menu().actions()[1].trigger()
    assert dock.case_bar.list.item(0).text() == "×  anna_a  –  cannot be read"


def test_nothing_is_put_over_a_stroke_that_was_made_before_the_mask_was_found(listed, walk, qtbot):
    dock = listed()
    walk.run(dock)
    dock.wait()
    kept, first = dock.review.work.snapshot(), dock.opened.key
    dock.opened.step(1)
    dock.wait()
    slow = threading.Event()
    dock.review.changes.aside(lambda: slow.wait(60))
    dock.opened.step(-1)
    qtbot.waitUntil(lambda: dock.opened.key == first and dock.review.work is not None, timeout=60_000)
    walk.paint(dock, (60, 90))
    mine = dock.review.work.snapshot()
    slow.set()
    dock.wait()
    np.testing.assert_array_equal(dock.review.work.mask.data, mine)
    assert dock.correct_step.offer.isVisible(), "it is offered rather than put over the stroke"
    walk.undo(dock)
    walk.undo(dock)
    np.testing.assert_array_equal(dock.review.work.mask.data, kept)


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


def test_the_next_case_is_read_ahead(listed, monkeypatch):
    dock = listed()
    (ahead,) = dock.opened._ahead
    assert ahead == dock.opened.items[1].key
    monkeypatch.setattr(dock.opened, "_read_ahead", lambda: None)
    read = []
    monkeypatch.setattr(dock.opened.worklist, "load", lambda *a, **b: read.append(a))
    dock.opened.step(1)
    dock.wait()
    assert (dock.opened.place, read) == (1, [])


def test_what_was_read_ahead_and_changed_since_is_read_anew(listed, folder, cells):
    dock = listed()
    write(Volume.from_array(cells[:, ::-1].copy()), folder / "anna" / "two.tif")
    dock.opened.step(1)
    dock.wait()
    np.testing.assert_array_equal(dock.review.image.data, cells[:, ::-1])


def test_a_patient_is_the_same_however_an_image_is_opened(listed, folder, walk):
    dock = listed()
    assert sorted(item.patient for item in dock.opened.items) == ["anna", "anna", "scan"]
    assert patient_of(dock.review.image) == "anna"
    walk.run(dock)
    dock.accept()
    dock.wait()
    for opened, patient in ((folder / "anna" / "two.tif", "anna"), (folder / "scan.nii.gz", "scan")):
        dock.opened.leave()
        dock.opened._open_file(opened)
        dock.wait()
        assert patient_of(dock.review.image) == patient
    assert {one.patient for one in dock.cases.who()} == {"anna"}
    dock.open_case(folder.parent)
    dock.wait()
    assert sorted(item.patient for item in dock.opened.items) == ["anna", "anna", "scan"]


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


def test_an_image_that_changed_on_the_disk_is_another_case(listed, folder, walk, cells):
    dock = listed()
    first = dock.opened.key
    walk.run(dock)
    dock.accept()
    dock.wait()
    dock.opened.step(1)
    dock.wait()
    write(Volume.from_array(cells[:, ::-1].copy()), folder / "anna" / "one.tif")
    dock.opened.go(first)
    dock.wait()
    assert dock.cases.state == "to do"
    assert states(dock)[0] == "to do"
    assert dock.run_step.message.text == (
        "anna/one.tif is another image than the one that was worked on; its mask is kept."
    )


def test_the_next_picture_can_be_asked_about_after_its_run(listed, walk, qtbot):
    dock = listed()
    for _ in range(2):
        walk.run(dock)
        qtbot.waitUntil(dock.look_step.pick_button.isEnabled)
        dock.opened.step(1)
        dock.wait()


def test_a_mask_that_comes_too_late_is_told_of(listed, walk, cells, monkeypatch, qtbot):
    read = threading.Event()

    def slowly(*_):
        return lambda: (read.wait(20), (np.ones(cells.shape, np.uint8), None))[1]

    monkeypatch.setattr("napari_medt.widgets.correct_step.reader", slowly)
    dock = listed()
    first = dock.case_bar.name.text()
    walk.run(dock)
    dock.correct_step.load("mask.tif")
    dock.opened.step(1)
    qtbot.waitUntil(lambda: dock.opened.place == 1)
    read.set()
    with pytest.raises(MedtError, match=f"mask.tif was not loaded, because {first} was closed"):
        dock.wait()
    assert not dock.review.work.mask.data.any()
