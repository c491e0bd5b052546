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


def volume(channels, **options):
    values = np.arange(channels * 72, dtype=np.float32).reshape(channels, 8, 9)
    return Volume(values, Geometry.from_spacing((1, 1)), **options)


@pytest.mark.parametrize(
    ("wants", "image", "sentence"),
    [
        (
            "rgb",
            volume(2),
            r"Threshold takes a grey or colour image, but this image has 2 channels \(channel 1, channel 2\)",
        ),
        ("rgb", volume(4, channel_names=("FLAIR", "T1", "T1ce", "T2")), r"has 4 channels \(FLAIR, T1, T1ce, T2\)"),
        ("grey", volume(9), r"has 9 channels \(channel 1, .* channel 6, \.\.\.\); choose the channels the model was"),
        (("FLAIR", "T1"), volume(3), r"takes FLAIR, T1, but this image has 3 channels \(red, green, blue\)"),
        (("FLAIR", "T1"), volume(1), r"takes FLAIR, T1, but this image has 1 channel \(grey\)"),
    ],
)
def test_channels_that_cannot_be_fitted_are_named(make_card, wants, image, sentence):
    with pytest.raises(BadImage, match=sentence):
        fit(image, make_card(channels=wants, net_options={}))


def test_transparency_is_left_out(make_card):
    image = volume(4, channel_names=("red", "green", "blue", "alpha"))
    found, notes = prepare(image, make_card(intensity=Intensity(kind="none")))
    np.testing.assert_array_equal(found, image.array[:3])
    assert notes == ()


def test_named_channels_are_found_by_name_and_else_taken_in_order(make_card):
    card = make_card(channels=("T2", "flair"), net_options={}, intensity=Intensity(kind="none"))
    image = volume(4, channel_names=("FLAIR", "T1", "T1ce", "T2"))
    found, notes = prepare(image, card)
    np.testing.assert_array_equal(found, image.array[[3, 0]])
    assert notes == ()
    assert prepare(volume(2), card)[1] == ()
    assert prepare(volume(2, channel_names=("a", "b")), card)[1] == (
        "The channels were taken, in their order, as T2 and flair.",
    )


def test_three_stains_are_taken_for_colours_and_said(make_card):
    _, notes = prepare(volume(3, channel_names=("DAPI", "GFP", "RFP")), make_card())
    assert notes == ("The channels were taken, in their order, as red, green and blue.",)


def test_one_bad_pixel_between_the_samples_is_told_and_taken_out(make_card, rng):
    values = rng.random((3000, 3001))  # more than the percentiles look at
    values[1, 1] = np.inf
    prepared = fit(Volume.from_array(values), make_card())
    assert prepared.notes == ("Some pixels hold NaN or infinity; they were treated as background.",)
    assert prepared.window((slice(1, 2), slice(1, 2))).max() == 0


def test_one_bright_spot_between_the_samples_is_not_lost(make_card):
    values = np.zeros((3000, 3001), np.uint8)
    values[1, 1] = 9
    prepared = fit(Volume.from_array(values), make_card())
    assert prepared.notes == ()
    assert prepared.window((slice(1, 2), slice(0, 2))).tolist() == [[[0, 1]]] * 3


def test_percentiles_of_a_large_image_are_near_the_exact_ones(make_card, rng):
    values = (rng.gamma(2, 300, (3000, 3001))).astype(np.uint16)
    card = make_card(intensity=Intensity(kind="percentile", low=1, high=99))
    scale = fit(Volume.from_array(values), card).scale
    np.testing.assert_allclose((scale.low, scale.high), np.percentile(values, (1, 99)), rtol=0.01)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_small_differences_of_large_numbers_survive(make_card, dtype):
    values = (np.arange(100).reshape(10, 10) + 10**12).astype(dtype)
    found, _ = prepare(Volume.from_array(values), make_card())
    np.testing.assert_allclose(found[0].ravel(), np.linspace(0, 1, 100), atol=1e-6)


def test_numbers_beyond_half_precision_and_float32_are_no_trouble(make_card):
    values = np.linspace(0, 1e300, 100).reshape(10, 10)
    found, notes = prepare(Volume.from_array(values), make_card())
    np.testing.assert_allclose(found[0].ravel(), np.linspace(0, 1, 100), atol=1e-6)
    assert notes == ()


