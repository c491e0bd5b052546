"""The table of measures: every one on every kind of mask, and what is said of empty ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_medt.measure import (
    METRICS,
    Pair,
    compare,
    precision,
    recall,
    relative_volume_difference,
    scores_of_nothing,
    volume_difference_ml,
)

ALL = tuple(METRICS)
SIGNED = {"volume_difference", "relative_volume_difference"}


@pytest.fixture(params=[(9, 11), (7, 9, 11)], ids=["2D", "3D"])
def masks(request, rng):
    shape = request.param
    reference = np.zeros(shape, np.uint8)
    reference[tuple(slice(2, 6) for _ in shape)] = 1
    return np.roll(reference, 1, axis=-1), reference, (2.5, 0.7, 0.7)[-len(shape) :]


@pytest.mark.parametrize("name", ALL)
def test_every_measure(masks, name):
    prediction, reference, spacing = masks
    score = compare(prediction, reference, spacing=spacing, metrics=[name])[name]
    best = METRICS[name].best
    assert math.isfinite(score)
    assert compare(reference, reference, spacing=spacing, metrics=[name])[name] == pytest.approx(best)
    # An empty mask is as bad as can be, and is never said to be anything else.
    missed = compare(np.zeros_like(reference), reference, spacing=spacing, metrics=[name])[name]
    invented = compare(prediction, np.zeros_like(reference), spacing=spacing, metrics=[name])[name]
    if name in SIGNED:
        assert missed < 0 < invented
    else:
        assert missed == invented == (0 if best else math.inf)
    badness = METRICS[name].badness
    assert badness(missed) >= badness(score) >= badness(best)


@pytest.mark.parametrize("both_empty", ["agree", "not applicable"])
def test_both_empty(masks, both_empty):
    nothing = np.zeros_like(masks[0])
    found = compare(nothing, nothing, spacing=masks[2], metrics=ALL, both_empty=both_empty)
    assert found == scores_of_nothing(ALL, both_empty=both_empty)
    expected = {1.0, 0.0} if both_empty == "agree" else {None}
    assert set(found.values()) == expected
    if both_empty == "agree":
        assert all(METRICS[name].badness(score) <= 0 for name, score in found.items())


def test_volumes():
    found = compare(
        np.ones((10, 10, 20)), np.ones((10, 10, 20)) * (np.arange(20) < 10), spacing=(1, 1, 2), metrics=SIGNED
    )
    assert found == {"volume_difference": pytest.approx(2.0), "relative_volume_difference": pytest.approx(1.0)}
    assert METRICS["volume_difference"].unit("mm", 3) == "ml"
    assert METRICS["volume_difference"].unit("um", 2) == "um2"
    assert METRICS["hd95"].unit("mm", 3) == "mm"
    assert METRICS["dice"].unit("mm", 3) == ""
    assert Pair(np.ones((4, 5)), np.ones((4, 5)), spacing=(0.5, 0.5), units="um").sizes == (5, 5)
    assert Pair(np.ones((4, 5)), np.ones((4, 5)), spacing=(2, 3), units="mm").sizes == (120, 120)


def test_volume_functions():
    large, small, nothing = np.ones((2, 2, 2)), np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    small[0] = 1
    assert volume_difference_ml(small, large, spacing_mm=(10, 10, 10)) == -4
    assert relative_volume_difference(small, large) == -0.5
    assert relative_volume_difference(nothing, large) == -1
    assert relative_volume_difference(large, nothing) == math.inf
    assert relative_volume_difference(nothing, nothing) == 0


def test_golden_volumes_and_overlaps(root):
    folder = root.parent / "shared" / "golden" / "3d" / "metrics"
    if not folder.is_dir():
        pytest.skip("needs the figures of the public codes")
    import json

    labels, figures = np.load(folder / "labels.npz"), json.loads((folder / "values.json").read_text())
    for case in ("ellipsoids_aniso", "touching_border", "two_components", "empty_prediction", "empty_reference"):
        pred, ref, spacing = (labels[f"{case}__{part}"] for part in ("pred", "ref", "spacing"))
        counts = figures[case]["counts"]
        found = compare(pred, ref, spacing=spacing, metrics=("dice", "iou", "volume_difference"))
        assert found["volume_difference"] == pytest.approx(counts["pred_ml"] - counts["ref_ml"])
        assert found["dice"] == pytest.approx(figures[case]["monai"]["dice_keep_empty"], abs=1e-6)
        assert found["iou"] == pytest.approx(counts["inter"] / (counts["pred"] + counts["ref"] - counts["inter"]))


def test_precision_and_recall():
    assert precision([1, 1, 1, 0], [1, 0, 0, 1]) == pytest.approx(1 / 3)
    assert recall([1, 1, 1, 0], [1, 0, 0, 1]) == 0.5
    assert (precision([0], [0]), recall([0], [0])) == (1, 1)
    assert (precision([1], [0]), recall([1], [0])) == (precision([0], [1]), recall([0], [1])) == (0, 0)


def test_objects_are_labels_or_connected_parts():
    reference = np.array([[1, 1, 2, 2, 0, 3]])
    prediction = np.array([[4, 4, 4, 4, 0, 5]])
    options = {"spacing": (1, 1), "metrics": ["ap50"]}
    assert compare(prediction, reference, objects=True, **options) == {"ap50": pytest.approx(2 / 3)}
    assert compare(prediction, reference, **options) == {"ap50": 1}


def test_an_unknown_measure():
    with pytest.raises(KeyError):
        compare([[1]], [[1]], spacing=(1, 1), metrics=["diice"])
