"""The list of structures and the visible history: what they show, and what a click does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_medt._napari_io.as_layers import CLASS_COLOURS
from napari_medt.widgets import layers, texts
from napari_medt.widgets.correct_step import CorrectStep
from napari_medt.widgets.review import Review


@pytest.fixture
def step(qtbot, worker, until):
    """Step 3 on a viewer without a window, with a mask of two structures."""
    model = ViewerModel()
    labels = np.zeros((40, 50), np.uint8)
    labels[5:15, 5:25], labels[20:30, 5:45] = 1, 2
    image = model.add_image(np.arange(2000.0).reshape(40, 50), name="slide", scale=(0.5, 0.5), units=("um", "um"))
    review = Review(model, worker=worker)
    made = CorrectStep(review)
    qtbot.addWidget(made)
    review.choose_image(image)
    review.work.set_classes(("background", "gland", "stroma", "vessel"))
    review.work.replace(labels, "model run", model_key="quick@1")
    made.model = model
    made.calm = lambda: until(lambda: review.changes.idle and not review.work._history.moving)
    made.calm()
    yield made
    made.close_tools()
    review.close()


def rows(step):
    return [(row.name, row.size, row.locked) for row in step.structures.rows]


def test_each_structure_has_a_row_with_its_size(step):
    assert rows(step) == [("gland", "50 µm²", False), ("stroma", "100 µm²", False), ("vessel", "–", False)]
    mask = step.review.work.mask
    assert [row.colour for row in step.structures.rows] == [
        "#" + bytes(np.round(255 * np.asarray(mask.get_color(label)[:3])).astype(np.uint8)).hex() for label in (1, 2, 3)
    ]


def test_sizes_follow_every_change(step, until):
    mask = step.review.work.mask
    mask.data[0:2, 0:10] = 3
    step.review.work.flush(everywhere=True)
    until(lambda: rows(step)[2][1] == "5 µm²")
    step.undo()
    until(lambda: rows(step)[2][1] == "–")
    step.redo()
    until(lambda: rows(step)[2][1] == "5 µm²")


def test_a_label_without_a_name_gets_a_row_and_a_colour(step, until):
    mask = step.review.work.mask
    mask.data[0:2, 0:10] = 6
    step.review.work.flush(everywhere=True)
    until(lambda: rows(step)[-1][:2] == ("label 6", "5 µm²"))
    assert step.structures.rows[-1].colour == layers.CLASS_COLOURS[5]


def click(step, qtbot, row, column):
    tree = step.structures
    place = tree.visualRect(tree.indexFromItem(tree.topLevelItem(row), column)).center()
    qtbot.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=place)


def test_a_click_makes_the_active_label_and_the_padlock_locks(step, qtbot):
    step.resize(360, 700)
    step.set_open(True)
    step.show()
    click(step, qtbot, 1, 0)
    work = step.review.work
    assert work.mask.selected_label == 2
    work.mask.selected_label = 3
    assert step.structures.currentItem().text(0) == "vessel"
    click(step, qtbot, 0, 2)
    assert work.protection.locked == (1,)
    assert rows(step)[0][2]
    assert "locked" in step.structures.topLevelItem(0).toolTip(2)
    qtbot.keyClick(step.structures, Qt.Key.Key_Space)
    assert work.protection.locked == (), "the click on the padlock made its row the current one"
    step.calm()


def test_a_click_in_the_history_goes_back_to_it(step, until):
    work = step.review.work
    states = [work.mask.data.copy()]
    for label in (1, 2, 3):
        work.mask.mode, work.mask.brush_size = "paint", 4
        work.mask.paint((35, 5 + 10 * label), label)
        work.flush(everywhere=True)
        states.append(work.mask.data.copy())
    assert step.history.names == [texts.HISTORY_START, "model run", "brush, gland", "brush, stroma", "brush, vessel"]
    assert step.history.currentRow() == 4
    for row in (2, 0, 3, 1):
        step.history.setCurrentRow(row)
        until(lambda row=row: work.depth == row)
        step.calm()
        np.testing.assert_array_equal(work.mask.data, states[row - 1] if row else 0)
    assert step.history.item(4).font().italic(), "what was undone looks different"
    work.mask.paint((2, 2), 1)
    work.flush(everywhere=True)
    assert step.history.names == [texts.HISTORY_START, "model run", "brush, gland"]


def test_undo_in_the_window_is_that_of_the_layer_in_use(step):
    other = step.model.add_labels(np.zeros((40, 50), np.uint8), name="mine")
    other.paint((5, 5), 1)
    step.step_anywhere(back=True)
    assert not other.data.any()
    assert step.review.work.depth == 1
    step.model.layers.selection.active = step.review.image
    step.step_anywhere(back=True)
    step.calm()
    assert step.review.work.depth == 0


# Machado, Oliveira and Fernandes 2009, full severity, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("colours", [CLASS_COLOURS, tuple(layers.PREVIEW_COLOURS.values())], ids=["classes", "preview"])
def test_colours_are_told_apart_by_the_colour_blind(colours, blindness):
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(BLINDNESS[blindness]).T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
    pairs = {(a, b): float(deltaE_ciede2000(lab[a], lab[b])) for a, b in itertools.combinations(range(len(lab)), 2)}
    nearest = min(pairs, key=pairs.get)
    assert pairs[nearest] > 9, (colours[nearest[0]], colours[nearest[1]], pairs[nearest])
