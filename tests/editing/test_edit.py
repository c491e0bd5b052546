"""`Edit` and `Rules`: one change, and what it may not touch."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.core import BadEdit, NothingToChange, OverlapFound
from napari_medt.editing import Rules, grow, make_edit
from tests.editing.tools import SPACING, after, phantom

WHOLE = (slice(0, 2), slice(0, 3))


@pytest.fixture
def labels():
    return np.array([[0, 1, 1], [2, 0, 3]], np.uint8)


def painted(labels, value, where=...):
    changed = labels.copy()
    changed[where] = value
    return make_edit("brush", (value,), WHOLE, labels, changed)


def test_a_preview_stays_what_it_was(labels):
    edit = painted(labels, 1)
    labels[0, 0] = 9
    assert edit.before.tolist() == [[0, 1, 1], [2, 0, 3]]
    with pytest.raises(ValueError, match="read-only"):
        edit.after[0, 0] = 5
    assert edit.changed.tolist() == [[True, False, False], [True, True, True]]


def test_a_stale_change_is_refused(labels):
    edit = painted(labels, 1)
    labels[0, 0] = 9
    with pytest.raises(BadEdit, match="has changed since 'brush' was worked out; work it out again"):
        edit.apply(labels)
    assert labels[0, 0] == 9
    for other in (labels.astype(np.int32), labels[:, :2], labels[None]):
        with pytest.raises(BadEdit, match="another mask"):
            edit.apply(other)


def test_what_makes_no_change_is_refused(labels):
    with pytest.raises(NothingToChange, match="Nothing would change"):
        make_edit("model", (), WHOLE, labels, labels)
    with pytest.raises(BadEdit, match="shape"):
        make_edit("model", (), WHOLE, labels, labels[:1])
    with pytest.raises(BadEdit, match="uint8 cannot hold the label 300"):
        make_edit("model", (), WHOLE, labels, np.full((2, 3), 300))
    with pytest.raises(BadEdit, match="float64"):
        make_edit("model", (), WHOLE, labels, np.full((2, 3), 1.5))


def test_results_of_other_types_fit_where_their_labels_do(labels):
    edit = make_edit("model", (), WHOLE, labels, labels.astype(np.int64) + 1)
    assert edit.after.dtype == np.uint8
    assert edit.after.tolist() == [[1, 2, 2], [3, 1, 4]]


def test_names():
    labels = np.zeros((2, 3), np.uint8)
    edits = [make_edit("merge", about, WHOLE, labels, labels + 1) for about in ((1,), (2, 1), (1, 2, 3))]
    assert [edit.structure({1: "liver"}) for edit in edits] == ["liver", "liver and label 2", "3 structures"]


def test_a_tool_on_one_slice_or_part_changes_the_volume():
    labels = phantom()
    for axis in range(3):
        index = labels.shape[axis] // 2
        edit = grow(labels.take(index, axis), 1, margin_mm=2, spacing=(1, 1)).on_slice(axis, index)
        assert np.unique(np.argwhere(after(edit, labels) != labels)[:, axis]).tolist() == [index]
    part = (slice(2, 10), slice(5, 30), slice(1, 39))
    moved = grow(labels[part], 1, margin_mm=2, spacing=SPACING[3]).moved((2, 5, 1))
    np.testing.assert_array_equal(
        after(moved, labels)[part], after(grow(labels[part], 1, margin_mm=2, spacing=SPACING[3]), labels[part])
    )


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(), [[3, 3, 3], [3, 3, 3]]),
        (Rules(overlap="keep"), [[3, 1, 1], [2, 3, 3]]),
        (Rules(locked={1}), [[3, 1, 1], [3, 3, 3]]),
        (Rules(locked={0}), [[0, 3, 3], [3, 0, 3]]),
        (Rules(frozen=np.eye(2, 3)), [[0, 3, 3], [3, 0, 3]]),
        (Rules(locked={2}, frozen=np.eye(2, 3), overlap="keep"), None),
        (Rules(locked={3}), None),
    ],
)
def test_rules(labels, rules, expected):
    edit = painted(labels, 3)
    if expected is None:
        with pytest.raises(NothingToChange, match="locked, frozen, or belongs to structures that are kept"):
            rules.permit(edit)
    else:
        assert after(rules.permit(edit), labels).tolist() == expected


def test_only_what_could_be_taken_is_asked_about(labels):
    with pytest.raises(OverlapFound) as told:
        Rules(overlap="ask").permit(painted(labels, 3))
    assert told.value.overlaps == {1: 2, 2: 1}
    with pytest.raises(OverlapFound) as told:
        Rules(overlap="ask", locked={1}).permit(painted(labels, 3))
    assert told.value.overlaps == {2: 1}
    assert Rules(overlap="ask", locked={1, 2}).permit(painted(labels, 3)).voxels == 2


def test_a_model_is_asked_about_every_structure(labels):
    edit = make_edit("run", (), WHOLE, labels, np.zeros_like(labels))
    assert after(Rules(overlap="replace").permit(edit), labels).max() == 0
    with pytest.raises(OverlapFound) as told:
        Rules(overlap="ask").permit(edit)
    assert told.value.overlaps == {1: 2, 2: 1, 3: 1}
    with pytest.raises(NothingToChange):
        Rules(overlap="keep").permit(edit)


def test_a_frozen_region_must_lie_on_the_mask(labels):
    with pytest.raises(BadEdit, match="frozen region of shape"):
        Rules(frozen=np.ones((1, 1))).permit(painted(labels, 3))
