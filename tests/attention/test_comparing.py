"""Maps against each other, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_medt.attention import component, difference, right_and_wrong
from napari_medt.attention.heads import agreement
from napari_medt.core import AttentionMap, BadImage, Geometry


def made(data, step=1.0, corner=0.0, **more):
    data = np.asarray(data, np.float32)
    origin = [corner + (step - 1) / 2] * data.ndim
    return AttentionMap(
        data, Geometry.from_spacing((step,) * data.ndim, origin=origin), "x", "token", **{"even": 1.0} | more
    )


def test_difference_on_one_grid_is_the_difference():
    a, b = made([[1, 2], [3, 4]]), made([[1, 1], [1, 5]])
    np.testing.assert_allclose(difference(a, b).data, [[0, 1], [2, -1]])


def test_picks_are_compared_in_units_of_even_attention():
    """A quarter of four places is as much as a sixteenth of sixteen."""
    coarse = made(np.full((2, 2), 0.25), step=2.0, even=0.25, query=(0, 0))
    fine = made(np.full((4, 4), 1 / 16), even=1 / 16, query=(0, 0))
    found = difference(coarse, fine)
    assert found.data.shape == (4, 4)
    np.testing.assert_allclose(found.data, 0, atol=1e-6)


def test_beyond_a_window_nothing_was_looked_at():
    near, far = (made(np.ones((4, 4)), corner=corner, query=(0, 0)) for corner in (0.0, 2.0))
    found = difference(near, far).data
    np.testing.assert_allclose(found[:2], 1)
    np.testing.assert_allclose(found[2:, 2:], 0)
    whole = difference(made(np.ones((4, 4))), made(np.full((4, 4), 3.0), corner=2.0)).data
    np.testing.assert_allclose(whole, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, -2, -2], [0, 0, -2, -2]])


def test_a_gate_is_not_compared_with_attention():
    with pytest.raises(BadImage, match="cannot be compared with one of the kind"):
        difference(made(np.ones((2, 2)), even=None), made(np.ones((2, 2))))
    with pytest.raises(BadImage, match="belong to different images"):
        difference(made(np.ones((2, 2))), made(np.ones((2, 2, 2))))


def test_component_is_the_part_under_the_point():
    labels = np.array([[1, 0, 2, 2], [0, 1, 0, 0], [0, 0, 0, 2]])
    np.testing.assert_array_equal(component(labels, (0, 0)), (labels == 1))
    np.testing.assert_array_equal(np.argwhere(component(labels, (2, 3))), [[2, 3]])
    with pytest.raises(BadImage, match="there is no structure"):
        component(labels, (0, 1))


def test_right_and_wrong_share_out_a_label():
    right, wrong = right_and_wrong(np.array([1, 1, 2, 0]), np.array([1, 2, 2, 1]), 1)
    assert right.tolist() == [True, False, False, False]
    assert wrong.tolist() == [False, True, False, True]


@given(arrays(np.float32, (3, 5), elements=st.floats(0, 10, width=32)))
def test_agreement_is_a_share_and_does_not_depend_on_the_order_of_heads(values):
    found = agreement(values)
    assert ((found >= 0) & (found <= 1 + 1e-5)).all()
    np.testing.assert_allclose(found, agreement(values[::-1]), rtol=1e-4, atol=1e-6)


def test_agreement_by_hand():
    np.testing.assert_allclose(
        agreement(np.array([[1, 4, 2, 0], [1, 1, 0, 0]], np.float32)), [1, 2 / 2.5, 0, 0], atol=1e-6
    )
