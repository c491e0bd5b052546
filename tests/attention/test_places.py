"""Maps lie where the image lies, to half a voxel, however its axes run; and memory is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_medt.attention import AttentionExplorer
from napari_medt.core import BadImage, Geometry, Volume

SHAPE = (14, 20, 26)


def turned(spacing, *, order=(0, 1, 2), signs=(1, 1, 1), degrees=0.0):
    """A patient's geometry whose axes are exchanged, flipped, of different steps, and tilted."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    tilt = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    axes = np.zeros((3, 3))
    for array_axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        axes[world, array_axis] = sign * spacing[array_axis]
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes
    affine[:3, 3] = (7, -30, 11)
    return Geometry(affine, "mm", "patient")


PLACES = {
    "as it comes": turned((1, 1, 1)),
    "anisotropic": turned((3, 0.8, 0.8)),
    "flipped": turned((2, 1, 1), signs=(-1, 1, -1)),
    "exchanged": turned((2, 1, 0.7), order=(2, 0, 1), signs=(1, -1, 1)),
    "oblique": turned((2.5, 1, 1), signs=(1, -1, 1), degrees=17),
    "exchanged and oblique": turned((1, 2, 1.5), order=(1, 2, 0), signs=(-1, 1, 1), degrees=-25),
}
CARDS = {
    "its own grid": {},
    "another orientation": {"orientation": "IAR"},
    "another spacing": {"orientation": "SPL", "spacing": (1.5, 1.5, 1.5)},
}


def smooth(rng, shape):
    values = ndimage.gaussian_filter(rng.random(shape), 2.5)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


@pytest.fixture(params=PLACES, ids=list(PLACES))
def volume(request, rng):
    return Volume.from_array(smooth(rng, SHAPE), rgb=False, geometry=PLACES[request.param])


@pytest.mark.parametrize("card", CARDS, ids=list(CARDS))
def test_a_gate_that_is_the_image_lies_exactly_over_it(make_probe, volume, card):
    """Every cell of the map holds what the image holds at its place in the world."""
    explorer = AttentionExplorer(make_probe((8, 10, 12), **CARDS[card]), volume)
    found = explorer.overview("gate")
    world = found.geometry.position(np.moveaxis(np.indices(found.data.shape), 0, -1))
    at = volume.geometry.index(world)
    inside = (at >= 0).all(-1) & (at <= np.array(SHAPE) - 1).all(-1)
    expected = ndimage.map_coordinates(volume.array[0], np.moveaxis(at, -1, 0), order=1, mode="nearest")
    error = np.abs(found.data - expected)[inside]
    # Half a voxel beside, the values are elsewhere.
    for axis in range(3):
        beside = np.moveaxis(at, -1, 0).copy()
        beside[axis] += 0.5
        wrong = ndimage.map_coordinates(volume.array[0], beside, order=1, mode="nearest")
        assert error.max() < np.abs(found.data - wrong)[inside].max() / 4
    assert inside.mean() > 0.8


@pytest.mark.parametrize("card", CARDS, ids=list(CARDS))
def test_the_strongest_target_is_the_bright_place(make_probe, volume, card):
    bright = (6, 9, 14)
    values = volume.array[0].copy() / 2
    values[5:8, 8:11, 13:16] = 1
    lit = Volume.from_array(values, rgb=False, geometry=volume.geometry)
    explorer = AttentionExplorer(make_probe((8, 10, 12), **CARDS[card]), lit)
    picked = explorer.pick((7, 8, 12), source="bright")[0]
    low, high = picked.extras["window"]
    assert ((low <= bright) & (np.array(bright) <= high)).all()
    far = volume.geometry.position(picked.extras["targets"][0]) - volume.geometry.position(bright)
    within = np.linalg.norm(picked.geometry.spacing) / 2 + np.linalg.norm(volume.geometry.spacing)
    assert np.linalg.norm(far) <= within
    assert picked.extras["shares"][0] == picked.data.max()
    brightest = picked.geometry.position(np.unravel_index(picked.data.argmax(), picked.data.shape))
    np.testing.assert_allclose(volume.geometry.index(brightest), picked.extras["targets"][0], atol=1e-6)


@pytest.mark.parametrize("plane", [None, "axial", "coronal", "sagittal"])
def test_a_2d_model_on_a_scan_answers_in_the_slice_of_the_point(make_probe, volume, plane):
    explorer = AttentionExplorer(make_probe((12, 12)), volume, plane=plane)
    gate = explorer.overview("gate")
    at = np.round(
        volume.geometry.index(gate.geometry.position(np.moveaxis(np.indices(gate.data.shape), 0, -1)))
    ).astype(int)
    np.testing.assert_allclose(gate.data, volume.array[0][tuple(np.moveaxis(at, -1, 0))], atol=1e-5)
    query = (5, 11, 17)
    found = explorer.pick(query, source="gate")[0]
    index = volume.geometry.index(found.geometry.position(np.argwhere(np.ones(found.data.shape))))
    np.testing.assert_allclose(index, index.round(), atol=1e-6)
    values = volume.array[0][tuple(index.round().astype(int).T)].reshape(found.data.shape)
    np.testing.assert_allclose(found.data, values, atol=1e-5)
    low, high = found.extras["window"]
    assert (low <= query).all()
    assert (query <= high).all()
    assert sorted(high - low)[0] == pytest.approx(1)  # one slice


