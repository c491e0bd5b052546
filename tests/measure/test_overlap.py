"""Overlap scores against plain counting, and what they say of empty masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_medt.measure import Overlap, count, dice, f1, iou

masks = st.tuples(st.integers(0, 6), st.integers(0, 6)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@given(masks)
def test_scores_are_those_of_sets(pair):
    found, true = ({tuple(i) for i in np.argwhere(mask)} for mask in pair)
    if found or true:
        assert dice(*pair) == pytest.approx(2 * len(found & true) / (len(found) + len(true)))
        assert iou(*pair) == pytest.approx(len(found & true) / len(found | true))
    else:
        assert dice(*pair) == iou(*pair) == 1


@given(masks)
def test_symmetry_bounds_and_the_relation_of_dice_and_iou(pair):
    a, b = pair
    assert dice(a, b) == dice(b, a)
    assert 0 <= iou(a, b) <= dice(a, b) <= 1
    assert dice(a, b) == pytest.approx(2 * iou(a, b) / (1 + iou(a, b)))
    assert dice(a, a) == iou(a, a) == 1


@given(masks)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pair):
    overlap = count(*pair)
    if overlap.both:
        precision = overlap.both / (overlap.both + overlap.only_prediction)
        recall = overlap.both / (overlap.both + overlap.only_reference)
        assert f1(*pair) == pytest.approx(2 * precision * recall / (precision + recall))


@given(masks)
def test_counts_add_up_over_parts(pair):
    a, b = pair
    assert count(a[:2], b[:2]) + count(a[2:], b[2:]) == count(a, b)
    assert sum((count(x, y) for x, y in zip(a, b, strict=True)), Overlap()) == count(a, b)


@pytest.mark.parametrize("score", [dice, iou, f1])
@pytest.mark.parametrize(("prediction", "reference", "expected"), [(0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 1, 1)])
def test_empty_masks_agree_and_a_total_miss_is_zero(score, prediction, reference, expected):
    shape = (3, 4, 5)
    assert score(np.full(shape, prediction), np.full(shape, reference)) == expected


def test_any_label_is_inside():
    ids = np.array([[0, 7], [300, 0]], np.uint16)
    assert count(ids, ids > 0) == Overlap(both=2)


def test_different_shapes_are_not_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2,\)"):
        count(np.ones((2, 2)), np.ones(2))
