"""Locked structures never change, whatever is done; others are kept, replaced, or asked about, by whatever means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_medt import editing
from napari_medt.cases import CaseFolder
from napari_medt.core import BadEdit, NothingToChange
from napari_medt.widgets.guard import judge

CLASSES = ("background", "liver", "spleen", "cord")
ORGANS = np.zeros((24, 30), np.uint8)
ORGANS[2:12, 2:14], ORGANS[2:12, 14:28], ORGANS[14:22, 4:26] = 1, 2, 3


@pytest.fixture
def organs(make_editor, until, qtbot):
    """An editor on a mask of three structures, and a function that waits until nothing is under way."""

    def make():
        editor = make_editor(ORGANS.shape, classes=CLASSES)

        def calm():
            editor.flush(everywhere=True)
            until(lambda: not editor._history.moving and editor._bridge.idle)

        editor.calm = calm
        editor.replace(ORGANS, "model run", model_key="quick@1")
        calm()
        return editor

    return make


def leave_locked(organs):
    """A session that ends with a lock on a structure."""
    first = organs()
    first.set_locked(2, True)
    first.calm()
    first.close()


def reopened(make_editor, until):
    """An editor of a later session, once it has found the mask that was left."""
    editor = make_editor(ORGANS.shape, classes=CLASSES)
    editor.look_for_draft()
    until(lambda: editor.found is not None)
    return editor


def stroke(editor, at, label, size=9, mode="paint"):
    editor.mask.mode, editor.mask.brush_size = mode, size
    if mode == "fill":
        editor.mask.fill(at, label)
    else:
        editor.mask.paint(at, label)


def use_tool(editor, value, margin):
    try:
        edit = editing.grow(editor.labels, value, margin_mm=margin, spacing=(1, 1))
        editor.make(judge(editor.rules, edit), by="tool")
    except BadEdit:
        pass  # the structure is not there any more


def test_what_is_frozen_does_not_change_until_it_is_given_free(organs):
    editor = organs()
    box = (slice(0, 12), slice(0, 14))
    editor.freeze(box)
    editor.freeze((slice(20, 24), slice(0, 30)))
    assert editor.frozen_share == pytest.approx((12 * 14 + 4 * 30) / (24 * 30))
    stroke(editor, (6, 12), 3)
    editor.calm()
    np.testing.assert_array_equal(editor.mask.data[box], ORGANS[box])
    assert editor.mask.data[6, 15] == 3, "beside it the brush paints"
    editor.replace(np.full_like(ORGANS, 2), "model run", model_key="quick@1")
    editor.calm()
    np.testing.assert_array_equal(editor.mask.data[box], ORGANS[box])
    np.testing.assert_array_equal(editor.mask.data[20:], ORGANS[20:])
    assert (editor.mask.data[12:20] == 2).all()
    editor.freeze(None)
    assert editor.frozen_share == 0
    editor.replace(np.full_like(ORGANS, 1), "model run", model_key="quick@1")
    editor.calm()
    assert (editor.mask.data == 1).all()


places = st.tuples(st.integers(0, 23), st.integers(0, 29))
labels = st.integers(0, 4)
operations = st.one_of(
    st.tuples(st.just("brush"), places, labels),
    st.tuples(st.just("fill"), places, labels),
    st.tuples(st.just("write"), places, labels),
    st.tuples(st.just("tool"), st.integers(1, 3), st.integers(1, 4)),
    st.tuples(st.just("run"), st.integers(0, 3), st.integers(0, 5)),
    st.tuples(st.just("go to"), st.integers(0, 9), st.none()),
    st.tuples(st.just("take"), st.none(), st.none()),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    locked=st.sets(st.integers(1, 3), min_size=1, max_size=2),
    policy=st.sampled_from(["keep", "replace", "ask"]),
    acts=st.lists(operations, min_size=1, max_size=6),
)
def test_locked_voxels_never_change(organs, locked, policy, acts):
    editor = organs()
    for label in locked:
        editor.set_locked(label, True)
    editor.overlap = policy
    asked = []
    editor.asked.connect(lambda verdict, by: asked.append((verdict.asked, by)))
    held = np.isin(ORGANS, list(locked))
    for act, first, second in acts:
        match act:
            case "brush":
                stroke(editor, first, second)
            case "fill":
                stroke(editor, first, second, mode="fill")
            case "write":
                editor.mask.data[first[0] :, first[1] :] = second
            case "tool":
                use_tool(editor, first, second)
            case "run":
                editor.replace(np.roll(ORGANS, second, axis=1) * (first > 0), "model run", model_key="quick@1")
            case "go to":
                editor.go_to(first)
            case "take" if asked:
                editor.take(*asked.pop())
        editor.calm()
        mask = editor.mask.data
        np.testing.assert_array_equal(np.isin(mask, list(locked)), held)
        np.testing.assert_array_equal(mask[held], ORGANS[held])
        np.testing.assert_array_equal(mask, editor.labels)
        found = np.bincount(mask.ravel(), minlength=5)
        assert editor.voxels == {label: found[label] for label in range(1, 5) if found[label]}


def test_undo_of_what_is_locked_is_refused_in_words(organs, until):
    editor = organs()
    said = []
    editor.refused.connect(lambda error: said.append(str(error)))
    editor.set_locked(1, True)
    editor.undo()
    editor.calm()
    assert said == ["Undo would change liver, which is locked; unlock it first."]
    np.testing.assert_array_equal(editor.mask.data, ORGANS)
    editor.set_locked(1, False)
    editor.undo()
    editor.calm()
    assert not editor.mask.data.any()


def test_a_stroke_on_a_locked_structure_is_put_back(organs):
    editor = organs()
    said = []
    editor.refused.connect(said.append)
    editor.set_locked(1, True)
    stroke(editor, (6, 6), 3, size=3)
    editor.calm()
    np.testing.assert_array_equal(editor.mask.data, ORGANS)
    assert isinstance(said[0], NothingToChange)
    assert editor.depth == 1, "nothing that was refused stands in the history"
    stroke(editor, (6, 13), 3)
    editor.calm()
    assert (editor.mask.data[ORGANS == 1] == 1).all()
    assert (editor.mask.data[ORGANS == 2] == 3).any()


@pytest.mark.parametrize("means", ["brush", "tool", "run"])
def test_others_are_kept_or_asked_about_by_whatever_means(organs, means):
    editor = organs()
    editor.overlap = "ask"
    asked = []
    editor.asked.connect(lambda verdict, by: asked.append((verdict, by)))
    if means == "brush":
        stroke(editor, (6, 14), 1)
    elif means == "tool":
        use_tool(editor, 1, 2)
    else:
        editor.replace(np.where(ORGANS == 2, 1, ORGANS), "model run", model_key="quick@1")
    editor.calm()
    assert (editor.mask.data[ORGANS == 2] == 2).all(), "until the answer, the others are kept"
    ((verdict, by),) = asked
    assert set(verdict.taken) == {2}
    editor.take(verdict.asked, by)
    editor.calm()
    assert (editor.mask.data == 2).sum() == (ORGANS == 2).sum() - verdict.taken[2]
    assert "over others" in editor.undo_name
    editor.undo()
    editor.calm()
    assert (editor.mask.data[ORGANS == 2] == 2).all()


def test_locks_come_back_with_the_mask(organs, make_editor, until):
    leave_locked(organs)
    second = reopened(make_editor, until)
    assert second.restore()
    assert second.protection.locked == (2,)
    until(lambda: second._bridge.idle)
    stroke(second, (6, 20), 3)
    second.flush()
    np.testing.assert_array_equal(second.mask.data, ORGANS)


@pytest.mark.parametrize("when", ["before it is found", "after it is found"])
def test_a_stroke_without_an_answer_takes_nothing_from_a_found_mask(organs, make_editor, until, when):
    leave_locked(organs)
    second = make_editor(ORGANS.shape, classes=CLASSES)
    second.look_for_draft()
    if when == "after it is found":
        until(lambda: second.found is not None)
    stroke(second, (6, 20), 2)
    second.flush()
    until(lambda: second.found is not None and second._bridge.idle)
    mine = second.mask.data.copy()
    assert mine.any()
    assert [change.title for change in second.timeline.changes] == [
        "model run",
        "found mask put aside",
        "brush, spleen",
    ]
    assert (second.depth, second.edits) == (3, 1)
    assert second.voxels == {2: int((mine == 2).sum())}
    second.go_to(1)
    until(lambda: second.depth == 1)
    np.testing.assert_array_equal(second.mask.data, ORGANS)
    second.go_to(3)
    until(lambda: second.depth == 3)
    np.testing.assert_array_equal(second.mask.data, mine)

    assert second.restore()
    until(lambda: second._bridge.idle)
    np.testing.assert_array_equal(second.mask.data, ORGANS)
    assert (second.protection.locked, second.undo_name) == ((2,), "restored mask")
    second.set_locked(2, False)
    second.undo()
    until(lambda: second.depth == 3)
    np.testing.assert_array_equal(second.mask.data, mine)
    second.close()
    third = reopened(make_editor, until)
    assert third.restore()
    assert third.depth == 3
    np.testing.assert_array_equal(third.mask.data, mine)


def test_locks_of_a_mask_that_was_not_answered_for_stay(organs, make_editor, until):
    leave_locked(organs)
    second = reopened(make_editor, until)
    stroke(second, (6, 20), 3)
    second.close()
    third = reopened(make_editor, until)
    assert third.found.protection.locked == (2,)


def test_the_history_comes_back_with_the_mask(organs, make_editor, until):
    first = organs()
    states = [np.zeros_like(ORGANS), ORGANS]
    for at, label in (((3, 3), 2), ((18, 10), 1), ((10, 20), 3)):
        stroke(first, at, label)
        first.calm()
        states.append(first.mask.data.copy())
    first.undo()
    first.calm()
    first.close()
    second = reopened(make_editor, until)
    assert second.restore()
    assert [change.title for change in second.timeline.changes] == [
        "model run",
        "brush, spleen",
        "brush, liver",
        "brush, cord",
    ]
    assert (second.depth, second.redo_name) == (3, "brush, cord")
    for position in (4, 0, 2, 3, 1):
        second.go_to(position)
        until(lambda position=position: second.depth == position)
        np.testing.assert_array_equal(second.mask.data, states[position])
    stroke(second, (1, 1), 1)
    until(lambda: second.depth == 2)
    until(lambda: second._bridge.idle)
    second.close()
    until(lambda: second._bridge.idle)
    with CaseFolder.open(second.picture.load()) as case:
        found = case.recover()
        np.testing.assert_array_equal(found.labels, second.labels)
        assert [entry.title for entry in case.journal().timeline] == ["model run", "brush, liver"]


def test_fast_steps_back_are_all_taken(organs):
    editor = organs()
    for label in (1, 2, 3, 1, 2):
        stroke(editor, (20, 2), label, size=5)
        editor.calm()
    for _ in range(4):
        editor.undo()  # no waiting between
    editor.calm()
    assert editor.depth == 2
    editor.redo()
    editor.undo()
    editor.redo()
    editor.calm()
    assert editor.depth == 3


def test_a_run_while_a_step_is_unpacked_follows_it(organs):
    editor = organs()
    stroke(editor, (20, 2), 1)
    editor.calm()
    editor.undo()
    editor.replace(np.full_like(ORGANS, 2), "model run", model_key="quick@1")
    editor.calm()
    assert [change.title for change in editor.timeline.changes] == ["model run", "model run"]
    editor.undo()
    editor.calm()
    np.testing.assert_array_equal(editor.mask.data, ORGANS)


def test_a_stroke_beside_a_refused_undo_is_kept(organs, until):
    editor = organs()
    stroke(editor, (20, 2), 1, 3)
    editor.calm()
    editor.set_locked(1, True)
    editor.undo()
    assert editor.moving
    stroke(editor, (22, 28), 2, 3)
    until(lambda: editor.depth == 3)
    assert editor.undo_name == "brush, spleen"


def test_a_stroke_beside_an_undo_is_kept_when_the_mask_is_closed(organs, make_editor, until):
    editor = organs()
    stroke(editor, (8, 14), 3)
    editor.calm()
    mask = editor.mask
    corrected = mask.data.copy()
    editor.undo()
    assert editor.moving
    stroke(editor, (9, 16), 2)
    expected = np.where(mask.data != corrected, mask.data, ORGANS)
    editor.close()
    np.testing.assert_array_equal(mask.data, expected)
    np.testing.assert_array_equal(reopened(make_editor, until).found.labels, expected)


def test_what_follows_a_replacement_waits_until_the_rules_allowed_it(organs):
    editor, made = organs(), []
    editor.set_locked(1, True)
    shifted = np.where(ORGANS == 3, 2, ORGANS).astype(np.uint8)
    editor.replace(shifted, "loaded", by="file", then=lambda: made.append(editor.undo_name))
    assert made == [], "the rules are looked at beside the window"
    editor.calm()
    assert made == ["loaded"]
    for label in (2, 3):
        editor.set_locked(label, True)
    editor.replace(ORGANS, "loaded again", by="file", then=lambda: made.append(editor.undo_name))
    editor.calm()
    assert made == ["loaded"], "nothing was left of it"
