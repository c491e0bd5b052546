"""What counts as looked at in a draft."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_medt.widgets.reviewed import LEAST, looked_at


@given(st.lists(st.tuples(st.integers(0, 119), st.integers(0, 149)), max_size=4))
def test_all_that_was_changed_is_looked_at_with_its_surroundings_and_nothing_else(places):
    edited = np.zeros((120, 150), bool)
    for place in places:
        edited[place] = True
    seen = looked_at(edited)
    near = np.zeros_like(edited)
    for y, x in places:
        near[max(0, y - LEAST) : y + LEAST + 1, max(0, x - LEAST) : x + LEAST + 1] = True
    assert (seen & near).sum() == near.sum()
    if len(set(places)) == 1:
        np.testing.assert_array_equal(seen, near)


def test_large_changes_are_seen_from_farther_away():
    edited = np.zeros((400, 400), bool)
    edited[200, 100:200] = True
    seen = looked_at(edited)
    assert seen[100:301, :300].all()
    assert seen.sum() == 201 * 300


def test_slices_are_those_that_were_worked_on_whichever_way_they_are_cut():
    edited = np.zeros((90, 100, 110), bool)
    edited[20:30, 50, 40:60] = True  # a stroke in one coronal slice
    seen = looked_at(edited)
    assert np.flatnonzero(seen.any(axis=(0, 2))).tolist() == [50]
    assert seen[:62, 50, 8:92].sum() == seen.sum()
    assert not looked_at(np.zeros((4, 5, 6), bool)).any()
