"""Scores of masks: pure functions on arrays."""

from napari_medt.measure.overlap import Overlap, count, dice, f1, iou

__all__ = ["Overlap", "count", "dice", "f1", "iou"]
