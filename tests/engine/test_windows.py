"""Windows cover everything, stay inside, and are blended by positive weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medt.engine.windows import blend_weights, pad_to_window, plan_windows

sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(shape=sizes, window=st.tuples(st.integers(1, 40), st.integers(1, 40)), overlap=st.floats(0, 0.9))
def test_every_pixel_is_covered_by_full_windows(shape, window, overlap):
    covered = np.zeros(shape, int)
    for where in plan_windows(shape, window, overlap=overlap):
        covered[where] += 1
        assert [w.stop - w.start for w in where] == [min(e, s) for e, s in zip(window, shape, strict=True)]
    assert covered.min() >= 1


def test_large_images_have_less_overlap_unless_it_is_asked_for():
    assert plan_windows((512, 512), (128, 128)) == plan_windows((512, 512), (128, 128), overlap=0.5)
    assert plan_windows((5000, 5000), (128, 128)) == plan_windows((5000, 5000), (128, 128), overlap=0.25)


@given(shape=sizes, window=sizes)
def test_padding_fills_the_window_and_keeps_the_image(shape, window):
    array = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    padded = pad_to_window(array, window)
    assert padded.shape[1:] == tuple(max(s, e) for s, e in zip(shape, window, strict=True))
    np.testing.assert_array_equal(padded[:, : shape[0], : shape[1]], array)
    assert set(np.unique(padded)) <= set(np.unique(array))


def test_padding_reflects():
    row = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    np.testing.assert_array_equal(pad_to_window(row, (1, 7))[0, 0], [0, 1, 2, 3, 2, 1, 0])


def test_blend_weights_are_positive_and_symmetric():
    weights = blend_weights((32, 48))
    assert weights.min() > 0
    np.testing.assert_allclose(weights, weights[::-1, ::-1])
    assert weights[16, 24] > 0.9


@pytest.mark.parametrize("overlap", [-0.1, 1.0])
def test_impossible_overlap_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap must be at least 0 and below 1"):
        plan_windows((10, 10), (5, 5), overlap=overlap)
