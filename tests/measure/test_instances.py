"""Objects: what matches what, and the scores that come of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from napari_medt.measure import Matches, components, match

labels = arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 4))
pairs = labels.flatmap(lambda a: st.tuples(st.just(a), arrays(np.uint8, a.shape, elements=st.integers(0, 4))))


@settings(deadline=None)
@given(pairs, st.sampled_from([0.1, 0.3, 0.5, 0.75, 1.0]))
def test_as_many_as_the_best_assignment(pair, threshold):
    """The matching of StarDist: an optimal assignment of all objects to all."""
    a, b = pair
    rows, columns = (np.unique(each[each != 0]) for each in (a, b))
    ious = np.array(
        [[np.sum((a == i) & (b == j)) / np.sum((a == i) | (b == j)) for j in columns] for i in rows]
    ).reshape(len(rows), len(columns))
    enough = ious >= threshold
    assigned = linear_sum_assignment(-enough.astype(float))
    found = int(enough[assigned].sum())
    assert match(a, b, threshold=threshold) == Matches(found, len(rows) - found, len(columns) - found)


@settings(deadline=None)
@given(pairs)
def test_numbers_of_the_objects_do_not_matter(pair):
    a, b = pair
    renamed = np.array([0, 70_000, 3, 900, 4_000_000_000], np.uint32)
    assert match(renamed[a], b) == match(a, b)
    turned = match(b, a)
    assert (turned.missed, turned.false) == (match(a, b).false, match(a, b).missed)


def test_an_object_cut_in_half_matches_once():
    whole = np.ones((2, 6), np.uint8)
    halves = whole.copy()
    halves[:, 3:] = 2
    assert match(halves, whole) == Matches(1, 1, 0)
    assert match(whole, halves) == Matches(1, 0, 1)
    assert match(halves, whole, threshold=0.51) == Matches(0, 2, 1)


def test_scores():
    counts = Matches(found=6, false=2, missed=4)
    assert counts.average_precision == 0.5
    assert (counts.precision, counts.recall) == (0.75, 0.6)
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert counts + Matches(1, 1, 1) == Matches(7, 3, 5)


@pytest.mark.parametrize(("counts", "expected"), [(Matches(), 1), (Matches(false=3), 0), (Matches(missed=3), 0)])
def test_no_objects(counts, expected):
    scores = (counts.average_precision, counts.f1, counts.precision, counts.recall)
    assert scores == (expected,) * 4


def test_empty_masks():
    nothing = np.zeros((3, 3), np.uint8)
    assert match(nothing, nothing) == Matches()
    assert match(nothing + 1, nothing) == Matches(false=1)
    assert match(nothing, nothing + 1) == Matches(missed=1)


def test_many_objects_are_quick():
    grid = np.arange(1, 10_001, dtype=np.uint32).reshape(100, 100).repeat(4, 0).repeat(4, 1)
    assert match(grid, np.flip(grid)) == Matches(found=10_000)


def test_parts_that_touch_at_a_corner_are_one():
    mask = np.zeros((4, 4, 4))
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = 1
    assert components(mask).max() == 2


@pytest.mark.parametrize("threshold", [0, 1.1])
def test_thresholds_that_mean_nothing(threshold):
    with pytest.raises(ValueError, match="threshold"):
        match([1], [1], threshold=threshold)


def test_shapes():
    with pytest.raises(ValueError, match="cannot be compared"):
        match([[1]], [1])
