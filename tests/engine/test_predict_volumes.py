"""Volumes: 3D models, slices in any plane, regions, passes that disagree, positions, lazy images, masks on disk."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from napari_medt.core import AxisMap, BadImage, BadModel, Cancel, Cancelled, Geometry, OutOfMemory, Volume
from napari_medt.engine import predict
from napari_medt.engine.planes import acquired_plane, plane_axes
from napari_medt.engine.rows import Rows
from napari_medt.zoo.model import Model

CPU = torch.device("cpu")


class Sign(nn.Module):
    """Three classes by the value of a voxel: negative, about zero, positive."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return torch.cat((-x, 0.5 - x.abs(), x), 1) * 20


@pytest.fixture
def make(make_card):
    def make(net, *, window=(16, 16, 16), classes=("below", "zero", "above")):
        card = make_card(
            classes=classes,
            net_options={},
            channels="grey",
            spatial_dims=len(window),
            window=window,
            intensity={"kind": "none"},
        )
        return Model(card, net.eval(), CPU)

    return make


@pytest.fixture
def scan(rng):
    return rng.integers(-1, 2, (21, 37, 30)).astype(np.int16)


def signs(scan):
    return np.where(scan < 0, 0, np.where(scan == 0, 1, 2))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 40, 5), (16, 16, 16), (33, 17, 50)])
def test_any_volume_gets_a_mask_of_its_own_shape(make, rng, shape):
    scan = rng.integers(-1, 2, shape).astype(np.int16)
    found = predict(make(Sign()), Volume.from_array(scan, rgb=False), uncertainty=True, probabilities=True)
    np.testing.assert_array_equal(found.labels, signs(scan))
    assert found.labels.dtype == np.uint8
    assert found.uncertainty.shape == shape
    assert found.probabilities.shape == (3, *shape)


PATIENT = np.array([[0, 0, 2.0, 5], [0.0, -1, 0, 9], [1.5, 0, 0, 3], [0, 0, 0, 1]])  # axes towards x, -y, z


@pytest.mark.parametrize(("frame", "plane", "axis"), [
    ("image", "axial", 0), ("image", "coronal", 1), ("image", "sagittal", 2),
    ("patient", "axial", 2), ("patient", "coronal", 1), ("patient", "sagittal", 0),
])  # fmt: skip
def test_slices_are_cut_in_the_plane(make, scan, frame, plane, axis):
    geometry = Geometry(PATIENT, "mm", frame)
    model = make(Sign(), window=(64, 64))
    found = predict(model, Volume(scan[None], geometry), plane=plane, batch=1, uncertainty=True, probabilities=True)
    assert len(model.net.seen) == scan.shape[axis]
    np.testing.assert_array_equal(found.labels, signs(scan))
    np.testing.assert_array_equal(found.probabilities.argmax(0), signs(scan))
    assert found.uncertainty.shape == scan.shape
    assert found.geometry == geometry


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_of_a_patient_lie_as_radiologists_look_at_them(plane):
    geometry = Geometry(PATIENT, "mm", "patient")
    shown = geometry.rearranged(plane_axes(geometry, plane), (4, 5, 6)).orientation
    assert shown == {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}[plane]


def test_planes_that_cannot_be_are_refused(make, scan):
    with pytest.raises(ValueError, match="plane must be one of axial, coronal, sagittal, not 'oblique'"):
        predict(make(Sign(), window=(16, 16)), scan, plane="oblique")
    with pytest.raises(BadImage, match="A 2D image has no coronal slices; open the whole scan."):
        predict(make(Sign(), window=(16, 16)), scan[0], plane="coronal")
    with pytest.raises(BadImage, match="segments whole scans, not their slices"):
        predict(make(Sign()), scan, plane="coronal")


