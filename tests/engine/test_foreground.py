"""The box around the body holds all of it, and little else."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.core import Acquisition, AxisMap, Geometry, Volume
from napari_medt.engine import predict
from napari_medt.engine.channels import Channels
from napari_medt.engine.foreground import foreground_box
from napari_medt.zoo.model import Model

STAY = AxisMap((0, 1, 2), (False,) * 3)
GREY = Channels((0,))
BODY = (slice(20, 60), slice(30, 70), slice(35, 75))


def ct(rng, *, dtype=np.int16, spacing=(5, 3, 3), table=True):
    values = rng.normal(-1000, 15, (70, 100, 110))
    values[BODY] = rng.normal(40, 30, values[BODY].shape)
    values[30:40, 40:50, 45:55] = -850  # a lung
    if table:
        values[:, 90:92, 5:105] = -300
    geometry = Geometry.from_spacing(spacing, units="mm", frame="patient")
    return Volume(values.astype(dtype)[None], geometry, acquisition=Acquisition("CT", "HU"))


def mr(rng):
    values = np.abs(rng.normal(0, 8, (70, 100, 110)))
    values[BODY] = rng.normal(600, 150, values[BODY].shape)
    return Volume(values.astype(np.float32)[None], Geometry.from_spacing((1.5, 1, 1), units="mm", frame="patient"))


def check(box, spacing, *, margin=10, stride=1):
    for part, inside, mm in zip(box, BODY, spacing, strict=True):
        assert part.start <= inside.start - margin / mm or part.start == 0
        assert part.stop >= inside.stop + margin / mm - 1
        assert part.start >= inside.start - margin / mm - 2 * stride - 1
        assert part.stop <= inside.stop + margin / mm + 2 * stride + 1


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_body_in_ct_without_its_table(rng, dtype):
    image = ct(rng, dtype=dtype)
    check(foreground_box(image.array, image, GREY, STAY), (5, 3, 3))


def test_ct_is_known_by_its_values_where_the_file_says_nothing(rng):
    image = ct(rng)
    unsaid = Volume(image.array, image.geometry)
    assert foreground_box(image.array, unsaid, GREY, STAY) == foreground_box(image.array, image, GREY, STAY)


def test_head_in_mr_is_what_is_brighter_than_noise(rng):
    image = mr(rng)
    check(foreground_box(image.array, image, GREY, STAY), (1.5, 1, 1))


def test_a_coarse_look_is_enough(rng, monkeypatch):
    image = ct(rng)
    monkeypatch.setattr("napari_medt.engine.foreground.COARSE", 40_000)
    check(foreground_box(image.array, image, GREY, STAY), (5, 3, 3), stride=4)


def test_margins_follow_the_axes(rng):
    image = ct(rng)
    axes = AxisMap((2, 0, 1), (False, True, False))
    expected = foreground_box(image.array, image, GREY, STAY)
    found = foreground_box(axes.apply(image.array), image, GREY, axes)
    assert found[0] == expected[2]
    assert found[1] == slice(70 - expected[0].stop, 70 - expected[0].start)
    assert found[2] == expected[1]


@pytest.mark.parametrize("values", [np.full((9, 9, 9), -1000), np.full((9, 9, 9), 40), np.zeros((9, 9, 9))])
def test_where_there_is_no_body_or_nothing_else_all_is_looked_at(values):
    image = Volume.from_array(values.astype(np.int16), rgb=False)
    assert foreground_box(image.array, image, GREY, STAY) is None


def test_mask_is_empty_outside_the_box_and_the_same_within(rng, make_card, threshold):
    changes = {"channels": "grey", "net_options": {}, "spatial_dims": 3, "window": (16, 16, 16)}
    card = make_card(
        **changes, intensity={"kind": "clip", "low": -1000, "high": 200}, crop="foreground", spacing=(5, 6, 6)
    )
    image = ct(rng)
    found = predict(Model(card, threshold.net, threshold.device), image)
    whole = predict(Model(card.model_copy(update={"crop": "none"}), threshold.net, threshold.device), image)
    box = foreground_box(image.array, image, GREY, STAY)
    np.testing.assert_array_equal(found.labels[box], whole.labels[box])
    assert found.labels[box].any()
    outside = found.labels.copy()
    outside[box] = 0
    assert not outside.any()
    assert whole.labels[:, 90:92].any()  # the table
    assert not found.labels[:, 92:].any()
