"""Scores of masks: pure functions on arrays and spacing."""

from napari_medt.measure.instances import Matches, components, match
from napari_medt.measure.metrics import DEFAULT, DEFAULT_OBJECTS, METRICS, Metric, Pair, compare, scores_of_nothing
from napari_medt.measure.overlap import Overlap, count, dice, f1, iou, precision, recall
from napari_medt.measure.statistics import PairedTest, Summary, interval, paired_test, summarise
from napari_medt.measure.surfaces import (
    Surfaces,
    average_surface_distance,
    bounding_box,
    hausdorff_distance,
    hd95,
    surface_dice,
)
from napari_medt.measure.volumes import relative_volume_difference, volume_difference_ml, volume_ml

__all__ = [
    "DEFAULT",
    "DEFAULT_OBJECTS",
    "METRICS",
    "Matches",
    "Metric",
    "Overlap",
    "Pair",
    "PairedTest",
    "Summary",
    "Surfaces",
    "average_surface_distance",
    "bounding_box",
    "compare",
    "components",
    "count",
    "dice",
    "f1",
    "hausdorff_distance",
    "hd95",
    "interval",
    "iou",
    "match",
    "paired_test",
    "precision",
    "recall",
    "relative_volume_difference",
    "scores_of_nothing",
    "summarise",
    "surface_dice",
    "volume_difference_ml",
    "volume_ml",
]