class Noisy(nn.Module):
    """An answer that depends on the whole window."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 3, 5, padding=2)

    def forward(self, x):
        return self.conv(x) * 3 + x.mean((2, 3, 4), keepdim=True)


@pytest.mark.parametrize("roi", [
    (slice(3, 9), slice(20, 30), slice(4, 5)), (slice(None, -5), slice(-7, None), slice(None)), (7, slice(None), slice(10, 20)),
])  # fmt: skip
def test_a_region_is_segmented_as_in_the_whole_image(make, scan, roi):
    model = make(Noisy())
    whole = predict(model, scan, overlap=0.5, probabilities=True, batch=1)
    part = predict(model, scan, overlap=0.5, probabilities=True, roi=roi, batch=1)
    np.testing.assert_array_equal(part.probabilities[(slice(None), *roi)], whole.probabilities[(slice(None), *roi)])
    outside = np.ones(scan.shape, bool)
    outside[roi] = False
    assert not part.labels[outside].any()
    assert not part.probabilities[:, outside].any()
    assert part.notes[-1] == "Only the chosen region was segmented; the mask is empty elsewhere."


def test_current_slice_of_another_plane_is_one_image(make, scan):
    model = make(Sign(), window=(64, 64))
    found = predict(model, scan, plane="coronal", roi=(slice(None), 12, slice(None)))
    assert len(model.net.seen) == 1
    np.testing.assert_array_equal(found.labels[:, 12], signs(scan)[:, 12])
    assert not np.delete(found.labels, 12, axis=1).any()


@pytest.mark.parametrize(
    "roi",
    [(slice(30, 40), slice(None), slice(None)), (slice(5, 5), 0, 0), (0, 0), (slice(0, 9, 2), 0, 0), (2.5, 0, 0), 5],
)
def test_region_beside_the_image_is_refused(make, scan, roi):
    with pytest.raises(BadImage, match="The region"):
        predict(make(Sign()), scan, roi=roi)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [({}, r"write the mask into an \.ome\.zarr"), ({"uncertainty": True}, "do without uncertainty")],
)
def test_results_that_cannot_be_held_are_refused_before_the_work(make, options, remedy):
    model, shape = make(Sign(), window=(64, 64)), (20_000,) * 3
    with pytest.raises(OutOfMemory, match=rf"of this image would take .*GB are free; {remedy}"):
        predict(model, np.broadcast_to(np.int16(1), shape), **options)
    assert not model.net.seen


class Corner(nn.Module):
    """Sees foreground only in the first half of the last axis, so that mirror images disagree."""

    def forward(self, x):
        here = torch.zeros_like(x)
        here[..., : x.shape[-1] // 2] = 4
        return torch.cat((-here, here), 1)


def test_flips_are_the_mean_over_mirror_images(make, scan):
    model = make(Corner(), classes=("a", "b"), window=(64, 64, 64))
    found = predict(model, scan[:16, :16, :16], flips=True, probabilities=True)
    once = 1 / (1 + np.exp(8))
    # The window is filled up to 64, of which the image is the first quarter: half of the mirror images see it on the other side.
    np.testing.assert_allclose(found.probabilities[0], (once + 0.5) / 2, atol=1e-3)


def test_disagreement_of_flips_is_their_mutual_information(make, scan):
    model = make(Corner(), classes=("a", "b"), window=(64, 64, 64))
    found = predict(model, scan[:16, :16, :16], uncertainty="flips")
    p = np.array([[1 / (1 + np.exp(8)), 0.5]])
    p = np.stack((p, 1 - p))
    entropy = lambda q: -(q * np.log2(q)).sum(0)  # noqa: E731
    expected = (entropy(p.mean(-1)) - entropy(p).mean()).item()
    np.testing.assert_allclose(found.uncertainty, expected, atol=2e-3)
    assert found.notes[-1] == "The mask is the mean of 8 passes mirrored in every way."
    agreed = predict(make(Sign()), scan, uncertainty="flips")
    assert agreed.uncertainty.max() < 1e-3


def test_margin_is_the_distance_of_the_two_likeliest(make, scan):
    found = predict(make(Noisy()), scan, uncertainty="margin", probabilities=True)
    top = np.sort(found.probabilities.astype(np.float64), axis=0)
    np.testing.assert_allclose(found.uncertainty, 1 - (top[-1] - top[-2]), atol=4e-3)


class Forgetful(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.lift, self.drop, self.norm = nn.Conv3d(1, 3, 1), nn.Dropout(p), nn.BatchNorm3d(3)

    def forward(self, x):
        assert not self.norm.training
        return self.drop(self.norm(self.lift(x)))


def test_dropout_is_drawn_alike_every_time_and_by_every_batch(make, scan):
    model = make(Forgetful(0.5))
    before = torch.get_rng_state()
    found = predict(model, scan, uncertainty="dropout", batch=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.net.drop.training
    assert found.uncertainty.max() > 0.01
    assert found.notes[-1] == "The mask is the mean of 8 passes with dropout."
    for batch in (1, 3):
        again = predict(model, scan, uncertainty="dropout", batch=batch)
        np.testing.assert_array_equal(again.uncertainty, found.uncertainty)
        np.testing.assert_array_equal(again.labels, found.labels)


@pytest.mark.parametrize("net", [Sign(), Forgetful(0.0)])
def test_without_dropout_there_is_no_uncertainty_by_it(make, scan, net):
    with pytest.raises(
        BadModel, match="has no dropout, .*; choose another way to find unsure places, such as entropy."
    ):
        predict(make(net), scan, uncertainty="dropout")


def test_unknown_uncertainty_is_refused(make, scan):
    with pytest.raises(ValueError, match="uncertainty must be one of entropy, margin, flips, dropout, not 'magic'"):
        predict(make(Sign()), scan, uncertainty="magic")


def test_temperature_softens_the_probabilities(make, scan):
    class Card:
        temperature = 4.0

        def __init__(self, card):
            self._card = card

        def __getattr__(self, name):
            return getattr(self._card, name)

    model = make(Sign())
    sharp = predict(model, scan, probabilities=True)
    soft = predict(replace(model, card=Card(model.card)), scan, probabilities=True)
    expected = torch.tensor([-1.0, -0.5, 1.0]).mul(20 / 4).softmax(0).numpy()
    np.testing.assert_allclose(soft.probabilities[:, scan == 1].mean(1), expected, atol=1e-3)
    np.testing.assert_array_equal(soft.labels, sharp.labels)


class Positions(nn.Module):
    takes_position = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, position):
        self.seen += position.tolist()
        return torch.cat((x, -x), 1)


def test_position_is_window_centre_minus_volume_centre(make, scan):
    model = make(Positions(), classes=("a", "b"))
    predict(model, scan[:16, :32, :20], overlap=0.0)
    assert model.net.seen == [[0, -8, -2], [0, -8, 2], [0, 8, -2], [0, 8, 2]]


def test_mirrored_windows_have_mirrored_positions(make, scan):
    model = make(Positions(), classes=("a", "b"))
    predict(model, scan[:16, :16, :20], overlap=0.0, flips=True, roi=(slice(None), slice(None), slice(0, 3)))
    assert sorted(position[2] for position in model.net.seen) == [-2] * 4 + [2] * 4


@pytest.fixture
def resampled(make_card, rng):
    """A model with an orientation and a spacing of its own, and a patient's smooth scan that has others."""
    card = make_card(
        classes=("a", "b", "c"),
        net_options={},
        channels="grey",
        spatial_dims=3,
        window=(16, 16, 16),
        intensity={"kind": "none"},
        orientation="SPL",
        spacing=(2.0, 2.5, 1.6),
    )
    z, y, x = np.ogrid[:24, :30, :28]
    scan = np.sin(z / 4) + np.cos(y / 5) + np.sin(x / 3)
    return Model(card, Sign().eval(), CPU), Volume(scan[None].astype(np.float32), Geometry(PATIENT, "mm", "patient"))


