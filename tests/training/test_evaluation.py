"""Scores of a model: one row a case and class, means over images, pooled pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Cancelled, Geometry, MedtError, Volume
from napari_medt.training import evaluate
from napari_medt.training.evaluation import to_scores


def picture(*values):
    """A grey row of pixels, high enough to be an image."""
    return np.tile(np.array(values, np.uint8), (4, 1))


class TestEvaluate:
    def test_counts_and_scores_of_known_masks(self, threshold):
        images = [picture(255, 255, 0, 0), picture(0, 0, 0, 0), picture(0, 0, 0, 255)]
        truths = [picture(0, 1, 1, 0), picture(0, 0, 0, 0), picture(0, 0, 0, 0)]
        table = evaluate(threshold, zip(images, truths, strict=True), names=["a", "b", "c"], groups=["x", "x", "y"])
        assert isinstance(table, pd.DataFrame)
        assert list(table["name"]) == ["a", "b", "c"]
        assert set(table["class"]) == {"disc"}
        assert list(table["dice"]) == [0.5, 1.0, 0.0]
        assert list(table["iou"]) == pytest.approx([1 / 3, 1.0, 0.0])
        assert list(table["both"]) == [4, 0, 0]
        assert list(table["only_prediction"]) == [4, 0, 4]
        assert list(table["only_reference"]) == [4, 0, 0]

    def test_every_class_is_measured_by_itself(self, make_model):
        class Thirds(nn.Module):
            in_channels, num_classes = 3, 3

            def forward(self, x):
                return torch.stack([-(x[:, 0] - level).abs() for level in (0.0, 0.5, 1.0)], dim=1)

        model = make_model(Thirds(), classes=("background", "dim", "bright"), net_options={"num_classes": 3})
        table = evaluate(model, [(picture(0, 120, 130, 255), picture(0, 1, 2, 2))])
        assert list(table["class"]) == ["dim", "bright"]
        assert list(table["dice"]) == pytest.approx([2 / 3, 2 / 3])

    def test_volumes_are_taken_too(self, threshold):
        volume = Volume.from_array(picture(255, 0))
        assert evaluate(threshold, [(volume, picture(1, 0))])["dice"].item() == 1

    def test_other_measures_in_the_unit_of_the_image(self, threshold):
        volume = Volume.from_array(picture(255, 0, 0), geometry=Geometry.from_spacing((0.5, 2.0), units="mm"))
        cases = [(volume, picture(1, 1, 0)), (volume, picture(0, 0, 0))]
        table = evaluate(threshold, cases, metrics=["hd95", "surface_dice", "ap50"], tolerance=2)
        assert list(table["hd95"]) == [2, np.inf]
        assert list(table["surface_dice"]) == [1, 0]
        assert list(table["ap50"]) == [1, 0]
        with pytest.raises(MedtError, match=r"no measure hd96; choose from dice, .*hd95"):
            evaluate(threshold, cases, metrics=["hd96"])

    def test_progress_and_cancel(self, threshold):
        seen = []
        cases = [(picture(255, 0), picture(1, 0))] * 2
        evaluate(threshold, cases, progress=lambda *report: seen.append(report[:2]))
        assert seen == [(0, 2), (1, 2), (2, 2)]
        cancel = Cancel()
        cancel.set()
        with pytest.raises(Cancelled):
            evaluate(threshold, cases, cancel=cancel)

    def test_a_mask_of_another_shape(self, threshold):
        with pytest.raises(BadTrainingData, match=r"mask of case 2 has \(4, 3\) pixels but its image has \(4, 2\)"):
            evaluate(threshold, [(picture(0, 0), picture(0, 0)), (picture(0, 0), picture(0, 0, 0))])


def test_scores_are_means_by_group_and_f1_is_pooled():
    table = pd.DataFrame(
        {
            "name": ["a", "b", "c"],
            "group": ["x", "x", "y"],
            "class": "disc",
            "dice": [1.0, 0.5, 0.0],
            "iou": [1.0, 1 / 3, 0.0],
            "both": [0, 100, 0],
            "only_prediction": [0, 100, 0],
            "only_reference": [0, 100, 10],
        }
    )
    scores = {score.group: score for score in to_scores(table, "made up")}
    assert list(scores) == ["x", "y", "all"]
    assert (scores["x"].images, scores["x"].dice, scores["x"].f1) == (2, 0.75, 0.5)
    assert (scores["y"].dice, scores["y"].f1) == (0, 0)
    assert (scores["all"].dice, scores["all"].iou) == (0.5, round(4 / 9, 4))
    assert scores["all"].f1 == round(200 / 410, 4)
    assert {score.dataset for score in scores.values()} == {"made up"}


def test_structures_have_scores_of_their_own_and_images_count_once():
    """Of two images, the second lacks the parotid in the prediction: it counts as missed, not as a distance."""
    rows = [
        ("a", "brainstem", 1.0, 1.0, 8, 0, 0, 1.5),
        ("a", "parotid", 0.5, 1 / 3, 2, 2, 2, 4.5),
        ("b", "brainstem", 1.0, 1.0, 8, 0, 0, 0.5),
        ("b", "parotid", 0.0, 0.0, 0, 0, 4, np.inf),
    ]
    columns = ["name", "class", "dice", "iou", "both", "only_prediction", "only_reference", "hd95"]
    scores = to_scores(pd.DataFrame(rows, columns=columns).assign(group=""), "made up")
    assert [(s.group, s.structure, s.images) for s in scores] == [
        ("all", "brainstem", 2),
        ("all", "parotid", 2),
        ("all", "", 2),
    ]
    assert [(s.dice, s.hd95, s.missed) for s in scores] == [(1.0, 1.0, 0), (0.25, 4.5, 1), (0.625, 1.75, 1)]


def test_every_structure_of_every_group_has_its_row_and_interval():
    """Of three images an interval over images, of one none; the mean over structures is that of each image first."""
    rows = [
        (name, group, structure, dice, dice, 1, 0, 0, 2.0)
        for name, group, dices in (("a", "x", (1, 0)), ("b", "x", (0.5, 0.5)), ("c", "y", (0.25, 0.75)))
        for structure, dice in zip(("left", "right"), dices, strict=True)
    ]
    columns = ["name", "group", "class", "dice", "iou", "both", "only_prediction", "only_reference", "hd95"]
    scores = {(s.group, s.structure): s for s in to_scores(pd.DataFrame(rows, columns=columns), "made up")}
    assert list(scores) == [(group, name) for group in ("x", "y", "all") for name in ("left", "right", "")]
    assert [scores[group, ""].images for group in ("x", "y", "all")] == [2, 1, 3]
    assert scores["y", "left"].dice_interval is None
    assert scores["all", ""].dice_interval == (0.5, 0.5)
    low, high = scores["all", "left"].dice_interval
    assert 0.25 <= low < scores["all", "left"].dice < high <= 1
    assert scores["all", "right"].hd95_interval == (2.0, 2.0)
