"""Undo and redo of everything that changes a mask: brush, fill, model runs, loaded masks, other plugins."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.widgets import strokes


@pytest.fixture
def editor(make_editor):
    return make_editor()


def stroke(editor, at, label=1, size=5):
    """Paint as the mouse does: several touches, one change."""
    mask = editor.mask
    mask.mode, mask.brush_size = "paint", size
    with mask.block_history():
        mask.paint(at, label)
        mask.paint((*at[:-1], at[-1] + 2), label)


def depth(editor, until, steps):
    until(lambda: editor.depth == steps)


def test_a_stroke_is_one_change_named_after_its_tool(editor, until):
    stroke(editor, (10, 10))
    depth(editor, until, 1)
    assert (editor.undo_name, editor.edits, editor.redo_name) == ("brush, cell", 1, "")
    painted = editor.mask.data.copy()
    assert painted.any()
    editor.undo()
    depth(editor, until, 0)
    assert not editor.mask.data.any()
    assert editor.redo_name == "brush, cell"
    editor.redo()
    depth(editor, until, 1)
    np.testing.assert_array_equal(editor.mask.data, painted)


def test_a_stroke_that_is_announced_before_it_is_written_is_found(editor, until):
    """`paint` outside a stroke tells of the change before the array has it."""
    editor.mask.mode = "erase"
    editor.mask.data[5:20, 5:20] = 1
    editor.flush(everywhere=True)
    editor.mask.paint((10, 10), 0)
    depth(editor, until, 2)
    assert editor.undo_name == "eraser, cell"
    editor.undo()
    depth(editor, until, 1)
    assert editor.mask.data[5:20, 5:20].all()


def test_fill_and_polygon_have_their_names(editor, until):
    editor.mask.mode = "fill"
    editor.mask.fill((3, 3), 1)
    depth(editor, until, 1)
    assert editor.undo_name == "fill, cell"
    assert editor.mask.data.all()


@pytest.mark.parametrize("before", ["empty", "painted"])
def test_undo_of_a_run_restores_the_former_mask(editor, until, rng, before):
    if before == "painted":
        stroke(editor, (20, 20))
        depth(editor, until, 1)
    former = editor.mask.data.copy()
    found = rng.integers(0, 2, former.shape).astype(np.uint8)
    assert editor.replace(found, "model run", model_key="quick@1")
    np.testing.assert_array_equal(editor.mask.data, found)
    assert (editor.undo_name, editor.edits) == ("model run", int(before == "painted"))
    steps = editor.depth
    editor.undo()
    depth(editor, until, steps - 1)
    np.testing.assert_array_equal(editor.mask.data, former)
    editor.redo()
    depth(editor, until, steps)
    np.testing.assert_array_equal(editor.mask.data, found)


def test_naparis_own_undo_cannot_write_old_values_into_a_new_mask(editor, until):
    """Strokes before a run stay in napari's history; its undo would write them into the run's mask."""
    stroke(editor, (20, 20))
    depth(editor, until, 1)
    editor.replace(np.full(editor.shape, 1, np.uint8), "model run")
    editor.mask.undo()  # as every key binding and menu of napari does
    depth(editor, until, 1)
    assert set(np.unique(editor.mask.data)) == {0, 1}
    assert editor.undo_name == "brush, cell"
    type(editor.mask).undo(editor.mask)  # napari's own, should anything still reach it
    assert editor.mask.data[20, 20] == 1, "its history was emptied by the run"


def test_the_keys_are_bound_on_the_layer(editor, until):
    bound = {str(key): function for key, function in editor.mask.keymap.items()}
    undo = next(function for key, function in bound.items() if key.lower().endswith("ctrl+z"))
    stroke(editor, (20, 20))
    depth(editor, until, 1)
    undo(editor.mask)
    depth(editor, until, 0)
    assert sum("z" in key.lower() for key in bound) == 2


def test_what_another_plugin_writes_is_found_before_a_run(editor, until):
    editor.mask.data[1:3, 1:3] = 1  # tells nobody
    editor.replace(np.zeros(editor.shape, np.uint8) + 1, "model run")
    editor.undo()
    depth(editor, until, 1)
    assert editor.mask.data.sum() == 4
    editor.undo()
    depth(editor, until, 0)
    assert editor.mask.data.sum() == 0


def test_a_new_array_in_the_layer_is_a_change_like_any_other(editor, until):
    stroke(editor, (20, 20))
    depth(editor, until, 1)
    former = editor.mask.data.copy()
    editor.mask.data = np.ones(editor.shape, np.uint8)
    depth(editor, until, 2)
    editor.undo()
    depth(editor, until, 1)
    np.testing.assert_array_equal(editor.mask.data, former)


def test_painting_while_an_undo_is_unpacked_is_kept(editor, until):
    stroke(editor, (8, 8))
    depth(editor, until, 1)
    editor.undo()
    stroke(editor, (30, 40))
    until(lambda: editor.mask.data[8, 8] == 0 and editor.depth == 1)
    assert editor.mask.data[30, 40] == 1
    assert editor.redo_name == ""
    editor.undo()
    depth(editor, until, 0)
    assert not editor.mask.data.any()


def test_a_mask_that_gets_room_for_larger_labels_amid_several_undos(editor, until):
    for count, place in enumerate([(4, 4), (30, 40), (16, 20)], start=1):  # the last between the others
        stroke(editor, place, label=count)
        depth(editor, until, count)
    for _ in range(3):
        editor.undo()
    editor.mask.data = editor.mask.data.astype(np.uint16)
    depth(editor, until, 0)
    assert not editor.mask.data.any()
    np.testing.assert_array_equal(editor.mask.data, editor.labels)
    for _ in range(3):
        editor.redo()
    depth(editor, until, 3)
    assert np.unique(editor.mask.data).tolist() == [0, 1, 2, 3]


def test_large_masks_are_compared_only_where_they_were_touched(make_editor, until, monkeypatch):
    monkeypatch.setattr(strokes, "WHOLE_VOXELS", 100)
    editor = make_editor((200, 300))
    looked_at = []
    places = editor._strokes.places
    monkeypatch.setattr(editor._strokes, "places", lambda *a, **b: looked_at.append(places(*a, **b)) or looked_at[-1])
    stroke(editor, (100, 150), size=9)
    depth(editor, until, 1)
    assert looked_at
    assert max(np.prod([part.stop - part.start for part in box]) for box in looked_at) < 1000
    painted = editor.mask.data.copy()
    editor.undo()
    depth(editor, until, 0)
    assert not editor.mask.data.any()
    editor.redo()
    depth(editor, until, 1)
    np.testing.assert_array_equal(editor.mask.data, painted)


def test_strokes_in_a_scan_are_found_in_their_slice(make_editor, until, monkeypatch):
    monkeypatch.setattr(strokes, "WHOLE_VOXELS", 100)
    editor = make_editor((9, 30, 40), plane=lambda: (slice(3, 6), slice(0, 30), slice(0, 40)))
    editor.model.dims.set_point(0, 4)
    stroke(editor, (4, 10, 10))
    depth(editor, until, 1)
    assert editor.mask.data[4].any()
    editor.undo()
    depth(editor, until, 0)
    assert not editor.mask.data.any()


def test_more_labels_than_bytes_hold(editor, until):
    stroke(editor, (20, 20))
    depth(editor, until, 1)
    many = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    editor.replace(many, "loaded mask")
    np.testing.assert_array_equal(editor.mask.data, many)
    editor.undo()
    depth(editor, until, 1)
    assert set(np.unique(editor.mask.data)) == {0, 1}


def test_a_mask_of_another_shape_is_refused(editor):
    assert not editor.replace(np.zeros((3, 3), np.uint8), "model run")
    assert editor.depth == 0


def test_a_random_walk_through_the_history_always_comes_back(editor, until, rng):
    states = [editor.mask.data.copy()]
    for number in range(8):
        if number % 4 == 2:
            editor.replace(rng.integers(0, 3, editor.shape).astype(np.uint8), "model run")
        else:
            stroke(editor, tuple(int(v) for v in rng.integers(5, 35, 2)), label=10 + number)
        depth(editor, until, number + 1)
        states.append(editor.mask.data.copy())
    at = 8
    for _ in range(25):
        step = int(rng.choice([-1, 1]))
        if not 0 <= at + step <= 8:
            continue
        at += step
        (editor.undo if step < 0 else editor.redo)()
        depth(editor, until, at)
        np.testing.assert_array_equal(editor.mask.data, states[at])


def test_closing_gives_the_layer_back_to_napari(editor, until):
    mask = editor.mask
    stroke(editor, (20, 20))
    depth(editor, until, 1)
    editor.close()
    assert mask.undo.__func__ is type(mask).undo
    painted = mask.data.copy()
    mask.undo()
    np.testing.assert_array_equal(mask.data, painted)
    mask.paint((5, 5), 1)
    mask.undo()
    np.testing.assert_array_equal(mask.data, painted)


def test_labels_of_a_larger_type_are_taken_over(editor, until):
    editor.mask.data = editor.mask.data.astype(np.uint16)
    stroke(editor, (10, 10), label=300)
    depth(editor, until, 1)
    editor.undo()
    until(lambda: editor.redo_name == "brush, label 300")
    assert not editor.mask.data.any()
    editor.redo()
    depth(editor, until, 1)
    assert editor.mask.data.max() == 300


def test_a_ball_in_a_large_scan_is_undone_whole(make_editor, until, monkeypatch):
    monkeypatch.setattr(strokes, "WHOLE_VOXELS", 100)
    editor = make_editor((30, 40, 50), plane=lambda: (slice(14, 17), slice(0, 40), slice(0, 50)))
    editor.mask.n_edit_dimensions = 3
    stroke(editor, (15, 20, 20), size=11)
    depth(editor, until, 1)
    assert np.ptp(np.nonzero(editor.mask.data)[0]) >= 10
    editor.undo()
    until(lambda: editor.redo_name == "brush, cell")
    assert not editor.mask.data.any()