def test_model_of_another_grid_answers_on_that_of_the_image(resampled):
    model, volume = resampled
    found = predict(model, volume, uncertainty=True)
    assert found.labels.shape == found.uncertainty.shape == volume.spatial_shape
    assert found.geometry == volume.geometry
    clear = np.abs(np.abs(volume.array[0]) - 0.25) > 0.15  # where a class begins, interpolation may differ
    expected = np.where(np.abs(volume.array[0]) < 0.25, 1, np.where(volume.array[0] < 0, 0, 2))
    assert (found.labels == expected)[clear].mean() > 0.99


def test_a_region_on_another_grid_is_that_of_the_whole(resampled):
    model, volume = resampled
    whole = predict(model, volume, probabilities=True, overlap=0.5, batch=1)
    roi = (slice(5, 9), slice(0, 30), slice(20, 27))
    part = predict(model, volume, probabilities=True, overlap=0.5, batch=1, roi=roi)
    np.testing.assert_allclose(
        part.probabilities[(slice(None), *roi)], whole.probabilities[(slice(None), *roi)], atol=1e-3
    )
    assert (part.labels > 0).sum() == (whole.labels[roi] > 0).sum()


def test_region_beside_the_body_is_empty(make_card):
    scan = np.zeros((40, 60, 60), np.int16)
    scan[10:20, 10:20, 10:20] = 100
    card = make_card(net_options={}, channels="grey", intensity={"kind": "none"}, crop="foreground", window=(32, 32))
    model = Model(card, Corner(), CPU)
    inside = predict(model, Volume.from_array(scan, rgb=False))
    assert inside.labels[15].any()
    assert not inside.labels[-1].any()
    beside = (slice(38, 40), slice(50, 60), slice(50, 60))
    assert not predict(model, Volume.from_array(scan, rgb=False), roi=beside).labels.any()


class Counted:
    """A lazily loaded array that counts how often every row is read."""

    def __init__(self, array, chunk):
        self._array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.chunks = (1, chunk, *array.shape[2:])
        self.read = np.zeros(array.shape[1], int)

    def __getitem__(self, where):
        self.read[where[1]] += 1
        return self._array[where]


@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_rows_of_a_lazy_image_are_read_once(rng, chunk):
    array = rng.integers(0, 9, (1, 50, 6, 7))
    lazy = Counted(array, chunk)
    rows = Rows(lazy)
    for start in (0, 8, 16, 24, 32, 34):
        for y in (0, 3):
            part = (slice(None), slice(start, start + 16), slice(y, y + 3), slice(0, 7))
            np.testing.assert_array_equal(rows[part], array[part])
    assert lazy.read.tolist() == [1] * 50
    np.testing.assert_array_equal(rows[:, 0:5, 0:6, 0:7], array[:, 0:5])  # going back is possible too


