"""What holds for every tool, whatever it is asked."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_medt import editing
from napari_medt.cases import Journal
from napari_medt.core import NothingToChange, OverlapFound
from napari_medt.editing import Rules
from tests.editing.tools import EVERY, after, phantom, picture, run, tools

every_tool = pytest.mark.parametrize(("ndim", "name"), EVERY)


@st.composite
def masks(draw, ndim):
    """The phantom with boxes of other labels in it."""
    labels = phantom(ndim)
    for _ in range(draw(st.integers(0, 4))):
        corner = [draw(st.integers(0, size - 1)) for size in labels.shape]
        size = draw(st.integers(1, 12))
        labels[tuple(slice(start, start + size) for start in corner)] = draw(st.sampled_from([0, 1, 2, 3]))
    return labels


def test_every_tool_is_among_them_and_on_the_page(root):
    public = {name for name in editing.__all__ if inspect.isfunction(getattr(editing, name))} - {"make_edit"}
    assert public == set(tools(3))
    rows = re.findall(r"^\| `(\w+)` \|", (root / "docs" / "editing.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert public <= set(rows)


@every_tool
def test_it_does_something(ndim, name):
    labels = phantom(ndim)
    edit = tools(ndim)[name](labels, picture(labels))
    assert edit.voxels > 0
    assert edit.name == edit.name.lower()


@every_tool
@pytest.mark.parametrize("dtype", [np.int32, np.int8])
def test_dtype_is_kept_and_the_same_comes_out(ndim, name, dtype):
    plain, other = (run(ndim, name, phantom(ndim, kind)) for kind in (np.uint8, dtype))
    assert other.after.dtype == other.before.dtype == dtype
    np.testing.assert_array_equal(plain.after, other.after)


@every_tool
@settings(max_examples=6)
@given(data=st.data())
def test_input_stays_and_the_box_is_tight(ndim, name, data):
    labels = data.draw(masks(ndim))
    before, image = labels.copy(), picture(labels)
    labels.setflags(write=False)
    edit = run(ndim, name, labels, image)
    if edit is None:
        return
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(edit.before, labels[edit.box])
    for axis in range(ndim):
        assert edit.changed.take([0, -1], axis).any(axis=tuple(i for i in range(ndim) if i != axis)).all()
    np.testing.assert_array_equal(np.argwhere(after(edit, labels.copy()) != labels).min(0), [s.start for s in edit.box])


@every_tool
@settings(max_examples=6)
@given(data=st.data())
def test_what_is_locked_frozen_or_kept_never_changes(ndim, name, data):
    labels = data.draw(masks(ndim))
    locked = data.draw(st.sets(st.integers(0, 7), max_size=3))
    frozen = data.draw(arrays(bool, labels.shape))
    edit = run(ndim, name, labels)
    if edit is None:
        return
    try:
        permitted = Rules(locked=locked, frozen=frozen, overlap="keep").permit(edit)
    except NothingToChange:
        return
    changed = after(permitted, labels)
    for value in locked:
        np.testing.assert_array_equal(changed == value, labels == value)
    np.testing.assert_array_equal(changed[frozen], labels[frozen])
    others = ~np.isin(labels, [0, *edit.structures])
    np.testing.assert_array_equal(changed[others], labels[others])
    free = after(edit, labels)
    np.testing.assert_array_equal(changed[changed != labels], free[changed != labels])


@every_tool
def test_asking_counts_what_would_be_taken(ndim, name):
    labels = phantom(ndim)
    edit = run(ndim, name, labels)
    taken = labels[(labels != after(edit, labels)) & ~np.isin(labels, [0, *edit.structures])]
    if taken.size:
        with pytest.raises(OverlapFound, match="choose whether") as told:
            Rules(overlap="ask").permit(edit)
        assert told.value.overlaps == {int(value): int((taken == value).sum()) for value in np.unique(taken)}
    else:
        np.testing.assert_array_equal(Rules(overlap="ask").permit(edit).after, edit.after)


@every_tool
def test_the_journal_takes_it_back(ndim, name):
    labels, journal = phantom(ndim), Journal()
    edit = run(ndim, name, labels)
    edit.apply(labels)
    names = {1: "liver", 2: "tumour"}
    journal.record_box(edit.name, edit.box, edit.before, edit.after, structure=edit.structure(names))
    assert journal.undo_name.startswith(f"{edit.name}, ")
    journal.undo(labels)
    np.testing.assert_array_equal(labels, phantom(ndim))


class OnDisk:
    """A mask that cannot be read as a whole."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.most = 0

    def __getitem__(self, box):
        part = self.values[box]
        self.most = max(self.most, part.size)
        return part

    def __array__(self, *_, **__):
        raise AssertionError("read as a whole")


@every_tool
def test_masks_on_disk_are_read_in_parts(ndim, name, monkeypatch):
    monkeypatch.setattr("napari_medt.editing.parts._BAND_VOXELS", 500)
    small = phantom(ndim)
    wide = tuple(slice(0, size) for size in small.shape)
    labels = np.zeros([size * 3 for size in small.shape], np.uint8)
    labels[wide] = small
    image = picture(labels)
    lazy, lazy_image = OnDisk(labels), OnDisk(image)
    edit = tools(ndim)[name](lazy, image if name == "combine" else lazy_image)
    np.testing.assert_array_equal(edit.after, tools(ndim)[name](labels, image).after)
    if name != "trace_level":  # looks at the whole slice
        assert max(lazy.most, lazy_image.most) < labels.size / 2


@every_tool
def test_large_masks_are_worked_on_in_slabs(ndim, name, monkeypatch):
    whole = run(ndim, name, phantom(ndim))
    monkeypatch.setattr("napari_medt.editing.parts._SLAB_VOXELS", 700)
    np.testing.assert_array_equal(run(ndim, name, phantom(ndim)).after, whole.after)