class Lazy:
    """Gives parts of an array when it is sliced, as zarr does, and counts them."""

    def __init__(self, array):
        self._array = array
        self.shape, self.ndim, self.size, self.dtype = array.shape, array.ndim, array.size, array.dtype
        self.largest = 0

    def __getitem__(self, where):
        part = self._array[where]
        self.largest = max(self.largest, part.size)
        return part


def test_arrays_on_disk_are_read_part_by_part(make_card, rng):
    values = rng.integers(0, 255, (3, 3000, 2000), dtype=np.uint8)
    lazy = Lazy(values)
    prepared = fit(Volume(lazy, Geometry.from_spacing((1, 1))), make_card())
    np.testing.assert_allclose(
        prepared.window((slice(5, 9), slice(7, 8))), values[:, 5:9, 7:8] / np.float32(254), atol=1e-6
    )
    assert lazy.largest < values.size / 2


def test_the_image_is_left_as_it_was(make_card, rng):
    values = np.asfortranarray(rng.random((40, 50)).astype(">f4"))
    values[3, 3] = np.nan
    kept = values.copy()
    values.setflags(write=False)
    found, _ = prepare(Volume.from_array(values[::-1, ::2]), make_card())
    np.testing.assert_array_equal(values, kept)
    assert found.dtype == np.float32
    assert found.dtype.isnative


def test_window_is_a_part_of_the_whole(make_card, rng):
    prepared = fit(Volume.from_array(rng.random((50, 60))), make_card())
    where = (slice(10, 30), slice(5, 60))
    np.testing.assert_array_equal(prepared.window(where), prepared.whole()[:, 10:30, 5:60])


def test_hounsfield_units_are_clipped_to_the_window_of_the_card(make_card):
    values = np.array([[-3024, -160, 40, 240, 1900]], np.int16)
    card = make_card(channels="grey", net_options={}, intensity=Intensity(kind="clip", low=-160, high=240))
    found, notes = prepare(Volume.from_array(values), card)
    np.testing.assert_allclose(found[0, 0], (0, 0, 0.5, 1, 1), atol=1e-6)
    assert notes == ()


@pytest.mark.parametrize("per_channel", [False, True])
def test_zscores_are_those_of_what_is_not_zero(make_card, rng, per_channel):
    array = rng.normal(5, 2, (2, 40, 50)).astype(np.float32)
    array[1] *= 30
    array[:, :10] = 0
    found = normalise(array, Intensity(kind="zscore", per_channel=per_channel))
    inside = array[:, 10:]
    axes = (1, 2) if per_channel else None
    expected = (inside - inside.mean(axes, keepdims=True)) / inside.std(axes, keepdims=True)
    np.testing.assert_allclose(found[:, 10:], expected, atol=1e-4)
    assert (found[:, :10] == 0).all()


def test_percentiles_of_each_channel(rng):
    array = rng.random((2, 40, 50)) * np.array([1, 500])[:, None, None]
    found = normalise(array, Intensity(kind="percentile", low=0, high=100, per_channel=True))
    np.testing.assert_allclose(found.max((1, 2)), 1, atol=1e-6)
    together = normalise(array, Intensity(kind="percentile", low=0, high=100))
    assert together[0].max() < 0.01


def test_an_empty_channel_is_said_and_stays_empty(make_card, rng):
    array = np.stack([rng.random((20, 30)), np.zeros((20, 30))]).astype(np.float32)
    card = make_card(channels=("T1", "T2"), net_options={}, intensity=Intensity(kind="zscore", per_channel=True))
    found, notes = prepare(Volume(array, Geometry.from_spacing((1, 1))), card)
    assert (found[1] == 0).all()
    assert np.isfinite(found).all()
    assert notes == ("All pixels of a channel have the same value, so there is nothing to find.",)


