"""Channels and intensities as the card wants them, from anything a microscope writes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.core import BadImage, Geometry, Volume
from napari_medt.engine.prepare import fit, normalise, prepare
from napari_medt.zoo import Intensity


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, ">u2", np.float32, np.float64])
def test_percentiles_become_zero_and_one(make_card, rng, dtype):
    values = (rng.random((40, 50)) * 2).astype(dtype)
    if dtype is bool:
        values = rng.random((40, 50)) > 0.5
    if np.dtype(dtype).kind in "iu":
        values = (rng.random((40, 50)) * 100).astype(dtype)
    found, notes = prepare(Volume.from_array(values), make_card())
    assert found.shape == (3, 40, 50)
    assert found.dtype == np.float32
    assert (found.min(), found.max()) == (0, 1)
    assert notes == ()


def test_treatment_follows_the_formula(rng):
    array = rng.integers(0, 5000, (3, 64, 64), dtype=np.uint16)
    low, high = np.percentile(array, (1, 99))
    found = normalise(array, Intensity(kind="percentile", low=1, high=99))
    np.testing.assert_allclose(found, np.clip((array - low) / (high - low), 0, 1), atol=1e-5)
    np.testing.assert_allclose(normalise(array, Intensity(kind="unit")), array / 65535, atol=1e-6)
    np.testing.assert_array_equal(normalise(array, Intensity(kind="none")), array)


def test_nan_is_left_out_of_the_percentiles_and_said(make_card, rng):
    values = rng.random((40, 40))
    clean, _ = prepare(Volume.from_array(values), make_card())
    spoilt = values.copy()
    spoilt[3, 4], spoilt[5, 6] = np.nan, np.inf
    found, notes = prepare(Volume.from_array(spoilt), make_card())
    assert notes == ("Some pixels hold NaN or infinity; they were treated as background.",)
    assert (found[:, 3, 4] == 0).all()
    assert (found[:, 5, 6] == 0).all()
    assert np.abs(found - clean)[:, 10:].max() < 0.01


def test_no_number_at_all_is_refused(make_card):
    with pytest.raises(BadImage, match="holds no number, only NaN or infinity"):
        fit(Volume.from_array(np.full((9, 9), np.nan)), make_card())


def test_even_image_is_background_and_said(make_card):
    found, notes = prepare(Volume.from_array(np.full((9, 9), 200, np.uint8)), make_card())
    assert (found == 0).all()
    assert notes == ("All pixels have the same value, so there is nothing to find.",)


@pytest.mark.parametrize(
    ("wants", "image", "expected"),
    [
        ("rgb", (8, 9), (0, 0, 0)),
        ("rgb", (8, 9, 3), (0, 1, 2)),
        ("rgb", (8, 9, 4), (0, 1, 2)),
        ("bgr", (8, 9, 3), (2, 1, 0)),
        ("grey", (8, 9), (0,)),
    ],
)
def test_channels_are_fitted(make_card, rng, wants, image, expected):
    values = rng.integers(0, 255, image, dtype=np.uint8)
    card = make_card(channels=wants, intensity=Intensity(kind="none"))
    found, _ = prepare(Volume.from_array(values), card)
    planes = values[..., None] if values.ndim == 2 else values
    np.testing.assert_array_equal(found, np.stack([planes[..., channel] for channel in expected]))


def test_colours_are_averaged_to_grey_and_said(make_card, rng):
    values = rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)
    found, notes = prepare(Volume.from_array(values), make_card(channels="grey", intensity=Intensity(kind="none")))
    np.testing.assert_allclose(found[0], values.mean(-1), atol=1e-4)
    assert notes == ("The colours were averaged to grey.",)


def test_channels_that_cannot_be_fitted_are_named(make_card):
    volume = Volume(np.zeros((2, 8, 8)), Geometry.from_spacing((1, 1)))
    with pytest.raises(BadImage, match="Threshold takes a grey or colour image, but this image has 2 channels; choose"):
        fit(volume, make_card())
    card = make_card(channels=("FLAIR", "T1", "T2"), net_options={})
    with pytest.raises(BadImage, match="takes FLAIR, T1, T2, but this image has 2 channels"):
        fit(volume, card)


def test_window_is_a_part_of_the_whole(make_card, rng):
    prepared = fit(Volume.from_array(rng.random((50, 60))), make_card())
    where = (slice(10, 30), slice(5, 60))
    np.testing.assert_array_equal(prepared.window(where), prepared.whole()[:, 10:30, 5:60])