def test_outside_the_body_the_model_did_not_look(make_probe, rng):
    values = np.full((50, 60, 64), -1000, np.float32)
    values[22:30, 24:36, 25:40] = 50
    values[24, 30, 29] = 900
    scan = Volume.from_array(values, rgb=False, geometry=Geometry.from_spacing((1, 1, 1), units="mm", frame="patient"))
    explorer = AttentionExplorer(make_probe((16, 16, 16), crop="foreground"), scan)
    found = explorer.overview("gate")
    assert found.data.size < scan.array[0].size
    peak = found.geometry.position(np.unravel_index(found.data.argmax(), found.data.shape))
    np.testing.assert_allclose(peak, (24, 30, 29))
    explorer.pick((24, 30, 29), source="gate")
    with pytest.raises(BadImage, match=r"did not look at the point \(2, 3, 4\), which lies outside the body"):
        explorer.pick((2, 3, 4), source="gate")
    outside = np.zeros(values.shape, bool)
    outside[2, 3, 4] = True
    with pytest.raises(BadImage, match="nothing of this structure where the model looked"):
        explorer.structure(outside, source="bright")


def test_structure_over_many_windows_adds_up_its_voxels(make_probe, rng):
    """Two structures apart, weighed by their sizes, are what both together are."""
    explorer = AttentionExplorer(make_probe((16, 16)), smooth(rng, (40, 50)))
    left, right = np.zeros((2, 40, 50), bool)
    left[3:20, 4:9] = True
    right[10:37, 20:48] = True
    parts = [explorer.structure(mask, source="bright").data * mask.sum() for mask in (left, right)]
    both = explorer.structure(left | right, source="bright").data * (left | right).sum()
    np.testing.assert_allclose(sum(parts), both, rtol=1e-3, atol=1e-2)
    # All voxels, all windows: as much attention goes out as there are voxels, 256 cells a window.
    everything = explorer.structure(np.ones((40, 50), bool), source="bright")
    assert everything.data.sum() == pytest.approx(256, rel=1e-3)
    assert "one window would give, less over the" in everything.caption
    alone = np.zeros((40, 50), bool)
    alone[2, 2] = True
    assert "one window would give. Weights" in explorer.structure(alone, source="bright").caption


def test_a_gate_says_how_open_it_is_in_a_structure(make_probe, rng):
    image = smooth(rng, (40, 50))
    found = AttentionExplorer(make_probe((16, 16)), image).structure(image > 0.7, source="gate")
    assert f"{image[image > 0.7].mean():.2f} in this one, {image.mean():.2f} on average" in found.caption


def test_maps_too_large_for_the_budget_are_means_of_the_fine_ones(make_probe, rng):
    model, image = make_probe((16, 16)), smooth(rng, (64, 96))
    fine = AttentionExplorer(model, image).overviews()
    coarse = AttentionExplorer(model, image, memory_mb=2 * 64 * 96 * 4 / 5 / 2**20).overviews()
    for whole, part in zip(fine, coarse, strict=True):
        assert part.data.nbytes <= whole.data.nbytes / 4
        step = whole.data.shape[0] // part.data.shape[0]
        means = whole.data.reshape(64 // step, step, 96 // step, step).mean((1, 3))
        np.testing.assert_allclose(part.data, means, rtol=1e-4)
        corner = part.geometry.position([-0.5, -0.5])
        np.testing.assert_allclose(corner, whole.geometry.position([-0.5, -0.5]))


def test_memory_is_bounded_while_clicking_about(make_probe, rng):
    explorer = AttentionExplorer(make_probe((16, 16)), smooth(rng, (200, 200)), memory_mb=0.02)
    seen = set()
    for query in rng.integers(0, 200, (60, 2)):
        explorer.pick(tuple(query), source="bright")
        assert explorer._kept.nbytes <= 0.02 * 2**20
        seen.add(explorer._kept.windows)
    assert max(seen) > 1
    explorer.forget()
    assert explorer._kept.nbytes == 0


def test_warming_stops_when_the_memory_is_full(make_probe, rng):
    roomy, tight = (AttentionExplorer(make_probe((16, 16)), smooth(rng, (64, 64)), memory_mb=mb) for mb in (16, 0.02))
    for explorer in (roomy, tight):
        explorer.warm()
    assert roomy._kept.windows == len(roomy._scene) == 49
    assert 1 < tight._kept.windows < 49
    assert tight._kept.nbytes <= 0.02 * 2**20


def test_attention_to_the_mirror_image_beyond_the_border_is_told(make_probe, rng):
    image = smooth(rng, (9, 9)) / 2
    image[2, 2] = 1  # in a window of 16 it is seen again, mirrored at the far border
    found = AttentionExplorer(make_probe((16, 16)), image).pick((1, 1), source="bright")[0]
    assert found.data.shape == (5, 5)
    assert found.data.sum() < 0.99
    assert f"{1 - found.data.sum():.0%} went to the mirror image beyond the border" in found.caption