@pytest.mark.parametrize("plane", [None, "sagittal"])
def test_dask_image_gives_the_same_and_computes_every_chunk_once(make, scan, plane):
    dask = pytest.importorskip("dask.array", reason="needs dask, installed with napari-medt[lazy]")
    computed = []

    def load(block, block_info=None):
        computed.append(tuple(block_info[0]["chunk-location"]))
        return block

    chunks = (1, 8, 37, 30) if plane is None else (1, 21, 37, 8)
    lazy = dask.from_array(scan[None], chunks=chunks).map_blocks(load, dtype=scan.dtype, meta=scan[None, :0])
    window = (16, 16, 16) if plane is None else (16, 16)
    expected = predict(make(Sign(), window=window), Volume.from_array(scan, rgb=False), plane=plane)
    volume = Volume(lazy, Geometry.from_spacing((1, 1, 1)))
    computed.clear()
    found = predict(make(Sign(), window=window), volume, plane=plane)
    np.testing.assert_array_equal(found.labels, expected.labels)
    again = max(computed.count(place) for place in set(computed))
    assert again <= 3  # once each to look at the intensities, once for all windows


class Target:
    """Takes labels like a Zarr on disk."""

    def __init__(self, shape, fail_at=None):
        self.array, self.writes, self.discarded, self.fail_at = np.zeros(shape, np.uint8), [], False, fail_at

    def __setitem__(self, where, values):
        if len(self.writes) == self.fail_at:
            raise OSError(28, "No space left on device")
        self.writes.append(where)
        self.array[where] = values

    def discard(self):
        self.discarded = True


@pytest.mark.parametrize(("window", "plane"), [((16, 16, 16), None), ((16, 16), None), ((16, 16), "sagittal")])
def test_labels_go_where_they_are_sent_in_whole_rows(make, scan, window, plane):
    target = Target(scan.shape)
    found = predict(make(Sign(), window=window), scan, into=target, plane=plane, uncertainty=True)
    assert found.labels is target
    np.testing.assert_array_equal(target.array, signs(scan))
    assert not target.discarded
    rows = {None: scan.shape[0], "sagittal": scan.shape[2]}[plane] if len(window) == 2 else 1
    assert len(target.writes) == rows


@pytest.mark.parametrize("how", ["cancelled", "failed", "disk"])
def test_a_run_that_ends_early_leaves_nothing(make, scan, how):
    class Breaks(Sign):
        def forward(self, x):
            if how == "failed" and len(self.seen) == 3:
                raise RuntimeError("a mistake of ours")
            return super().forward(x)

    target, cancel = Target(scan.shape, fail_at=0 if how == "disk" else None), Cancel()

    def watch(done, total, message):
        if how == "cancelled" and done >= 3:
            cancel.set()

    with pytest.raises({"cancelled": Cancelled, "failed": RuntimeError, "disk": OSError}[how]):
        predict(make(Breaks()), scan, into=target, batch=1, progress=watch, cancel=cancel)
    assert target.discarded


def test_time_left_is_told_once_it_is_known(make, scan, monkeypatch):
    from napari_medt.engine import blocks

    now = iter(range(0, 1000, 2))
    monkeypatch.setattr(blocks.time, "monotonic", lambda: next(now))
    told = []
    predict(make(Sign()), scan, batch=1, overlap=0.0, progress=lambda *step: told.append(step[2]))
    assert told[0] == "Segmenting, 0 of 12 windows are done"
    assert told[3] == "Segmenting, 3 of 12 windows are done, about 24 s left"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "about 1 s"), (75, "about 75 s"), (600, "about 10 min"), (9000, "about 2.5 h")]
)
def test_durations_in_words(seconds, words):
    from napari_medt.engine.blocks import in_words

    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("spacing", "plane"),
    [
        ((5.0, 1.0, 1.0), "axial"),
        ((1.0, 3.0, 1.0), "coronal"),
        ((1.0, 1.05, 1.2), "sagittal"),
        ((1.0, 1.0, 1.05), "axial"),
    ],
)
def test_a_2d_model_sees_the_slices_as_acquired_in_whatever_order_the_file_holds_them(spacing, plane):
    affine = np.diag([*spacing, 1.0])
    straight = Geometry(affine, units="mm", frame="patient")
    assert acquired_plane(straight) == plane
    for order in permutations(range(3)):
        axes = AxisMap(order, (True, False, True))
        assert acquired_plane(straight.rearranged(axes, (4, 5, 6))) == plane
