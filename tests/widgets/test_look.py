"""Step 2 in a real window: questions, keys, marks, the table of heads, the check, figures and files."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.widgets import figure, texts
from napari_medt.widgets._compat import canvas_edge
from napari_medt.widgets.answers import Doubt
from napari_medt.widgets.doubts import SURROUNDINGS
from napari_medt.widgets.map_layers import METADATA
from tests.widgets.conftest import WAIT_MS


@pytest.fixture
def look(dock, walk, qtbot):
    """Step 2 after a run."""
    walk.run(dock)
    made = dock.look_step
    qtbot.waitUntil(made.pick_button.isEnabled, timeout=WAIT_MS)
    return made


@pytest.fixture
def ask(look, qtbot):
    """Wait for the answer of what is asked."""

    def asked(start):
        before = look.looking.last
        start()
        qtbot.waitUntil(lambda: look.looking.last is not before and not look.looking.busy, timeout=WAIT_MS)
        return look.map_shown

    return asked


def layer_of(look, role="attention"):
    return look.review.layers.find(look.review.image, role)


def press(viewer, key, shift=False):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    modifier = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
    QTest.keyClick(viewer.window._qt_viewer.canvas.native, key, modifier)


def test_a_point_is_marked_with_its_window_and_arrows(look, ask):
    look.source_box.setCurrentIndex(look.source_box.findData("local.layer1.0"))
    found = ask(lambda: look.pick((40, 90)))
    image = look.review.image
    shown, point, window, arrows = (layer_of(look, role) for role in ("attention", "point", "window", "arrows"))
    assert shown.metadata[METADATA]["query"] == (40, 90)
    assert shown.metadata[METADATA]["unit"] == "times even attention"
    assert tuple(shown.contrast_limits) == (0, 10), "10 times even attention, whatever the cells are"
    np.testing.assert_allclose(point.data_to_world(point.data[0]), image.data_to_world((40, 90)))
    corners = np.array([image.world_to_data(window.data_to_world(line[0])) for line in window.data])
    np.testing.assert_allclose(corners.min(0), found.extras["window"][0], atol=1e-6)
    np.testing.assert_allclose(image.world_to_data(arrows.data_to_world(arrows.data[0].sum(0))), (0, 0), atol=1e-6)
    assert "Colours: 0 to 10 times even attention." in look.caption.text()
    look.part_box.setCurrentIndex(1)
    assert layer_of(look).name.endswith("row, mean of all heads")
    assert look.caption.text().startswith("The row.")


def test_a_preparation_that_a_map_of_the_picture_cut_short_is_taken_up_again(look, qtbot, monkeypatch):
    looking, asked = look.looking, []
    client = look.review.client
    monkeypatch.setattr(
        client, "ask", lambda method, *a, _ask=client.ask, **o: asked.append(method) or _ask(method, *a, **o)
    )
    looking.prepare()
    look.show_mean()
    qtbot.waitUntil(lambda: asked.count("prepare_attention") == 2 and looking.warm, timeout=WAIT_MS)
    assert asked.index("look") < len(asked) - 1 - asked[::-1].index("prepare_attention")
    look.show_mean()
    qtbot.waitUntil(lambda: asked.count("look") == 2 and not looking.asking, timeout=WAIT_MS)
    assert asked.count("prepare_attention") == 2, "what is prepared is not prepared again"


def test_a_map_and_its_marks_lie_together_over_everything_else(look, ask, viewer):
    def at_the_top():
        return [layer_of(look, role) for role in ("attention", "window", "arrows", "point")] == list(viewer.layers[-4:])

    ask(lambda: look.pick((40, 90)))
    assert at_the_top()
    assert all(layer.name.startswith("Attention: ") for layer in viewer.layers[-4:])
    viewer.add_points([[3, 3]])
    viewer.layers.remove(layer_of(look))
    viewer.layers.selection.active = look.review.image
    ask(lambda: look.pick((30, 70)))
    assert at_the_top(), "also when one of them was taken out and something else lies over the others"
    assert viewer.layers.selection.active is look.review.image
    ask(look.show_mean)
    assert at_the_top()


def test_a_click_draws_nothing_anew_that_stays_as_it_is(look, ask, viewer):
    look.source_box.setCurrentIndex(look.source_box.findData("local.layer1.0"))
    ask(lambda: look.pick((40, 90)))
    drawn, names = [], ("set_data", "opacity", "translate", "contrast_limits")
    for role in ("attention", "point", "window", "arrows"):
        for name in names[: 4 if role == "attention" else 2]:
            getattr(layer_of(look, role).events, name).connect(lambda _, what=(role, name): drawn.append(what))
    measured = []
    layer_of(look).events.data.connect(measured.append)  # at which the viewer measures its whole world
    ask(lambda: look.pick((30, 70)))  # in the same window
    assert sorted(drawn) == [("arrows", "set_data"), ("attention", "set_data"), ("point", "set_data")]
    assert not measured
    drawn.clear()
    ask(lambda: look.pick((10, 10)))
    redrawn = [role for role, name in drawn if name == "set_data"]
    assert sorted(redrawn) == ["arrows", "attention", "attention", "point", "window"], "the map, and where it lies"
    assert [name for _, name in drawn if name != "set_data"] == ["translate"]


def test_keys_go_through_blocks_heads_and_doubtful_places(dock, look, ask, viewer, worker, walk):
    from qtpy.QtCore import Qt

    ask(lambda: look.pick((5, 5)))
    first = look.source
    press(viewer, Qt.Key.Key_N, shift=True)
    assert look.source != first
    press(viewer, Qt.Key.Key_B, shift=True)
    assert look.source == first
    press(viewer, Qt.Key.Key_H, shift=True)
    assert look.head == 0
    press(viewer, Qt.Key.Key_U, shift=True)
    assert look.head is None
    image = look.review.image
    worker.session.doubtful = tuple(Doubt(image.data_to_world(at), 9.0, 0.5, "cell") for at in ((20, 30), (60, 100)))
    walk.run(dock)
    press(viewer, Qt.Key.Key_J)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], image.data_to_world((20, 30)))
    assert canvas_edge(viewer) / viewer.scene.camera.zoom == pytest.approx(SURROUNDINGS * 3), (
        "of 9 square µm, and around it"
    )
    press(viewer, Qt.Key.Key_J)
    press(viewer, Qt.Key.Key_J)
    press(viewer, Qt.Key.Key_K)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], image.data_to_world((60, 100)))


def test_keys_are_let_go_with_the_dock(dock, look, viewer):
    assert any("J" in str(key) for key in viewer.keymap)
    dock.close_review()
    assert not any("J" in str(key) for key in viewer.keymap)


def test_the_map_follows_the_pointer_while_shift_is_held(look, viewer, qtbot, worker):
    from types import SimpleNamespace

    look.pick_button.click()
    image = look.review.image
    for x in range(10, 100, 10):
        at = tuple(image.data_to_world((30, x)))
        for modifiers in ([], ["Shift"]):
            event = SimpleNamespace(position=at, view_direction=None, dims_displayed=(0, 1), modifiers=modifiers)
            for callback in viewer.mouse_move_callbacks:
                callback(viewer, event)
    qtbot.waitUntil(lambda: look.answered_query == (30, 90), timeout=WAIT_MS)
    assert len(worker.session.questions) < 9, "what is overtaken is not asked"
    qtbot.waitUntil(lambda: layer_of(look, "arrows").opacity == 1, timeout=WAIT_MS)  # the pointer rests
    look._rested.setInterval(WAIT_MS)
    event.position = tuple(image.data_to_world((60, 60)))
    look.picking._on_move(viewer, event)
    qtbot.waitUntil(lambda: look.answered_query == (60, 60), timeout=WAIT_MS)
    assert [layer_of(look, role).opacity for role in ("point", "arrows")] == [1, 0]
    look.pick_button.click()
    assert look.picking._on_move not in viewer.mouse_move_callbacks


def test_picking_gives_way_to_any_tool_of_a_layer_and_comes_back_only_when_asked(look, viewer):
    from qtpy.QtCore import Qt

    mask, points = look.review.work.mask, viewer.add_points(ndim=2)

    def picks():
        on = look.pick_button.isChecked()
        assert on == (look.picking._on_mouse in viewer.mouse_drag_callbacks)
        return on

    viewer.layers.selection.active = mask
    for take in (lambda: press(viewer, Qt.Key.Key_2), lambda: setattr(mask, "mode", "fill")):
        look.pick_button.click()
        assert picks()
        assert mask.mode == "pan_zoom"
        take()
        assert mask.mode != "pan_zoom"
        assert not picks(), "a brush of napari's own"
        mask.mode = "pan_zoom"
        assert not picks()
    points.mode = "add"
    look.pick_button.click()
    assert picks()
    viewer.layers.selection.active = look.review.image
    assert picks(), "nothing was taken"
    look.review.image.mode = "transform"
    assert not picks()
    look.review.image.mode = "pan_zoom"
    look.pick_button.click()
    viewer.layers.selection.active = points
    assert not picks(), "a layer whose tool was taken before"
    look.pick_button.click()
    assert picks()
    assert points.mode == "pan_zoom"
    look.pick_button.click()
    points.mode = "add"
    assert not picks()


def test_a_structure_and_a_piece_of_it(look, ask, worker):
    labels = look.review.work.mask.data
    ask(lambda: look.pick((20, 30)))
    more = look.more
    more.structure_box.setCurrentIndex(more.structure_box.findData(1))
    found = ask(more.structure_button.click)
    assert found.kind == "structure"
    start, crop = worker.session.questions[-1].inside
    whole = np.zeros(labels.shape, bool)
    whole[tuple(slice(s, s + n) for s, n in zip(start, crop.shape, strict=True))] = crop
    np.testing.assert_array_equal(whole, labels == 1)
    more.structure_box.setCurrentIndex(more.structure_box.findData(0))
    ask(more.structure_button.click)
    asked = worker.session.questions[-1]
    assert (asked.what, asked.at) == ("piece", (20, 30))


def test_right_and_wrong_of_a_structure_where_there_is_a_reference(look, ask, worker, viewer, qtbot):
    more, labels = look.more, look.review.work.mask.data
    look.more_button.click()
    assert not more.right_button.isVisibleTo(look), "nothing says what is right"
    assert more.no_reference.isVisibleTo(look)
    truth = np.roll(labels, 5, axis=1)
    layer = viewer.add_labels(
        truth.astype(np.uint16) * 7, name="truth"
    )  # numbered otherwise: there is one structure only
    viewer.add_labels(np.ones((3, 3), np.uint8), name="of another picture")
    assert [more.reference_box.itemText(row) for row in range(more.reference_box.count())] == ["truth"]
    assert more.right_button.isVisibleTo(look)
    assert not more.no_reference.isVisibleTo(look)
    found = ask(more.right_button.click)
    assert found.kind == "difference"
    start, crop = worker.session.questions[-1].inside
    for part, expected in zip(crop, (labels == 1, truth == 1), strict=True):
        whole = np.zeros(labels.shape, bool)
        whole[tuple(slice(s, s + n) for s, n in zip(start, part.shape, strict=True))] = part
        np.testing.assert_array_equal(whole, expected)
    assert layer_of(look).name.endswith("difference, mean of all heads")
    assert [look.part_box.itemData(row) for row in range(3)] == ["difference", "right", "wrong"]
    look.part_box.setCurrentIndex(2)
    assert layer_of(look).name.endswith("for what is wrong, mean of all heads")
    assert tuple(layer_of(look).contrast_limits) == (0, 1)
    look.check_button.click()
    assert look.message.text == texts.NOTHING_TO_CHECK
    layer.data = labels.copy()
    more.right_button.click()
    qtbot.waitUntil(lambda: texts.NOTHING_WRONG in look.message.text, timeout=WAIT_MS)
    viewer.layers.remove(layer)
    assert not more.right_button.isVisibleTo(look)


def test_a_structure_that_is_not_there_is_said(look, qtbot):
    look.review.work.mask.data[:] = 0
    look.more.structure_button.click()
    qtbot.waitUntil(lambda: "nothing of this structure" in look.message.text, timeout=WAIT_MS)


def test_against_another_version(dock, look, ask, worker, viewer, qtbot):
    from tests.widgets.conftest import card

    worker.session.cards.append(card(2))
    dock.review.refresh_models()
    against = look.more.against_box
    qtbot.waitUntil(lambda: against.count() == 2, timeout=WAIT_MS)
    ask(look.show_mean)
    found = ask(lambda: against.setCurrentIndex(1))
    assert worker.session.questions[-1].against == "quick@2"
    assert found.kind == "difference"
    low, high = layer_of(look).contrast_limits
    assert low == -high
    assert layer_of(look).colormap.name.startswith("less and more")
    look.check_button.click()
    assert look.message.text == texts.NOTHING_TO_CHECK
    viewer.add_labels(np.roll(look.review.work.mask.data, 5, axis=1), name="truth")
    look.more.refresh(True, shown=True)
    ask(look.more.right_button.click)
    assert look.message.text == texts.RIGHT_ALONE
    asked = len(worker.session.questions)
    against.setCurrentIndex(0)
    assert not look.message.text
    against.setCurrentIndex(1)
    assert look.message.text == texts.RIGHT_ALONE
    assert not look.looking.asking
    assert len(worker.session.questions) == asked, "a difference of differences tells nothing"


def test_picking_goes_on_with_another_model_once_it_ran(dock, look, ask, worker, walk, qtbot):
    from tests.widgets.conftest import card

    worker.session.cards.append(card(2))
    dock.review.refresh_models()
    qtbot.waitUntil(lambda: "quick@2" in dock.review.cards, timeout=WAIT_MS)
    look.pick_button.click()
    ask(lambda: look.pick((40, 90)))
    dock.run_step.choose("quick@2")
    assert not look.pick_button.isChecked()
    assert look.caption.text() == texts.ATTENTION_FIRST, "and nothing of a map that is gone"
    walk.run(dock)
    qtbot.waitUntil(look.pick_button.isChecked, timeout=WAIT_MS)
    dock.run_step.choose("quick@1")
    dock.correct_step.use("paint")
    walk.run(dock)
    qtbot.waitUntil(look.pick_button.isEnabled, timeout=WAIT_MS)
    assert not look.pick_button.isChecked(), "a tool was taken meanwhile"


def test_a_long_question_gives_way_to_a_click(look, worker, qtbot):
    worker.session.gate.clear()
    worker.session.entered.clear()
    look.show_mean()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    assert look.stop_button.isVisibleTo(look)
    look.pick((7, 7))
    qtbot.waitUntil(lambda: look.answered_query == (7, 7), timeout=WAIT_MS)
    assert not look.message.text, "nothing that the user asked for was cancelled"
    assert not look.stop_button.isVisibleTo(look)


def test_a_long_question_can_be_stopped(look, worker, qtbot):
    worker.session.gate.clear()
    worker.session.entered.clear()
    look.show_mean()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    look.stop_button.click()
    qtbot.waitUntil(lambda: look.message.text == texts.CANCELLED, timeout=WAIT_MS)
    assert not look.looking.busy


def test_all_heads_in_a_table_that_sorts_and_shows(look, ask, worker, qtbot):
    look.more.heads_button.click()
    qtbot.waitUntil(lambda: look.more.table is not None, timeout=WAIT_MS)
    table = look.more.table.table
    assert [table.item(row, 2).text() for row in range(4)] == ["1", "2", "3", "1"]
    table.sortItems(3)
    assert [table.item(row, 3).text() for row in range(4)] == ["0.70", "0.80", "0.90", "–"]
    ask(lambda: table.setCurrentCell(0, 1))
    asked = worker.session.questions[-1]
    assert (asked.what, asked.source, asked.head) == ("whole", "global.layer1.0", 2)
    assert (look.source, look.head) == ("global.layer1.0", 2)


def test_a_map_no_better_than_chance_says_so(look, ask, worker, qtbot):
    ask(lambda: look.pick((20, 30)))
    look.check_button.click()
    qtbot.waitUntil(lambda: look.belief.isVisibleTo(look), timeout=WAIT_MS)
    assert look.belief.text() == "No better than chance: score 0.01 (−0.10 to 0.10), random maps −0.20 to 0.20."
    assert "This map does no better than chance." in look.caption.text()
    facts = layer_of(look).metadata[METADATA]
    assert (facts["verdict"], facts["faithfulness"]) == ("chance", 0.01)
    assert facts["belief"] in facts["caption"]
    assert worker.session.checked[0][1] == 1, "of the structure that the point lies in"
    ask(lambda: look.pick((60, 40)))
    assert not look.belief.isVisibleTo(look), "it was said of the other map"
    assert "verdict" not in layer_of(look).metadata[METADATA]


def test_the_same_colours_for_the_next_map(look, ask):
    ask(lambda: look.pick((20, 30)))
    first = tuple(layer_of(look).contrast_limits)
    look.more.colours.setChecked(True)
    ask(lambda: look.head_box.setCurrentIndex(1))
    assert tuple(layer_of(look).contrast_limits) == first


def test_a_map_is_saved_where_it_lies_and_kept(look, ask, qtbot, tmp_path):
    from napari_medt.io import read

    look.source_box.setCurrentIndex(look.source_box.findData("local.layer1.0"))
    found = ask(lambda: look.pick((40, 90)))
    look.more.save(tmp_path / "map.ome.zarr")
    qtbot.waitUntil(lambda: "Saved as map.ome.zarr" in look.message.text, timeout=WAIT_MS)
    back = read(tmp_path / "map.ome.zarr")
    assert back.geometry.close_to(found.geometry, shape=found.data.shape)
    np.testing.assert_allclose(np.asarray(back.array[0]), found.data / found.even, rtol=1e-6)
    look.more.keep_button.click()
    assert "(kept)" in look.message.text


def test_a_figure_for_print(look, ask, qtbot, tmp_path):
    from PIL import Image

    ask(lambda: look.pick((20, 30)))
    for name in ("figure.png", "figure.pdf"):
        look.more.save_figure(tmp_path / name)
        qtbot.waitUntil(lambda name=name: f"Saved as {name}" in look.message.text, timeout=WAIT_MS)
    picture = Image.open(tmp_path / "figure.png")
    assert picture.width == round(figure.WIDTH_IN * figure.DPI)
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
