"""The tools of step 3: what each would do is shown before it is done, and one undo takes it back; in 2D and in 3D."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeyEvent
from scipy.ndimage import gaussian_filter

from napari_medt import editing
from napari_medt.core import Geometry
from napari_medt.widgets import layers, texts, tools
from napari_medt.widgets.correct_step import CorrectStep
from napari_medt.widgets.review import Review
from napari_medt.widgets.tools import COMMON, MORE, TOOLS, Scale

SPACING = (3.0, 1.0, 1.5)


def phantom(axes):
    """Two structures: the first has two lobes with a neck, a hole, a small island and a gap between slices."""
    labels = np.zeros((9, 40, 48), np.uint8)
    labels[1:8, 5:20, 5:20] = 1
    labels[1:8, 11:14, 18:28] = 1
    labels[1:8, 5:20, 26:40] = 1
    labels[3:6, 9:12, 9:12] = 0
    labels[4, 30:32, 3:5] = 1
    labels[1:8, 26:36, 14:40] = 2
    labels[1:8, 28, 40] = 2
    image = gaussian_filter(20.0 + 100 * (labels == 1) + 60 * (labels == 2), 0.8)
    if axes == 2:
        return labels[4], image[4].astype(np.float32)
    return labels, image.astype(np.float32)


@pytest.fixture
def step(qtbot, worker, until):
    """Step 3 on a viewer without a window."""
    made = []

    def make(axes=3, units="mm", labels=None):
        model = ViewerModel()
        mask, picture = phantom(axes)
        mask = mask if labels is None else labels
        image = model.add_image(picture, name="scan", scale=SPACING[-axes:], units=(units,) * axes)
        review = Review(model, worker=worker)
        step = CorrectStep(review)
        qtbot.addWidget(step)
        made.append((step, review))
        review.choose_image(image)
        review.work.set_classes(("background", "kidney", "liver", "cyst"))
        review.work.replace(mask, "model run", model_key="quick@1")
        until(lambda: set(review.work.voxels) == {1, 2})
        if axes == 3:
            model.dims.set_point(0, 4 * SPACING[0])
        step.model = model
        step.calm = lambda: until(lambda: step.toolbox.idle and review.changes.idle and not review.work._history.moving)
        return step

    yield make
    for step, review in made:
        step.close_tools()
        review.close()


def event(step, kind, at):
    mask = step.review.work.mask
    return SimpleNamespace(
        type=kind,
        position=tuple(np.asarray(mask.data_to_world(at))),
        pos=np.array([100, 100]),
        button=1,
        modifiers=[],
        is_dragging=False,
        handled=False,
        view_direction=None,
        dims_displayed=list(step.model.dims.displayed),
    )


def drag(step, places):
    """Press at the first place, move over the others, and release."""
    first, *others = places
    happened = event(step, "mouse_press", first)
    mouse_press_callbacks(step.model, happened)
    for place in others:
        happened.type, happened.is_dragging = "mouse_move", True
        happened.position = event(step, "", place).position
        mouse_move_callbacks(step.model, happened)
    happened.type = "mouse_release"
    mouse_release_callbacks(step.model, happened)


def hover(step, at):
    mouse_move_callbacks(step.model, event(step, "mouse_move", at))


def place(step, *at):
    return at if len(step.review.work.shape) == 2 else (4, *at)


def prepare(step, name):
    """Do what a tool asks for besides its options."""
    if name in ("between", "copy"):
        mask = step.review.work.mask
        mask.data[5] = 0
        step.review.work.flush(everywhere=True)
    if name == "combine":
        step.model.add_labels(np.roll(step.review.work.labels, 3, axis=-1), name="second reader")
    step.toolbox.open(name)
    if name == "merge":
        step.choose(1)
    if name == "smooth":
        step.toolbox.form.boxes["length"].setValue(2)
    if name in ("remove_island", "keep_island", "give_island"):
        drag(step, [place(step, 30, 4)])
    if name == "split":
        drag(step, [place(step, 14, 16)])
        drag(step, [place(step, 14, 34)])
    if name == "cut":
        drag(step, [place(step, row, 23) for row in range(3, 24)])
    if name == "level":
        hover(step, place(step, 5, 30))
    if name == "threshold":
        step.toolbox.form.boxes["low"].setValue(70)
        step.toolbox.form.boxes["high"].setValue(100)


NOT_STROKES = [name for name, tool in TOOLS.items() if tool.clicks != "stroke"]


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", NOT_STROKES)
def test_every_tool_shows_what_it_would_do_and_is_one_step(step, until, name, axes):
    if TOOLS[name].volume and axes == 2:
        pytest.skip("for volumes")
    made = step(axes)
    work = made.review.work
    prepare(made, name)
    before, depth = work.mask.data.copy(), work.depth
    until(lambda: made.toolbox.outlook is not None)
    preview = made.review.layers.find(made.review.image, "preview")
    assert preview in made.model.layers
    assert any(words in made.toolbox.form.legend.text() for words in texts.OUTLOOK.values())
    np.testing.assert_array_equal(work.mask.data, before)
    start = np.round(work.mask.world_to_data(preview.data_to_world((0,) * axes))).astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(start, preview.data.shape, strict=True))
    expected = preview.data != 0

    made.toolbox.apply()
    made.calm()
    changed = work.mask.data != before
    np.testing.assert_array_equal(changed[box], expected)
    assert changed.sum() == expected.sum(), "nothing outside of what was shown"
    assert work.depth == depth + 1
    assert work.timeline.changes[-1].by == "tool"
    assert not preview.visible
    work.undo()
    made.calm()
    np.testing.assert_array_equal(work.mask.data, before)


@pytest.mark.parametrize("name", ["split", "cut", "give_island"])
def test_a_new_structure_is_none_that_has_a_name(step, until, name):
    made = step(2)  # label 3 is the cyst, of which nothing is in the mask
    prepare(made, name)
    until(lambda: made.toolbox.outlook is not None)
    made.toolbox.apply()
    made.calm()
    assert sorted(made.review.work.voxels) == [1, 2, 4]


@pytest.mark.parametrize(("name", "why"), [("merge", texts.NO_OTHER_STRUCTURE), ("combine", texts.NO_OTHER_MASK)])
def test_a_tool_that_needs_another_says_so_where_there_is_none(step, until, name, why):
    made = step(2)
    work = made.review.work
    work.set_classes(("background", "nucleus"))
    assert work.replace((work.labels > 0).astype(np.uint8), "one structure")
    made.calm()
    made.toolbox.open(name)
    until(lambda: why in made.toolbox.form.legend.text())
    assert not made.toolbox.form.apply_button.isEnabled()


@pytest.mark.parametrize("axes", [2, 3])
def test_a_stroke_of_a_ball_is_one_step(step, until, axes):
    made = step(axes, labels=None)
    work = made.review.work
    before = work.mask.data.copy()
    made.toolbox.open("ball_brush")
    made.toolbox.form.boxes["diameter"].setValue(9)
    assert (work.mask.cursor, work.mask.cursor_size) == ("circle", 9), "the brush is seen as large as it paints"
    made.choose(3)
    drag(made, [place(made, 22, column) for column in range(20, 30)])
    made.calm()
    until(lambda: work.depth == 2)
    painted = work.mask.data == 3
    assert work.undo_name == "ball brush, cyst"
    if axes == 3:
        assert np.flatnonzero(painted.any(axis=(1, 2))).tolist() == [3, 4, 5], "4.5 mm reach one slice of 3 mm"
    rows = np.flatnonzero(painted.any(axis=(*range(axes - 2), axes - 1)))
    assert (rows.min(), rows.max()) == (18, 26)
    work.undo()
    made.calm()
    np.testing.assert_array_equal(work.mask.data, before)
    made.toolbox.form.boxes["act"].setCurrentIndex(1)
    drag(made, [place(made, 12, 12)])
    until(lambda: work.depth == 2)
    assert work.undo_name == "ball brush, kidney"
    assert (work.mask.data == 1).sum() < (before == 1).sum()


def test_the_range_brush_paints_only_in_the_range(step, until):
    made = step(2)
    work = made.review.work
    made.choose(3)
    made.toolbox.open("range_brush")
    for option, value in (("diameter", 30), ("low", 60), ("high", 100)):
        made.toolbox.form.boxes[option].setValue(value)
    before = work.mask.data.copy()
    drag(made, [(24, 24), (24, 30)])
    made.calm()
    until(lambda: work.depth == 2)
    painted = (work.mask.data == 3) & (before != 3)
    grey = made.model.layers["scan"].data
    assert painted.any()
    assert ((grey[painted] >= 60) & (grey[painted] <= 100)).all()
    assert not painted[24, 24:31][grey[24, 24:31] < 60].any(), "under the brush, but darker"


def test_a_tool_keeps_locked_structures(step, until):
    made = step(3)
    work = made.review.work
    work.set_locked(2, True)
    made.toolbox.open("grow")
    made.toolbox.form.boxes["length"].setValue(9)
    until(lambda: made.toolbox.outlook is not None)
    before = work.mask.data.copy()
    made.toolbox.apply()
    made.calm()
    assert work.depth == 2
    np.testing.assert_array_equal(work.mask.data == 2, before == 2)


def test_a_tool_that_meets_others_asks(step, until):
    made = step(2)
    work = made.review.work
    work.overlap = "ask"
    made.toolbox.open("grow")
    made.toolbox.form.boxes["length"].setValue(9)
    until(lambda: made.toolbox.outlook is not None)
    assert "asked about liver" in made.toolbox.form.legend.text()
    before = work.mask.data.copy()
    made.toolbox.apply()
    made.calm()
    assert "would also take" in made.overlap_offer.text
    assert "of liver" in made.overlap_offer.text
    np.testing.assert_array_equal(work.mask.data == 2, before == 2)
    made.overlap_offer.accept_button.click()
    made.calm()
    assert (work.mask.data == 2).sum() < (before == 2).sum()


def test_a_lock_set_after_the_preview_holds(step, until):
    made = step(2)
    work = made.review.work
    made.toolbox.open("grow")
    made.toolbox.form.boxes["length"].setValue(9)
    until(lambda: made.toolbox.outlook is not None)
    before = work.mask.data.copy()
    outlook = made.toolbox.outlook
    work.set_locked(2, True)
    assert not work.make(outlook.verdict, by="tool", again=lambda: None)
    until(lambda: made.toolbox.outlook not in (outlook, None))
    made.toolbox.apply()
    made.calm()
    np.testing.assert_array_equal(work.mask.data == 2, before == 2)
    assert work.depth == 2


def test_what_a_tool_cannot_do_is_said_with_names(step, until):
    made = step(2)
    made.toolbox.open("shrink")
    made.toolbox.form.boxes["length"].setValue(50)
    until(lambda: "kidney" in made.toolbox.form.legend.text())
    assert not made.toolbox.form.apply_button.isEnabled()
    made.toolbox.open("between")
    assert made.toolbox.tool is None
    assert made.message.text == texts.ONLY_VOLUMES


def test_the_preview_follows_the_mask_and_the_options(step, until):
    made = step(2)
    work = made.review.work
    made.toolbox.open("grow")
    until(lambda: made.toolbox.outlook is not None)
    first = made.toolbox.outlook
    made.toolbox.form.boxes["length"].setValue(12)
    until(lambda: made.toolbox.outlook not in (first, None))
    second = made.toolbox.outlook
    assert sum(second.voxels.values()) > sum(first.voxels.values())
    work.mask.data[:] = np.roll(work.mask.data, 1, axis=0)
    work.flush(everywhere=True)
    until(lambda: made.toolbox.outlook not in (second, None))
    made.toolbox.apply()
    made.calm()
    assert work.undo_name == "grow, kidney"


def test_apply_does_what_the_form_says_also_before_it_is_shown(step, until, qtbot):
    made = step(2)
    work = made.review.work
    before = work.mask.data.copy()
    made.toolbox.open("grow")
    made.calm()
    box = made.toolbox.form.boxes["length"]
    box.selectAll()
    qtbot.keyClicks(box, "7")
    assert box.value() != 7, "typed, but not yet taken"
    made.toolbox.form.apply_button.click()
    until(lambda: work.depth == 2)
    expected = before.copy()
    editing.grow(before, 1, margin_mm=7, spacing=SPACING[1:]).apply(expected)
    np.testing.assert_array_equal(work.mask.data, expected)
    made.calm()
    assert work.depth == 2


def test_in_a_box_of_numbers_letters_and_undo_are_keys_of_the_window(step, until, qtbot):
    made = step(2)
    made.toolbox.open("grow")
    made.calm()
    box = made.toolbox.form.boxes["length"]
    box.selectAll()
    qtbot.keyClicks(box, "6")
    for key, held, text in (
        (Qt.Key.Key_Y, Qt.KeyboardModifier.NoModifier, "y"),
        (Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier, "\x1a"),
    ):
        for kind in (QEvent.Type.ShortcutOverride, QEvent.Type.KeyPress):
            pressed = QKeyEvent(kind, key, held, text)
            assert not box.event(pressed)
            assert not pressed.isAccepted()
    assert box.value() == 6, "what was typed counts before the key does"
    digit = QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_5, Qt.KeyboardModifier.NoModifier, "5")
    assert box.event(digit)


@pytest.mark.parametrize("name", [name for name, tool in TOOLS.items() if tool.slices])
def test_a_tool_of_slices_says_so_in_3d(step, until, name):
    made = step(3)
    made.model.dims.ndisplay = 3
    made.toolbox.open(name)
    until(lambda: made.toolbox.form.legend.text() == texts.ONLY_SLICES)
    assert not made.toolbox.form.apply_button.isEnabled()
    made.model.dims.ndisplay = 2
    until(lambda: made.toolbox.form.legend.text() != texts.ONLY_SLICES)


def test_undo_after_a_tool_takes_back_what_it_did(step, until):
    made = step(2)
    work = made.review.work
    other = made.model.add_labels(np.zeros(work.shape, np.uint8), name="second reader")
    assert made.model.layers.selection.active is other
    made.toolbox.open("grow")
    made.calm()
    made.toolbox.apply()
    assert work.depth == 2
    made.step_anywhere(back=True)
    until(lambda: work.depth == 1)


def test_smoothing_begins_with_the_finest_voxel_edge(step, until):
    made = step(3)
    for name in ("smooth", "smooth_all"):
        made.toolbox.open(name)
        made.calm()
        assert made.toolbox.form.boxes["length"].value() == 1.0 == min(SPACING)


def test_closing_a_tool_leaves_no_trace(step, until):
    made = step(2)
    mask = made.review.work.mask
    before = list(made.model.mouse_drag_callbacks), list(made.model.mouse_move_callbacks)
    for name in TOOLS:
        made.toolbox.open(name)
        made.toolbox.close_tool()
    assert mask.mouse_pan
    assert mask.cursor == "standard"
    assert (list(made.model.mouse_drag_callbacks), list(made.model.mouse_move_callbacks)) == before
    assert [layer.name for layer in made.model.layers] == ["scan", "Mask of scan"]
    made.toolbox.open("ball_brush")
    made.use("paint")
    assert made.toolbox.tool is None, "a brush of napari's takes the place of a tool"


def test_every_function_of_editing_is_reachable():
    source = inspect.getsource(tools)
    functions = set(editing.__all__) - {"Edit", "OverlapPolicy", "Rules", "make_edit"}
    assert {name for name in functions if f"editing.{name}(" not in source} == set()
    assert {*COMMON, *(name for group in MORE.values() for name in group)} == set(TOOLS)


@pytest.mark.parametrize(
    ("units", "axes", "unit", "size_unit", "length_mm", "size"),
    [
        ("mm", 3, "mm", "ml", 1.0, 1.0),
        ("um", 2, "µm", "µm²", 1e-3, 1e-6),
        ("px", 2, "px", "px", 1.0, 1.0),
        ("px", 3, "px", "px", 1.0, 1e-3),
        ("mm", 2, "mm", "mm²", 1.0, 1.0),
    ],
)
def test_lengths_are_told_in_the_unit_of_the_picture(units, axes, unit, size_unit, length_mm, size):
    scale = Scale.of(Geometry.from_spacing((0.5,) * axes, units=units))
    assert (scale.unit, scale.size_unit) == (unit, size_unit)
    assert scale.to_mm == pytest.approx(length_mm)
    assert scale.to_size == pytest.approx(size)
    if units != "px":
        assert scale.length(2.0) == pytest.approx(1.0)


def test_keys_are_free_in_naparis_labels_layer():
    from napari.layers import Labels
    from napari.settings import get_settings

    taken = {
        str(key)
        for action, keys in get_settings().shortcuts.shortcuts.items()
        if action.split(":")[-1] in NAPARI_LABELS or "label" in action or "polygon" in action
        for key in keys
    }
    taken |= {str(key) for key in Labels.class_keymap}
    assert taken & {"P", "F", "M"}, "napari's keys were found"
    assert {*texts.KEYS, *texts.REVIEW_KEYS} & taken == set()
    assert set(texts.KEYS) & set(texts.REVIEW_KEYS) == set()
    others = {"apply", "cancel_tool", "next_structure", "lock_structure"}
    assert set(texts.KEYS.values()) <= set(TOOLS) | others


def test_the_guide_tells_every_key(root):
    guide = (root / "docs" / "editing.md").read_text(encoding="utf-8")
    assert [key for key in texts.KEYS if f"| `{key}` | " not in guide] == []


NAPARI_LABELS = {"new_label", "swap_selected_and_background_labels", "hold_for_pan_zoom", "toggle_selected_visibility"}


def test_a_key_opens_its_tool(step, until):
    made = step(3)
    bound = {str(key): act for key, act in made.model.keymap.items()}
    bound["G"](made.model)
    until(lambda: made.toolbox.outlook is not None)
    assert made.toolbox.tool.name == "grow"
    bound["Y"](made.model)
    made.calm()
    assert made.review.work.undo_name == "grow, kidney"
    bound["N"](made.model)
    assert made.review.work.mask.selected_label == 2
    bound["Q"](made.model)
    assert made.review.work.protection.locked == (2,)


def test_layers_of_a_preview_are_ours(step, until):
    made = step(2)
    made.toolbox.open("grow")
    until(lambda: made.toolbox.outlook is not None)
    assert layers.is_ours(made.review.layers.find(made.review.image, "preview"))