@pytest.mark.parametrize("stride_rows", [1, 7])
def test_a_sample_read_in_bands_is_the_sample_of_the_whole(rng, monkeypatch, stride_rows):
    from napari_medt.engine import intensity

    array = rng.integers(0, 9999, (1, 61, 53)).astype(np.uint16)
    monkeypatch.setattr(intensity, "SAMPLES", array.size // 9 + 1)
    monkeypatch.setattr(intensity, "BAND", stride_rows * 53)
    scale = intensity.find_scale(array, Intensity(kind="percentile", low=5, high=95), intensity.Channels((0,)))[0]
    np.testing.assert_allclose((scale.low, scale.high), np.percentile(array[:, ::3, ::3], (5, 95)))


def axial(shape, spacing, **options):
    values = np.random.default_rng(1).normal(0, 100, shape).astype(np.float32)
    return Volume(values[None], Geometry.from_spacing(spacing, units="mm", **options))


def scan_card(make_card, **changes):
    values = {
        "channels": "grey",
        "net_options": {},
        "spatial_dims": 3,
        "window": (8, 8, 8),
        "intensity": Intensity(kind="none"),
    }
    return make_card(**values | changes)


def test_axes_run_as_the_card_wants_them(make_card):
    image = axial((5, 6, 7), (3, 1, 2), frame="patient")
    prepared = fit(image, scan_card(make_card, orientation="RAI"))
    np.testing.assert_array_equal(prepared.whole()[0], image.array[0].transpose(2, 1, 0)[::-1, ::-1, ::-1])
    assert prepared.geometry.orientation == "RAI"
    assert prepared.notes == ()


def test_axes_of_no_patient_are_taken_as_they_are_and_it_is_said(make_card):
    image = axial((5, 6, 7), (3, 1, 2))
    prepared = fit(image, scan_card(make_card, orientation="RAI"))
    np.testing.assert_array_equal(prepared.whole(), image.array)
    assert prepared.notes == (
        "The file does not say how the patient lies, so the axes were taken as the model wants them.",
    )


def test_spacing_that_is_not_known_is_said(make_card):
    image = Volume.from_array(np.zeros((5, 6, 7), np.uint8))
    prepared = fit(image, scan_card(make_card, spacing=(1, 1, 1)))
    assert prepared.spatial_shape == (5, 6, 7)
    assert prepared.notes[-1] == (
        "The file does not say how far apart its samples are, so they were taken as the model wants them."
    )


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (0.8, 2.3, 1), (3, 0.5, 7)])
def test_any_window_of_another_spacing_is_a_part_of_the_whole(make_card, rng, spacing):
    """Each reads only what it needs, and no window is a little different."""
    image = axial((12, 25, 31), (3, 0.9, 1.1), frame="patient")
    lazy = Volume(Lazy(image.array), image.geometry)
    prepared = fit(image, scan_card(make_card, spacing=spacing, orientation="SPL"))
    whole = prepared.whole()
    assert whole.shape[1:] == prepared.spatial_shape
    partly = fit(lazy, scan_card(make_card, spacing=spacing, orientation="SPL"))
    lazy.array.largest = 0
    for _ in range(10):
        corner = [int(rng.integers(0, size)) for size in prepared.spatial_shape]
        where = tuple(slice(a, min(a + 5, size)) for a, size in zip(corner, prepared.spatial_shape, strict=True))
        np.testing.assert_allclose(partly.window(where), whole[(slice(None), *where)], atol=1e-4)
    assert lazy.array.largest < image.array.size / 2


def test_values_are_clipped_before_they_are_mixed(make_card):
    """A metal clip shines no farther than its own voxel."""
    values = np.zeros((1, 1, 4, 4), np.int16)
    values[..., 1] = 30000
    card = scan_card(make_card, spacing=(1, 1, 0.5), intensity=Intensity(kind="clip", low=0, high=100))
    found = fit(Volume(values, Geometry.from_spacing((1, 1, 1), units="mm")), card).whole()
    np.testing.assert_allclose(found[0, 0, 0], (0, 0.25, 0.75, 0.75, 0.25, 0, 0, 0), atol=1e-6)


def test_a_window_made_in_bands_is_the_same(make_card, rng, monkeypatch):
    from napari_medt.engine import prepare as module

    volume = Volume(rng.random((1, 40, 31, 22), np.float32), Geometry.from_spacing((1.0, 1.0, 1.0), units="mm"))
    card = make_card(channels="grey", net_options={}, spatial_dims=3, window=(8, 8, 8), spacing=(3.3, 0.7, 2.0))
    whole = prepare(volume, card)[0]
    monkeypatch.setattr(module, "TOGETHER", 3 * 31 * 22)
    np.testing.assert_allclose(prepare(volume, card)[0], whole, atol=1e-6)
